"""Each name keeps its line, and what could not be drawn is said."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from src import canvas
from src.limits import NotPossible


def test_each_name_keeps_its_line_however_many_are_there():
    names = [f"model {i}" for i in range(15)]
    every = canvas.styles(pd.Series(names))
    some = canvas.styles(pd.Series(pd.Categorical(names[12:], categories=names)))
    assert some == {name: every[name] for name in names[12:]}
    looks = {(style["color"], style.get("marker")) for style in every.values()}
    assert len(looks) == 15, "once colours are used up they come again with markers"


def test_a_line_of_nothing_still_has_its_name():
    ax = canvas.axes(None)
    canvas.line(ax, [0, 1], [np.nan, np.nan], "nothing", {"marker": "o", "markevery": 0.1})
    assert ax.get_lines()[0].get_label() == "nothing"
    plt.close("all")


def test_a_reason_among_the_values_is_drawn_in_their_place():
    @canvas.or_notice
    def draw(values, ax=None):
        return canvas.axes(ax)

    ax = draw(NotPossible("val is empty"))
    assert "val is empty" in ax.texts[0].get_text()
    plt.close("all")
