"""ONNX Runtime: on what it runs, how much of a GPU it may take, and what is wrong with how it is installed.

On CUDA each thread that calls a session gets memory of its own, which grows with the calls
(microsoft/onnxruntime#29351), and none is given back as long as the session lives. So all sessions there run
in one thread, and can be closed; they are opened again when they are next used.
"""

import ctypes
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from insightface.model_zoo import get_default_providers

from src import devices

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# Leaves exactly one ONNX Runtime, the one that knows CUDA; as in the README.
REPAIR = (
    "pip uninstall -y onnxruntime onnxruntime-gpu",
    "pip install --no-deps onnxruntime-gpu",
)
_THREAD = ThreadPoolExecutor(1, "onnxruntime")  # starts with its first work


class Session:
    """An ONNX Runtime session on a GPU: all run in one thread; it can be closed, and opens when it is used.

    first: the session as it is opened already; open: makes it anew. It answers what InsightFace asks of one.
    """

    def __init__(
        self, first: onnxruntime.InferenceSession, open: Callable[[], onnxruntime.InferenceSession]
    ) -> None:
        self._opened: onnxruntime.InferenceSession | None = first
        self._open = open
        # Copied, as what a session says of itself goes with it.
        self._inputs, self._outputs = (
            [SimpleNamespace(name=v.name, shape=v.shape, type=v.type) for v in values]
            for values in (first.get_inputs(), first.get_outputs())
        )
        self._providers, self._provider_options = first.get_providers(), first.get_provider_options()
        self._options = first.get_session_options()

    def run(self, names: list[str] | None, given: dict[str, np.ndarray], options: Any = None) -> list[Any]:
        """As of `InferenceSession`."""
        return _THREAD.submit(self._run, names, given, options).result()

    def close(self) -> None:
        """Gives back the memory that the session holds."""
        _THREAD.submit(self._close).result()

    def _run(self, *arguments: Any) -> list[Any]:
        if self._opened is None:
            self._opened = self._open()
        return self._opened.run(*arguments)

    def _close(self) -> None:
        self._opened = None

    def get_inputs(self) -> list[SimpleNamespace]:
        """Name, shape and type of each input."""
        return self._inputs

    def get_outputs(self) -> list[SimpleNamespace]:
        """Name, shape and type of each output."""
        return self._outputs

    def get_providers(self) -> list[str]:
        """Those that run, best first."""
        return self._providers

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """As of `InferenceSession`."""
        return self._provider_options

    def get_session_options(self) -> onnxruntime.SessionOptions:
        """As of `InferenceSession`."""
        return self._options


AnySession: TypeAlias = onnxruntime.InferenceSession | Session


def opened(model: str | bytes, like: AnySession) -> AnySession:
    """A session of an ONNX file, or of its bytes, with the options of another and on the same device.

    CoreML can end the process on graphs of free size (see insightface.model_zoo): those run on the CPU.
    """
    open = _opener(model, like)
    return _kept(open(), open)


def closable(session: AnySession, file: str) -> AnySession:
    """The session of a file as it is where it runs on processors, a `Session` of it where it runs on CUDA."""
    return _kept(session, _opener(file, session))


def _opener(model: str | bytes, like: AnySession) -> Callable[[], onnxruntime.InferenceSession]:
    names = [name for name in like.get_providers() if name != "CoreMLExecutionProvider"]
    chosen, options = like.get_provider_options(), like.get_session_options()
    rest = [dict(chosen.get(name, {})) for name in names]
    return lambda: onnxruntime.InferenceSession(model, options, providers=names, provider_options=rest)


def _kept(session: AnySession, open: Callable[[], onnxruntime.InferenceSession]) -> AnySession:
    on_cuda = not isinstance(session, Session) and session.get_providers()[0] == CUDA
    return Session(session, open) if on_cuda else session


def providers() -> list[str | tuple[str, dict[str, str]]]:
    """What InsightFace asks for, with what CUDA may take; less CUDA where there is no driver, or FACE_DEVICE
    says otherwise.

    ONNX Runtime's GPU build offers CUDA everywhere, and fills the screen with errors where it can't start it.
    Of the GPU's memory a session gets a quarter, in steps as they are asked for. Convolutions are chosen by
    rule, as trying them all takes seconds for each new shape.
    """
    names = get_default_providers(onnxruntime.get_available_providers())
    if CUDA in names and (devices.forced() in ("cpu", "mps") or not has_cuda_driver()):
        names.remove(CUDA)
    if devices.forced() == "cpu":
        names = [CPU]
    return [(name, _cuda_options()) if name == CUDA else name for name in names]


def _cuda_options() -> dict[str, str]:
    options = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
    if memory := devices.gpu_memory():
        options["gpu_mem_limit"] = str(max(memory // 4, 2 * 2**30))
    _, _, number = devices.forced().partition(":")
    return {**options, "device_id": number or "0"}


def has_cuda_driver() -> bool:
    """Whether there is a library of NVIDIA's driver to load."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def check(running: tuple[str, ...]) -> None:
    """Warns (RuntimeWarning) where ONNX Runtime, or its CUDA libraries, are installed twice, or a GPU idles.

    running: the providers that run, best first.
    """
    repair = "\n    ".join(("To repair it, run these two commands and restart:", *REPAIR))
    names = {(d.metadata["Name"] or "").lower() for d in metadata.distributions()}
    runtimes = sorted(names & {"onnxruntime", "onnxruntime-gpu", "onnxruntime-directml"})
    if len(runtimes) > 1:
        message = f"{' and '.join(runtimes)} are both installed and overwrite each other. {repair}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    if {"nvidia-cudnn-cu12", "nvidia-cudnn-cu13"} <= names:
        message = (
            "torch and ONNX Runtime are built for different versions of CUDA (12 and 13), and their "
            "libraries of cuDNN overwrite each other: make a fresh environment with requirements.txt alone."
        )
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    if CUDA not in running and not devices.forced() and (has_cuda_driver() or devices.nvidia_gpu()):
        from torch import cuda  # seconds to import, and only of interest here

        if cuda.is_available():
            message = f"torch sees a GPU, but ONNX Runtime runs on {running[0]}. {repair}"
        else:
            message = f"This machine has a GPU, but ONNX Runtime runs on {running[0]}. {devices.idle_gpu()}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
