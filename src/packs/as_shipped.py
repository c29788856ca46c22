"""The baseline: what InsightFace gives by the loop that everyone writes."""

import warnings
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from insightface.utils import face_align

from src import artifacts, devices, workers
from src.packs.alignment import SIDE
from src.packs.pack import Pack, in_order
from src.photos import decoding
from src.photos.paths import open_path, root

_UNSET = np.inf  # marks rows that are not computed yet
_AT_ONCE = 32  # photos whose crops are embedded together


@artifacts.uses(faces=("path", "sha256"))
def as_shipped(faces: pd.DataFrame, folder: Path, pack: Pack, workspace: Path | None = None) -> np.ndarray:
    """Embeddings float32 `[N, D]`, unit rows, as the loop that everyone writes gives them.

        app = FaceAnalysis(name); app.prepare(ctx_id=0)
        for photo in photos: app.get(cv2.imread(photo))[0].normed_embedding

    faces: a row for each photo; `path` is relative to `folder`, `sha256` says which content it had.

    OpenCV decodes (it applies EXIF orientation), InsightFace's detection sizes and threshold hold, and of
    several faces the first is taken, the one of the highest score. A row is NaN where no face is found or
    OpenCV cannot decode the photo: a failure to enrol. With a workspace, the result is memory-mapped there,
    and rows already there are not computed again. Raises ValueError, naming the file, where detection fails.
    """

    dimension = pack.recognise(np.zeros((1, SIDE, SIDE, 3), np.uint8)).shape[1]
    embeddings = _kept(workspace, (len(faces), dimension))
    rows = np.flatnonzero(embeddings[:, 0] == _UNSET)
    paths, folder = faces["path"].iloc[rows].tolist(), root(folder).absolute()
    if workers.joined():
        parts = [paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE)]
        batches = workers.each(partial(_of_photos, folder, pack, dimension), parts)
    else:
        batches = _in_batches(folder, pack, dimension, paths)
    with devices.Bar(
        total=len(faces), initial=len(faces) - len(rows), desc="as shipped", unit=" photos"
    ) as bar:
        for values in batches:
            now, rows = rows[: len(values)], rows[len(values) :]
            embeddings[now] = values
            bar.update(len(values))
    return embeddings


def _in_batches(folder: Path, pack: Pack, dimension: int, paths: list[str]) -> Iterator[np.ndarray]:
    crops = pack.map(partial(_crop, folder, pack), paths)
    while batch := list(islice(crops, _AT_ONCE)):
        yield _rows(batch, pack, dimension)


def _of_photos(folder: Path, pack: Pack, dimension: int, paths: list[str]) -> np.ndarray:
    return _rows([_crop(folder, pack, path) for path in paths], pack, dimension)


def _crop(folder: Path, pack: Pack, path: str) -> np.ndarray | None:
    bgr = _imread(open_path(folder, path))
    if bgr is None:
        return None
    with decoding.named(path, bgr):
        return _first_face(bgr, pack)


def _rows(crops: list[np.ndarray | None], pack: Pack, dimension: int) -> np.ndarray:
    """Embeddings `[n, D]`, unit rows; NaN where there is no crop."""
    rows = np.full((len(crops), dimension), np.nan, np.float32)
    found = [i for i, crop in enumerate(crops) if crop is not None]
    if found:
        raw = pack.recognise(np.stack([crop for crop in crops if crop is not None]))
        rows[found] = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return rows


@artifacts.uses(faces=("path", "sha256"))
def not_read(faces: pd.DataFrame, embeddings: np.ndarray, folder: Path) -> pd.DataFrame:
    """Which photos `as_shipped` has no face of since OpenCV cannot read them: a row for each, its `path`.

    faces, embeddings: the table given to `as_shipped`, and what it returned. The others without an embedding
    were read, and no face was found.
    """
    failed = faces.loc[~np.isfinite(embeddings).all(axis=1), ["path"]]
    read = in_order(lambda path: _imread(open_path(folder, path)) is not None, failed["path"])
    return failed[~np.fromiter(read, bool, len(failed))].reset_index(drop=True)


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


def _kept(workspace: Path | None, shape: tuple[int, int]) -> np.ndarray:
    """A float32 array as it was left in the workspace, else full of _UNSET; writing to it keeps it there."""
    if workspace is None:
        return np.full(shape, _UNSET, np.float32)
    file = workspace / "embeddings.npy"
    if not file.exists():
        with artifacts.whole(file) as partial:
            np.save(partial, np.full(shape, _UNSET, np.float32))
    return np.load(file, mmap_mode="r+")
