"""Figures draw what they are given, on the axis they are given, for few and for many."""

import matplotlib

matplotlib.use("Agg")

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import StepPatch

from src import plots
from src.evaluation import calibration, protocols, verification
from tests.evaluation.examples import make


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def results():
    vectors, faces = make(people=10, photos=10)
    models = {"buffalo_l": vectors, "ResNet-50 fine-tuned": make(people=10, photos=10, noise=1.0)[0]}
    test = verification.trials(faces, "test_seen")
    return models, test, verification.evaluate(models, {"test_seen": test})


def legend(ax):
    """The texts of the axis's legend."""
    found = ax.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def figures(models, test, results):
    """Every figure of the evaluation: a function of an axis."""
    curves = verification.roc(results["test_seen"])
    report = verification.report(results)
    chosen = verification.thresholds({"all": results["test_seen"]}, 0.1)
    found = protocols.identify(models, test)
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.5], "val_auc": [0.6, 0.9, 0.8]})
    rates = {"quality": ["high", "low"], "buffalo_l as shipped": [0.9, 0.5], "buffalo_l": [1, 0.9]}
    sharpness = np.arange(len(models["buffalo_l"]), dtype=float)
    rows = [
        {"model": model, "kind": kind, "rate": rate, "low": rate, "high": rate + 0.1}
        for model in models
        for kind, rate in (("smears", 0.1), ("known people, bad photos", 0.8))
    ]
    measured = pd.DataFrame(rows)
    return {
        "roc": lambda ax: plots.roc(curves, ax),
        "det": lambda ax: plots.det(curves, ax),
        "histograms": lambda ax: plots.score_histograms(
            verification.histogram(results["test_seen"], "buffalo_l").assign(threshold=0.3), ax
        ),
        "reliability": lambda ax: plots.reliability(
            calibration.said_and_found({"all": results["test_seen"]}, results, list(models)), ax
        ),
        "strata": lambda ax: plots.auc_by_stratum(report, ax),
        "cmc": lambda ax: plots.cmc(protocols.cmc(found), ax),
        "discard": lambda ax: plots.error_versus_discard(
            verification.discard(models, test, sharpness, chosen), ax
        ),
        "learning": lambda ax: plots.learning_curves(history, ax),
        "strangers": lambda ax: plots.strangers(measured, ax),
        "detection": lambda ax: plots.detection(pd.DataFrame(rates), ax),
    }


def test_every_figure_draws_on_the_axis_given_and_can_be_saved(results, tmp_path):
    for name, draw in figures(*results).items():
        ax = plt.subplots()[1]
        assert draw(ax) is ax and ax.has_data()
        assert ax.get_xlabel() and (ax.get_ylabel() or name == "strangers"), name
        own = draw(None)
        assert own is not ax
        own.figure.savefig(tmp_path / f"{name}.png")
        texts = legend(own)
        assert len(texts) == len(set(texts)) >= 2


def test_lines_differ_in_more_than_colour(results):
    lines = plots.roc(verification.roc(results[2]["test_seen"])).get_lines()[:2]
    assert len({line.get_linestyle() for line in lines}) == 2
    assert len({line.get_color() for line in lines}) == 2


def test_roc_shows_the_values_and_names_the_auc(results):
    curves = verification.roc(results[2]["test_seen"])
    ax = plots.roc(curves)
    drawn = np.asarray(ax.get_lines()[0].get_xydata())
    np.testing.assert_allclose(drawn, curves[curves["model"] == "buffalo_l"][["far", "tar"]])
    assert f"{curves['auc'][0]:.3f}" in legend(ax)[0]
    assert ax.get_xscale() == "log"


def test_roc_draws_bands_of_what_matters_only(results):
    curves = verification.roc(results[2]["test_seen"])
    assert len(plots.roc(curves).collections) == 2
    ax = plots.roc(curves, banded=["buffalo_l"])
    assert len(ax.collections) == 1
    widths = [line.get_linewidth() for line in ax.get_lines()[:2]]
    assert widths[0] > widths[1] and len(legend(ax)) == 3


def test_score_histograms_of_every_test_set_show_model_and_threshold(results, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda ax, file: drawn.append((ax, file)))
    table = verification.by_test(verification.histogram, results[2], model="buffalo_l", bins=20)
    plots.each(plots.score_histograms, table.assign(threshold=0.25), tmp_path)
    ((ax, file),) = drawn
    assert file == tmp_path / "score_histograms_test_seen.png"
    assert ax.get_title(loc="left") == "test seen" and "buffalo_l" in ax.get_xlabel()
    steps = {line.get_label(): line for line in ax.get_lines()}
    assert list(steps["threshold 0.250"].get_xdata()) == [0.25, 0.25]
    for kind in ("genuine", "impostor"):
        np.testing.assert_allclose(steps[f"{kind} pairs"].get_ydata(), table[kind])


