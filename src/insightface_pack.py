"""InsightFace packs: found, verified, loaded and run as InsightFace itself runs them.

The one room that imports insightface and sees BGR. A pack is a folder of ONNX files, of which the detector
and the recogniser are used. `as_shipped` is the baseline: what the loop that everyone writes gives.
"""

import contextlib
import copy
import ctypes
import hashlib
import io
import os
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import onnx
import onnxruntime
import pandas as pd
from insightface.app import FaceAnalysis
from insightface.model_zoo import SCRFD, ArcFaceONNX, get_default_providers
from insightface.utils import face_align
from insightface.utils.download import download_file
from insightface.utils.storage import model_zoo_download_url
from tqdm.auto import tqdm

T = TypeVar("T")
R = TypeVar("R")

REPAIR = (
    "pip uninstall -y onnxruntime onnxruntime-gpu",
    "pip install --no-deps onnxruntime-gpu",
)
"""Leaves exactly one ONNX Runtime, the one that knows CUDA; as in the README."""

SIDE = 112  # pixels; crops are this wide and high
PROJECT = Path(__file__).parents[1]
HOME = Path("~/.insightface/models")  # where InsightFace itself keeps packs


@dataclass(frozen=True)
class Archive:
    """A pack as InsightFace publishes it: its zip's size in bytes and SHA-256, and SHA-256 of files in it."""

    size: int
    sha256: str
    files: dict[str, str]


PUBLISHED = {
    "buffalo_l": Archive(
        size=288_621_354,
        sha256="80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
        files={
            "det_10g.onnx": "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
            "w600k_r50.onnx": "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
        },
    )
}


