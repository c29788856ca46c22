"""The words say what the numbers say, and no more."""

import numpy as np
import pandas as pd

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
