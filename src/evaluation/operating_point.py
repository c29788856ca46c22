"""Thresholds: chosen on `val` for a FAR, applied unchanged to the tests, and what is accepted there.

A threshold is an estimate. With other people in `val` it would be another, and so would be what a test has
there; so an interval leaves out the people of both. Impostors differ in kind: that a model parts the people
whom it was trained on says nothing of how near strangers come. So each test has its threshold from pairs of
its own kind, as far as `val` has such.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from src.evaluation.curves import far_and_tar
from src.evaluation.intervals import interval, of_two_samples, on_coarse_grid, why_none
from src.evaluation.pairs import ACROSS, Counts, Results, across, evaluate, possible, trials
from src.evaluation.support import SUPPORT, limited
from src.limits import NotPossible

# Whose pairs of val, and those for each test: the first that there is.
SEEN, OWN, EACH, ALL = "people in training", "people of its own", "one of each", "all"
_WHOSE = {"test_seen": (SEEN, ALL), "test_unseen": (OWN, ALL), ACROSS: (EACH, ALL, OWN)}


# ---------------------------------------------------------------- val


def in_training(faces: pd.DataFrame) -> np.ndarray:
    """Whether each photo, of whatever split, is of somebody in training: bool [N]."""
    return faces["identity"].isin(faces["identity"][faces["split"] == "train"]).to_numpy()


def on_val(embeddings: Mapping[str, np.ndarray | NotPossible], faces: pd.DataFrame) -> Results:
    """Counts of the pairs of "val" by whose they are, model and stratum.

    Whose: SEEN, photos of people in training, OWN, of people who are not, and, where val has both, EACH, the
    ones against the others, and ALL. Those without pairs of both kinds are left out; where none has any, ALL
    has models without strata.
    """
    val, known = (faces["split"] == "val").to_numpy(), in_training(faces)
    parts = {SEEN: val & known, OWN: val & ~known, ALL: val}
    if not (parts[SEEN].any() and parts[OWN].any()):
        del parts[ALL]
    found = {}
    for whose, part in parts.items():
        try:
            found[whose] = trials(faces.assign(split=np.where(part, "val", "")), "val")
        except NotPossible:
            continue
    if SEEN in found and OWN in found:
        found = {SEEN: found[SEEN], OWN: found[OWN], EACH: across(found[SEEN], found[OWN]), ALL: found[ALL]}
    if not found:
        return {ALL: {model: {} for model in possible(embeddings)}}
    return evaluate(embeddings, found)


def whose(test: str, among: Mapping[str, object]) -> str:
    """Whose pairs of val are for a test set: those of its kind, or else what there is of `on_val`'s keys."""
    return next(one for one in (*_WHOSE.get(test, (ALL,)), *among) if one in among)


def val_for(val: Results, test: str) -> dict[str, dict[str, Counts]]:
    """Of `on_val`'s counts, those by model and stratum that are for a test set, such as "test_seen"."""
    return val[whose(test, val)]


# ---------------------------------------------------------------- thresholds


def thresholds(val: Results, target_far: float) -> pd.DataFrame:
    """The lowest threshold of each model at which its FAR is at most `target_far`.

    val: as of `on_val`. One row per kind of people and model, with the FAR and TAR there. Scores
    at or above the threshold are accepted; apply it to the test sets with `at_thresholds`. `note` says where
    the impostor pairs are too few for such a FAR, where failures to enrol keep it from being reached, or
    where there are no scores to choose on; then there is no threshold (NaN). Columns: whose, model,
    target_far, threshold, far, tar, genuine and impostor (pairs), note. Raises ValueError where `target_far`
    does not lie between 0 and 1.
    """
    if not 0 < target_far < 1:
        raise ValueError(f"target_far is {target_far}; it must lie between 0 and 1")
    rows = []
    for kind, models in val.items():
        for name, strata in models.items():
            if "all" not in strata:
                note = "not possible: val has no two people with two different photos of one"
                rows.append((kind, name, target_far, *[np.nan] * 3, 0, 0, note))
                continue
            rows.append((kind, name, target_far, *_chosen(strata["all"], target_far)))
    columns = ["whose", "model", "target_far", "threshold", "far", "tar", "genuine", "impostor", "note"]
    return pd.DataFrame(rows, columns=columns)


