"""Pairs counted by the rank of their score: one by one where they are few, on a grid where they are many.

Scores are float32. Up to `_EXACT` pairs are sorted, and every distinct score is told apart. Of more, blocks
of the similarity matrix are counted and forgotten, on a grid that is fine where many pairs are: a grid of
equal steps ties most pairs of a model whose scores crowd together. Where the grid turns out to tie pairs that
matter, it is refined there, and the pairs are counted again.
"""

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from src import devices, workers
from src.evaluation.ranks import balance, merged

STRATA = {"all": None, "high-high": (0, 0), "high-low": (0, 1), "low-low": (1, 1)}
_EXACT = 10_000_000  # pairs up to which they are sorted
_KEPT = 2**19  # bins of the scores that are kept of sorted pairs
_CLUSTER_BINS = 1_200_000  # bins of the scores by cluster, of all clusters together
_MANY = 20_000  # photos from which a GPU is worth starting
_CODES = 2**21  # bins of the grid
_CELL = 12  # bits: a cell of the grid holds so many neighbouring float32 numbers
_CELLS = 2 ** (32 - _CELL)
_TILE_OF_SAMPLE, _GENUINE_OF_SAMPLE = 2048, 400_000  # photos of which all pairs are sampled; genuine pairs
_LEFT_OUT, _FAILED = 0, 1  # codes of no pair, and of a pair with a photo that has no embedding
_TOLERANCE = 1e-6  # of an AUC, beyond which the grid is refined
_PASSES = 3

Key = tuple[int, int]  # the qualities of the two photos
Tables = dict[Key, np.ndarray]  # [2, ...], genuine pairs and all


