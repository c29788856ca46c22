"""Which comparison of models is declared beforehand, and what the others are worth.

With enough models, strata and tests something differs by chance. One comparison is primary, and declared
before there are numbers: the model that the user asks about against the baseline, on pairs of a good with a
bad photo, first of people in training, then of others. The rest pays for how many they are: their intervals
hold the truth all at once, 95 times in 100.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from src.evaluation.intervals import ALPHA, PEOPLE, difference, ratio, why_none
from src.evaluation.pairs import ACROSS

TESTS = ("test_seen", "test_unseen")  # in the order in which the primary comparison is made
SIMULTANEOUS = "simultaneous"  # in the names of columns: for all comparisons at once
_DRAWS = 20_000


class Difference(NamedTuple):
    """Two rates, and what `intervals.difference` takes of them: without each cluster [U], and who that is."""

    old: float
    new: float
    old_left_out: np.ndarray
    new_left_out: np.ndarray
    weights: np.ndarray
    people: tuple[tuple[str, ...], ...]


def stratum(rows: pd.DataFrame) -> str:
    """The stratum of the primary comparison on one test set, given its rows of the report.

    "high-low", where as many people have such genuine pairs as an interval takes, else "all". It depends on
    who was photographed how, and on no score.
    """
    people = rows.loc[rows["quality"] == "high-low", "genuine_people"]
    return "high-low" if (people >= PEOPLE).any() else "all"


def declared(report: pd.DataFrame, model: str | None, behind: Sequence[Difference | None]) -> pd.DataFrame:
    """The report with `primary`, `auc_difference_p_adjusted`, and intervals for all comparisons at once.

    model: the one whose comparison with the baseline is primary; None: no comparison is. behind: of each row.
    The primary comparison on people in training is made at its own level, that on others only if it holds
    (fixed sequence: its p-value is at least the first one's). All the rest are one family, see `together`.
    `auc_difference_simultaneous_low` and `_high`, and `error_ratio_simultaneous_low` and `_high`, are the
    family's intervals and, of a primary comparison, its own.
    """
    ends = [
        f"{what}_{SIMULTANEOUS}_{end}"
        for what in ("auc_difference", "error_ratio")
        for end in ("low", "high")
    ]
    if "auc_difference_p" not in report:  # no row has numbers
        return report.assign(primary=False, auc_difference_p_adjusted=np.nan)
    primary = pd.Series(False, index=report.index)
    for test, rows in report.groupby("test", sort=False):
        if test == ACROSS:  # it asks another question, and has the genuine pairs of the first
            continue
        primary[rows.index] = (rows["model"] == model) & (rows["quality"] == stratum(rows))
    adjusted = report["auc_difference_p"].where(primary)
    own = [name.replace(f"_{SIMULTANEOUS}", "") for name in ends]
    found = (
        report[own]
        .where(np.broadcast_to(primary.to_numpy()[:, None], (len(report), 4)))
        .set_axis(ends, axis=1)
    )
    family = np.flatnonzero(
        ~primary & (report["model"] != report["baseline"]) & report["auc_difference_p"].notna()
    )
    differences = [one for one in (behind[int(at)] for at in family) if one is not None]
    if differences:
        together_found = together(differences)
        adjusted.iloc[family] = together_found[:, 0]
        found.iloc[family] = together_found[:, 1:]
    first = adjusted[primary & (report["test"] == TESTS[0])]
    if len(first):
        second = primary & (report["test"] == TESTS[1])
        adjusted[second] = np.maximum(adjusted[second], first.iloc[0])
    return report.assign(primary=primary, auc_difference_p_adjusted=adjusted, **found)


def together(differences: Sequence[Difference], seed: int = 0) -> np.ndarray:
    """For each of a family of differences [R, 5]: adjusted p-value, ends of difference and of error ratio.

    The statistics are taken as multivariate t, with the correlation that the jackknife over people gives: a
    person who is left out is left out of every model, stratum and test (max-T, single step: Hothorn, Bretz &
    Westfall, "Simultaneous inference in general parametric models", 2008). Each interval is made at the level
    at which all of them hold the truth 95 times in 100; it is never below Bonferroni's. All differences
    must have an interval of their own (`intervals.why_no_difference`).
    """
    influence, freedom = _influences(differences), np.array([len(one.weights) - 1 for one in differences])
    rng = np.random.default_rng(seed)
    normal = np.abs(rng.normal(size=(_DRAWS, influence.shape[1])) @ influence.T)
    least = np.ones(_DRAWS)
    for n in np.unique(freedom):  # one spread for all of a set of people
        most = normal[:, freedom == n].max(1) / np.sqrt(rng.chisquare(n, _DRAWS) / n)
        least = np.minimum(least, 2 * stats.t.sf(most, n))
    alpha = max(float(np.quantile(least, ALPHA)), ALPHA / len(differences))
    rows = []
    for one in differences:
        low, high, _ = difference(*one[:-1], alpha=alpha)
        p = difference(*one[:-1])[2]  # that of a model without error depends on the level
        adjusted = min(max(float(np.mean(least <= p)), p), p * len(differences), 1.0)
        apart = one.new - one.old
        if adjusted >= ALPHA:  # an interval and its p-value say the same
            low, high = min(low, 0.0), max(high, 0.0)
        else:
            low, high = (max(low, 0.0), high) if apart > 0 else (low, min(high, 0.0))
        rows.append((adjusted, low, high, *ratio(*one[:-1], alpha=alpha)[1:]))
    return np.array(rows)


def _influences(differences: Sequence[Difference]) -> np.ndarray:
    """What each person does to each difference [R, people], rows of length 1."""
    everybody = {
        people: i for i, people in enumerate(dict.fromkeys(p for one in differences for p in one.people))
    }
    influence = np.zeros((len(differences), len(everybody)))
    for row, one in enumerate(differences):
        sides = ((one.old, one.old_left_out), (one.new, one.new_left_out))
        odds = not any(why_none(value, without, one.weights) for value, without in sides)
        old, new = (special.logit(without) if odds else without for _, without in sides)
        influence[row, [everybody[people] for people in one.people]] = (new - old).mean() - (new - old)
    return influence / np.linalg.norm(influence, axis=1, keepdims=True)
