"""Packs are found, verified and run as InsightFace runs them."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pandas as pd
import pytest
from insightface.app import FaceAnalysis
from onnx import TensorProto, helper, numpy_helper

from src import dataset, insightface_pack
from src.insightface_pack import Archive, Pack, as_shipped, load

RNG = np.random.default_rng(0)


def save(model_nodes, inputs, outputs, weights, path: Path) -> Path:
    initialisers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(model_nodes, "tiny", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def tensor(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def recogniser(path: Path, batch: int | str = 1, mixing: bool = False) -> Path:
    """Colours of an 8 x 8 grid, times a matrix; `mixing` lets the crops of a batch influence each other."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["pooled"], kernel_shape=[14, 14], strides=[14, 14]),
        helper.make_node("Reshape", ["pooled", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["product"]),
        helper.make_node("ReduceMean", ["product"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub" if mixing else "Identity", ["product", "mean"][: 1 + mixing], ["y"]),
    ]
    if mixing:  # a single crop minus its own mean would be nothing
        nodes[3] = helper.make_node("ReduceMax", ["product"], ["mean"], axes=[0], keepdims=1)
        nodes[4] = helper.make_node("Add", ["product", "mean"], ["y"])
    weights = {
        "shape": np.array([1, 192] if batch == 1 else [-1, 192], np.int64),
        "matrix": np.random.default_rng(1).standard_normal((192, 16)).astype(np.float32),
    }
    return save(nodes, [tensor("x", batch, 3, 112, 112)], [tensor("y", batch, 16)], weights, path)


def detector(path: Path, landmarks: bool = True) -> Path:
    """SCRFD's outputs at a fixed 64 x 64: one face wherever the picture is bright."""
    nodes, outputs = [], []
    weights = {}
    for part, width in (("score", 1), ("box", 4), ("points", 10)):
        for stride in (8, 16, 32):
            count = (64 // stride) ** 2 * 2
            name = f"{part}{stride}"
            weights[name] = np.zeros((count, width), np.float32)
            if part == "score" and stride == 32:
                weights[name][0] = 0.9
            if part == "box":
                weights[name] += 0.5
            if part == "points":
                weights[name] += np.array([0.1, 0.2, 0.4, 0.2, 0.25, 0.3, 0.1, 0.4, 0.4, 0.4], np.float32)
            nodes.append(helper.make_node("ReduceMean", ["x"], [f"m_{name}"], axes=[0, 1, 2, 3], keepdims=0))
            nodes.append(helper.make_node("Mul", [f"m_{name}", "nothing"], [f"n_{name}"]))
            nodes.append(helper.make_node("Add", [name, f"n_{name}"], [f"y_{name}"]))
            outputs.append(tensor(f"y_{name}", count, width))
    weights["nothing"] = np.array(0, np.float32)
    if not landmarks:
        outputs = outputs[:6]
    return save(nodes, [tensor("x", 1, 3, 64, 64)], outputs, weights, path)


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A folder with a pack in InsightFace's format, a few kB."""
    folder = tmp_path / "packs" / "models" / "tiny"
    detector(folder / "det.onnx")
    recogniser(folder / "rec.onnx")
    return folder


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Path:
    """A project folder with nothing in it, no home and no network."""
    monkeypatch.setattr(insightface_pack, "PROJECT", tmp_path / "work" / "project")
    monkeypatch.setattr(insightface_pack, "HOME", tmp_path / "home" / "models")

    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(insightface_pack, "download_file", offline)
    (tmp_path / "work" / "project").mkdir(parents=True)
    (tmp_path / "home" / "models").mkdir(parents=True)
    return tmp_path / "work" / "project"


def publish(monkeypatch, folder: Path, archive: Path) -> None:
    """Makes `folder` the published pack buffalo_l, zipped at `archive`."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as file:
        for member in folder.glob("*.onnx"):
            file.write(member, f"buffalo_l/{member.name}")
        file.writestr("../../escaped.onnx", (folder / "det.onnx").read_bytes())
        file.writestr("README.md", "not a model")
    files = {member.name: insightface_pack._sha256(member) for member in folder.glob("*.onnx")}
    published = Archive(archive.stat().st_size, insightface_pack._sha256(archive), files)
    monkeypatch.setattr(insightface_pack, "PUBLISHED", {"buffalo_l": published})


def test_a_pack_is_loaded_by_name_and_by_folder(tiny):
    by_name, by_folder = load("tiny", root=tiny.parents[1]), load(tiny)
    assert by_name.folder == by_folder.folder == tiny
    assert by_name.fingerprint == by_folder.fingerprint
    assert by_name.providers[-1] == "CPUExecutionProvider"


def test_a_folder_within_a_folder_of_the_same_name_is_found(tiny):
    inner = tiny / "tiny"
    inner.mkdir()
    for file in tiny.glob("*.onnx"):
        file.rename(inner / file.name)
    assert load("tiny", root=tiny.parents[1]).folder == inner


def test_the_fingerprint_tells_packs_apart_by_content(tiny, tmp_path):
    other = tmp_path / "tiny"
    shutil.copytree(tiny, other)
    assert load(other).fingerprint == load(tiny).fingerprint
    recogniser(other / "rec.onnx", batch="n")
    assert load(other).fingerprint != load(tiny).fingerprint


def test_an_unknown_pack_is_one_sentence_that_names_the_places(alone):
    with pytest.raises(FileNotFoundError, match="no pack nowhere") as error:
        load("nowhere")
    assert str(alone / "models") in str(error.value)


def test_without_a_network_the_sentence_names_file_folder_size_and_checksum(alone):
    with pytest.raises(FileNotFoundError) as error:
        load("buffalo_l")
    published = insightface_pack.PUBLISHED["buffalo_l"]
    for part in ("buffalo_l.zip", str(alone / "models"), f"{published.size:,} bytes", published.sha256):
        assert part in str(error.value)
    assert not list(insightface_pack.HOME.iterdir())


@pytest.mark.parametrize("place", ["models", ".", "../models"])
def test_a_zip_dropped_beside_the_project_is_verified_and_unpacked(alone, tiny, monkeypatch, place):
    archive = (alone / place).resolve() / "buffalo_l.zip"
    publish(monkeypatch, tiny, archive)
    assert load("buffalo_l").folder == archive.with_suffix("")
    assert sorted(f.name for f in archive.with_suffix("").iterdir()) == [
        "det.onnx",
        "escaped.onnx",
        "rec.onnx",
    ]
    assert not list(alone.parents[1].glob("escaped.onnx")) and not list(alone.parent.glob("escaped.onnx"))
    assert not list(archive.parent.glob(".buffalo_l-*"))


def test_a_zip_cut_off_is_refused_and_nothing_unpacked(alone, tiny, monkeypatch):
    archive = alone / "models" / "buffalo_l.zip"
    publish(monkeypatch, tiny, archive)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut off"):
        load("buffalo_l")
    assert [file.name for file in archive.parent.iterdir()] == ["buffalo_l.zip"]


def test_a_download_is_verified_before_use(alone, tiny, monkeypatch, tmp_path):
    publish(monkeypatch, tiny, tmp_path / "server" / "buffalo_l.zip")

    def fetch(url, path, overwrite):
        shutil.copy(tmp_path / "server" / "buffalo_l.zip", path)

    monkeypatch.setattr(insightface_pack, "download_file", fetch)
    assert load("buffalo_l").folder == insightface_pack.HOME / "buffalo_l"


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_a_half_unpacked_published_pack_is_recognised(alone, tiny, monkeypatch, tmp_path, damage):
    publish(monkeypatch, tiny, tmp_path / "elsewhere" / "buffalo_l.zip")
    folder = alone / "models" / "buffalo_l"
    shutil.copytree(tiny, folder)
    file = folder / "rec.onnx"
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"not whole.*rec\.onnx") as error:
        load("buffalo_l")
    assert str(folder) in str(error.value)
    # InsightFace leaves the zip beside the folder: then it is mended.
    shutil.copy(tmp_path / "elsewhere" / "buffalo_l.zip", folder.with_suffix(".zip"))
    assert load("buffalo_l").folder == folder


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

    results = insightface_pack.in_order(double, range(100), ahead=5)
    assert next(results) == 0
    assert len(started) <= 6
    assert list(results) == list(range(2, 200, 2))


def test_an_error_in_a_thread_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(insightface_pack.in_order(lambda i: 1 / i, [2, 1, 0, 1]))


def test_two_runtimes_are_a_loud_warning_with_the_repair(monkeypatch):
    class Distribution:
        def __init__(self, name):
            self.metadata = {"Name": name}

    both = [Distribution("onnxruntime"), Distribution("onnxruntime-gpu")]
    monkeypatch.setattr(insightface_pack.metadata, "distributions", lambda: both)
    with pytest.warns(RuntimeWarning, match="both installed") as caught:
        insightface_pack._check_runtime(("CPUExecutionProvider",))
    assert all(command in str(caught[0].message) for command in insightface_pack.REPAIR)


def test_a_gpu_that_only_torch_sees_is_a_loud_warning_with_the_repair(monkeypatch):
    monkeypatch.setattr(insightface_pack, "_has_cuda_driver", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.warns(RuntimeWarning, match="torch sees a GPU") as caught:
        insightface_pack._check_runtime(("CPUExecutionProvider",))
    assert all(command in str(caught[-1].message) for command in insightface_pack.REPAIR)


# --------------------------------------------------------------------- as InsightFace, on real photos


@pytest.fixture(scope="module")
def standin(real) -> Pack:
    return load("standin", root=real)


@pytest.fixture(scope="module")
def sample(real) -> list[Path]:
    """Good photos, surveillance crops, ruined ones: some of each."""
    files = sorted((real / "frmdb/images").glob("*/low_quality/*"))[::24]
    files += sorted((real / "frmdb/images").glob("*/high_quality/*"))[::110]
    files += sorted((real / "lfw3d/images").glob("*/*"))[::48]
    return files + sorted((real / "study6/images").glob("*/*/*"))[::80]


@pytest.fixture(scope="module")
def loop(real, sample) -> list:
    """The loop that everyone writes, on the sample."""
    app = FaceAnalysis(name="standin", root=str(real))
    app.prepare(ctx_id=0)
    return [app.get(cv2.imread(str(file))) for file in sample]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_as_shipped_equals_the_loop_that_everyone_writes(real, sample, loop, standin):
    table = pd.DataFrame({"path": [file.relative_to(real).as_posix() for file in sample]})
    found = as_shipped(table, real, standin)
    missed = np.array([not faces for faces in loop])
    assert (np.isnan(found).all(axis=1) == missed).all() and 0 < missed.sum() < len(missed)
    cosines = [row @ faces[0].normed_embedding for row, faces in zip(found, loop, strict=True) if faces]
    assert min(cosines) >= 0.9999


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("size", [None, 640])
def test_boxes_and_landmarks_equal_face_analysis(sample, loop, standin, size):
    """Also those of the detector whose input size was freed."""
    for file, faces in zip(sample, loop, strict=True):
        boxes, landmarks = standin.detect(dataset.read_rgb(file), size)
        assert len(boxes) == len(faces)
        for box, points, face in zip(boxes, landmarks, faces, strict=True):
            assert np.abs(box[:4] - face.bbox).max() < 0.5
            assert np.abs(points - face.kps).max() < 0.5


def test_a_detector_of_one_size_sees_the_same_scale(real, standin):
    bound = replace(standin, resizable=None)
    for file in sorted((real / "lfw3d/images").glob("*/*"))[::60]:
        photo = dataset.read_rgb(file)
        (free, *_), (fixed, *_) = (pack.detect(photo, 160)[0] for pack in (standin, bound))
        assert np.abs(free[:4] - fixed[:4]).max() < 0.03 * max(photo.shape)


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
