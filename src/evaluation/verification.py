"""Verification: measures from counted pairs, with intervals that respect shared people.

A score is the cosine of two embeddings; a pair is accepted where its score reaches the threshold. Terms as in
ISO/IEC 19795-1, with the names face recognition uses: a genuine pair shows one person, an impostor pair two;
FAR (false match rate) is the share of impostor pairs accepted, FRR (false non-match rate) that of genuine
pairs rejected, TAR = 1 - FRR; FTE is the share of photos a model gives no embedding for.
What becomes of pairs with a failure to enrol, `curves` says.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from src.evaluation import support
from src.evaluation.comparisons import Difference, declared
from src.evaluation.curves import (
    FARS,
    area,
    auc_of,
    auc_without_each,
    d_prime,
    far_and_tar,
    measures,
    middle,
    reachable,
    reachable_without_each,
)
from src.evaluation.hardest import hardest
from src.evaluation.intervals import (
    difference,
    interval,
    ratio,
    without_each,
)
from src.evaluation.operating_point import at_thresholds, for_test, on_val, threshold_of, thresholds, val_for
from src.evaluation.pairs import (
    QUALITIES,
    STRATA,
    Counts,
    Results,
    Trials,
    check_people,
    checked,
    count_pairs,
    evaluate,
    first_test,
    genuine_pairs,
    possible,
    test_sets,
    trials,
    with_strangers,
)
from src.evaluation.support import SUPPORT, unsupported
from src.limits import NotPossible

# Some of it comes from other rooms: who verifies finds all that it takes in one place.
__all__ = [
    "FARS",
    "SUPPORT",
    "Trials",
    "area",
    "at_thresholds",
    "auc",
    "auc_or_nan",
    "by_test",
    "discard",
    "evaluate",
    "far_and_tar",
    "first_test",
    "for_test",
    "hardest",
    "has_pairs",
    "histogram",
    "measures",
    "on_val",
    "reachable",
    "reasons",
    "report",
    "roc",
    "test_sets",
    "threshold_of",
    "thresholds",
    "trials",
    "val_for",
    "with_strangers",
    "with_thresholds",
]

# ---------------------------------------------------------------- one number


def auc(embeddings: np.ndarray, identity: np.ndarray) -> float:
    """AUC over all pairs of unit rows [N, D], of which those with the same identity [N] are genuine.

    Raises ValueError where an identity is missing, an embedding is broken, or a kind of pairs is missing.
    """
    if np.shape(identity) != (len(embeddings),):
        raise ValueError(f"{len(embeddings)} embeddings, but identities {list(np.shape(identity))}")
    codes = pd.factorize(np.asarray(identity))[0].astype(np.int64)
    if (codes < 0).any():
        raise ValueError(f"the identity of row {codes.argmin()} is missing ({(codes < 0).sum()} in all)")
    check_people(codes, "the set of embeddings")
    n = len(codes)
    unknown = np.full(n, QUALITIES.index("unknown"), np.int8)
    test = Trials("", np.arange(n), codes, (), unknown, np.full(n, -1))
    vectors = checked(embeddings, test.rows, "the model")
    everything = np.ones(n, bool)
    counts = count_pairs(vectors, test, everything, np.isnan(vectors[:, 0]))["all"]
    return auc_of(counts)


def has_pairs(identity: np.ndarray | pd.Series) -> bool:
    """Whether photos of these people [N] make genuine and impostor pairs."""
    photos = np.unique(np.asarray(identity), return_counts=True)[1]
    return len(photos) > 1 and photos.max() > 1


def auc_or_nan(embeddings: np.ndarray, identity: np.ndarray | pd.Series) -> float:
    """`auc`, or NaN where photos of these people [N] make no genuine or no impostor pairs."""
    return auc(embeddings, np.asarray(identity)) if has_pairs(identity) else np.nan


# ---------------------------------------------------------------- tables


def report(
    results: Results,
    baseline: str | None = None,
    reasons: Mapping[str, str] | None = None,
    primary: str | None = None,
    closed: Collection[str] = (),
) -> pd.DataFrame:
    """One row per test set, stratum and model: measures with 95 % intervals, and differences.

    baseline: the model that the others are compared with, such as "buffalo_l" (default: the first). reasons:
    as of `reasons`, for every row that the report is to have, in their order; those that could not be had,
    and strata without pairs of both kinds, have a row that says why in the column `note`, and no measures;
    beside a model that could be had, its reason is a remark.
    primary: the model whose comparison is declared beforehand, as of `comparisons.declared`. closed: models
    of a closed list, which take everybody for one of the people in training (`unknown` of `maps.fit_plda`):
    their rows on "test_unseen" say that this is no question for them.
    Raises ValueError where there are no results or the baseline is not among the models.

    `<measure>_low` and `_high` bound the measure, `<measure>_difference` is the model's less the baseline's
    on the same pairs, with `_difference_low`, `_difference_high` and its p-value `_difference_p`, each for
    itself; those that hold for all comparisons at once: see `comparisons.declared`.
    error_ratio, with its interval, is how many times less error (1 - AUC) the model has than the baseline.
    What stands behind a row, `support.columns` says. A TAR whose FAR the pairs cannot support is NaN, and
    `unsupported` names it; an interval is NaN where `intervals.why_none` gives a reason, for the AUC in the
    column `auc_interval`. An EER that no threshold reaches is NaN, and `note` says so. Pairs
    of failures to enrol have half credit in the AUC, none in any other measure (see `curves`). pauc is the
    mean TAR over FAR from 0 to 0.1, d_prime that of the pairs without failures to enrol, fte the model's own
    failures per photo, excluded the photos dropped for all models because one of them fails.
    """
    if not results:
        raise ValueError("there are no results to report")
    rows: list[dict[str, Any]] = []
    behind: list[Difference | None] = []  # each row's, where it has one
    for test, models in results.items():
        reference = baseline or next(iter(models))
        if reference not in models:
            raise ValueError(f"the baseline {reference!r} is not among the models: {', '.join(models)}")
        for quality in STRATA:
            measured = {
                name: _measured(strata[quality]) for name, strata in models.items() if quality in strata
            }
            for name in reasons or models:
                labels = {"model": name, "test": test, "quality": quality, "baseline": reference}
                if name in closed and test == "test_unseen":
                    rows.append(labels | {"note": f"not possible: nobody of {test} is on the closed list"})
                    behind.append(None)
                    continue
                model = measured.get(name)
                if model is None and reasons is None:
                    continue
                if model is None:
                    why = (reasons or {})[name] or f"not possible: {test} has no {quality} pairs"
                    rows.append(labels | {"note": why})
                    behind.append(None)
                    continue
                lacking = " and no ".join(kind for kind in ("genuine", "impostor") if not model.row[kind])
                note = f"not possible: {test} has no {lacking} {quality} pairs" if lacking else model.note
                note = note or (reasons or {}).get(name, "")
                rows.append(labels | {"note": note} | model.row | _compared(model, measured[reference]))
                behind.append(_difference(model, measured[reference]))
    return declared(pd.DataFrame(rows), primary, behind)


def reasons(rows: Mapping[str, np.ndarray | NotPossible]) -> dict[str, str]:
    """By model, in order: why it could not be had, or ""."""
    return {name: str(value) if isinstance(value, NotPossible) else "" for name, value in rows.items()}


# ---------------------------------------------------------------- values for figures


def roc(models: Mapping[str, Mapping[str, Counts]], quality: str = "all", points: int = 200) -> pd.DataFrame:
    """ROC curves for drawing: per model, FAR and TAR with the 95 % interval of the TAR.

    models: counts by model and stratum. The FARs are spaced evenly on a log scale, from the lowest that the
    pairs support to the highest that a threshold reaches: 1, or less where there are failures to enrol. `auc`
    is the model's own. Models without scores of impostor pairs in the stratum `quality` are left out.
    Columns: model (categorical, of all models in their order), far, tar, low, high, auc. Raises NotPossible
    where no model has such pairs.
    """
    tables = []
    for name, strata in models.items():
        if quality not in strata:
            continue
        counts = strata[quality]
        far, tar = reachable(counts)
        if not far[-1] > 0:
            continue
        lowest = min(far[-1], SUPPORT / max(counts.impostor.sum(), 1))
        fars = np.geomspace(lowest, far[-1], points)
        curves = zip(*reachable_without_each(counts), strict=True)
        left_out = np.array([np.interp(fars, *curve) for curve in curves])
        tars = np.interp(fars, far, tar)
        weights = counts.cluster_genuine.sum(1)
        bounds = [interval(value, left_out[:, i], weights) for i, value in enumerate(tars)]
        low, high = np.array(bounds).T
        table = {"model": name, "far": fars, "tar": tars, "low": low, "high": high, "auc": auc_of(counts)}
        tables.append(pd.DataFrame(table))
    if not tables:
        raise NotPossible(f"there are no {quality} pairs")
    drawn = pd.concat(tables, ignore_index=True)
    return drawn.assign(model=pd.Categorical(drawn["model"], categories=list(models)))


def by_test(function: Callable[..., pd.DataFrame], results: Results, **options: Any) -> pd.DataFrame:
    """What a function such as `roc` or `histogram` gives for each test set, and the column `test`."""
    tables = [function(models, **options).assign(test=test) for test, models in results.items()]
    table = pd.concat(tables, ignore_index=True)
    return table[["test", *table.columns.drop("test")]]


def with_thresholds(scores: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """The tables of `histogram`, columns model and test, with each test's `threshold` of `thresholds`."""
    keys = scores[["model", "test"]].drop_duplicates().itertuples(index=False)
    found = {(model, test): threshold_of(chosen, model, test) for model, test in keys}
    return scores.assign(threshold=[found[key] for key in zip(scores["model"], scores["test"], strict=True)])


