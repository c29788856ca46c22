"""Pairs that share people count as few; what a test set cannot support is said."""

import numpy as np
import pytest

from src.evaluation import curves, intervals, support, verification
from tests.evaluation.examples import evaluated, make, row_of, unit_rows


def alone(people, photos=2, seed=0):
    """Photos of people who look like nobody: impostor scores are nearly independent."""
    rng = np.random.default_rng(seed)
    vectors, faces = make(people, photos)
    return unit_rows(rng.normal(size=(len(vectors), 256))), faces


def counts_of(vectors, faces):
    return evaluated(faces, {"a": vectors})["test_seen"]["a"]["all"]


def without_each(counts):
    return curves.far_and_tar(*intervals.without_each(counts))[0]


def independent(counts, far):
    impostor = intervals.on_coarse_grid(counts, counts.impostor)
    overall = curves.far_and_tar(impostor, impostor)[0]
    return support.independent_false_matches(far, overall, without_each(counts), impostor.sum())


def twins(people=8, photos=10):
    """The people of a test set of whom two look alike: every false match is of those two."""
    rng = np.random.default_rng(0)
    _, faces = make(people, photos)
    centres = np.eye(people, 64)
    centres[1] = centres[0] + 0.05 * centres[1]
    codes = faces["identity"].factorize()[0]
    return unit_rows(centres[codes] + 0.02 * rng.normal(size=(len(codes), 64))), faces


def test_pairs_that_share_no_likeness_are_all_trials():
    counts = counts_of(*alone(60))
    pairs = counts.impostor.sum() * 0.1
    assert independent(counts, 0.1) == pytest.approx(pairs, rel=0.6)
    assert "tar_far_1e-1" not in support.unsupported(counts, without_each(counts))


def test_many_false_matches_of_two_people_support_nothing():
    vectors, faces = twins()
    counts = counts_of(vectors, faces)
    far = 0.03
    assert counts.impostor.sum() * far > 30  # by the count of pairs they would
    assert independent(counts, far) < 2
    assert support.unsupported(counts, without_each(counts)) == list(verification.FARS)
    row = row_of(verification.report(evaluated(faces, {"a": vectors})), "a")
    assert np.isnan(row["tar_far_1e-1"]) and "tar_far_1e-1" in row["unsupported"]


def test_a_threshold_that_two_people_decide_is_noted():
    vectors, faces = twins()
    chosen = verification.thresholds({"all": {"a": {"all": counts_of(vectors, faces)}}}, 0.03)
    assert "independent ones" in chosen["note"][0]


def test_two_people_support_nothing():
    vectors, faces = alone(2, 60)
    counts = counts_of(vectors, faces)
    assert support.unsupported(counts, without_each(counts)) == list(verification.FARS)


def test_columns_say_what_stands_behind_a_row():
    vectors, faces = make(12, 12)
    faces["group"] = np.where(faces["identity"] == "person 3", 5, faces["group"])  # one photo, many times
    better = make(12, 12, noise=0.9)[0]
    table = verification.report(evaluated(faces, {"a": vectors, "b": better}))
    row = row_of(table, "b")
    assert row["people"] == 12 and row["genuine_people"] == 11
    assert row["unseen"] == pytest.approx(1 - 0.05 ** (1 / 11))
    assert 1 < row["auc_trials"] < row["genuine"] and row["auc_interval"] == ""
    assert row["auc_difference"] > row["auc_detectable"] > 0 and row["auc_difference_p"] < 0.05
    assert row["far_reached"] == 1 and row["auc_half_credit"] == 0 and row["note"] == ""


def test_what_failures_to_enrol_add_is_named():
    vectors, faces = make(12, 12)
    failed = np.random.default_rng(0).random(len(vectors)) < 0.3
    row = row_of(
        verification.report(evaluated(faces, {"a": np.where(failed[:, None], np.nan, vectors)})), "a"
    )
    i, j = np.triu_indices(len(vectors), 1)
    same = faces["identity"].to_numpy()[i] == faces["identity"].to_numpy()[j]
    lost = failed[i] | failed[j]
    assert row["auc_half_credit"] == pytest.approx(lost[same].mean() * lost[~same].mean() / 2)
    assert row["far_reached"] == pytest.approx(1 - lost[~same].mean())
    assert "half credit" in row["note"] and f"FAR {row['far_reached']:.3g}" in row["note"]


def test_people_with_genuine_pairs_are_those_of_the_stratum():
    vectors, faces = make(8, 6)
    faces["quality"] = np.where(faces["identity"].isin(["person 1", "person 2"]), "low", faces["quality"])
    counts = evaluated(faces, {"a": vectors})["test_seen"]["a"]
    for quality, of in counts.items():
        assert of.genuine_people == (of.cluster_genuine.sum(1) > 0).sum(), quality
    assert counts["high-low"].genuine_people <= 6 < counts["all"].genuine_people
