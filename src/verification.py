"""Verification: every pair of a test set scored, metrics with intervals that respect shared people.

A score is the cosine of two embeddings; a pair is accepted where its score reaches the threshold. Terms as in
ISO/IEC 19795-1, with the names face recognition uses: a genuine pair shows one person, an impostor pair two;
FAR (false match rate) is the share of impostor pairs accepted, FRR (false non-match rate) that of genuine
pairs rejected, TAR = 1 - FRR; FTE is the share of photos a model gives no embedding for.
"""

import itertools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pandas as pd
from scipy import stats
from threadpoolctl import threadpool_limits

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]

QUALITIES = ("high", "low", "unknown")
STRATA = {"all": None, "high-high": (0, 0), "high-low": (0, 1), "low-low": (1, 1)}
FARS = (1e-1, 1e-2, 1e-3, 1e-4)
SUPPORT = (
    30  # impostor pairs that must be expected above a threshold for its FAR to be reported ("rule of 30")
)

# Scores are counted by code: the cosine on a grid of 2**21 steps (1e-6 apart), with room below for two codes
# that are no score. A code's high 12 bits are its coarse code, by which pairs are counted per person.
_CODES, _COARSE = 2**21, 2**12
_SHIFT = 9
_LEFT_OUT, _FAILED = 0, 512  # coarse 0: no pair; coarse 1: a photo without an embedding matches nothing
_STEPS = 2**20 - 1024  # codes per unit of cosine
_ZERO = 2**20  # the code of cosine 0
_TILE = 2048  # rows and columns of a block of the similarity matrix
_UNITS = (
    300  # people, or equal parts of the people where there are more, that the jackknife leaves out in turn
)


@dataclass(frozen=True)
class Trials:
    """A test set: its photos, of which every two make a pair, except two of one near-duplicate group."""

    name: str
    rows: np.ndarray  # int64 [n]: rows of faces, and so of the embeddings
    identity: np.ndarray  # int64 [n]: codes into people
    people: tuple[str, ...]
    quality: np.ndarray  # int8 [n]: codes into QUALITIES
    group: np.ndarray  # int64 [n]: photos that share one are near-duplicates; -1 shares with none


@dataclass(frozen=True)
class Counts:
    """The pairs of one model in one stratum of a test set, counted by score.

    A score of -inf is that of a pair with a failure to enrol. Per unit, a person or a part of the people, the
    pairs with at least one photo of that unit are counted too, by scores on a coarser grid.
    """

    score: np.ndarray  # float64 [K], ascending
    genuine: np.ndarray  # int64 [K]
    impostor: np.ndarray  # int64 [K]
    unit_score: np.ndarray  # float64 [C], ascending
    unit_genuine: np.ndarray  # int64 [U, C]
    unit_impostor: np.ndarray  # int64 [U, C]
    people: int
    photos: int
    failed: int  # photos without an embedding
    left_out: int  # pairs inside near-duplicate groups


Results = dict[str, dict[str, dict[str, Counts]]]  # by test set, model, stratum


def trials(faces: pd.DataFrame, split: str) -> Trials:
    """The test set made of the rows of `faces` in `split`.

    Raises ValueError where the split is empty, has one person only, or nobody with two photos.
    """
    rows = np.flatnonzero(faces["split"].to_numpy() == split)
    if not len(rows):
        present = ", ".join(sorted(set(faces["split"]))) or "none"
        raise ValueError(f"no faces in the split {split!r}; the splits there are: {present}")
    chosen = faces.iloc[rows]
    identity, people = pd.factorize(chosen["identity"], sort=True)
    quality = chosen["quality"].map({name: code for code, name in enumerate(QUALITIES)}).fillna(2)
    _check_people(identity.astype(np.int64), f"the split {split!r}")
    return Trials(
        split,
        rows.astype(np.int64),
        identity.astype(np.int64),
        tuple(str(person) for person in people),
        quality.to_numpy(np.int8),
        chosen["group"].to_numpy(np.int64),
    )


def evaluate(
    embeddings: Mapping[str, np.ndarray], tests: Mapping[str, Trials], failures: str = "non_match"
) -> Results:
    """Scores every pair of every test set with every model.

    embeddings: float32 [N, D] unit rows by model; all-NaN rows are failures to enrol. Their pairs match at no
    threshold ("non_match"), or photos that any of the models fails on are dropped for all ("exclude").
    Raises ValueError for embeddings of different lengths, or not finite, or not of unit length.
    """
    if failures not in ("non_match", "exclude"):
        raise ValueError(f'failures is {failures!r}; it can be "non_match" or "exclude"')
    if len({len(rows) for rows in embeddings.values()}) > 1:
        lengths = ", ".join(f"{name}: {len(rows)}" for name, rows in embeddings.items())
        raise ValueError(f"the models' embeddings have different numbers of rows ({lengths})")
    results: Results = {}
    for test, chosen in tests.items():
        rows = {name: _checked(vectors, chosen.rows, name) for name, vectors in embeddings.items()}
        failed = {name: np.isnan(vectors[:, 0]) for name, vectors in rows.items()}
        keep = np.ones(len(chosen.rows), bool)
        if failures == "exclude":
            keep = ~np.any(list(failed.values()), axis=0)
        results[test] = {name: _count(rows[name], chosen, keep, failed[name]) for name in rows}
    return results


