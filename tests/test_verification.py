"""Measures agree with scikit-learn on the same scores; intervals, thresholds and words follow from them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import det_curve, roc_auc_score, roc_curve

from src import verification
from tests.test_pairs import make, materialised, unit


def evaluated(faces, **models):
    return verification.evaluate(models, {"test_seen": verification.trials(faces, "test_seen")})


def line(table, model, quality="all"):
    return table[(table["model"] == model) & (table["quality"] == quality)].to_dict("records")[0]


@pytest.fixture(scope="module")
def example():
    vectors, faces = make(people=12, photos=12)
    better = make(people=12, photos=12, noise=0.8)[0]
    return vectors, faces, better, evaluated(faces, old=vectors, new=better)


def test_measures_agree_with_scikit_learn(example):
    vectors, faces, _, results = example
    table = verification.report(results)
    scores, genuine, stratum = materialised(vectors, faces)
    for quality in ("all", "high-low", "low-low"):
        of = (stratum == quality) | (quality == "all")
        row = line(table, "old", quality)
        assert row["auc"] == pytest.approx(roc_auc_score(genuine[of], scores[of]), abs=1e-6)
        far, tar, _ = roc_curve(genuine[of], scores[of], drop_intermediate=False)
        for name, wanted in verification.FARS.items():
            if name in row["unsupported"]:
                assert np.isnan(row[name]) and (~genuine[of]).sum() * wanted < 30
            else:
                assert row[name] == pytest.approx(np.interp(wanted, far, tar), abs=1e-6)
        # the mean TAR below a FAR is scikit-learn's partial AUC before McClish's standardisation
        smallest = 0.1**2 / 2
        standardised = roc_auc_score(genuine[of], scores[of], max_fpr=0.1)
        partial = (2 * standardised - 1) * (0.1 - smallest) + smallest
        assert row["pauc"] == pytest.approx(partial / 0.1, abs=1e-5)
        false, missed, _ = det_curve(genuine[of], scores[of])
        at = np.argmin(abs(false - missed))
        assert row["eer"] == pytest.approx(
            (false[at] + missed[at]) / 2, abs=abs(false[at] - missed[at]) + 1e-6
        )
        g, i = scores[of & genuine], scores[of & ~genuine]
        d_prime = (g.mean() - i.mean()) / np.sqrt((g.var() + i.var()) / 2)
        assert row["d_prime"] == pytest.approx(d_prime, abs=1e-4)


def test_auc_of_a_few_photos():
    vectors, faces = make(people=4, photos=3)
    scores, genuine, _ = materialised(vectors, faces)
    found = verification.auc(vectors, faces["identity"].to_numpy())
    assert found == pytest.approx(roc_auc_score(genuine, scores), abs=1e-6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v, who: (v, who[1:]), r"embeddings, but identities \["),
        (lambda v, who: (v, who[:, None]), r"embeddings, but identities \["),
        (lambda v, who: (v[:0], who[:0]), "is empty"),
        (lambda v, who: (v, np.where(np.arange(len(who)) == 4, None, who)), "row 4 is missing"),
        (lambda v, who: (v, np.zeros(len(who))), "one person only"),
        (lambda v, who: (v, np.arange(len(who))), "nobody has two photos"),
        (lambda v, who: (v * (np.arange(len(v)) != 3)[:, None], who), "row 3 .* is zero"),
        (lambda v, who: (np.where(np.eye(*v.shape) > 0, np.nan, v), who), "row 0 .* NaN or infinity"),
    ],
)
def test_auc_names_what_is_wrong(spoil, message):
    vectors, faces = make()
    with pytest.raises(ValueError, match=message):
        verification.auc(*spoil(vectors, faces["identity"].to_numpy()))


def test_ties_count_half():
    rows = np.eye(4, dtype=np.float32)[[0, 0, 1, 0, 0, 2]]
    assert verification.auc(rows, np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(
        roc_auc_score([1] * 6 + [0] * 9, [1, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0])
    )


def test_eer_is_interpolated():
    far, tar = np.array([0, 0, 0.4, 1]), np.array([0, 0.5, 0.9, 1])
    assert verification._measures(far, tar)["eer"] == pytest.approx(0.25)


def test_a_model_does_not_differ_from_itself(example):
    vectors, faces, _, _ = example
    table = verification.report(evaluated(faces, a=vectors, b=vectors.copy()))
    for name in ("auc_difference", "auc_difference_low", "auc_difference_high"):
        assert (table[name] == 0).all()
    assert (table["auc_difference_p"] == 1).all()
    words = verification.summary(table)
    assert "no significant difference" in words and "better" not in words


def test_differences_are_antisymmetric_and_intervals_hold_the_value(example):
    _, _, _, results = example
    forth = verification.report(results, baseline="old")
    back = verification.report(results, baseline="new")
    for quality in ("all", "high-low"):
        a, b = line(forth, "new", quality), line(back, "old", quality)
        assert a["auc_difference"] == pytest.approx(-b["auc_difference"])
        assert a["auc_difference_low"] == pytest.approx(-b["auc_difference_high"])
        assert a["auc_difference_p"] == pytest.approx(b["auc_difference_p"])
        assert a["auc_difference_low"] < a["auc_difference"] < a["auc_difference_high"]
        assert (a["auc_difference_p"] < 0.05) == (a["auc_difference_low"] > 0)
    for table in (forth, back):
        assert (table["auc_low"] < table["auc"]).all() and (table["auc"] < table["auc_high"]).all()
    with pytest.raises(ValueError, match="baseline 'x'"):
        verification.report(results, baseline="x")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 40))
def test_interval_and_p_value_of_an_auc_difference_say_the_same(seed, people):
    rng = np.random.default_rng(seed)
    hard = rng.exponential(size=people) * rng.choice([0.01, 0.1, 0.5])
    old, new = rng.normal(2, 1, 2)
    a, b = (expit(level + hard * rng.normal() + 0.05 * rng.normal(size=people)) for level in (old, new))
    old, new = float(expit(old)), float(expit(new))
    weights = rng.integers(1, 100, people)
    low, high, p = verification._auc_difference(old, new, a, b, weights)
    assert low < new - old < high and 0 < p <= 1
    assert (p < 0.05) == (low > 0 or high < 0)
    back = verification._auc_difference(new, old, b, a, weights)
    np.testing.assert_allclose((-back[1], -back[0], back[2]), (low, high, p))


def test_a_difference_that_one_hard_person_makes_may_be_larger():
    """Both AUCs suffer from one person, the better one less: of more such people, the difference grows."""
    old, new, each = 0.92, 0.945, np.ones(10)
    without_old, without_new = np.full(10, 0.92), np.full(10, 0.945)
    without_old[0], without_new[0] = 0.96, 0.965
    low, high, _ = verification._auc_difference(old, new, without_old, without_new, each)
    student = verification._difference(new - old, without_new - without_old, each)
    assert low == student[0] and high - (new - old) > 1.2 * (student[1] - (new - old))
    without_old[0] = 1  # no errors are left without that person, and there are no log odds
    ends = verification._auc_difference(old, new, without_old, without_new, each)
    assert ends == verification._difference(new - old, without_new - without_old, each)


def test_more_people_narrow_the_interval_and_more_photos_hardly(example):
    def width(people, photos):
        table = verification.report(evaluated(make(people, photos)[1], m=make(people, photos)[0]))
        return (table["auc_high"] - table["auc_low"])[0]

    assert width(60, 6) < 0.6 * width(12, 6)


def test_few_people_have_no_interval():
    vectors, faces = make(people=2)
    table = verification.report(evaluated(faces, m=vectors, n=vectors[:, ::-1].copy()))
    assert table["auc"].notna().all() and table["auc_low"].isna().all()
    assert "too few" in verification.summary(table)


def test_a_stratum_without_genuine_pairs_is_a_row_without_numbers():
    vectors, faces = make()
    high = faces.groupby("identity").cumcount() == 0
    faces["quality"] = np.where(high, "high", "low")
    row = line(verification.report(evaluated(faces, m=vectors)), "m", "high-high")
    assert row["genuine"] == 0 and row["impostor"] > 0
    assert all(np.isnan(row[name]) for name in ("auc", "auc_low", "eer", "d_prime"))


def test_unlabelled_quality_gives_all_pairs_only():
    vectors, faces = make()
    table = verification.report(evaluated(faces.assign(quality="unknown"), m=vectors))
    assert list(table["quality"]) == ["all"]


@pytest.mark.parametrize("target", [0.01, 0.1, 0.5])
def test_the_threshold_keeps_its_promise_on_val_and_is_applied_unchanged(example, target):
    vectors, faces, _, results = example
    chosen = verification.thresholds(results["test_seen"], target)
    old = chosen.to_dict("records")[0]
    scores, genuine, _ = materialised(vectors, faces)
    accepted = scores >= old["threshold"]
    assert np.mean(accepted[~genuine]) <= target + 1e-9
    assert old["far"] == pytest.approx(np.mean(accepted[~genuine]), abs=1e-3)
    lower = np.mean(scores[~genuine] >= old["threshold"] - 0.01)
    assert lower > target
    rates = verification.at_thresholds(results, chosen)
    row = rates[(rates["model"] == "old") & (rates["quality"] == "all")].iloc[0]
    assert row["tar"] == pytest.approx(np.mean(accepted[genuine]), abs=1e-3)
    assert row["far_low"] < row["far"] < row["far_high"] and row["tar_low"] < row["tar"] < row["tar_high"]


def test_a_far_too_small_for_val_is_noted(example):
    _, _, _, results = example
    assert "few" in verification.thresholds(results["test_seen"], 1e-4)["note"][0]
    assert not verification.thresholds(results["test_seen"], 1e-1)["note"][0]
    with pytest.raises(ValueError, match="between 0 and 1"):
        verification.thresholds(results["test_seen"], 0)


def test_a_model_without_any_score_has_no_threshold_and_accepts_nothing():
    vectors, faces = make()
    results = evaluated(faces, m=np.full_like(vectors, np.nan))
    chosen = verification.thresholds(results["test_seen"], 0.1)
    assert np.isnan(chosen["threshold"][0]) and "no pair has a score" in chosen["note"][0]
    assert (verification.at_thresholds(results, chosen)[["far", "tar"]] == 0).all(axis=None)
    with pytest.raises(ValueError, match="no results"):
        verification.report({})


def test_roc_for_drawing_follows_the_measures(example):
    _, _, _, results = example
    curves = verification.roc(results["test_seen"])
    table = verification.report(results)
    for name, curve in curves.groupby("model"):
        assert curve["tar"].is_monotonic_increasing and curve["far"].iloc[-1] == 1
        at = np.interp(0.1, curve["far"], curve["tar"])
        assert at == pytest.approx(line(table, name)["tar_far_1e-1"], abs=0.02)
        assert (curve["low"] <= curve["tar"] + 1e-12).all() and (curve["tar"] <= curve["high"] + 1e-12).all()
    with pytest.raises(ValueError, match="no x pairs"):
        verification.roc(results["test_seen"], "x")


def test_histogram_is_a_density(example):
    _, _, _, results = example
    table = verification.histogram(results["test_seen"]["old"]["all"], bins=40)
    width = table["score"].diff().iloc[1]
    np.testing.assert_allclose(table[["genuine", "impostor"]].sum() * width, 1, rtol=1e-6)


def test_dropping_the_worst_photos_lowers_the_error_of_a_true_quality():
    vectors, faces = make(people=10, photos=12, noise=0.8)
    rng = np.random.default_rng(0)
    quality = rng.random(len(vectors))
    spoiled = unit(vectors + (quality < 0.3)[:, None] * rng.normal(size=vectors.shape))
    test = verification.trials(faces, "test_seen")
    chosen = verification.thresholds(evaluated(faces, m=spoiled)["test_seen"], 0.05)
    table = verification.discard({"m": spoiled}, test, quality, chosen)
    scores, genuine, _ = materialised(spoiled, faces)
    missed = np.mean(scores[genuine] < chosen["threshold"][0])
    assert table["frr"][0] == pytest.approx(missed, abs=1e-3) and table["genuine"][0] == genuine.sum()
    assert table["frr"][table["discarded"] == 0.3].item() < 0.5 * missed
    with pytest.raises(ValueError, match="quality values"):
        verification.discard({"m": spoiled}, test, quality[1:], chosen)


def test_the_control_sees_the_border_and_not_the_face():
    rng = np.random.default_rng(0)
    _, faces = make(people=12)
    code = pd.factorize(faces["identity"])[0]
    crops = rng.integers(0, 30, (len(faces), 112, 112, 3), dtype=np.uint8)
    crops[:, 20:-20, 20:-20] += (code * 18).astype(np.uint8)[:, None, None, None]
    blind = verification.no_face(crops)
    np.testing.assert_allclose(np.linalg.norm(blind, axis=1), 1, atol=1e-6)
    crops[:, :10] += (code * 18).astype(np.uint8)[:, None, None, None]
    table = verification.report(evaluated(faces, m=make(12)[0], **{"no face": verification.no_face(crops)}))
    assert line(table, "no face")["auc"] == pytest.approx(1)
    assert len(verification.warnings(table)) == 1 and "Beware" in verification.summary(table)
    table = verification.report(evaluated(faces, m=make(12)[0], **{"no face": blind}))
    assert not verification.warnings(table)
    bright = np.full((2, 112, 112, 3), 200, np.uint8)
    bright[1, :50] = 0  # outside the photo: no colour of the background
    whole, part = verification.no_face(bright)
    np.testing.assert_allclose(whole, part, atol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(verification.no_face(np.zeros_like(crops[:2])), axis=1), 1, atol=1e-6
    )
    with pytest.raises(ValueError, match="uint8"):
        verification.no_face(crops / 255)


def test_the_summary_says_what_the_numbers_say(example):
    _, _, _, results = example
    rates = verification.at_thresholds(results, verification.thresholds(results["test_seen"], 0.1))
    table = verification.report(results)
    words = verification.summary(table, rates)
    row = line(table, "new", "high-low")
    assert "**new is better than old**" in words and f"{row['auc_difference']:.3f}" in words
    assert "high-low pairs of 12 people" in words and "New photos of people in training" in words
    assert f"{rates['threshold'][0]:.3f}" in words
    assert "**old is worse than new**" in verification.summary(
        verification.report(results, "new"), model="old"
    )


def test_the_summary_names_the_best_model_and_what_becomes_of_good_photos(example):
    vectors, faces, _, _ = example
    rng = np.random.default_rng(5)
    good = (faces["quality"] == "high").to_numpy()
    spoilt = np.where(good[:, None], rng.normal(size=vectors.shape), vectors)  # forgets good photos
    people = np.eye(faces["identity"].nunique(), vectors.shape[1])[pd.factorize(faces["identity"])[0]]
    rows = {"old": vectors, "best": vectors + people, "forgetful": spoilt}
    unit = {
        name: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for name, v in rows.items()
    }
    table = verification.report(evaluated(faces, **unit))
    words = verification.summary(table, model="forgetful")
    fold = (1 - line(table, "old", "high-low")["auc"]) / (1 - line(table, "best", "high-low")["auc"])
    assert "Best of all models there: best, AUC" in words and f"{fold:.1f} times less error than old" in words
    assert "On pairs of two good photos: **forgetful is worse than old**" in words
    assert "Best of all" not in verification.summary(table, model="best")


def test_the_headline_is_all_pairs_where_high_low_pairs_are_few():
    vectors, faces = make(people=12, photos=12)
    faces["quality"] = np.where(np.arange(len(faces)) == 0, "low", "high")  # as where quality is measured
    table = verification.report(evaluated(faces, m=vectors, n=vectors[:, ::-1].copy()))
    assert line(table, "n", "high-low")["genuine"] > 0
    assert "all pairs of 12 people" in verification.summary(table)


def test_folders_with_a_background_of_their_own_are_named():
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (24, 112, 112, 3)).astype(np.uint8)
    crops[:6] = crops[:6] // 8 + 200  # one camera, one bright wall
    people = np.repeat(["a", "b", "c", "d"], 6)
    faces = pd.DataFrame({"path": [f"{who}/{i}.jpg" for i, who in enumerate(people)], "identity": people})
    faces["group"] = np.arange(24)
    table = verification.given_away(verification.no_face(crops), faces)
    assert table["folder"].tolist() == ["a"]
    assert table["auc"][0] > 0.99
