"""Tests other than all pairs: identification (who is it, of many) and published lists of pairs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from src.evaluation.intervals import interval, share_without_each
from src.evaluation.pairs import QUALITIES, Trials, checked, first_test, possible
from src.evaluation.support import SUPPORT, limited
from src.limits import NotPossible

CLUSTERS = 50  # parts of the people, beyond which intervals leave out several at once
RANKS = (1, 5, 10)
FPIRS = {"fnir_fpir_1e-1": 0.1, "fnir_fpir_1e-2": 0.01}


# ---------------------------------------------------------------- identification


def identify(
    embeddings: Mapping[str, np.ndarray | NotPossible],
    test: Trials,
    strangers: Trials | None = None,
    pooled: bool = False,
) -> pd.DataFrame:
    """Searches every probe in a gallery: one row per model and probe.

    embeddings: float32 [N, D] unit rows by model; all-NaN rows are failures to enrol.
    The gallery is the high-quality photos of `test`, the probes its low-quality photos of people in the
    gallery and, non-mated, the low-quality photos of `strangers`, who must not be in the gallery. Without
    both qualities, the gallery is each person's first photo, and all others are probes. A person's score is
    that of the most similar photo in the gallery, near-duplicates of the probe aside; pooled: that of the
    mean of the person's photos there, a template, such near-duplicates aside.

    Columns: model, row (of the embeddings), identity, mated, gallery (people), rank (of the probe's person;
    NaN where there is no embedding), mate (the score of that person) and best (the highest score of all);
    -inf is the score of what has no embedding. Raises NotPossible where no probe has anybody to be found,
    ValueError where one of the strangers is in the gallery.
    """
    gallery, probes = _gallery_and_probes(test)
    people = np.unique(test.identity[gallery])
    starts = np.searchsorted(test.identity[gallery], people)  # of each person's photos in the gallery
    near = (test.group[probes, None] == test.group[gallery]) & (test.group[gallery] >= 0)
    if strangers is not None:
        others = _non_mated(strangers, [test.people[code] for code in people])

    tables = []
    for model, vectors in possible(embeddings).items():
        known = checked(vectors, test.rows, model)
        of_people = _of_people(known[probes], known[gallery], starts, near, pooled)
        mate = of_people[np.arange(len(probes)), np.searchsorted(people, test.identity[probes])]
        # of equal scores, the person looked for comes last: a tie is no identification
        rank = np.where(np.isfinite(mate), (of_people >= mate[:, None]).sum(1), np.nan)
        table = _probes(test, probes).assign(mated=True, rank=rank, mate=mate, best=of_people.max(1))
        tables.append(table.assign(model=model))
        if strangers is not None:
            unknown = checked(vectors, strangers.rows[others], model)
            none = np.zeros((len(unknown), len(gallery)), bool)
            best = _of_people(unknown, known[gallery], starts, none, pooled).max(1)
            table = _probes(strangers, others).assign(mated=False, rank=np.nan, mate=-np.inf, best=best)
            tables.append(table.assign(model=model))
    found = pd.concat(tables, ignore_index=True).assign(gallery=len(people))
    return found[["model", "row", "identity", "mated", "gallery", "rank", "mate", "best"]]


def search(
    embeddings: Mapping[str, np.ndarray | NotPossible], tests: Mapping[str, Trials], pooled: bool = False
) -> pd.DataFrame:
    """`identify` on the first test set; strangers are the people of "test_unseen", where it is another."""
    test = first_test(tests)
    others = tests.get("test_unseen")
    return identify(embeddings, test, None if others is test else others, pooled)


def templates(embeddings: Mapping[str, np.ndarray | NotPossible], test: Trials) -> pd.DataFrame:
    """One photo against a person, 1:1: AUC of single photos of the gallery and of templates, by model.

    Gallery and probes as of `identify`. Genuine is a probe with its own person's best photo, or template,
    impostor one with another person's. Columns: model, people, genuine, impostor, single and template (AUC),
    each with its 95 % interval, `_low` and `_high`, which leaves out people, as probes and as templates, in
    turn (where they are more than CLUSTERS, in so many parts). Errors as of `identify`.
    """
    gallery, probes = _gallery_and_probes(test)
    people = np.unique(test.identity[gallery])
    starts = np.searchsorted(test.identity[gallery], people)
    near = (test.group[probes, None] == test.group[gallery]) & (test.group[gallery] >= 0)
    own = test.identity[probes][:, None] == people
    part = np.arange(len(people)) % CLUSTERS
    part_of_probe = part[own.argmax(1)]
    rows = []
    for model, vectors in possible(embeddings).items():
        known = checked(vectors, test.rows, model)
        row: dict[str, object] = {"model": model, "people": len(people)}
        row |= {"genuine": int(own.sum()), "impostor": int((~own).sum())}
        for name, pooled in (("single", False), ("template", True)):
            scores = _of_people(known[probes], known[gallery], starts, near, pooled)
            value = _auc(scores, own)
            left_out = [
                _auc(scores[part_of_probe != one][:, part != one], own[part_of_probe != one][:, part != one])
                for one in range(part.max() + 1)
            ]
            weights = np.bincount(part_of_probe, minlength=part.max() + 1)
            low, high = interval(value, np.array(left_out), weights)
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _auc(scores: np.ndarray, own: np.ndarray) -> float:
    """AUC of the scores [n, K] of own people against others; NaN where a kind is missing."""
    genuine, impostor = scores[own], np.sort(scores[~own])
    if not len(genuine) or not len(impostor):
        return np.nan
    below = np.searchsorted(impostor, genuine, "left") + np.searchsorted(impostor, genuine, "right")
    return float(below.mean() / (2 * len(impostor)))


def cmc(found: pd.DataFrame, ranks: int = 20) -> pd.DataFrame:
    """Cumulative match characteristic of `identify`'s table, up to the rank `ranks`.

    Columns: model, rank, rate, and its 95 % interval, low and high.
    """
    rows = []
    for model, probes in found[found["mated"]].groupby("model", sort=False):
        for rank in range(1, min(ranks, int(probes["gallery"].iloc[0])) + 1):
            rows.append((model, rank, *_rate(probes["rank"] <= rank, probes["identity"])))
    return pd.DataFrame(rows, columns=["model", "rank", "rate", "low", "high"])


def identification(found: pd.DataFrame) -> pd.DataFrame:
    """One row per model of `identify`'s table: rank-1, 5 and 10 rates, FNIR at FPIR 10 % and 1 %.

    Columns: model, gallery (people), mated and non_mated (probes), then rank_1, rank_5, rank_10,
    fnir_fpir_1e-1 and fnir_fpir_1e-2, each with its `_low` and `_high`.

    FPIR is the share of non-mated probes whose best score reaches the threshold, FNIR that of mated probes
    whose person's does not, at any rank (ISO/IEC 19795-1). Intervals of 95 % leave out the probes' people in
    turn; they hold for this gallery and, for FNIR, this threshold. An FNIR is NaN where the non-mated probes,
    as independent ones, are too few for its FPIR, a rate where the gallery has no such rank.
    """
    rows = []
    for model, probes in found.groupby("model", sort=False):
        mated, strangers = probes[probes["mated"]], probes[~probes["mated"]]
        people = int(probes["gallery"].iloc[0])
        row = {"model": model, "gallery": people, "mated": len(mated), "non_mated": len(strangers)}
        rates = {f"rank_{rank}": mated["rank"] <= rank for rank in RANKS if rank <= people}
        for column, fpir in FPIRS.items():
            if len(strangers) * fpir < SUPPORT:
                continue
            best = np.sort(strangers["best"])[::-1]
            threshold = best[int(fpir * len(best))]  # scores above it are at most the share fpir
            found_wrongly = strangers["best"] > threshold
            without = share_without_each(found_wrongly, strangers["identity"])[1]
            if limited(float(found_wrongly.mean()), without, len(strangers)) >= SUPPORT:
                rates[column] = ~(mated["mate"] > threshold)
        for column in (*(f"rank_{rank}" for rank in RANKS), *FPIRS):
            value, low, high = np.nan, np.nan, np.nan
            if column in rates:
                value, low, high = _rate(rates[column], mated["identity"])
            row |= {column: value, f"{column}_low": low, f"{column}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _gallery_and_probes(test: Trials) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the test set: the gallery, by person, and the probes of people who are in it."""
    high, low = (test.quality == QUALITIES.index(name) for name in ("high", "low"))
    if np.isin(test.identity[low], test.identity[high]).any():
        gallery, probes = np.flatnonzero(high), np.flatnonzero(low)
    else:
        gallery = np.unique(test.identity, return_index=True)[1]
        probes = np.setdiff1d(np.arange(len(test.rows)), gallery)
    probes = probes[np.isin(test.identity[probes], test.identity[gallery])]
    if not len(probes):
        raise NotPossible(f"{test.name}: nobody has a photo for the gallery and another to be looked for")
    return gallery[np.argsort(test.identity[gallery], kind="stable")], probes


