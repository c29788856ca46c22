"""What is declared beforehand stands at its own level; the rest pays for its number."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from src.evaluation import comparisons


def table(**p):
    """A report of one baseline and these models: p-values on seen and unseen, high-low pairs."""
    rows = [
        {"model": model, "test": test, "quality": "high-low", "baseline": "old", "genuine_people": 8,
         "auc_difference_p": value}
        for test, at in (("test_seen", 0), ("test_unseen", 1))
        for model, value in (("old", 1.0), *((name, values[at]) for name, values in p.items()))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def adjusted(report, model, test):
    row = report[(report["model"] == model) & (report["test"] == test)].iloc[0]
    return row["auc_difference_p_adjusted"]


def test_holm_is_the_step_down_of_bonferroni():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(comparisons.holm(p), [0.03, np.nan, 0.06, 0.06, 0.02])
    assert comparisons.holm(np.array([0.9, 0.8])).max() == 1 and len(comparisons.holm(np.array([]))) == 0


def test_holm_is_wrong_about_any_of_many_once_in_20():
    rng = np.random.default_rng(0)
    p = 2 * stats.norm.sf(abs(rng.normal(size=(2000, 20))))
    wrong = np.mean([comparisons.holm(one).min() < 0.05 for one in p])
    assert wrong == pytest.approx(0.05, abs=0.015) and (p.min(1) < 0.05).mean() > 0.6


def test_the_primary_comparison_pays_for_no_other():
    report = comparisons.declared(table(new=(0.04, 0.001), other=(0.04, 0.01), third=(0.5, 0.6)), "new")
    assert report["primary"].sum() == 2 and set(report["model"][report["primary"]]) == {"new"}
    assert adjusted(report, "new", "test_seen") == 0.04
    assert adjusted(report, "new", "test_unseen") == 0.04, "the second is only as sure as the first"
    assert adjusted(report, "other", "test_unseen") == pytest.approx(0.04)
    assert np.isnan(adjusted(report, "old", "test_seen"))
    without = comparisons.declared(table(new=(0.04, 0.001)), None)
    assert not without["primary"].any() and adjusted(without, "new", "test_unseen") == 0.002


def test_the_stratum_is_chosen_by_who_was_photographed():
    rows = table(new=(0.04, 0.001))
    assert comparisons.stratum(rows) == "high-low"
    assert comparisons.stratum(rows.assign(genuine_people=4)) == "all"
    assert comparisons.stratum(rows.assign(quality="low-low")) == "all"
