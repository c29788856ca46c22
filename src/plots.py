"""Figures: values in, drawn on an axis, the axis back. Nothing is computed here but positions."""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from scipy import stats

from src.canvas import (
    COLOURS,
    HATCHES,
    MARKERS,
    SMALL,
    Style,
    axes,
    band,
    in_percent,
    legend,
    legend_below,
    legend_right,
    line,
    notice,
    or_notice,
    shortened,
    styles,
)

QUALITY = {"high": ("#0072B2", ""), "low": ("#E69F00", "////"), "unknown": ("0.6", "....")}  # colour, hatch
STRATA = ("all", "high-high", "high-low", "low-low")
_NO_CURVE = "not possible: a curve over FAR needs more than 30 impostor pairs"
MANY = 40  # people beyond which their names no longer fit


def each(draw: Callable[..., Axes], table: pd.DataFrame | Exception, folder: Path, **options: Any) -> None:
    """Draws the rows of each test set, column `test`, in a figure of its own, and saves it as a PNG.

    Where an error stands in the place of the table, the figure says so.
    """
    if isinstance(table, Exception):
        save(notice(str(table)), folder / f"{draw.__name__}.png")
        return
    for test, rows in table.groupby("test", sort=False):
        ax = draw(rows, **options)
        ax.set_title(str(test).replace("_", " "), loc="left", fontsize=SMALL + 1)
        save(ax, folder / f"{draw.__name__}_{test}.png")


def emptied(folder: Path) -> Path:
    """The folder without the PNG files that an earlier run left there, which may show other parameters."""
    for file in folder.glob("*.png"):
        file.unlink()
    return folder


def save(ax: Axes, file: Path) -> Axes:
    """Writes the axis's figure as a PNG of 200 dots an inch, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.savefig(partial, format="png", dpi=200)
    partial.replace(file)
    return ax


# ---------------------------------------------------------------- photos


def counts(images: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Photos per person, stacked by quality; columns identity ("" for files of nobody), quality."""
    images = images[images["identity"] != ""]
    table = pd.crosstab(images["identity"], images["quality"])
    table = table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    many = len(table) > MANY
    ax = axes(ax, 9.0 if many else max(5.0, 1.5 + 0.3 * len(table)), 3.8)
    bottom = np.zeros(len(table))
    for name, (colour, hatch) in QUALITY.items():
        if name not in table:
            continue
        label, tops = f"{name} quality", bottom + table[name].to_numpy()
        if many:  # one outline for all: a thousand bars take seconds
            edges = np.arange(len(table) + 1) - 0.5
            ax.stairs(tops, edges, baseline=bottom, fill=True, color=colour, label=label)
        else:
            style: Style = {"bottom": bottom, "edgecolor": "white", "hatch": hatch, "label": label}
            ax.bar(np.arange(len(table)), table[name], color=colour, **style)
        bottom = tops
    ax.set_ylabel("photos")
    ax.grid(visible=False, axis="x")
    ax.margins(x=0.01, y=0.15)
    ax.yaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if many:
        ax.set_xlabel("people, from the most photos to the fewest")
    else:
        names = [shortened(str(name), 20) for name in table.index]
        ax.set_xticks(np.arange(len(table)), names, rotation=45, ha="right", fontsize=SMALL)
    legend(ax, loc="upper right", ncols=len(QUALITY))
    ax.set_title(f"{len(images):,} photos of {len(table):,} people", loc="left", fontsize=SMALL + 1)
    return ax


