"""A pack, loaded and run as InsightFace runs it: faces detected in photos, crops turned into embeddings.

Outside this room everything is RGB.
"""

import copy
import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import onnx
import onnxruntime
from insightface.app import FaceAnalysis
from insightface.app.face_analysis import DEFAULT_DET_SIZES
from insightface.model_zoo import SCRFD, ArcFaceONNX, model_zoo
from insightface.model_zoo.package_manifest import has_model_package_manifest

from src import workers
from src.packs import detecting, graphs, pack_files, sessions
from src.packs.alignment import SIDE

T = TypeVar("T")
R = TypeVar("R")

STRIDE = 32  # the detector's coarsest: its input is a multiple of it
# Crops that an accelerator takes at once: fewer are filled up, as it makes a graph for every new shape.
BATCHES = (1, 8, 64)
USED = ("detection", "recognition")  # models of a pack


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
        """The recogniser's ONNX file."""
        return Path(self.recogniser.model_file)

    def recognise(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings float32 `[n, D]`, not normalised, of aligned crops uint8 `[n, 112, 112, 3]` RGB."""
        on_cores = self.providers[0] == sessions.CPU
        if self.batched is None:
            recogniser, step = self.recogniser, 1
        elif on_cores:
            recogniser, step = self.batched, 4  # what a core works on stays in its cache
        else:
            recogniser, step = self.batched, BATCHES[-1]  # an accelerator takes it at once

        def embed(start: int) -> np.ndarray:
            here = crops[start : start + step].transpose(0, 3, 1, 2)
            full = len(here) if on_cores else min(size for size in BATCHES if size >= len(here))
            images = np.zeros((full, *here.shape[1:]), np.float32)
            images[: len(here)] = here
            return recogniser.forward(images)[: len(here)]

        return np.concatenate(list(in_order(embed, range(0, len(crops), step))))

    def detect(
        self, photo: np.ndarray, size: int | None = None, threshold: float = 0.5
    ) -> tuple[np.ndarray, np.ndarray]:
        """Faces in a photo, uint8 `[H, W, 3]` RGB, resized to fit `size` x `size` pixels (a multiple of 32).

        Without a size, as `FaceAnalysis` detects. Returns boxes with scores, float32 `[n, 5]` (left, top,
        right, bottom, score), and landmarks, float32 `[n, 5, 2]` (x and y of the eye on the image's left, the
        other eye, the nose, the mouth's corners), in pixels of the photo, best score first.
        """
        if size is not None and self.resizable is not None:
            canvas = _canvas(photo.shape, size) if self.providers[0] == sessions.CPU else (size, size)
            return detecting.detect(self.resizable, photo, canvas, threshold)
        bgr = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
        if size is None:
            return self.detector.detect(bgr, det_thresh=threshold)
        # The one canvas there is takes the photo at the same scale: the same to the detector, if slower.
        canvas = self.detector.static_input_size[0]
        scale = min(size, canvas) / max(bgr.shape[:2])
        small = cv2.resize(bgr, None, fx=scale, fy=scale)
        framed = np.zeros((canvas, canvas, 3), np.uint8)
        framed[: small.shape[0], : small.shape[1]] = small
        boxes, landmarks = self.detector.detect(framed, det_thresh=threshold)
        boxes[:, :4] /= scale
        return boxes, landmarks / scale

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (self.folder,)  # as a worker of a cluster gets it: opened there

    def release(self) -> None:
        """Gives back what ONNX Runtime holds of a GPU's memory; sessions open again when they are used."""
        for model in (self.detector, self.recogniser, self.resizable, self.batched):
            if model is not None and isinstance(model.session, sessions.Session):
                model.session.close()

    def map(self, function: Callable[[T], R], items: Iterable[T], ahead: int = 256) -> Iterator[R]:
        """`function(item)` in order, worked out in threads, at most `ahead` results before they are taken."""
        return in_order(function, items, ahead)


def in_order(function: Callable[[T], R], items: Iterable[T], ahead: int = 256) -> Iterator[R]:
    """Yields `function(item)` in order, worked out in threads, at most `ahead` results before they are taken.

    For what OpenCV and ONNX Runtime do most of: they let other threads run while they work.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers.cores())
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _canvas(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Width and height of the smallest input that holds an image of this shape at `size` pixels, less black.

    Accelerators get squares instead, as each new shape costs them more than the black does.
    """
    height, width = (math.ceil(side * size / max(shape[:2]) / STRIDE) * STRIDE for side in shape[:2])
    return width, height


# ---------------------------------------------------------------- loading


def load(pack: str | Path, root: Path | str | None = None) -> Pack:
    """Loads a pack: a folder of ONNX files, or a name, looked for as `FaceAnalysis(name, root=root)` does.

    Without a root, a name is looked for in the project, beside it, and where InsightFace keeps its packs; one
    that InsightFace publishes is verified, and downloaded where there is none (see `pack_files.find`).

    Warns (RuntimeWarning) where ONNX Runtime does not use the GPU that torch sees, or is installed twice.
    Raises FileNotFoundError where there is no such pack, ValueError where it is incomplete or damaged.
    """
    folder, digests = pack_files.find(pack, root)
    detector, recogniser = _models(folder)
    providers = tuple(recogniser.session.get_providers())
    sessions.check(providers)
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


def _models(folder: Path) -> tuple[SCRFD, ArcFaceONNX]:
    """The detector and the recogniser as `FaceAnalysis` loads and prepares them, one core a session."""
    options = onnxruntime.SessionOptions()
    # Photos are worked on side by side instead: cores that share one photo mostly wait for each other.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    half = f"The pack in {folder} is not whole: it has no %s model. Put all of the pack's ONNX files there."
    try:
        models = _used(folder, providers=sessions.providers(), sess_options=options)
    except Exception as error:  # ONNX Runtime and protobuf have exceptions of their own for damaged files
        raise ValueError(f"The pack in {folder} is damaged: {' '.join(str(error).split())}") from error
    for task in USED:
        if task not in models:
            raise ValueError(half % task)
    detector, recogniser = (models[task] for task in USED)
    if not detector.use_kps:
        raise ValueError(f"The detector of the pack in {folder} gives no landmarks, which alignment needs.")
    if recogniser.input_size != (SIDE, SIDE):
        size = " x ".join(map(str, recogniser.input_size))
        raise ValueError(f"The recogniser of the pack in {folder} takes {size} pixels, not {SIDE} x {SIDE}.")
    detector.prepare(0, input_size=DEFAULT_DET_SIZES, det_thresh=0.5)
    recogniser.prepare(0)
    for model in (detector, recogniser):
        model.session = sessions.closable(model.session, model.model_file)
    if isinstance(detector.session, sessions.Session):
        detector.static_shape_sessions = False  # one session for all sizes, as each takes memory
        detector._reset_resolution_session_pool()
    return detector, recogniser


def _used(folder: Path, **options: Any) -> dict[str, Any]:
    """InsightFace's objects for the models in USED, the first of each in the folder; it loads no others.

    `FaceAnalysis` opens every file before it lets go of what is not wanted: in buffalo_l, of 160 MB.
    """
    onnxruntime.set_default_logger_severity(3)  # as FaceAnalysis does
    if has_model_package_manifest(folder):  # says itself which file is what
        return FaceAnalysis(str(folder), allowed_modules=list(USED), **options).models
    models: dict[str, Any] = {}
    for file in sorted(folder.glob("*.onnx")):
        if (task := graphs.task(file)) in USED and task not in models:
            models[task] = model_zoo.get_model(
                str(file), _coreml_detector_input_size=DEFAULT_DET_SIZES[-1], **options
            )
    return models


def _resizable(detector: SCRFD) -> SCRFD | None:
    """The detector with a free input size: a copy of it, its graph freed in memory and checked if need be."""
    if detector.static_input_size is None:
        if detector.session.get_providers()[0] == "CoreMLExecutionProvider":
            return detector  # which needs a session of its own for every size
        freed = copy.copy(detector)
        freed.static_shape_sessions = False  # one for all: there are as many sizes as shapes of photos
        freed._reset_resolution_session_pool()
        return freed
    model = graphs.free_size(onnx.load(detector.model_file))
    width, height = native = detector.static_input_size
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
    freed = copy.copy(detector)
    try:
        freed.model_file, freed.session = None, sessions.opened(model.SerializeToString(), detector.session)
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
    crops = (graphs.probes() + 1) * 127.5  # 0-255, as `forward` takes them
    single = np.concatenate([recogniser.forward(crop[None]) for crop in crops])
    freed = recogniser
    try:
        if isinstance(recogniser.input_shape[0], int):
            freed = copy.copy(recogniser)
            model = graphs.free_batch(onnx.load(recogniser.model_file))
            freed.session = sessions.opened(model.SerializeToString(), recogniser.session)
        batch = freed.forward(crops)
    except Exception:  # whatever fails: the graph is bound to single crops
        return None
    return freed if graphs.least_cosine(batch, single) >= graphs.PARITY else None
