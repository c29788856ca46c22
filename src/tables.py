"""Tables to be read: few columns, an interval beside its value, good rows marked; the rest stays in files."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

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


def bounded(
    rows: pd.DataFrame, measure: str, digits: int = 3, percent: bool = False, missing: str = "–"
) -> pd.Series:
    """A measure with its interval as text, "0.985 [0.964, 0.994]" or "3.1 % [1.0, 8.2]".

    rows: with the column `measure`, and perhaps `<measure>_low` and `_high`. NaN gives `missing`.
    """
    scale = 100 if percent else 1
    texts = []
    for row in rows.to_dict("records"):
        value, low, high = (row.get(f"{measure}{end}", np.nan) for end in ("", "_low", "_high"))
        if pd.isna(value):
            texts.append(missing)
            continue
        text = f"{scale * value:.{digits}f}" + " %" * percent
        if not (pd.isna(low) or pd.isna(high)):
            text += f" [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
        texts.append(text)
    return pd.Series(texts, index=rows.index, dtype=str)


def shown(
    table: pd.DataFrame | NotPossible, marked: Collection[str] = (), caption: str = "", column: str = "model"
) -> Styler | NotPossible:
    """A table without its index, numbers to three digits; rows whose `column` is among `marked` are bold.

    A column with bounds, `<name>_low` and `_high`, takes them into its own cells, as `bounded` does.
    What was not possible is handed on: a notebook shows its reason.
    """
    if isinstance(table, NotPossible):
        return table
    for name in [name for name in table if {f"{name}_low", f"{name}_high"} <= set(table)]:
        both = bounded(table, str(name))
        table = table.drop(columns=[f"{name}_low", f"{name}_high"]).assign(**{str(name): both})
    styler = table.reset_index(drop=True).style.hide(axis="index").format(_text).set_table_styles(_LOOK)
    short = [name for name in table if name not in _LONG]
    styler = styler.set_properties(subset=short, **{"white-space": "nowrap"})
    if marked and column in table:
        bold = table[column].isin(list(marked)).to_numpy()
        lines = pd.DataFrame("", index=range(len(table)), columns=table.columns)
        lines.loc[bold] = "font-weight: bold"
        styler = styler.apply(lambda _: lines, axis=None)
    return styler.set_caption(caption) if caption else styler


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "–" if np.isnan(value) else f"{value:.0f}" if value.is_integer() else f"{value:.3g}"
    return str(value)


def report(report: pd.DataFrame, marked: Sequence[str] = ()) -> Styler:
    """The report to read: AUC, EER and what they rest on, all pairs and the headline's; all is in report.csv.

    report: of `verification.report`. Higher AUC is better, lower EER.
    """
    rows = report[report["quality"].isin(["all", "high-low"])]
    less = bounded(rows, "error_ratio", 1)
    table = rows[["model", "test", "quality"]].assign(
        **{
            "people": rows.get("genuine_people"),
            "AUC ↑": bounded(rows, "auc"),
            "times less error ↑": less.where(rows["model"] != rows["baseline"], "–"),
            "EER ↓": bounded(rows, "eer", 1, percent=True),
            "no embedding": bounded(rows, "fte", 1, percent=True),
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
            "genuine pairs accepted ↑": bounded(rows, "tar", 1, percent=True),
            "impostor pairs accepted ↓": bounded(rows, "far", 2, percent=True),
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
            "Cllr ↓": bounded(rows, "cllr"),
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
            "not accepted as themselves ↓": bounded(rows, "rejected", 0, percent=True),
            "taken for": rows["taken_for"].where(rows["taken_for"] != "", "–"),
            "how often ↓": bounded(rows, "taken", 0, percent=True).where(rows["taken_for"] != "", "–"),
        }
    )
    return shown(table, caption="In brackets: Wilson's 95 % intervals, a photo counting as one trial.")


def identification(found: pd.DataFrame, marked: Sequence[str] = ()) -> Styler | NotPossible:
    """Rank rates and FNIR, as of `protocols.identification`."""
    names = {"rank_1": "rank 1 ↑", "rank_5": "rank 5 ↑", "rank_10": "rank 10 ↑"}
    names |= {"fnir_fpir_1e-1": "FNIR at FPIR 10 % ↓", "fnir_fpir_1e-2": "FNIR at FPIR 1 % ↓"}
    table = found[["model", "gallery", "mated", "non_mated"]].assign(
        **{heading: bounded(found, name, 1, percent=True) for name, heading in names.items()}
    )
    return shown(table, marked, "gallery: people; mated: probes of them; non_mated: probes of strangers.")