@or_notice
def contact_sheet(
    photos: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    columns: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """Photos, each uint8 [H, W, 3] RGB of any size, in rows of `columns`, with titles above."""
    if titles is not None and len(titles) != len(photos):
        raise ValueError(f"{len(photos)} photos, but {len(titles)} titles")
    if not len(photos):
        ax = axes(ax, 3.0, 0.4)
        ax.text(0, 0.5, "no photos to show", fontsize=SMALL, va="center")
        ax.set_axis_off()
        return ax
    columns = min(columns, len(photos))
    rows = -(-len(photos) // columns)
    pitch = 1.06 if titles is None else 1.3  # from row to row, in sides of a photo
    ax = axes(ax, 0.95 * columns * 1.06, 0.95 * rows * pitch)
    labels = None if titles is None else list(titles)  # a Series would be asked by its labels
    for i, photo in enumerate(photos):
        row, column = divmod(i, columns)
        height, width = np.array(photo.shape[:2]) / max(photo.shape[:2])
        left, top = column * 1.06 + (1 - width) / 2, row * pitch + (1 - height) / 2
        ax.imshow(photo, extent=(left, left + width, top + height, top), interpolation="nearest")
        if labels is not None:
            middle = column * 1.06 + 0.5
            text = shortened(str(labels[i]), 16)
            ax.text(middle, row * pitch - 0.04, text, ha="center", va="bottom", fontsize=6)
    ax.set_xlim(-0.03, columns * 1.06 - 0.03)
    ax.set_ylim(rows * pitch - (pitch - 1) + 0.03, 1 - pitch)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


@or_notice
def hardest_pairs(crops: np.ndarray, pairs: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The crops of pairs as of `verification.hardest`: of one person above, of two people below.

    crops: uint8 [N, H, W, 3] RGB. Raises ValueError where there are no pairs.
    """
    titles = {"genuine": "One person, lowest scores", "impostor": "Two people, highest scores"}
    kinds = [kind for kind in titles if (pairs["kind"] == kind).any()]
    if not kinds:
        raise ValueError("there are no pairs to show")
    columns = int(pairs["kind"].value_counts().max())
    across, down = 2.2, 1.8  # from pair to pair, in sides of a crop
    ax = axes(ax, 0.72 * across * columns, 0.72 * down * len(kinds) + 0.1)
    for row, kind in enumerate(kinds):
        top = row * down
        ax.text(0, top - 0.28, titles[kind], fontsize=SMALL, fontweight="bold", va="bottom")
        for column, pair in enumerate(pairs[pairs["kind"] == kind].to_dict("records")):
            left, middle = column * across, column * across + 1.01
            ax.imshow(crops[pair["a"]], extent=(left, left + 1, top + 1, top))
            ax.imshow(crops[pair["b"]], extent=(left + 1.02, left + 1.02 + 1, top + 1, top))
            people = [str(pair["person_a"])]
            if pair["person_b"] != pair["person_a"]:
                people.append(str(pair["person_b"]))
            label = " / ".join(shortened(name, 26 // len(people)) for name in people)
            ax.text(middle, top - 0.03, label, ha="center", va="bottom", fontsize=6)
            score = f"{pair['score']:.2f}"
            ax.text(middle, top + 1.03, score, ha="center", va="top", fontsize=SMALL - 1)
    ax.set_xlim(-0.03, columns * across - (across - 2.05))
    ax.set_ylim(len(kinds) * down - (down - 1.3), -0.6)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def detection(rates: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of photos with a face found by quality, as of `faces.detection_rate`.

    rates: columns quality, perhaps photos, and one for each detection compared, which gives a bar its name.
    """
    detections = [name for name in rates.columns if name not in ("quality", "photos")]
    ax = axes(ax, 5.0, 3.6)
    width = 0.8 / len(detections)
    for i, name in enumerate(detections):
        middle = np.arange(len(rates)) + (i - (len(detections) - 1) / 2) * width
        style: Style = {"color": COLOURS[i], "hatch": HATCHES[i % len(HATCHES)], "edgecolor": "white"}
        bars = ax.bar(middle, rates[name], width * 0.94, label=name, **style)
        ax.bar_label(bars, [f"{value:.1%}" for value in rates[name]], fontsize=SMALL - 1, padding=2)
    ax.set_xticks(range(len(rates)), list(rates["quality"]))
    ax.set_xlabel("quality")
    ax.set_ylim(0, 1.1)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.grid(visible=False, axis="x")
    ax.set_ylabel("photos with a face found")
    in_percent(ax.yaxis)
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=len(detections))
    return ax


# ---------------------------------------------------------------- training


@or_notice
def learning_curves(history: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Training loss and validation AUC, the best epoch marked; columns epoch, loss, val_auc.

    Where val asks both of its questions (`val_seen`, `val_unseen`), each has a thin line; their mean chooses.
    """
    ax = axes(ax)
    epoch, val_auc = history["epoch"].to_numpy(), history["val_auc"].to_numpy(float)
    lines = ax.plot(epoch, history["loss"], color=COLOURS[1], linestyle="--", label="training loss")
    ax.set_xlabel("epoch")
    ax.set_ylabel("training loss")
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if np.isfinite(val_auc).any():
        right = ax.twinx()
        right.spines["top"].set_visible(False)
        parts = {"people in training": "val_seen", "people of its own": "val_unseen"}
        if set(parts.values()) <= set(history) and history[[*parts.values()]].notna().any().all():
            for (whose, column), dash in zip(parts.items(), (":", "-."), strict=True):
                lines += right.plot(
                    epoch, history[column], dash, color=COLOURS[0], linewidth=0.8, label=whose
                )
        lines += right.plot(epoch, val_auc, color=COLOURS[0], label="validation AUC")
        best = int(np.nanargmax(val_auc))
        label = f"best: {val_auc[best]:.3f}, epoch {epoch[best]}"
        style: Style = {"marker": "o", "linestyle": "none", "color": COLOURS[0]}
        lines += right.plot(epoch[[best]], val_auc[[best]], label=label, **style)
        right.set_ylabel("validation AUC")
    legend_below(ax, len(lines), handles=lines)
    return ax


# ---------------------------------------------------------------- verification


@or_notice
def roc(curves: pd.DataFrame, ax: Axes | None = None, banded: Sequence[str] = ()) -> Axes:
    """ROC curves as of `verification.roc` with 95 % bands, FAR on a log axis.

    banded: the models that matter; only these have bands, and the lines of others are thin. All, by default.
    """
    if not curves["far"].min() < 1:
        return notice(_NO_CURVE, ax)
    ax = axes(ax, 9.4)
    for name, style in styles(curves["model"]).items():
        curve = curves[curves["model"] == name]
        matters = not banded or name in banded
        style |= {} if matters else {"linewidth": 0.9, "alpha": 0.7}
        line(ax, curve["far"], curve["tar"], f"{name}  (AUC {curve['auc'].iloc[0]:.3f})", style)
        if matters:
            band(ax, curve["far"], curve["tar"], curve, style["color"])
    _far_and_tar(ax, curves["far"].min())
    legend_right(ax)
    return ax


def _far_and_tar(ax: Axes, lowest: float) -> None:
    """The axes of an ROC, from the lowest FAR on, and the line of chance."""
    chance = np.geomspace(lowest, 1, 100)
    ax.plot(chance, chance, color="0.6", linewidth=1, linestyle=(0, (1, 2)), label="chance")
    ax.set_xscale("log")
    ax.set_xlim(lowest, 1)
    ax.set_ylim(0, 1.005)
    ax.set_xlabel("FAR: impostor pairs accepted")
    ax.set_ylabel("TAR: genuine pairs accepted")
    in_percent(ax.xaxis)
    in_percent(ax.yaxis)


@or_notice
def headline(curves: pd.DataFrame, roles: Mapping[str, str], ax: Axes | None = None) -> Axes:
    """The answer in one figure: ROC curves before and after, of one test set, FAR on a log axis.

    curves: of `answer.curves`. roles: what each model is, by its name, such as {"buffalo_l": "before"};
    others are left out. The legend gives AUC with 95 % intervals, and a note the study's, as context.
    """
    if not curves["far"].min() < 1:
        return notice(_NO_CURVE, ax)
    ax = axes(ax, 6.4, 5.2)
    for name, style in styles(curves["model"]).items():
        if name not in roles:
            continue
        curve = curves[curves["model"] == name]
        auc, low, high = (float(curve[column].iloc[0]) for column in ("auc", "auc_low", "auc_high"))
        interval = f" [{low:.3f}, {high:.3f}]" if np.isfinite(low + high) else ""
        label = f"{roles[name]}: {shortened(name, 44)}\nAUC {auc:.3f}{interval}"
        line(ax, curve["far"], curve["tar"], label, style | {"linewidth": 2.4})
        band(ax, curve["far"], curve["tar"], curve, style["color"])
    _far_and_tar(ax, curves["far"].min())
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.13), labelspacing=0.7)
    quality = str(curves["quality"].iloc[0])
    text = f"{quality} pairs; bands: 95 %, over people\nthe study, on other photos: AUC 0.864, then 0.975"
    ax.text(0.98, 0.03, text, fontsize=SMALL - 1, color="0.35", ha="right", transform=ax.transAxes)
    return ax


@or_notice
def det(curves: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The curves of `roc` as detection error trade-off: FRR by FAR on normal-deviate axes."""
    ax = axes(ax, 8.4, 5.4)
    drawn = curves[(curves["tar"] > 0) & (curves["tar"] < 1) & (curves["far"] < 1)]
    for name, style in styles(curves["model"]).items():
        curve = drawn[drawn["model"] == name]
        line(ax, stats.norm.ppf(curve["far"]), stats.norm.ppf(1 - curve["tar"]), name, style)
    marks = np.array([1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95])
    for axis, set_limits, rates in (
        (ax.xaxis, ax.set_xlim, drawn["far"]),
        (ax.yaxis, ax.set_ylim, 1 - drawn["tar"]),
    ):
        axis.set_major_locator(ticker.FixedLocator(list(stats.norm.ppf(marks))))
        axis.set_major_formatter(ticker.FixedFormatter([f"{mark * 100:g} %" for mark in marks]))
        low, high = (float(rates.min()), float(rates.max())) if len(rates) else (0.01, 0.5)
        set_limits(stats.norm.ppf(max(low * 0.8, 5e-5)), stats.norm.ppf(min(max(high, 0.5), 0.97)))
    ax.set_xlabel("FAR: impostor pairs accepted")
    ax.set_ylabel("FRR: genuine pairs rejected")
    legend_right(ax)
    return ax


@or_notice
def score_histograms(histogram: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Densities of a model's genuine and impostor scores, as of `verification.histogram`.

    A column `threshold`, where there is one, is drawn as a line.
    """
    ax = axes(ax)
    for name, colour, hatch in (("impostor", COLOURS[1], "////"), ("genuine", COLOURS[0], "")):
        style: Style = {"facecolor": (colour, 0.2), "edgecolor": (colour, 0.45), "linewidth": 0}
        ax.fill_between(histogram["score"], histogram[name], step="mid", hatch=hatch, **style)
        ax.step(histogram["score"], histogram[name], where="mid", color=colour, label=f"{name} pairs")
    threshold = float(histogram["threshold"].iloc[0]) if "threshold" in histogram else np.nan
    if np.isfinite(threshold):
        label = f"threshold {threshold:.3f}"
        ax.axvline(threshold, color="black", linewidth=1.2, linestyle="--", label=label)
    ax.margins(x=0.01)
    ax.set_ylim(0)
    ax.set_xlabel(f"score of {histogram['model'].iloc[0]}: cosine of the two embeddings")
    ax.set_ylabel("density")
    legend(ax)
    return ax


@or_notice
def reliability(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What log-likelihood ratios say against what is so, by model, as of `calibration.said_and_found`.

    Perfect ones lie on the diagonal. A bin with pairs of one kind only has no finite ratio: it is drawn
    hollow, at the edge.
    """
    ax = axes(ax, 7.4, 4.8)
    said, found = (table[name].to_numpy(float) for name in ("said", "found"))
    finite = np.append(said[np.isfinite(said)], found[np.isfinite(found)])
    edge = 1.1 * max(float(np.abs(finite).max(initial=0)), 1.0)
    ax.plot([-edge, edge], [-edge, edge], color="0.6", linewidth=1, linestyle=(0, (1, 2)), label="perfect")
    for (name, style), marker in zip(styles(table["model"]).items(), cycle(MARKERS), strict=False):
        rows = table[table["model"] == name]
        x, y = rows["said"].to_numpy(float), rows["found"].to_numpy(float)
        line(ax, x, y, name, style | {"marker": marker, "markersize": 5})
        one_kind = np.isinf(y)
        at_edge: Style = {
            "color": style["color"],
            "markerfacecolor": "white",
            "linestyle": "none",
            "marker": marker,
        }
        ax.plot(x[one_kind], np.sign(y[one_kind]) * edge, clip_on=False, **at_edge)
    ax.set_xlim(-edge, edge)
    ax.set_ylim(-edge, edge)
    ax.set_xlabel("log-likelihood ratio that the calibration gives (natural logarithm)")
    ax.set_ylabel("the one found in the pairs it gives it to")
    legend(ax, loc="upper left")
    return ax


@or_notice
def auc_by_stratum(report: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """AUC with 95 % intervals by stratum and model, from the report's rows of one test set."""
    strata = [name for name in STRATA if (report["quality"] == name).any()]
    models = list(report["model"].unique())
    ax = axes(ax, 4.4 + 1.4 * len(strata), 4.4)
    for i, (model, colour, marker) in enumerate(zip(models, cycle(COLOURS), cycle(MARKERS), strict=False)):
        rows = report[report["model"] == model].set_index("quality").reindex(strata)
        middle = np.arange(len(strata)) + (i - (len(models) - 1) / 2) * 0.7 / len(models)
        bars = [rows["auc"] - rows["auc_low"], rows["auc_high"] - rows["auc"]]
        bars = np.clip(np.nan_to_num(bars), 0, None)
        style: Style = {"color": colour, "capsize": 3, "markersize": 5}
        if i >= len(COLOURS):
            style["markerfacecolor"] = "white"
        ax.errorbar(middle, rows["auc"], bars, fmt=marker, label=model, **style)
    ax.axhline(0.5, color="0.6", linewidth=1, linestyle=(0, (1, 2)))
    ax.set_xticks(range(len(strata)), strata)
    ax.set_xlim(-0.5, len(strata) - 0.5)
    ax.set_ylim(top=1.0)
    ax.grid(visible=False, axis="x")
    ax.set_xlabel("quality of the pair")
    ax.set_ylabel("AUC, 95 % interval")
    legend_right(ax)
    return ax


@or_notice
def strangers(measured: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Who is taken for one of the people in training, by model and kind of probe, with 95 % intervals.

    measured: rows of `open_set.measure` of one rule.
    """
    models, kinds = list(measured["model"].unique()), list(measured["kind"].unique())
    ax = axes(ax, 9.4, 1.2 + 0.11 * len(models) * (len(kinds) + 1))
    for i, (kind, colour, marker) in enumerate(zip(kinds, cycle(COLOURS), cycle(MARKERS), strict=False)):
        rows = measured[measured["kind"] == kind].set_index("model").reindex(models)
        middle = np.arange(len(models)) + (i - (len(kinds) - 1) / 2) * 0.8 / len(kinds)
        bars = np.clip(np.nan_to_num([rows["rate"] - rows["low"], rows["high"] - rows["rate"]]), 0, None)
        style: Style = {"color": colour, "capsize": 2, "markersize": 5}
        if kind.startswith("known"):
            style["markerfacecolor"] = "white"
        ax.errorbar(rows["rate"], middle, xerr=bars, fmt=marker, label=kind, **style)
    ax.set_yticks(range(len(models)), models)
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("taken for one of the people in training; known people: found under the right name")
    in_percent(ax.xaxis)
    legend_right(ax)
    return ax


@or_notice
def error_versus_discard(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """FRR that is left when the worst photos are dropped, as of `verification.discard`."""
    if not np.isfinite(table["frr"]).any():
        return notice("not possible: an FRR needs 30 genuine pairs and a threshold, which val gives", ax)
    ax = axes(ax, 9.4)
    for name, style in styles(table["model"]).items():
        curve = table[table["model"] == name]
        line(ax, curve["discarded"], curve["frr"], name, style)
    ax.set_xlim(0, table["discarded"].max())
    ax.set_ylim(0)
    ax.set_xlabel("photos dropped, the worst first")
    ax.set_ylabel("FRR of the rest")
    in_percent(ax.xaxis)
    in_percent(ax.yaxis)
    legend_right(ax)
    return ax


@or_notice
def cmc(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Cumulative match characteristic with bands of 95 %, as of `protocols.cmc`."""
    ax = axes(ax, 9.4)
    for name, style in styles(table["model"]).items():
        curve = table[table["model"] == name]
        line(ax, curve["rank"], curve["rate"], name, style)
        band(ax, curve["rank"], curve["rate"], curve, style["color"])
    ax.set_xlim(1, max(2, int(table["rank"].max())))
    ax.set_ylim(top=1.005)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.set_xlabel("rank")
    ax.set_ylabel("probes with the right person within the rank")
    in_percent(ax.yaxis)
    legend_right(ax)
    return ax
