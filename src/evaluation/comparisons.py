"""Which comparison of models is declared beforehand, and what the others are worth.

With enough models, strata and tests something differs by chance. One comparison is primary, and declared
before there are numbers: the model that the user asks about against the baseline, on pairs of a good with a
bad photo, first of people in training, then of others. The rest is adjusted for how many they are.
"""

import numpy as np
import pandas as pd

from src.evaluation.intervals import PEOPLE
from src.evaluation.pairs import ACROSS

TESTS = ("test_seen", "test_unseen")  # in the order in which the primary comparison is made


def stratum(rows: pd.DataFrame) -> str:
    """The stratum of the primary comparison on one test set, given its rows of the report.

    "high-low", where as many people have such genuine pairs as an interval takes, else "all". It depends on
    who was photographed how, and on no score.
    """
    people = rows.loc[rows["quality"] == "high-low", "genuine_people"]
    return "high-low" if (people >= PEOPLE).any() else "all"


def declared(report: pd.DataFrame, model: str | None) -> pd.DataFrame:
    """The report with the columns `primary` and `auc_difference_p_adjusted`.

    model: the one whose comparison with the baseline is primary; None: no comparison is.
    The primary comparison on people in training is made at its own level, that on others only if it holds
    (fixed sequence: its p-value is at least the first one's). All the rest are adjusted by Holm's method
    ("A simple sequentially rejective multiple test procedure", 1979), as one family.
    """
    if "auc_difference_p" not in report:  # no row has numbers
        return report.assign(primary=False, auc_difference_p_adjusted=np.nan)
    primary = pd.Series(False, index=report.index)
    for test, rows in report.groupby("test", sort=False):
        if test == ACROSS:  # it asks another question, and has the genuine pairs of the first
            continue
        primary[rows.index] = (rows["model"] == model) & (rows["quality"] == stratum(rows))
    others = ~primary & (report["model"] != report["baseline"])
    adjusted = report["auc_difference_p"].where(primary)
    adjusted[others] = holm(report.loc[others, "auc_difference_p"].to_numpy(float))
    first = adjusted[primary & (report["test"] == TESTS[0])]
    if len(first):
        second = primary & (report["test"] == TESTS[1])
        adjusted[second] = np.maximum(adjusted[second], first.iloc[0])
    return report.assign(primary=primary, auc_difference_p_adjusted=adjusted)


def holm(p: np.ndarray) -> np.ndarray:
    """P-values [n] adjusted by Holm's method; those that are NaN stay so and do not count."""
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(np.where(np.isnan(p), np.inf, p), kind="stable")[: int((~np.isnan(p)).sum())]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
