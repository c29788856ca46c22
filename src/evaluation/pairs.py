"""Every pair of a test set, scored and counted: what all verification results are made from.

A score is the cosine of two embeddings. A genuine pair shows one person, an impostor pair two. However many
pairs there are, they are never held: blocks of the similarity matrix are counted by score and forgotten.
"""

import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from src.limits import NotPossible

QUALITIES = ("high", "low", "unknown")
STRATA = {"all": None, "high-high": (0, 0), "high-low": (0, 1), "low-low": (1, 1)}

# Scores are counted by code: the cosine on a grid of 2**21 steps (1e-6 apart), with room below for two codes
# that are no score. A code's high 12 bits are its coarse code, by which pairs are counted per cluster.
_CODES, _COARSE = 2**21, 2**12
_SHIFT = 9
_LEFT_OUT, _FAILED = 0, 512  # coarse 0: no pair; coarse 1: a photo without an embedding matches nothing
STEPS = 2**20 - 1024  # codes from cosine 0 to cosine 1
_ZERO = 2**20  # the code of cosine 0
NO_ROW = -1  # in the place of a row of the embeddings, for a photo too small to have one
_TILE = 2048  # rows and columns of a block of the similarity matrix
_CLUSTERS = 300  # people; where there are more, they are put into so many clusters
_MANY = 20_000  # photos from which a GPU is worth starting


@dataclass(frozen=True)
class Trials:
    """A test set: photos of which every two make a pair, except two of one near-duplicate group."""

    name: str
    rows: np.ndarray  # int64 [n]: rows of faces, and so of the embeddings; NO_ROW: a failure to enrol
    identity: np.ndarray  # int64 [n]: codes into people
    people: tuple[str, ...]
    quality: np.ndarray  # int8 [n]: codes into QUALITIES
    group: np.ndarray  # int64 [n]: photos that share one are near-duplicates; -1 shares with none


@dataclass(frozen=True)
class Counts:
    """The pairs of one model in one stratum of a test set, counted by score.

    A score of -inf is that of a pair with a failure to enrol. A cluster is a person or, where there are very
    many, a part of the people. For each, the pairs with at least one photo of that cluster are counted too,
    by scores on a coarser grid.
    """

    score: np.ndarray  # float64 [K], ascending
    genuine: np.ndarray  # int64 [K]
    impostor: np.ndarray  # int64 [K]
    cluster_score: np.ndarray  # float64 [C], ascending
    cluster_genuine: np.ndarray  # int64 [U, C]
    cluster_impostor: np.ndarray  # int64 [U, C]
    people: int
    photos: int
    failed: int  # photos without an embedding, also where they are excluded
    excluded: int  # of the photos, those dropped because a model has no embedding of them
    left_out: int  # pairs inside near-duplicate groups


Results = dict[str, dict[str, dict[str, Counts]]]  # by test set, model, stratum
Tables = dict[tuple[int, int], np.ndarray]  # by the two qualities: [2, ...], genuine pairs and all


def trials(faces: pd.DataFrame, split: str, images: pd.DataFrame | None = None) -> Trials:
    """The test set made of the rows of `faces` in `split`; columns identity, quality, group, split.

    images: the table of all files, with `status`, too; its photos in the split that are "too small" for a
    face are failures to enrol of every model.
    Raises NotPossible where the split has no photos, one person only, or nobody with two photos that are no
    near-duplicates; ValueError where a photo's identity is missing.
    """
    rows = np.flatnonzero(faces["split"].to_numpy() == split)
    photos = faces.iloc[rows]
    if images is not None:
        small = images[(images["split"] == split) & (images["status"] == "too small")]
        photos = pd.concat([photos, small.assign(quality="low")[["identity", "quality", "group"]]])
        rows = np.append(rows, np.full(len(small), NO_ROW))
    if not len(rows):
        present = ", ".join(sorted(set(faces["split"]))) or "none"
        raise NotPossible(f"no photos are in the split {split!r}; the splits there are: {present}")
    identity, people = pd.factorize(photos["identity"], sort=True)
    if (identity < 0).any():
        first, missing = rows[identity < 0][0], (identity < 0).sum()
        raise ValueError(f"row {first} of the split {split!r} has no identity ({missing} in all)")
    codes = {name: code for code, name in enumerate(QUALITIES)}
    quality = photos["quality"].map(codes).fillna(codes["unknown"])
    group = photos["group"].to_numpy(np.int64)
    check_people(identity.astype(np.int64), f"the split {split!r}", group)
    return Trials(
        split,
        rows.astype(np.int64),
        identity.astype(np.int64),
        tuple(str(person) for person in people),
        quality.to_numpy(np.int8),
        group,
    )


