"""Other ways to test than all pairs: who is it, of many (identification), and published lists of pairs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from src.pairs import QUALITIES, Trials, checked
from src.verification import SUPPORT, interval

RANKS = (1, 5, 10)
FPIRS = {"fnir_fpir_1e-1": 0.1, "fnir_fpir_1e-2": 0.01}


# ---------------------------------------------------------------- identification


def identify(
    embeddings: Mapping[str, np.ndarray], test: Trials, strangers: Trials | None = None
) -> pd.DataFrame:
    """Searches every probe in a gallery: one row per model and probe.

    The gallery is the high-quality photos of `test`, the probes its low-quality photos of people in the
    gallery and, non-mated, the low-quality photos of `strangers`, who must not be in the gallery. Without
    both qualities, the gallery is each person's first photo, and all others are probes. A person's score is
    that of the most similar photo in the gallery, near-duplicates of the probe aside.

    Columns: model, row (of the embeddings), identity, mated, gallery (people), rank (of the probe's person;
    NaN where there is no embedding), mate (the score of that person) and best (the highest score of all);
    -inf is the score of what has no embedding. Raises ValueError where no probe has anybody to be found.
    """
    high, low = (test.quality == QUALITIES.index(name) for name in ("high", "low"))
    if np.isin(test.identity[low], test.identity[high]).any():
        gallery, probes = np.flatnonzero(high), np.flatnonzero(low)
    else:
        gallery = np.unique(test.identity, return_index=True)[1]
        probes = np.setdiff1d(np.arange(len(test.rows)), gallery)
    people = np.unique(test.identity[gallery])
    probes = probes[np.isin(test.identity[probes], people)]
    if not len(probes):
        raise ValueError(f"{test.name}: nobody has a photo for the gallery and another to be looked for")
    gallery = gallery[np.argsort(test.identity[gallery], kind="stable")]
    starts = np.searchsorted(test.identity[gallery], people)

    tables = []
    for name, vectors in embeddings.items():
        own = checked(vectors, test.rows, name)
        scores = _scores(own[probes], own[gallery])
        near = (test.group[probes, None] == test.group[gallery]) & (test.group[gallery] >= 0)
        scores[near] = -np.inf
        of_people = np.maximum.reduceat(scores, starts, axis=1)
        mate = of_people[np.arange(len(probes)), np.searchsorted(people, test.identity[probes])]
        # of equal scores, the person looked for comes last: a tie is no identification
        rank = np.where(np.isfinite(mate), (of_people >= mate[:, None]).sum(1), np.nan)
        best, identities = of_people.max(1), [test.people[code] for code in test.identity[probes]]
        mated = pd.DataFrame({"row": test.rows[probes], "identity": identities, "mated": True})
        tables.append(mated.assign(model=name, rank=rank, mate=mate, best=best))
        if strangers is not None:
            others = _strangers(strangers, [test.people[code] for code in people])
            best = _scores(checked(vectors, strangers.rows[others], name), own[gallery]).max(1)
            identities = [strangers.people[code] for code in strangers.identity[others]]
            table = pd.DataFrame({"row": strangers.rows[others], "identity": identities, "mated": False})
            tables.append(table.assign(model=name, rank=np.nan, mate=-np.inf, best=best))
    found = pd.concat(tables, ignore_index=True).assign(gallery=len(people))
    return found[["model", "row", "identity", "mated", "gallery", "rank", "mate", "best"]]


def cmc(found: pd.DataFrame, ranks: int = 20) -> pd.DataFrame:
    """Cumulative match characteristic of `identify`'s table: model, rank, rate, 95 % interval low, high."""
    rows = []
    for name, probes in found[found["mated"]].groupby("model", sort=False):
        for rank in range(1, min(ranks, int(probes["gallery"].iloc[0])) + 1):
            rows.append((name, rank, *_rate(probes["rank"] <= rank, probes["identity"])))
    return pd.DataFrame(rows, columns=["model", "rank", "rate", "low", "high"])


