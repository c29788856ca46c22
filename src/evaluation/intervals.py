"""Intervals over people: how far a measure would move with other people of the same kind.

Pairs that share a person are not independent, so pairs are not resampled. A measure is computed again
without each cluster (a person, or a part of the people) in turn, and the delete-one jackknife gives its
standard error.
"""

import numpy as np
from scipy import special, stats

from src.evaluation.pairs import Counts

_LOG_ODDS = 4.0  # half-width of an interval beyond which log odds are no longer near normal


# ---------------------------------------------------------------- counts without a cluster


def on_coarse_grid(counts: Counts, fine: np.ndarray) -> np.ndarray:
    """Values by score [K] (such as `counts.genuine`), summed up by the coarser `cluster_score` [C]."""
    at = np.searchsorted(counts.cluster_score, counts.score, side="right") - 1
    return np.bincount(at, fine, minlength=len(counts.cluster_score))


def without_each(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Genuine and impostor counts with each cluster left out in turn: [U, C], [U, C]."""
    return (
        on_coarse_grid(counts, counts.genuine) - counts.cluster_genuine,
        on_coarse_grid(counts, counts.impostor) - counts.cluster_impostor,
    )


def concordance(counts: Counts) -> np.ndarray:
    """The AUC inside each bin of `cluster_score` [C], from the finer bins that it holds; 0.5 where empty."""
    genuine, impostor = (on_coarse_grid(counts, part) for part in (counts.genuine, counts.impostor))
    at = np.searchsorted(counts.cluster_score, counts.score, side="right") - 1
    higher = np.cumsum(genuine)[at] - np.cumsum(counts.genuine) + counts.genuine / 2  # in the same bin
    pairs = genuine * impostor
    won = on_coarse_grid(counts, counts.impostor * higher)
    return np.divide(won, pairs, out=np.full(len(pairs), 0.5), where=pairs > 0)


# ---------------------------------------------------------------- one model


def error(left_out: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Standard error by the delete-one jackknife, and its degrees of freedom; NaN below 3 clusters.

    left_out: the estimate without each cluster [U]; weights: [U], the pairs of each. A few people with most
    of the pairs are worth few degrees of freedom (Kish's effective number). Both are NaN, too, where an
    estimate is not finite.
    """
    n = len(left_out)
    if n < 3 or not weights.any() or not np.isfinite(left_out).all():
        return np.nan, np.nan
    standard_error = np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    freedom = float(weights.sum() ** 2 / (weights.astype(float) ** 2).sum()) - 1
    return float(standard_error), max(1.0, freedom)


def interval(value: float, left_out: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """95 % interval of a rate from 0 to 1; NaN, NaN where `error` is NaN.

    left_out: the rate without each cluster [U]; weights: [U], the pairs of each.
    Wilson's interval for as many independent trials as would give the rate its standard error, after Fogliato
    et al., "Confidence intervals for error rates in 1:1 matching tasks" (arXiv 2306.01198). A rate of 0 or 1
    shows no error to go by: each person is then one trial, which is cautious.
    """
    standard_error, freedom = error(left_out, weights)
    if not np.isfinite(value + standard_error):
        return np.nan, np.nan
    t = stats.t.ppf(0.975, freedom)
    n = value * (1 - value) / standard_error**2 if standard_error > 0 and 0 < value < 1 else freedom + 1
    centre = (value + t**2 / (2 * n)) / (1 + t**2 / n)
    half = t / (1 + t**2 / n) * np.sqrt(value * (1 - value) / n + t**2 / (4 * n**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def auc_interval(value: float, left_out: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """95 % interval of an AUC, from the jackknife of its log odds, which are closer to normal.

    Arguments as of `interval`, whose answer this gives where log odds cannot be used.
    """
    if not 0 < value < 1 or not ((left_out > 0) & (left_out < 1)).all():
        return interval(value, left_out, weights)
    standard_error, freedom = error(special.logit(left_out), weights)
    if standard_error == 0:
        return interval(value, left_out, weights)
    middle, half = special.logit(value), stats.t.ppf(0.975, freedom) * standard_error
    if half > _LOG_ODDS:  # one person has all of the errors, and log odds without them run off
        return interval(value, left_out, weights)
    return float(special.expit(middle - half)), float(special.expit(middle + half))


# ---------------------------------------------------------------- two models


def difference(value: float, left_out: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """95 % interval and p-value of the difference of two models' rates, by Student's t.

    All are NaN where `error` is NaN. left_out: the difference without each cluster [U]; weights: [U], the
    pairs of each.
    """
    standard_error, freedom = error(left_out, weights)
    if not np.isfinite(value + standard_error):
        return np.nan, np.nan, np.nan
    if standard_error < 1e-12:  # that of rounding
        return value, value, 1.0 if abs(value) < 1e-12 else 0.0
    half = stats.t.ppf(0.975, freedom) * standard_error
    low, high = max(-1.0, value - half), min(1.0, value + half)  # rates can't differ by more
    return low, high, 2 * float(stats.t.sf(abs(value) / standard_error, freedom))


def auc_difference(
    old: float, new: float, old_left_out: np.ndarray, new_left_out: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float]:
    """95 % interval and p-value of the difference of two AUCs, `new - old`.

    All are NaN where `error` is NaN. old_left_out, new_left_out: the AUCs without each cluster [U]; weights:
    [U], the pairs of each.

    Few hard people make the AUCs, their difference and its error rise and fall together, so that Student's
    interval ends too soon on one side. The log odds of both AUCs are therefore moved along the direction in
    which their difference varies (DiCiccio & Efron, "More accurate confidence intervals in exponential
    families", Biometrika 1992, least favourable direction), and the interval holds what either way gives.
    """
    low, high, p = difference(new - old, new_left_out - old_left_out, weights)
    values, left_out = np.array([old, new]), np.stack([old_left_out, new_left_out])
    inside = all(((part > 0) & (part < 1)).all() for part in (values, left_out))
    if not low < high or not inside:
        return low, high, p
    n, freedom = len(weights), error(new_left_out, weights)[1]
    t, odds = stats.t.ppf(0.975, freedom), special.logit(values)
    covariance = (n - 1) ** 2 / n * np.cov(special.logit(left_out))
    slope = values * (1 - values) * (-1, 1)
    variance = slope @ covariance @ slope
    if variance <= 0 or t * np.sqrt(covariance.diagonal().max()) > _LOG_ODDS:
        return low, high, p
    direction = covariance @ slope / np.sqrt(variance)
    ends = [float(np.diff(special.expit(odds + steps * direction))[0]) for steps in (-t, t)]
    apart, closer = np.diff(odds)[0], np.diff(direction)[0]
    to_equal = abs(apart) / closer if closer > 0 else np.inf  # steps until the two AUCs are the same
    return min(low, ends[0]), max(high, ends[1]), max(p, 2 * float(stats.t.sf(to_equal, freedom)))
