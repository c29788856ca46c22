"""Do the report's figures agree with scikit-learn's and pyeer's, on the scores of real photos?

    FACE_TEST_DATA=... python -m benchmarks.agreement --sets lfw3d study6 frmdb

Photos go through the project's own stages with the stand-in pack; then all pairs of a set are scored twice:
by `verification`, and one by one for the two libraries. pyeer (pip install pyeer) is an independent
implementation; its FMR100 is the FNMR at the first threshold whose FMR is below 1 %, not interpolated.
"""

import argparse
import os
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score, roc_curve

from src.evaluation import verification
from src.networks import embedding
from src.packs import faces
from src.packs.pack import load
from src.photos import cleaning, finding

sys.modules.setdefault("pkg_resources", types.ModuleType("pkg_resources"))  # pyeer wants it for reports only


def scores_of(vectors: np.ndarray, photos: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of all pairs, near-duplicates aside, as anybody would write it."""
    i, j = np.triu_indices(len(vectors), 1)
    group, identity = photos["group"].to_numpy(), pd.factorize(photos["identity"])[0]
    apart = (group[i] != group[j]) | (group[i] < 0)
    scores = (vectors @ vectors.T)[i, j]
    return scores[apart], (identity[i] == identity[j])[apart]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("FACE_TEST_DATA"))
    parser.add_argument("--sets", nargs="+", default=["lfw3d", "study6"])
    parser.add_argument("--keep", type=Path, help="folder for faces and embeddings, to be reused")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the real photos are: --data, or FACE_TEST_DATA")
    from pyeer.eer_info import get_eer_stats

    pack = load("standin", root=arguments.data)
    rows = []
    for name in arguments.sets:
        folder = arguments.data / name / "images"
        keep = (arguments.keep or Path(tempfile.mkdtemp())) / name
        if not (keep / "faces.parquet").exists():
            keep.mkdir(parents=True, exist_ok=True)
            images = cleaning.clean(finding.find(folder), folder)
            found, crops = faces.extract(images, folder, pack)
            np.save(keep / "embeddings.npy", embedding.embed(crops, pack))
            np.save(keep / "crops.npy", crops)
            faces.table(images, found).to_parquet(keep / "faces.parquet")
        photos, vectors = pd.read_parquet(keep / "faces.parquet"), np.load(keep / "embeddings.npy")
        test = verification.trials(photos.assign(split=name), name)
        table = verification.report(verification.evaluate({"stand-in pack": vectors}, {name: test}))
        ours = table[table["quality"] == "all"].to_dict("records")[0]
        scores, same = scores_of(vectors, photos)
        far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
        other = get_eer_stats(scores[same].tolist(), scores[~same].tolist())
        sklearn = {"auc": roc_auc_score(same, scores), "tar_far_1e-2": np.interp(0.01, far, tar)}
        sklearn["tar_far_1e-3"] = np.interp(0.001, far, tar)
        pyeer = {"auc": other.auc, "eer": other.eer, "d_prime": other.decidability}
        pyeer |= {"tar_far_1e-2": 1 - other.fmr100, "tar_far_1e-3": 1 - other.fmr1000}
        for measure in ("auc", "eer", "tar_far_1e-2", "tar_far_1e-3", "d_prime"):
            theirs = [values.get(measure, np.nan) for values in (sklearn, pyeer)]
            rows.append((name, len(scores), measure, ours[measure], *theirs))
    columns = ["set", "pairs", "measure", "ours", "scikit-learn", "pyeer"]
    result = pd.DataFrame(rows, columns=columns)
    for library in columns[4:]:
        result[f"less {library}"] = result["ours"] - result[library]
    print(result.to_string(index=False, float_format=lambda value: f"{value:.8f}"))


if __name__ == "__main__":
    main()
