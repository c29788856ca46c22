"""Every row of the comparison as a pack: plain InsightFace finds in it what the report says."""

import functools
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from insightface.app import FaceAnalysis
from insightface.app.common import Face
from sklearn.metrics import roc_auc_score

from src import model_card, models, take_home
from src.evaluation import open_set, verification
from src.limits import NotPossible
from src.packs import faces as face_finding
from src.packs import pack

ROWS = (
    "demo_pack",
    "demo_pack + linear map",
    "demo_pack + PLDA",
    "demo_pack fine-tuned",
    "demo_pack fine-tuned + PLDA",
    "ResNet-50 fine-tuned",
    "ResNet-50 fine-tuned + posterior",
    "ResNet-50 + demo_pack",
    "demo_pack fine-tuned, open set",
)
# The template of ArcFace: the landmarks of a face that is aligned already.
ALIGNED = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)


@pytest.fixture(scope="module")
def tables(comparison, rows):
    """What the report, the thresholds and the strangers' table say of every row."""
    embeddings = comparison.rows(*rows.values())
    results = verification.evaluate(embeddings, verification.test_sets(comparison.faces))
    report = verification.report(results, "demo · demo_pack")
    val = verification.on_val(embeddings, comparison.faces)
    chosen = verification.thresholds(val, 0.1)
    rates = verification.at_thresholds(results, chosen, val)
    probes = pd.DataFrame({"kind": ["smears", "smears"], "split": ["val", "test"], "identity": "x"})
    others = {name: vectors[:2] for name, vectors in embeddings.items()}
    return report, rates, open_set.measure(embeddings, others, comparison.faces, probes)


def keep(model, comparison, folder, tables, **options) -> Path:
    """`take_home.keep` in a folder of its own."""
    report, rates, held = tables
    kept = take_home.keep(model, replace(comparison, folder=folder), report, rates, held, **options)
    assert isinstance(kept, Path)
    return kept


@pytest.fixture(scope="module")
def scores(comparison, there, rows):
    return comparison.scores(there, *rows.values())


@pytest.fixture(scope="module")
def packed(comparison, rows, tables, scores, tmp_path_factory):
    """The pack of a row, made once."""

    @functools.cache
    def made(name: str) -> Path:
        folder = tmp_path_factory.mktemp("packs") / "models"
        return keep(rows[name], comparison, folder, tables, score=scores[f"demo · {name}"])

    return made


def plain(folder, crops):
    """The ten lines: a pack, aligned faces as OpenCV reads them, and InsightFace; also their lengths."""
    app = FaceAnalysis(name=folder.name, root=str(folder.parent.parent), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1)
    embeddings, lengths = [], []
    for crop in crops:
        face = Face(kps=ALIGNED)
        app.models["recognition"].get(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), face)
        embeddings.append(face.normed_embedding)
        lengths.append(face.embedding_norm)
    return np.stack(embeddings), np.array(lengths)


def card(folder) -> str:
    return (folder / "MODEL_CARD.md").read_text(encoding="utf-8")


def auc(embeddings, identity, decimals=9):
    i, j = np.triu_indices(len(embeddings), 1)
    return roc_auc_score(identity[i] == identity[j], (embeddings @ embeddings.T)[i, j].round(decimals))


def tied(embeddings, identity):
    """The share of an AUC that rounding decides: genuine and impostor scores that are the same to 1e-6.

    A model that is sure of who it is, as PLDA is of generated faces, gives 1 for many pairs, right or wrong.
    """
    i, j = np.triu_indices(len(embeddings), 1)
    scores, genuine = (embeddings @ embeddings.T)[i, j], identity[i] == identity[j]
    return (abs(scores[genuine][:, None] - scores[~genuine]) < 1e-6).mean()


