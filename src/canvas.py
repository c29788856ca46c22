"""The look of all figures: axis, line, legend and band; and the sentence where nothing can be drawn."""

import functools
import textwrap
from collections.abc import Callable
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis

Style = dict[str, Any]  # keyword arguments of a drawing function of Matplotlib

# Okabe and Ito's palette, which the colour-blind can tell apart, then five of Paul Tol's, so that each row of
# the report has its own; line styles, markers and hatches say the same once more, for print in grey.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
COLOURS = (*OKABE_ITO, "#882255", "#117733", "#999933", "#332288", "#AA4499")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "////", "....")
SMALL = 9  # size of the smaller text, in points


def axes(ax: Axes | None, width: float = 6.4, height: float = 4.4) -> Axes:
    """The axis given, or that of a new figure, in the one style of all figures."""
    if ax is None:
        ax = plt.subplots(figsize=(width, height), layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    return ax


def styles(column: pd.Series) -> dict[str, Style]:
    """The line of each name in a column. Once the colours are used up, they come again with hollow markers.

    A categorical column may hold some of its names only: each keeps the line that it has among all of them.
    """
    there = list(column.unique())
    names = list(column.cat.categories) if isinstance(column.dtype, pd.CategoricalDtype) else there
    styles: dict[str, Style] = {}
    for name, colour, line in zip(names, cycle(COLOURS), cycle(LINES), strict=False):
        styles[name] = {"color": colour, "linestyle": line, "linewidth": 1.8}
    for name, marker in zip(names[len(COLOURS) :], cycle(MARKERS), strict=False):
        styles[name] |= {"marker": marker, "markersize": 5, "markerfacecolor": "white", "markevery": 0.08}
    return {name: styles[name] for name in names if name in there}


def legend(ax: Axes, **options: Any) -> None:
    ax.legend(fontsize=SMALL, frameon=False, handlelength=3.2, **options)


def legend_right(ax: Axes) -> None:
    """To the right of the axis, where the names of many models take no room from the curves."""
    legend(ax, loc="center left", bbox_to_anchor=(1.02, 0.5))


def legend_below(ax: Axes, columns: int, **options: Any) -> None:
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns, **options)


def line(ax: Axes, x: Any, y: Any, label: str, style: Style) -> None:
    """A line through the points that there are; its name stands in the legend even where there are none."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    there = np.isfinite(x) & np.isfinite(y)
    if not there.any():  # Matplotlib can't mark every so much of nothing
        style = {key: value for key, value in style.items() if key != "markevery"}
    ax.plot(x[there], y[there], label=label, **style)


def band(ax: Axes, x: pd.Series, value: pd.Series, curve: pd.DataFrame, colour: str) -> None:
    """The interval from `low` to `high` of a curve of rates; none where a rate is 0 or 1."""
    inside = value.between(0, 1, "neither")
    style: Style = {"color": colour, "alpha": 0.13, "linewidth": 0}
    ax.fill_between(x, curve["low"], curve["high"], where=inside, **style)


def in_percent(axis: Axis) -> None:
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value * 100:g} %"))


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def or_notice(draw: Callable[..., Axes]) -> Callable[..., Axes]:
    """Draws an axis that says why, where what was to be drawn is the error that stood in its way."""

    @functools.wraps(draw)
    def drawn(*values: Any, **options: Any) -> Axes:
        reasons = [value for value in values if isinstance(value, Exception)]
        return notice(str(reasons[0]), options.get("ax")) if reasons else draw(*values, **options)

    return drawn


def notice(text: str, ax: Axes | None = None) -> Axes:
    """An axis without anything but a sentence."""
    ax = axes(ax, 6.4, 1.0)
    ax.text(0, 0.5, textwrap.fill(text, 90), fontsize=SMALL, va="center")
    ax.set_axis_off()
    return ax
