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


@dataclass(frozen=True)
class Attempt:
    """One way to look for a face.

    The photo's longer side, with a border of `margin` (a share of it) on every side, is brought to `size`
    pixels; None detects as `FaceAnalysis` does. Finds below `threshold` do not count.
    """

    name: str
    size: int | None
    margin: float = 0.0
    threshold: float = 0.5


# Tried in this order until one finds a face.
ATTEMPTS = (
    Attempt("160", 160),
    Attempt("320", 320),
    Attempt("as shipped", None),
    Attempt("padded 160", 160, margin=0.5),
    Attempt("weak 160", 160, threshold=0.3),
    Attempt("weak padded 160", 160, margin=0.5, threshold=0.3),
    Attempt("weak 320", 320, threshold=0.3),
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
    memory-mapped there, and what was found before an interruption is not looked for again.

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
    table = pd.read_csv(log).astype(
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
    """The face of a photo, uint8 `[H, W, 3]` RGB: its row (COLUMNS) and its crop, uint8 `[112, 112, 3]`."""
    for attempt in attempts:
        boxes, landmarks = _detect(photo, pack, attempt)
        good = np.array(
            [_plausible(b, p, photo.shape, attempt) for b, p in zip(boxes, landmarks, strict=True)], bool
        )
        if good.any():
            boxes, landmarks = boxes[good], landmarks[good]
            best = int(np.argmax(_rank(boxes, photo.shape)))
            points = landmarks[best]
            eyes = float(np.linalg.norm(points[0] - points[1]))
            values = (*boxes[best, :4], *points.ravel(), boxes[best, 4], attempt.name, len(boxes), eyes)
            return dict(zip(COLUMNS, values, strict=True)), align(photo, points)
    height, width = photo.shape[:2]
    values = (0, 0, width, height, *[np.nan] * 10, 0, WHOLE, 0, np.nan)
    crop = cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return dict(zip(COLUMNS, values, strict=True)), crop


def _detect(photo: np.ndarray, pack: Detector, attempt: Attempt) -> tuple[np.ndarray, np.ndarray]:
    if not attempt.margin:
        return pack.detect(photo, attempt.size, attempt.threshold)
    border = round(attempt.margin * max(photo.shape[:2]))
    framed = cv2.copyMakeBorder(photo, border, border, border, border, cv2.BORDER_REPLICATE)
    boxes, landmarks = pack.detect(framed, attempt.size, attempt.threshold)
    boxes[:, :4] -= border
    return boxes, landmarks - border


def _plausible(box: np.ndarray, points: np.ndarray, shape: tuple[int, ...], attempt: Attempt) -> bool:
    """Whether a find may be a face at all: all of them above 0.5, below it those with a face's geometry."""
    if attempt.threshold >= 0.5:
        return True
    width, height = box[2:4] - box[:2]
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    centre = (box[:2] + box[2:4]) / 2
    return bool(
        0.5 <= width / height <= 1.5
        and points[0, 0] < points[1, 0]
        and eyes[1] < points[2, 1] < mouth[1]
        and height >= 0.2 * min(shape[:2])
        and (centre >= 0).all()
        and centre[0] <= shape[1]
        and centre[1] <= shape[0]
    )


def _rank(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Higher for the face the photo is of: large, central, surely found. `[n]`."""
    size = np.sqrt(np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1))
    centre = (boxes[:, :2] + boxes[:, 2:4]) / 2
    offset = np.linalg.norm(centre - np.array(shape[1::-1]) / 2, axis=1) / max(shape[:2])
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