def test_sets(faces: pd.DataFrame, images: pd.DataFrame | None = None) -> dict[str, Trials]:
    """The trials of every split whose name begins with "test" and that has genuine and impostor pairs.

    images: as of `trials`. Raises NotPossible, with what is wrong with each, where there is none.
    """
    tests, problems = {}, []
    for split in sorted(name for name in faces["split"].unique() if name.startswith("test")):
        try:
            tests[split] = trials(faces, split, images)
        except NotPossible as error:
            problems.append(str(error))
    if not tests:
        raise NotPossible("; ".join(problems) or "no faces are in a test split")
    return tests


def first_test(tests: Mapping[str, Trials]) -> Trials:
    """The test set that figures of one test show: new photos of people in training, where there are any."""
    return tests["test_seen"] if "test_seen" in tests else next(iter(tests.values()))


def evaluate(
    embeddings: Mapping[str, np.ndarray | NotPossible],
    tests: Mapping[str, Trials],
    failures: str = "non_match",
    device: str | None = None,
) -> Results:
    """Scores every pair of every test set with every model: counts by test set, model and stratum.

    embeddings: float32 [N, D] unit rows by model, or NotPossible, which is left out; all-NaN rows are
    failures to enrol. Their pairs match at no threshold ("non_match"), or photos that any of the models fails
    on are dropped for all ("exclude").
    device: where pairs are counted, "numpy" (all cores) or a device of torch; by default CUDA for large test
    sets if torch is imported and sees it, else numpy. Scores agree within rounding, a step of the 1e-6 grid.
    A stratum of which the test set has no photos is not in the results.
    Raises ValueError for embeddings of different lengths, or not finite, or not of unit length, or where
    there are no models, no test sets, or no photos left.
    """
    embeddings = possible(embeddings)
    if not embeddings or not tests:
        raise ValueError(f"there are no {'test sets' if embeddings else 'models'} to evaluate")
    if failures not in ("non_match", "exclude"):
        raise ValueError(f'failures is {failures!r}; it can be "non_match" or "exclude"')
    if len({len(rows) for rows in embeddings.values()}) > 1:
        lengths = ", ".join(f"{model}: {len(rows)}" for model, rows in embeddings.items())
        raise ValueError(f"the models' embeddings have different numbers of rows ({lengths})")
    results: Results = {}
    for name, test in tests.items():
        vectors = {model: checked(rows, test.rows, model) for model, rows in embeddings.items()}
        failed = {model: np.isnan(rows[:, 0]) for model, rows in vectors.items()}
        keep = np.ones(len(test.rows), bool)
        if failures == "exclude":
            keep = ~np.any(list(failed.values()), axis=0)
            if not keep.any():
                raise ValueError(f"{name}: no photo is left where failures to enrol are excluded")
        results[name] = {
            model: count_pairs(rows, test, keep, failed[model], device) for model, rows in vectors.items()
        }
    return results


def possible(embeddings: Mapping[str, np.ndarray | NotPossible]) -> dict[str, np.ndarray]:
    """The embeddings of the models that there are, by model."""
    return {model: rows for model, rows in embeddings.items() if not isinstance(rows, NotPossible)}


# ---------------------------------------------------------------- checks


