"""What adaptive symmetric score normalisation (AS-norm) gains on pairs of a finished run of the notebook.

The cohort is photos of other people that the run had (`strangers`), of the part that models learn from; none
of them is in a pair. Per model and stratum of test_seen: AUC before and after, the difference with its 95 %
interval over people, and the share of genuine pairs rejected where 1 % of impostor pairs are accepted.

    python -m benchmarks.score_normalisation PROCESSED            # seconds
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.coverage import Pairs, aucs
from src.evaluation import intervals
from src.evaluation.score_norm import as_norm

TOPS = (30, 100, 300)


def cohort_of(folder: Path, name: str) -> np.ndarray:
    """A model's embeddings of others' photos that models learn from [C, D], those without a face left out."""
    kinds = pd.concat(
        [pd.read_parquet(folder / "probes" / f"{part}.parquet") for part in ("others", "nobody")]
    )
    vectors = np.load(folder / "probes" / "embeddings" / f"{name}.npy")
    if len(vectors) != len(kinds):
        raise ValueError(f"{len(vectors)} embeddings of {name}, but {len(kinds)} probes")
    wanted = kinds["kind"].str.startswith("others") & (kinds["split"] == "train")
    rows = vectors[wanted.to_numpy()]
    return rows[np.isfinite(rows[:, 0])]


def measured(
    faces: pd.DataFrame, vectors: np.ndarray, cohort: np.ndarray, top: int
) -> list[dict[str, object]]:
    """One row per stratum of the photos of `faces` [n], whose embeddings are [n, D]."""
    person = pd.factorize(faces["identity"], sort=True)[0]
    group, low = faces["group"].to_numpy(), (faces["quality"] == "low").to_numpy().astype(int)
    plain, near = vectors @ vectors.T, vectors @ cohort.T
    normalised = as_norm(plain, near, near, top)
    i, j = np.triu_indices(len(person), 1)
    apart = (group[i] != group[j]) | (group[i] < 0)
    rows = []
    for stratum, kind in (("low-low", 2), ("high-low", 1), ("high-high", 0)):
        of = apart & (low[i] + low[j] == kind)
        a, b = i[of], j[of]
        same = person[a] == person[b]
        at = np.column_stack([a, b])
        pairs = Pairs(person, at[same], at[~same])
        weights = np.bincount(person[a[same]], minlength=person.max() + 1)
        found = [aucs(pairs, of_all[a, b][same], of_all[a, b][~same]) for of_all in (plain, normalised)]
        (old, old_without), (new, new_without) = found
        low_end, high_end, _ = intervals.difference(old, new, old_without, new_without, weights)
        row = {"stratum": stratum, "top": top, "before": old, "after": new, "low": low_end, "high": high_end}
        for name, of_all in (("frr_before", plain), ("frr_after", normalised)):
            threshold = np.quantile(of_all[a, b][~same], 0.99)
            row[name] = float(np.mean(of_all[a, b][same] <= threshold))
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("processed", type=Path, help="folder of a finished run that had `strangers`")
    folder = parser.parse_args().processed
    faces = pd.read_parquet(folder / "faces.parquet")
    test = np.flatnonzero(faces["split"] == "test_seen")
    test = test[np.argsort(faces["identity"].to_numpy()[test], kind="stable")]
    rows = []
    for file in sorted((folder / "probes" / "embeddings").glob("*.npy")):
        vectors = np.load(folder / "embeddings" / file.name)[test]
        for top in TOPS:
            found = measured(faces.iloc[test], vectors, cohort_of(folder, file.stem), top)
            rows += [{"model": file.stem} | row for row in found]
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
