"""Finds photos that repeat each other: exact copies, near-duplicates of one person, conflicts between people.

Hashes propose pairs, in a time that grows linearly with the photos. Of one person, the alignment of their
thumbnails decides. Across people that is not enough: photos of one fixed camera share all but the person in
front of it. There the decoded pictures must agree, everywhere.
"""

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

from src.photos import decoding
from src.photos.decoding import THUMBNAIL_SIDE
from src.photos.paths import open_path

# Measured with benchmarks/near_duplicates.py: correlation of aligned thumbnails, and for the graver verdict
# across people also that of the decoded pictures.
THUMBNAIL_CORRELATION = 0.985
PICTURE_CORRELATION = 0.95

BLANK_RANGE = 8  # grey levels; a thumbnail of no more shows one shade, not a photo

_BATCH = 256  # thumbnails, or pairs of them, worked on at once

# Hashes. The rows of _DCT are the eight lowest frequencies of a DCT-II of a thumbnail's side, in any scale.
_PHASES = np.outer(np.arange(8), np.arange(THUMBNAIL_SIDE) + 0.5)
_DCT = np.cos(np.pi / THUMBNAIL_SIDE * _PHASES).astype(np.float32)
# A crop moves a hash by up to 18 bits. So a photo is also looked up without 3 % of its width and height, cut
# on all sides, or at one of its corners.
_CROP = 0.03
_CROPS = [(0, 0, 0, 0), (_CROP,) * 4] + [(a, _CROP - a, b, _CROP - b) for a in (0, _CROP) for b in (0, _CROP)]
_RADIUS = 6  # bits in which the hashes of a pair may differ
_NEIGHBOURS = 64  # hashes that one is compared with per table, at most: keeps the search linear on any data
_PAIRS_PER_PHOTO = 12  # candidates that are looked at per photo, the nearest first
_PAIRS_ACROSS = 6  # further ones of a photo that many others look like, with photos of other people
_CROWD_LIMIT = 2**15  # photos that look alike and are compared all with all
_COMPONENTS = 64  # numbers by which they are compared

# Alignment.
_STEPS = 5
_STRETCH = (np.arange(THUMBNAIL_SIDE, dtype=np.float32) - (THUMBNAIL_SIDE - 1) / 2) / (THUMBNAIL_SIDE / 2)
_REACH = 2.5  # px of a thumbnail, 8 % of its side

# The comparison of decoded pictures, coarse to fine.
_SIDES = (64, 256)  # px, the longer side of what is compared
_BLOCKS = 32  # along the longer side; a block has five pixels a side at least
_LEAST_DIFFERENCE = 2.0  # grey levels; a smaller one is never held against a pair
_NOISE_FACTOR = 10.0  # nor is one whose square is up to so many times the usual one: that is noise
_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)  # of the alignment
_LEAST_OVERLAP = 0.4  # of the picture, its margin left out
_KEPT = 1024  # decoded pictures, of 200 KB each at most
_SHIFT = 1.4  # px; what a shift by it, or by less, brings about is no difference
_GLANCE = 4.0  # times the allowed difference at the coarser side: shrinking tiny pictures alters them
_GREY_RANGE = 6  # what red, green and blue of a grey picture differ in at most
# How programs turn colours to grey: ITU-R BT.601, ITU-R BT.709, the mean.
_TO_GREY = ((0.299, 0.587, 0.114), (0.2126, 0.7152, 0.0722), (1 / 3, 1 / 3, 1 / 3))


# ---------------------------------------------------------------- no picture, exact copies


def blank(thumbs: np.ndarray) -> np.ndarray:
    """Which thumbnails, uint8 `[N, 32, 32]`, show one shade all over: bool `[N]`.

    Black, white, single-coloured and hardly visible pictures. These equal each other without being copies.
    """
    return thumbs.max(axis=(1, 2)).astype(int) - thumbs.min(axis=(1, 2)) <= BLANK_RANGE