def check_people(identity: np.ndarray, what: str, group: np.ndarray | None = None) -> None:
    """Raises NotPossible where photos of these people, codes int64 [n], make no pairs of both kinds.

    what: names the photos in the message. group: int64 [n], near-duplicates share one; -1 shares with none.
    """
    if not len(identity):
        raise NotPossible(f"{what} is empty")
    if group is not None:  # near-duplicates of one person are one photo here
        apart = np.where(group < 0, -1 - np.arange(len(group)), group)
        identity = np.unique(np.column_stack([identity, apart]), axis=0)[:, 0]
    photos = np.bincount(identity)
    if len(photos) < 2:
        raise NotPossible(f"{what} holds photos of one person only: there are no impostor pairs")
    if photos.max() < 2:
        raise NotPossible(f"nobody has two different photos in {what}: there are no genuine pairs")


def checked(embeddings: np.ndarray, rows: np.ndarray, model: str) -> np.ndarray:
    """Rows [n] of a model's embeddings [N, D]: float32 [n, D], normalised again.

    Rows that are all NaN stay as they are. Raises ValueError, naming the model and the first such row, where
    a row is missing, holds NaN (but not only NaN) or infinity, or is not of unit length.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or not len(embeddings):
        raise ValueError(f"{model}: embeddings must be [N, D], not {list(embeddings.shape)}")
    if rows.max() >= len(embeddings):
        raise ValueError(f"{model}: {len(embeddings)} embeddings, but the test set asks for row {rows.max()}")
    vectors = np.array(embeddings[rows], np.float32)
    vectors[rows == NO_ROW] = np.nan
    missing = np.isnan(vectors).all(1)
    lengths = np.linalg.norm(vectors, axis=1)
    for wrong, what in (
        (~missing & ~np.isfinite(lengths), "holds NaN or infinity"),
        (lengths == 0, "is zero"),
        (~missing & (abs(lengths - 1) > 1e-2), "is not of unit length"),
    ):
        if wrong.any():
            raise ValueError(f"{model}: row {rows[wrong][0]} of its embeddings {what} ({wrong.sum()} in all)")
    return vectors / lengths[:, None]


def genuine_pairs(test: Trials) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The genuine pairs, a few people-sized blocks at a time: positions in the test set [n], [n]."""
    order = np.argsort(test.identity, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(test.identity))[:-1]):
        for start in range(0, len(rows), 256):
            i, j = np.triu_indices(len(rows[start : start + 256]), 1, len(rows) - start)
            a, b = rows[start + i], rows[start + j]
            apart = (test.group[a] != test.group[b]) | (test.group[a] < 0)
            if apart.any():
                yield a[apart], b[apart]


# ---------------------------------------------------------------- counting pairs


@dataclass(frozen=True)
class _Photos:
    """Photos of a test set in the order of counting, and the tiles of their similarity matrix."""

    vectors: np.ndarray  # float32 [n, D], unit rows; zero where missing
    failed: np.ndarray  # bool [n]
    identity: np.ndarray  # int64 [n]
    cluster: np.ndarray  # int64 [n], below clusters
    group: np.ndarray  # int64 [n]; -1 where no other photo shares it
    clusters: int
    tiles: list[tuple[slice, slice]]  # of the diagonal and above, each of one quality by one
    keys: list[tuple[int, int]]  # the two qualities of each tile


def count_pairs(
    vectors: np.ndarray, test: Trials, keep: np.ndarray, missing: np.ndarray, device: str | None = None
) -> dict[str, Counts]:
    """Counts of all pairs by stratum.

    vectors: float32 [n, D] as of `checked`; keep, missing: bool [n], the photos to count and those without an
    embedding; device: as of `evaluate`.
    """
    cluster = test.identity
    people = int(test.identity.max()) + 1
    if people > _CLUSTERS:
        cluster = np.random.default_rng(0).permutation(people)[test.identity] % _CLUSTERS
    order = np.lexsort((test.group, test.identity, cluster, test.quality))
    order = order[keep[order]]
    quality, group = test.quality[order], test.group[order]
    edges = [0, *(np.flatnonzero(np.diff(quality)) + 1), len(order)]
    spans = [
        slice(start, min(start + _TILE, stop))
        for first, stop in itertools.pairwise(edges)
        for start in range(first, stop, _TILE)
    ]
    tiles = [(a, b) for i, a in enumerate(spans) for b in spans[i:]]
    photos = _Photos(
        vectors=np.nan_to_num(vectors[order]),
        failed=missing[order],
        identity=test.identity[order],
        cluster=cluster[order],
        group=np.where(np.isin(group, _repeated(group)), group, -1),
        clusters=min(people, _CLUSTERS),
        tiles=tiles,
        keys=[(int(quality[a.start]), int(quality[b.start])) for a, b in tiles],
    )
    if device is None:
        device = "cuda" if len(order) >= _MANY and _sees_cuda() else "numpy"
    fine, coarse = _on_cores(photos) if device == "numpy" else _on_device(photos, device)

    strata = {}
    for name, wanted in STRATA.items():
        keys = [key for key in fine if wanted in (None, key)]
        if keys:
            inside = np.isin(test.quality, np.unique(keys))
            strata[name] = _compressed(
                [fine[key] for key in keys],
                np.sum([coarse[key] for key in keys], 0),
                people=len(np.unique(test.identity[inside & keep])),
                photos=int(inside.sum()),
                failed=int((inside & missing).sum()),
                excluded=int((inside & ~keep).sum()),
                pairs=sum(_number_of_pairs(quality, *key) for key in keys),
            )
    return strata


