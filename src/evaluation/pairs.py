"""Every pair of a test set, scored and counted: what all verification results are made from.

A score is the cosine of two embeddings. A genuine pair shows one person, an impostor pair two. However many
pairs there are: see `counting`.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.evaluation import counting
from src.limits import NotPossible

QUALITIES = ("high", "low", "unknown")
STRATA = counting.STRATA
ACROSS = "seen_x_strangers"  # the test of people in training against people who are not
NO_ROW = -1  # in the place of a row of the embeddings, for a photo too small to have one
_TILE = 2048  # rows and columns of a block of the similarity matrix
_CLUSTERS = 300  # people; where there are more, they are put into so many clusters
_MOST = 10**9  # pairs; of more, about so many impostor pairs are a sample, and all genuine ones are counted
_Tile = tuple[slice, slice]


@dataclass(frozen=True)
class Trials:
    """A test set: photos of which every two make a pair, except two of one near-duplicate group."""

    name: str
    rows: np.ndarray  # int64 [n]: rows of faces, and so of the embeddings; NO_ROW: a failure to enrol
    identity: np.ndarray  # int64 [n]: codes into people
    people: tuple[str, ...]
    quality: np.ndarray  # int8 [n]: codes into QUALITIES
    group: np.ndarray  # int64 [n]: photos that share one are near-duplicates; -1 shares with none
    # bool [n], of a test of known people against strangers: which photos are of strangers. Its genuine pairs
    # are of known people, its impostor pairs of one photo of each kind.
    stranger: np.ndarray | None = None


@dataclass(frozen=True)
class Counts:
    """The pairs of one model in one stratum of a test set, counted by score.

    Scores that are too many are put into bins by rank, from `score` to `top`; `order` is what the AUC, with
    scores of a bin taken as ties, lacks to that of the scores themselves. A score of -inf is that of a pair
    with a failure to enrol, and has a bin of its own. A cluster is a person or, where there are very many, a
    part of the people. For each, the pairs with at least one photo of that cluster are counted too, in bins
    that hold one or more of the others.
    """

    score: np.ndarray  # float64 [K], ascending: the lowest of each bin
    top: np.ndarray  # float64 [K]: the highest of each bin
    genuine: np.ndarray  # int64 [K]
    impostor: np.ndarray  # int64 [K]
    order: float
    cluster_score: np.ndarray  # float64 [C], ascending
    cluster_genuine: np.ndarray  # int64 [U, C]
    cluster_impostor: np.ndarray  # int64 [U, C]
    cluster_people: tuple[tuple[str, ...], ...]  # U, who is in each
    people: int
    genuine_people: int  # people with genuine pairs
    photos: int
    failed: int  # photos without an embedding, also where they are excluded
    excluded: int  # of the photos, those dropped because a model has no embedding of them
    left_out: int  # pairs inside near-duplicate groups
    impostors: int = 0  # pairs that the impostor pairs are a sample of; 0: they are all there are


Results = dict[str, dict[str, dict[str, Counts]]]  # by test set, model, stratum


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


def across(known: Trials, strangers: Trials) -> Trials:
    """The test of known people's photos against strangers', one of each; genuine pairs are of known people.

    Raises ValueError where somebody is in both.
    """
    if both := sorted(set(known.people) & set(strangers.people)):
        raise ValueError(f"{known.name} and {strangers.name} both have photos of {both[0]}")
    return Trials(
        ACROSS,
        np.append(known.rows, strangers.rows),
        np.append(known.identity, strangers.identity + len(known.people)),
        known.people + strangers.people,
        np.append(known.quality, strangers.quality),
        np.append(known.group, strangers.group),
        np.arange(len(known.rows) + len(strangers.rows)) >= len(known.rows),
    )


def with_strangers(tests: Mapping[str, Trials]) -> dict[str, Trials]:
    """The tests, and, where there are both, test_seen against test_unseen."""
    if not {"test_seen", "test_unseen"} <= set(tests):
        return dict(tests)
    return {**tests, ACROSS: across(tests["test_seen"], tests["test_unseen"])}


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
    device: where the pairs of large test sets are counted, "numpy" (all cores) or a device of torch; by
    default CUDA if torch is imported and sees it, else numpy. Scores agree within rounding. Test sets of up
    to 10 million pairs are always counted on cores.
    A stratum of which the test set has no photos is not in the results. Of more than a billion pairs, all
    genuine ones are counted and a sample of the impostor pairs: those of blocks of the similarity matrix that
    are drawn at random, whoever's they are.
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
    wanted = np.ones(len(test.rows), bool) if test.stranger is None else ~test.stranger
    for rows in _of_each(test.identity, wanted):
        for start in range(0, len(rows), 256):
            i, j = np.triu_indices(len(rows[start : start + 256]), 1, len(rows) - start)
            a, b = rows[start + i], rows[start + j]
            apart = (test.group[a] != test.group[b]) | (test.group[a] < 0)
            if apart.any():
                yield a[apart], b[apart]


# ---------------------------------------------------------------- counting pairs


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
    stranger = np.zeros(len(test.rows), bool) if test.stranger is None else test.stranger
    order = np.lexsort((test.group, test.identity, cluster, test.quality, stranger))
    order = order[keep[order]]
    quality, group, of_stranger = test.quality[order], test.group[order], stranger[order]
    edges = [0, *(np.flatnonzero(np.diff(quality + len(QUALITIES) * of_stranger)) + 1), len(order)]
    spans = [
        slice(start, min(start + _TILE, stop))
        for first, stop in itertools.pairwise(edges)
        for start in range(first, stop, _TILE)
    ]
    tiles = [(a, b) for i, a in enumerate(spans) for b in spans[i:]]
    tiles = [(a, b) for a, b in tiles if not of_stranger[a.start]]  # strangers come last, as the second
    keys = [_key(quality[a.start], quality[b.start]) for a, b in tiles]
    only_genuine = [test.stranger is not None and not of_stranger[b.start] for _, b in tiles]
    looked, drawn = _drawn(tiles, keys, np.array(only_genuine), test.identity[order])
    photos = counting.Photos(
        vectors=np.nan_to_num(vectors[order]),
        failed=missing[order],
        identity=test.identity[order],
        cluster=cluster[order],
        group=np.where(np.isin(group, _repeated(group)), group, -1),
        clusters=min(people, _CLUSTERS),
        tiles=[tiles[place] for place in looked],
        keys=[keys[place] for place in looked],
        only_genuine=[only_genuine[place] or not drawn[place] for place in looked],
    )
    names = test.people or tuple(map(str, range(people)))
    members: dict[int, list[str]] = {}
    for one, person in np.unique(np.column_stack([cluster, test.identity]), axis=0):
        members.setdefault(int(one), []).append(names[person])
    strata = {}
    for name, tally in counting.counted(photos, device).items():
        keys = counting.in_stratum(photos.keys)[name]
        genuine = int(tally.genuine.sum())
        inside = np.isin(test.quality, np.unique(keys))
        if test.stranger is None:
            left_out = sum(_number_inside(quality, group, *key) for key in keys)
            impostors = sum(_number_of_pairs(quality, *key) for key in keys) - left_out - genuine
        else:  # near-duplicates are of one person
            known = [quality[rows] for rows in _of_each(test.identity[order], ~of_stranger)]
            left_out = sum(_number_of_pairs(own, *key) for own in known for key in keys)
            left_out -= genuine
            own, other = (np.bincount(quality[of_stranger == s], minlength=len(QUALITIES)) for s in (0, 1))
            table = np.outer(own, other)
            impostors = sum(int(table[a, b] + (table[b, a] if a != b else 0)) for a, b in keys)
        strata[name] = Counts(
            *tally[:-1],
            cluster_people=tuple(tuple(members[int(one)]) for one in tally.cluster),
            people=len(np.unique(test.identity[inside & keep])),
            genuine_people=_with_genuine_pairs(test, keep & ~stranger, keys),
            photos=int(inside.sum()),
            failed=int((inside & missing).sum()),
            excluded=int((inside & ~keep).sum()),
            left_out=left_out,
            impostors=0 if drawn.all() else impostors,
        )
    return strata


def _drawn(
    tiles: list[_Tile], keys: list[counting.Key], only_genuine: np.ndarray, identity: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which tiles are looked at, positions, and which are drawn, bool: all or, of too many pairs, some.

    Of tiles of every two qualities a like share is drawn at random. The others are looked at for genuine
    pairs, where they may have any. only_genuine: bool, of the tiles; identity: of the photos as counted.
    """
    sizes = np.array([(a.stop - a.start) * (b.stop - b.start) for a, b in tiles])
    share = _MOST / max(sizes[~only_genuine].sum(), 1)
    if share >= 1:
        return np.arange(len(tiles)), np.ones(len(tiles), bool)
    rng, drawn = np.random.default_rng(0), only_genuine.copy()
    of_pairs = pd.Series(keys)[~only_genuine]
    for rows in of_pairs.groupby(of_pairs).groups.values():
        drawn[rng.permutation(rows)[: max(1, round(share * len(rows)))]] = True
    people = {span.start: np.unique(identity[span]) for tile in tiles for span in tile}
    looked = [
        take or len(np.intersect1d(people[a.start], people[b.start], assume_unique=True)) > 0
        for (a, b), take in zip(tiles, drawn, strict=True)
    ]
    return np.flatnonzero(looked), drawn


