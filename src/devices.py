"""Where the work is done, in which precision, and what is said of it: NVIDIA's GPUs, Apple's, or the CPU.

torch is imported only when it is needed: much of the project does without.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

if TYPE_CHECKING:
    import torch

FORCED = "FACE_DEVICE"  # environment variable: "cpu", "cuda", "cuda:1" or "mps", whatever there is
TENSOR_CORES = 7  # compute capability from which half precision is faster: Volta, Turing
BFLOAT16 = 8  # and from which bfloat16 is no emulation: Ampere
_DRIVER = ("/dev/nvidia0", "/proc/driver/nvidia/version")  # where Linux has a driver that found a GPU
INSTALL = "install torch and torchvision with the command for CUDA that pytorch.org/get-started/locally gives"


def device() -> "torch.device":
    """Where networks run: what FACE_DEVICE says, else CUDA or Apple's GPU where there is one, else the CPU.

    Warns (RuntimeWarning) where there is an NVIDIA GPU that this build of torch has no code for. Raises
    ValueError where FACE_DEVICE names a device that is not there.
    """
    import torch

    if wanted := forced():
        return _wanted(wanted)
    if torch.cuda.is_available():
        if not (reason := _no_code_for_it()):
            return torch.device("cuda")
        warnings.warn(reason, RuntimeWarning, stacklevel=2)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def forced() -> str:
    """What FACE_DEVICE says, in lower case; "" where it is not set."""
    return os.environ.get(FORCED, "").strip().lower()


def _wanted(wanted: str) -> "torch.device":
    import torch

    try:
        where = torch.device(wanted)
    except RuntimeError:
        where = torch.device("meta")
    if where.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f'{FORCED} is "{wanted}": set it to "cpu", "cuda", "cuda:1" or "mps", or unset it')
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }[where.type]
    if (where.index or 0) >= there:
        raise ValueError(
            f'{FORCED} is "{wanted}", but torch sees {there} such devices: unset it, or set it to "cpu"'
        )
    if where.type == "cuda" and (reason := _no_code_for_it(where)):
        raise ValueError(f'{FORCED} is "{wanted}", but {reason}')
    return where


def _no_code_for_it(where: "torch.device | None" = None) -> str:
    """Why torch can't use the GPU that it sees: a sentence, or ""."""
    import torch

    built_for = [name for name in torch.cuda.get_arch_list() if name.startswith(("sm_", "compute_"))]
    capability = torch.cuda.get_device_capability(where)
    if not built_for or any(_runs_on(name, capability) for name in built_for):
        return ""
    major, minor = capability
    return (
        f"{torch.cuda.get_device_name(where)} has compute capability {major}.{minor}, for which torch "
        f"{torch.__version__} has no code ({', '.join(built_for)}), so that networks run on the CPU: "
        f"{INSTALL}; for an old GPU take an older torch"
    )


def _runs_on(name: str, capability: tuple[int, int]) -> bool:
    """Whether code such as "sm_86" or "compute_90" runs on a GPU: machine code within one major version."""
    kind, number = name.split("_")
    digits = "".join(c for c in number if c.isdigit())
    built = int(digits[:-1]), int(digits[-1])
    return built <= capability and (kind == "compute" or built[0] == capability[0])


# ---------------------------------------------------------------- precision


def training_precision(where: "torch.device") -> "torch.dtype":
    """In what convolutions are trained: bfloat16 where the hardware has it, float16 on older tensor cores.

    `is_bf16_supported` counts emulation, so that the compute capability decides. CPUs: 1.5 times as fast with
    AVX512-BF16, slower without. float16 needs a scaled gradient. float32 elsewhere.
    """
    import torch

    if where.type == "cpu":
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    if where.type != "cuda":
        return torch.float32
    major, _ = torch.cuda.get_device_capability(where)
    if torch.version.hip or major >= BFLOAT16:
        return torch.bfloat16
    return torch.float16 if major >= TENSOR_CORES else torch.float32


def embedding_precision(where: "torch.device") -> "torch.dtype":
    """In what crops are embedded, if it agrees: float16, 8 times as exact as bfloat16, on tensor cores.

    On CPUs it is float32: bfloat16 would take half the time there, but move an AUC by some 1e-3, so that the
    report would depend on the machine, and an exported pack not give it.
    """
    import torch

    fast = where.type == "cuda" and torch.cuda.get_device_capability(where)[0] >= TENSOR_CORES
    return torch.float16 if fast else torch.float32


def autocast(where: "torch.device", precision: "torch.dtype") -> "AbstractContextManager[Any]":
    """For a network's forward pass in this precision; nothing is done for float32."""
    import torch

    return nullcontext() if precision == torch.float32 else torch.autocast(where.type, precision)


