"""Intervals widen with unlike people, and an interval and its p-value say the same."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import special, stats

from benchmarks import coverage
from src.evaluation import curves, intervals, verification
from tests.evaluation.examples import evaluated, make, materialised


def test_the_coarse_grid_keeps_every_pair_and_each_cluster_leaves_once(example):
    for counts in example[3]["test_seen"]["buffalo_l"].values():
        genuine, impostor = intervals.without_each(counts)
        assert intervals.on_coarse_grid(counts, counts.genuine).sum() == counts.genuine.sum()
        np.testing.assert_array_equal(genuine.sum(1), counts.genuine.sum() - counts.cluster_genuine.sum(1))
        np.testing.assert_array_equal(impostor.sum(1), counts.impostor.sum() - counts.cluster_impostor.sum(1))
        assert (genuine >= 0).all() and (impostor >= 0).all()


def test_the_error_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=20)
    left_out = (values.sum() - values) / 19
    assert intervals.error(left_out) == pytest.approx(values.std(ddof=1) / np.sqrt(20))
    assert np.isnan(intervals.error(left_out[:2])) and np.isnan(intervals.error(np.append(left_out, np.nan)))


def rate(errors, weights=None):
    """A rate of correct pairs, that without each person, and the pairs of each, from the errors of each."""
    errors = np.asarray(errors, float)
    weights = np.full(len(errors), 100) if weights is None else np.asarray(weights)
    left_out = 1 - (errors.sum() - errors) / (weights.sum() - weights)
    return 1 - errors.sum() / weights.sum(), left_out, weights


def test_errors_come_from_as_many_people_as_make_them():
    assert intervals.behind(*rate([5, 5, 5, 5, 0, 0, 0, 0])) == pytest.approx(4)
    assert intervals.behind(*rate([5, 0, 0, 0, 0, 0, 0, 0])) == pytest.approx(1)
    value, left_out, weights = rate([5, 5, 5, 5, 0, 0, 0, 0])
    assert intervals.behind(1 - value, 1 - left_out, weights) == pytest.approx(4)  # as a rate of errors
    assert np.isnan(intervals.behind(*rate([0] * 8)))


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        (rate([9, 5, 8, 4]), "4 people are too few, 5 would do"),
        (rate([0] * 8), "no error was seen; of people who err, 31% could be missed among 8"),
        (rate([5] * 8), "it is the same whoever is left out"),
        (rate([9, 0, 0, 0, 0, 0]), "one person takes part in every error"),
        (rate([90, 9, 3, 0, 0, 0]), "effectively 1.3"),
        (rate([1, 1, 1, 0, 0, 0, 1, 0]), "come to 4.0% of one person's pairs"),
        ((0.9, np.append(np.full(7, 0.9), np.nan), np.ones(8)), "could not be measured"),
        ((0.9, np.linspace(0.8, 0.95, 8), np.zeros(8)), "could not be measured"),
        ((1 - 1e-16, 1 - 1e-16 * np.arange(8), np.ones(8)), "no error was seen"),
        ((0.5, 0.5 + 1e-16 * np.arange(8), np.ones(8)), "it is the same"),
    ],
)
def test_there_is_no_interval_where_it_cannot_be_had(of, reason):
    assert reason in intervals.why_none(*of)
    assert np.isnan(intervals.interval(*of)).all()


def test_a_kind_of_people_is_missed_with_a_chance_of_one_in_20():
    for people in (3, 8, 60):
        assert (1 - intervals.unseen(people)) ** people == pytest.approx(0.05)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 40))
def test_an_interval_lies_within_rates_holds_the_value_and_mirrors(seed, people):
    rng = np.random.default_rng(seed)
    weights = rng.integers(10, 100, people)
    of = rate(rng.binomial(weights, rng.beta(0.5, 4, people)), weights)
    low, high = intervals.interval(*of)
    if intervals.why_none(*of):
        assert np.isnan(low) and np.isnan(high)
    else:
        assert 0 < low < of[0] < high < 1
        mirrored = intervals.interval(1 - of[0], 1 - of[1], of[2])
        np.testing.assert_allclose(mirrored, (1 - high, 1 - low))


def test_more_error_is_nearer_where_a_few_people_are_hard():
    def distances(errors):
        value, left_out, weights = rate(errors)
        low, high = special.logit(intervals.interval(value, left_out, weights))
        return special.logit(value) - low, high - special.logit(value)

    down, up = distances([30, 20, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2])
    assert down > 1.3 * up
    down, up = distances([9, 9, 9, 9, 9, 9, 8, 8, 8, 8, 8, 1])  # one person is easy
    assert up < down < 1.2 * up


def test_the_rarer_errors_are_the_further_more_of_them_may_be():
    def asymmetry(share):
        value, left_out, weights = rate(
            [9 * share, 8 * share, 7 * share, 9 * share, 6 * share, 8 * share] * 5
        )
        low, high = special.logit(intervals.interval(value, left_out, weights))
        return (special.logit(value) - low) / (high - special.logit(value))

    assert asymmetry(1) < 1.2 < asymmetry(0.1) < asymmetry(0.05)


def test_people_of_another_sample_widen_an_interval_and_one_who_decides_takes_it_away():
    value, left_out, weights = rate([9, 2, 14, 5, 5, 12, 1, 3])
    low, high = intervals.interval(value, left_out, weights)
    same = np.full(6, value)
    assert intervals.of_two_samples(value, left_out, weights, same, False) == (low, high)
    moved = value + 0.02 * np.linspace(-1, 1, 6)
    wider = intervals.of_two_samples(value, left_out, weights, moved, False)
    assert wider[0] < low and high < wider[1]
    assert np.isnan(intervals.of_two_samples(value, left_out, weights, np.append(same, 1.0), False)).all()


def two_models(seed, people):
    """Two models' rates: old, new, without each person, and weights."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(20, 100, people)
    hard = rng.beta(0.7, 5, people)
    factor = rng.choice([0.02, 0.3, 1, 2])
    models = [
        rate(rng.binomial(weights, np.clip(part * hard + 0.02 * rng.random(people), 0, 1)), weights)
        for part in (1, factor)
    ]
    return models[0][0], models[1][0], models[0][1], models[1][1], weights


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 40))
@example(5288, 5)  # of equal errors
@example(48241, 5)
def test_interval_and_p_value_of_a_difference_say_the_same(seed, people):
    old, new, old_without, new_without, weights = of = two_models(seed, people)
    low, high, p = intervals.difference(*of)
    if reason := intervals.why_no_difference(*of):
        assert np.isnan([low, high, p]).all() and reason
        return
    assert -1 <= low <= new - old <= high <= 1 and 0 < p <= 1 and low < high
    assert (p < 0.05) == (low > 0 or high < 0) or 0 in (low, high)
    back = intervals.difference(new, old, new_without, old_without, weights)
    np.testing.assert_allclose((-back[1], -back[0], back[2]), (low, high, p), atol=1e-9)
    mirrored = intervals.difference(1 - old, 1 - new, 1 - old_without, 1 - new_without, weights)
    np.testing.assert_allclose((-mirrored[1], -mirrored[0], mirrored[2]), (low, high, p), atol=1e-9)


