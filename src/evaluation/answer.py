"""The answer, to be read in ten seconds: did fine-tuning help, by how much, and which model to take."""

import textwrap
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src import artifacts
from src.evaluation import open_set, verification
from src.evaluation.comparisons import stratum
from src.evaluation.intervals import bounded
from src.evaluation.pairs import ACROSS, Results
from src.evaluation.recommendation import Recommendation
from src.evaluation.verdict import by_model
from src.limits import NotPossible

FILE = "verdict.md"
NOTHING = "–"  # in the place of what could not be measured
_WHO = {"test_seen": "new photos of people in training", "test_unseen": "people who appear nowhere else"}

_PLACES = (
    "Every number: report.csv. Figures: figures/. Models: models/. To take home: pack/. This: verdict.md."
)

_Row = Mapping[Hashable, Any]  # a row of the report, or of `at_thresholds`


def roles(recommended: Recommendation, model: str, baseline: str) -> dict[str, str]:
    """What each of the models that the answer shows is: before, after, recommended; two where one is both."""
    found = {baseline: "before", model: "after"}
    both = f"{found[recommended.model]}, recommended" if recommended.model in found else "recommended"
    return found | {recommended.model: both}


def sentence(report: pd.DataFrame, model: str, baseline: str) -> str:
    """Whether `model` is better than `baseline`, on the first test set: one sentence in Markdown.

    report: of `verification.report`. The comparison is the primary one, on the stratum that
    `comparisons.stratum` names.
    """
    test = _tests(report)[0]
    rows = report[(report["test"] == test) & report["auc"].notna()]
    quality = stratum(rows)
    measured = by_model(rows, quality)
    if model not in measured or baseline not in measured:
        notes = report.loc[(report["model"] == model) & (report["test"] == test), "note"]
        why = str(notes.iloc[0]) if len(notes) and notes.iloc[0] else "there are no pairs to compare"
        return f"**Whether fine-tuning helped can't be told**: {why}."
    new, old = measured[model], measured[baseline]
    where = f"on {quality} pairs of {_WHO.get(test, test)}"
    aucs = f"AUC {bounded(old, 'auc')} before, {bounded(new, 'auc')} after"
    p = new["auc_difference_p_adjusted"]
    if not np.isfinite(p):
        why = new["auc_difference_interval"]
        return f"**Whether fine-tuning helped can't be told** {where}: {aucs}; {why}."
    if p >= 0.05:
        return f"**No difference could be shown** between {model} and {baseline} {where}: {aucs}."
    if new["auc_difference"] < 0:
        return f"**Fine-tuning made it worse** {where}: {aucs} ({model} against {baseline})."
    less = f": {model} makes {_ratio(new)} times less error than {baseline}" * (_ratio(new) != NOTHING)
    return f"**Fine-tuning helped**{less} {where} ({aucs})."


def table(
    report: pd.DataFrame,
    rates: pd.DataFrame,
    recommended: Recommendation,
    model: str,
    baseline: str,
    held: pd.DataFrame | NotPossible,
    detection: pd.DataFrame,
) -> pd.DataFrame:
    """Baseline, fine-tuned and recommended model side by side: texts, to be read.

    rates: of `verification.at_thresholds`; held: of `open_set.measure`; detection: of `faces.detection_rate`.
    One row per measure, named in the first column; then a column per model. Intervals are of 95 %, over
    people. What could not be measured is a dash.
    """
    names = {f"{role}: {name}": name for name, role in roles(recommended, model, baseline).items()}
    rows: list[tuple[str, ...]] = []
    for test in _tests(report):
        of_test = report[(report["test"] == test) & report["auc"].notna()]
        quality = stratum(of_test)
        measured = by_model(of_test, quality)
        at = by_model(rates[rates["test"] == test], quality) if len(rates) else {}
        rows.append((f"{_WHO.get(test, test)}, {quality} pairs: AUC", *_each(names, measured, _auc)))
        rows.append(("… times less error than before", NOTHING, *_each(names, measured, _ratio)[1:]))
        rows.append(("… genuine pairs accepted at val's threshold", *_each(names, at, _accepted("tar"))))
        rows.append(("… impostor pairs accepted there", *_each(names, at, _accepted("far"))))
    if len(rates) and (at := by_model(rates[rates["test"] == ACROSS], "all")):
        text = "Somebody in training against somebody who is not: pairs accepted at val's threshold"
        rows.append((text, *_each(names, at, _accepted("far"))))
    if not isinstance(held, NotPossible):
        texts = open_set.in_columns(held)
        kind, known = open_set.worst_kinds(held)
        cells = [str(texts[kind].get(name, NOTHING)) for name in names.values()]
        rows.append((f"Held against each person, {kind}: taken for one of them", *cells))
        if known:
            cells = [str(texts[known].get(name, NOTHING)) for name in names.values()]
            rows.append((f"… {known}: found under the right name", *cells))
    every = detection[detection["quality"] == "all"].iloc[0]
    found = [f"{every['as shipped']:.1%} as shipped, {every['ours']:.1%} here", *[f"{every['ours']:.1%}"] * 2]
    rows.append(("Photos in which a face is found", *found[: len(names)]))
    return pd.DataFrame(rows, columns=["", *names])