def _key(a: int, b: int) -> tuple[int, int]:
    return (int(a), int(b)) if a <= b else (int(b), int(a))


def _of_each(identity: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """The positions of each person's photos [n], of those that are wanted."""
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(identity[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(identity[rows])) + 1)


def _repeated(values: np.ndarray) -> np.ndarray:
    found, count = np.unique(values, return_counts=True)
    return found[(count > 1) & (found >= 0)]


def _with_genuine_pairs(test: Trials, keep: np.ndarray, keys: list[tuple[int, int]]) -> int:
    """How many people have two photos [n], of those kept, that make a pair of one of these qualities."""
    found = np.zeros(int(test.identity.max()) + 1, bool)
    apart = np.where(test.group < 0, -1 - np.arange(len(test.group)), test.group)
    for key in keys:
        inside = keep & np.isin(test.quality, key)
        photos = np.unique(np.column_stack([test.identity, apart])[inside], axis=0)[:, 0]
        several = np.bincount(photos, minlength=len(found)) > 1
        for quality in key:
            several &= (
                np.bincount(test.identity[inside & (test.quality == quality)], minlength=len(found)) > 0
            )
        found |= several
    return int(found.sum())


def _number_inside(quality: np.ndarray, group: np.ndarray, a: int, b: int) -> int:
    """How many of the pairs of `_number_of_pairs` are of one group, int64 [n]."""
    names, place = np.unique(group[group >= 0], return_inverse=True)
    n, m = (np.bincount(place[quality[group >= 0] == q], minlength=len(names)) for q in (a, b))
    return int((n * (n - 1) // 2 if a == b else n * m).sum())


def _number_of_pairs(quality: np.ndarray, a: int, b: int) -> int:
    """How many pairs photos of these qualities [n] make of one photo of quality `a` and one of `b`."""
    n, m = int((quality == a).sum()), int((quality == b).sum())
    return n * (n - 1) // 2 if a == b else n * m
