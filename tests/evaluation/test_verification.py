"""Measures agree with scikit-learn on the same scores; tables and thresholds follow from them."""

import numpy as np
import pytest
from sklearn.metrics import det_curve, roc_auc_score, roc_curve

from src.evaluation import verdict, verification
from src.limits import NotPossible
from tests.evaluation.examples import evaluated, make, materialised, row_of, unit_rows


def test_measures_agree_with_scikit_learn(example):
    vectors, faces, _, results = example
    table = verification.report(results)
    scores, genuine, stratum = materialised(vectors, faces)
    for quality in ("all", "high-low", "low-low"):
        of = (stratum == quality) | (quality == "all")
        row = row_of(table, "buffalo_l", quality)
        assert row["auc"] == pytest.approx(roc_auc_score(genuine[of], scores[of]), abs=1e-6)
        far, tar, _ = roc_curve(genuine[of], scores[of], drop_intermediate=False)
        for name, wanted in verification.FARS.items():
            assert (~genuine[of]).sum() * wanted >= 30 or name in row["unsupported"]
            if name in row["unsupported"]:  # as the false matches are of few people, or few
                assert np.isnan(row[name])
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


def test_auc_is_nan_where_there_are_no_pairs_of_both_kinds():
    vectors, faces = make(people=4, photos=3)
    identity = faces["identity"]
    assert verification.auc_or_nan(vectors, identity) == verification.auc(vectors, identity.to_numpy())
    assert verification.has_pairs(identity)
    for without in (np.zeros(len(vectors)), np.arange(len(vectors)), identity[:0]):
        assert not verification.has_pairs(without)
        assert np.isnan(verification.auc_or_nan(vectors[: len(without)], without))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v, who: (v, who[1:]), r"embeddings, but identities \["),
        (lambda v, who: (v, who[:, None]), r"embeddings, but identities \["),
        (lambda v, who: (v[:0], who[:0]), "is empty"),
        (lambda v, who: (v, np.where(np.arange(len(who)) == 4, None, who)), "row 4 is missing"),
        (lambda v, who: (v, np.zeros(len(who))), "one person only"),
        (lambda v, who: (v, np.arange(len(who))), "nobody has two different photos"),
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
    assert verification.measures(far, tar)["eer"] == pytest.approx(0.25)


def test_a_model_does_not_differ_from_itself(example):
    vectors, faces, _, _ = example
    table = verification.report(evaluated(faces, {"buffalo_l": vectors, "ResNet-50 before": vectors.copy()}))
    assert (table["auc_difference"] == 0).all()
    assert table[["auc_difference_low", "auc_difference_high", "auc_difference_p"]].isna().all(axis=None)
    assert table["auc_difference_interval"].str.contains("whoever is left out").all()


def test_differences_are_antisymmetric_and_intervals_hold_the_value(example):
    _, _, _, results = example
    forth = verification.report(results, baseline="buffalo_l")
    back = verification.report(results, baseline="ResNet-50 fine-tuned")
    for quality in ("all", "high-low"):
        a, b = row_of(forth, "ResNet-50 fine-tuned", quality), row_of(back, "buffalo_l", quality)
        assert a["auc_difference"] == pytest.approx(-b["auc_difference"])
        assert a["auc_difference_low"] == pytest.approx(-b["auc_difference_high"])
        assert a["auc_difference_p"] == pytest.approx(b["auc_difference_p"])
        assert a["auc_difference_low"] < a["auc_difference"] < a["auc_difference_high"]
        assert (a["auc_difference_p"] < 0.05) == (a["auc_difference_low"] > 0)
    for table in (forth, back):
        inside = (table["auc_low"] < table["auc"]) & (table["auc"] < table["auc_high"])
        assert (inside == (table["auc_interval"] == "")).all() and 0 < inside.sum() < len(table)
    with pytest.raises(ValueError, match="baseline 'x'"):
        verification.report(results, baseline="x")


def test_few_people_have_no_interval():
    vectors, faces = make(people=2)
    models = {"buffalo_l": vectors, "ResNet-50 before": vectors[:, ::-1].copy()}
    table = verification.report(evaluated(faces, models))
    assert table["auc"].notna().all() and table["auc_low"].isna().all()


def test_a_stratum_without_genuine_pairs_is_a_row_without_numbers():
    vectors, faces = make()
    high = faces.groupby("identity").cumcount() == 0
    faces["quality"] = np.where(high, "high", "low")
    row = row_of(verification.report(evaluated(faces, {"buffalo_l": vectors})), "buffalo_l", "high-high")
    assert row["genuine"] == 0 and row["impostor"] > 0
    assert all(np.isnan(row[name]) for name in ("auc", "auc_low", "eer", "d_prime"))


