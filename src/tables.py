"""Tables to be read: few columns, an interval beside its value, good rows marked; the rest stays in files."""

from collections.abc import Collection, Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from src.evaluation.intervals import bounded
from src.limits import NotPossible

_LOOK: Any = [
    {"selector": "th", "props": "text-align: left; font-weight: 600; border-bottom: 1px solid #999"},
    {
        "selector": "td",
        "props": "text-align: left; vertical-align: top; max-width: 34em",
    },
    {"selector": "caption", "props": "text-align: left; color: #666; caption-side: bottom"},
]
_LONG = ("note", "reason")  # columns of sentences, which may take several lines
_PATHS = ("path", "other", "photo", "folder")  # columns that may break anywhere


def _column(rows: pd.DataFrame, measure: str, form: str = ".3f") -> pd.Series:
    """A measure with its interval, where it has one, as text."""
    texts = [bounded(row, measure, form) for row in rows.to_dict("records")]
    return pd.Series(texts, index=rows.index, dtype=str)


def shown(
    table: pd.DataFrame | NotPossible, marked: Collection[str] = (), caption: str = "", column: str = "model"
) -> Styler | NotPossible:
    """A table to read, numbers to three digits; rows whose `column` is among `marked` are bold.

    An index with a name becomes a column, another is left out; headings of several parts become one.
    A column with bounds, `<name>_low` and `_high`, takes them into its own cells (`intervals.bounded`).
    What was not possible is handed on: a notebook shows its reason.
    """
    if isinstance(table, NotPossible):
        return table
    if any(table.index.names):
        table = table.reset_index()
    if isinstance(table.columns, pd.MultiIndex):
        table = table.set_axis([" ".join(map(str, parts)).strip() for parts in table.columns], axis=1)
    for name in [name for name in table if {f"{name}_low", f"{name}_high"} <= set(table)]:
        both = _column(table, str(name))
        table = table.drop(columns=[f"{name}_low", f"{name}_high"]).assign(**{str(name): both})
    styler = table.reset_index(drop=True).style.hide(axis="index").format(_text).set_table_styles(_LOOK)
    short = [name for name in table if name not in _LONG + _PATHS]
    styler = styler.set_properties(subset=short, **{"white-space": "nowrap"})
    paths: list[Hashable] = [name for name in table if name in _PATHS]
    styler = styler.set_properties(subset=paths, **{"overflow-wrap": "anywhere", "min-width": "12em"})
    if marked and column in table:
        bold = table[column].isin(list(marked)).to_numpy()
        lines = pd.DataFrame("", index=range(len(table)), columns=table.columns)
        lines.loc[bold] = "font-weight: bold"
        styler = styler.apply(lambda _: lines, axis=None)
    caption = caption or ("none" if table.empty else "")
    return styler.set_caption(caption) if caption else styler


def _text(value: Any) -> str:
    if value is pd.NA:
        return "–"
    if isinstance(value, float):
        return "–" if np.isnan(value) else f"{value:.0f}" if value.is_integer() else f"{value:.3g}"
    return str(value)


def report(report: pd.DataFrame, marked: Sequence[str] = ()) -> Styler:
    """The report to read: AUC, EER and what they rest on, all pairs and the headline's; all is in report.csv.

    report: of `verification.report`. Higher AUC is better, lower EER.
    """
    rows = report[report["quality"].isin(["all", "high-low"])]
    less = _column(rows, "error_ratio", ".1f")
    table = rows[["model", "test", "quality"]].assign(
        **{
            "people": rows.get("genuine_people"),
            "AUC ↑": _column(rows, "auc"),
            "times less error ↑": less.where(rows["model"] != rows["baseline"], "–"),
            "EER ↓": _column(rows, "eer", ".1%"),
            "no embedding": _column(rows, "fte", ".1%"),
            "note": rows["note"].fillna(""),
        }
    )
    caption = (
        "In brackets: 95 % intervals over people, each for itself. Every stratum and measure, and "
        "differences with intervals that hold for all comparisons at once: report.csv."
    )
    found = shown(table, marked, caption)
    assert isinstance(found, Styler)
    return found


def rates(rates: pd.DataFrame, marked: Sequence[str] = ()) -> Styler | NotPossible:
    """TAR and FAR of all pairs at the thresholds chosen on val, as of `verification.at_thresholds`."""
    if rates.empty:
        return NotPossible("there is no threshold")
    rows = rates[rates["quality"] == "all"]
    table = rows[["model", "test", "threshold", "whose"]].assign(
        **{
            "genuine pairs accepted ↑": _column(rows, "tar", ".1%"),
            "impostor pairs accepted ↓": _column(rows, "far", ".2%"),
        }
    )
    aimed = (
        f"Each threshold is chosen on val, on pairs of those under `whose`, so that "
        f"{rows['target_far'].iloc[0]:.1%} of impostors pass there. The intervals reckon with other people "
        "in val, too."
    )
    return shown(table, marked, aimed)


def calibration(calibrated: pd.DataFrame, marked: Sequence[str] = ()) -> Styler | NotPossible:
    """Cllr of all pairs, as of `calibration.calibrated`."""
    rows = calibrated[calibrated["quality"] == "all"]
    table = rows[["model", "test"]].assign(
        **{
            "Cllr ↓": _column(rows, "cllr"),
            "min Cllr ↓": rows["min_cllr"],
            "note": rows["note"],
        }
    )
    return shown(table, marked, "In bits. 0: perfect; 1: as good as saying nothing.")


def people(found: pd.DataFrame, count: int = 10) -> Styler | NotPossible:
    """Who fails most, as of `people.failing`."""
    rows = found.head(count)
    table = rows[["person", "photos"]].assign(
        **{
            "not accepted as themselves ↓": _column(rows, "rejected", ".0%"),
            "taken for": rows["taken_for"].where(rows["taken_for"] != "", "–"),
            "how often ↓": _column(rows, "taken", ".0%").where(rows["taken_for"] != "", "–"),
        }
    )
    return shown(table, caption="In brackets: Wilson's 95 % intervals, a photo counting as one trial.")


def identification(found: pd.DataFrame, marked: Sequence[str] = ()) -> Styler | NotPossible:
    """Rank rates and FNIR, as of `protocols.identification`."""
    names = {"rank_1": "rank 1 ↑", "rank_5": "rank 5 ↑", "rank_10": "rank 10 ↑"}
    names |= {"fnir_fpir_1e-1": "FNIR at FPIR 10 % ↓", "fnir_fpir_1e-2": "FNIR at FPIR 1 % ↓"}
    table = found[["model", "gallery", "mated", "non_mated"]].assign(
        **{heading: _column(found, name, ".1%") for name, heading in names.items()}
    )
    return shown(table, marked, "gallery: people; mated: probes of them; non_mated: probes of strangers.")