def identification(found: pd.DataFrame) -> pd.DataFrame:
    """One row per model of `identify`'s table: rank-1, 5 and 10 rates, FNIR at FPIR 10 % and 1 %.

    FPIR is the share of non-mated probes whose best score reaches the threshold, FNIR that of mated probes
    whose person's does not, at any rank (ISO/IEC 19795-1). Intervals of 95 % leave out the probes' people in
    turn; they hold for this gallery and, for FNIR, this threshold. An FNIR is NaN where the non-mated probes
    are too few for its FPIR, a rate where the gallery has no such rank.
    """
    rows = []
    for name, probes in found.groupby("model", sort=False):
        mated, strangers = probes[probes["mated"]], probes[~probes["mated"]]
        people = int(probes["gallery"].iloc[0])
        row = {"model": name, "gallery": people, "mated": len(mated), "non_mated": len(strangers)}
        rates = {f"rank_{rank}": mated["rank"] <= rank for rank in RANKS if rank <= people}
        for column, fpir in FPIRS.items():
            if len(strangers) * fpir >= SUPPORT:
                best = np.sort(strangers["best"])[::-1]
                threshold = best[int(fpir * len(best))]  # scores above it are at most the share fpir
                rates[column] = ~(mated["mate"] > threshold)
        for column in (*(f"rank_{rank}" for rank in RANKS), *FPIRS):
            values = _rate(rates[column], mated["identity"]) if column in rates else (np.nan,) * 3
            row |= dict(zip((column, f"{column}_low", f"{column}_high"), values, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def _scores(probes: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    return np.nan_to_num(probes @ gallery.T, nan=-np.inf)


def _strangers(test: Trials, enrolled: list[str]) -> np.ndarray:
    """Positions of the non-mated probes: low-quality photos where there are some, else all."""
    if known := sorted(set(enrolled) & set(test.people)):
        raise ValueError(f"{test.name} holds people who are in the gallery, the first of them {known[0]}")
    low = test.quality == QUALITIES.index("low")
    return np.flatnonzero(low) if low.any() else np.arange(len(test.rows))


def _rate(hits: pd.Series, identity: pd.Series) -> tuple[float, float, float]:
    """Share of hits and its 95 % interval, which leaves out people in turn."""
    by_person = hits.groupby(identity.to_numpy()).agg(["sum", "count"]).to_numpy(float)
    total = by_person.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        left_out = (total[0] - by_person[:, 0]) / (total[1] - by_person[:, 1])
    value = float(total[0] / total[1])
    return value, *interval(value, left_out, by_person[:, 1])


# ---------------------------------------------------------------- published pairs


def read_pairs(file: Path, suffix: str = ".jpg") -> pd.DataFrame:
    """The pairs of a `pairs.txt` of LFW or XQLFW: columns fold, a, b ("<person>/<person>_0001.jpg"), same.

    The file's first line gives the number of folds and of pairs of each kind in a fold (one number: a single
    fold). A line of three fields is a genuine pair, of four an impostor pair.
    Raises ValueError where the file is not so, naming the line.
    """
    lines = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    lines = [fields if len(fields) > 1 else fields[0].split() for fields in lines]
    try:
        folds, each = (1, int(lines[0][0])) if len(lines[0]) == 1 else map(int, lines[0])
    except (IndexError, ValueError):
        raise ValueError(f"{file}: the first line must give the numbers of folds and of pairs") from None
    if len(lines) - 1 != 2 * folds * each:
        raise ValueError(f"{file}: {2 * folds * each} pairs announced, but {len(lines) - 1} lines follow")
    rows = []
    for i, fields in enumerate(lines[1:]):
        try:
            first, one, second, other = (
                fields if len(fields) == 4 else (fields[0], fields[1], fields[0], fields[2])
            )
            photos = [f"{who}/{who}_{int(at):04d}{suffix}" for who, at in ((first, one), (second, other))]
        except (IndexError, ValueError):
            raise ValueError(f"{file}, pair {i + 1}: {' '.join(fields)!r} is no pair") from None
        rows.append((i // (2 * each), *photos, len(fields) == 3))
    return pd.DataFrame(rows, columns=["fold", "a", "b", "same"])


def ten_fold(embeddings: Mapping[str, np.ndarray], paths: pd.Series, pairs: pd.DataFrame) -> pd.DataFrame:
    """LFW's protocol: per model, the mean accuracy over the folds and its standard error.

    paths: of the embeddings' rows, as in `pairs`. The threshold of a fold is the one most accurate on all
    others (Huang et al. 2007, "Labeled Faces in the Wild", view 2). A pair with a failure is rejected.
    Raises ValueError where photos of the pairs are missing or there is one fold only.
    """
    folds = pairs["fold"].unique()
    if len(folds) < 2:
        raise ValueError("the pairs have one fold only: there is no other to choose a threshold on")
    row_of = pd.Series(np.arange(len(paths)), index=paths.to_numpy())
    wanted = pd.unique(pairs[["a", "b"]].to_numpy().ravel())
    missing = [path for path in wanted if path not in row_of.index]
    if missing:
        raise ValueError(
            f"{len(missing)} of the pairs' {len(wanted)} photos are missing, the first: {missing[0]}"
        )
    a, b = (row_of[pairs[side]].to_numpy() for side in ("a", "b"))
    same, fold = pairs["same"].to_numpy(), pairs["fold"].to_numpy()
    rows = []
    for name, vectors in embeddings.items():
        unit = checked(vectors, np.arange(len(vectors)), name)
        scores = np.nan_to_num(np.einsum("id,id->i", unit[a], unit[b]), nan=-np.inf)
        accuracy = []
        for held in folds:
            threshold = _most_accurate(scores[fold != held], same[fold != held])
            accuracy.append(np.mean((scores[fold == held] >= threshold) == same[fold == held]))
        error = np.std(accuracy, ddof=1) / np.sqrt(len(folds))
        rows.append((name, len(folds), len(pairs), np.mean(accuracy), error))
    return pd.DataFrame(rows, columns=["model", "folds", "pairs", "accuracy", "standard_error"])


def _most_accurate(scores: np.ndarray, same: np.ndarray) -> float:
    """The threshold that decides most pairs rightly: half-way between two scores."""
    order = np.argsort(scores, kind="stable")
    scores, same = scores[order], same[order]
    right = np.concatenate([[0], np.cumsum(~same)]) + np.concatenate([np.cumsum(same[::-1])[::-1], [0]])
    distinct = np.concatenate([[True], scores[1:] > scores[:-1], [True]])
    distinct[: np.isneginf(scores).sum()] = False  # a failure to enrol is accepted nowhere
    at = int(np.argmax(np.where(distinct, right, -1)))
    edges = np.concatenate([[-2.0], np.maximum(scores, -2.0), [2.0]])
    return float((edges[at] + edges[at + 1]) / 2)