def _non_mated(test: Trials, enrolled: list[str]) -> np.ndarray:
    """Positions of the non-mated probes: low-quality photos where there are some, else all."""
    if known := sorted(set(enrolled) & set(test.people)):
        raise ValueError(f"{test.name} holds people who are in the gallery, the first of them {known[0]}")
    low = test.quality == QUALITIES.index("low")
    return np.flatnonzero(low) if low.any() else np.arange(len(test.rows))


def _probes(test: Trials, at: np.ndarray) -> pd.DataFrame:
    """The photos at these positions of the test set: columns row, identity."""
    identities = [test.people[code] for code in test.identity[at]]
    return pd.DataFrame({"row": test.rows[at], "identity": identities})


def _of_people(
    probes: np.ndarray, gallery: np.ndarray, starts: np.ndarray, near: np.ndarray, pooled: bool
) -> np.ndarray:
    """The score of each probe with each person of the gallery, [n, K].

    starts: of each person's photos in the gallery [m], [K]. near: which of them are near-duplicates of the
    probe, bool [n, m]; they have no say. -inf is the score of what has no embedding.
    """
    if not pooled:
        scores = _scores(probes, gallery)
        scores[near] = -np.inf
        return np.maximum.reduceat(scores, starts, axis=1)
    enrolled = np.nan_to_num(gallery.astype(np.float64))
    sums = np.add.reduceat(enrolled, starts, axis=0)
    lengths = np.broadcast_to(np.linalg.norm(sums, axis=1), (len(probes), len(starts))).copy()
    products = np.nan_to_num(probes.astype(np.float64)) @ sums.T
    person = np.searchsorted(starts, np.arange(len(gallery)), side="right") - 1
    for probe in np.flatnonzero(near.any(1)):
        for one in np.unique(person[near[probe]]):
            rest = sums[one] - enrolled[near[probe] & (person == one)].sum(0)
            lengths[probe, one] = np.linalg.norm(rest)
            products[probe, one] = np.nan_to_num(probes[probe].astype(np.float64)) @ rest
    scores = np.divide(products, lengths, out=np.full(products.shape, -np.inf), where=lengths > 1e-9)
    scores[np.isnan(probes).any(1)] = -np.inf
    return scores