def auc(embeddings: np.ndarray, identity: np.ndarray) -> float:
    """AUC over all pairs of unit rows [N, D], of which those with the same identity [N] are genuine."""
    codes = np.unique(np.asarray(identity), return_inverse=True)[1].astype(np.int64)
    if len(codes) != len(embeddings):
        raise ValueError(f"{len(embeddings)} embeddings, but {len(codes)} identities")
    _check_people(codes, "the embeddings given")
    n = len(codes)
    chosen = Trials("", np.arange(n), codes, (), np.full(n, 2, np.int8), np.full(n, -1))
    vectors = _checked(embeddings, chosen.rows, "the model")
    everything = np.ones(n, bool)
    counts = _count(vectors, chosen, everything, np.isnan(vectors[:, 0]))["all"]
    return float(_auc(counts.genuine, counts.impostor))


def report(results: Results, baseline: str | None = None) -> pd.DataFrame:
    """One row per test set, stratum and model: metrics with 95 % intervals, differences to a baseline.

    baseline: the model the others are compared with (default: the first).
    """
    rows = []
    for test, models in results.items():
        reference = baseline or next(iter(models))
        for quality in STRATA:
            for name, strata in models.items():
                if quality in strata:
                    row = {"model": name, "test": test, "quality": quality}
                    rows.append(row | _row(strata[quality], models[reference][quality]))
    return pd.DataFrame(rows)


def _row(counts: Counts, reference: Counts) -> dict[str, float]:
    impostor = int(counts.impostor.sum())
    row: dict[str, float] = {
        "people": counts.people,
        "photos": counts.photos,
        "genuine": int(counts.genuine.sum()),
        "impostor": impostor,
        "left_out": counts.left_out,
        "fte": counts.failed / max(counts.photos, 1),
    }
    for name, metric in METRICS.items():
        row[name], row[f"{name}_low"], row[f"{name}_high"] = _with_interval(counts, metric)
    for far in FARS:
        metric = _tar_at(far)
        name = f"tar_far_{far:.0e}".replace("e-0", "e-")
        values = _with_interval(counts, metric) if impostor * far >= SUPPORT else (np.nan, np.nan, np.nan)
        row[name], row[f"{name}_low"], row[f"{name}_high"] = values
    names = ("auc_difference", "auc_difference_low", "auc_difference_high", "auc_difference_p")
    return row | dict(zip(names, _difference(counts, reference, _auc), strict=True))


# -------------------------------------------------- metrics of counts [..., K] by ascending score


def _auc(genuine: np.ndarray, impostor: np.ndarray) -> np.ndarray:
    below = np.cumsum(impostor, -1) - impostor / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (genuine * below).sum(-1) / (genuine.sum(-1) * impostor.sum(-1, dtype=float))


