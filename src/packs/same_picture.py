"""Whether two crops show the same picture: recropped, blurred, shrunken, re-encoded, grey or mirrored.

The two are compared at a resolution that a blurred face of 16 pixels still has, where they overlap, after an
affine alignment. There copies agree almost perfectly, and different photos of one person do not.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from src.packs.alignment import LANDMARKS, SIDE, similarity

GRID = 28  # pixels a side of what is compared
BLUR = 4.0  # px of a crop: standard deviation of the blur before, about what 20 pixels a crop leave
STEPS = 8  # of the alignment
STRETCH, SHIFT = 0.35, 6.0  # how far it may go from its start: share of the size, pixels of the grid
LEAST_OVERLAP, LEAST_PIXELS = 0.5, 90  # of the smaller picture, and of the grid, that both must show
BROAD = 2.0  # pixels of the grid: standard deviation of the blur that leaves light and shade
FINE, FINE_BLURS = 2 * GRID, ((2.0, 2.0), (4.0, 2.0), (2.0, 4.0))  # the finer grid, and px of blur of the two
LEAST_CONTRAST = 4.0  # grey levels; a crop of less shows next to nothing

COARSE = 16  # pixels a side of what is looked for, and looked in, where the landmarks do not tell
SCALES = 1.16 ** np.arange(-6, 5)  # of one crop in another, tried there
CENTRE = 0.75  # of the sides of a picture is looked for in another
LEAST_START = 0.88  # correlation from which a place is worth an alignment
_PAD, _LEAST_SIDE = 2, 5  # pixels of the coarse grid
_BATCH = 512  # pairs worked on at once


@dataclass(frozen=True)
class Pictures:
    """Crops at the resolution at which they are compared; rows are those of the candidates."""

    grey: np.ndarray  # float32 [M, 28, 28], luma, 0-255, blurred; what lies outside the photo is filled in
    weight: np.ndarray  # float32 [M, 28, 28], 0-1: how much of a pixel lies in the photo
    angle: np.ndarray  # float64 [M], radians: by how much the photo was turned for the crop
    stretch: np.ndarray  # float64 [M]: width by height of a photo that was squeezed to a crop whole, else 1
    uncertain: np.ndarray  # bool [M]: the photo ends within the face, or there is none: landmarks may be off

    def __len__(self) -> int:
        return len(self.grey)

    def mirrored(self) -> "Pictures":
        flip = np.s_[:, :, ::-1]
        return Pictures(self.grey[flip], self.weight[flip], -self.angle, self.stretch, self.uncertain)

    def contrast(self) -> np.ndarray:
        """Standard deviation of the luma within the photo, grey levels `[M]`."""
        total = self.weight.sum((1, 2))
        mean = (self.grey * self.weight).sum((1, 2)) / np.maximum(total, 1)
        square = ((self.grey - mean[:, None, None]) ** 2 * self.weight).sum((1, 2))
        return np.sqrt(square / np.maximum(total, 1))


def pictures(
    crops: np.ndarray, candidates: pd.DataFrame, sizes: np.ndarray, grid: int = GRID, blur: float = BLUR
) -> Pictures:
    """Prepares crops, uint8 `[M, 112, 112, 3]` RGB, of `faces.every_face`, for comparison.

    grid: pixels a side of what is compared. blur: px of a crop, the standard deviation of the blur before.

    candidates: the crops' landmarks, in px of the photos; NaN where the crop is the whole photo. sizes: width
    and height of each candidate's photo, px, `[M, 2]`.
    """
    names = [f"{name}_{axis}" for name in LANDMARKS for axis in "xy"]
    points = candidates[names].to_numpy(np.float64).reshape(len(candidates), len(LANDMARKS), 2)
    grey: np.ndarray = np.empty((len(crops), grid, grid), np.float32)
    weight: np.ndarray = np.ones((len(crops), grid, grid), np.float32)
    angle, stretch = np.zeros(len(crops)), np.ones(len(crops))
    uncertain = np.zeros(len(crops), bool)
    for row in range(len(crops)):
        luma = cv2.cvtColor(np.ascontiguousarray(crops[row]), cv2.COLOR_RGB2GRAY).astype(np.float32)
        if np.isnan(points[row]).any():
            grey[row] = _low(luma, grid, blur)
            stretch[row], uncertain[row] = sizes[row, 0] / max(1, sizes[row, 1]), True
            continue
        move = similarity(points[row])
        angle[row] = np.arctan2(move[1, 0], move[0, 0])
        inside = _inside(move, sizes[row])
        if inside is None:
            grey[row] = _low(luma, grid, blur)
            continue
        share = _low(inside, grid, blur)
        grey[row] = _low(luma * inside, grid, blur) / np.maximum(share, 1e-3)
        weight[row] = np.clip((share - 0.7) / 0.25, 0, 1)  # near the edge the blur tells of the edge
        uncertain[row] = inside[_FACE].mean() < 0.98
    return Pictures(grey, weight, angle, stretch, uncertain)


_FACE = np.s_[20:108, 16:96]  # of a crop: from the brows to the chin, from cheek to cheek


def _low(values: np.ndarray, grid: int, blur: float) -> np.ndarray:
    """Values `[112, 112]`, blurred, on a grid. Beyond the border they go on as at the edge."""
    factor = 2 if blur >= 3 else 1
    small = cv2.resize(values, (SIDE // factor, SIDE // factor), interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), blur / factor, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(blurred, (grid, grid), interpolation=cv2.INTER_AREA)


def _inside(move: np.ndarray, size: np.ndarray) -> np.ndarray | None:
    """Which pixels of a crop lie in the photo, float32 `[112, 112]`; None where all do."""
    back = np.linalg.inv(np.vstack([move, [0, 0, 1]]))[:2]
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    x, y = (row[0] * across + row[1] * down + row[2] for row in back)
    inside = (x >= 0) & (y >= 0) & (x <= size[0] - 1) & (y <= size[1] - 1)
    return None if inside.all() else inside.astype(np.float32)


# ---------------------------------------------------------------- alignment


@cache
def _places(grid: int) -> tuple[np.ndarray, np.ndarray]:
    """How far to the right of the middle, and below it, each pixel is: float32 `[grid, grid]`, px."""
    at = np.arange(grid, dtype=np.float32) - (grid - 1) / 2
    down, across = np.meshgrid(at, at, indexing="ij")
    return across, down


def agreement(
    first: Pictures, second: Pictures, pairs: np.ndarray, starts: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Correlation `[P]` of pictures once aligned; `pairs` `[P, 2]` are rows of the first and of the second.

    Returns the moves `[P, 2, 3]` that align them, too.

    starts: from where each alignment begins, affine moves `[P, 2, 3]` from the grid of the first picture to
    that of the second, in px from the middle; by default nothing is moved. The alignment is that of Baker and
    Matthews (IJCV 2004): inverse compositional, affine, gain and offset of the grey values free. -1 where the
    two do not overlap enough, or show next to nothing.
    """
    if starts is None:
        starts = np.tile(np.eye(2, 3, dtype=np.float32), (len(pairs), 1, 1))
    result, moves = np.empty(len(pairs), np.float32), starts.copy()
    for start in range(0, len(pairs), _BATCH):
        some = slice(start, start + _BATCH)
        result[some], moves[some] = _aligned(first, second, pairs[some, 0], pairs[some, 1], starts[some])
    return result, moves