@pytest.mark.parametrize("name", ROWS)
def test_plain_insightface_finds_in_the_pack_what_the_report_says(
    comparison, rows, tables, scores, packed, name
):
    folder, score = packed(name), scores[f"demo · {name}"]
    assert folder.name == "pack"
    report = tables[0].set_index(["model", "test", "quality"])
    for test in ("test_seen", "test_unseen"):
        at = np.flatnonzero(comparison.faces["split"] == test)
        found, lengths = plain(folder, comparison.crops[at])
        expected = comparison.embed(rows[name])[at]
        assert (found * expected).sum(1).min() >= 0.9999
        if not isinstance(score, NotPossible):
            np.testing.assert_allclose(lengths, score.lengths(comparison.looks(rows[name]))[at], rtol=2e-3)
        identity = comparison.faces["identity"].to_numpy()[at]
        within = 1e-4 + tied(expected, identity)
        assert auc(found, identity) == pytest.approx(report["auc"][f"demo · {name}", test, "all"], abs=within)
        assert auc(found, identity, 4) == pytest.approx(auc(expected, identity, 4), abs=5e-4)
    batch = pack.load(folder).recognise(comparison.crops[at])
    np.testing.assert_allclose(np.linalg.norm(batch, axis=1), lengths, rtol=2e-3)
    assert (batch * found).sum(1).min() >= 0.9999 * lengths.min()


@pytest.fixture(scope="module")
def of_real_photos(real, tmp_path_factory):
    """The stand-in pack on bad photos of six people."""
    folder = real / "study6/images"
    files = [file for who in sorted(folder.iterdir()) for file in sorted(who.glob("low_quality/*"))[:96:4]]
    paths = [file.relative_to(folder).as_posix() for file in files]
    images = pd.DataFrame({"path": paths, "sha256": paths, "status": "ok"})
    loaded = pack.load("standin", root=real)
    _, crops = face_finding.extract(images, folder, loaded)
    faces = pd.DataFrame({"identity": [path.split("/")[0] for path in paths], "quality": "low"})
    shots = faces.groupby("identity").cumcount()
    faces["split"] = np.select([shots < 10, shots < 14], ["train", "val"], "test_seen")
    faces["group"] = np.arange(len(faces))
    return models.Comparison(loaded, crops, faces, tmp_path_factory.mktemp("real"))


@pytest.mark.parametrize("row", [models.frozen, models.linear_map, models.plda])
def test_real_photos_have_the_same_auc_to_the_fourth_digit(of_real_photos, tables, tmp_path, row):
    baseline = models.frozen(of_real_photos)
    model = baseline if row is models.frozen else row(of_real_photos, baseline)
    at = np.flatnonzero(of_real_photos.faces["split"] == "test_seen")
    identity = of_real_photos.faces["identity"].to_numpy()[at]
    found, _ = plain(keep(model, of_real_photos, tmp_path / "models", tables), of_real_photos.crops[at])
    expected = of_real_photos.embed(model)[at]
    assert (found * expected).sum(1).min() >= 0.9999
    assert auc(found, identity) == pytest.approx(verification.auc(expected, identity), abs=1e-4)
    assert auc(found, identity) < 0.999


def test_the_pack_is_kept_and_has_its_card(comparison, rows, tables, tmp_path, capsys):
    model = rows["demo_pack + PLDA"]
    folder = keep(model, comparison, tmp_path, tables)
    assert "least cosine" in capsys.readouterr().out
    assert keep(model, comparison, tmp_path, tables) == folder
    assert "computed" not in capsys.readouterr().out
    files = {"det_demo.onnx", "rec_finetuned.onnx", "MODEL_CARD.md", "thresholds.json"}
    assert {file.name for file in folder.iterdir()} == files
    known = json.loads((folder / "thresholds.json").read_text(encoding="utf-8"))
    rates, held = tables[1], tables[2]
    pairs = rates.loc[rates["model"] == "demo · demo_pack + PLDA", "threshold"].iloc[0]
    strict = held[(held["model"] == "demo · demo_pack + PLDA") & (held["rule"] == open_set.PER_PROBE)]
    assert known["pairs"] == {"threshold": pairs, "target_far": 0.1}
    assert known["people"] == {"threshold": strict["threshold"].iloc[0], "target_fpir": 0.01}
    assert known["too_poor"] is None and "Too poor to tell: not possible: no score" in card(folder)
    assert known["known"] == 6 and known["numbers"] == 6 + comparison.embed(rows["demo_pack"]).shape[1]


