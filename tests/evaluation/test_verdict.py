"""The words say what the numbers say, and no more."""

import numpy as np
import pandas as pd
import pytest

from src.evaluation import verdict, verification
from tests.evaluation.examples import evaluated, make, row_of, unit_rows


def test_the_summary_says_what_the_numbers_say(example):
    _, _, _, results = example
    val = {"all": results["test_seen"]}
    rates = verification.at_thresholds(results, verification.thresholds(val, 0.1), val)
    table = verification.report(results)
    words = verdict.summary(table, rates)
    row = row_of(table, "ResNet-50 fine-tuned", "high-low")
    assert "**ResNet-50 fine-tuned is better than buffalo_l**" in words
    assert f"{row['auc_difference']:.3f}" in words
    assert "high-low pairs of 11 people" in words and "New photos of people in training" in words
    assert f"{rates['threshold'][0]:.3f}" in words
    back = verdict.summary(verification.report(results, "ResNet-50 fine-tuned"), model="buffalo_l")
    assert "**buffalo_l is worse than ResNet-50 fine-tuned**" in back


def test_the_summary_names_other_models_that_differ_and_what_becomes_of_good_photos(example):
    vectors, faces, _, _ = example
    rng = np.random.default_rng(5)
    good = (faces["quality"] == "high").to_numpy()
    spoilt = np.where(good[:, None], rng.normal(size=vectors.shape), vectors)  # forgets good photos
    people = np.eye(faces["identity"].nunique(), vectors.shape[1])[pd.factorize(faces["identity"])[0]]
    models = {
        "buffalo_l": vectors,
        "buffalo_l + PLDA": unit_rows(vectors + people),
        "ResNet-50 fine-tuned": unit_rows(spoilt),
    }
    table = verification.report(evaluated(faces, models))
    words = verdict.summary(table, model="ResNet-50 fine-tuned")
    row = row_of(table, "buffalo_l + PLDA", "high-low")
    assert row["auc_difference_p_adjusted"] < 0.05
    other = words[words.index("intervals that hold for all comparisons at once") :]
    assert f"buffalo_l + PLDA is better ({row['auc_difference_simultaneous_low']:+.3f} to" in other
    assert "Best of all" not in words
    assert "On pairs of two good photos: **ResNet-50 fine-tuned is worse than buffalo_l**" in words
    row = row_of(table, "ResNet-50 fine-tuned", "high-low")
    more, low, high = (
        1 / row[f"error_ratio{end}"] for end in ("", "_simultaneous_high", "_simultaneous_low")
    )
    assert f"{more:.1f} [{low:.1f}, {high:.1f}] times more error" in words and "times less" not in words
    blind = table.assign(auc_difference_p_adjusted=0.5)
    assert "all comparisons at once" not in verdict.summary(blind, model="ResNet-50 fine-tuned")


def test_a_factor_has_its_interval_and_is_not_named_without(example):
    vectors, faces, _, _ = example
    better = make(people=12, photos=12, noise=1.6)[0]
    table = verification.report(evaluated(faces, {"buffalo_l": vectors, "ResNet-50 fine-tuned": better}))
    row = row_of(table, "ResNet-50 fine-tuned", "high-low")
    low, high = row["error_ratio_simultaneous_low"], row["error_ratio_simultaneous_high"]
    assert low < row["error_ratio_low"] < row["error_ratio"] < high
    said = f"{row['error_ratio']:.1f} [{low:.1f}, {high:.1f}] times less error"
    assert said in verdict.summary(table)
    perfect = verification.report(example[3])  # errs too little for a factor
    assert np.isnan(row_of(perfect, "ResNet-50 fine-tuned", "high-low")["error_ratio_low"])
    assert "times less" not in verdict.summary(perfect)


def test_the_primary_comparison_on_strangers_is_only_as_sure_as_that_on_people_in_training(example):
    _, _, _, results = example
    both = dict.fromkeys(("test_seen", "test_unseen"), results["test_seen"])
    table = verification.report(both, primary="ResNet-50 fine-tuned")
    assert table["primary"].sum() == 2
    unsure = table.assign(
        auc_difference_p_adjusted=table["auc_difference_p_adjusted"].where(~table["primary"], 0.3)
    )
    assert verdict.summary(unsure).count("no significant difference") == 2
    assert "would have been seen with 80 % power" in verdict.summary(unsure)


def test_a_model_without_any_embedding_is_not_compared(example):
    vectors, faces, _, _ = example
    for failing in ("buffalo_l", "ResNet-50 fine-tuned"):
        models = {"buffalo_l": vectors, "ResNet-50 fine-tuned": vectors}
        models[failing] = np.full_like(vectors, np.nan)
        words = verdict.summary(verification.report(evaluated(faces, models)))
        assert f"{failing} gives no embedding for any photo" in words
        assert "significant" not in words and "AUC 0.500" not in words and "100.0%" not in words