def _chosen(counts: Counts, target_far: float) -> tuple[float, float, float, int, int, str]:
    """The threshold, FAR and TAR there, how many pairs of each kind there are, and a note."""
    fars = far_and_tar(counts.genuine, counts.impostor)[0][1:]
    scored = np.isfinite(counts.score)
    allowed = int((fars <= target_far)[: scored.sum()].sum())  # of the scores, from the highest
    threshold = np.nan
    if scored.any():
        scores, tops = counts.score[scored], counts.top[scored]
        at = len(scores) - allowed
        below, above = np.append(scores[0] - 1e-6, tops)[at], np.append(scores, tops[-1] + 1e-6)[at]
        threshold = float((below + above) / 2)  # half-way to the next, clear of rounding
    far, tar = (_share_accepted(counts, part, threshold) for part in (counts.impostor, counts.genuine))
    pairs = int(counts.impostor.sum())
    without = _share_accepted_without_each(counts, counts.impostor, counts.cluster_impostor, threshold)
    independent = limited(far, without, pairs) if far > 0 else pairs * target_far
    note = ""
    if not scored.any():
        note = "not possible: no pair has a score"
    elif allowed == scored.sum():
        note = f"failures to enrol end the curve below this FAR, at {far:.3g}: every score is accepted"
    elif min(pairs * target_far, independent) < SUPPORT:
        note = f"{pairs} impostor pairs are few for this FAR"
        if independent < pairs * target_far:
            note += f": its false matches are worth {independent:.0f} independent ones"
    return threshold, far, tar, int(counts.genuine.sum()), pairs, note


def for_test(chosen: pd.DataFrame, test: str) -> pd.DataFrame:
    """The rows of `thresholds` that are for a test set: one per model."""
    kinds = dict.fromkeys(chosen["whose"])
    return chosen[chosen["whose"] == whose(test, kinds)] if kinds else chosen


def threshold_of(chosen: pd.DataFrame, model: str, test: str) -> float:
    """A model's threshold for a test set in the table of `thresholds`; NaN where it has none."""
    rows = for_test(chosen, test)
    found = rows.loc[rows["model"] == model, "threshold"]
    return float(found.iloc[0]) if len(found) else np.nan


# ---------------------------------------------------------------- what they accept


def at_thresholds(results: Results, chosen: pd.DataFrame, val: Results) -> pd.DataFrame:
    """FAR and TAR, with 95 % intervals, at the thresholds that `thresholds` chose on `val`, as of `on_val`.

    One row per test set, model and stratum; NaN where there is no threshold. The intervals hold what such
    thresholds reach on average over people of `val` and of the test, and are never narrower than with the
    threshold as it is; `interval` says why there is none. Columns: model, test, quality, whose,
    threshold, target_far, far, far_low, far_high, tar, tar_low, tar_high, interval.
    """
    rows = []
    for test, models in results.items():
        for choice in for_test(chosen, test).to_dict("records"):
            model, threshold = choice["model"], choice["threshold"]
            of_val = val[choice["whose"]][model].get("all") if np.isfinite(threshold) else None
            moved = np.empty(0) if of_val is None else _moved(of_val, threshold, choice["target_far"])
            for quality, counts in models[model].items():
                row = {"model": model, "test": test, "quality": quality, "whose": choice["whose"]}
                row |= {"threshold": threshold, "target_far": choice["target_far"]}
                rows.append(row | _rates(counts, threshold, of_val, moved))
    return pd.DataFrame(rows)