@dataclass(frozen=True)
class Pack:
    """A loaded pack. `providers` are those that run, best first; `fingerprint` tells packs apart by content.

    `detector` and `recogniser` are InsightFace's own objects, prepared as `FaceAnalysis` prepares them.
    `resizable` is the detector with a free input size, None where its graph works at one size only; `batched`
    the recogniser with a free batch size, None where a batch does not give what single crops give.
    """

    name: str
    folder: Path
    fingerprint: str
    providers: tuple[str, ...]
    detector: SCRFD = field(repr=False)
    recogniser: ArcFaceONNX = field(repr=False)
    resizable: SCRFD | None = field(repr=False)
    batched: ArcFaceONNX | None = field(repr=False)

    @property
    def recogniser_file(self) -> Path:
        """The recogniser's ONNX file, for `model.from_pack`."""
        return Path(self.recogniser.model_file)

    def recognise(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings float32 `[n, D]`, not normalised, of aligned crops uint8 `[n, 112, 112, 3]` RGB."""
        if self.batched is None:
            recogniser, step = self.recogniser, 1
        else:  # the processor's cores share a batch, an accelerator takes it whole
            recogniser, step = self.batched, 16 if self.providers[0] == "CPUExecutionProvider" else len(crops)

        def part(start: int) -> np.ndarray:
            blob = crops[start : start + step].transpose(0, 3, 1, 2).astype(np.float32)
            return recogniser.forward(blob)

        return np.concatenate(list(in_order(part, range(0, len(crops), step))))

    def detect(
        self, photo: np.ndarray, size: int | None = None, threshold: float = 0.5
    ) -> tuple[np.ndarray, np.ndarray]:
        """Faces in a photo, uint8 `[H, W, 3]` RGB, resized to fit `size` x `size` pixels (a multiple of 32).

        Without a size, as `FaceAnalysis` detects. Returns boxes with scores, float32 `[n, 5]` (left, top,
        right, bottom, score), and landmarks, float32 `[n, 5, 2]` (x and y of the eye on the image's left, the
        other eye, the nose, the mouth's corners), in pixels of the photo, best score first.
        """
        bgr = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
        if size is None:
            return self.detector.detect(bgr, det_thresh=threshold)
        if self.resizable is not None:
            return self.resizable.detect(bgr, input_size=(size, size), det_thresh=threshold)
        # The one canvas there is takes the photo at the same scale: the same to the detector, if slower.
        canvas = self.detector.static_input_size[0]
        scale = min(size, canvas) / max(bgr.shape[:2])
        small = cv2.resize(bgr, None, fx=scale, fy=scale)
        framed = np.zeros((canvas, canvas, 3), np.uint8)
        framed[: small.shape[0], : small.shape[1]] = small
        boxes, landmarks = self.detector.detect(framed, det_thresh=threshold)
        boxes[:, :4] /= scale
        return boxes, landmarks / scale

    def map(self, function: Callable[[T], R], items: Iterable[T], ahead: int = 256) -> Iterator[R]:
        """`function(item)` in order, worked out in threads, at most `ahead` results before they are taken."""
        return in_order(function, items, ahead)


# ------------------------------------------------------------------------------------------------ baseline


def as_shipped(faces: pd.DataFrame, folder: Path, pack: Pack, workspace: Path | None = None) -> np.ndarray:
    """The baseline: embeddings float32 `[N, D]`, unit rows, as the loop that everyone writes gives them.

        app = FaceAnalysis(name); app.prepare(ctx_id=0)
        for photo in photos: app.get(cv2.imread(photo))[0].normed_embedding

    OpenCV decodes (it applies EXIF orientation), InsightFace's detection sizes and threshold hold, and of
    several faces the first is taken, the one of the highest score. A row is NaN where no face is found or
    OpenCV cannot decode the photo: a failure to enrol. With a workspace, rows already there are not computed
    again.
    """

    def crop(path: str) -> np.ndarray | None:
        bgr = _imread(Path(folder) / path)
        return None if bgr is None else _first_face(bgr, pack)

    unset = np.inf
    dimension = pack.recognise(np.zeros((1, SIDE, SIDE, 3), np.uint8)).shape[1]
    embeddings = _kept(workspace, (len(faces), dimension), unset)
    rows = np.flatnonzero(embeddings[:, 0] == unset)
    crops = pack.map(crop, faces["path"].iloc[rows])
    with tqdm(total=len(faces), initial=len(faces) - len(rows), desc="as shipped", unit=" photos") as bar:
        while batch := list(islice(crops, 32)):
            now, rows = rows[: len(batch)], rows[len(batch) :]
            values = np.full((len(batch), dimension), np.nan, np.float32)
            found = [i for i, one in enumerate(batch) if one is not None]
            if found:
                raw = pack.recognise(np.stack([one for one in batch if one is not None]))
                values[found] = raw / np.linalg.norm(raw, axis=1, keepdims=True)
            embeddings[now] = values
            bar.update(len(batch))
    return embeddings


def _first_face(bgr: np.ndarray, pack: Pack) -> np.ndarray | None:
    """The aligned crop, uint8 `[112, 112, 3]` RGB, of the face that `app.get(bgr)[0]` is about."""
    _, landmarks = pack.detector.detect(bgr)
    if not len(landmarks):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a scikit-image function that InsightFace calls
        crop = face_align.norm_crop(bgr, landmarks[0], pack.recogniser.input_size[0])
    return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)


def _imread(path: Path) -> np.ndarray | None:
    # cv2.imread cannot open every name on Windows; the decoder behind it is the same.
    data = np.fromfile(path, np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None


def _kept(workspace: Path | None, shape: tuple[int, int], unset: float) -> np.ndarray:
    """A float32 array as it was left in the workspace, else full of `unset`; writing to it keeps it there."""
    if workspace is None:
        return np.full(shape, unset, np.float32)
    file = workspace / "embeddings.npy"
    if not file.exists():
        partial = file.with_suffix(".partial")
        with partial.open("wb") as stream:
            np.save(stream, np.full(shape, unset, np.float32))
        partial.replace(file)
    return np.load(file, mmap_mode="r+")


def in_order(function: Callable[[T], R], items: Iterable[T], ahead: int = 256) -> Iterator[R]:
    """Yields `function(item)` in order, worked out in threads, at most `ahead` results before they are taken.

    For what OpenCV and ONNX Runtime do most of: they let other threads run while they work.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(_cores())
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------------------------------------------- loading


def load(pack: str | Path, root: Path | str | None = None) -> Pack:
    """Loads a pack: a folder of ONNX files, or a name, looked for as `FaceAnalysis(name, root=root)` does.

    Without `root`, a name is looked for in `models/` in the project and beside it, in the project and beside
    it, then in ~/.insightface/models. A pack that InsightFace publishes (PUBLISHED) is verified by SHA-256,
    unpacked where only its zip is there, and downloaded to ~/.insightface/models where there is nothing.

    Warns (RuntimeWarning) where ONNX Runtime does not use the GPU that torch sees, or is installed twice.
    Raises FileNotFoundError where there is no such pack, ValueError where it is incomplete or damaged.
    """
    folder = _find(pack, root)
    digests = _digests(folder)
    if folder.name in PUBLISHED and _faults(folder.name, digests):
        archive = folder.with_name(f"{folder.name}.zip")  # InsightFace leaves it there
        if archive.is_file():
            print(f"{folder} is not whole, unpacking {archive.name} again")
            digests = _digests(_unpack(archive))
        if faults := _faults(folder.name, digests):
            raise ValueError(
                f"The pack in {folder} is not whole, as an interrupted download or unpacking leaves it: "
                f"{'; '.join(faults)}. Delete the folder and run again."
            )
    detector, recogniser = _models(folder)
    providers = tuple(recogniser.session.get_providers())
    _check_runtime(providers)
    return Pack(
        name=folder.name,
        folder=folder,
        fingerprint=hashlib.sha256(repr(digests).encode()).hexdigest(),
        providers=providers,
        detector=detector,
        recogniser=recogniser,
        resizable=_resizable(detector),
        batched=_batched(recogniser),
    )


def _find(pack: str | Path, root: Path | str | None) -> Path:
    name, direct = str(pack), Path(pack).expanduser()
    if root is not None:
        places = [Path(root).expanduser() / "models"]
    else:
        beside = PROJECT.parent
        places = [PROJECT / "models", beside / "models", PROJECT, beside, HOME.expanduser()]
    for folder in [direct, *(place / name for place in places)]:
        if any((folder / folder.name).glob("*.onnx")) and not any(folder.glob("*.onnx")):
            folder /= folder.name  # some zips hold a folder of the pack's name within it
        # A folder in the working directory that happens to have the name is none unless it holds models.
        if any(folder.glob("*.onnx")) or (folder.is_dir() and (folder != direct or len(direct.parts) > 1)):
            return folder.resolve()
        archive = folder.with_name(f"{folder.name}.zip")
        if folder.name in PUBLISHED and archive.is_file():
            return _unpack(archive)
    if name in PUBLISHED:
        return _download(name, places)
    raise FileNotFoundError(
        f"There is no pack {name}: no such folder, and none of that name in {_listed(places)}. "
        "Give the folder of the pack's ONNX files, or put it in one of these."
    )


def _listed(places: list[Path]) -> str:
    return ", ".join(map(str, places))


def _download(name: str, places: list[Path]) -> Path:
    """Fetches a published zip to the last of the places, by InsightFace's own means, and unpacks it there."""
    published, url = PUBLISHED[name], model_zoo_download_url(f"{name}.zip")
    archive = places[-1] / f"{name}.zip"
    partial = archive.with_suffix(".partial")
    print(f"downloading {url} ({published.size / 1e6:.0f} MB) to {archive.parent}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            download_file(url, path=str(partial), overwrite=True)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise FileNotFoundError(
            f"The pack {name} is not on this computer and could not be downloaded ({type(error).__name__}): "
            f"put {name}.zip ({published.size:,} bytes, SHA-256 {published.sha256}) from {url} into one of "
            f"{_listed(places)}, and run again."
        ) from error
    partial.replace(archive)
    return _unpack(archive)


def _unpack(archive: Path) -> Path:
    """Verifies a published zip, unpacks its ONNX files to a folder beside it, which appears when whole."""
    name, size = archive.stem, archive.stat().st_size
    published = PUBLISHED[name]
    if size != published.size or _sha256(archive) != published.sha256:
        raise ValueError(
            f"{archive} is not the file that InsightFace publishes, or its download was cut off: it has "
            f"{size:,} bytes, and {published.size:,} with SHA-256 {published.sha256} are expected. Delete "
            f"it, and download {model_zoo_download_url(archive.name)} or run again."
        )
    target = archive.with_suffix("")
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=f".{name}-") as draft:
        folder = Path(draft) / name
        folder.mkdir()
        with zipfile.ZipFile(archive) as members:
            for member in members.infolist():
                # By its last name alone: no path in a zip decides where something is written.
                file = folder / Path(member.filename).name
                if file.suffix == ".onnx":
                    with members.open(member) as source, file.open("wb") as copied:
                        shutil.copyfileobj(source, copied)
        if target.is_dir():
            for file in folder.iterdir():
                file.replace(target / file.name)
        else:
            folder.replace(target)
    return target


def _digests(folder: Path) -> dict[str, str]:
    files = [*sorted(folder.glob("*.onnx")), *folder.glob("manifest.json")]
    return {file.name: _sha256(file) for file in files}


def _faults(name: str, digests: dict[str, str]) -> list[str]:
    """What is wrong with the files of a published pack."""
    return [
        f"{file} is {'not the one that InsightFace publishes' if file in digests else 'missing'} "
        f"(SHA-256 {expected} is expected)"
        for file, expected in PUBLISHED[name].files.items()
        if digests.get(file) != expected
    ]


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _models(folder: Path) -> tuple[SCRFD, ArcFaceONNX]:
    """The detector and the recogniser as `FaceAnalysis` loads and prepares them, one core a session."""
    options = onnxruntime.SessionOptions()
    # Photos are worked on side by side instead: cores that share one photo mostly wait for each other.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    wanted = ["detection", "recognition"]
    half = f"The pack in {folder} is not whole: it has no %s model. Put all of the pack's ONNX files there."
    try:
        app = FaceAnalysis(str(folder), allowed_modules=wanted, providers=_providers(), sess_options=options)
    except AssertionError as error:
        raise ValueError(half % "detection") from error
    except Exception as error:  # ONNX Runtime and protobuf have exceptions of their own for damaged files
        raise ValueError(f"The pack in {folder} is damaged: {' '.join(str(error).split())}") from error
    if "recognition" not in app.models:
        raise ValueError(half % "recognition")
    detector, recogniser = app.det_model, app.models["recognition"]
    if not detector.use_kps:
        raise ValueError(f"The detector of the pack in {folder} gives no landmarks, which alignment needs.")
    if recogniser.input_size != (SIDE, SIDE):
        size = " x ".join(map(str, recogniser.input_size))
        raise ValueError(f"The recogniser of the pack in {folder} takes {size} pixels, not {SIDE} x {SIDE}.")
    app.prepare(ctx_id=0)
    return detector, recogniser


def _providers() -> list[str]:
    """What InsightFace asks for, less CUDA where there is no driver.

    ONNX Runtime's GPU build offers it everywhere, and fills the screen with errors where it cannot start it.
    """
    providers = get_default_providers(onnxruntime.get_available_providers())
    return [name for name in providers if name != "CUDAExecutionProvider" or _has_cuda_driver()]


def _has_cuda_driver() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _check_runtime(providers: tuple[str, ...]) -> None:
    repair = "\n    ".join(("To repair it, run these two commands and restart:", *REPAIR))
    names = {(d.metadata["Name"] or "").lower() for d in metadata.distributions()}
    runtimes = sorted(names & {"onnxruntime", "onnxruntime-gpu", "onnxruntime-directml"})
    if len(runtimes) > 1:
        message = f"{' and '.join(runtimes)} are both installed and overwrite each other. {repair}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    if "CUDAExecutionProvider" not in providers and _has_cuda_driver():
        from torch import cuda  # seconds to import, and only of interest here

        if cuda.is_available():
            message = f"torch sees a GPU, but ONNX Runtime runs on {providers[0]}. {repair}"
            warnings.warn(message, RuntimeWarning, stacklevel=3)


def _session(model: onnx.ModelProto, like: onnxruntime.InferenceSession) -> onnxruntime.InferenceSession:
    # CoreML can end the process on graphs of free size (see insightface.model_zoo): those run on the CPU.
    providers = [name for name in like.get_providers() if name != "CoreMLExecutionProvider"]
    return onnxruntime.InferenceSession(
        model.SerializeToString(), like.get_session_options(), providers=providers
    )


def _resizable(detector: SCRFD) -> SCRFD | None:
    """The detector with a free input size: itself, or a copy whose graph is freed in memory and checked."""
    if detector.static_input_size is None:
        return detector
    model = onnx.load(detector.model_file)
    _, _, rows, columns = model.graph.input[0].type.tensor_type.shape.dim
    rows.dim_param, columns.dim_param = "height", "width"
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    width, height = native = detector.static_input_size
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
    freed = copy.copy(detector)
    try:
        freed.model_file, freed.session = None, _session(model, detector.session)
        freed.static_input_size, freed.input_sizes, freed.center_cache = None, [native], {}
        freed._reset_resolution_session_pool()
        for size in (128, 320):  # anchors and outputs must agree at every size
            freed.detect(np.zeros((size, size, 3), np.uint8), input_size=(size, size), det_thresh=0.0)
        outputs = [d.session.run(None, {d.input_name: noise}) for d in (detector, freed)]
    except Exception:  # whatever fails: the graph is bound to its size
        return None
    same = all(np.allclose(one, other, atol=1e-3) for one, other in zip(*outputs, strict=True))
    return freed if same else None


def _batched(recogniser: ArcFaceONNX) -> ArcFaceONNX | None:
    """The recogniser with a free batch size: itself, or a copy whose graph is freed in memory; checked."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 8, 8, 3), np.uint8)
    crops = np.stack([cv2.resize(pixels, (SIDE, SIDE)) for pixels in coarse]).transpose(0, 3, 1, 2)
    single = np.concatenate([recogniser.forward(crop[None]) for crop in crops])
    freed = recogniser
    try:
        if isinstance(recogniser.input_shape[0], int):
            freed = copy.copy(recogniser)
            freed.session = _session(_free_batch(onnx.load(recogniser.model_file)), recogniser.session)
        batch = freed.forward(crops)
    except Exception:  # whatever fails: the graph is bound to single crops
        return None
    if batch.shape != single.shape:
        return None
    cosine = (batch * single).sum(1) / np.linalg.norm(batch, axis=1) / np.linalg.norm(single, axis=1)
    return freed if (cosine >= 0.99999).all() else None


def _free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Frees the first axis of inputs, outputs and of what is reshaped to a shape that begins with 1."""
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in shapes]
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in shapes:
            tensors += [attribute.t for attribute in node.attribute if attribute.name == "value"]
    for tensor in tensors:
        shape = onnx.numpy_helper.to_array(tensor).copy()
        if len(shape) > 1 and shape[0] == 1:
            shape[0] = 0  # ONNX's word for "as it is"
            tensor.CopyFrom(onnx.numpy_helper.from_array(shape, tensor.name))
    return model
