"""The words say what the numbers say, and no more."""

import numpy as np
import pandas as pd
import pytest

from src.evaluation import verdict, verification
from tests.evaluation.examples import evaluated, make, row_of, unit_rows


def test_the_summary_says_what_the_numbers_say(example):
    _, _, _, results = example
    rates = verification.at_thresholds(results, verification.thresholds(results["test_seen"], 0.1))
    table = verification.report(results)
    words = verdict.summary(table, rates)
    row = row_of(table, "ResNet-50 fine-tuned", "high-low")
    assert "**ResNet-50 fine-tuned is better than buffalo_l**" in words
    assert f"{row['auc_difference']:.3f}" in words
    assert "high-low pairs of 12 people" in words and "New photos of people in training" in words
    assert f"{rates['threshold'][0]:.3f}" in words
    back = verdict.summary(verification.report(results, "ResNet-50 fine-tuned"), model="buffalo_l")
    assert "**buffalo_l is worse than ResNet-50 fine-tuned**" in back


def test_the_summary_names_the_best_model_and_what_becomes_of_good_photos(example):
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
    old, best = (1 - row_of(table, name, "high-low")["auc"] for name in ("buffalo_l", "buffalo_l + PLDA"))
    assert "Best of all models there: buffalo_l + PLDA, AUC" in words
    assert f"{old / best:.1f} times less error than buffalo_l" in words
    assert "On pairs of two good photos: **ResNet-50 fine-tuned is worse than buffalo_l**" in words
    assert "Best of all" not in verdict.summary(table, model="buffalo_l + PLDA")


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
    assert "no significant difference" in words and "better" not in words
    vectors, faces = make(people=2)
    models = {"buffalo_l": vectors, "ResNet-50 before": vectors[:, ::-1].copy()}
    assert "too few" in verdict.summary(verification.report(evaluated(faces, models)))


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