def _rates(counts: Counts, threshold: float, of_val: Counts | None, moved: np.ndarray) -> dict[str, object]:
    """FAR and TAR of a stratum at a threshold, each with its interval."""
    row: dict[str, object] = {}
    why = "there is no threshold" if of_val is None else _why_unsure(of_val, threshold)
    for name, part, clusters in (
        ("far", counts.impostor, counts.cluster_impostor),
        ("tar", counts.genuine, counts.cluster_genuine),
    ):
        value = _share_accepted(counts, part, threshold)
        row |= {name: value, f"{name}_low": np.nan, f"{name}_high": np.nan}
        if why or of_val is None or not np.isfinite(counts.score).any():
            continue
        weights = clusters.sum(1)
        fixed = _share_accepted_without_each(counts, part, clusters, threshold)
        ends = interval(value, fixed, weights)
        at = {people: i for i, people in enumerate(of_val.cluster_people)}
        both = np.array([at.get(people, -1) for people in counts.cluster_people], int)
        alone = np.setdiff1d(np.arange(len(moved)), both)
        total = on_coarse_grid(counts, part)
        without = fixed.copy()
        for person in np.flatnonzero(both >= 0):
            curve = total - clusters[person]
            without[person] += _gained(counts, curve, threshold, moved[both[person]])
        others = np.array([value + _gained(counts, total, threshold, moved[i]) for i in alone])
        ends = _wider(ends, of_two_samples(value, without, weights, others, bool((both >= 0).any())))
        row[f"{name}_low"], row[f"{name}_high"] = ends
    return row | {"interval": why}


def _wider(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The interval that holds both; NaN where one is."""
    return float(np.minimum(one[0], other[0])), float(np.maximum(one[1], other[1]))


def _why_unsure(of_val: Counts, threshold: float) -> str:
    """Why it can't be said how far a threshold would move with other people in val; "" where it can."""
    part, clusters = of_val.impostor, of_val.cluster_impostor
    value = _share_accepted(of_val, part, threshold)
    left_out = _share_accepted_without_each(of_val, part, clusters, threshold)
    why = why_none(value, left_out, clusters.sum(1))
    return f"val's false matches: {why}" if why else ""


def _moved(of_val: Counts, threshold: float, target_far: float) -> np.ndarray:
    """The threshold that val would give without each of its clusters in turn: [U].

    Between the bins of clusters' scores the FAR is taken as linear, so that a person moves the threshold by
    as much as the pairs weigh, not by whole bins.
    """
    scored = np.isfinite(of_val.cluster_score)
    scores = of_val.cluster_score[scored][::-1]

    def reaching(impostor: np.ndarray) -> float:
        fars = np.cumsum(impostor[scored][::-1]) / max(impostor.sum(), 1)
        return float(np.interp(target_far, fars, scores))

    impostor = on_coarse_grid(of_val, of_val.impostor)
    now = reaching(impostor)
    return np.array([threshold + reaching(impostor - one) - now for one in of_val.cluster_impostor])


def _gained(counts: Counts, part: np.ndarray, threshold: float, moved: float) -> float:
    """By how much the share accepted of pairs `part` [C] grows with a threshold that has moved."""
    scored = np.isfinite(counts.cluster_score)
    scores, below = counts.cluster_score[scored], np.cumsum(part[scored]) - part[scored]
    if not len(scores) or not part.sum():
        return np.nan
    return float(np.interp(threshold, scores, below) - np.interp(moved, scores, below)) / part.sum()


# ---------------------------------------------------------------- pairs accepted at a threshold


def _ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.divide(part, total, out=np.full(np.shape(part), np.nan), where=total > 0)


def _share_accepted(counts: Counts, part: np.ndarray, threshold: float) -> float:
    """Share of the pairs `part` [K] whose scores reach the threshold; NaN where one of them is lacking."""
    total = part.sum()
    if not total or np.isnan(threshold):
        return np.nan
    return float(part[counts.score >= threshold].sum() / total)


def _share_accepted_without_each(
    counts: Counts, part: np.ndarray, clusters: np.ndarray, threshold: float
) -> np.ndarray:
    """The share of the pairs `part` [K] accepted, without each cluster's pairs [U, C] in turn: [U].

    The threshold cuts a step of the coarse grid. Of a cluster's pairs in that step as many count as accepted
    as of all pairs in it.
    """
    total = on_coarse_grid(counts, part)
    accepted = on_coarse_grid(counts, part * (counts.score >= threshold))
    share = np.nan_to_num(_ratio(accepted, total))
    return _ratio((total - clusters) @ share, (total - clusters).sum(1))
