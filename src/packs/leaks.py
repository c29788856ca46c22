"""The audit of a split by what the split did not go by: the nearest pairs across it, to be looked at."""

from itertools import combinations

import cv2
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from src.photos.splitting import SPLITS

_SIDE = 32  # pixels of a crop's descriptor a side
_FACE = np.s_[14:112, 14:98]  # of a crop
_BLOCK = 1024  # rows of the table of all pairs, worked on at once
_SAMPLE = 1500  # faces of each side, from which it is told how near different people come
SHOWN = 4  # pairs of two splits and of one measure

BY_CROP, BY_EMBEDDING = "crops", "embedding"


def nearest(faces: pd.DataFrame, crops: np.ndarray, embeddings: np.ndarray) -> pd.DataFrame:
    """The nearest pairs across every two splits, SHOWN by each of two measures, nearest first.

    faces: a row a photo, with `path`, `identity` and `split`. crops: uint8 `[N, 112, 112, 3]` RGB.
    embeddings: float32 `[N, D]`, unit rows. Row i of each is face i. Every pair is looked at.

    `by` is BY_CROP, the correlation of crops whose contrast is made the same everywhere (after Tan and
    Triggs, TIP 2010), as they are or one of them mirrored, or BY_EMBEDDING, the cosine. The split went by
    neither: by hashes and thumbnails of whole photos, and by faces' coarse grey values after an alignment of
    their own.

    Columns: `splits`, `by`, `score`, `apart`, `path`, `other`, `same_person`, and `a` and `b`, rows of faces.
    `apart`: what 999 of 1,000 pairs of different people across these splits stay below; they are surely
    different photos. The nearest photos of one person may be above and still be different ones.
    """
    split, person = faces["split"].to_numpy(), pd.factorize(faces["identity"])[0]
    shown = _descriptors(crops)
    flipped = _descriptors(crops[:, :, ::-1])
    rows = []
    for first, second in combinations(SPLITS, 2):
        one, two = np.flatnonzero(split == first), np.flatnonzero(split == second)
        if not len(one) or not len(two):
            continue
        measures = {
            BY_CROP: (shown[one], (shown[two], flipped[two])),
            BY_EMBEDDING: (embeddings[one], (embeddings[two],)),
        }
        for by, (here, there) in measures.items():
            apart = _apart(here, there, person[one], person[two])
            for score, i, j in _best(here, there):
                a, b = int(one[i]), int(two[j])
                rows.append((f"{first} - {second}", by, score, apart, a, b))
    table = pd.DataFrame(rows, columns=["splits", "by", "score", "apart", "a", "b"])
    path = faces["path"].to_numpy()
    return table.assign(
        path=path[table["a"]], other=path[table["b"]], same_person=person[table["a"]] == person[table["b"]]
    )


def side_by_side(pairs: pd.DataFrame, crops: np.ndarray) -> tuple[list[np.ndarray], list[str]]:
    """The pairs of `nearest` as pictures, uint8 `[112, 224, 3]`, and their scores, for a contact sheet."""
    pictures = [
        np.concatenate([crops[a], crops[b]], axis=1) for a, b in zip(pairs["a"], pairs["b"], strict=True)
    ]
    return pictures, [f"{by} {score:.2f}" for by, score in zip(pairs["by"], pairs["score"], strict=True)]


def across_people(images: pd.DataFrame) -> str:
    """How many groups of `splitting.split`'s table lie under several people, and where they are, in words."""
    used = images[(images["split"] != "") & (images["group"] >= 0)]
    several = used.groupby("group")["identity"].transform("nunique") > 1
    if not several.any():
        return "No group of photos that show the same lies under several people."
    there = used[several]
    splits = ", ".join(sorted(there["split"].unique()))
    return (
        f"{there['group'].nunique()} groups of photos that show the same lie under several people "
        f"({len(there)} photos of {there['identity'].nunique()} people, in {splits}): likely wrong labels."
    )


def _descriptors(crops: np.ndarray) -> np.ndarray:
    """Luma of faces, with one contrast everywhere: float32 `[N, 1024]`, unit rows."""
    result = np.empty((len(crops), _SIDE**2), np.float32)
    for row, crop in enumerate(crops):
        luma = cv2.cvtColor(np.ascontiguousarray(crop[_FACE]), cv2.COLOR_RGB2GRAY)
        small = cv2.resize(luma, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        fine = gaussian_filter(small, 0.7) - gaussian_filter(small, 3)
        fine /= np.sqrt(gaussian_filter(fine**2, 4) + 1)
        result[row] = (fine - fine.mean()).ravel()
    return result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-6)


def _best(here: np.ndarray, there: tuple[np.ndarray, ...]) -> list[tuple[float, int, int]]:
    """The SHOWN highest scores and their pairs, each row at most once on either side."""
    found: list[tuple[float, int, int]] = []
    for start in range(0, len(here), _BLOCK):
        scores = _scores(here[start : start + _BLOCK], there)
        found += [
            (float(scores[i, j]), start + i, int(j)) for i, j in enumerate(scores.argmax(axis=1).tolist())
        ]
    kept: list[tuple[float, int, int]] = []
    for entry in sorted(found, reverse=True):
        if all(entry[2] != other[2] for other in kept):
            kept.append(entry)
        if len(kept) == SHOWN:
            break
    return kept


def _scores(here: np.ndarray, there: tuple[np.ndarray, ...]) -> np.ndarray:
    scores = here @ there[0].T
    for other in there[1:]:
        np.maximum(scores, here @ other.T, out=scores)
    return np.nan_to_num(scores, nan=-1.0)


def _apart(here: np.ndarray, there: tuple[np.ndarray, ...], person: np.ndarray, others: np.ndarray) -> float:
    """What 999 of 1,000 pairs of different people stay below; NaN where there are none."""
    one = np.linspace(0, len(here) - 1, min(_SAMPLE, len(here))).astype(int)
    two = np.linspace(0, len(others) - 1, min(_SAMPLE, len(others))).astype(int)
    scores = _scores(here[one], tuple(part[two] for part in there))
    scores = scores[person[one][:, None] != others[two]]
    return float(np.quantile(scores, 0.999)) if len(scores) else np.nan