def input_side() -> int:
    """Side in pixels at which ResNet-50 looks at crops: 112 on a GPU; on the CPU 64, a third of the work."""
    return 64 if device().type == "cpu" else 112


# ---------------------------------------------------------------- memory


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left."""
    import torch

    said = str(error).lower()
    told = "out of memory" in said or "can't allocate memory" in said or "failed to allocate memory" in said
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and told
    )


def give_back(where: "torch.device") -> None:
    """Hands what torch keeps of a GPU's memory, and does not use, to others, such as ONNX Runtime."""
    import torch

    if where.type == "cuda" and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif where.type == "mps":
        torch.mps.empty_cache()


@contextmanager
def kept_memory() -> Iterator[None]:
    """On Linux, memory that is freed stays with the process meanwhile; elsewhere nothing is done.

    A step of training frees gigabytes and asks for them again, each time in pages that have to be made anew:
    a tenth of the time of an IResNet-50 on the CPU.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of glibc's malloc.h
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt, library.malloc_trim  # noqa: B018 - musl has neither
    except (OSError, AttributeError):
        yield
        return
    library.mallopt(trim_threshold, 2**31 - 1)
    library.mallopt(mmap_threshold, 2**30)
    try:
        yield
    finally:
        library.mallopt(trim_threshold, 2**27)
        library.mallopt(mmap_threshold, 2**25)
        library.malloc_trim(0)


def gpu_memory() -> int:
    """Bytes of memory that the NVIDIA GPU has; 0 where torch sees none."""
    import torch

    return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else 0


# ---------------------------------------------------------------- what is said


def nvidia_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU that may be used, whether or not anything here can."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    if tool := shutil.which("nvidia-smi"):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20, check=False)
            if "GPU 0" in listed.stdout:
                return True
    return any(Path(place).exists() for place in _DRIVER)


def idle_gpu() -> str:
    """Why networks don't run on the NVIDIA GPU of this machine, and the remedy; "" where nothing is amiss."""
    import torch

    if forced() == "cpu" or not nvidia_gpu():
        return ""
    if torch.cuda.is_available():
        return _no_code_for_it()
    if not (torch.version.cuda or torch.version.hip):
        return (
            f"this machine has an NVIDIA GPU, but torch {torch.__version__} is built without CUDA, so that "
            f"networks run on the CPU: {INSTALL}"
        )
    return (
        f"this machine has an NVIDIA GPU, but torch {torch.__version__} for CUDA {torch.version.cuda} can't "
        "use it, so that networks run on the CPU: most often the driver is too old (nvidia-smi shows for "
        "which CUDA it is); update it, or take a torch for an older CUDA"
    )


def banner(providers: tuple[str, ...]) -> str:
    """What the long stages run on, and what is amiss: some lines of text.

    providers: of ONNX Runtime, those that run the pack, best first.
    """
    where, side = device(), input_side()
    precision = str(training_precision(where)).removeprefix("torch.")
    lines = [
        f"Networks run on {name(where)}, trained in {precision}; ResNet-50 looks at {side} x {side} pixels. "
        f"The pack runs on {providers[0]} (ONNX Runtime)."
    ]
    if reason := idle_gpu():
        lines.append(f"WARNING: {reason}.")
    if where.type == "cuda" and "CUDAExecutionProvider" not in providers:
        lines.append("WARNING: ONNX Runtime does not use the GPU that torch uses: see Set-up in README.md.")
    return "\n".join(lines)


def name(where: "torch.device") -> str:
    """A device in words, such as "NVIDIA T4 (cuda, compute capability 7.5)"."""
    import torch

    if where.type == "cuda":
        major, minor = torch.cuda.get_device_capability(where)
        return f"{torch.cuda.get_device_name(where)} ({where}, compute capability {major}.{minor})"
    return "Apple's GPU (mps)" if where.type == "mps" else f"the CPU ({torch.get_num_threads()} threads)"


class Bar(tqdm):
    """A progress bar that says, once it has seen enough, how many minutes a long stage will take."""

    AFTER = 5.0  # seconds
    said = False

    def update(self, n: float | None = 1) -> bool | None:
        """As of tqdm."""
        shown = super().update(n)
        if self.said or self.disable or not self.total or self.n <= self.initial:
            return shown
        elapsed = self._time() - self.start_t
        if elapsed >= self.AFTER:
            self.said = True
            left = elapsed * (self.total - self.n) / (self.n - self.initial)
            if left >= 60:
                self.write(f"{str(self.desc).rstrip(': ')}: about {left / 60:.0f} minutes")
        return shown
