"""The verdict: the numbers of the report in words."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from src.evaluation.comparisons import stratum
from src.evaluation.intervals import bounded
from src.evaluation.pairs import ACROSS

_TESTS = {"test_seen": "New photos of people in training", "test_unseen": "People who appear nowhere else"}
_CHANCE = 0.6  # AUC from which the no-face control is clearly above chance, if its interval is above 0.5
_RISING = (
    0.95  # of the error on val: if less is left after the last quarter of training, it was still falling
)
_LEARNT = 0.9  # accuracy on training photos from which they count as learnt

_Row = Mapping[Hashable, Any]  # a row of the report, or of `at_thresholds`


def summary(
    report: pd.DataFrame,
    rates: pd.DataFrame | None = None,
    model: str | None = None,
    control: str = "no face",
) -> str:
    """The report in words, as Markdown: which model is better, by how much, and how sure that is.

    report: of `verification.report`; rates: of `verification.at_thresholds`; model: the one compared with the
    baseline (default: the last that is not the control). The headline is the primary comparison, on the
    stratum that `comparisons.stratum` names. Other models are named where they differ from the baseline by
    intervals that hold for all comparisons at once, none as the best; where there are pairs of good photos,
    what the model gains or loses there.
    """
    models = [name for name in report["model"].unique() if name != control]
    model, baseline = model or models[-1], str(report["baseline"].iloc[0])
    tests = [name for name in report["test"].unique() if name not in ("val", ACROSS)]
    points = [_test_in_words(report, rates, test, model, baseline, control) for test in tests]
    if rates is not None and (across := by_model(rates[rates["test"] == ACROSS], "all")):
        accepted = [f"{name} accepts {bounded(across[name], 'far', '.2%')}" for name in (model, baseline)]
        target, whose = across[baseline]["target_far"], across[baseline]["whose"]
        points.append(
            "- One photo of somebody in training, the other of somebody who is not: at the thresholds from "
            f"val ({whose}) for FAR {target:.2%}, {' and '.join(accepted)} of these pairs."
        )
    points += [f"- **Beware.** {sentence}" for sentence in warnings(report, control)]
    return "\n".join(points)


def warnings(report: pd.DataFrame, control: str = "no face") -> list[str]:
    """A sentence for each test set of the report where the no-face control is clearly above chance."""
    clearly = (report["auc"] >= _CHANCE) & (report["auc_low"] > 0.5)
    sentences = []
    for test, rows in report[(report["model"] == control) & clearly].groupby("test", sort=False):
        reached = [f"{bounded(row, 'auc')} on {row['quality']} pairs" for row in rows.to_dict("records")]
        sentences.append(
            f"The colours of the crops' borders alone reach AUC {', '.join(reached)} of {test}: background "
            "and light tell people apart there, and any model's AUC may owe them a part."
        )
    return sentences


def progress(history: pd.DataFrame, report: pd.DataFrame) -> str:
    """Whether fine-tuning has helped, while it can still be mended: one paragraph, on "val" alone.

    history: of the training, one row per epoch with `val_auc` and `accuracy`. report: of
    `verification.report` on val, of the baseline and of one model. Says whether the model is better than the
    baseline, whether its AUC was still rising when training ended, and what to try.
    """
    rows = by_model(report[report["auc"].notna()], "all") if len(report) else {}
    if len(rows) < 2:
        return (
            "val has no two people with two photos of one: nothing tells yet whether fine-tuning has helped."
        )
    (baseline, old), (model, new) = rows.items()
    low, high = new["auc_difference_low"], new["auc_difference_high"]
    if np.isfinite(low + high):
        verdict = "better" if low > 0 else "worse" if high < 0 else "not clearly better"
        sure = f" (95 % interval of the difference {low:+.3f} to {high:+.3f})"
    else:
        verdict, sure = (
            "better" if new["auc"] > old["auc"] else "not better",
            ", by too few people to be sure",
        )
    found = f"On val, which also chose the epoch, {model} is **{verdict}** than {baseline}{sure}: "
    found += f"AUC {new['auc']:.3f} against {old['auc']:.3f}."
    curve = history["val_auc"].to_numpy(float)
    curve = curve[np.isfinite(curve)]
    if len(curve) < 4:
        return (
            f"{found} After {len(history)} passes nothing tells whether it was still rising: more `epochs`."
        )
    before, best = curve[: len(curve) * 3 // 4].max(), curve.max()
    rising = 1 - best < _RISING * (1 - before)
    found += f" In the last quarter of {len(curve)} passes its best AUC during training "
    found += f"{'still rose' if rising else 'did not rise any more'} ({before:.3f}, then {best:.3f}): "
    return found + _remedy(verdict == "better", rising, float(history["accuracy"].iloc[-1]))


def _remedy(better: bool, rising: bool, accuracy: float) -> str:
    """What to try when training has come to this."""
    if rising:
        return "try twice the `epochs`."
    if better:
        return "more passes won't help, more photos may."
    if accuracy < _LEARNT:
        return (
            f"it has not learnt its training photos (accuracy {accuracy:.2f}); try a higher "
            "`learning_rate`, or other `weights`."
        )
    return (
        f"it knows its training photos (accuracy {accuracy:.2f}), and others too little; other `weights`, "
        "or more photos of each person, may help."
    )


def _test_in_words(
    report: pd.DataFrame, rates: pd.DataFrame | None, test: str, model: str, baseline: str, control: str
) -> str:
    """What `summary` says of one test set."""
    rows = report[(report["test"] == test) & report["auc"].notna()]
    quality = stratum(rows)
    measured = by_model(rows, quality)
    if model not in measured:
        return f"- {_TESTS.get(test, test)}: {_without(report, measured, test, model, baseline)}"
    new, old = measured[model], measured[baseline]
    text = f"- {_TESTS.get(test, test)}, {quality} pairs of {new['genuine_people']:.0f} people: "
    text += _comparison(new, old, model, baseline)
    for name, row in ((baseline, old), (model, new)):
        if 0 < row["fte"] < 1:
            text += f" {name} gives no embedding for {row['fte']:.1%} of the photos: they match nothing."
    if rates is not None:
        at = by_model(rates[rates["test"] == test], quality)
        for name in (model, baseline):
            text += f" {_at_threshold(at[name], name)}"
    text += _others(measured, model, baseline, control)
    good = by_model(rows, "high-high")
    if quality == "high-low" and model in good and np.isfinite(good[model]["auc_difference_p"]):
        text += f" On pairs of two good photos: {_comparison(good[model], good[baseline], model, baseline)}"
    return text


def _others(measured: dict[Hashable, _Row], model: str, baseline: str, control: str) -> str:
    """Which other models differ from the baseline, after adjustment for the number of comparisons."""
    named = []
    for name, row in measured.items():
        p = row["auc_difference_p_adjusted"]
        if name in (model, baseline, control) or not p < 0.05:
            continue
        better = "better" if row["auc_difference"] > 0 else "worse"
        ends = " to ".join(f"{row[f'auc_difference_simultaneous_{end}']:+.3f}" for end in ("low", "high"))
        named.append(f"{name} is {better} ({ends}{_times(row)})")
    if not named:
        return ""
    return f" Against {baseline}, by intervals that hold for all comparisons at once: {'; '.join(named)}."


def _times(row: _Row) -> str:
    """How many times less error, or more, where that has an interval; else nothing.

    The interval is the declared comparison's own, or else the one for all comparisons at once.
    """
    value, low, high = (row[f"error_ratio{end}"] for end in ("", "_simultaneous_low", "_simultaneous_high"))
    if not np.isfinite(low):
        return ""
    if value < 1:
        return f", {1 / value:.1f} [{1 / high:.1f}, {1 / low:.1f}] times more error"
    return f", {value:.1f} [{low:.1f}, {high:.1f}] times less error"


def _without(
    report: pd.DataFrame, measured: dict[Hashable, _Row], test: str, model: str, baseline: str
) -> str:
    """What there is to say where the model could not be had, or has no pairs."""
    if baseline not in measured:
        return "there are no pairs to compare."
    notes = report["note"][(report["test"] == test) & (report["model"] == model)]
    why = str(notes.iloc[0]) if len(notes) else "not possible"
    return f"{baseline} has AUC {bounded(measured[baseline], 'auc')}; {model} is {why}."


def by_model(table: pd.DataFrame, quality: str) -> dict[Hashable, _Row]:
    """The rows of one stratum, by model."""
    return dict(table[table["quality"] == quality].set_index("model").to_dict("index"))


def _comparison(new: _Row, old: _Row, model: str, baseline: str) -> str:
    for name, row in ((model, new), (baseline, old)):
        if row["fte"] == 1:
            return f"{name} gives no embedding for any photo: it matches nobody, and nothing can be compared."
    ends = ("p_adjusted", "simultaneous_low", "simultaneous_high")
    p, low, high = (new[f"auc_difference_{end}"] for end in ends)
    scores = f"AUC {bounded(new, 'auc')} against {bounded(old, 'auc')}"
    if not np.isfinite(p):
        why = new["auc_difference_interval"]
        return f"{scores}; whether {model} and {baseline} really differ can't be said: {why}."
    kind = "" if new["primary"] else "simultaneous "
    certainty = f"{kind}95 % interval {low:+.3f} to {high:+.3f}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
    if p >= 0.05:
        seen = f" {new['auc_detectable']:.3f} would have been seen with 80 % power."
        return f"**no significant difference** between {model} and {baseline}: {scores} ({certainty}).{seen}"
    better = "better" if new["auc_difference"] > 0 else "worse"
    by = abs(new["auc_difference"])
    return f"**{model} is {better} than {baseline}** by {by:.3f} ({certainty}{_times(new)}): {scores}."


def _at_threshold(row: _Row, model: str) -> str:
    if not np.isfinite(row["threshold"]):
        return f"{model} has no threshold: val has too few pairs to choose one on."
    return (
        f"At threshold {row['threshold']:.3f}, chosen on val ({row['whose']}) for FAR "
        f"{row['target_far']:.2%}, {model} accepts {bounded(row, 'tar', '.2%')} of genuine and "
        f"{bounded(row, 'far', '.2%')} of impostor pairs."
    )
