"""The answer says what the report says, in a sentence, a table and a figure's curves."""

import numpy as np
import pandas as pd
import pytest

from src.evaluation import answer, verification
from src.evaluation.recommendation import Recommendation
from src.limits import NotPossible
from tests.evaluation.examples import evaluated, make, row_of, unit_rows

BEFORE, AFTER, THIRD = "buffalo_l", "ResNet-50 fine-tuned", "buffalo_l + PLDA"
DETECTION = pd.DataFrame({"quality": ["all"], "as shipped": [0.913], "ours": [0.987], "photos": [100]})


def recommended(model, strangers=None):
    return Recommendation(model, model, strangers, "Chosen on val.", pd.DataFrame({"model": [model]}))


@pytest.fixture(scope="module")
def run():
    vectors, faces = make(people=12, photos=12)
    models = {BEFORE: vectors, AFTER: make(people=12, photos=12, noise=1.4)[0]}
    models[THIRD] = make(people=12, photos=12, noise=1.7)[0]
    results = evaluated(faces, models)
    report = verification.report(results, BEFORE, primary=AFTER)
    val = {"all": results["test_seen"]}
    rates = verification.at_thresholds(results, verification.thresholds(val, 0.1), val)
    return faces, vectors, results, report, rates


def test_one_sentence_says_whether_it_helped(run):
    faces, vectors, _, report, _ = run
    row = row_of(report, AFTER, "high-low")
    said = answer.sentence(report, AFTER, BEFORE)
    assert said.startswith(f"**Fine-tuning helped**: {AFTER} makes {row['error_ratio']:.1f} [")
    assert f"{row['auc']:.3f} [{row['auc_low']:.3f}, {row['auc_high']:.3f}] after" in said
    worse = verification.report(evaluated(faces, {BEFORE: make(12, 12, noise=1.4)[0], AFTER: vectors}))
    assert answer.sentence(worse, AFTER, BEFORE).startswith("**Fine-tuning made it worse**")
    nearly = unit_rows(vectors + 0.02 * np.random.default_rng(0).normal(size=vectors.shape))
    same = verification.report(evaluated(faces, {BEFORE: vectors, AFTER: nearly}))
    assert "No difference could be shown" in answer.sentence(same, AFTER, BEFORE)


def test_what_cannot_be_told_is_said_with_its_reason(run):
    faces, vectors, *_ = run
    reasons = {BEFORE: "", AFTER: "not possible: too few photos"}
    lone = verification.report(evaluated(faces, {BEFORE: vectors}), BEFORE, reasons)
    assert answer.sentence(lone, AFTER, BEFORE) == (
        "**Whether fine-tuning helped can't be told**: not possible: too few photos."
    )
    two = faces["identity"].isin(["person 0", "person 1"]).to_numpy()
    few = faces[two].reset_index(drop=True)
    models = {BEFORE: vectors[two], AFTER: unit_rows(vectors[two] + 0.1)}
    small = verification.report(evaluated(few, models))
    assert "can't be told** on all pairs" in answer.sentence(small, AFTER, BEFORE)


def test_the_table_shows_three_models_and_each_once(run):
    _, _, _, report, rates = run
    nothing = NotPossible("no strangers")
    shown = answer.table(report, rates, recommended(THIRD), AFTER, BEFORE, nothing, DETECTION)
    heads = ["", f"before: {BEFORE}", f"after: {AFTER}", f"recommended: {THIRD}"]
    assert list(shown.columns) == heads
    cells = shown.set_index("")
    label = "new photos of people in training, high-low pairs: AUC"
    row = row_of(report, THIRD, "high-low")
    expected = f"{row['auc']:.3f} [{row['auc_low']:.3f}, {row['auc_high']:.3f}]"
    assert cells.loc[label, heads[3]] == expected
    assert cells.loc["… times less error than before", heads[1]] == answer.NOTHING
    at = rates[(rates["model"] == AFTER) & (rates["quality"] == "high-low")].iloc[0]
    accepted = str(cells.loc["… genuine pairs accepted at val's threshold", heads[2]])
    assert accepted.startswith(f"{at['tar']:.1%}")
    assert cells.loc["Photos in which a face is found", heads[1]] == "91.3% as shipped, 98.7% here"
    both = answer.table(report, rates, recommended(AFTER), AFTER, BEFORE, nothing, DETECTION)
    assert list(both.columns) == ["", f"before: {BEFORE}", f"after, recommended: {AFTER}"]


def test_strangers_stand_in_the_table(run):
    _, _, _, report, rates = run
    rows = [(BEFORE, "others, made as bad", 0.02, 0.0, 0.06), (AFTER, "others, made as bad", 0.31, 0.2, 0.4)]
    rows += [(BEFORE, "known people, bad photos", 0.7, 0.6, 0.8)]
    held = pd.DataFrame(rows, columns=["model", "kind", "rate", "low", "high"]).assign(
        rule="FPIR of val's probes", threshold=0.4, photos=100, people=20, note=""
    )
    shown = answer.table(report, rates, recommended(AFTER), AFTER, BEFORE, held, DETECTION).set_index("")
    taken = shown.loc["Held against each person, others, made as bad: taken for one of them"]
    assert list(taken) == ["2% [0, 6]", "31% [20, 40]"]
    found = list(shown.loc["… known people, bad photos: found under the right name"])
    assert found[0] == "70% [60, 80]" and str(found[1]) in ("nan", answer.NOTHING)


def test_the_text_is_kept_and_fits_a_terminal(run, tmp_path):
    _, _, _, report, rates = run
    chosen = recommended(THIRD, strangers=AFTER)
    shown = answer.table(report, rates, chosen, AFTER, BEFORE, NotPossible("none"), DETECTION)
    said = answer.sentence(report, AFTER, BEFORE)
    text = answer.in_words(shown, chosen, ["The background gives it away."], said)
    assert text.startswith(said) and "- **Beware.** The background" in text
    assert f"{THIRD} is for people who are all known, not for strangers" in text.replace("a list of ", "")
    file = answer.write(text, tmp_path)
    assert file.name == "verdict.md" and file.read_text(encoding="utf-8") == text
    plain = answer.for_terminal(text)
    assert "**" not in plain and "|" not in plain and "---" not in plain
    table = [line for line in plain.splitlines() if "AUC" in line and "pairs: AUC" in line]
    assert len(table) == 1 and row_of(report, BEFORE, "high-low")["auc"] == pytest.approx(
        float(table[0].split("AUC")[1].split()[0]), abs=5e-4
    )


def test_curves_are_of_the_headline_and_keep_the_order_of_all_models(run):
    _, _, results, report, _ = run
    curves = answer.curves(results, report, [BEFORE, THIRD])
    assert set(curves["model"]) == {BEFORE, THIRD} and set(curves["quality"]) == {"high-low"}
    assert list(curves["model"].cat.categories) == [BEFORE, AFTER, THIRD]
    for name in (BEFORE, THIRD):
        row, first = row_of(report, name, "high-low"), curves[curves["model"] == name].iloc[0]
        assert first["auc"] == pytest.approx(row["auc"])
        assert first["auc_low"] == pytest.approx(row["auc_low"]) and np.isfinite(first["auc_high"])
    with pytest.raises(NotPossible, match="no test set"):
        answer.curves({}, report, [BEFORE])