def detail(first: Pictures, second: Pictures, pairs: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Correlation `[P]` of what is left of pictures when their broad light and shade is taken out.

    pairs and moves: of `agreement`. All faces have the light and shade of a face in common.
    """
    result = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _BATCH):
        some = slice(start, start + _BATCH)
        one, two, weight, _ = _details(first, second, pairs[some], moves[some])
        product = _normalised(one, weight)[0] * _normalised(two, weight)[0]
        result[some] = (weight * product).sum((1, 2))
    return result


def everywhere(first: Pictures, second: Pictures, pairs: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """How far pictures agree where they agree least, `[P]`, 1 at best.

    1 less the mean square difference of their detail around a pixel, as a share of the detail there; of all
    pixels the one that a tenth of them fall short of. Silhouettes before a dark wall agree but for the face.
    """
    result = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _BATCH):
        some = slice(start, start + _BATCH)
        one, two, weight, broad = _details(first, second, pairs[some], moves[some])
        sums = [(values * weight).sum((1, 2), keepdims=True) for values in (one * two, two**2, one**2)]
        gain = sums[0] / np.maximum(sums[1], 1e-6)
        usual = sums[2] / np.maximum(weight.sum((1, 2), keepdims=True), 1e-6)
        around, there, off = (
            gaussian_filter(values * weight, (0, broad, broad))
            for values in (np.ones_like(one), one**2, (one - gain * two) ** 2)
        )
        share = off / (there + 0.05 * usual * (around + 1e-3) + 1e-6)
        for row, (values, inside) in enumerate(zip(share, around > 0.6, strict=True), start):
            result[row] = 1 - np.quantile(values[inside], 0.9) if inside.any() else -1
    return result


def _details(
    first: Pictures, second: Pictures, pairs: np.ndarray, moves: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """The aligned pictures without broad light and shade, the weight of each pixel, and how broad that is."""
    grid = first.grey.shape[1]
    broad = BROAD * grid / GRID
    one, other = pairs.T
    matrices = np.tile(np.eye(3, dtype=np.float32), (len(one), 1, 1))
    matrices[:, :2] = moves
    stack, weights = (values[other].reshape(-1, grid) for values in (second.grey, second.weight))
    seen, weight = _sampled(stack, weights, matrices)
    weight *= first.weight[one]
    around = gaussian_filter(weight, (0, broad, broad)) + 1e-3
    fine = [
        values - gaussian_filter(values * weight, (0, broad, broad)) / around
        for values in (first.grey[one], seen)
    ]
    return fine[0], fine[1], weight, broad


def _aligned(
    first: Pictures, second: Pictures, one: np.ndarray, other: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    count, grid = len(one), first.grey.shape[1]
    half, (to_right, below) = grid / 2, _places(grid)
    moves = np.zeros((count, 3, 3), np.float32)
    moves[:, 2, 2] = 1
    moves[:, :2] = starts
    reach = SHIFT * grid / GRID
    begin, kept = moves.copy(), moves.copy()
    target, target_weight = first.grey[one], first.weight[one]
    stack = second.grey[other].reshape(-1, grid)
    # beside the picture there is nothing
    weights = second.weight[other].reshape(-1, grid)
    least = LEAST_OVERLAP * np.minimum(target_weight.sum((1, 2)), second.weight[other].sum((1, 2)))
    least = np.maximum(least, LEAST_PIXELS * (grid / GRID) ** 2)
    normal, best = _normalised(target, target_weight)[0], np.full(count, -1, np.float32)
    down, across = np.gradient(normal, axis=(1, 2))
    slopes = [across * to_right / half, across * below / half, across]
    slopes += [down * to_right / half, down * below / half, down, normal, np.full_like(normal, 1 / grid)]
    jacobian = np.stack(slopes, axis=1).reshape(count, 8, -1)
    weighted = jacobian * target_weight.reshape(count, 1, -1)
    hessian = weighted @ jacobian.transpose(0, 2, 1)
    trace = np.trace(hessian, axis1=1, axis2=2)[:, None, None]
    # an inverse of 8 x 8 and a product are several times as fast as `solve` for so many right-hand sides
    solver = np.linalg.inv(hessian + (1e-4 / 8 * trace + 1e-6) * np.eye(8, dtype=np.float32)) @ weighted
    for step in range(STEPS):
        values, weight = _sampled(stack, weights, moves)
        weight *= target_weight
        seen, scale = _normalised(values, weight)
        fixed = _normalised(target, weight)[0]
        fit = (weight * seen * fixed).sum((1, 2))
        fit[(weight.sum((1, 2)) < least) | (scale < LEAST_CONTRAST * half)] = -1
        better = fit > best
        best[better], kept[better] = fit[better], moves[better]
        if step == STEPS - 1:
            break
        # what lies outside says nothing
        error = np.where(weight > 0, seen - normal * (seen * normal * weight).sum((1, 2), keepdims=True), 0)
        change = (solver @ error.reshape(count, -1, 1))[:, :6, 0].reshape(count, 2, 3)
        change[:, :, :2] /= half
        inverse = np.zeros_like(moves)
        inverse[:, :2], inverse[:, 2, 2] = change, 1
        inverse[:, [0, 1], [0, 1]] += 1
        moves = moves @ np.linalg.inv(inverse)
        off = moves - begin
        moves = begin + np.concatenate(
            [off[:, :, :2].clip(-STRETCH, STRETCH), off[:, :, 2:].clip(-reach, reach)], axis=2
        )
    return best, kept[:, :2]


def _sampled(stack: np.ndarray, weights: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures that lie one below the other, `[B * S, S]`, moved, and their weights: `[B, S, S]` each."""
    grid = stack.shape[1]
    to_right, below = _places(grid)
    middle = (grid - 1) / 2
    x, y = (
        row[:, 0, None, None] * to_right + row[:, 1, None, None] * below + row[:, 2, None, None] + middle
        for row in (moves[:, 0], moves[:, 1])
    )
    inside = (x >= -0.5) & (x <= grid - 0.5) & (y >= -0.5) & (y <= grid - 0.5)
    x, y = x.clip(0, grid - 1), y.clip(0, grid - 1)
    y += np.arange(len(moves), dtype=np.float32)[:, None, None] * grid
    x, y = (values.reshape(-1, grid).astype(np.float32) for values in (x, y))
    values, weight = (
        cv2.remap(source, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(-1, grid, grid)
        for source in (stack, weights)
    )
    return values, weight * inside


def _normalised(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values `[B, S, S]` with weighted mean 0 and norm 1, and the norms `[B]` they had."""
    total = np.maximum(weight.sum((1, 2), keepdims=True), 1e-6)
    values = values - (values * weight).sum((1, 2), keepdims=True) / total
    norm = np.sqrt((values**2 * weight).sum((1, 2), keepdims=True))
    return values / np.maximum(norm, 1e-3), norm[:, 0, 0]


# ---------------------------------------------------------------- where the landmarks do not tell


@dataclass(frozen=True)
class _Search:
    """A picture as it stands in its photo, on a coarser grid: its middle in several sizes, and all of it."""

    templates: list[tuple[float, np.ndarray]]  # scale, pixels
    middle: np.ndarray  # [2]: the templates' from the picture's, x and y in px of the coarse grid
    field: np.ndarray  # with a border
    turn: np.ndarray  # [2, 2]: from the photo as it stands to its crop
    back: np.ndarray  # and back


class Finder:
    """Where pictures may lie in each other, for those whose landmarks may be off."""

    def __init__(self, first: Pictures, second: Pictures) -> None:
        self.first, self.second = first, second
        self._one: dict[int, _Search] = {}
        self._other: dict[int, _Search] = self._one if first is second else {}

    def starts(self, one: int, other: int) -> list[tuple[float, np.ndarray]]:
        """Places of the middle of the first picture in the second: correlation, and the move `[2, 3]` for it.

        Looked for at SCALES, both as they stand in their photos, by normalised correlation (Lewis, Vision
        Interface 1995). One place for each scale.
        """
        here, there = self._of(self.first, self._one, one), self._of(self.second, self._other, other)
        found = []
        for scale, template in here.templates:
            scores = cv2.matchTemplate(there.field, template, cv2.TM_CCOEFF_NORMED)
            _, score, _, (x, y) = cv2.minMaxLoc(scores)
            if score < LEAST_START:
                continue
            sides = template.shape
            place = np.array([x + (sides[1] - 1) / 2, y + (sides[0] - 1) / 2]) - _PAD - (COARSE - 1) / 2
            move = np.empty((2, 3), np.float32)
            move[:, :2] = scale * there.turn @ here.back
            move[:, 2] = there.turn @ (place - scale * here.middle) * (GRID / COARSE)
            found.append((score, move))
        return found

    @staticmethod
    def _of(pictures: Pictures, known: dict[int, _Search], row: int) -> _Search:
        if row not in known:
            known[row] = _prepared(pictures, row)
        return known[row]


def _turn(pictures: Pictures, row: int) -> np.ndarray:
    """From a photo as it stands to its crop, `[2, 2]`: turned, or squeezed to a square."""
    cosine, sine, stretch = np.cos(pictures.angle[row]), np.sin(pictures.angle[row]), pictures.stretch[row]
    return np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([max(1, 1 / stretch), max(1, stretch)])


def _prepared(pictures: Pictures, row: int) -> _Search:
    move, centre, ratio = _turn(pictures, row), (COARSE - 1) / 2, GRID / COARSE
    matrix = np.column_stack([ratio * move, (GRID - 1) / 2 - ratio * move @ [centre, centre]])
    back = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (COARSE, COARSE)
    smooth = cv2.GaussianBlur(pictures.grey[row], (0, 0), 0.4 * ratio, borderType=cv2.BORDER_REPLICATE)
    picture = cv2.warpAffine(smooth, matrix, size, flags=back, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.warpAffine(pictures.weight[row], matrix, size, flags=back, borderValue=0)
    box = []
    for axis in (0, 1):
        share = weight.mean(axis=axis)
        there = np.flatnonzero(share > 0.4 * share.max())
        low, high = int(there[0]), int(there[-1]) + 1
        side = max(_LEAST_SIDE, round(CENTRE * (high - low)))
        low = min(max(0, round((low + high - side) / 2)), COARSE - side)
        box.append((low, low + side))
    (left, right), (top, bottom) = box
    middle = np.array([left + right - 1, top + bottom - 1]) / 2 - centre
    templates = []
    for scale in SCALES:
        sides = round((right - left) * scale), round((bottom - top) * scale)
        if min(sides) >= _LEAST_SIDE and max(sides) <= COARSE + 2 * _PAD:
            how_sized = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            templates.append(
                (float(scale), cv2.resize(picture[top:bottom, left:right], sides, interpolation=how_sized))
            )
    field = cv2.copyMakeBorder(picture, _PAD, _PAD, _PAD, _PAD, cv2.BORDER_REPLICATE)
    return _Search(templates, middle, field, move, np.linalg.inv(move))
