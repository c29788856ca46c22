"""Intervals over people: how far a measure would move with other people of the same kind.

Pairs that share a person are not independent, so pairs are not resampled. A measure is computed again
without each cluster (a person, or a part of the people) in turn, and the delete-one jackknife gives the
standard error of its log odds. Near 0 and 1 these are closer to normal than the rate, and one scale serves
rates, their differences and the ratio of two errors.

People who were not tested cannot be reckoned with. Where what was seen says too little of them, there is no
interval, and `why_none` says why: too few people, errors that come from too few of them, or so few errors
that one person who is harder than the others would change them by a multiple. The limits were chosen where
`benchmarks/coverage.py` shows what they cost.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from src.evaluation.pairs import Counts

ALPHA = 0.05  # how often an interval may miss the truth
PEOPLE = 5  # below so many there is no interval
BEHIND = 2.5  # people whom the errors must come from, as an effective number
ERRORS = 0.05  # of one person's pairs: what all errors together must come to
SKEWNESS = 0.2  # of a mean of few people, which show less than there is: at least so much is reckoned with
RARE = 0.7  # and so much more for each power of ten by which errors are rarer than `_COMMON`
_COMMON = 0.08
_NOTHING = 1e-9  # that of rounding
_ANGLES = np.linspace(0, 2 * np.pi, 721)


# ---------------------------------------------------------------- counts without a cluster


def on_coarse_grid(counts: Counts, fine: np.ndarray) -> np.ndarray:
    """Values by score [K] (such as `counts.genuine`), summed up by the coarser `cluster_score` [C]."""
    if not len(fine):
        return np.zeros(len(counts.cluster_score))
    return np.add.reduceat(np.asarray(fine, float), _starts(counts))


def _starts(counts: Counts) -> np.ndarray:
    """Where each bin of `cluster_score` [C] begins among the finer ones."""
    return np.searchsorted(counts.score, counts.cluster_score)


def without_each(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Genuine and impostor counts with each cluster left out in turn: [U, C], [U, C]."""
    return (
        on_coarse_grid(counts, counts.genuine) - counts.cluster_genuine,
        on_coarse_grid(counts, counts.impostor) - counts.cluster_impostor,
    )


def concordance(counts: Counts) -> np.ndarray:
    """The AUC inside each bin of `cluster_score` [C], from the finer bins that it holds; 0.5 where empty."""
    genuine, impostor = (on_coarse_grid(counts, part) for part in (counts.genuine, counts.impostor))
    sizes = np.diff(np.append(_starts(counts), len(counts.score)))
    at = np.repeat(np.arange(len(sizes)), sizes)
    higher = np.cumsum(genuine)[at] - np.cumsum(counts.genuine) + counts.genuine / 2  # in the same bin
    pairs = genuine * impostor
    won = on_coarse_grid(counts, counts.impostor * higher)
    return np.divide(won, pairs, out=np.full(len(pairs), 0.5), where=pairs > 0)


