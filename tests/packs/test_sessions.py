"""ONNX Runtime: one thread, few shapes, closed sessions on CUDA; a loud word where installed wrongly."""

import gc
import shutil
import threading
import weakref

import numpy as np
import onnxruntime
import pytest

from src import devices
from src.packs import pack as packs
from src.packs import sessions
from tests import fake_gpu
from tests.packs.tiny_packs import recogniser

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def unforced(monkeypatch):
    monkeypatch.delenv(devices.FORCED, raising=False)


class Seen:
    """What ONNX Runtime was asked for: files and options of sessions, shapes and threads of their runs."""

    def __init__(self):
        self.opened: list[str | bytes] = []
        self.options: list[dict[str, str]] = []
        self.shapes: list[tuple[int, ...]] = []
        self.threads: set[int] = set()
        self.alive: weakref.WeakSet = weakref.WeakSet()


@pytest.fixture
def cuda(monkeypatch) -> Seen:
    """ONNX Runtime says that it runs on CUDA; what it does, it does on the CPU."""
    seen, real = Seen(), onnxruntime.InferenceSession
    begin, run = real.__init__, real.run

    def opened(self, model, sess_options=None, providers=None, provider_options=None, **rest):
        names = [name if isinstance(name, str) else name[0] for name in providers]
        given = provider_options or [{} if isinstance(name, str) else name[1] for name in providers]
        self.on_cuda, self.given = sessions.CUDA in names, dict(zip(names, given, strict=True))
        begin(self, model, sess_options, providers=[sessions.CPU], **rest)
        seen.opened.append(model)
        seen.options.append(self.given.get(sessions.CUDA))
        seen.alive.add(self)

    def noted(self, names, given, options=None):
        seen.threads.add(threading.get_ident())
        seen.shapes.extend(value.shape for value in given.values())
        return run(self, names, given, options)

    both = [sessions.CUDA, sessions.CPU]
    monkeypatch.setattr(real, "__init__", opened)
    monkeypatch.setattr(real, "run", noted)
    monkeypatch.setattr(real, "get_providers", lambda self: both if self.on_cuda else [sessions.CPU])
    monkeypatch.setattr(real, "get_provider_options", lambda self: self.given)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda *_, **__: None, raising=False)
    monkeypatch.setattr(sessions, "has_cuda_driver", lambda: True)
    fake_gpu.pretend(monkeypatch)
    return seen


def test_on_cuda_one_thread_runs_everything_and_few_shapes_are_seen(tiny, cuda):
    recogniser(tiny / "rec.onnx", batch="n")
    pack = packs.load(tiny)
    assert pack.providers[0] == sessions.CUDA
    cuda.shapes.clear()
    photos = [RNG.integers(0, 256, (80, 60 + i, 3), np.uint8) for i in range(12)]
    list(pack.map(lambda photo: pack.detect(photo, 64), photos))
    list(pack.map(lambda photo: pack.detect(photo), photos))
    for count in (1, 3, 8, 9, 40, 64, 65, 150):
        pack.recognise(RNG.integers(0, 256, (count, 112, 112, 3), np.uint8))
    assert len(cuda.threads) == 1 and threading.get_ident() not in cuda.threads
    crops = {shape[0] for shape in cuda.shapes if shape[2:] == (112, 112)}
    assert crops == set(packs.BATCHES)
    assert {shape for shape in cuda.shapes if shape[2:] != (112, 112)} == {(1, 3, 64, 64)}


def test_what_fills_a_batch_up_changes_nothing(tiny, cuda, monkeypatch):
    recogniser(tiny / "rec.onnx", batch="n")
    crops = RNG.integers(0, 256, (75, 112, 112, 3), np.uint8)
    filled = packs.load(tiny).recognise(crops)
    monkeypatch.setattr(sessions, "has_cuda_driver", lambda: False)
    plain = packs.load(tiny)
    assert plain.providers == (sessions.CPU,)
    np.testing.assert_allclose(filled, plain.recognise(crops), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, "n"])
