"""The baseline is what the loop that everyone writes gives."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from insightface.app import FaceAnalysis

from src.packs.as_shipped import as_shipped, not_read


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_as_shipped_equals_the_loop_that_everyone_writes(real, sample, loop, standin):
    table = pd.DataFrame({"path": [file.relative_to(real).as_posix() for file in sample]})
    found = as_shipped(table, real, standin)
    missed = np.array([not faces for faces in loop])
    assert (np.isnan(found).all(axis=1) == missed).all() and 0 < missed.sum() < len(missed)
    cosines = [row @ faces[0].normed_embedding for row, faces in zip(found, loop, strict=True) if faces]
    assert min(cosines) >= 0.9999


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_with_a_detector_that_takes_any_size_it_equals_the_loop_too(real, sample, dynamic):
    """At 128 and at 640, their finds put together, as buffalo_l's detector runs."""
    app = FaceAnalysis(name=str(dynamic.folder))
    app.prepare(ctx_id=0)
    loop = [app.get(cv2.imread(str(file))) for file in sample]
    table = pd.DataFrame({"path": [file.relative_to(real).as_posix() for file in sample]})
    found = as_shipped(table, real, dynamic)
    assert (np.isnan(found).all(axis=1) == [not faces for faces in loop]).all()
    assert (
        min(row @ faces[0].normed_embedding for row, faces in zip(found, loop, strict=True) if faces) > 0.9999
    )


def test_as_shipped_resumes_and_takes_undecodable_files_for_failures(real, sample, standin, tmp_path):
    for i, file in enumerate(sample[:3]):
        shutil.copy(file, tmp_path / f"{i}{file.suffix}")
    (tmp_path / "3.jpg").write_bytes(b"no photo")
    table = pd.DataFrame({"path": sorted(file.name for file in tmp_path.iterdir())})
    fresh = as_shipped(table, tmp_path, standin)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    kept = as_shipped(table, tmp_path, standin, workspace=workspace)
    kept[0], kept[2] = 7, np.inf  # done before; not yet done
    again = as_shipped(table, tmp_path, standin, workspace=workspace)
    assert (again[0] == 7).all()
    np.testing.assert_allclose(again[1:], fresh[1:], rtol=1e-5, equal_nan=True)
    assert np.isnan(fresh[3]).all()


def test_what_opencv_cannot_read_is_told_from_what_shows_no_face(tmp_path):
    for name, content in (("0.png", np.zeros((64, 64, 3), np.uint8)), ("1.png", None), ("2.png", None)):
        if content is None:
            (tmp_path / name).write_bytes(b"" if name == "1.png" else b"a format of its own")
        else:
            cv2.imwrite(str(tmp_path / name), content)
    shutil.copy(tmp_path / "2.png", tmp_path / "3.png")
    table = pd.DataFrame({"path": [f"{i}.png" for i in range(4)], "sha256": "x"})
    embeddings = np.full((4, 8), np.nan, np.float32)
    embeddings[3] = 1  # read, once
    assert not_read(table, embeddings, tmp_path)["path"].tolist() == ["1.png", "2.png"]
    for rows in (slice(0, 1), slice(3, 4)):  # a photo that shows no face; one that does
        assert not_read(table[rows], embeddings[rows], tmp_path).columns.tolist() == ["path"]
        assert not_read(table[rows], embeddings[rows], tmp_path).empty
