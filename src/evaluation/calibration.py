"""Calibration: from a score to how much more likely it is of one person than of two.

A score says little by itself. A log-likelihood ratio (natural logarithm of the chance of such a score of a
genuine pair over that of an impostor pair) does, whatever share of pairs is genuine where it is used. It is
fitted on `val`. How good it is on a test set, Cllr says: bits of cost per pair, 0 for perfect, 1 for none
better than saying nothing; minCllr is what the best calibration of the same scores would leave, and the rest
is what is lost by calibration (Brümmer & du Preez, "Application-independent evaluation of speaker detection",
2006).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from src.evaluation.curves import middle
from src.evaluation.intervals import PEOPLE, error, on_coarse_grid
from src.evaluation.operating_point import val_for
from src.evaluation.pairs import Counts, Results
from src.limits import NotPossible, attempt


@dataclass(frozen=True)
class Line:
    """Log-likelihood ratios as a line of the score, and that of a pair with a failure to enrol."""

    slope: float
    offset: float
    failure: float

    def __call__(self, score: np.ndarray) -> np.ndarray:
        """Of scores [K]; -inf is that of a failure to enrol."""
        there = np.isfinite(score)
        return np.where(there, self.slope * np.where(there, score, 0.0) + self.offset, self.failure)


def fit(counts: Counts) -> Line:
    """Logistic regression on counted pairs, genuine ones weighing as much as impostor ones in all.

    The targets are smoothed as if one pair more of each kind had been seen (Platt 1999), so that scores that
    part the two kinds have a finite slope. A failure to enrol is an event of its own, with its own ratio.
    Raises NotPossible where a kind of pairs has no score.
    """
    there = np.isfinite(counts.score)
    genuine, impostor = (part.astype(float) for part in (counts.genuine, counts.impostor))
    ratio = [(part[~there].sum() + 0.5) / (part.sum() + 1) for part in (genuine, impostor)]
    kinds = genuine[there], impostor[there]
    if not all(part.sum() for part in kinds):
        raise NotPossible("scores of genuine and of impostor pairs are needed to calibrate on")
    score = middle(counts)[there]
    shift, scale = float(score.mean()), float(score.std()) or 1.0
    z = (score - shift) / scale
    slips = [1 / (part.sum() + 2) for part in kinds]
    yes = kinds[0] / kinds[0].sum() * (1 - slips[0]) + kinds[1] / kinds[1].sum() * slips[1]
    no = kinds[0] / kinds[0].sum() * slips[0] + kinds[1] / kinds[1].sum() * (1 - slips[1])

    def cost(line: np.ndarray) -> tuple[float, np.ndarray]:
        odds = line[0] * z + line[1]
        off = no * special.expit(odds) - yes * special.expit(-odds)
        value = yes @ np.logaddexp(0, -odds) + no @ np.logaddexp(0, odds)
        return float(value), np.array([off @ z, off.sum()])

    slope, offset = optimize.minimize(cost, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x
    # with equal weights, log odds are log-likelihood ratios, here of pairs that have a score
    scored = float(np.log((1 - ratio[0]) / (1 - ratio[1])))
    failure = float(np.log(ratio[0] / ratio[1]))
    return Line(float(slope / scale), float(offset - slope * shift / scale + scored), failure)


def cllr(counts: Counts, ratios: np.ndarray) -> float:
    """Cllr in bits, of the log-likelihood ratio [K] of each bin of the counts; NaN without both kinds."""
    genuine, impostor = counts.genuine.sum(), counts.impostor.sum()
    if not genuine or not impostor:
        return np.nan
    of_genuine, of_impostor = _costs(ratios)
    return float(counts.genuine @ of_genuine / genuine + counts.impostor @ of_impostor / impostor) / 2


def cllr_without_each(counts: Counts, ratios: np.ndarray) -> np.ndarray:
    """`cllr` without each cluster in turn [U]; a pair costs what those of its coarse bin cost on average."""
    halves = []
    for part, clusters, costs in zip(
        (counts.genuine, counts.impostor),
        (counts.cluster_genuine, counts.cluster_impostor),
        _costs(ratios),
        strict=True,
    ):
        total = on_coarse_grid(counts, part)
        mean = np.divide(
            on_coarse_grid(counts, part * costs), total, out=np.zeros(len(total)), where=total > 0
        )
        left = total - clusters
        with np.errstate(invalid="ignore", divide="ignore"):
            halves.append(left @ mean / left.sum(1))
    return (halves[0] + halves[1]) / 2


def min_cllr(counts: Counts) -> float:
    """The least Cllr of any calibration that keeps the order of the scores; NaN without both kinds.

    By pooling adjacent violators, as of Brümmer & du Preez (2006). Failures to enrol are told apart, and not
    in that order.
    """
    genuine, impostor = counts.genuine.sum(), counts.impostor.sum()
    if not genuine or not impostor:
        return np.nan
    shares = np.stack([counts.genuine / genuine, counts.impostor / impostor])
    blocks: list[np.ndarray] = []
    scored = np.isfinite(counts.score)
    for share in shares[:, scored & (shares.sum(0) > 0)].T:
        blocks.append(share)
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1].sum() >= blocks[-1][0] * blocks[-2].sum():
            last = blocks.pop()
            blocks[-1] = blocks[-1] + last
    pooled = np.array([*blocks, shares[:, ~scored].sum(1)])
    entropy = special.entr(pooled).sum() - special.entr(pooled.sum(1)).sum()
    return float(entropy / 2 / np.log(2))


def calibrated(val: Results, results: Results) -> pd.DataFrame:
    """One row per test set, model and stratum: how good its calibration on all pairs of `val` is there.

    val: as of `verification.on_val`; a test's calibration is fitted on pairs of its kind. Columns: model,
    test, quality, slope and offset (of the log-likelihood ratio as a line of the score), cllr with its 95 %
    interval over people (cllr_low, cllr_high; Student's t on the jackknife of its logarithm, none below 5
    people or without cost), min_cllr, and note, which says where it is not possible.
    """
    rows = []
    for test, models in results.items():
        of_val = val_for(val, test)
        for model, strata in models.items():
            of_model = of_val.get(model)
            line = attempt(fit, of_model["all"]) if of_model else NotPossible("val has no pairs")
            for quality, counts in strata.items():
                row = {"model": model, "test": test, "quality": quality, "min_cllr": min_cllr(counts)}
                if isinstance(line, NotPossible):
                    rows.append(row | {"note": str(line)})
                    continue
                ratios = line(middle(counts))
                value, left_out = cllr(counts, ratios), cllr_without_each(counts, ratios)
                low, high = np.nan, np.nan
                if len(left_out) >= PEOPLE and value > 1e-9 and (left_out > 1e-9).all():
                    half = stats.t.ppf(0.975, len(left_out) - 1) * error(np.log(left_out))
                    low, high = value * np.exp(-half), value * np.exp(half)
                row |= {"slope": line.slope, "offset": line.offset, "note": ""}
                rows.append(row | {"cllr": value, "cllr_low": low, "cllr_high": high})
    columns = [
        "model",
        "test",
        "quality",
        "slope",
        "offset",
        "cllr",
        "cllr_low",
        "cllr_high",
        "min_cllr",
        "note",
    ]
    return pd.DataFrame(rows, columns=columns)


def reliability(counts: Counts, line: Line, bins: int = 12) -> pd.DataFrame:
    """What is said against what is so: values for a reliability figure of one model on one test set.

    Columns: said (mean log-likelihood ratio of a bin, in natural logarithms), found (the logarithm of the
    bin's share of genuine over its share of impostor pairs), pairs. Bins hold like shares of both kinds; one
    with pairs of one kind only has an infinite `found`. Raises NotPossible without pairs of both kinds.
    """
    genuine, impostor = (part / max(part.sum(), 1) for part in (counts.genuine, counts.impostor))
    if not genuine.any() or not impostor.any():
        raise NotPossible("there are no pairs of both kinds")
    ratios, both = line(middle(counts)), genuine + impostor
    order = np.argsort(ratios, kind="stable")
    at = np.minimum((np.cumsum(both[order]) / 2 * bins - 1e-9).astype(int), bins - 1)
    rows = []
    for one in np.unique(at):
        inside = order[at == one]
        share = genuine[inside].sum(), impostor[inside].sum()
        if not sum(share):
            continue
        with np.errstate(divide="ignore"):
            found = float(np.log(share[0]) - np.log(share[1]))
        pairs = int((counts.genuine + counts.impostor)[inside].sum())
        rows.append((float(ratios[inside] @ both[inside] / sum(share)), found, pairs))
    return pd.DataFrame(rows, columns=["said", "found", "pairs"])


def said_and_found(val: Results, results: Results, models: Sequence[str]) -> pd.DataFrame:
    """`reliability` of each of `models` and test set, all pairs, fitted as `calibrated` does; val: as there.

    Columns: test, model (categorical, of all models in their order), said, found, pairs. Raises NotPossible
    where none of them could be calibrated, or has pairs of both kinds.
    """
    tables, reasons = [], []
    for test, counted in results.items():
        for model in models:
            of_val, counts = val_for(val, test).get(model), counted.get(model, {}).get("all")
            if not of_val or counts is None:
                reasons.append(NotPossible(f"val or {test} has no pairs of {model}"))
                continue
            line = attempt(fit, of_val["all"])
            table = attempt(reliability, counts, line)
            if isinstance(table, NotPossible):
                reasons.append(table)
                continue
            tables.append(table.assign(test=test, model=pd.Categorical([model] * len(table), list(counted))))
    if not tables:
        raise reasons[0]
    return pd.concat(tables, ignore_index=True)[["test", "model", "said", "found", "pairs"]]


def _costs(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a log-likelihood ratio [K] costs in bits: of genuine pairs, of impostor pairs."""
    return np.logaddexp(0, -ratios) / np.log(2), np.logaddexp(0, ratios) / np.log(2)
