"""Photos to aligned crops: detection with retries for tight, tiny and blurred faces, choice, alignment."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from src import artifacts
from src.packs.alignment import LANDMARKS, SIDE, align, similarity
from src.photos import decoding

T = TypeVar("T")
R = TypeVar("R")

COLUMNS = (
    *("left", "top", "right", "bottom"),
    *(f"{name}_{axis}" for name in LANDMARKS for axis in "xy"),
    *("score", "found", "n_faces", "eye_distance"),
)
WHOLE = "whole photo"

THRESHOLD = 0.5  # a detection of at least this score counts: InsightFace's own threshold
# A detection of at least this score counts where a second attempt detects the same face.
WEAK_THRESHOLD = 0.3
# With a weak detection of at least this score, the attempt as shipped is made on small photos too.
RETRY_THRESHOLD = 0.4


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
    """What is needed of a pack; see `pack.Pack`."""

    def detect(
        self, photo: np.ndarray, size: int | None = None, threshold: float = 0.5
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]: ...


# ---------------------------------------------------------------- the stage


@artifacts.uses(images=("path", "sha256", "status"))
def extract(
    images: pd.DataFrame,
    folder: Path,
    pack: Detector,
    attempts: Sequence[Attempt] = ATTEMPTS,
    workspace: Path | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Finds, chooses and aligns one face in every usable image (`status` "ok") below `folder`.

    Returns `found`, a row per usable image in the order of `images`, with its `path` and COLUMNS, and
    `crops`, uint8 `[N, 112, 112, 3]` RGB, row i belonging to row i of `found`; `table` joins `found` to
    `images`. Boxes, landmarks and `eye_distance` are float32, in pixels of the photo. `score` is the
    detector's, 0-1. `found` names the attempt that found the face, and `n_faces` is how many it detected.
    Where no attempt finds one, `found` is WHOLE, the box is the whole photo and the landmarks are NaN.

    `sha256` is the photo's content, for `cached`. `attempts` are the ways to look for a face; with
    AS_SHIPPED, boxes and landmarks are those of `FaceAnalysis`. With a workspace the crops are memory-mapped
    there, and what was found before an interruption is not looked for again.

    Raises ValueError, naming the file, where a photo can't be decoded, or where no image is usable.
    """
    paths = images.loc[images["status"] == "ok", "path"].reset_index(drop=True)
    if paths.empty:
        raise ValueError("There are no usable images to look for faces in.")

    def look(path: str) -> tuple[dict[str, Any], np.ndarray]:
        return find_face(decoding.read_rgb(Path(folder) / path), pack, attempts)

    with artifacts.workspace_or_temporary(workspace) as place:
        file, log = place / "crops.npy", place / "found.csv"
        start = _begin(file, log, len(paths))
        results = pack.map(look, paths.iloc[start:])
        # Written as plain files, not through a memory map, whose pages would count as this process's memory.
        with (
            file.open("r+b") as pixels,
            log.open("a", encoding="utf-8", newline="") as lines,
            tqdm(total=len(paths), initial=start, desc="faces", unit=" photos") as bar,
        ):
            pixels.seek((start - len(paths)) * SIDE * SIDE * 3, os.SEEK_END)
            rows = csv.DictWriter(lines, COLUMNS)
            for row, crop in results:
                pixels.write(crop.tobytes())
                pixels.flush()  # before its row: what has a row has a crop
                rows.writerow(row)
                lines.flush()
                bar.update()
        found = pd.read_csv(log, dtype={"found": str}).astype(
            {name: np.float32 for name in COLUMNS if name not in ("found", "n_faces")}
        )
        found.insert(0, "path", paths)
        # A temporary folder goes: its crops are read into memory.
        return found, np.load(file, mmap_mode=None if workspace is None else "r+")