def set_aside_copies(images: pd.DataFrame, keys: pd.Series, what: str) -> None:
    """Sets aside, in place, the usable rows that share a key: copies of one photo; "" is the key of no copy.

    Of one person's copies the first row stays "ok", and the others become "duplicate". Copies under several
    people all become "label conflict", as nobody can tell whose the photo is.

    images: `path`, `identity`, `status`, `reason`, `duplicate_of`; the last three are written. keys: one per
    row. what: "file" or "picture", whichever is the same; for the sentence in `reason`.
    """
    usable = keys[(images["status"] == "ok") & (keys != "")]
    for _, copies in usable[usable.duplicated(keep=False)].groupby(usable, sort=False):
        if len(images.loc[copies.index, "identity"].unique()) > 1:
            _set_conflict(images, copies.index, what)
        else:
            first, others = images.loc[copies.index[0], "path"], copies.index[1:]
            images.loc[others, ["status", "reason", "duplicate_of"]] = (
                "duplicate",
                f"the same {what} as {first}",
                first,
            )


def _set_conflict(images: pd.DataFrame, rows: pd.Index, what: str) -> None:
    people = ", ".join(sorted(images.loc[rows, "identity"].unique()))
    images.loc[rows, ["status", "reason"]] = "label conflict", f"the same {what} under {people}"


def picture_digests(images: pd.DataFrame, folder: Path, thumbs: np.ndarray, pairs: np.ndarray) -> pd.Series:
    """Shape and SHA-256 of the decoded picture, for files that look equal to another one; "" for all others.

    Looking equal is: one of `candidates`' `pairs`, of the same size, with thumbnails (uint8 `[N, 32, 32]`)
    that differ by no more than rounding. So hardly any photo is decoded twice, and what is called the same
    picture is so to the last pixel.

    images: `path`, relative to `folder`, `width` and `height`.
    """
    digests = pd.Series("", index=images.index)
    paths = images["path"].to_numpy()
    first, second = pairs.T
    size = images[["width", "height"]].to_numpy()
    same = (size[first] == size[second]).all(axis=1)
    first, second = first[same], second[same]
    difference = np.abs(thumbs[first].astype(np.int16) - thumbs[second]).max(axis=(1, 2), initial=0)
    equal = difference <= 2
    for row in tqdm(np.union1d(first[equal], second[equal]), desc="comparing pixels", leave=False):
        try:
            pixels = decoding.read_rgb(open_path(folder, paths[row]))
        except (OSError, ValueError):  # it has gone, or changed, since it was examined
            continue
        digests[row] = f"{pixels.shape} {hashlib.sha256(pixels.data).hexdigest()}"
    return digests


# ---------------------------------------------------------------- hashes propose pairs


def phash(
    thumbs: np.ndarray, top: float = 0, bottom: float = 0, left: float = 0, right: float = 0
) -> np.ndarray:
    """Perceptual hashes uint64 `[N]` of luma thumbnails, uint8 `[N, 32, 32]`.

    ImageHash's `phash` for many images at once: bits say which of the 8 x 8 lowest frequencies exceed their
    median. top, bottom, left, right: shares of the height and width that are cropped off before.
    """
    rows, columns = _DCT @ _cropped(top, bottom), _DCT @ _cropped(left, right)
    codes = np.empty(len(thumbs), np.uint64)
    for start in range(0, len(thumbs), _BATCH):
        batch = thumbs[start : start + _BATCH].astype(np.float32)
        frequencies = (rows @ batch @ columns.T).reshape(len(batch), 64)
        bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
        codes[start : start + _BATCH] = np.packbits(bits, axis=1).view(">u8").ravel()
    return codes


def _cropped(before: float, after: float) -> np.ndarray:
    """Matrix `[32, 32]` that samples a thumbnail's side anew, without these shares at its ends."""
    pixels = np.arange(THUMBNAIL_SIDE, dtype=np.float32)
    return _linear((pixels + 0.5) * (1 - before - after) + before * THUMBNAIL_SIDE - 0.5)


def _linear(positions: np.ndarray) -> np.ndarray:
    """Matrices `[..., 32, 32]` that sample a thumbnail's side at positions `[..., 32]` (px), linearly."""
    positions = positions.clip(0, THUMBNAIL_SIDE - 1)
    return np.clip(1 - np.abs(positions[..., None] - np.arange(THUMBNAIL_SIDE, dtype=np.float32)), 0, None)


