"""Photos to aligned crops: detection with retries for tight, tiny and blurred faces, choice, alignment."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from src import dataset

if TYPE_CHECKING:
    from src.insightface_pack import Pack

SIDE = 112  # pixels; the size of a crop

# Where ArcFace models expect the landmarks in a crop (insightface.utils.face_align).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)
LANDMARKS = ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth")
COLUMNS = (
    "left", "top", "right", "bottom", *(f"{name}_{axis}" for name in LANDMARKS for axis in "xy"), "score",
)  # fmt: skip
WHOLE = "whole photo"


@dataclass(frozen=True)
class Attempt:
    """One way to look for a face: `size` is what the photo's longer side is brought to, in pixels (None: as
    `FaceAnalysis` does), `margin` the border added on every side, as a share of the longer side."""

    name: str
    size: int | None
    margin: float = 0.0
    threshold: float = 0.5


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


def extract(
    images: pd.DataFrame,
    folder: Path,
    pack: Pack,
    attempts: Sequence[Attempt] = ATTEMPTS,
    workspace: Path | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Finds, chooses and aligns one face in every usable image (`status` "ok").

    Returns `faces`, one row per usable image in the same order, with the columns of `images` and those of the
    face (pixels of the upright photo), and `crops`, uint8 `[N, 112, 112, 3]` RGB, memory-mapped. Where no
    attempt finds a face, the whole photo is the crop: `found` says "whole photo", landmarks are NaN.
    With a workspace, what was found before an interruption is not looked for again.
    """
    from src.insightface_pack import in_order

    usable = images[images["status"] == "ok"].reset_index(drop=True)
    place = Path(workspace or tempfile.mkdtemp(prefix="crops-"))
    file, log = place / "crops.npy", place / "found.csv"
    shape = (len(usable), SIDE, SIDE, 3)
    rows: list[dict[Any, Any]] = []
    if file.exists() and log.exists():
        rows = pd.read_csv(log, float_precision="round_trip").to_dict("records")
    crops = np.lib.format.open_memmap(file, "r+" if rows else "w+", np.uint8, shape)

    def one(path: str) -> tuple[dict[Any, Any], np.ndarray]:
        return find_face(dataset.read_rgb(Path(folder) / path), pack, attempts)

    start = len(rows)
    bar = tqdm(total=len(usable), initial=start, desc="faces", unit=" photos", leave=False)
    with bar:
        for i, (row, crop) in enumerate(in_order(one, usable["path"].iloc[start:], pack), start):
            crops[i] = crop
            rows.append(row)
            if len(rows) % 128 == 0:
                _checkpoint(crops, rows, log)
            bar.update()
    crops.flush()
    table = pd.DataFrame(rows, columns=[*COLUMNS, "found", "n_faces", "eye_distance"])
    table = table.astype(dict.fromkeys((*COLUMNS, "eye_distance"), np.float32))
    return pd.concat([usable, table], axis=1), crops


def _checkpoint(crops: np.memmap, rows: list[dict[Any, Any]], log: Path) -> None:
    crops.flush()
    partial = log.with_suffix(".partial")
    pd.DataFrame(rows).to_csv(partial, index=False)
    partial.replace(log)


def find_face(
    photo: np.ndarray, pack: Pack, attempts: Sequence[Attempt] = ATTEMPTS
) -> tuple[dict[Any, Any], np.ndarray]:
    """The face of a photo, uint8 `[H, W, 3]` RGB: its row (COLUMNS, found, n_faces, eye_distance) and crop."""
    for attempt in attempts:
        boxes, landmarks = _detect(photo, pack, attempt)
        good = np.array(
            [_plausible(b, p, photo.shape, attempt) for b, p in zip(boxes, landmarks, strict=True)], bool
        )
        if good.any():
            boxes, landmarks = boxes[good], landmarks[good]
            best = int(np.argmax(_rank(boxes, photo.shape)))
            points = landmarks[best]
            values = [*boxes[best, :4], *points.ravel(), boxes[best, 4]]
            row: dict[Any, Any] = dict(zip(COLUMNS, map(float, values), strict=True))
            row |= {
                "found": attempt.name,
                "n_faces": len(boxes),
                "eye_distance": float(np.linalg.norm(points[0] - points[1])),
            }
            return row, align(photo, points)
    height, width = photo.shape[:2]
    row = dict.fromkeys(COLUMNS, float("nan")) | {"left": 0.0, "top": 0.0, "right": width, "bottom": height}
    row |= {"score": 0.0, "found": WHOLE, "n_faces": 0, "eye_distance": float("nan")}
    return row, cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _detect(photo: np.ndarray, pack: Pack, attempt: Attempt) -> tuple[np.ndarray, np.ndarray]:
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
