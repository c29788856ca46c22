"""Fixtures of the tests of packs."""

from pathlib import Path

import cv2
import pytest
from insightface.app import FaceAnalysis

from src.packs.pack import Pack, load
from tests.packs.tiny_packs import detector, recogniser


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A folder with a pack in InsightFace's format, a few kB."""
    folder = tmp_path / "packs" / "models" / "tiny"
    detector(folder / "det.onnx")
    recogniser(folder / "rec.onnx")
    return folder


@pytest.fixture(scope="session")
def standin(real) -> Pack:
    """A pack of real models."""
    return load("standin", root=real)


@pytest.fixture(scope="session")
def sample(real) -> list[Path]:
    """Good photos, surveillance crops, ruined ones: some of each."""
    files = sorted((real / "frmdb/images").glob("*/low_quality/*"))[::24]
    files += sorted((real / "frmdb/images").glob("*/high_quality/*"))[::110]
    files += sorted((real / "lfw3d/images").glob("*/*"))[::48]
    return files + sorted((real / "study6/images").glob("*/*/*"))[::80]


@pytest.fixture(scope="session")
def loop(real, sample) -> list:
    """The loop that everyone writes, on the sample."""
    app = FaceAnalysis(name="standin", root=str(real))
    app.prepare(ctx_id=0)
    return [app.get(cv2.imread(str(file))) for file in sample]