def _rates(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FAR and TAR at thresholds from above the highest score to the lowest: [..., K + 1], ascending."""
    rates = []
    for counts in (impostor, genuine):
        accepted = np.cumsum(counts[..., ::-1], -1, dtype=float)
        accepted = np.concatenate([np.zeros_like(accepted[..., :1]), accepted], -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            rates.append(accepted / accepted[..., -1:])
    return rates[0], rates[1]


def _crossing(rising: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` [..., K] where `rising` [..., K], which does not fall, passes 0, linear between two points."""
    after = np.clip((rising <= 0).sum(-1, keepdims=True), 1, rising.shape[-1] - 1)
    x0, x1 = (np.take_along_axis(rising, at, -1)[..., 0] for at in (after - 1, after))
    y0, y1 = (np.take_along_axis(values, at, -1)[..., 0] for at in (after - 1, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(x1 > x0, np.clip(-x0 / (x1 - x0), 0, 1), 0.0)
    return np.where(np.isnan(x0 + x1), np.nan, y0 + share * (y1 - y0))


def _tar_at(far: float) -> Metric:
    def metric(genuine: np.ndarray, impostor: np.ndarray) -> np.ndarray:
        fars, tars = _rates(genuine, impostor)
        return _crossing(fars - far, tars)

    return metric


def _eer(genuine: np.ndarray, impostor: np.ndarray) -> np.ndarray:
    fars, tars = _rates(genuine, impostor)
    return _crossing(fars - (1 - tars), fars)


METRICS: dict[str, Metric] = {"auc": _auc, "eer": _eer}

# ---------------------------------------------------------------- uncertainty


def _leave_one_out(counts: Counts, metric: Metric) -> np.ndarray:
    """The metric with each unit left out in turn, [U]."""
    genuine, impostor = counts.unit_genuine, counts.unit_impostor
    total = [_coarsened(counts, part) for part in (counts.genuine, counts.impostor)]
    return metric(total[0] - genuine, total[1] - impostor)


def _coarsened(counts: Counts, fine: np.ndarray) -> np.ndarray:
    at = np.searchsorted(counts.unit_score, counts.score, side="right") - 1
    return np.bincount(at, fine, minlength=len(counts.unit_score)).astype(np.int64)


def _jackknife(values: np.ndarray) -> tuple[float, int]:
    """Standard error and degrees of freedom from leave-one-out values [U]."""
    n = len(values)
    if n < 3 or not np.isfinite(values).all():
        return np.nan, 0
    return float(np.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum())), n - 1


def _with_interval(counts: Counts, metric: Metric) -> tuple[float, float, float]:
    value = float(metric(counts.genuine, counts.impostor))
    error, freedom = _jackknife(_leave_one_out(counts, metric))
    if not np.isfinite(value + error):
        return value, np.nan, np.nan
    t = stats.t.ppf(0.975, freedom)
    n = value * (1 - value) / error**2 if error > 0 and 0 < value < 1 else freedom + 1
    centre = (value + t**2 / (2 * n)) / (1 + t**2 / n)
    half = t / (1 + t**2 / n) * np.sqrt(value * (1 - value) / n + t**2 / (4 * n**2))
    return value, max(0.0, centre - half), min(1.0, centre + half)


def _difference(counts: Counts, reference: Counts, metric: Metric) -> tuple[float, float, float, float]:
    """Difference of the metric to the reference's, its 95 % interval and p-value."""
    difference = float(
        metric(counts.genuine, counts.impostor) - metric(reference.genuine, reference.impostor)
    )
    left_out = _leave_one_out(counts, metric) - _leave_one_out(reference, metric)
    error, freedom = _jackknife(left_out)
    if not np.isfinite(difference + error):
        return difference, np.nan, np.nan, np.nan
    if error == 0:
        return difference, difference, difference, 1.0 if difference == 0 else 0.0
    half = stats.t.ppf(0.975, freedom) * error
    return difference, difference - half, difference + half, 2 * stats.t.sf(abs(difference) / error, freedom)


# ---------------------------------------------------------------- counting pairs


def _check_people(identity: np.ndarray, what: str) -> None:
    photos = np.bincount(identity)
    if len(photos) < 2:
        raise ValueError(f"{what} holds photos of one person only: there are no impostor pairs")
    if photos.max() < 2:
        raise ValueError(f"nobody has two photos in {what}: there are no genuine pairs")


def _checked(embeddings: np.ndarray, rows: np.ndarray, name: str) -> np.ndarray:
    """The rows of a model's embeddings, float32, exactly unit; all-NaN rows stay as they are."""
    if embeddings.ndim != 2 or not len(embeddings):
        raise ValueError(f"{name}: embeddings must be [N, D], not {list(embeddings.shape)}")
    if rows.max() >= len(embeddings):
        raise ValueError(f"{name}: {len(embeddings)} embeddings, but the test set asks for row {rows.max()}")
    vectors = np.asarray(embeddings[rows], np.float32)
    missing = np.isnan(vectors).all(1)
    lengths = np.linalg.norm(vectors, axis=1)
    for wrong, what in (
        (~missing & ~np.isfinite(lengths), "holds NaN or infinity"),
        (lengths == 0, "is zero"),
        (~missing & (abs(lengths - 1) > 1e-2), "is not of unit length"),
    ):
        if wrong.any():
            raise ValueError(f"{name}: row {rows[wrong][0]} of its embeddings {what} ({wrong.sum()} in all)")
    return vectors / lengths[:, None]


def _count(vectors: np.ndarray, test: Trials, keep: np.ndarray, failed: np.ndarray) -> dict[str, Counts]:
    """Counts of all pairs by stratum."""
    unit = test.identity
    people = int(test.identity.max()) + 1
    if people > _UNITS:
        unit = np.random.default_rng(0).permutation(people)[test.identity] % _UNITS
    units = min(people, _UNITS)
    order = np.lexsort((test.group, test.identity, unit, test.quality))
    order = order[keep[order]]
    quality, unit, identity, group = (part[order] for part in (test.quality, unit, test.identity, test.group))
    group = np.where(np.isin(group, _repeated(group)), group, -1)
    vectors, failed = np.nan_to_num(vectors[order]), failed[order]

    edges = [0, *(np.flatnonzero(np.diff(quality)) + 1), len(order)]
    spans = [
        slice(start, min(start + _TILE, stop))
        for first, stop in itertools.pairwise(edges)
        for start in range(first, stop, _TILE)
    ]
    jobs = [(a, b) for i, a in enumerate(spans) for b in spans[i:]]
    fine: dict[tuple[int, int], np.ndarray] = {}
    coarse: dict[tuple[int, int], np.ndarray] = {}
    for a, b in jobs:
        key = (int(quality[a.start]), int(quality[b.start]))
        if key not in fine:
            fine[key] = np.zeros((2, _CODES), np.int64)
            coarse[key] = np.zeros((2, units, _COARSE), np.int64)
    lock = Lock()

    def work(job: tuple[slice, slice]) -> None:
        a, b = job
        key = (int(quality[a.start]), int(quality[b.start]))
        scores = vectors[a] @ vectors[b].T
        scores *= _STEPS
        scores += _ZERO
        codes = scores.astype(np.int64)
        codes[failed[a]] = _FAILED
        codes[:, failed[b]] = _FAILED
        if a == b:
            codes[np.tri(len(codes), dtype=bool)] = _LEFT_OUT
        for g in np.intersect1d(group[a], group[b]):
            if g >= 0:
                codes[np.ix_(group[a] == g, group[b] == g)] = _LEFT_OUT
        genuine, of_unit = _genuine(codes, identity[a], identity[b], unit[a])
        local = np.stack(
            [np.bincount(genuine, minlength=_CODES), np.bincount(codes.ravel(), minlength=_CODES)]
        )
        codes >>= _SHIFT
        with lock:
            fine[key] += local
            np.add.at(coarse[key][0], (of_unit, genuine >> _SHIFT), 1)
            first = unit[b].min()
            columns = (unit[b] - first) * _COARSE
            width = int(unit[b].max() - first) + 1
            for u in np.unique(unit[a]):
                part = codes[unit[a] == u] + columns
                table = np.bincount(part.ravel(), minlength=width * _COARSE).reshape(width, _COARSE)
                coarse[key][1, first : first + width] += table
                coarse[key][1, u] += table.sum(0)
                if first <= u < first + width:
                    coarse[key][1, u] -= table[u - first]

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, jobs))
    for counts in (*fine.values(), *coarse.values()):
        counts[1] -= counts[0]

    result = {}
    for name, wanted in STRATA.items():
        keys = [key for key in fine if wanted in (None, key)]
        if keys:
            of = np.isin(quality, np.unique([wanted] if wanted else keys))
            pairs = sum(_pairs(quality, *key) for key in keys)
            result[name] = _compressed(
                np.sum([fine[key] for key in keys], 0),
                np.sum([coarse[key] for key in keys], 0),
                people=len(np.unique(identity[of])),
                photos=int(of.sum()),
                failed=int(failed[of].sum()),
                pairs=pairs,
            )
    return result


