"""Photos to aligned crops: detection with retries for tight, tiny and blurred faces, choice, alignment."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from src import dataset

T = TypeVar("T")
R = TypeVar("R")

SIDE = 112  # pixels; the size of a crop

# Where ArcFace models expect the landmarks in a crop (insightface.utils.face_align).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)
LANDMARKS = ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth")
COLUMNS = (
    *("left", "top", "right", "bottom"),
    *(f"{name}_{axis}" for name in LANDMARKS for axis in "xy"),
    *("score", "found", "n_faces", "eye_distance"),
)
WHOLE = "whole photo"

SURE = 0.5  # a find of at least this score counts: InsightFace's own threshold
WEAK = 0.3  # a find of at least this score counts where a second attempt sees the same face
NEAR = 0.4  # from this score on, detection as shipped might be sure: on small photos only then is it made


@dataclass(frozen=True)
class Attempt:
    """One way to look for a face.

    The photo's longer side, with a border of `margin` (a share of it) on every side, is brought to `size`
    pixels; None detects as `FaceAnalysis` does. Only for photos with a longer side of more than `beyond`.
    """

    name: str
    size: int | None
    margin: float = 0.0
    beyond: int = 0


# Made in this order until one finds a face. Small sizes come first: they cost little, and faces that fill the
# frame are found at them rather than at large ones, which are for small faces in large photos.
ATTEMPTS = (
    Attempt("160", 160),
    Attempt("128", 128),
    Attempt("padded 256", 256, margin=0.5),
    Attempt("320", 320),
    Attempt("as shipped", None, beyond=320),
    Attempt("1280", 1280, beyond=640),
)
AS_SHIPPED = (Attempt("as shipped", None),)


class Detector(Protocol):
    """What this room needs of a pack; see `insightface_pack.Pack`."""

    def detect(
        self, photo: np.ndarray, size: int | None = None, threshold: float = 0.5
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]: ...


def extract(
    images: pd.DataFrame,
    folder: Path,
    pack: Detector,
    attempts: Sequence[Attempt] = ATTEMPTS,
    workspace: Path | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Finds, chooses and aligns one face in every usable image (`status` "ok") below `folder`.

    Returns `faces`, a row per usable image in the order of `images` with its columns and COLUMNS, and
    `crops`, uint8 `[N, 112, 112, 3]` RGB, row i belonging to row i of `faces`. With a workspace the crops are
    memory-mapped there, and what was found before an interruption is not looked for again. `attempts` are the
    ways to look for a face; with AS_SHIPPED, boxes and landmarks are those of `FaceAnalysis`.

    Raises ValueError, naming the file, where a photo can't be decoded, or where no image is usable.
    """
    usable = images[images["status"] == "ok"].reset_index(drop=True)
    if usable.empty:
        raise ValueError("There are no usable images to look for faces in.")
    if workspace is None:
        with tempfile.TemporaryDirectory() as private:
            faces, crops = extract(images, folder, pack, attempts, Path(private))
            crops = np.array(crops)  # the file behind it goes
        return faces, crops

    def look(path: str) -> tuple[dict[str, Any], np.ndarray]:
        return find_face(dataset.read_rgb(Path(folder) / path), pack, attempts)

    file, log = workspace / "crops.npy", workspace / "found.csv"
    start = _begin(file, log, len(usable))
    found = pack.map(look, usable["path"].iloc[start:])
    # Written as plain files, not through a memory map, whose pages would count as this process's memory.
    with (
        file.open("r+b") as pixels,
        log.open("a", encoding="utf-8", newline="") as lines,
        tqdm(total=len(usable), initial=start, desc="faces", unit=" photos") as bar,
    ):
        pixels.seek((start - len(usable)) * SIDE * SIDE * 3, os.SEEK_END)
        rows = csv.DictWriter(lines, COLUMNS)
        for row, crop in found:
            pixels.write(crop.tobytes())
            pixels.flush()  # before its row: what has a row has a crop
            rows.writerow(row)
            lines.flush()
            bar.update()
    table = pd.read_csv(log, dtype={"found": str}).astype(
        {name: np.float32 for name in COLUMNS if name not in ("found", "n_faces")}
    )
    return pd.concat([usable, table], axis=1), np.load(file, mmap_mode="r+")


def _begin(file: Path, log: Path, count: int) -> int:
    """Prepares the files of crops and of rows; returns how many rows are there from before."""
    if not log.exists():
        np.lib.format.open_memmap(file, "w+", np.uint8, (count, SIDE, SIDE, 3))
        log.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
        return 0
    lines = log.read_bytes()
    whole = lines[: lines.rfind(b"\n") + 1]  # the last row may have been cut off
    log.write_bytes(whole)
    return whole.count(b"\n") - 1