def histogram(models: Mapping[str, Mapping[str, Counts]], model: str, bins: int = 100) -> pd.DataFrame:
    """Densities of one model's genuine and impostor scores, all pairs.

    Columns: model, score (the middle of a bin), genuine and impostor (per unit of score). Failures to enrol
    have no score: a density integrates to the share of the pairs that have one. Raises NotPossible where none
    has.
    """
    if model not in models:
        raise NotPossible(f"there is no {model}")
    counts = models[model]["all"]
    scored = np.isfinite(counts.score)
    if not scored.any():
        raise NotPossible("there are no scores: every pair has a failure to enrol")
    score = middle(counts)[scored]
    edges = np.linspace(score[0] - 1e-6, score[-1] + 1e-6, bins + 1)
    table: dict[str, Any] = {"model": model, "score": (edges[1:] + edges[:-1]) / 2}
    for name, part in (("genuine", counts.genuine), ("impostor", counts.impostor)):
        inside = np.histogram(score, edges, weights=part[scored])[0]
        table[name] = inside / max(part.sum(), 1) / np.diff(edges)
    return pd.DataFrame(table)


def discard(
    embeddings: Mapping[str, np.ndarray | NotPossible],
    test: Trials,
    measure: np.ndarray,
    chosen: pd.DataFrame,
    steps: int = 20,
) -> pd.DataFrame:
    """Error versus discard: each model's FRR at its threshold when the worst photos are dropped.

    embeddings: float32 [N, D] unit rows by model. measure: [N], a quality of each row of the embeddings,
    higher is better. chosen: as of `thresholds`; those for this test.
    One row per model and share of photos `discarded`, from 0 up: `frr`, NaN where too few pairs are left to
    tell, and how many `genuine` pairs there are. Raises ValueError where the lengths differ.
    The method is that of Grother & Tabassi, "Performance of biometric quality measures", 2007.
    """
    embeddings = possible(embeddings)
    n = len(next(iter(embeddings.values())))
    if len(measure) != n:
        raise ValueError(f"{len(measure)} quality values, but {n} embeddings")
    quality = np.where(test.rows < 0, np.nan, np.asarray(measure, float)[test.rows])
    quality = np.nan_to_num(quality, nan=-np.inf)
    rank = np.argsort(np.argsort(quality, kind="stable"), kind="stable")
    step = rank * steps // len(quality)  # the step that drops the photo
    rows = []
    for choice in for_test(chosen, test.name).itertuples():
        model = str(choice.model)
        vectors = checked(embeddings[model], test.rows, model)
        counts = np.zeros((2, steps), np.int64)  # [rejected, accepted] by the step that drops the pair
        for a, b in genuine_pairs(test):  # NaN, where a photo has no embedding, is not accepted
            accepted = np.einsum("id,id->i", vectors[a], vectors[b]) >= choice.threshold
            np.add.at(counts, (accepted.astype(int), np.minimum(step[a], step[b])), 1)
        left = counts[:, ::-1].cumsum(1)[:, ::-1]
        frrs = np.where(left.sum(0) >= SUPPORT, left[0] / np.maximum(left.sum(0), 1), np.nan)
        for i, frr in enumerate(frrs):
            rows.append((choice.model, i / steps, frr, left[:, i].sum()))
    return pd.DataFrame(rows, columns=["model", "discarded", "frr", "genuine"])


