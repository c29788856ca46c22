"""What InsightFace's detector finds, found with less work."""

import copy

import cv2
import numpy as np
import onnxruntime
import pytest
from insightface.model_zoo import SCRFD

from src.packs import detecting
from src.photos import decoding
from tests.packs.tiny_packs import detector


def same(found, expected) -> bool:
    return all(
        one.dtype == other.dtype and one.shape == other.shape and (one == other).all()
        for one, other in zip(found, expected, strict=True)
    )


@pytest.fixture
def tiny_detector(tmp_path) -> SCRFD:
    file = str(detector(tmp_path / "det.onnx"))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return SCRFD(model_file=file, session=session)


@pytest.mark.parametrize("shape", [(64, 64), (48, 200), (300, 31)])
@pytest.mark.parametrize("threshold", [0.5, 0.95])
def test_values_are_insightfaces_to_the_last_bit(tiny_detector, shape, threshold):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = detecting.detect(tiny_detector, photo, (64, 64), threshold)
    assert same(found, tiny_detector.detect(photo[:, :, ::-1], det_thresh=threshold))
    assert len(found[0]) == (threshold == 0.5)


def test_outputs_that_have_a_batch_are_read_too(tiny_detector):
    grey = np.full((64, 64, 3), 200, np.uint8)
    batched = copy.copy(tiny_detector)
    batched.batched = True
    run = tiny_detector.session.run

    class Session:
        def run(self, names, given):
            return [output[None] for output in run(names, given)]

    batched._session_for_input_size = lambda size: Session()
    assert same(detecting.detect(batched, grey, (64, 64), 0.5), batched.detect(grey, det_thresh=0.5))


@pytest.mark.parametrize("canvas", [(160, 160), (320, 224), (96, 256)])
def test_real_photos_give_insightfaces_values_to_the_last_bit(sample, standin, canvas):
    """At a threshold that lets many places through, so that those that overlap are sorted out alike, too."""
    counts = []
    for file in sample[::3]:
        photo = decoding.read_rgb(file)
        bgr = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
        found = detecting.detect(standin.resizable, photo, canvas, 0.05)
        assert same(found, standin.resizable.detect(bgr, input_size=canvas, det_thresh=0.05))
        counts.append(len(found[0]))
    assert max(counts) > 1
