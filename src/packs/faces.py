"""Photos to aligned crops: detection with retries for tight, tiny, blurred and turned faces, alignment.

Every face of a photo is kept, the likeliest first; `choice` decides which of them is the person.
"""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import cv2
import numpy as np
import pandas as pd

from src import artifacts, devices, workers
from src.packs.alignment import CENTRED, LANDMARKS, SIDE, align
from src.photos import decoding
from src.photos.paths import open_path, root

T = TypeVar("T")
R = TypeVar("R")

COLUMNS = (
    *("left", "top", "right", "bottom"),
    *(f"{name}_{axis}" for name in LANDMARKS for axis in "xy"),
    *("score", "found", "n_faces", "eye_distance", "turned"),
)
WHOLE = "whole photo"
MOST_FACES = 16  # of one photo are kept; a crowd has more

THRESHOLD = 0.5  # a detection of at least this score counts: InsightFace's own threshold
# A detection of at least this score counts where a second attempt detects the same face.
WEAK_THRESHOLD = 0.3
# With a weak detection of at least this score, the attempt as shipped is made on small photos too.
RETRY_THRESHOLD = 0.4

# A face upside down, or lying, is often detected as if it stood, with a lower score than where it does stand.
# Below these scores a face that seems to stand is looked at in a photo turned by 180, by 90 and 270 degrees.
UPSIDE_DOWN_BELOW, LYING_BELOW = 0.8, 0.65
NARROW_MOUTH = 0.7  # of the eyes' distance; wider, a face may be upside down: its mouth are its eyes
# There it must score the first, and the second more than in the photo as it is; the third if elsewhere.
TURNED_LEAST, TURNED_MARGIN, TURNED_ELSEWHERE = 0.65, 0.05, 0.7
SMALL = 24  # pixels of the detector's input: beside a face less high than that, others may have been missed
CLOSEST = 640  # pixels to which a photo is brought for a closer look
_AT_ONCE = 16  # photos that a worker of a cluster takes, and that are lost with it


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
    Attempt("padded 192", 192, margin=0.25),
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
def every_face(
    images: pd.DataFrame,
    folder: Path,
    pack: Detector,
    attempts: Sequence[Attempt] = ATTEMPTS,
    workspace: Path | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Finds and aligns every face in every usable image (`status` "ok") below `folder`.

    Returns `candidates`, in the order of `images` and the likeliest face of each photo first, with its `path`
    and COLUMNS, and their `crops`, uint8 `[M, 112, 112, 3]` RGB, row i belonging to row i of `candidates`.
    Boxes, landmarks and `eye_distance` are float32, in pixels of the photo as it is decoded, that is, turned
    as its EXIF orientation says and no further. `score` is the detector's, 0-1. `found` names the attempt
    that found the face, and `n_faces` is how many count in the photo. `turned` is by how many degrees the
    photo had to be turned clockwise for the face to stand, 0, 90, 180 or 270; the crop stands.
    Where no attempt finds a face, `found` is WHOLE, the box is the whole photo and the landmarks are NaN.

    `sha256` is the photo's content, for `cached`. `attempts` are the ways to look for a face; with
    AS_SHIPPED, boxes and landmarks are those of `FaceAnalysis`. With a workspace the crops are memory-mapped
    there, and what was found before an interruption is not looked for again.

    Raises ValueError, naming the file, where decoding or detection fails; and where no image is usable.
    """
    paths = images.loc[images["status"] == "ok", "path"].reset_index(drop=True)
    if paths.empty:
        raise ValueError("There are no usable images to look for faces in.")

    look = partial(_faces_of, root(folder).absolute(), pack, attempts)
    with artifacts.workspace_or_temporary(workspace) as place:
        start, count = _begin(file := place / "candidates.npy", log := place / "found.csv")
        todo = paths.iloc[start:].tolist()
        results = workers.each(look, todo, _AT_ONCE) if workers.joined() else pack.map(look, todo)
        # Written as plain files, not through a memory map, whose pages would count as this process's memory.
        with (
            file.open("r+b") as pixels,
            log.open("a", encoding="utf-8", newline="") as lines,
            devices.Bar(total=len(paths), initial=start, desc="faces", unit=" photos") as bar,
        ):
            pixels.seek(0, os.SEEK_END)
            rows = csv.DictWriter(lines, ("photo", *COLUMNS, "last"))
            for photo, found in enumerate(results, start):
                for _, crop in found:
                    pixels.write(crop.tobytes())
                pixels.flush()  # before their rows: what has a row has a crop
                for row, _ in found:
                    count += 1
                    rows.writerow({"photo": photo, **row, "last": int(row is found[-1][0])})
                lines.flush()
                bar.update()
            pixels.seek(0)
            _write_header(pixels, count)
        candidates = pd.read_csv(log, dtype={"found": str}).astype(
            {name: np.float32 for name in COLUMNS if name not in ("found", "n_faces", "turned")}
        )
        candidates.insert(0, "path", paths.iloc[candidates["photo"]].to_numpy())
        candidates = candidates.drop(columns=["photo", "last"])
        # A temporary folder goes: its crops are read into memory.
        return candidates, np.load(file, mmap_mode=None if workspace is None else "r+")


def _faces_of(
    folder: Path, pack: Detector, attempts: Sequence[Attempt], path: str
) -> list[tuple[dict[str, Any], np.ndarray]]:
    with decoding.named(path, photo := decoding.read_rgb(open_path(folder, path))):
        return find_faces(photo, pack, attempts)


@artifacts.uses(images=("path", "sha256", "status"))
def extract(
    images: pd.DataFrame,
    folder: Path,
    pack: Detector,
    attempts: Sequence[Attempt] = ATTEMPTS,
    workspace: Path | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """The likeliest face of every usable image, without regard to whose photo it is; see `choice` for that.

    Returns `found`, a row per usable image in the order of `images`, and `crops`, uint8 `[N, 112, 112, 3]`
    RGB, row i belonging to row i of `found`. All else is as with `every_face`, columns and errors included.
    """
    with artifacts.workspace_or_temporary(workspace) as place:
        candidates, crops = every_face(images, folder, pack, attempts, place)
        first = np.flatnonzero(~candidates["path"].duplicated())
        taken = take(crops, first, None if workspace is None else place / "crops.npy")
        return candidates.iloc[first].reset_index(drop=True), taken


def take(crops: np.ndarray, rows: np.ndarray, file: Path | None = None) -> np.ndarray:
    """`crops[rows]`, copied piece by piece to a .npy file and mapped from there; without one, in memory."""
    if file is None:
        return np.array(crops[rows])
    with file.open("wb") as pixels:
        _write_header(pixels, len(rows))
        for start in range(0, len(rows), 256):
            pixels.write(np.ascontiguousarray(crops[rows[start : start + 256]]).tobytes())
    return np.load(file, mmap_mode="r+")


def table(images: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """The usable images (`status` "ok"), a row each, with what was found in them: row i is crop i.

    Raises ValueError where the paths of the two are not the same, in the same order.
    """
    usable = images[images["status"] == "ok"].reset_index(drop=True)
    if usable["path"].tolist() != found["path"].tolist():
        raise ValueError("These are not the images that the faces were found in: their paths differ.")
    return pd.concat([usable, found.drop(columns="path").reset_index(drop=True)], axis=1)


def _begin(file: Path, log: Path) -> tuple[int, int]:
    """Prepares the files of crops and of rows; returns how many photos and rows are there from before."""
    if not log.exists():
        with file.open("wb") as pixels:
            _write_header(pixels, 0)
        log.write_text(",".join(("photo", *COLUMNS, "last")) + "\n", encoding="utf-8")
        return 0, 0
    head, *rows = log.read_bytes().splitlines(keepends=True)
    # The last photo may have been cut off in the middle: its rows go, and its crops.
    ends = [i for i, row in enumerate(rows, 1) if row.endswith(b",1\r\n")]
    count = ends[-1] if ends else 0
    log.write_bytes(head + b"".join(rows[:count]))
    with file.open("r+b") as pixels:
        _write_header(pixels, count)
        pixels.truncate(pixels.tell() + count * SIDE * SIDE * 3)
    return len(ends), count


def _write_header(pixels: BinaryIO, count: int) -> None:
    """The head of a .npy file of `count` crops. NumPy keeps it at one length, whatever the count."""
    shape = {"descr": "|u1", "fortran_order": False, "shape": (count, SIDE, SIDE, 3)}
    np.lib.format.write_array_header_1_0(pixels, shape)


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


@dataclass(frozen=True)
class _Finds:
    """The faces that an attempt found, likeliest first: boxes with scores `[n, 5]`, landmarks `[n, 5, 2]`."""

    boxes: np.ndarray
    landmarks: np.ndarray
    attempt: Attempt

    @property
    def score(self) -> float:
        return float(self.boxes[0, 4])


def find_faces(
    photo: np.ndarray, pack: Detector, attempts: Sequence[Attempt] = ATTEMPTS
) -> list[tuple[dict[str, Any], np.ndarray]]:
    """The faces of a photo, uint8 `[H, W, 3]` RGB: of each a row (COLUMNS) and a crop, `[112, 112, 3]`.

    A detection counts from THRESHOLD on, or from WEAK_THRESHOLD on where an earlier attempt had one at the
    same place and its landmarks are where a face's may be. Of several faces the largest, most central and
    surest is the first. Where it does not surely stand, it is looked at in the other three orientations;
    where it is small, a closer look is taken for others. Where no attempt finds a face, the whole photo is
    the crop.
    """
    finds, turned = _look(photo, pack, attempts), 0
    again = attempts[0].size is not None  # as shipped, nothing is looked at twice
    if again:
        finds, turned = _stand(photo, finds, pack, attempts[0])
    if finds is None:
        height, width = photo.shape[:2]
        values = (0, 0, width, height, *[np.nan] * 10, 0, WHOLE, 0, np.nan, 0)
        crop = cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return [(dict(zip(COLUMNS, values, strict=True)), crop)]
    standing = _turn(photo, turned)
    name = finds.attempt.name if finds.score >= THRESHOLD else f"{finds.attempt.name}, weak"
    rows = [(box, points, name) for box, points in zip(finds.boxes, finds.landmarks, strict=True)]
    if again:
        rows += _beside(standing, finds, pack)
    faces, distinct = [], _distinct(rows)
    count = len(distinct) if again else len(rows)  # as shipped, one may be counted twice: at 128 and at 640
    for box, points, how in distinct[:MOST_FACES]:
        points = _turn_points(points, standing.shape, 360 - turned)
        corners = _turn_points(box[:4].reshape(2, 2), standing.shape, 360 - turned)
        eye_distance = float(np.linalg.norm(points[0] - points[1]))
        place = (*corners.min(0), *corners.max(0), *points.ravel())
        values = (*place, box[4], how, count, eye_distance, turned)
        faces.append((dict(zip(COLUMNS, values, strict=True)), align(photo, points)))
    return faces


def _look(photo: np.ndarray, pack: Detector, attempts: Sequence[Attempt]) -> _Finds | None:
    """What the first attempt detects that finds a face; None where none does."""
    longer = max(photo.shape[:2])
    weak = np.empty((0, 5), np.float32)  # boxes and scores of plausible weak detections so far
    for attempt in attempts:
        # Enlarging a small photo once more shows nothing new, but may tip the scales.
        if longer <= attempt.beyond and (attempt.size or weak[:, 4].max(initial=0) < RETRY_THRESHOLD):
            continue
        boxes, landmarks = _detect(photo, pack, attempt)
        counts = boxes[:, 4] >= THRESHOLD
        if len(boxes) and not counts.any():
            plausible = _plausible(boxes, landmarks, photo.shape)
            counts = plausible & (_overlap(boxes, weak) >= 0.4).any(axis=1)
            weak = np.concatenate([weak, boxes[plausible]])
        if counts.any():
            return _ranked(boxes[counts], landmarks[counts], attempt, photo)
    return None


def _ranked(boxes: np.ndarray, landmarks: np.ndarray, attempt: Attempt, photo: np.ndarray) -> _Finds:
    order = np.argsort(-_rank(boxes, photo.shape), kind="stable")
    return _Finds(boxes[order], landmarks[order], attempt)


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
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    inside = ((middle >= 0) & (middle <= shape[1::-1])).all(axis=1)
    large = boxes[:, 3] - boxes[:, 1] >= 0.1 * min(shape[:2])
    return (np.abs(_angles(landmarks)) < 45) & inside & large


def _angles(landmarks: np.ndarray) -> np.ndarray:
    """By how many degrees faces `[n, 5, 2]` must be turned clockwise to stand, -180 to 180. `[n]`"""
    x, y, (u, v) = landmarks[..., 0], landmarks[..., 1], CENTRED.T
    return np.degrees(np.arctan2(x @ v - y @ u, x @ u + y @ v))


def _overlap(boxes: np.ndarray, others: np.ndarray, of_smaller: bool = False) -> np.ndarray:
    """Intersection of each box with each other, as a share of their union or of the smaller one. `[n, m]`"""
    first, second = boxes[:, None, :4], others[None, :, :4]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    intersection = sides.clip(0).prod(-1)
    area, other_area = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (first, second))
    whole = np.minimum(area, other_area) if of_smaller else area + other_area - intersection
    return intersection / np.maximum(whole, 1e-6)


def _rank(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Higher for the face that the photo is of: large, near the middle, surely detected. `[n]`"""
    size = np.sqrt((boxes[:, 2:4] - boxes[:, :2]).prod(axis=1))
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    offset = np.linalg.norm(middle - np.array(shape[1::-1]) / 2, axis=1) / max(shape[:2])
    return size * boxes[:, 4] * (1 - offset).clip(0.1)


# ---------------------------------------------------------------- other faces


def _beside(photo: np.ndarray, finds: _Finds, pack: Detector) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """Sure faces, their landmarks and how they were found, that a closer look adds to small ones."""
    longer, attempt = max(photo.shape[:2]), finds.attempt
    size = 2 * (attempt.size or CLOSEST)
    height = (finds.boxes[0, 3] - finds.boxes[0, 1]) * size / 2 / (longer * (1 + 2 * attempt.margin))
    if size > CLOSEST or longer <= size / 2 or height >= SMALL:
        return []
    boxes, landmarks = pack.detect(photo, size, THRESHOLD)
    new = ~(_overlap(boxes, finds.boxes, of_smaller=True) >= 0.5).any(axis=1)
    added = _ranked(boxes[new], landmarks[new], attempt, photo)
    return [
        (box, points, f"beside, {size}") for box, points in zip(added.boxes, added.landmarks, strict=True)
    ]


def _distinct(
    rows: list[tuple[np.ndarray, np.ndarray, str]],
) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """Without the finds that show a face a second time: half of the smaller box lies in one before."""
    if len(rows) == 1:
        return rows
    boxes = np.array([box for box, _, _ in rows])
    again = np.tril(_overlap(boxes, boxes, of_smaller=True) >= 0.5, -1)
    return [row for row, known in zip(rows, again, strict=True) if not known.any()]


# ---------------------------------------------------------------- turned photos


def _stand(
    photo: np.ndarray, finds: _Finds | None, pack: Detector, first: Attempt
) -> tuple[_Finds | None, int]:
    """The finds in the orientation in which the likeliest face stands, and how far the photo was turned."""
    best, turned, score = finds, 0, 0.0
    attempts = [first]  # most faces are found best in it, small ones only in the one that found them
    if finds is not None and finds.score >= THRESHOLD and finds.attempt != first:
        attempts.append(finds.attempt)
    degrees_to_try = _turns(photo, finds, pack, first)
    for attempt in attempts:
        for degrees in degrees_to_try:
            standing = _turn(photo, degrees)
            boxes, landmarks = _detect(standing, pack, attempt)
            sure = boxes[:, 4] >= THRESHOLD
            boxes, landmarks = boxes[sure], landmarks[sure]
            better = _better(boxes, landmarks, standing.shape, finds, photo.shape, degrees)
            if boxes[better, 4].max(initial=0) > score:
                score, turned = boxes[better, 4].max(), degrees
                best = _ranked(boxes, landmarks, attempt, standing)
        if turned:
            break
    return best, turned


def _turns(photo: np.ndarray, finds: _Finds | None, pack: Detector, first: Attempt) -> list[int]:
    """By how many degrees the photo should be turned to see whether its likeliest face stands better then."""
    turns = [180, 90, 270]
    if finds is not None:
        points = finds.landmarks[0]
        if abs(_angles(points[None])[0]) >= 45:
            return turns
        eyes, mouth = (float(np.linalg.norm(b - a)) for a, b in (points[:2], points[3:]))
        upside_down_below = min(UPSIDE_DOWN_BELOW, 0.7 + (mouth / max(eyes, 1e-6) - NARROW_MOUTH) / 2)
        # Faces that fill the frame are found first of all: what is seen only later is less sure to be one.
        lying_below = LYING_BELOW if finds.attempt == first else TURNED_ELSEWHERE
        turns = [d for d in turns if finds.score < (upside_down_below if d == 180 else lying_below)]
    return _may_stand(photo, finds, turns, pack)


def _better(
    boxes: np.ndarray,
    landmarks: np.ndarray,
    shape: tuple[int, ...],
    finds: _Finds | None,
    before: tuple[int, ...],
    degrees: int,
) -> np.ndarray:
    """Which sure detections in a turned photo show that it stands better so. Bool `[n]`.

    before: the photo's shape before it was turned, by these degrees, and `finds` what was found in it.
    """
    score, angles, plausible = boxes[:, 4], _angles(landmarks), _plausible(boxes, landmarks, shape)
    if finds is None:
        return plausible
    corners = _turn_points(finds.boxes[0, :4].reshape(2, 2), before, degrees)
    there = np.concatenate([corners.min(0), corners.max(0)])
    same_place = (_overlap(boxes, there[None], of_smaller=True) >= 0.4)[:, 0]
    was = _angles(finds.landmarks[:1])[0]
    turn = np.abs((angles - _angles(_turn_points(finds.landmarks[:1], before, degrees)) + 180) % 360 - 180)
    stands = same_place & (np.abs(angles) < 45)
    gain = score - finds.score
    if abs(was) >= 60:  # it lies, and is the same face when it stands
        return stands & (gain >= -TURNED_MARGIN)
    # A face that is tilted stands in two orientations, and is seen as what it is both times.
    better = (
        stands & (score >= TURNED_LEAST) & (gain >= np.where(turn > 45, TURNED_MARGIN, 3 * TURNED_MARGIN))
    )
    if finds.score < THRESHOLD:
        better |= plausible & (score >= TURNED_ELSEWHERE)
    return better


def _may_stand(photo: np.ndarray, finds: _Finds | None, turns: list[int], pack: Detector) -> list[int]:
    """In which turned photos a face might stand: one quick look, at all side by side, at small size."""
    if not turns:
        return []
    window, size, least = photo, 96, THRESHOLD - 2 * TURNED_MARGIN
    if finds is not None and finds.score >= THRESHOLD:  # a face surely found can only be there
        box = finds.boxes[0, :4].reshape(2, 2)
        middle, side = box.mean(axis=0), np.ptp(box, axis=0).max()  # twice the face's on every side
        low, high = (middle - side).clip(0).astype(int), np.ceil(middle + side).clip(1).astype(int)
        window, size, least = photo[low[1] : high[1], low[0] : high[0]], 64, finds.score - TURNED_MARGIN
    scale = size / max(window.shape[:2])
    small = cv2.resize(window, None, fx=scale, fy=scale)
    strip = np.zeros((size, size * len(turns), 3), np.uint8)
    for place, degrees in enumerate(turns):
        turned = _turn(small, degrees)
        strip[: turned.shape[0], place * size : place * size + turned.shape[1]] = turned
    boxes, landmarks = pack.detect(strip, size * len(turns), WEAK_THRESHOLD)
    likely = (np.abs(_angles(landmarks)) < 45) & (boxes[:, 4] >= least)
    places = (boxes[likely, 0] + boxes[likely, 2]) // (2 * size)
    return [degrees for place, degrees in enumerate(turns) if place in places]


def _turn(photo: np.ndarray, degrees: int) -> np.ndarray:
    """A photo turned clockwise by 0, 90, 180 or 270 degrees."""
    codes = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    return photo if degrees == 0 else cv2.rotate(photo, codes[degrees])


def _turn_points(points: np.ndarray, shape: tuple[int, ...], degrees: int) -> np.ndarray:
    """Where points `[..., 2]` (x, y) of a photo of this shape lie once it is turned clockwise."""
    height, width = shape[:2]
    for _ in range(degrees % 360 // 90):
        points = np.stack([height - 1 - points[..., 1], points[..., 0]], axis=-1)
        height, width = width, height
    return points