def candidates(images: pd.DataFrame, thumbs: np.ndarray) -> np.ndarray:
    """Pairs of usable rows, int64 `[P, 2]`, whose hashes, or hashes after a crop, differ in at most six bits.

    images: `identity`, `status`. thumbs: uint8 `[N, 32, 32]`, row by row. Of each photo only the nearest few
    pairs count. Pairs across people come from `_in_crowds` as well.

    Two hashes that differ in at most six bits agree in at least two of their eight bytes. So it is enough
    to sort them by every two bytes, 28 times, and to compare neighbours (multi-index hashing; Norouzi et
    al., CVPR 2012).
    """
    usable = np.flatnonzero(images["status"] == "ok")
    shown = thumbs[usable]
    codes = np.concatenate([phash(shown, *crop) for crop in _CROPS])
    owners = np.tile(usable, len(_CROPS))
    order = np.lexsort((owners, codes))
    codes, owners = codes[order], owners[order]
    found = []
    for step in (1, 2, 3, 4):  # photos of one hash: each with the next few
        here = np.flatnonzero(codes[:-step] == codes[step:])
        found.append(_near(owners[here], owners[here + step], codes[here] ^ codes[here + step]))

    codes, firsts = np.unique(codes, return_index=True)
    owners = owners[firsts]
    octets = codes.view(np.uint8).reshape(-1, 8).astype(np.uint16)
    for one, other in itertools.combinations(range(8), 2):
        keys = octets[:, one] << 8 | octets[:, other]
        order = np.argsort(keys, kind="stable")
        keys, here = keys[order], np.arange(len(keys))
        table = []
        for step in range(1, _NEIGHBOURS + 1):
            here = here[: np.searchsorted(here, len(keys) - step)]
            here = here[keys[here] == keys[here + step]]
            if not len(here):
                break
            a, b = order[here], order[here + step]
            table.append(_near(owners[a], owners[b], codes[a] ^ codes[b]))
        if table:
            found.append(np.unique(np.concatenate(table)))
    pairs = _nearest(np.unique(np.concatenate(found)))
    return np.concatenate([pairs, _in_crowds(images["identity"], thumbs, pairs)])