def test_a_model_that_errs_nowhere_still_differs_from_one_that_errs():
    old, old_without, weights = rate([30, 20, 25, 10, 31, 22, 18, 27])
    low, high, p = intervals.difference(old, 1.0, old_without, np.ones(8), weights)
    assert 0 < low < 1 - old < high and p < 0.01
    ends = intervals.interval(old, old_without, weights)
    assert (low, high) == pytest.approx((1 - ends[1], 1 - ends[0]))  # the other's error is 0, and sure
    assert np.isnan(intervals.difference(1.0, 1.0 - 1e-4, np.ones(8), 1 - 1e-4 * np.arange(8), weights)).all()


def test_rounding_is_no_difference():
    old, without, weights = rate([30, 20, 25, 10, 31, 22, 18, 27])
    noise = 1e-16 * np.arange(8)
    for value, left_out in ((old, without), (1.0, np.ones(8))):
        of = (value, value + 1e-16, left_out, left_out + noise, weights)
        assert "whoever is left out" in intervals.why_no_difference(*of)
        assert np.isnan(intervals.difference(*of)).all()


def test_a_ratio_of_errors_has_an_interval_of_its_own():
    old, old_without, weights = rate([40, 20, 24, 10, 32, 22, 18, 28])
    new, new_without, _ = rate([20, 10, 12, 5, 16, 11, 9, 14])
    assert intervals.ratio(old, new, old_without, new_without, weights) == pytest.approx((2, 2, 2))
    new, new_without, _ = rate([20, 15, 6, 5, 16, 17, 9, 14])
    value, low, high = intervals.ratio(old, new, old_without, new_without, weights)
    assert low < value < high and low * high == pytest.approx(value**2)
    assert np.isnan(intervals.ratio(old, 1.0, old_without, np.ones(8), weights)).all()


