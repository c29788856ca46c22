"""Score files hold every pair of the report once, and give its figures to whoever reads them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from src.evaluation import score_files, verification


@pytest.fixture
def photos():
    """Three people with spaces in their names, and a group of near-duplicates."""
    rng = np.random.default_rng(0)
    who = np.repeat(["Ann  Lee", "Bob Ray", "Cid"], 4)
    faces = pd.DataFrame(
        {"identity": who, "quality": "high", "split": "test_seen", "group": [0, 0, *range(2, 12)]}
    )
    vectors = rng.normal(size=(12, 8)) + 2 * rng.normal(size=(3, 8)).repeat(4, 0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), faces


def read(file):
    """As bob.measure.load reads lines: fields between blanks, the score last."""
    return [line.split() for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("form", ["bob-4", "bob-5"])
@pytest.mark.parametrize("names", [False, True])
def test_bob_finds_the_reports_auc(photos, tmp_path, form, names):
    vectors, faces = photos
    test = verification.trials(faces, "test_seen")
    (file,) = score_files.write(vectors, test, tmp_path, "model", form, names)
    lines = read(file)
    assert {len(line) for line in lines} == {int(form[-1])}
    real = -3
    genuine = np.array([line[0] == line[real] for line in lines])
    scores = np.array([float(line[-1]) for line in lines])
    assert len(lines) == 12 * 11 / 2 - 1 and genuine.sum() == 3 * 6 - 1
    counted = verification.evaluate({"m": vectors}, {"test_seen": test})
    report = verification.report(counted).set_index("quality")
    assert roc_auc_score(genuine, scores) == pytest.approx(report["auc"]["all"], abs=1e-9)
    assert ("Ann_Lee" in {line[0] for line in lines}) == names
    probes = {line[-2] for line in lines}
    assert len(probes) == 10  # the first two photos, near-duplicates, are nobody else's second


def test_two_columns_hold_the_same_scores(photos, tmp_path):
    vectors, faces = photos
    test = verification.trials(faces, "test_seen")
    two, four = (
        read(score_files.write(vectors, test, tmp_path, "m", form)[0]) for form in ("bob-2", "bob-4")
    )
    assert [line[1] for line in two] == [line[3] for line in four]
    assert [line[0] == "1" for line in two] == [line[0] == line[1] for line in four]


def test_pyeer_gets_two_files(photos, tmp_path):
    vectors, faces = photos
    test = verification.trials(faces, "test_seen")
    files = score_files.write(vectors, test, tmp_path, "model", "pyeer")
    genuine, impostor = (np.loadtxt(file) for file in files)
    assert (len(genuine), len(impostor)) == (17, 48)
    assert genuine.mean() > impostor.mean()


def test_what_cannot_be_written_is_said(photos, tmp_path):
    vectors, faces = photos
    test = verification.trials(faces, "test_seen")
    failed = vectors.copy()
    failed[3] = np.nan
    with pytest.raises(ValueError, match="no embedding of 1 photos of test_seen"):
        score_files.write(failed, test, tmp_path, "model")
    with pytest.raises(ValueError, match="no form 'csv'"):
        score_files.write(vectors, test, tmp_path, "model", "csv")
    alike = verification.trials(faces.replace({"Bob Ray": "Ann Lee"}), "test_seen")
    with pytest.raises(ValueError, match="the same name"):
        score_files.write(vectors, alike, tmp_path, "model", names=True)
    assert not list(tmp_path.iterdir())


def test_pairs_of_many_photos_come_in_pieces(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    faces = pd.DataFrame({"identity": np.arange(50) % 5, "quality": "low", "split": "test_x", "group": -1})
    test = verification.trials(faces, "test_x")
    (whole,) = score_files.write(vectors, test, tmp_path, "whole")
    monkeypatch.setattr(score_files, "_BLOCK", 7)
    (pieces,) = score_files.write(vectors, test, tmp_path, "pieces")
    assert [line[:4] for line in read(whole)] == [line[:4] for line in read(pieces)]
    one, other = (np.array([float(line[4]) for line in read(file)]) for file in (whole, pieces))
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert len(one) == 50 * 49 / 2