@dataclass(frozen=True)
class Photos:
    """Photos of a test set in the order of counting, and the tiles of their similarity matrix."""

    vectors: np.ndarray  # float32 [n, D], unit rows; zero where missing
    failed: np.ndarray  # bool [n]
    identity: np.ndarray  # int64 [n]
    cluster: np.ndarray  # int64 [n], below clusters
    group: np.ndarray  # int64 [n]; -1 where no other photo shares it
    clusters: int
    tiles: list[tuple[slice, slice]]  # of the diagonal and above, each of one quality by one
    keys: list[Key]  # the two qualities of each tile
    only_genuine: list[bool]  # whether impostors of a tile are no pairs of the test

    @property
    def bins(self) -> int:
        """How many bins the scores of each cluster's pairs may have."""
        return min(2**16, _CLUSTER_BINS // self.clusters)


class Tally(NamedTuple):
    """Pairs of a stratum counted by score, as of `pairs.Counts`."""

    score: np.ndarray  # float64 [K]
    top: np.ndarray  # float64 [K]
    genuine: np.ndarray  # int64 [K]
    impostor: np.ndarray  # int64 [K]
    order: float
    cluster_score: np.ndarray  # float64 [C]
    cluster_genuine: np.ndarray  # int64 [U, C]
    cluster_impostor: np.ndarray  # int64 [U, C]
    cluster: np.ndarray  # int64 [U], which they are


def counted(photos: Photos, device: str | None) -> dict[str, Tally]:
    """All pairs by stratum. device: as of `pairs.evaluate`."""
    n = len(photos.vectors)
    if n * (n - 1) // 2 <= _EXACT:
        return _sorted(photos)
    return _on_grid(photos, device or ("cuda" if n >= _MANY and _sees_cuda() else "numpy"))


def in_stratum(keys: Iterable[Key]) -> dict[str, list[Key]]:
    """The keys of each stratum that has any."""
    present = sorted(set(keys))
    strata = {name: [key for key in present if wanted in (None, key)] for name, wanted in STRATA.items()}
    return {name: keys for name, keys in strata.items() if keys}


def _apart(photos: Photos, a: slice, b: slice, only_genuine: bool) -> np.ndarray:
    """Which elements of a tile are pairs, each once, and of no near-duplicates: bool [n, m]."""
    group = photos.group
    apart = (group[a, None] != group[b]) | (group[a, None] < 0)
    if only_genuine:
        apart &= photos.identity[a, None] == photos.identity[b]
    if a == b:
        apart[np.tri(len(apart), dtype=bool)] = False
    return apart


# ---------------------------------------------------------------- pairs that can be sorted


def _sorted(photos: Photos) -> dict[str, Tally]:
    """Tallies of pairs that are few enough to be held.

    A pair is one number: its score in the high bits, so that all are in order once the numbers are sorted,
    then its qualities, whether it is genuine, and the clusters of its photos. Scores are summed up in double
    precision before they are rounded to float32: no order of summing breaks a tie.
    """
    names = sorted(set(photos.keys))
    n = len(photos.vectors)
    packed = np.empty(n * (n - 1) // 2, np.int64)
    filled = 0
    vectors = photos.vectors.astype(np.float64)
    for (a, b), key, only_genuine in zip(photos.tiles, photos.keys, photos.only_genuine, strict=True):
        scores = _scores(vectors[a], vectors[b])
        scores[photos.failed[a, None] | photos.failed[b]] = -np.inf
        tile = _ordered(scores) << 31
        tile |= names.index(key) << 25
        tile |= (photos.identity[a, None] == photos.identity[b]).astype(np.int64) << 24
        tile |= photos.cluster[a, None] << 12 | photos.cluster[b]
        tile = tile[_apart(photos, a, b, only_genuine)]
        packed[filled : filled + len(tile)] = tile
        filled += len(tile)
    packed = packed[:filled]
    packed.sort()
    strata = {}
    for name, keys in in_stratum(photos.keys).items():
        wanted = np.isin(np.arange(64), [names.index(key) for key in keys])
        inside = packed[wanted[packed >> 25 & 63]] if len(keys) < len(names) else packed
        strata[name] = _of_sorted(inside, photos)
    return strata


def _scores(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines float32 [n, m] of unit rows [n, D] with unit rows [m, D]; none is -0."""
    scores = (a @ b.T).astype(np.float32, copy=False)
    scores += 0
    return scores


def _ordered(scores: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 to 2**32 - 1 in the order of float32 numbers, int64, one for each."""
    bits = scores.view(np.int32).astype(np.int64)
    return np.where(bits < 0, ~bits, bits | 0x80000000)


def _numbers(ordered: np.ndarray) -> np.ndarray:
    """The float32 numbers, as float64, of `_ordered`."""
    bits = np.where(ordered & 0x80000000, ordered & 0x7FFFFFFF, ~ordered & 0xFFFFFFFF)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def _of_sorted(packed: np.ndarray, photos: Photos) -> Tally:
    """The tally of pairs [P], as of `_sorted`."""
    ordered = packed >> 31
    is_genuine = (packed >> 24 & 1).astype(bool)
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    genuine_before = np.append(0, np.cumsum(is_genuine))
    failures = bool((_numbers(ordered[:1]) == -np.inf).any())

    def pairs_from(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ends = np.append(starts, len(packed))[1:]
        genuine = genuine_before[ends] - genuine_before[starts]
        return genuine, ends - starts - genuine

    exact = pairs_from(starts)
    starts = starts[merged(*exact, _KEPT, failures)]
    genuine, impostor = pairs_from(starts)
    bins = merged(genuine, impostor, photos.bins, failures)
    wide = len(bins)
    # one number for the kind, the cluster and the bin of each pair
    at = np.repeat(np.arange(wide), np.diff(np.append(starts[bins], len(packed))))
    at += is_genuine * (photos.clusters * wide)
    a, b = packed >> 12 & 4095, packed & 4095
    other, size = a != b, 2 * photos.clusters * wide
    tables = np.bincount(at + a * wide, minlength=size)
    tables += np.bincount(at[other] + b[other] * wide, minlength=size)
    cluster_impostor, cluster_genuine = tables.reshape(2, photos.clusters, wide)
    present = (cluster_impostor + cluster_genuine).any(1)
    score = _numbers(ordered[starts])
    return Tally(
        score=score,
        top=_numbers(ordered[np.append(starts, len(packed))[1:] - 1]),
        genuine=genuine,
        impostor=impostor,
        order=balance(*exact) - balance(genuine, impostor),
        cluster_score=score[bins],
        cluster_genuine=cluster_genuine[present],
        cluster_impostor=cluster_impostor[present],
        cluster=np.flatnonzero(present),
    )


# ---------------------------------------------------------------- pairs too many to be held


class _Grid(NamedTuple):
    """Bins of float32 numbers: a cell's numbers, which share their high bits, are parted by 2**down."""

    down: np.ndarray  # uint8 [_CELLS], by how many bits the numbers of a cell are shifted,
    offset: np.ndarray  # int64 [_CELLS], and what is then added: the code, in a cell below 0 from 0 downwards
    lowest: np.ndarray  # float64 [codes], the lowest and
    top: np.ndarray  # float64 [codes], the highest number of each code
    ascending: np.ndarray  # int64 [codes - 2]: the codes of scores, by score
    coarse: np.ndarray  # uint16 [codes], the bin of a cluster's pairs
    bins: int  # of a cluster's pairs


class _Seen(NamedTuple):
    """What is known of a stratum before its pairs are counted."""

    score: np.ndarray  # float32 [S]
    genuine: np.ndarray  # [S], how many pairs
    impostor: np.ndarray  # [S]


def _on_grid(photos: Photos, device: str) -> dict[str, Tally]:
    """Tallies of pairs on a grid made from a sample of them, and refined where too many turn out to tie."""
    strata = in_stratum(photos.keys)
    seen, left = [_sample(photos)], np.inf
    for _ in range(_PASSES):
        grid = _grid(seen, photos.bins)
        fine, coarse = _on_cores(photos, grid) if device == "numpy" else _on_device(photos, grid, device)
        tied, seen = 0.0, []
        for keys in strata.values():
            genuine, pairs = _total(fine, keys)
            tied = max(tied, _tied(genuine, pairs - genuine, grid))
            there = np.flatnonzero(pairs[_FAILED + 1 :]) + _FAILED + 1
            genuine, impostor = genuine[there], (pairs - genuine)[there]
            seen.append(_Seen(grid.lowest[there].astype(np.float32), genuine, impostor))
        if tied <= _TOLERANCE or tied > 0.7 * left:
            break
        left = tied
    return {name: _of_grid(_total(fine, keys), _total(coarse, keys), grid) for name, keys in strata.items()}


def _total(tables: Tables, keys: list[Key]) -> np.ndarray:
    return sum((tables[key] for key in keys[1:]), tables[keys[0]])


def _sample(photos: Photos) -> _Seen:
    """Some pairs of photos that have an embedding."""
    rng = np.random.default_rng(0)
    there = np.flatnonzero(~photos.failed)
    some = rng.permutation(there)[:_TILE_OF_SAMPLE]
    i, j = np.triu_indices(len(some), 1)
    identity, vectors = photos.identity[some], photos.vectors[some]
    impostor = identity[i] != identity[j]
    scores = [_scores(vectors, vectors)[i, j][impostor]]
    order = there[np.lexsort((rng.random(len(there)), photos.identity[there]))]
    for step in range(1, 9):  # neighbours of a random order of each person's photos
        at = rng.permutation(max(len(order) - step, 0))[: _GENUINE_OF_SAMPLE // 8]
        a, b = order[at], order[at + step]
        a, b = (rows[photos.identity[a] == photos.identity[b]] for rows in (a, b))
        scores.append(np.einsum("id,id->i", photos.vectors[a], photos.vectors[b]) + np.float32(0))
    genuine = np.arange(sum(map(len, scores))) >= len(scores[0])
    return _Seen(np.concatenate(scores), genuine, ~genuine)


def _grid(seen: list[_Seen], bins: int) -> _Grid:
    """The grid for what has been seen of each stratum, with `bins` bins for clusters.

    Genuine and impostor pairs that share a bin tie. The sum over bins of one times the other is least where
    bins are dealt to cells by the root of the product.
    """
    weight = np.zeros(_CELLS)
    for score, *kinds in seen:
        cells = score.view(np.uint32) >> _CELL
        genuine, impostor = (np.bincount(cells, part, _CELLS) / max(part.sum(), 1) for part in kinds)
        both = np.sqrt(genuine * impostor)
        weight += 0.8 * both / max(both.sum(), 1e-300) + 0.1 * (genuine + impostor)
    first = np.arange(_CELLS, dtype=np.int64) << _CELL
    possible = (first & 0x7FFFFFFF) < 0x40000000  # numbers between -2 and 2
    weight *= possible / max(weight[possible].sum(), 1e-300)
    some = np.flatnonzero(weight)
    parts = possible.astype(np.int64)
    total, room = float(2 * _CODES), _CODES - 2 - int(parts.sum())
    while True:
        finer = 2 ** np.clip(np.ceil(np.log2(weight[some] * total)), 0, _CELL).astype(np.int64)
        if (finer - 1).sum() <= room:
            break
        total *= 0.95
    parts[some] = finer
    down = _CELL - np.log2(np.maximum(parts, 1)).astype(np.int64)
    offset = 2 + np.cumsum(parts) - parts - (first >> down)
    cell = np.repeat(np.arange(_CELLS), parts)
    bits = np.arange(2, len(cell) + 2) - offset[cell] << down[cell]
    ends = [(bits + more).astype(np.uint32).view(np.float32) for more in (0, (1 << down[cell]) - 1)]
    lowest, top = (
        np.append([np.nan, -np.inf], function(*ends)).astype(float) for function in (np.minimum, np.maximum)
    )
    ascending = 2 + np.argsort(lowest[2:], kind="stable")
    grid = _Grid(down.astype(np.uint8), offset, lowest, top, ascending, np.empty(0, np.uint16), 0)
    # bins for clusters: each begins at a score that has been seen
    codes = _codes(seen[0].score, grid)
    genuine, impostor = (np.bincount(codes, part, len(lowest))[ascending] for part in seen[0][1:])
    some = np.flatnonzero(genuine + impostor)
    begins = np.zeros(len(ascending), np.int64)
    begins[some[merged(genuine[some], impostor[some], bins - 2)]] = 1
    begins[0] = 1
    coarse = np.full(len(lowest), _FAILED, np.uint16)
    coarse[_LEFT_OUT] = _LEFT_OUT
    coarse[ascending] = _FAILED + np.cumsum(begins)
    return grid._replace(coarse=coarse, bins=int(coarse.max()) + 1)


def _tied(genuine: np.ndarray, impostor: np.ndarray, grid: _Grid) -> float:
    """By how much the AUC of counts [codes] may be off, however scores lie in a bin."""
    wide = grid.top > grid.lowest
    pairs = float(genuine[_FAILED:].sum()) * float(impostor[_FAILED:].sum())
    return float(genuine[wide].astype(float) @ impostor[wide]) / 2 / pairs if pairs else 0.0


def _codes(scores: np.ndarray, grid: _Grid) -> np.ndarray:
    """The codes, int64, of float32 scores of the same shape."""
    codes = np.empty(scores.shape, np.int64)
    step = max(1, 2**17 // max(scores[:1].size, 1))  # rows; what they need stays in the cache
    for start in range(0, len(scores), step):
        bits = scores[start : start + step].view(np.uint32)
        cell = (bits >> _CELL).astype(np.int64)
        np.add(bits >> grid.down.take(cell), grid.offset.take(cell), out=codes[start : start + step])
    return codes


def _on_cores(photos: Photos, grid: _Grid) -> tuple[Tables, Tables]:
    """Counts, on all cores or a cluster's: by code [2, codes], by cluster and coarse [2, clusters, bins]."""
    if workers.joined():
        return workers.summed(_of_tiles, (photos, grid), len(photos.tiles))
    return _of_tiles(photos, grid, range(len(photos.tiles)))


def _of_tiles(photos: Photos, grid: _Grid, numbers: Sequence[int]) -> tuple[Tables, Tables]:
    """The counts of `_on_cores` in the tiles of these numbers."""
    vectors, failed, identity, cluster = photos.vectors, photos.failed, photos.identity, photos.cluster
    bins = grid.bins
    fine = {key: np.zeros((2, len(grid.lowest)), np.int64) for key in set(photos.keys)}
    coarse = {key: np.zeros((2, photos.clusters, bins), np.int64) for key in set(photos.keys)}
    lock = Lock()

    def work(number: int) -> None:
        (a, b), key = photos.tiles[number], photos.keys[number]
        codes = _codes(_scores(vectors[a], vectors[b]), grid)
        codes[failed[a]] = _FAILED
        codes[:, failed[b]] = _FAILED
        if a == b:
            codes[np.tri(len(codes), dtype=bool)] = _LEFT_OUT
        for g in np.intersect1d(photos.group[a], photos.group[b]):
            if g >= 0:
                codes[np.ix_(photos.group[a] == g, photos.group[b] == g)] = _LEFT_OUT
        if photos.only_genuine[number]:
            codes[identity[a, None] != identity[b]] = _LEFT_OUT
        genuine, genuine_cluster = _within(codes, identity[a], identity[b], cluster[a])
        inside, inside_cluster = _within(codes, cluster[a], cluster[b], cluster[a])
        with lock:
            np.add.at(fine[key][0], genuine, 1)
            np.add.at(fine[key][1], codes.ravel(), 1)
            np.add.at(coarse[key][0].ravel(), genuine_cluster * bins + grid.coarse[genuine], 1)
            # what follows counts these twice, by row and by column
            np.subtract.at(coarse[key][1].ravel(), inside_cluster * bins + grid.coarse[inside], 1)
        codes = grid.coarse.take(codes).astype(np.int64)
        for clusters, shape in ((cluster[a], (-1, 1)), (cluster[b], (1, -1))):
            first, last = int(clusters.min()), int(clusters.max()) + 1
            labels = codes + (clusters - first).reshape(shape) * bins
            table = np.bincount(labels.ravel(), minlength=(last - first) * bins)
            with lock:
                coarse[key][1, first:last] += table.reshape(-1, bins)

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(8, workers.cores())) as pool:
        done = pool.map(work, numbers)
        list(tqdm(done, "pairs", len(numbers), leave=False, disable=len(numbers) < 100))
    return fine, coarse


def _sees_cuda() -> bool:
    # torch is not imported for this: that alone would take as much memory as all else
    return sys.modules.get("torch") is not None and devices.device().type == "cuda"


def _on_device(photos: Photos, grid: _Grid, device: str) -> tuple[Tables, Tables]:
    """The counts of `_on_cores`, made on a device of torch and copied from there once, at the end."""
    import torch  # not at the top: whoever counts on cores needs no torch

    vectors, failed, identity, cluster, group, down, offset, coarse_of = (
        torch.from_numpy(part).to(device)
        for part in (
            *(photos.vectors, photos.failed, photos.identity, photos.cluster, photos.group),
            *(grid.down.astype(np.int64), grid.offset, grid.coarse.astype(np.int64)),
        )
    )
    number, bins = len(grid.lowest), grid.bins
    one = torch.ones(1, dtype=torch.int64, device=device)
    # [impostor, genuine] pairs, flat: by code, and by cluster and coarse code
    sizes = (2 * number, 2 * photos.clusters * bins)
    tables = {key: [one.new_zeros(size) for size in sizes] for key in set(photos.keys)}

    def add(table: torch.Tensor, labels: torch.Tensor) -> None:
        table.scatter_add_(0, labels.view(-1), one.expand(labels.numel()))

    matmul = torch.backends.cuda.matmul
    modern = hasattr(matmul, "fp32_precision")
    setting, exact = ("fp32_precision", "ieee") if modern else ("allow_tf32", False)
    before = getattr(matmul, setting)
    setattr(matmul, setting, exact)  # TF32 would err by 1e-3
    try:
        for (a, b), key, only_genuine in zip(photos.tiles, photos.keys, photos.only_genuine, strict=True):
            fine, coarse = tables[key]
            bits = (vectors[a] @ vectors[b].T).add_(0.0).view(torch.int32).long().bitwise_and_(0xFFFFFFFF)
            cell = bits >> _CELL
            codes = (bits >> down[cell]).add_(offset[cell])
            codes.masked_fill_(failed[a, None] | failed[b], _FAILED)
            apart = (group[a, None] != group[b]) | (group[b] < 0)
            same = identity[a, None] == identity[b]
            apart = apart & same if only_genuine else apart
            codes.masked_fill_(~(apart.triu_(1) if a == b else apart), _LEFT_OUT)
            genuine = same.long()
            add(fine, codes + genuine * number)
            codes = coarse_of[codes].add_(genuine * (photos.clusters * bins))
            add(coarse, codes + cluster[a, None] * bins)
            # by its column a pair counts too, unless that is of the same cluster
            codes.masked_fill_(cluster[a, None] == cluster[b], _LEFT_OUT)
            add(coarse, codes + cluster[b] * bins)
    finally:
        setattr(matmul, setting, before)

    def copied(at: int, shape: tuple[int, ...]) -> Tables:
        counts = {key: flat[at].view(2, *shape).cpu().numpy() for key, flat in tables.items()}
        return {key: np.stack([genuine, impostor + genuine]) for key, (impostor, genuine) in counts.items()}

    return copied(0, (number,)), copied(1, (photos.clusters, bins))


def _within(
    codes: np.ndarray, rows: np.ndarray, columns: np.ndarray, cluster: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The codes of a tile's pairs whose row and column have the same label, and the cluster of each.

    rows, columns: labels, equal ones in a run; cluster: of each row.
    """
    parts, clusters = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for label in np.intersect1d(rows, columns):
        r, c = np.flatnonzero(rows == label), np.flatnonzero(columns == label)
        block = codes[r[0] : r[-1] + 1, c[0] : c[-1] + 1].ravel()
        parts.append(block)
        clusters.append(np.full(len(block), cluster[r[0]]))
    return np.concatenate(parts), np.concatenate(clusters)


def _of_grid(fine: np.ndarray, coarse: np.ndarray, grid: _Grid) -> Tally:
    """The tally without scores and clusters that no pair has.

    fine: [2, codes] of a stratum; coarse: [2, clusters, bins]; both genuine pairs and all.
    """
    codes = np.append(_FAILED, grid.ascending)
    codes = codes[fine[1, codes] > 0]
    exact = fine[0, codes], fine[1, codes] - fine[0, codes]
    # bins that begin where those of clusters do
    begins = np.diff(grid.coarse[codes].astype(np.int64), prepend=-1) > 0
    begins[merged(*exact, _KEPT)] = True
    starts = np.flatnonzero(begins)
    genuine, impostor = (np.add.reduceat(counts, starts) for counts in exact) if len(codes) else exact
    kept, used = codes[starts], np.unique(grid.coarse[codes])
    present = coarse[1].any(1)
    cluster_genuine, cluster_all = coarse[:, present][..., used]
    first = np.searchsorted(grid.coarse[kept], used)  # coarse codes ascend with scores
    return Tally(
        score=grid.lowest[kept],
        top=grid.top[codes[np.append(starts, len(codes))[1:] - 1]],
        genuine=genuine,
        impostor=impostor,
        order=balance(*exact) - balance(genuine, impostor),
        cluster_score=grid.lowest[kept][first],
        cluster_genuine=cluster_genuine,
        cluster_impostor=cluster_all - cluster_genuine,
        cluster=np.flatnonzero(present),
    )
