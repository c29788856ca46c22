"""Tables to be read show the values of the tables they are made from."""

from typing import Any

import numpy as np
import pandas as pd

from src import tables
from src.evaluation import verification
from src.limits import NotPossible
from tests.evaluation.examples import evaluated, make, row_of


def test_a_table_has_no_index_and_marks_its_rows():
    table = pd.DataFrame({"model": ["a", "b"], "value": [0.123456, np.nan], "count": [3.0, 4.0]})
    styler: Any = tables.shown(table, ["b"], "what it is")
    html = styler.to_html()
    assert "what it is" in html and "0.123" in html and "0.1234" not in html and ">–<" in html
    assert html.count("font-weight: bold") == 1
    assert list(styler.data.columns) == ["model", "value", "count"]
    bounds = pd.DataFrame({"model": ["a"], "auc": [0.9], "auc_low": [0.85], "auc_high": [0.95]})
    merged: Any = tables.shown(bounds)
    assert merged.data.iloc[0].tolist() == ["a", "0.900 [0.850, 0.950]"]
    reason = NotPossible("too few photos")
    assert tables.shown(reason) is reason


def test_what_the_index_names_is_read_too_and_paths_may_break():
    counts = pd.DataFrame({"kind": ["a", "a", "b"], "split": ["x", "y", "x"], "path": ["p/1", "p/2", "p/3"]})
    grouped: Any = tables.shown(counts.groupby(["kind", "split"]).agg(photos=("path", "size")))
    assert grouped.data.to_numpy().tolist() == [["a", "x", 1], ["a", "y", 1], ["b", "x", 1]]
    wide: Any = tables.shown(counts.pivot_table("path", "kind", "split", aggfunc=["count"]))
    assert list(wide.data.columns) == ["kind", "count x", "count y"]
    holed: Any = tables.shown(counts.assign(distance=pd.array([1, 2, None], "Int64")))
    html = holed.to_html()
    assert html.count("overflow-wrap: anywhere") == 1 and ">–<" in html and "&lt;NA" not in html
    nothing: Any = tables.shown(counts.iloc[:0])
    assert "none" in nothing.to_html()


def test_a_table_fits_a_page_whatever_its_paths():
    """Only one column has words that may not break: that of the people."""
    table = pd.DataFrame(
        {"path": ["a/" * 200], "other": ["b/" * 200], "identity": ["ann"], "reason": ["c " * 99]}
    )
    styler: Any = tables.shown(table)
    assert styler.to_html().count("white-space: nowrap") == 1


def test_the_report_to_read_says_what_the_report_says():
    faces = make(people=12, photos=12)[1]
    models = {"pack": make(people=12, photos=12)[0], "tuned": make(people=12, photos=12, noise=1.5)[0]}
    results = evaluated(faces, models)
    report = verification.report(results)
    styler: Any = tables.report(report, ["tuned"])
    read = styler.data
    assert len(read.columns) <= 9 and set(read["quality"]) == {"all", "high-low"}
    row = row_of(report, "tuned", "high-low")
    shown = read[(read["model"] == "tuned") & (read["quality"] == "high-low")].iloc[0]
    assert shown["AUC ↑"] == f"{row['auc']:.3f} [{row['auc_low']:.3f}, {row['auc_high']:.3f}]"
    assert shown["times less error ↑"].startswith(f"{row['error_ratio']:.1f} [")
    first = read[(read["model"] == "pack") & (read["quality"] == "all")].iloc[0]
    assert first["times less error ↑"] == "–"
    val = {"all": results["test_seen"]}
    chosen = verification.thresholds(val, 0.1)
    rates = verification.at_thresholds(results, chosen, val)
    at_thresholds: Any = tables.rates(rates)
    accepted = at_thresholds.data
    assert accepted["genuine pairs accepted ↑"][0].startswith(f"{rates['tar'][0]:.1%}")
    assert isinstance(tables.rates(rates.iloc[:0]), NotPossible)
