"""Failures to enrol match at no threshold: curves end where thresholds do."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from src.evaluation import curves, pairs, verification
from src.limits import NotPossible
from tests.evaluation.examples import evaluated, make, row_of, unit_rows


def failing(share, people=12, photos=12, noise=2.0):
    """Embeddings of which a share is missing, the faces, and the counts."""
    vectors, faces = make(people=people, photos=photos, noise=noise)
    vectors[np.random.default_rng(0).random(len(vectors)) < share] = np.nan
    return vectors, faces, evaluated(faces, {"buffalo_l": vectors})


def test_a_curve_ends_at_the_best_far_that_a_threshold_reaches():
    _, _, results = failing(0.2)
    counts = results["test_seen"]["buffalo_l"]["all"]
    far, tar = curves.reachable(counts)
    lost = np.isneginf(counts.score)
    assert lost.sum() == 1
    assert far[-1] == pytest.approx(1 - counts.impostor[lost].sum() / counts.impostor.sum())
    assert tar[-1] == pytest.approx(1 - counts.genuine[lost].sum() / counts.genuine.sum())
    drawn = verification.roc(results["test_seen"])
    assert drawn["far"].iloc[-1] == pytest.approx(far[-1]) and far[-1] < 0.7
    assert drawn["tar"].iloc[-1] == pytest.approx(tar[-1])
    left_out = curves.reachable_without_each(counts)
    assert left_out[0].shape == (12, len(counts.cluster_score)) and (left_out[0][:, -1] < 0.8).all()


def test_a_rate_beyond_the_end_is_that_at_the_end():
    """Nobody accepts a pair without a score: at FAR 10 %, TAR is what the best threshold gives."""
    genuine, impostor = np.array([60, 20, 20]), np.array([95, 3, 2])
    values = curves.measures(*curves.far_and_tar(genuine, impostor), failures=True)
    assert values["tar_far_1e-1"] == pytest.approx(0.4)
    assert values["pauc"] == pytest.approx((0.02 * 0.1 + 0.03 * 0.3 + 0.05 * 0.4) / 0.1)
    assert np.isnan(values["eer"])
    scored = curves.measures(*curves.far_and_tar(genuine, impostor))
    assert scored["tar_far_1e-1"] > 0.4 and scored["eer"] > 0.3 and scored["auc"] == values["auc"]


def test_an_eer_is_reached_where_far_meets_frr_before_the_end():
    genuine, impostor = np.array([10, 30, 60]), np.array([10, 60, 30])
    values = curves.measures(*curves.far_and_tar(genuine, impostor), failures=True)
    assert 0.3 < values["eer"] < 0.4
    _, _, results = failing(0.5)
    row = row_of(verification.report(results), "buffalo_l")
    assert np.isnan(row["eer"]) and np.isnan(row["eer_low"]) and "; EER not reached;" in row["note"]
    assert 0 < row["auc_low"] < row["auc"] < row["auc_high"] < 1
    row = row_of(verification.report(failing(0.05, noise=0.5)[2]), "buffalo_l")
    assert row["eer"] > 0 and "EER not reached" not in row["note"]


def test_failures_have_half_credit_in_the_auc():
    vectors, faces, results = failing(0.3)
    counts = results["test_seen"]["buffalo_l"]["all"]
    i, j = np.triu_indices(len(vectors), 1)
    scores = np.nan_to_num((vectors[i].astype(float) * vectors[j]).sum(1), nan=-2.0)
    names = faces["identity"].to_numpy()
    expected = roc_auc_score(names[i] == names[j], scores)
    assert curves.auc_of(counts) == pytest.approx(expected, abs=1e-6)
    assert row_of(verification.report(results), "buffalo_l")["auc"] == pytest.approx(expected, abs=1e-6)


def test_a_far_that_no_threshold_reaches_is_said_and_every_score_accepted():
    _, _, results = failing(0.6)
    chosen = verification.thresholds({"all": results["test_seen"]}, 0.5)
    counts = results["test_seen"]["buffalo_l"]["all"]
    far, tar = (rates[-1] for rates in curves.reachable(counts))
    assert chosen["far"][0] == pytest.approx(far) and chosen["tar"][0] == pytest.approx(tar) and far < 0.5
    assert chosen["note"][0].startswith("failures to enrol end the curve below this FAR")
    rates = verification.at_thresholds(results, chosen, {"all": results["test_seen"]})
    assert rates["far"][0] == pytest.approx(far)


def test_a_model_without_embeddings_has_no_curve_and_no_interval_of_its_rates():
    vectors, faces = make()
    results = evaluated(faces, {"none": np.full_like(vectors, np.nan), "some": vectors})
    assert list(verification.roc(results["test_seen"])["model"].unique()) == ["some"]
    with pytest.raises(NotPossible):
        verification.roc({"none": results["test_seen"]["none"]})
    chosen = verification.thresholds({"all": {"none": results["test_seen"]["some"]}}, 0.1)
    val = {"all": {"none": results["test_seen"]["some"]}}
    rates = verification.at_thresholds({"t": {"none": results["test_seen"]["none"]}}, chosen, val)
    assert (rates[["far", "tar"]].dropna() == 0).all(axis=None)
    assert rates[["far_low", "far_high", "tar_low", "tar_high"]].isna().all(axis=None)


def test_a_threshold_lies_between_two_scores_however_close_they_are():
    """Cosines of 1e-9 and less, as of posteriors."""
    rng = np.random.default_rng(0)
    rows = np.abs(rng.normal(size=(60, 8))) ** 12
    vectors, identity = unit_rows(rows), np.arange(60) // 6
    test = pairs.Trials("t", np.arange(60), identity, (), np.full(60, 2, np.int8), np.full(60, -1))
    counts = pairs.evaluate({"a": vectors}, {"t": test})["t"]
    chosen = verification.thresholds({"all": counts}, 0.3)
    i, j = np.triu_indices(60, 1)
    scores = (vectors.astype(float) @ vectors.T)[i, j]
    far = np.mean(scores[identity[i] != identity[j]] >= chosen["threshold"][0])
    assert far == pytest.approx(chosen["far"][0], abs=2e-3) and 0.29 < far <= 0.3