def in_words(shown: pd.DataFrame, recommended: Recommendation, beware: list[str], said: str) -> str:
    """The answer in Markdown: what `sentence` said, `table`'s cells, the recommendation, and warnings."""
    head = f"| {' | '.join(shown.columns)} |\n|{' --- |' * shown.shape[1]}"
    body = "\n".join(f"| {' | '.join(row)} |" for row in shown.itertuples(index=False))
    points = [f"- **Recommended: {recommended.model}.** {recommended.why}"]
    if recommended.strangers not in (None, recommended.model):
        beware = [
            f"{recommended.model} is for people who are all known, not for strangers.",
            *beware,
        ]
    points += [f"- **Beware.** {text}" for text in beware]
    points += [f"- **Where it lies.** {_PLACES}"]
    covers = (
        "Intervals are over people, of one split and one training, and each stands for itself: another split "
        "or training may differ by more. Those that hold for all comparisons at once are in report.csv."
    )
    return "\n\n".join((said, f"{head}\n{body}", "\n".join(points), covers)) + "\n"


def write(text: str, folder: Path) -> Path:
    """Keeps the answer in `folder` as FILE, whole or not at all; returns the file."""
    file = folder / FILE
    with artifacts.room_for(FILE, folder), artifacts.whole(file) as partial:
        partial.write_text(text, encoding="utf-8")
    return file


def for_terminal(markdown: str, width: int = 110) -> str:
    """The answer without Markdown's marks, its table in columns: what a terminal shows."""
    lines = markdown.replace("**", "").splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|") and "---" not in line
    ]
    text = [line for line in lines if not line.startswith("|")]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = ["  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)) for row in cells]
    wrapped = [textwrap.fill(line, width, subsequent_indent="  ") for line in text if line]
    return "\n\n".join([wrapped[0], "\n".join(map(str.rstrip, rows)), *wrapped[1:]])


def curves(results: Results, report: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """ROC curves of `models` on each test set, on the stratum of the primary comparison.

    Columns of `verification.roc` and test, quality, auc_low, auc_high. Raises NotPossible where no test set
    has such pairs.
    """
    tables = []
    for test, counted in results.items():
        rows = report[(report["test"] == test) & report["auc"].notna()]
        quality = stratum(rows)
        try:
            found = verification.roc(counted, quality)
        except NotPossible:
            continue
        found = found[found["model"].isin(models)]
        ends = rows[rows["quality"] == quality].set_index("model")
        for end in ("auc_low", "auc_high"):  # a join would forget the order of all models
            found = found.assign(**{end: found["model"].astype(str).map(ends[end])})
        tables.append(found.assign(test=test, quality=quality))
    if not tables:
        raise NotPossible("no test set has pairs of both kinds")
    return pd.concat(tables, ignore_index=True)


def _tests(report: pd.DataFrame) -> list[str]:
    return [str(name) for name in report["test"].unique() if name not in ("val", ACROSS)]


def _each(names: Mapping[str, str], rows: Mapping[Hashable, _Row], text: Any) -> list[str]:
    return [text(rows[name]) if name in rows else NOTHING for name in names.values()]


def _auc(row: _Row) -> str:
    return bounded(row, "auc")


def _ratio(row: _Row) -> str:
    """How many times less error, "2.1 [1.3, 3.4]"; nothing without an interval."""
    return bounded(row, "error_ratio", ".1f") if np.isfinite(row["error_ratio_low"]) else NOTHING


def _accepted(measure: str) -> Any:
    def text(row: _Row) -> str:
        return bounded(row, measure, ".1%") if np.isfinite(row[measure]) else NOTHING

    return text
