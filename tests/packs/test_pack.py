"""A pack is loaded whole, and runs as InsightFace runs it, in batches and at any size."""

import shutil
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from src.demo import mode
from src.packs import pack as packs
from src.packs.pack import Pack, load
from src.photos import decoding
from tests.packs.tiny_packs import detector, recogniser

RNG = np.random.default_rng(0)


def test_a_pack_is_loaded_by_name_and_by_folder(tiny):
    by_name, by_folder = load("tiny", root=tiny.parents[1]), load(tiny)
    assert by_name.folder == by_folder.folder == tiny
    assert by_name.fingerprint == by_folder.fingerprint
    assert by_name.providers[-1] == "CPUExecutionProvider"


def test_the_fingerprint_tells_packs_apart_by_content(tiny, tmp_path):
    other = tmp_path / "tiny"
    shutil.copytree(tiny, other)
    assert load(other).fingerprint == load(tiny).fingerprint
    recogniser(other / "rec.onnx", batch="n")
    assert load(other).fingerprint != load(tiny).fingerprint


@pytest.mark.parametrize(("file", "model"), [("det.onnx", "detection"), ("rec.onnx", "recognition")])
def test_a_pack_without_a_model_says_which(tiny, file, model):
    (tiny / file).unlink()
    with pytest.raises(ValueError, match=f"no {model} model"):
        load(tiny)


def test_a_damaged_file_is_one_sentence(tiny):
    (tiny / "rec.onnx").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match="damaged"):
        load(tiny)


def test_a_detector_without_landmarks_is_refused(tiny):
    detector(tiny / "det.onnx", landmarks=False)
    with pytest.raises(ValueError, match="landmarks"):
        load(tiny)


def single(pack: Pack, crops: np.ndarray) -> np.ndarray:
    """What InsightFace gives, crop by crop (it takes BGR)."""
    return np.stack([pack.recogniser.get_feat(crop[:, :, ::-1]).ravel() for crop in crops])


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("mixing", [False, True])
def test_a_batch_gives_what_single_crops_give(tiny, batch, mixing):
    recogniser(tiny / "rec.onnx", batch, mixing)
    pack = load(tiny)
    crops = RNG.integers(0, 256, (37, 112, 112, 3), np.uint8)
    assert (pack.batched is None) == mixing  # a graph that mixes crops is run one by one
    np.testing.assert_allclose(pack.recognise(crops), single(pack, crops), rtol=1e-4, atol=1e-4)


def test_results_come_in_order_and_only_as_far_ahead_as_allowed():
    started = []

    def double(i):
        started.append(i)
        return i * 2

    results = packs.in_order(double, range(100), ahead=5)
    assert next(results) == 0
    assert len(started) <= 6
    assert list(results) == list(range(2, 200, 2))


def test_an_error_in_a_thread_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(packs.in_order(lambda i: 1 / i, [2, 1, 0, 1]))


def test_photos_of_many_shapes_open_no_further_sessions(monkeypatch):
    """InsightFace makes one for every size at which a detector that takes any, as buffalo_l's, is asked."""
    pack = load(mode.PACK)
    assert pack.detector.static_input_size is None and pack.resizable is not None
    opened = []
    begin = onnxruntime.InferenceSession.__init__

    def noted(self, *given, **options):
        opened.append(given)
        begin(self, *given, **options)

    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", noted)
    for side in range(40, 640, 40):
        pack.detect(RNG.integers(0, 256, (side, 400, 3), np.uint8), 320)
    assert not opened
    assert pack.detect(RNG.integers(0, 256, (90, 90, 3), np.uint8))[0].shape[1] == 5
    assert len(opened) == 2, "as shipped, at 128 and 640 as InsightFace does"


# ---------------------------------------------------------------- as InsightFace, on real photos


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("size", [None, 640])
def test_boxes_and_landmarks_equal_face_analysis(sample, loop, standin, size):
    """Also those of the detector whose input size was freed."""
    for file, faces in zip(sample, loop, strict=True):
        boxes, landmarks = standin.detect(decoding.read_rgb(file), size)
        assert len(boxes) == len(faces)
        for box, points, face in zip(boxes, landmarks, faces, strict=True):
            assert np.abs(box[:4] - face.bbox).max() < 0.5
            assert np.abs(points - face.kps).max() < 0.5


def test_a_detector_of_one_size_sees_the_same_scale(real, standin):
    bound = replace(standin, resizable=None)
    for file in sorted((real / "lfw3d/images").glob("*/*"))[::60]:
        photo = decoding.read_rgb(file)
        (free, *_), (fixed, *_) = (pack.detect(photo, 160)[0] for pack in (standin, bound))
        assert np.abs(free[:4] - fixed[:4]).max() < 0.03 * max(photo.shape)