def _on_cores(photos: _Photos) -> tuple[Tables, Tables]:
    """Counts on all cores: by code [2, _CODES], by cluster and coarse code [2, clusters, _COARSE]."""
    vectors, failed, identity = photos.vectors, photos.failed, photos.identity
    cluster, group = photos.cluster, photos.group
    fine = {key: np.zeros((2, _CODES), np.int64) for key in set(photos.keys)}
    coarse = {key: np.zeros((2, photos.clusters, _COARSE), np.int64) for key in set(photos.keys)}
    lock = Lock()

    def work(tile: tuple[slice, slice], key: tuple[int, int]) -> None:
        a, b = tile
        codes = _codes(vectors[a], vectors[b], failed[a], failed[b])
        if a == b:
            codes[np.tri(len(codes), dtype=bool)] = _LEFT_OUT
        for g in np.intersect1d(group[a], group[b]):
            if g >= 0:
                codes[np.ix_(group[a] == g, group[b] == g)] = _LEFT_OUT
        genuine, genuine_cluster = _within(codes, identity[a], identity[b], cluster[a])
        inside, inside_cluster = _within(codes, cluster[a], cluster[b], cluster[a])
        with lock:
            np.add.at(fine[key][0], genuine, 1)
            np.add.at(fine[key][1], codes.ravel(), 1)
            np.add.at(coarse[key][0].ravel(), genuine_cluster * _COARSE + (genuine >> _SHIFT), 1)
            # what follows counts these twice, by row and by column
            np.subtract.at(coarse[key][1].ravel(), inside_cluster * _COARSE + (inside >> _SHIFT), 1)
        codes >>= _SHIFT
        for clusters, shape in ((cluster[a], (-1, 1)), (cluster[b], (1, -1))):
            first, last = int(clusters.min()), int(clusters.max()) + 1
            labels = codes + (clusters - first).reshape(shape) * _COARSE
            table = np.bincount(labels.ravel(), minlength=(last - first) * _COARSE)
            with lock:
                coarse[key][1, first:last] += table.reshape(-1, _COARSE)

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        done = pool.map(work, photos.tiles, photos.keys)
        for _ in tqdm(done, "pairs", len(photos.tiles), leave=False, disable=len(photos.tiles) < 100):
            pass
    return fine, coarse


def _sees_cuda() -> bool:
    # not imported for this: where there is no GPU, that alone would take as much memory as all else
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_available()


