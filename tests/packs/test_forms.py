"""Immich, Frigate and InsightFace-REST load the same recogniser; each is fed here as its source feeds it."""

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from insightface.model_zoo import ArcFaceONNX
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from src.limits import NotPossible
from src.networks.embedding import embed
from src.packs import export, forms
from tests.networks.small import generated, small_network

CPU = ["CPUExecutionProvider"]
IDENTITY = np.repeat(np.arange(6), 4)


class Mirrored(nn.Module):
    """As a row of the report: the mean of the unit embeddings of crop and mirror image."""

    def __init__(self):
        super().__init__()
        self.network = small_network().eval()

    def forward(self, images):
        both = [functional.normalize(self.network(side)) for side in (images, images.flip(-1))]
        return functional.normalize(both[0] + both[1])


@pytest.fixture(scope="module")
def crops():
    return generated(range(6), 4)  # RGB


@pytest.fixture(scope="module")
def model():
    return Mirrored().eval()


@pytest.fixture(scope="module")
def recogniser(model, tmp_path_factory):
    return export.onnx(model, tmp_path_factory.mktemp("pack") / "rec.onnx")


def same(found, crops, model):
    """The same cosines between photos as the model's own, and the same AUC, in 512 numbers."""
    assert found.shape == (len(crops), forms.DIMENSION) and found.dtype == np.float32
    expected = embed(crops, model)
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)
    i, j = np.triu_indices(len(crops), 1)
    genuine = IDENTITY[i] == IDENTITY[j]
    aucs = [roc_auc_score(genuine, (rows @ rows.T)[i, j]) for rows in (found, expected)]
    assert aucs[0] == pytest.approx(aucs[1], abs=1e-3)


def test_immich_as_released(recogniser, crops, model, tmp_path):
    """Loads recognition/model.onnx, wants a first axis called "batch", and has ArcFaceONNX feed BGR crops."""
    file = forms.write("immich", recogniser, tmp_path)
    assert file == tmp_path / "facial-recognition/buffalo_l/recognition/model.onnx"
    session = onnxruntime.InferenceSession(str(file), providers=CPU)
    assert session.get_inputs()[0].shape[0] == "batch"  # else it changes the file
    arcface = ArcFaceONNX(file.as_posix(), session=session)
    bgr = [cv2.cvtColor(crop, cv2.COLOR_RGB2BGR) for crop in crops]
    same(
        np.concatenate([arcface.get_feat(bgr[start : start + 5]) for start in (0, 5, 10, 15, 20)]),
        crops,
        model,
    )


@pytest.mark.parametrize("size", [1, 4])
def test_immich_as_developed(recogniser, crops, model, tmp_path, size):
    """Fixes the axis called "batch", flushes denormals, feeds RGB in [-1, 1] by the first input's name."""
    file = forms.write("immich", recogniser, tmp_path, "antelopev2")
    assert "facial-recognition/antelopev2/" in file.as_posix()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    for dimension in ("batch", "DynamicDimension.0", "None"):
        options.add_free_dimension_override_by_name(dimension, size)
    session = onnxruntime.InferenceSession(str(file), options, providers=CPU)
    assert session.get_inputs()[0].type == "tensor(float)"  # else it hands over raw pixels
    images = crops.transpose(0, 3, 1, 2).astype(np.float32)
    images *= 1.0 / 127.5
    images -= 127.5 / 127.5
    name = session.get_inputs()[0].name
    found = [
        session.run(None, {name: images[start : start + size]})[0] for start in range(0, len(crops), size)
    ]
    same(np.concatenate(found), crops, model)


def test_frigate(recogniser, crops, model, tmp_path):
    """Makes a picture of the BGR array as it is, and feeds one at a time to the input called "data"."""
    file = forms.write("frigate", recogniser, tmp_path)
    assert file == tmp_path / "facedet/arcface.onnx"
    session = onnxruntime.InferenceSession(str(file), providers=CPU)
    assert [given.name for given in session.get_inputs()] == ["data"]
    assert session.get_inputs()[0].shape[3] == 112
    found = []
    for crop in crops:
        picture = Image.fromarray(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))
        frame = np.zeros((112, 112, 3), np.float32)
        frame[:112, :112] = np.array(picture).astype(np.float32)
        frame = np.transpose(frame / 127.5 - 1.0, (2, 0, 1))
        outputs = session.run(None, {"data": np.stack([frame])})[0]
        found.append(outputs[0].squeeze())
    same(np.stack(found), crops, model)


@pytest.mark.parametrize("reshaped", [False, True])
def test_insightface_rest(recogniser, crops, model, tmp_path, reshaped):
    """Feeds BGR crops through OpenCV; for TensorRT it first frees the batch, and must take it for ArcFace."""
    file = forms.write("insightface-rest", recogniser, tmp_path)
    assert file == tmp_path / "onnx/custom_rec_model/custom_rec_model.onnx"
    proto = onnx.load(str(file))
    if reshaped:
        given, (out,) = proto.graph.input[0], proto.graph.output
        assert given.name == "input" and given.type.tensor_type.shape.dim[2].dim_value == 112
        given.type.tensor_type.shape.dim[0].dim_value = -1
        out.type.tensor_type.shape.dim[0].dim_value = -1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=CPU)
    outputs = [output.name for output in session.get_outputs()]
    name = session.get_inputs()[0].name
    session.run(outputs, {name: [np.zeros((3, 112, 112), np.float32)]})  # it warms up with a list
    bgr = list(np.stack([cv2.cvtColor(crop, cv2.COLOR_RGB2BGR) for crop in crops]))
    blob = cv2.dnn.blobFromImages(bgr, 1.0 / 127.5, (112, 112), (127.5, 127.5, 127.5), swapRB=True)
    same(session.run(outputs, {name: blob})[0], crops, model)


class Wide(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :600]


def test_rows_that_are_too_long_are_refused_or_left(tmp_path):
    file = export.onnx(Wide(), tmp_path / "wide.onnx")
    with pytest.raises(NotPossible, match="holds embeddings of 512 numbers, and this model gives 600"):
        forms.write("immich", file, tmp_path / "out")
    written = forms.write("frigate", file, tmp_path / "out")
    images = torch.rand(1, 3, 112, 112).numpy()
    session = onnxruntime.InferenceSession(str(written), providers=CPU)
    (found,) = session.run(None, {"data": images})
    np.testing.assert_array_equal(found, images[:, ::-1].reshape(1, -1)[:, :600])


def test_what_nobody_loads_is_refused(recogniser, tmp_path):
    with pytest.raises(ValueError, match="no form 'plex'; give one of immich, frigate, insightface-rest"):
        forms.write("plex", recogniser, tmp_path)
    with pytest.raises(ValueError, match="Immich knows no model 'mine'"):
        forms.write("immich", recogniser, tmp_path, "mine")
    assert not list(tmp_path.iterdir())