def test_a_row_that_is_not_possible_is_a_sentence_and_leaves_no_pack(
    comparison, rows, tables, tmp_path, capsys
):
    folder = keep(rows["demo_pack"], comparison, tmp_path, tables)
    missing = models.Missing("demo_pack + PLDA", NotPossible("too few photos"))
    capsys.readouterr()
    given = take_home.keep(missing, replace(comparison, folder=tmp_path), *tables)
    assert str(given) == "not possible: too few photos"
    assert capsys.readouterr().out == "demo_pack + PLDA: not possible: too few photos\n"
    assert not folder.exists()


def test_the_length_below_which_a_face_is_too_poor_is_in_the_pack_and_smears_are_below(
    comparison, there, packed, scores
):
    folder = packed("demo_pack")
    known = json.loads((folder / "thresholds.json").read_text(encoding="utf-8"))
    assert known["too_poor"] == {"length": 1.0, "smears_below": 0.95}
    assert "an embedding shorter than **1**" in card(folder) and "as they come" in card(folder)
    smears = ((there.faces["kind"] == "smears") & (there.faces["split"] == "val")).to_numpy()
    _, of_smears = plain(folder, there.crops[smears])
    _, of_faces = plain(folder, comparison.crops[(comparison.faces["split"] == "test_seen").to_numpy()])
    assert (of_smears < known["too_poor"]["length"]).mean() > 0.9
    assert (of_faces >= known["too_poor"]["length"]).mean() > 0.8


def test_half_precision_takes_half_the_room_and_says_what_it_costs(
    comparison, rows, tables, packed, scores, tmp_path
):
    name = "demo_pack fine-tuned, open set"
    full = packed(name)
    score = scores[f"demo · {name}"]
    half = keep(rows[name], comparison, tmp_path / "models", tables, precision="float16", score=score)
    sizes = [(folder / "rec_finetuned.onnx").stat().st_size for folder in (half, full)]
    assert sizes[0] < 0.6 * sizes[1]
    at = np.flatnonzero(comparison.faces["split"] == "test_seen")
    (given, lengths), (exact, expected) = (plain(folder, comparison.crops[at]) for folder in (half, full))
    assert (given * exact).sum(1).min() > 0.99
    np.testing.assert_allclose(lengths, expected, rtol=0.05)
    assert "In float16. By InsightFace" in card(half)
    with pytest.raises(ValueError, match="float8"):
        keep(rows["demo_pack"], comparison, tmp_path, tables, precision="float8")


def test_a_pack_that_gives_something_else_is_not_kept(comparison, rows, tables, tmp_path):
    wrong = np.roll(comparison.embed(rows["demo_pack"]), 1, axis=0)
    inputs = (rows["demo_pack"], comparison.pack, comparison.crops, wrong, comparison.faces)
    report, rates, held = tables
    results = model_card.Results(report, rates, held, 0.01, NotPossible("no score"))
    with pytest.raises(ValueError, match="does not give what the report was made from"):
        take_home._pack(
            *inputs, results, "demo_pack", "demo_pack", "float32", NotPossible("no score"), workspace=tmp_path
        )


def test_only_so_many_crops_are_compared(comparison, rows, packed):
    folder = packed("demo_pack")
    embeddings = comparison.embed(rows["demo_pack"])
    table = take_home.compared(folder, comparison.crops, embeddings, comparison.faces, most=10)
    assert table["crops"].sum() == 10 and table["cosine"].min() > 0.9999
    untested = comparison.faces.assign(split="train")
    table = take_home.compared(folder, comparison.crops, embeddings, untested)
    assert table["test"].tolist() == ["train"] and table["crops"].sum() == len(untested)


def test_the_model_of_a_row(comparison, rows):
    models_ = rows.values()
    assert take_home.named("demo · demo_pack + PLDA", comparison, *models_) is rows["demo_pack + PLDA"]
    with pytest.raises(ValueError, match="no model makes the row 'no face'; these do: demo · demo_pack, "):
        take_home.named("no face", comparison, *models_)