def table(images: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """The usable images (`status` "ok"), a row each, with what `extract` found in them: row i is crop i.

    Raises ValueError where the paths of the two are not the same, in the same order.
    """
    usable = images[images["status"] == "ok"].reset_index(drop=True)
    if usable["path"].tolist() != found["path"].tolist():
        raise ValueError("These are not the images that the faces were found in: their paths differ.")
    return pd.concat([usable, found[list(COLUMNS)].reset_index(drop=True)], axis=1)


def _begin(file: Path, log: Path, count: int) -> int:
    """Prepares the files of crops and of rows; returns how many rows are there from before."""
    if not log.exists():
        np.lib.format.open_memmap(file, "w+", np.uint8, (count, SIDE, SIDE, 3))
        log.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
        return 0
    lines = log.read_bytes()
    complete = lines[: lines.rfind(b"\n") + 1]  # the last row may have been cut off
    log.write_bytes(complete)
    return complete.count(b"\n") - 1


def detection_rate(faces: pd.DataFrame, shipped: np.ndarray) -> pd.DataFrame:
    """Share of photos with a face, by quality ("all" and each): as shipped and with our attempts.

    faces: a row per photo, with `quality` and `found`. shipped: embeddings `[N, D]` of `as_shipped`, NaN
    where no face was found. Returns a row per quality: `quality`, `as shipped`, `ours` (0-1), `photos`.
    """
    found = pd.DataFrame(
        {
            "quality": faces["quality"],
            "as shipped": np.isfinite(shipped).all(axis=1),
            "ours": (faces["found"] != WHOLE).to_numpy(),
        }
    )
    every = pd.concat([found.assign(quality="all"), found])
    rates = every.groupby("quality", sort=True)[["as shipped", "ours"]].mean()
    return rates.assign(photos=every.groupby("quality").size()).reset_index()


# ---------------------------------------------------------------- one photo


def find_face(
    photo: np.ndarray, pack: Detector, attempts: Sequence[Attempt] = ATTEMPTS
) -> tuple[dict[str, Any], np.ndarray]:
    """The face of a photo, uint8 `[H, W, 3]` RGB: its row (COLUMNS) and its crop, uint8 `[112, 112, 3]` RGB.

    A detection counts from THRESHOLD on, or from WEAK_THRESHOLD on where an earlier attempt had one at the
    same place and its landmarks are where a face's may be. Of several faces the largest, most central and
    surest is taken; `n_faces` is how many the attempt detected. Where no attempt finds one, the whole photo
    is the crop.
    """
    longer = max(photo.shape[:2])
    weak = np.empty((0, 5), np.float32)  # boxes and scores of plausible weak detections so far
    for attempt in attempts:
        # Enlarging a small photo once more shows nothing new, but may tip the scales.
        if longer <= attempt.beyond and (attempt.size or weak[:, 4].max(initial=0) < RETRY_THRESHOLD):
            continue
        boxes, landmarks = _detect(photo, pack, attempt)
        counts, how = boxes[:, 4] >= THRESHOLD, attempt.name
        if not counts.any():
            plausible = _plausible(boxes, landmarks, photo.shape)
            counts, how = plausible & _overlapping(boxes, weak), f"{attempt.name}, weak"
            weak = np.concatenate([weak, boxes[plausible]])
        if counts.any():
            boxes, landmarks = boxes[counts], landmarks[counts]
            best = int(np.argmax(_rank(boxes, photo.shape)))
            box, points = boxes[best], landmarks[best]
            eye_distance = float(np.linalg.norm(points[0] - points[1]))
            values = (*box[:4], *points.ravel(), box[4], how, len(boxes), eye_distance)
            return dict(zip(COLUMNS, values, strict=True)), align(photo, points)
    height, width = photo.shape[:2]
    values = (0, 0, width, height, *[np.nan] * 10, 0, WHOLE, 0, np.nan)
    crop = cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return dict(zip(COLUMNS, values, strict=True)), crop


def _detect(photo: np.ndarray, pack: Detector, attempt: Attempt) -> tuple[np.ndarray, np.ndarray]:
    """Boxes with scores `[n, 5]` and landmarks `[n, 5, 2]` from WEAK_THRESHOLD on, in pixels of the photo."""
    if not attempt.margin:
        return pack.detect(photo, attempt.size, WEAK_THRESHOLD)
    border = round(attempt.margin * max(photo.shape[:2]))
    framed = cv2.copyMakeBorder(photo, border, border, border, border, cv2.BORDER_REPLICATE)
    boxes, landmarks = pack.detect(framed, attempt.size, WEAK_THRESHOLD)
    return boxes - np.array([border] * 4 + [0], np.float32), landmarks - border


def _plausible(boxes: np.ndarray, landmarks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which may be faces: within 45 degrees of upright, not tiny, their middle in the photo. Bool `[n]`."""
    turns = np.array([similarity(points)[:, 0] for points in landmarks]).reshape(-1, 2)
    upright = turns[:, 0] > np.abs(turns[:, 1])
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    inside = ((middle >= 0) & (middle <= shape[1::-1])).all(axis=1)
    large = boxes[:, 3] - boxes[:, 1] >= 0.1 * min(shape[:2])
    return upright & inside & large


def _overlapping(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which boxes overlap one of the others by at least 0.4, intersection over union. Bool `[n]`."""
    first, second = boxes[:, None, :4], others[None, :, :4]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    intersection = sides.clip(0).prod(-1)
    area, other_area = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (first, second))
    union = area + other_area - intersection
    return (intersection >= 0.4 * union).any(axis=1)


def _rank(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Higher for the face that the photo is of: large, near the middle, surely detected. `[n]`"""
    size = np.sqrt((boxes[:, 2:4] - boxes[:, :2]).prod(axis=1))
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    offset = np.linalg.norm(middle - np.array(shape[1::-1]) / 2, axis=1) / max(shape[:2])
    return size * boxes[:, 4] * (1 - offset).clip(0.1)