def test_four_of_five_tests_see_the_detectable_difference():
    rng = np.random.default_rng(0)
    n, seen = 12, 0
    for _ in range(400):
        values = rng.normal(size=n)
        wanted = intervals.detectable((values.sum() - values) / (n - 1))
        shifted = wanted + rng.normal(
            0, values.std(ddof=1) / np.sqrt(n)
        )  # the difference is as large as that
        seen += shifted / intervals.error((values.sum() - values) / (n - 1)) > stats.t.ppf(0.975, n - 1)
    assert 0.74 < seen / 400 < 0.86
    assert np.isnan(intervals.detectable(np.arange(4.0)))


def test_trials_of_independent_pairs_are_all_of_them():
    people = np.random.default_rng(0).binomial(50, 0.2, 400)  # of 50 independent pairs each
    value, left_out, _ = rate(people, np.full(400, 50))
    assert intervals.trials(value, left_out) == pytest.approx(20_000, rel=0.15)
    assert np.isnan(intervals.trials(1.0, np.ones(8)))


@pytest.mark.parametrize(("world", "people"), [("gaussian", 8), ("look-alikes", 20)])
def test_intervals_hold_the_truth_and_tests_reject_it_rarely(world, people):
    """A small seeded part of `benchmarks/coverage.py`, whose exact jackknife is that of the counts."""
    rng = np.random.default_rng(0)
    moved = coverage.shifts(world, False)
    found = pd.DataFrame([row for _ in range(100) for row in coverage.rows(world, people, False, rng, moved)])
    found = found[found["shown"] & found["auc"].isin([0.92, 0.975])]
    held = found.groupby("question")["held"].mean()
    assert held["single"] > 0.92 and held["difference"] > 0.92 and held["type I"] < 0.08


def test_the_benchmark_leaves_people_out_as_the_counts_do():
    vectors, faces = make(people=7, photos=8)
    counts = evaluated(faces, {"a": vectors})["test_seen"]["a"]["all"]
    scores, genuine, _ = materialised(vectors, faces)
    photos = pd.factorize(faces["identity"])[0]
    at = np.column_stack(np.triu_indices(len(photos), 1))
    pairs = coverage.Pairs(photos, at[genuine], at[~genuine])
    value, left_out = coverage.aucs(pairs, scores[genuine], scores[~genuine])
    assert value == pytest.approx(curves.auc_of(counts), abs=1e-9)
    np.testing.assert_allclose(left_out, curves.auc_without_each(counts), atol=1e-9)


def test_more_people_narrow_the_interval():
    def width(people, photos):
        vectors, faces = make(people, photos)
        table = verification.report(evaluated(faces, {"buffalo_l": vectors}))
        return (table["auc_high"] - table["auc_low"])[0]

    assert width(60, 6) < 0.6 * width(12, 6)


def test_no_interval_is_wider_than_so_many_people_allow():
    """Two of forty err, and one of them in everything: few people behind, yet forty were asked."""
    hits = np.zeros(40)
    hits[:3] = (20, 12, 9)
    value, without, weights = rate(hits, np.full(40, 20))
    low, high = intervals.interval(value, without, weights)
    assert 0.8 < low < value < high < 1
    assert intervals.of_people(0.0, np.full(100, 3)) == pytest.approx((0, 0.037), abs=1e-3)
    assert intervals.of_people(1.0, np.full(100, 3)) == pytest.approx((0.963, 1), abs=1e-3)
    assert intervals.of_people(0.5, np.array([100, 1, 1]))[1] > 0.9  # one person has all the trials


def test_a_value_is_written_with_its_interval():
    row = {"auc": 0.9876, "auc_low": 0.9, "auc_high": 1.0, "far": 0.031, "far_low": np.nan, "far_high": 0.1}
    assert intervals.bounded(row, "auc") == "0.988 [0.900, 1.000]"
    assert intervals.bounded(row, "auc", ".1%") == "98.8% [90.0, 100.0]"
    assert intervals.bounded(row, "far", ".0%") == "3%"
    assert intervals.bounded({"far": np.nan}, "far") == "–" and intervals.bounded({}, "far", missing="") == ""
