"""A fine-tuned network goes back into InsightFace and gives the same embeddings there."""

import errno

import cv2
import numpy as np
import onnx
import pytest
import torch
from insightface.app import FaceAnalysis
from insightface.model_zoo import get_model
from torch import nn

from src.demo import drawing, people
from src.demo.mode import PACK
from src.packs import export


class Small(nn.Module):
    """A face embedding network with what is awkward to export: batch norm, pooling, a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.PReLU(8), nn.AdaptiveAvgPool2d(4)
        )
        self.head = nn.Linear(128, 32)
        self.norm = nn.BatchNorm1d(32)

    def forward(self, images):
        return self.norm(self.head(self.body(images).flatten(1)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = Small()
    network(torch.rand(16, 3, 112, 112) * 2 - 1)  # batch norm has seen something
    return network.train()


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_insightface_computes_what_the_network_computes(network, tmp_path):
    recogniser = get_model(
        str(export.onnx(network, tmp_path / "rec.onnx")), providers=["CPUExecutionProvider"]
    )
    assert recogniser.taskname == "recognition"
    crops = np.random.default_rng(0).integers(0, 256, (6, 112, 112, 3), np.uint8)  # RGB
    with torch.inference_mode():
        images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
        expected = network.eval()(images).numpy()
        network.train()
    bgr = [cv2.cvtColor(crop, cv2.COLOR_RGB2BGR) for crop in crops]
    assert cosine(recogniser.get_feat(bgr), expected).min() > 0.9999
    assert cosine(recogniser.get_feat(bgr[0]), expected[:1]).min() > 0.9999


def test_the_network_is_left_as_it_was_and_one_file_is_written(network, tmp_path):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export.onnx(network, tmp_path / "new" / "rec.onnx")
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["rec.onnx"]


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    torch.manual_seed(0)
    exported = torch.onnx.export

    def broken(module, *args, **kwargs):
        nn.init.normal_(module.head.weight)
        exported(module, *args, **kwargs)
        nn.init.normal_(module.head.weight)

    monkeypatch.setattr(torch.onnx, "export", broken)
    with pytest.raises(ValueError, match=r"rec\.onnx was not written"):
        export.onnx(Small(), tmp_path / "rec.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_that_gives_nan_is_refused(network, tmp_path):
    ruined = Small()
    nn.init.constant_(ruined.head.weight, float("nan"))
    with pytest.raises(ValueError, match="cosine"):
        export.onnx(ruined, tmp_path / "rec.onnx")


def test_pack_has_the_base_detector_and_our_recogniser(network, tmp_path):
    folder = export.pack(network, PACK, tmp_path / "mine")
    app = FaceAnalysis(name=str(folder), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1)
    assert set(app.models) == {"detection", "recognition"}
    view = people.view(np.random.default_rng(0))
    photo, _ = drawing.draw(people.person(1), view, 224)
    faces = app.get(cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))
    assert len(faces) == 1
    assert faces[0].embedding.shape == (32,)


def test_pack_replaces_an_earlier_pack_and_nothing_else(network, tmp_path):
    folder = export.pack(network, PACK, tmp_path / "mine")
    export.pack(network, PACK, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (folder / "diary.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="not ONNX models"):
        export.pack(network, PACK, folder)
    with pytest.raises(ValueError, match="base pack itself"):
        export.pack(network, PACK, PACK)
    with pytest.raises(FileNotFoundError, match="No detection model"):
        export.pack(network, tmp_path, tmp_path / "other")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(network, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", full)
    with pytest.raises(OSError, match=r"The disk is full: rec\.onnx could not"):
        export.onnx(network, tmp_path / "rec.onnx")
    with pytest.raises(OSError, match="The disk is full: the pack mine could not"):
        export.pack(network, PACK, tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_the_file_is_whole_and_says_nothing_about_this_machine(network, tmp_path):
    file = export.onnx(network, tmp_path / "rec.onnx")
    graph = onnx.load(str(file), load_external_data=False).graph
    assert all(weight.data_location == onnx.TensorProto.DEFAULT for weight in graph.initializer)
    assert b".py" not in file.read_bytes()


class Normalising(nn.Module):
    """Begins with a subtraction and a multiplication of its own, as a network for ImageNet inputs does."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Small()

    def forward(self, images):
        return self.network((images - 0.1) * 2)


def test_a_network_with_its_own_normalisation_is_not_misread(tmp_path):
    recogniser = get_model(
        str(export.onnx(Normalising(), tmp_path / "rec.onnx")), providers=["CPUExecutionProvider"]
    )
    assert (recogniser.input_mean, recogniser.input_std) == (127.5, 127.5)
