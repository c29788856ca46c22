"""Intervals widen with unlike people, and an interval and its p-value say the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from src.evaluation import intervals, verification
from tests.evaluation.examples import evaluated, make


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
    error, freedom = intervals.error(left_out, np.ones(20))
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(20)) and freedom == pytest.approx(19)
    assert intervals.error(left_out, np.arange(20) == 3)[1] == 1  # one person has all of the pairs
    assert np.isnan(intervals.error(left_out[:2], np.ones(2))).all()
    assert np.isnan(intervals.error(np.append(left_out, np.nan), np.ones(21))).all()


@pytest.mark.parametrize("bounds", [intervals.interval, intervals.auc_interval])
def test_intervals_stay_within_rates_and_hold_the_value(bounds):
    rng = np.random.default_rng(0)
    for value in (0.0, 0.02, 0.5, 0.999, 1.0):
        left_out = np.clip(value + 0.01 * rng.normal(size=12), 0, 1) if 0 < value < 1 else np.full(12, value)
        low, high = bounds(value, left_out, np.ones(12))
        assert 0 <= low <= value <= high <= 1 and low < high
    assert np.isnan(bounds(0.5, np.full(2, 0.5), np.ones(2))).all()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 40))
def test_interval_and_p_value_of_an_auc_difference_say_the_same(seed, people):
    rng = np.random.default_rng(seed)
    hard = rng.exponential(size=people) * rng.choice([0.01, 0.1, 0.5])
    old, new = rng.normal(2, 1, 2)
    a, b = (expit(level + hard * rng.normal() + 0.05 * rng.normal(size=people)) for level in (old, new))
    old, new = float(expit(old)), float(expit(new))
    weights = rng.integers(1, 100, people)
    low, high, p = intervals.auc_difference(old, new, a, b, weights)
    assert low < new - old < high and 0 < p <= 1
    assert (p < 0.05) == (low > 0 or high < 0)
    back = intervals.auc_difference(new, old, b, a, weights)
    np.testing.assert_allclose((-back[1], -back[0], back[2]), (low, high, p))


def test_a_difference_that_one_hard_person_makes_may_be_larger():
    """Of more people like the one from whom both AUCs suffer, the difference grows."""
    old, new, each = 0.92, 0.945, np.ones(10)
    without_old, without_new = np.full(10, 0.92), np.full(10, 0.945)
    without_old[0], without_new[0] = 0.96, 0.965
    low, high, _ = intervals.auc_difference(old, new, without_old, without_new, each)
    student = intervals.difference(new - old, without_new - without_old, each)
    assert low == student[0] and high - (new - old) > 1.2 * (student[1] - (new - old))
    without_old[0] = 1  # no errors are left without that person, and there are no log odds
    ends = intervals.auc_difference(old, new, without_old, without_new, each)
    assert ends == intervals.difference(new - old, without_new - without_old, each)


def test_more_people_narrow_the_interval():
    def width(people, photos):
        vectors, faces = make(people, photos)
        table = verification.report(evaluated(faces, {"buffalo_l": vectors}))
        return (table["auc_high"] - table["auc_low"])[0]

    assert width(60, 6) < 0.6 * width(12, 6)