def find_face(
    photo: np.ndarray, pack: Detector, attempts: Sequence[Attempt] = ATTEMPTS
) -> tuple[dict[str, Any], np.ndarray]:
    """The face of a photo, uint8 `[H, W, 3]` RGB: its row (COLUMNS) and its crop, uint8 `[112, 112, 3]`.

    A find counts from SURE on, or from WEAK on where an earlier attempt had one at the same place and its
    landmarks stand as a face's do. Of several faces the largest, most central and surest is taken; `n_faces`
    is how many the attempt found. Where no attempt finds one, the whole photo is the crop.
    """
    longer = max(photo.shape[:2])
    signs = np.empty((0, 5), np.float32)  # weak finds so far
    for attempt in attempts:
        # Enlarging a small photo once more shows nothing new, but may tip the scales.
        if longer <= attempt.beyond and (attempt.size or signs[:, 4].max(initial=0) < NEAR):
            continue
        boxes, landmarks = _look(photo, pack, attempt)
        counts, how = boxes[:, 4] >= SURE, attempt.name
        if not counts.any():
            standing = _standing(boxes, landmarks, photo.shape)
            counts, how = standing & _confirmed(boxes, signs), f"{attempt.name}, weak"
            signs = np.concatenate([signs, boxes[standing]])
        if counts.any():
            boxes, landmarks = boxes[counts], landmarks[counts]
            best = int(np.argmax(_rank(boxes, photo.shape)))
            box, points = boxes[best], landmarks[best]
            eyes = float(np.linalg.norm(points[0] - points[1]))
            values = (*box[:4], *points.ravel(), box[4], how, len(boxes), eyes)
            return dict(zip(COLUMNS, values, strict=True)), align(photo, points)
    height, width = photo.shape[:2]
    values = (0, 0, width, height, *[np.nan] * 10, 0, WHOLE, 0, np.nan)
    crop = cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return dict(zip(COLUMNS, values, strict=True)), crop


def _look(photo: np.ndarray, pack: Detector, attempt: Attempt) -> tuple[np.ndarray, np.ndarray]:
    """Boxes with scores `[n, 5]` and landmarks `[n, 5, 2]` of what scores at least WEAK, in photo pixels."""
    if not attempt.margin:
        return pack.detect(photo, attempt.size, WEAK)
    border = round(attempt.margin * max(photo.shape[:2]))
    framed = cv2.copyMakeBorder(photo, border, border, border, border, cv2.BORDER_REPLICATE)
    boxes, landmarks = pack.detect(framed, attempt.size, WEAK)
    return boxes - np.array([border] * 4 + [0], np.float32), landmarks - border


def _standing(boxes: np.ndarray, landmarks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which finds may be faces: within 45 degrees of upright, not tiny, their middle in the photo. `[n]`"""
    turns = np.array([similarity(points)[:, 0] for points in landmarks]).reshape(-1, 2)
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    inside = ((middle >= 0) & (middle <= shape[1::-1])).all(axis=1)
    large = boxes[:, 3] - boxes[:, 1] >= 0.1 * min(shape[:2])
    return (turns[:, 0] > np.abs(turns[:, 1])) & inside & large


def _confirmed(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which boxes overlap one of the others by at least 0.4, intersection over union. `[n]`"""
    first, second = boxes[:, None, :4], others[None, :, :4]
    shared = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    both = shared.clip(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (first, second)]
    return (both >= 0.4 * (areas[0] + areas[1] - both)).any(axis=1)


def _rank(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Higher for the face that the photo is of: large, near the middle, surely found. `[n]`"""
    size = np.sqrt((boxes[:, 2:4] - boxes[:, :2]).prod(axis=1))
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    offset = np.linalg.norm(middle - np.array(shape[1::-1]) / 2, axis=1) / max(shape[:2])
    return size * boxes[:, 4] * (1 - offset).clip(0.1)


def align(photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The crop, uint8 `[112, 112, 3]`, in which `landmarks` (`[5, 2]`, x and y) lie closest to the template.

    By rotation, scaling and shift (Umeyama, TPAMI 1991), as `insightface.utils.face_align.norm_crop`.
    """
    return cv2.warpAffine(photo, similarity(landmarks), (SIDE, SIDE), borderValue=0.0)


def similarity(landmarks: np.ndarray) -> np.ndarray:
    """The similarity transform, float64 `[2, 3]`, that brings landmarks `[5, 2]` closest to the template."""
    source, target = (points.astype(np.float64) for points in (landmarks, TEMPLATE))
    centre, goal = source.mean(0), target.mean(0)
    x, y = (source - centre).T
    u, v = (target - goal).T
    spread = (x**2 + y**2).sum()
    a, b = (x * u + y * v).sum() / spread, (x * v - y * u).sum() / spread
    turn = np.array([[a, -b], [b, a]])
    return np.column_stack([turn, goal - turn @ centre])


def detection_rate(faces: pd.DataFrame, shipped: np.ndarray) -> pd.DataFrame:
    """Share of photos with a face, by quality: as shipped (rows of `shipped` that are not NaN) and ours."""
    table = pd.DataFrame(
        {
            "quality": faces["quality"],
            "as shipped": np.isfinite(shipped).all(axis=1),
            "ours": (faces["found"] != WHOLE).to_numpy(),
        }
    )
    every = pd.concat([table.assign(quality="all"), table])
    rates = every.groupby("quality", sort=True)[["as shipped", "ours"]].mean()
    return rates.assign(photos=every.groupby("quality").size()).reset_index()
