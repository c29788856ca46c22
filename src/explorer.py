"""A threshold to be moved by hand: what it accepts, and the pairs just on either side of it."""

import html
from dataclasses import dataclass

import cv2
import ipywidgets
import numpy as np

from src.evaluation.pairs import Trials, checked
from src.limits import NotPossible

MOST_PHOTOS = 4_500  # 10^7 pairs; of larger test sets a part is taken, by lot
_TILE = 1024  # rows of the similarity matrix that are worked on at once
_SHOWN = 4  # pairs of a kind on each side of the threshold
_SIDE = 72  # px of a crop as it is shown


@dataclass(frozen=True)
class Pairs:
    """The pairs of one kind by score: `score` [n], ascending, and `a` and `b` [n], rows of the embeddings."""

    score: np.ndarray
    a: np.ndarray
    b: np.ndarray

    def accepted(self, threshold: float) -> float:
        """The share of scores that reach the threshold, 0-1; NaN without pairs."""
        if not len(self.score):
            return np.nan
        return 1 - np.searchsorted(self.score, np.float32(threshold)) / len(self.score)

    def beside(self, threshold: float, count: int = _SHOWN) -> tuple[list[int], list[int]]:
        """Positions of the pairs just below and just above the threshold, the nearest first."""
        at = int(np.searchsorted(self.score, np.float32(threshold)))
        below = list(range(at - 1, max(at - 1 - count, -1), -1))
        return below, list(range(at, min(at + count, len(self.score))))


def sorted_pairs(embeddings: np.ndarray, test: Trials, seed: int = 0) -> dict[str, Pairs]:
    """The genuine and the impostor pairs of a test set by score, near-duplicates aside.

    embeddings: float32 [N, D] unit rows. Of more than MOST_PHOTOS photos so many are taken, by lot. Pairs
    with a failure to enrol have no score and are rejected at every threshold: they stand at -2.
    """
    taken = np.arange(len(test.rows))
    if len(taken) > MOST_PHOTOS:
        taken = np.sort(np.random.default_rng(seed).choice(taken, MOST_PHOTOS, replace=False))
    vectors = checked(embeddings, test.rows, "the model")[taken].astype(np.float32)
    identity, group, rows = test.identity[taken], test.group[taken], test.rows[taken]
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {"genuine": [], "impostor": []}
    for start in range(0, len(taken), _TILE):
        scores = np.nan_to_num(vectors[start : start + _TILE] @ vectors.T, nan=-2.0)
        here = np.arange(start, start + len(scores))
        later = here[:, None] < np.arange(len(taken))
        later &= ~((group[here, None] == group) & (group >= 0))
        same = identity[here, None] == identity
        for kind, chosen in (("genuine", later & same), ("impostor", later & ~same)):
            i, j = np.nonzero(chosen)
            parts[kind].append((scores[i, j], rows[here[i]], rows[j]))
    found = {}
    for kind, several in parts.items():
        score, a, b = (np.concatenate(columns) for columns in zip(*several, strict=True))
        order = np.argsort(score, kind="stable")
        found[kind] = Pairs(score[order], a[order].astype(np.int32), b[order].astype(np.int32))
    return found


def in_words(pairs: dict[str, Pairs], threshold: float) -> str:
    """What is accepted at a threshold: TAR and FAR of these pairs, and how many that are."""
    texts = []
    for kind, name in (("genuine", "TAR"), ("impostor", "FAR")):
        share, count = pairs[kind].accepted(threshold), len(pairs[kind].score)
        texts.append(
            f"{name} {share:.2%}: {round(share * count) if count else 0:,} of {count:,} {kind} pairs"
        )
    return "; ".join(texts)


def picture(pairs: dict[str, Pairs], threshold: float, crops: np.ndarray) -> bytes:
    """A PNG of the pairs just on either side: genuine above, impostor below; left rejected, right not.

    crops: uint8 [N, H, W, 3] RGB.
    """
    canvas = np.full((2 * (_SIDE + 8), (2 * _SHOWN) * (2 * _SIDE + 8) + 16, 3), 255, np.uint8)
    for row, kind in enumerate(("genuine", "impostor")):
        below, above = pairs[kind].beside(threshold)
        places = [*enumerate(range(_SHOWN - 1, -1, -1)), *enumerate(range(_SHOWN, 2 * _SHOWN))]
        for at, (_, place) in zip([*_padded(below), *_padded(above)], places, strict=True):
            if at is None:
                continue
            left = place * (2 * _SIDE + 8) + (16 if place >= _SHOWN else 0)
            both = [crops[pairs[kind].a[at]], crops[pairs[kind].b[at]]]
            small = [
                cv2.resize(np.asarray(crop), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for crop in both
            ]
            top = row * (_SIDE + 8)
            canvas[top : top + _SIDE, left : left + 2 * _SIDE] = np.concatenate(small, axis=1)
    middle = _SHOWN * (2 * _SIDE + 8) + 4
    canvas[:, middle : middle + 2] = (213, 94, 0)
    return cv2.imencode(".png", cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))[1].tobytes()


def _padded(positions: list[int]) -> list[int | None]:
    return [*positions, *[None] * (_SHOWN - len(positions))]


def explore(
    embeddings: np.ndarray, test: Trials, crops: np.ndarray, threshold: float, model: str = ""
) -> ipywidgets.VBox:
    """A slider for the threshold; FAR, TAR and the pairs beside it follow. Needs a live notebook.

    crops: uint8 [N, 112, 112, 3] RGB, row i being row i of the embeddings. threshold: where it begins, such
    as the one chosen on val; NaN begins in the middle. Raises NotPossible where no pair has a score.
    """
    pairs = sorted_pairs(embeddings, test)
    scored = [part.score[part.score >= -1] for part in pairs.values()]
    if not any(len(part) for part in scored):
        raise NotPossible("no pair has a score")
    low, high = (float(f([f(part) for part in scored if len(part)])) for f in (np.min, np.max))
    start = threshold if np.isfinite(threshold) else (low + high) / 2
    slider = ipywidgets.FloatSlider(
        value=start,
        min=low,
        max=high,
        step=(high - low) / 500,
        description="threshold",
        readout_format=".3f",
        layout=ipywidgets.Layout(width="640px"),
    )
    words = ipywidgets.HTML()
    image = ipywidgets.Image(format="png")

    def follow(_: object = None) -> None:
        words.value = html.escape(in_words(pairs, slider.value))
        image.value = picture(pairs, slider.value, crops)

    slider.observe(follow, names="value")
    follow()
    legend = f"{model}: above one person, below two; left of the line rejected, right of it accepted"
    return ipywidgets.VBox([slider, words, ipywidgets.HTML(html.escape(legend)), image])