def _repeated(values: np.ndarray) -> np.ndarray:
    found, count = np.unique(values, return_counts=True)
    return found[(count > 1) & (found >= 0)]


def _pairs(quality: np.ndarray, a: int, b: int) -> int:
    n, m = int((quality == a).sum()), int((quality == b).sum())
    return n * (n - 1) // 2 if a == b else n * m


def _genuine(
    codes: np.ndarray, rows: np.ndarray, columns: np.ndarray, unit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The codes of the genuine pairs in a tile, and the unit of each; rows, columns: identities."""
    parts, units = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for person in np.intersect1d(rows, columns):
        r, c = np.flatnonzero(rows == person), np.flatnonzero(columns == person)
        block = codes[r[0] : r[-1] + 1, c[0] : c[-1] + 1].ravel()
        parts.append(block)
        units.append(np.full(len(block), unit[r[0]]))
    return np.concatenate(parts), np.concatenate(units)


def _compressed(
    fine: np.ndarray, coarse: np.ndarray, people: int, photos: int, failed: int, pairs: int
) -> Counts:
    fine[:, _LEFT_OUT] = 0
    coarse[..., _LEFT_OUT >> _SHIFT] = 0
    used = np.flatnonzero(fine.any(0))
    used_coarse = np.unique(used >> _SHIFT)
    units = coarse[:, coarse.any((0, 2))][..., used_coarse]
    score = np.where(used == _FAILED, -np.inf, (used + 0.5 - _ZERO) / _STEPS)
    lowest = (used_coarse << _SHIFT) - _ZERO
    unit_score = np.where(used_coarse == _FAILED >> _SHIFT, -np.inf, lowest / _STEPS)
    counted = int(fine.sum())
    return Counts(
        score,
        fine[0, used],
        fine[1, used],
        unit_score,
        units[0],
        units[1],
        people,
        photos,
        failed,
        pairs - counted,
    )