def share_without_each(
    hits: pd.Series, identity: pd.Series | np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Share of hits [n], that without each of the people [n], and how many each has: float, [U], [U]."""
    by_person = hits.groupby(np.asarray(identity)).agg(["sum", "count"]).to_numpy(float)
    total = by_person.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        left_out = (total[0] - by_person[:, 0]) / (total[1] - by_person[:, 1])
    return float(total[0] / total[1]), left_out, by_person[:, 1]


# ---------------------------------------------------------------- one model


def error(left_out: np.ndarray) -> float:
    """Standard error by the delete-one jackknife of the estimates without each cluster [U]; NaN below 3."""
    n = len(left_out)
    if n < 3 or not np.isfinite(left_out).all():
        return np.nan
    return float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))


def behind(value: float, left_out: np.ndarray, weights: np.ndarray) -> float:
    """How many people the errors of a rate come from: Kish's effective number of their parts in it.

    value: the rate; left_out: without each cluster [U]; weights: [U], the pairs of each. An error is whatever
    is rarer, what counts for the rate or what does not. A person's part is what the error loses without the
    person, beyond the share of the pairs that go too. NaN without pairs or errors.
    """
    if not weights.any() or not np.isfinite(value) or not np.isfinite(left_out).all():
        return np.nan
    wrong, without = _errors(value, left_out)
    parts = np.abs(wrong - (1 - weights / weights.sum()) * without)
    return float(parts.sum() ** 2 / (parts**2).sum()) if parts.any() else np.nan


def why_none(value: float, left_out: np.ndarray, weights: np.ndarray) -> str:
    """Why a rate has no interval; "" where it has one. Arguments as of `behind`."""
    n = len(left_out)
    if n < PEOPLE:
        return f"{n} people are too few, {PEOPLE} would do"
    if not np.isfinite(value) or not np.isfinite(left_out).all() or not weights.any():
        return "it could not be measured without each person in turn"
    wrong, without = _errors(value, left_out)
    if wrong < _NOTHING:
        return f"no error was seen; of people who err, {unseen(n):.0%} could be missed among {n}"
    if error(left_out) < _NOTHING:
        return "it is the same whoever is left out"
    if (without < _NOTHING).any():
        return "one person takes part in every error"
    people = behind(value, left_out, weights)
    if people < BEHIND:
        return f"the errors come from too few people, effectively {people:.1f}"
    if n * wrong < ERRORS:
        return (
            f"all errors come to {n * wrong:.1%} of one person's pairs: one harder person would change that"
        )
    return ""


def unseen(people: int) -> float:
    """The share of people up to which a kind of them is missed with a chance of 5 % among so many."""
    return float(1 - 0.05 ** (1 / max(people, 1)))


def interval(
    value: float, left_out: np.ndarray, weights: np.ndarray, alpha: float = ALPHA
) -> tuple[float, float]:
    """95 % interval of a rate from 0 to 1, such as an AUC or a TAR; NaN, NaN where `why_none` says why.

    alpha: the chance to miss the truth; the others as of `behind`. Student's t on the jackknife of the log
    odds, with one degree of freedom less than there are people behind the errors (compare Satterthwaite
    1946). On the side of more error it is widened for skewness, as few people are hard and the next one may
    be (Johnson, "Modified t tests and confidence intervals for asymmetrical populations", 1978). The rarer
    errors are, the more skewness is reckoned with, seen or not. It is never wider than `of_people`.
    """
    if why_none(value, left_out, weights):
        return np.nan, np.nan
    wrong, without = _errors(value, left_out)
    down, up = _distances(without, behind(value, left_out, weights) - 1, alpha)
    ends = special.expit(special.logit(wrong) + np.array([-down, up]))
    low, high = ends if wrong == value else 1 - ends[::-1]
    least, most = of_people(value, weights, alpha)
    return max(float(low), least), min(float(high), most)


def of_two_samples(
    value: float, left_out: np.ndarray, weights: np.ndarray, others: np.ndarray, joint: bool
) -> tuple[float, float]:
    """95 % interval of a rate that depends on people of two samples: of a test, and of what was chosen on.

    value, left_out, weights: of the test, as of `behind`; others: [V], the rate where each person of the
    other sample is left out there. joint: some people are in both, and left out of both in `left_out`; then
    all are one sample. Else the distances of both to the ends, on the log odds, are put together as in MOVER
    (Zou & Donner 2008). Had the other sample shown more people who err, the threshold would be stricter and
    the rate lower; so that sample's part is widened for skewness on the other side.
    NaN, NaN where the test has no interval, or one person of the other sample decides.
    """
    if joint:
        return interval(value, np.append(left_out, others), np.append(weights, np.zeros(len(others), int)))
    low, high = interval(value, left_out, weights)
    wrong, without = _errors(value, others)
    if np.isnan(low) or error(without) < _NOTHING:
        return low, high
    if not ((without > 0) & (without < 1)).all():  # one person of the other sample may take all of it
        return np.nan, np.nan
    parts = np.abs(without - wrong)
    more, less = _distances(1 - without, float(parts.sum() ** 2 / (parts**2).sum()) - 1)
    if wrong != value:
        more, less = less, more
    middle = special.logit(value)
    low, high = special.logit(low), special.logit(high)
    ends = middle + np.array([-np.hypot(middle - low, less), np.hypot(high - middle, more)])
    return float(special.expit(ends[0])), float(special.expit(ends[1]))


def _distances(without: np.ndarray, freedom: float, alpha: float = ALPHA) -> tuple[float, float]:
    """How far the ends of a rate's interval are on the log odds, down and up, widened for skewness upwards.

    without: the rate without each person [n].
    """
    n = len(without)
    deviation = without.mean() - without
    skewness = (deviation**3).sum() / (deviation**2).sum() ** 1.5 * np.sqrt(n * (n - 1)) / (n - 2)
    # The rarer errors are, the fewer people make them, and the less of that a test set shows.
    rate = float(min(without.mean(), 1 - without.mean()))
    least = SKEWNESS + RARE * np.log10(max(_COMMON / rate, 1.0))
    t = float(stats.t.ppf(1 - alpha / 2, freedom))
    spread = error(special.logit(without))
    return spread * t, spread * float(t + max(least, skewness) / 6 * (1 + 2 * t**2))


def of_people(value: float, weights: np.ndarray, alpha: float = ALPHA) -> tuple[float, float]:
    """95 % interval of a rate in which each person is one trial: as wide as it can be for so many people.

    weights: [U], the trials of each person. A person's own rate lies between 0 and 1, so it varies most where
    all of their trials go one way. Wilson's interval (1927) for Kish's effective number of people.
    """
    n = float(weights.sum() ** 2 / (weights.astype(float) ** 2).sum()) if weights.any() else 0.0
    if not n or not np.isfinite(value):
        return np.nan, np.nan
    z = stats.norm.ppf(1 - alpha / 2)
    centre = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(value * (1 - value) / n + z**2 / (4 * n**2))
    return float(min(max(0.0, centre - half), value)), float(max(min(1.0, centre + half), value))


def _errors(value: float, left_out: np.ndarray) -> tuple[float, np.ndarray]:
    """The rate or, above a half, 1 less the rate; and what becomes of it without each cluster [U]."""
    return (value, left_out) if value <= 0.5 else (1 - value, 1 - left_out)


# ---------------------------------------------------------------- two models


def difference(
    old: float,
    new: float,
    old_left_out: np.ndarray,
    new_left_out: np.ndarray,
    weights: np.ndarray,
    alpha: float = ALPHA,
) -> tuple[float, float, float]:
    """95 % interval and p-value of the difference of two models' rates, `new - old`.

    All are NaN where `why_no_difference` says why. old_left_out, new_left_out: the rates without each cluster
    [U]; weights: [U], the pairs of each; alpha: the chance to miss the truth.

    The log odds of both rates are taken as normal, with the jackknife's covariance. The interval holds the
    differences of all pairs of rates that are within Student's t of the two (the profile of that likelihood).
    It holds 0 if and only if p, of the ratio of the odds, is at least alpha. Where one of the two errs too
    little for an interval of its own, the other's decides.
    """
    if why_no_difference(old, new, old_left_out, new_left_out, weights):
        return np.nan, np.nan, np.nan
    n, value = len(weights), new - old
    t = stats.t.ppf(1 - alpha / 2, n - 1)
    if why_none(old, old_left_out, weights) or why_none(new, new_left_out, weights):
        return _mostly_of_one(old, new, old_left_out, new_left_out, weights, alpha)
    odds = special.logit([old, new])
    covariance = (n - 1) ** 2 / n * np.cov(special.logit(np.stack([old_left_out, new_left_out])))
    root = _root(covariance)
    around = special.expit(odds[:, None] + t * root @ np.stack([np.cos(_ANGLES), np.sin(_ANGLES)]))
    apart = around[1] - around[0]
    spread = float(np.sqrt((-1, 1) @ covariance @ (-1, 1)))
    p = 2 * float(stats.t.sf(abs(odds[1] - odds[0]) / spread, n - 1))
    low, high = min(float(apart.min()), value), max(float(apart.max()), value)
    if p < alpha:  # the grid of angles must not say otherwise
        return (max(low, 0.0), high, p) if value > 0 else (low, min(high, 0.0), p)
    return min(low, 0.0), max(high, 0.0), p


def _mostly_of_one(
    old: float,
    new: float,
    old_left_out: np.ndarray,
    new_left_out: np.ndarray,
    weights: np.ndarray,
    alpha: float,
) -> tuple[float, float, float]:
    """`difference` where the better of the two has no interval of its own, as it errs so little.

    The worse one's distances to the ends of its interval, and the better one's to 0 and to Student's t above,
    are put together as in MOVER (Zou & Donner, "Construction of confidence limits about effect measures",
    2008), as if the two were independent, which is cautious. p is that of the distance to the end next to 0.
    """
    (worse, without, sign), (better, its_without, _) = _by_error(old, new, old_left_out, new_left_out)
    low, high = interval(worse, without, weights, alpha)
    t = stats.t.ppf(1 - alpha / 2, len(weights) - 1)
    apart = worse - better
    down = float(np.hypot(worse - low, t * error(its_without)))
    up = float(np.hypot(high - worse, better))
    p = 2 * float(stats.t.sf(t * apart / down, len(weights) - 1))
    ends = max(-1.0, apart - down), min(1.0, apart + up)
    return (*ends, p) if sign > 0 else (-ends[1], -ends[0], p)


def ratio(
    old: float,
    new: float,
    old_left_out: np.ndarray,
    new_left_out: np.ndarray,
    weights: np.ndarray,
    alpha: float = ALPHA,
) -> tuple[float, float, float]:
    """How many times less error the new model has, and the 95 % interval; NaN where either has none.

    old, new: rates of which 1 is without error; the others as of `difference`. Student's t on the jackknife
    of the logarithm of the ratio of the errors.
    """
    value = (1 - old) / (1 - new) if new < 1 - _NOTHING else np.nan
    if why_none(old, old_left_out, weights) or why_none(new, new_left_out, weights):
        return value, np.nan, np.nan
    logs = np.log(1 - old_left_out) - np.log(1 - new_left_out)
    half = stats.t.ppf(1 - alpha / 2, len(weights) - 1) * error(logs)
    return value, float(value * np.exp(-half)), float(value * np.exp(half))


def why_no_difference(
    old: float, new: float, old_left_out: np.ndarray, new_left_out: np.ndarray, weights: np.ndarray
) -> str:
    """Why a difference has no interval: why the model with more error has none; "" where it has one."""
    if len(weights) < PEOPLE:
        return why_none(old, old_left_out, weights)
    if not np.isfinite(new - old) or not np.isfinite(new_left_out - old_left_out).all():
        return "one of the two could not be measured without each person in turn"
    if error(new_left_out - old_left_out) < _NOTHING:
        return "the two differ as much whoever is left out"
    worse, without, _ = _by_error(old, new, old_left_out, new_left_out)[0]
    return why_none(worse, without, weights)


def _by_error(
    old: float, new: float, old_left_out: np.ndarray, new_left_out: np.ndarray
) -> list[tuple[float, np.ndarray, int]]:
    """The errors of two models, with those without each cluster [U]; the larger or less sure one first.

    The third of each is 1 if the difference of the rates, `new - old`, is that error less the other, else -1.
    """
    both = [(old, old_left_out, -1), (new, new_left_out, 1)]
    if old + new > 1:
        both = [(1 - value, 1 - without, -sign) for value, without, sign in both]
    return sorted(both, key=lambda one: (-round(one[0], 12), -error(one[1])))


def detectable(left_out: np.ndarray) -> float:
    """The smallest difference that a test at 5 % would have seen with a chance of 80 %.

    left_out: the difference without each cluster [U]. NaN with fewer people than an interval takes.
    """
    freedom = len(left_out) - 1
    if len(left_out) < PEOPLE:
        return np.nan
    return float((stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)) * error(left_out))


def trials(value: float, left_out: np.ndarray) -> float:
    """How many independent trials would give a rate its standard error; NaN where that is 0 or unknown.

    left_out: the rate without each cluster [U]. After Fogliato et al., "Confidence intervals for error rates
    in 1:1 matching tasks" (arXiv 2306.01198).
    """
    standard_error = error(left_out)
    return value * (1 - value) / standard_error**2 if standard_error > _NOTHING else np.nan


def _root(covariance: np.ndarray) -> np.ndarray:
    """A root [2, 2] of a covariance that may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


# ---------------------------------------------------------------- in words


def bounded(row: Mapping[Any, Any], measure: str, form: str = ".3f", missing: str = "–") -> str:
    """A measure and its interval, where it has one: "0.912 [0.873, 0.940]", or "3.1% [1.0, 8.2]".

    row: with `measure`, and perhaps `<measure>_low` and `_high`. form: of a number. NaN gives `missing`.
    """
    value, low, high = (row.get(f"{measure}{end}", np.nan) for end in ("", "_low", "_high"))
    if pd.isna(value):
        return missing
    bounds = "" if pd.isna(low) or pd.isna(high) else f" [{low:{form}}, {high:{form}}]".replace("%", "")
    return f"{value:{form}}{bounds}"