@pytest.mark.parametrize("people", [1, 8, 40, 1000])
def test_counts_stay_readable(people):
    rng = np.random.default_rng(0)
    identity = np.repeat([f"person {i}" for i in range(people)], rng.integers(1, 9, people))
    images = pd.DataFrame(
        {"identity": identity, "quality": rng.choice(["high", "low", "unknown"], len(identity))}
    )
    ax = plots.counts(images)
    ax.figure.canvas.draw()
    drawn = sum(bar.get_height() for bars in ax.containers for bar in bars)
    for outline in (patch for patch in ax.patches if isinstance(patch, StepPatch)):
        tops, _, bottoms = outline.get_data()
        drawn += (tops - bottoms).sum()
    assert drawn == len(images)
    assert ax.figure.bbox.width / ax.figure.dpi <= 15
    named = [label for label in ax.get_xticklabels() if label.get_text().startswith("person")]
    assert len(named) == (people if people <= plots.MANY else 0)
    extents = [label.get_window_extent() for label in named]
    assert all(a.x0 < b.x0 - 5 for a, b in pairwise(extents))


def test_best_epoch_is_marked_and_validation_may_be_missing():
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.5], "val_auc": [0.6, 0.9, 0.8]})
    labels = legend(plots.learning_curves(history))
    assert "best: 0.900, epoch 2" in labels
    without = plots.learning_curves(history.assign(val_auc=np.nan))
    assert legend(without) == ["training loss"]
    both = plots.learning_curves(history.assign(val_seen=0.7, val_unseen=0.6))
    assert {"people in training", "people of its own"} < set(legend(both))
    one = plots.learning_curves(history.assign(val_seen=0.7, val_unseen=np.nan))
    assert legend(one) == labels


def test_sheets_show_every_photo():
    photos = [np.full((height, 50, 3), 99, np.uint8) for height in range(20, 120, 8)]
    ax = plots.contact_sheet(photos, [f"a rather long name {i}.jpg" for i in range(len(photos))], columns=5)
    assert len(ax.images) == len(photos)
    boxes = [image.get_extent() for image in ax.images]
    assert all(
        abs((x1 - x0) / (y0 - y1) - 50 / len(p)) < 1e-6
        for (x0, x1, y0, y1), p in zip(boxes, photos, strict=True)
    )
    assert "no photos to show" in plots.contact_sheet([]).texts[0].get_text()
    with pytest.raises(ValueError, match="titles"):
        plots.contact_sheet(photos, ["one"])


def test_hardest_pairs_are_shown_side_by_side(results):
    models, test, _ = results
    pairs = verification.hardest(models["buffalo_l"], test, count=3)
    crops = np.arange(len(models["buffalo_l"]), dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 112, 112, 3), np.uint8
    )
    ax = plots.hardest_pairs(crops, pairs)
    shown = [int(np.asarray(image.get_array())[0, 0, 0]) for image in ax.images]
    assert shown == pairs[["a", "b"]].to_numpy().ravel().tolist()
    texts = {text.get_text() for text in ax.texts}
    assert {f"{score:.2f}" for score in pairs["score"]} <= texts
    with pytest.raises(ValueError, match="no pairs"):
        plots.hardest_pairs(crops, pairs[:0])


def test_many_models_stay_apart():
    """More models than colours: what comes again comes with other markers."""
    names = [f"model {i}" for i in range(12)]
    curves = pd.DataFrame([(name, rank, 0.5, 0.4, 0.6) for name in names for rank in (1, 2)])
    curves.columns = ["model", "rank", "rate", "low", "high"]
    lines = plots.cmc(curves).get_lines()
    styles = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(styles) == len(names)


def test_a_reliability_figure_shows_bins_of_one_kind_at_the_edge():
    rows = {"model": "a", "said": [-4.0, 0.0, 3.0], "found": [-np.inf, 0.5, 2.0], "pairs": [10, 10, 10]}
    ax = plots.reliability(pd.DataFrame(rows))
    drawn = {str(one.get_label()): np.column_stack(one.get_data()) for one in ax.get_lines()}
    np.testing.assert_array_equal(drawn["a"], [[0.0, 0.5], [3.0, 2.0]])
    (edge,) = [
        np.column_stack(one.get_data()) for one in ax.get_lines() if one.get_markerfacecolor() == "white"
    ]
    np.testing.assert_array_equal(edge, [[-4.0, ax.get_ylim()[0]]])
