"""Fixtures of the tests of packs."""

from pathlib import Path

import cv2
import onnx
import pytest
from insightface.app import FaceAnalysis

from src.packs import graphs
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
def dynamic(real, tmp_path_factory) -> Pack:
    """The same pack, its detector taking any size, as buffalo_l's does: as shipped it runs at 128 and 640."""
    folder = tmp_path_factory.mktemp("dynamic") / "dynamic"
    folder.mkdir()
    for file in (real / "models" / "standin").glob("*.onnx"):
        model = onnx.load(file)
        if graphs.task(file) == "detection":
            widths = [output.type.tensor_type.shape.dim[1].dim_value for output in model.graph.output]
            graphs.free_size(model)
            for output, width in zip(model.graph.output, widths, strict=True):
                rows, columns = (output.type.tensor_type.shape.dim.add() for _ in range(2))
                rows.dim_param, columns.dim_value = f"{output.name} rows", width
        onnx.save(model, folder / file.name)
    return load(folder)


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
