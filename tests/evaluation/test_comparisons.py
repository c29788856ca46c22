"""What is declared beforehand stands at its own level; the rest pays for its number."""

import numpy as np
import pandas as pd
import pytest

from src.evaluation import comparisons, intervals, verification


def table(**p):
    """A report of one baseline and these models: p-values on seen and unseen, high-low pairs."""
    rows = [
        {"model": model, "test": test, "quality": "high-low", "baseline": "old", "genuine_people": 8,
         "auc_difference_p": value, "auc_difference_low": 0.1, "auc_difference_high": 0.2,
         "error_ratio_low": 1.1, "error_ratio_high": 1.2}
        for test, at in (("test_seen", 0), ("test_unseen", 1))
        for model, value in (("old", 1.0), *((name, values[at]) for name, values in p.items()))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def adjusted(report, model, test):
    row = report[(report["model"] == model) & (report["test"] == test)]
    row = row[row["quality"] == "high-low"].iloc[0]
    return row["auc_difference_p_adjusted"]


def of_people(rng, models, people=20, shared=0.8, shift=0.0):
    """Differences of models, to all of which the same people are hard: in truth, `shift`."""
    everybody = tuple((f"person {i}",) for i in range(people))
    weights = np.full(people, 100)
    common = rng.normal(size=people)
    found = []
    for _ in range(models):
        own = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=people)
        old, new = np.full(people, 0.8), 0.8 + shift + 0.05 * own
        sides = [(one.mean(), (one.sum() - one) / (people - 1)) for one in (old + 0.01 * common, new)]
        (a, a_without), (b, b_without) = sides
        found.append(comparisons.Difference(a, b, a_without, b_without, weights, everybody))
    return found


def test_all_intervals_of_a_family_hold_at_once_and_are_narrower_than_bonferroni():
    rng = np.random.default_rng(0)
    held, wrong, alone, narrower = [], [], [], []
    for _ in range(60):
        family = of_people(rng, 12)
        adjusted, low, high = comparisons.together(family)[:, :3].T
        held.append(((low <= 0) & (high >= 0)).all())
        wrong.append(adjusted.min() < 0.05)
        each = [intervals.difference(*one[:-1]) for one in family]
        alone.append(min(p for _, _, p in each) < 0.05)
        one = family[0]
        sides = one.old, one.new, one.old_left_out, one.new_left_out
        strict = intervals.difference(*sides, one.weights, 0.05 / 12)
        narrower.append(high[0] - low[0] < strict[1] - strict[0])
        assert (np.array(each)[:, 0] >= low).all() and (np.array(each)[:, 1] <= high).all()
        assert (adjusted < 0.05).tolist() == [bool(a > 0 or b < 0) for a, b in zip(low, high, strict=True)]
    assert (
        np.mean(held) > 0.89 and np.mean(wrong) < 0.11 and np.mean(alone) > 0.12 and np.mean(narrower) > 0.95
    )


def test_a_model_without_error_pays_for_its_family_too():
    rng = np.random.default_rng(2)
    errors = np.array([9, 2, 14, 0, 5, 22, 1, 3]) / 100
    old, old_without = 1 - errors.mean(), 1 - (errors.sum() - errors) / 7
    everybody = tuple((f"person {i}",) for i in range(8))
    perfect = comparisons.Difference(old, 1.0, old_without, np.ones(8), np.full(8, 100), everybody)
    alone, of_many = (
        comparisons.together(family)[0] for family in ([perfect], [perfect, *of_people(rng, 20, 8)])
    )
    assert alone[0] == pytest.approx(intervals.difference(*perfect[:-1])[2], abs=0.005) and alone[0] < 0.05
    assert of_many[0] > 3 * alone[0] and of_many[1] <= 0 < of_many[2]


def test_a_family_of_one_pays_for_nothing_and_of_twins_for_one():
    rng = np.random.default_rng(1)
    (one,) = of_people(rng, 1, shift=0.02)
    alone = intervals.difference(*one[:-1])
    for family in ([one], [one, one, one]):
        adjusted, low, high = comparisons.together(family)[0, :3]
        assert (low, high) == pytest.approx(alone[:2], abs=2e-3) and adjusted == pytest.approx(
            alone[2], abs=0.01
        )


def test_the_primary_comparison_pays_for_no_other(example):
    results = example[3]
    both = {"test_seen": results["test_seen"], "test_unseen": results["test_seen"]}
    report = verification.report(both, primary="ResNet-50 fine-tuned")
    primary = report[report["primary"]]
    assert list(primary["test"]) == ["test_seen", "test_unseen"]
    for end in ("low", "high"):
        for what in ("auc_difference", "error_ratio"):
            np.testing.assert_array_equal(primary[f"{what}_simultaneous_{end}"], primary[f"{what}_{end}"])
    assert adjusted(report, "ResNet-50 fine-tuned", "test_seen") == primary["auc_difference_p"].iloc[0]
    others = report[(report["model"] == "ResNet-50 fine-tuned") & ~report["primary"]].dropna(
        subset="auc_difference_low"
    )
    assert len(others) > 2
    assert (others["auc_difference_simultaneous_low"] <= others["auc_difference_low"] + 1e-3).all()
    assert (others["auc_difference_p_adjusted"] >= others["auc_difference_p"]).all()
    assert np.isnan(adjusted(report, "buffalo_l", "test_seen"))


def test_the_second_primary_comparison_is_only_as_sure_as_the_first():
    report = comparisons.declared(table(new=(0.04, 0.001)), "new", [None] * 4)
    assert report["primary"].sum() == 2 and set(report["model"][report["primary"]]) == {"new"}
    assert adjusted(report, "new", "test_seen") == 0.04 == adjusted(report, "new", "test_unseen")


def test_the_stratum_is_chosen_by_who_was_photographed():
    rows = table(new=(0.04, 0.001))
    assert comparisons.stratum(rows) == "high-low"
    assert comparisons.stratum(rows.assign(genuine_people=4)) == "all"
    assert comparisons.stratum(rows.assign(quality="low-low")) == "all"