# ---------------------------------------------------------------- a row of the report


class _Measured(NamedTuple):
    row: dict[str, Any]  # of the report
    left_out: dict[str, np.ndarray]  # by measure: the measure without each cluster [U]
    weights: np.ndarray  # int64 [U]: genuine pairs of each cluster
    people: tuple[tuple[str, ...], ...]  # U, who is in each cluster
    note: str  # what could not be measured, and why


def _measured(counts: Counts) -> _Measured:
    """A model's row of the report, without differences, and what its differences need."""
    genuine, impostor = int(counts.genuine.sum()), int(counts.impostor.sum())
    row: dict[str, Any] = {
        "people": counts.people,
        "photos": counts.photos,
        "excluded": counts.excluded,
        "genuine": genuine,
        "impostor": impostor,
        "left_out": counts.left_out,
        "fte": counts.failed / max(counts.photos, 1),
    }
    failures = bool(np.isneginf(counts.score).any())
    values = measures(*far_and_tar(counts.genuine, counts.impostor), failures)
    curves = far_and_tar(*without_each(counts))
    left_out = measures(*curves, failures)
    values["auc"], left_out["auc"] = np.array(auc_of(counts)), auc_without_each(counts)
    if not np.isfinite(counts.score).any():
        left_out = {name: np.full(len(value), np.nan) for name, value in left_out.items()}
    weights = counts.cluster_genuine.sum(1)
    without_support = unsupported(counts, curves[0])
    for name, value in values.items():
        row[name] = float(value)
        if name in without_support:
            row[name] = np.nan
            left_out[name] = np.full(len(weights), np.nan)
        row[f"{name}_low"], row[f"{name}_high"] = interval(row[name], left_out[name], weights)
    row["d_prime"] = d_prime(counts)
    row["unsupported"] = ", ".join(without_support)
    row |= support.columns(counts, row["auc"], left_out["auc"])
    people = counts.cluster_people
    said = [_of_sample(counts), _ended(counts, row) if failures else ""]
    return _Measured(row, left_out, weights, people, "; ".join(filter(None, said)))


