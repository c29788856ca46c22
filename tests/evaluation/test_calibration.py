"""Log-likelihood ratios are right where they can be known, and Cllr is what it says."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from src.evaluation import calibration, curves, pairs
from src.limits import NotPossible
from tests.evaluation.examples import evaluated, make, materialised, row_of


def counts_of(genuine, impostor):
    """Counts of these scores, of two clusters that hold nothing."""
    score = np.unique(np.concatenate([genuine, impostor]))
    yes, no = (
        np.bincount(np.searchsorted(score, part), minlength=len(score)) for part in (genuine, impostor)
    )
    none = np.zeros((2, len(score)), np.int64)
    return pairs.Counts(score, score, yes, no, 0.0, score, none, none, (("a",), ("b",)), 2, 2, 2, 0, 0, 0)


def gaussians(n=20_000, seed=0):
    """Scores of which the log-likelihood ratio is 2 s - 1: Gaussians of variance 1/2 around 1 and 0."""
    rng = np.random.default_rng(seed)
    return rng.normal(1, 0.5**0.5, n), rng.normal(0, 0.5**0.5, 5 * n)


def bits(genuine, impostor):
    """Cllr of log-likelihood ratios, as it is defined."""
    return (np.log2(1 + np.exp(-genuine)).mean() + np.log2(1 + np.exp(impostor)).mean()) / 2


def test_the_line_is_that_of_the_world():
    line = calibration.fit(counts_of(*gaussians()))
    assert line.slope == pytest.approx(2, rel=0.03) and line.offset == pytest.approx(-1, abs=0.03)
    genuine, impostor = gaussians(seed=1)
    counts = counts_of(genuine, impostor)
    assert calibration.cllr(counts, line(counts.score)) == pytest.approx(bits(line(genuine), line(impostor)))
    assert calibration.min_cllr(counts) == pytest.approx(bits(2 * genuine - 1, 2 * impostor - 1), abs=0.005)


def test_saying_nothing_costs_a_bit_and_saying_wrong_more():
    counts = counts_of(*gaussians(2000))
    assert calibration.cllr(counts, np.zeros(len(counts.score))) == pytest.approx(1)
    assert calibration.cllr(counts, -(2 * counts.score - 1)) > 1.5


def test_the_least_cost_is_that_of_isotonic_regression():
    genuine, impostor = gaussians(300)
    counts = counts_of(np.round(genuine, 2), np.round(impostor, 2))
    share = counts.genuine / counts.genuine.sum(), counts.impostor / counts.impostor.sum()
    weight = share[0] + share[1]
    p = IsotonicRegression().fit_transform(counts.score, share[0] / weight, sample_weight=weight)
    with np.errstate(divide="ignore"):
        ratios = np.log(p) - np.log(1 - p)
        costs = calibration._costs(ratios)
    expected = sum(part[part > 0] @ cost[part > 0] for part, cost in zip(share, costs, strict=True)) / 2
    assert calibration.min_cllr(counts) == pytest.approx(expected, abs=1e-9)
    assert calibration.min_cllr(counts) < calibration.cllr(counts, calibration.fit(counts)(counts.score))
    assert calibration.min_cllr(counts_of(np.ones(5), np.zeros(5))) == 0


def test_scores_that_part_the_kinds_have_a_finite_line():
    line = calibration.fit(counts_of(np.linspace(0.6, 0.9, 50), np.linspace(0, 0.5, 400)))
    assert np.isfinite([line.slope, line.offset]).all() and line.slope > 5


def test_a_failure_to_enrol_has_a_ratio_of_its_own():
    genuine, impostor = gaussians(5000)
    genuine[: 5000 // 4] = -np.inf  # a quarter of the genuine pairs, a fiftieth of the others
    impostor[: 25_000 // 50] = -np.inf
    counts = counts_of(genuine, impostor)
    line = calibration.fit(counts)
    assert line.failure == pytest.approx(np.log(0.25 / 0.02), abs=0.01)
    found = calibration.cllr(counts, line(counts.score))
    assert calibration.min_cllr(counts) < found < 1
    with pytest.raises(NotPossible, match="scores of genuine"):
        calibration.fit(counts_of(np.full(3, -np.inf), impostor))


def test_people_are_left_out_as_their_pairs_are():
    vectors, faces = make(people=6)
    counts = evaluated(faces, {"a": vectors})["test_seen"]["a"]["all"]
    line = calibration.fit(counts)
    left_out = calibration.cllr_without_each(counts, line(curves.middle(counts)))
    for person in range(6):
        kept = (faces["identity"] != f"person {person}").to_numpy()
        scores, genuine, _ = materialised(vectors[kept], faces[kept])
        assert left_out[person] == pytest.approx(
            bits(line(scores[genuine]), line(scores[~genuine])), abs=1e-5
        )


def test_the_table_gives_every_row_its_cost_or_the_reason():
    vectors, faces = make(people=12, photos=10)
    nothing = np.full_like(vectors, np.nan)
    results = evaluated(faces, {"a": vectors, "b": nothing})
    other = make(people=12, photos=10, seed=1)
    val = evaluated(other[1], {"a": other[0], "b": np.full_like(other[0], np.nan)})["test_seen"]
    table = calibration.calibrated({"all": val}, results)
    row = row_of(table, "a")
    assert 0 < row["min_cllr"] < row["cllr"] and row["cllr_low"] < row["cllr"] < row["cllr_high"]
    row = row_of(table, "b")
    assert np.isnan(row["cllr"]) and "are needed to calibrate on" in row["note"] and row["min_cllr"] == 1
    without = calibration.calibrated({"all": {"a": {}, "b": {}}}, results)
    assert without["note"].str.contains("val has no pairs").all() and without["cllr"].isna().all()


def test_what_is_said_is_what_is_found():
    fitted = calibration.fit(counts_of(*gaussians()))
    table = calibration.reliability(counts_of(*gaussians(seed=2)), fitted)
    assert len(table) == 12 and table["pairs"].sum() == 120_000 and table["said"].is_monotonic_increasing
    np.testing.assert_allclose(table["said"][1:-1], table["found"][1:-1], atol=0.12)
    wrong = calibration.reliability(counts_of(*gaussians(seed=2)), calibration.Line(4.0, -2.0, 0.0))
    assert abs(wrong["said"] - wrong["found"]).max() > 1
    assert stats.spearmanr(table["said"], table["found"]).statistic > 0.99


def test_what_is_said_and_found_is_of_each_model_that_can_be_calibrated():
    vectors, faces = make(people=12, photos=10)
    results = evaluated(faces, {"a": vectors, "b": np.full_like(vectors, np.nan)})
    val = {"all": results["test_seen"]}
    table = calibration.said_and_found(val, results, ["a", "b", "missing"])
    assert set(table["model"]) == {"a"} and table["said"].is_monotonic_increasing
    line = calibration.fit(val["all"]["a"]["all"])
    alone = calibration.reliability(results["test_seen"]["a"]["all"], line)
    pd.testing.assert_frame_equal(table[["said", "found", "pairs"]], alone)
    with pytest.raises(NotPossible, match="are needed to calibrate on"):
        calibration.said_and_found(val, results, ["b"])