def _scores(probes: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Cosines [n, m] of unit rows [n, D] with unit rows [m, D]; -inf where there is no embedding."""
    return np.nan_to_num(probes @ gallery.T, nan=-np.inf)


def _rate(hits: pd.Series, identity: pd.Series) -> tuple[float, float, float]:
    """Share of hits [n] and its 95 % interval, which leaves out the probes' people [n] in turn."""
    value, left_out, weights = share_without_each(hits, identity)
    return value, *interval(value, left_out, weights)


# ---------------------------------------------------------------- published pairs


def read_pairs(file: Path, suffix: str = ".jpg") -> pd.DataFrame:
    """The pairs of a `pairs.txt` of LFW or XQLFW.

    Columns: fold, a and b (paths: "<person>/<person>_0001.jpg"), same (whether genuine). The file's first
    line gives the number of folds and of pairs of each kind in a fold (one number: a single fold). A line of
    three fields is a genuine pair, of four an impostor pair. Raises ValueError where the file is not so,
    naming the line.
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
            person, at = fields[:2]
            other_person, other_at = fields[2:] if len(fields) == 4 else (person, fields[2])
            a = f"{person}/{person}_{int(at):04d}{suffix}"
            b = f"{other_person}/{other_person}_{int(other_at):04d}{suffix}"
        except (IndexError, ValueError):
            raise ValueError(f"{file}, pair {i + 1}: {' '.join(fields)!r} is no pair") from None
        rows.append((i // (2 * each), a, b, len(fields) == 3))
    return pd.DataFrame(rows, columns=["fold", "a", "b", "same"])


def ten_fold(embeddings: Mapping[str, np.ndarray], paths: pd.Series, pairs: pd.DataFrame) -> pd.DataFrame:
    """LFW's protocol: per model, the mean accuracy over the folds and its standard error.

    embeddings: float32 [N, D] unit rows by model; all-NaN rows are failures to enrol. paths: [N], of the
    embeddings' rows, as in `pairs`, which is as of `read_pairs`. The threshold of a fold is the one most
    accurate on all others (Huang et al. 2007, "Labeled Faces in the Wild", view 2). A pair with a failure is
    rejected. Columns: model, folds, pairs, accuracy, standard_error.
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
    for model, embedded in embeddings.items():
        vectors = checked(embedded, np.arange(len(embedded)), model)
        scores = np.nan_to_num(np.einsum("id,id->i", vectors[a], vectors[b]), nan=-np.inf)
        accuracy = []
        for held in folds:
            threshold = _most_accurate(scores[fold != held], same[fold != held])
            accuracy.append(np.mean((scores[fold == held] >= threshold) == same[fold == held]))
        standard_error = np.std(accuracy, ddof=1) / np.sqrt(len(folds))
        rows.append((model, len(folds), len(pairs), np.mean(accuracy), standard_error))
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