def test_unlabelled_quality_gives_all_pairs_only():
    vectors, faces = make()
    table = verification.report(evaluated(faces.assign(quality="unknown"), {"buffalo_l": vectors}))
    assert list(table["quality"]) == ["all"]


def test_roc_for_drawing_follows_the_measures(example):
    _, _, _, results = example
    curves = verification.roc(results["test_seen"])
    for name, curve in curves.groupby("model"):
        assert curve["tar"].is_monotonic_increasing and curve["far"].iloc[-1] == 1
        far, tar = verification.reachable(results["test_seen"][name]["all"])
        np.testing.assert_allclose(curve["tar"], np.interp(curve["far"], far, tar), atol=1e-9)
        shown = curve.dropna()
        assert (
            len(shown) > 20 and (shown["low"] < shown["tar"]).all() and (shown["tar"] < shown["high"]).all()
        )
    with pytest.raises(ValueError, match="no x pairs"):
        verification.roc(results["test_seen"], "x")


def test_histogram_is_a_density(example):
    _, _, _, results = example
    table = verification.histogram(results["test_seen"], "buffalo_l", bins=40)
    width = table["score"].diff().iloc[1]
    np.testing.assert_allclose(table[["genuine", "impostor"]].sum() * width, 1, rtol=1e-6)


def test_dropping_the_worst_photos_lowers_the_error_of_a_true_quality():
    vectors, faces = make(people=10, photos=12, noise=0.8)
    rng = np.random.default_rng(0)
    quality = rng.random(len(vectors))
    spoiled = unit_rows(vectors + (quality < 0.3)[:, None] * rng.normal(size=vectors.shape))
    test = verification.trials(faces, "test_seen")
    chosen = verification.thresholds({"all": evaluated(faces, {"buffalo_l": spoiled})["test_seen"]}, 0.05)
    table = verification.discard({"buffalo_l": spoiled}, test, quality, chosen)
    scores, genuine, _ = materialised(spoiled, faces)
    missed = np.mean(scores[genuine] < chosen["threshold"][0])
    assert table["frr"][0] == pytest.approx(missed, abs=1e-3) and table["genuine"][0] == genuine.sum()
    assert table["frr"][table["discarded"] == 0.3].item() < 0.5 * missed
    with pytest.raises(ValueError, match="quality values"):
        verification.discard({"buffalo_l": spoiled}, test, quality[1:], chosen)


def test_what_could_not_be_had_keeps_its_row_and_says_why():
    vectors, faces = make()
    high = faces.assign(quality="high")
    rows = {"first": vectors, "missing": NotPossible("too few photos: 4 would do"), "last": vectors}
    table = verification.report(evaluated(high, rows), "first", verification.reasons(rows))
    assert list(table["model"].unique()) == ["first", "missing", "last"]
    assert row_of(table, "missing")["note"] == "not possible: too few photos: 4 would do"
    assert row_of(table, "first", "high-low")["note"] == "not possible: test_seen has no high-low pairs"
    assert row_of(table, "first")["note"] == ""
    assert np.isnan(row_of(table, "missing")["auc"])


def test_differences_stay_within_what_is_possible():
    """With three people, Student's t would go beyond."""
    for seed in range(20):
        vectors, faces = make(people=3, photos=3, seed=seed)
        other, _ = make(people=3, photos=3, seed=seed, noise=0.5)
        table = verification.report(evaluated(faces, {"a": vectors, "b": other}))
        for measure in ("auc", "eer", "pauc"):
            for end in ("low", "high"):
                assert table[f"{measure}_difference_{end}"].dropna().between(-1, 1).all()


def test_a_closed_list_is_no_question_of_people_who_are_not_on_it(example):
    _, _, _, results = example
    both = dict.fromkeys(("test_seen", "test_unseen"), results["test_seen"])
    table = verification.report(both, closed=["ResNet-50 fine-tuned"])
    of = table[table["model"] == "ResNet-50 fine-tuned"]
    seen, unseen = (of[of["test"] == name] for name in both)
    assert seen["auc"].notna().all() and unseen["auc"].isna().all()
    assert set(unseen["note"]) == {"not possible: nobody of test_unseen is on the closed list"}
    assert "nobody of test_unseen is on the closed list" in verdict.summary(table)