def test_sessions_are_closed_on_release_and_open_again_when_used(tiny, cuda, batch):
    recogniser(tiny / "rec.onnx", batch=batch)
    pack = packs.load(tiny)
    crops, photo = RNG.integers(0, 256, (9, 112, 112, 3), np.uint8), np.full((70, 70, 3), 200, np.uint8)
    before = pack.recognise(crops), pack.detect(photo)[0], pack.detect(photo, 128)[0]
    assert len(cuda.alive) >= 2
    pack.release()
    gc.collect()
    assert not cuda.alive, "what is alive holds the GPU's memory"
    options = len(cuda.options)
    after = pack.recognise(crops), pack.detect(photo)[0], pack.detect(photo, 128)[0]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(cuda.options) > options and all(cuda.options), "opened anew, with the same limits"


def test_a_session_on_cuda_takes_a_share_of_the_memory_and_tries_no_algorithms(tiny, cuda):
    packs.load(tiny)
    for options in cuda.options:
        assert options["gpu_mem_limit"] == str(6 * 2**30)  # of 24
        assert options["arena_extend_strategy"] == "kSameAsRequested"
        assert options["cudnn_conv_algo_search"] == "HEURISTIC"


def test_only_the_models_that_are_used_are_opened(tiny, cuda):
    for other in ("0_first.onnx", "genderage.onnx"):
        write_attribute_model(tiny / other)
    recogniser(tiny / "z_second.onnx", batch="n")
    pack = packs.load(tiny)
    files = [model for model in cuda.opened if isinstance(model, str)]
    assert sorted(file.rsplit("/", 1)[-1] for file in files) == ["det.onnx", "rec.onnx"]
    assert pack.recogniser_file.name == "rec.onnx", "the first of a kind, as FaceAnalysis takes it"


def write_attribute_model(file):
    from onnx import helper

    from tests.packs.tiny_packs import save, tensor

    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
    save([node], [tensor("x", 1, 3, 96, 96)], [tensor("y", 1, 3)], {}, file)


def test_without_a_gpu_sessions_are_as_insightface_makes_them(tiny):
    pack = packs.load(tiny)
    assert pack.providers[-1] == sessions.CPU
    assert not isinstance(pack.detector.session, sessions.Session)
    pack.release()
    assert len(pack.recognise(np.zeros((2, 112, 112, 3), np.uint8))) == 2


def test_a_forced_device_holds_for_onnx_runtime_too(monkeypatch, cuda):
    monkeypatch.setenv(devices.FORCED, "cpu")
    assert sessions.providers() == [sessions.CPU]
    monkeypatch.setenv(devices.FORCED, "cuda:1")
    first, cpu = sessions.providers()
    assert first[0] == sessions.CUDA and "'device_id': '1'" in str(first[1]) and cpu == sessions.CPU


# ---------------------------------------------------------------- installed wrongly


class Distribution:
    def __init__(self, name):
        self.metadata = {"Name": name}


def installed(monkeypatch, *names):
    monkeypatch.setattr(sessions.metadata, "distributions", lambda: [Distribution(name) for name in names])


def test_two_runtimes_are_a_loud_warning_with_the_repair(monkeypatch):
    installed(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.warns(RuntimeWarning, match="both installed") as caught:
        sessions.check((sessions.CPU,))
    assert all(command in str(caught[0].message) for command in sessions.REPAIR)


def test_libraries_of_two_versions_of_cuda_are_a_loud_warning(monkeypatch):
    installed(monkeypatch, "onnxruntime-gpu", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
    with pytest.warns(RuntimeWarning, match=r"different versions of CUDA .*fresh environment"):
        sessions.check((sessions.CUDA, sessions.CPU))


def test_a_gpu_that_only_torch_sees_is_a_loud_warning_with_the_repair(monkeypatch):
    installed(monkeypatch)
    fake_gpu.pretend(monkeypatch)
    monkeypatch.setattr(sessions, "has_cuda_driver", lambda: True)
    with pytest.warns(RuntimeWarning, match="torch sees a GPU") as caught:
        sessions.check((sessions.CPU,))
    assert all(command in str(caught[-1].message) for command in sessions.REPAIR)


def test_a_gpu_that_nobody_uses_is_a_loud_warning(monkeypatch):
    installed(monkeypatch)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.setattr(devices, "nvidia_gpu", lambda: True)
    with pytest.warns(RuntimeWarning, match=r"ONNX Runtime runs on CPU.*built without CUDA.*pytorch\.org"):
        sessions.check((sessions.CPU,))


def test_a_damaged_model_that_is_not_used_is_named_too(tiny):
    shutil.copy(tiny / "det.onnx", tiny / "a.onnx")
    (tiny / "other.onnx").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match="damaged"):
        packs.load(tiny)