def _of_sample(counts: Counts) -> str:
    """Of how many impostor pairs those counted are a sample, in words; "" where all are counted."""
    if not counts.impostors:
        return ""
    return f"impostor pairs: a sample, {counts.impostor.sum():,} of {counts.impostors:,}; genuine pairs: all"


def _ended(counts: Counts, row: dict[str, Any]) -> str:
    """What a row's failures to enrol do to its measures."""
    if len(counts.score) == 1:
        return (
            "no pair has a score: the AUC is that of guessing, the EER not reached, nothing has an interval"
        )
    far, tar = (float(rate[-1]) for rate in reachable(counts))
    parts = [f"failures to enrol end the curve at FAR {far:.3g}, TAR {tar:.3g}"]
    if np.isnan(row["eer"]):
        parts.append("EER not reached")
    if any(name not in row["unsupported"] and value > far for name, value in FARS.items()):
        parts.append("TAR at a higher FAR is the TAR there")
    return "; ".join([*parts, f"their half credit is {row['auc_half_credit']:.3g} of the AUC"])


def _compared(model: _Measured, reference: _Measured) -> dict[str, Any]:
    """The differences of a model's measures to the reference's, with intervals and p-values."""
    compared: dict[str, Any] = {}
    for name, new_left_out in model.left_out.items():
        new, old, old_left_out = model.row[name], reference.row[name], reference.left_out[name]
        low, high, p = difference(old, new, old_left_out, new_left_out, model.weights)
        key = f"{name}_difference"
        compared |= {key: new - old, f"{key}_low": low, f"{key}_high": high, f"{key}_p": p}
    of_auc = _difference(model, reference)[:-1]
    ends = zip(("", "_low", "_high"), ratio(*of_auc), strict=True)
    compared |= {f"error_ratio{end}": value for end, value in ends}
    return compared | support.compared(*of_auc)


def _difference(model: _Measured, reference: _Measured) -> Difference:
    """The AUCs of a model and of the reference, and what they are without each person."""
    (old, old_left_out), (new, new_left_out) = (
        (one.row["auc"], one.left_out["auc"]) for one in (reference, model)
    )
    return Difference(old, new, old_left_out, new_left_out, model.weights, model.people)