def _on_device(photos: _Photos, device: str) -> tuple[Tables, Tables]:
    """The counts of `_on_cores`, made on a device of torch and copied from there once, at the end."""
    import torch  # not at the top: whoever counts on cores needs no torch

    vectors, failed, identity, cluster, group = (
        torch.from_numpy(part).to(device)
        for part in (photos.vectors, photos.failed, photos.identity, photos.cluster, photos.group)
    )
    one = torch.ones(1, dtype=torch.int64, device=device)
    # [impostor, genuine] pairs, flat: by code, and by cluster and coarse code
    sizes = (2 * _CODES, 2 * photos.clusters * _COARSE)
    tables = {key: [one.new_zeros(size) for size in sizes] for key in set(photos.keys)}

    def add(table: torch.Tensor, labels: torch.Tensor) -> None:
        table.scatter_add_(0, labels.view(-1), one.expand(labels.numel()))

    matmul = torch.backends.cuda.matmul
    setting, exact = (
        ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    )
    before = getattr(matmul, setting)
    setattr(matmul, setting, exact)  # TF32 would err by 1e-3, a thousand codes
    try:
        for (a, b), key in zip(photos.tiles, photos.keys, strict=True):
            fine, coarse = tables[key]
            codes = (vectors[a] @ vectors[b].T).mul_(STEPS).add_(_ZERO).long()
            codes.masked_fill_(failed[a, None] | failed[b], _FAILED)
            apart = (group[a, None] != group[b]) | (group[b] < 0)
            codes.masked_fill_(~(apart.triu_(1) if a == b else apart), _LEFT_OUT)
            genuine = (identity[a, None] == identity[b]).long()
            add(fine, codes + genuine * _CODES)
            codes >>= _SHIFT
            codes += genuine * (photos.clusters * _COARSE)
            add(coarse, codes + cluster[a, None] * _COARSE)
            # by its column a pair counts too, unless that is of the same cluster
            codes.masked_fill_(cluster[a, None] == cluster[b], _LEFT_OUT)
            add(coarse, codes + cluster[b] * _COARSE)
    finally:
        setattr(matmul, setting, before)

    def copied(at: int, shape: tuple[int, ...]) -> Tables:
        counts = {key: flat[at].view(2, *shape).cpu().numpy() for key, flat in tables.items()}
        return {key: np.stack([genuine, impostor + genuine]) for key, (impostor, genuine) in counts.items()}

    return copied(0, (_CODES,)), copied(1, (photos.clusters, _COARSE))


def _codes(a: np.ndarray, b: np.ndarray, a_failed: np.ndarray, b_failed: np.ndarray) -> np.ndarray:
    """The codes [n, m] of the scores of unit rows [n, D] with unit rows [m, D]."""
    scores = a @ b.T
    scores *= STEPS
    scores += _ZERO
    codes = scores.astype(np.int64)
    codes[a_failed] = _FAILED
    codes[:, b_failed] = _FAILED
    return codes


def _repeated(values: np.ndarray) -> np.ndarray:
    found, count = np.unique(values, return_counts=True)
    return found[(count > 1) & (found >= 0)]


def _number_of_pairs(quality: np.ndarray, a: int, b: int) -> int:
    """How many pairs photos of these qualities [n] make of one photo of quality `a` and one of `b`."""
    n, m = int((quality == a).sum()), int((quality == b).sum())
    return n * (n - 1) // 2 if a == b else n * m


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


def _compressed(
    fine: list[np.ndarray],
    coarse: np.ndarray,
    people: int,
    photos: int,
    failed: int,
    excluded: int,
    pairs: int,
) -> Counts:
    """The counts without scores and clusters that no pair has.

    fine: [2, _CODES] of the qualities of a stratum; coarse: [2, clusters, _COARSE]; both genuine pairs and
    all. pairs: those of the stratum, near-duplicates included.
    """
    used = np.flatnonzero(np.any([part[1] for part in fine], 0))
    used = used[used != _LEFT_OUT]
    genuine, total = (np.sum([part[row, used] for part in fine], 0) for row in (0, 1))
    used_coarse = np.flatnonzero(np.bincount(used >> _SHIFT))
    coarse_genuine, coarse_total = coarse[:, coarse[1].any(1)][..., used_coarse]
    coarse_score = ((used_coarse << _SHIFT) - _ZERO) / STEPS
    return Counts(
        score=np.where(used == _FAILED, -np.inf, (used + 0.5 - _ZERO) / STEPS),
        genuine=genuine,
        impostor=total - genuine,
        cluster_score=np.where(used_coarse == _FAILED >> _SHIFT, -np.inf, coarse_score),
        cluster_genuine=coarse_genuine,
        cluster_impostor=coarse_total - coarse_genuine,
        people=people,
        photos=photos,
        failed=failed,
        excluded=excluded,
        left_out=pairs - int(total.sum()),
    )