def _near(first: np.ndarray, second: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Pairs of different rows whose hashes differ in few enough bits.

    Each is one number, uint64: 28 bits for the lower row, 28 for the upper one, 8 for the bits that differ.
    """
    bits = np.bitwise_count(difference)
    near = (bits <= _RADIUS) & (first != second)
    first, second = first[near].astype(np.uint64), second[near].astype(np.uint64)
    return np.minimum(first, second) << np.uint64(36) | np.maximum(first, second) << np.uint64(8) | bits[near]


def _nearest(found: np.ndarray) -> np.ndarray:
    """Pairs int64 `[P, 2]` from `_near`'s sorted numbers: once each, those among the nearest of a photo."""
    found = found[np.unique(found >> np.uint64(8), return_index=True)[1]]
    row = np.uint64(2**28 - 1)
    first, second = (found >> np.uint64(36)).astype(np.int64), (found >> np.uint64(8) & row).astype(np.int64)
    bits = (found & np.uint64(255)).astype(np.int64)
    photo, pair = np.concatenate([first, second]), np.tile(np.arange(len(found)), 2)
    order = np.lexsort((pair, np.tile(second - first, 2), np.tile(bits, 2), photo))
    photo, pair = photo[order], pair[order]
    rank = np.arange(len(photo)) - np.searchsorted(photo, photo)
    kept = np.unique(pair[rank < _PAIRS_PER_PHOTO])
    kept = kept[np.argsort(bits[kept], kind="stable")]
    return np.column_stack([first[kept], second[kept]])


def _in_crowds(identity: pd.Series, thumbs: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Further pairs across people, int64 `[P, 2]`, where many photos look alike, as those of one camera do.

    There a hash does not tell which photo is nearest. So what all of a crowd's thumbnails have in common is
    taken out of them, wherever a small move puts it (a tangent distance; Simard et al., NIPS 1993); what is
    left is the person. The nearest few, by the distance of that, are paired.
    """
    people = pd.factorize(identity)[0]
    crowds = pd.Series(_components(len(identity), pairs))
    found = [pairs[:0]]
    for members in crowds.groupby(crowds).indices.values():
        parts = -(-len(members) // _CROWD_LIMIT)
        for rows in (members[part::parts] for part in range(parts)):
            if len(rows) <= _PAIRS_PER_PHOTO or len(np.unique(people[rows])) == 1:
                continue
            rest = _uncommon(thumbs[rows])
            lengths = (rest**2).sum(axis=1)
            for start in range(0, len(rows), _BATCH):
                here = rows[start : start + _BATCH]
                distance = lengths - 2 * rest[start : start + _BATCH] @ rest.T
                distance[people[here][:, None] == people[rows]] = np.inf
                nearest = np.argpartition(distance, _PAIRS_ACROSS, axis=1)[:, :_PAIRS_ACROSS]
                one, other = np.nonzero(np.isfinite(np.take_along_axis(distance, nearest, axis=1)))
                found.append(np.sort(np.column_stack([here[one], rows[nearest[one, other]]]), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _uncommon(thumbs: np.ndarray) -> np.ndarray:
    """What thumbnails, uint8 `[N, 32, 32]`, have not in common: float32 `[N, D]`; of many, the main part."""
    inner = slice(2, THUMBNAIL_SIDE - 2)
    mean = gaussian_filter(thumbs.mean(axis=0, dtype=np.float32), 1)
    down, right = (slope[inner, inner] for slope in np.gradient(mean))
    along, mean = _STRETCH[inner], mean[inner, inner]
    common = [down * along[:, None], down, right * along, right, mean, np.ones_like(mean)]
    basis = np.linalg.qr(np.stack(common, axis=-1).reshape(-1, 6))[0]
    blurred = gaussian_filter(thumbs.astype(np.float32), (0, 1, 1))[:, inner, inner]
    rest = blurred.reshape(len(thumbs), -1)
    rest -= (rest @ basis) @ basis.T
    return rest if len(rest) < rest.shape[1] else rest @ np.linalg.eigh(rest.T @ rest)[1][:, -_COMPONENTS:]


# ---------------------------------------------------------------- the alignment of thumbnails decides


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation `[N]` of aligned luma thumbnails, uint8 `[N, 32, 32]`.

    The second is stretched and shifted along both axes, by up to 8 % of its side, until it fits the first
    best (Gauss-Newton, as Lucas and Kanade, IJCAI 1981; gain and offset of the grey values are free). Both
    are blurred a little before, so that the sampling of fine detail does not count. The margin, which a
    crop may have cut off, is left out.
    """
    first = gaussian_filter(first.astype(np.float32), (0, 1, 1))
    second = gaussian_filter(second.astype(np.float32), (0, 1, 1))
    inner = slice(2, THUMBNAIL_SIDE - 2)
    pixels = np.arange(THUMBNAIL_SIDE, dtype=np.float32)
    target, _ = _normalise(first[:, inner, inner])
    # Stretch and shift downwards, stretch and shift to the right; px.
    move = np.zeros((len(first), 4), np.float32)
    eye = np.eye(6, dtype=np.float32)
    correlation = np.full(len(first), -1, np.float32)
    for _ in range(_STEPS):
        rows = pixels + move[:, 0:1] * _STRETCH + move[:, 1:2]
        columns = pixels + move[:, 2:3] * _STRETCH + move[:, 3:4]
        moved = _linear(rows) @ second @ _linear(columns).transpose(0, 2, 1)
        slope_down, slope_right = np.gradient(moved, axis=(1, 2))
        current, scale = _normalise(moved[:, inner, inner])
        fit = (target * current).sum(axis=(1, 2))
        correlation = np.maximum(correlation, fit)

        down = slope_down[:, inner, inner] / scale[:, None, None]
        right = slope_right[:, inner, inner] / scale[:, None, None]
        along = _STRETCH[inner]
        slopes = [down * along[:, None], down, right * along, right, current, np.ones_like(current)]
        jacobian = np.stack(slopes, axis=1).reshape(len(first), 6, -1)
        normal = jacobian @ jacobian.transpose(0, 2, 1)
        # Damped: a thumbnail without structure says nothing about how to move it.
        trace = np.trace(normal, axis1=1, axis2=2)[:, None, None]
        damping = 1e-5 * trace * eye + 1e-6 * eye
        step = np.linalg.solve(normal + damping, jacobian @ (target - current).reshape(len(first), -1, 1))
        move = np.clip(move + step[:, :4, 0], -_REACH, _REACH)
    return correlation


def _normalise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values `[N, H, W]` with mean 0 and norm 1, and the norms `[N]` they had."""
    values = values - values.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt((values**2).sum(axis=(1, 2)))
    return values / np.maximum(norm, 1e-3)[:, None, None], norm


def set_aside_conflicts(
    images: pd.DataFrame, folder: Path, thumbs: np.ndarray, pairs: np.ndarray, workers: int = 1
) -> None:
    """Sets aside, in place, photos that are surely the same under two people: "label conflict".

    These are near-copies: re-encoded, resized or slightly cropped. images: `path`, relative to `folder`,
    `identity`, `status`, `reason`; the last two are written. thumbs: uint8 `[N, 32, 32]`. pairs:
    `candidates`; those that look alike are decoded again, in `workers` threads.
    """
    pairs = _usable(images, pairs)
    people = images["identity"].to_numpy()
    pairs = np.unique(pairs[people[pairs[:, 0]] != people[pairs[:, 1]]], axis=0)
    alike = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), _BATCH):
        first, second = pairs[start : start + _BATCH].T
        alike[start : start + _BATCH] = agreement(thumbs[first], thumbs[second]) >= THUMBNAIL_CORRELATION
    pairs = pairs[alike]
    pairs = pairs[_show_the_same(images["path"].to_numpy(), folder, pairs, workers)]
    picture = pd.Series(_components(len(images), pairs), index=images.index)
    involved = picture[np.unique(pairs)]
    for _, copies in involved.groupby(involved, sort=False):
        _set_conflict(images, copies.index, "picture")


def groups(images: pd.DataFrame, thumbs: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Numbers the usable photos, near-duplicates of one person alike, int64 `[N]`; -1 for those set aside.

    images: `identity`, `status`. thumbs: uint8 `[N, 32, 32]`. pairs: `candidates`.
    """
    pairs, people = _usable(images, pairs), images["identity"].to_numpy()
    pairs = pairs[people[pairs[:, 0]] == people[pairs[:, 1]]]
    links = pairs[:0]
    step = max(_BATCH, len(images) // 256)  # so that following all links so often stays linear
    for start in tqdm(range(0, len(pairs), step), desc="near-duplicates", leave=False):
        group = _components(len(images), links)
        first, second = pairs[start : start + step].T
        apart = group[first] != group[second]  # most pairs of a long video are linked already
        if not apart.any():
            continue
        first, second = first[apart], second[apart]
        near = agreement(thumbs[first], thumbs[second]) >= THUMBNAIL_CORRELATION
        links = np.concatenate([links, np.column_stack([first[near], second[near]])])
    usable = (images["status"] == "ok").to_numpy()
    numbers = np.full(len(images), -1, np.int64)
    numbers[usable] = pd.factorize(_components(len(images), links)[usable])[0]
    return numbers


def _usable(images: pd.DataFrame, pairs: np.ndarray) -> np.ndarray:
    """The pairs of which both rows are usable."""
    return pairs[(images["status"] == "ok").to_numpy()[pairs].all(axis=1)]


def _components(count: int, links: np.ndarray) -> np.ndarray:
    """The number `[count]` of the connected component that each row is in, by links `[L, 2]` between rows."""
    graph = coo_array((np.ones(len(links), bool), links.T), shape=(count, count))
    return connected_components(graph, directed=False)[1]


# ---------------------------------------------------------------- across people, the decoded pictures decide


def _show_the_same(paths: np.ndarray, folder: Path, pairs: np.ndarray, workers: int) -> np.ndarray:
    """Which pairs of rows, int64 `[P, 2]` in order, show the same picture once decoded: bool `[P]`."""

    @lru_cache(_KEPT)
    def picture(row: int) -> np.ndarray:
        return _shrunk(decoding.read_rgb(open_path(folder, paths[row])), _SIDES[-1])

    @cache
    def glance(row: int) -> tuple[np.ndarray, bool]:
        pixels = picture(row)
        return _shrunk(_luma(pixels), _SIDES[0]), bool(np.ptp(pixels, axis=2).max() <= _GREY_RANGE)

    def decide(pair: list[int]) -> bool:
        try:
            (one, one_is_grey), (two, two_is_grey) = map(glance, pair)
            if one_is_grey == two_is_grey:
                alike = same_picture(one, two, _GLANCE)
                return alike and same_picture(_luma(picture(pair[0])), _luma(picture(pair[1])))
            grey, coloured = map(picture, pair if one_is_grey else pair[::-1])
        except (OSError, ValueError):  # one has gone, or changed, since it was examined
            return False
        return any(same_picture(_luma(grey), _luma(coloured, weights)) for weights in _TO_GREY)

    pool = ThreadPoolExecutor(workers)
    try:
        found = pool.map(decide, pairs.tolist())
        return np.array(list(tqdm(found, total=len(pairs), desc="same under two people", leave=False)), bool)
    finally:  # an interruption does not wait for what has not begun
        pool.shutdown(cancel_futures=True)


def _luma(pixels: np.ndarray, weights: tuple[float, float, float] = _TO_GREY[0]) -> np.ndarray:
    return cv2.transform(pixels, np.array([weights]))


def _shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture, uint8 `[H, W]` or `[H, W, 3]`, with a longer side of `side` px at most."""
    scale = side / max(picture.shape)
    if scale >= 1:
        return picture
    height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def same_picture(first: np.ndarray, second: np.ndarray, tolerance: float = 1.3) -> bool:
    """Whether two pictures, luma, uint8 `[H, W]`, agree everywhere once they are aligned.

    They may differ in size, in gain and offset, in what JPEG leaves, and by a margin that was cropped. Two
    frames of one camera differ where the person is. So the block that differs most decides, by its mean
    square: `tolerance` times noise and a shift by `_SHIFT` are allowed. Without contrast, none is the same.
    """
    if first.size > second.size:
        first, second = second, first
    aligned = _aligned(first, second)
    if aligned is None:
        return False
    second, common = aligned
    first = cv2.GaussianBlur(first.astype(np.float32), (0, 0), 1)
    second = cv2.GaussianBlur(second, (0, 0), 1)
    side = max(5, round(max(first.shape) / _BLOCKS))
    share = cv2.blur(common, (side, side), borderType=cv2.BORDER_CONSTANT)
    whole = share > 0.6  # a block that lies within both pictures, or nearly so
    seen = common > 0
    if seen.mean() < _LEAST_OVERLAP or not whole.any():
        return False
    one, two = first - first[seen].mean(), second - second[seen].mean()
    energy, other = (one[seen] ** 2).sum(), (two[seen] ** 2).sum()
    product = (one * two)[seen].sum()
    contrast = np.sqrt(energy / seen.sum())
    if contrast < 2 * _LEAST_DIFFERENCE or product < PICTURE_CORRELATION * np.sqrt(energy * other):
        return False
    difference = one - two * (product / other)
    down, right = np.gradient(first)
    squares, slopes = (
        cv2.blur(values * common, (side, side), borderType=cv2.BORDER_CONSTANT)[whole] / share[whole]
        for values in (difference**2, down**2 + right**2)
    )
    allowed = _LEAST_DIFFERENCE**2 + _NOISE_FACTOR * np.median(squares) + _SHIFT**2 * slopes
    return bool((squares <= tolerance * allowed).all())


def _aligned(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The second picture moved onto the first, and where both are, 0 or 1: float32 `[H, W]` each.

    An affine move that maximises the correlation (ECC; Evangelidis and Psarakis, PAMI 2008), coarse to fine.
    None where there is none.
    """
    height, width = first.shape
    second = cv2.resize(second, (width, height), interpolation=cv2.INTER_AREA)
    move = np.eye(3)
    try:
        for side in _SIDES:
            one = _shrunk(first, side)
            two = cv2.resize(second, one.shape[::-1], interpolation=cv2.INTER_AREA)
            x, y = one.shape[1] / width, one.shape[0] / height
            scale = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
            start = (scale @ move @ np.linalg.inv(scale))[:2].astype(np.float32)
            found = cv2.findTransformECC(one, two, start, cv2.MOTION_AFFINE, _STOP)[1]
            move[:2] = (np.linalg.inv(scale) @ np.vstack([found, [0, 0, 1]]) @ scale)[:2]
            if max(height, width) <= side:
                break
    except cv2.error:  # nothing in the pictures says how to move them
        return None
    matrix = move[:2].astype(np.float32)
    ones = np.ones((height, width), np.uint8)
    moved, common = (
        cv2.warpAffine(values, matrix, (width, height), flags=how | cv2.WARP_INVERSE_MAP, borderMode=border)
        for values, how, border in (
            (second, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE),
            (ones, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT),
        )
    )
    common = cv2.erode(common, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return moved.astype(np.float32), common.astype(np.float32)