def test_the_headline_is_all_pairs_where_high_low_pairs_are_few():
    vectors, faces = make(people=12, photos=12)
    faces["quality"] = np.where(np.arange(len(faces)) == 0, "low", "high")  # as where quality is measured
    models = {"buffalo_l": vectors, "ResNet-50 fine-tuned": vectors[:, ::-1].copy()}
    table = verification.report(evaluated(faces, models))
    assert row_of(table, "ResNet-50 fine-tuned", "high-low")["genuine"] > 0
    assert "all pairs of 12 people" in verdict.summary(table)


def test_no_difference_and_too_few_people_are_said(example):
    vectors, faces, _, _ = example
    same = verification.report(evaluated(faces, {"buffalo_l": vectors, "ResNet-50 before": vectors.copy()}))
    words = verdict.summary(same)
    assert "can't be said: the two differ as much whoever is left out" in words and "better" not in words
    near = unit_rows(vectors + 0.02 * np.random.default_rng(0).normal(size=vectors.shape))
    words = verdict.summary(verification.report(evaluated(faces, {"buffalo_l": vectors, "ResNet-50": near})))
    assert "no significant difference" in words and "better" not in words
    vectors, faces = make(people=2)
    models = {"buffalo_l": vectors, "ResNet-50 before": vectors[:, ::-1].copy()}
    assert "2 people are too few" in verdict.summary(verification.report(evaluated(faces, models)))


def test_failures_to_enrol_are_said(example):
    vectors, faces, _, _ = example
    broken = vectors.copy()
    broken[::5] = np.nan
    models = {"buffalo_l as shipped": broken, "ResNet-50 fine-tuned": vectors}
    words = verdict.summary(verification.report(evaluated(faces, models)))
    share = len(broken[::5]) / len(broken)
    assert f"buffalo_l as shipped gives no embedding for {share:.1%} of the photos" in words
    assert "ResNet-50 fine-tuned gives no embedding" not in words


def test_a_control_above_chance_is_a_warning(example):
    vectors, faces, _, _ = example
    table = verification.report(evaluated(faces, {"buffalo_l": vectors, "no face": vectors}))
    (sentence,) = verdict.warnings(table)
    assert "of test_seen" in sentence and f"Beware.** {sentence}" in verdict.summary(table)
    blind = unit_rows(np.random.default_rng(0).normal(size=vectors.shape))
    table = verification.report(evaluated(faces, {"buffalo_l": vectors, "no face": blind}))
    assert not verdict.warnings(table) and "Beware" not in verdict.summary(table)


def val_report(new, low, high, old=0.8):
    rows = [
        {"model": "pack", "auc": old, "auc_difference_low": np.nan, "auc_difference_high": np.nan},
        {"model": "ours", "auc": new, "auc_difference_low": low, "auc_difference_high": high},
    ]
    return pd.DataFrame(rows).assign(test="val", quality="all")


def curve(values, accuracy=1.0):
    return pd.DataFrame({"val_auc": values, "accuracy": accuracy})


RISING, FLAT = np.linspace(0.6, 0.9, 12), np.r_[np.linspace(0.6, 0.9, 6), np.full(6, 0.9)]


@pytest.mark.parametrize(
    ("report", "history", "words"),
    [
        (val_report(0.9, 0.05, 0.15), curve(FLAT), ("**better** than pack", "not rise", "more photos may")),
        (val_report(0.9, 0.05, 0.15), curve(RISING), ("**better**", "still rose", "twice the `epochs`")),
        (val_report(0.7, -0.2, -0.05), curve(FLAT), ("**worse**", "knows its training photos", "`weights`")),
        (val_report(0.7, -0.2, -0.05), curve(FLAT, 0.4), ("**worse**", "accuracy 0.40", "`learning_rate`")),
        (val_report(0.82, -0.02, 0.06), curve(FLAT), ("**not clearly better**", "-0.020 to +0.060")),
        (val_report(0.7, np.nan, np.nan), curve(RISING), ("**not better**", "too few people to be sure")),
        (val_report(0.9, 0.05, 0.15), curve(RISING[:2]), ("**better**", "After 2 passes", "more `epochs`")),
        (pd.DataFrame(), curve(RISING), ("nothing tells yet",)),
        (val_report(np.nan, np.nan, np.nan), curve(np.full(5, np.nan)), ("nothing tells yet",)),
    ],
)
def test_progress_says_whether_tuning_helped_and_what_to_try(report, history, words):
    said = verdict.progress(history, report)
    assert all(word in said for word in words), said
