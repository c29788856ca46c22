"""Verification: every pair of a test set scored, metrics with intervals that respect shared people.

A score is the cosine of two embeddings; a pair is accepted where its score reaches the threshold. Terms as in
ISO/IEC 19795-1, with the names face recognition uses: a genuine pair shows one person, an impostor pair two;
FAR (false match rate) is the share of impostor pairs accepted, FRR (false non-match rate) that of genuine
pairs rejected, TAR = 1 - FRR; FTE is the share of photos a model gives no embedding for.
"""

import itertools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from threadpoolctl import threadpool_limits

QUALITIES = ("high", "low", "unknown")
STRATA = {"all": None, "high-high": (0, 0), "high-low": (0, 1), "low-low": (1, 1)}
FARS = {f"tar_far_1e-{digits}": 10.0**-digits for digits in (1, 2, 3, 4)}
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
    return float(_area(*_rates(counts.genuine, counts.impostor)))


def report(results: Results, baseline: str | None = None) -> pd.DataFrame:
    """One row per test set, stratum and model: measures with 95 % intervals, differences to the baseline's.

    baseline: the model that the others are compared with (default: the first). `<measure>_low` and `_high`
    bound the measure, `<measure>_difference` is the model's less the baseline's on the same pairs, with
    `_difference_low`, `_difference_high` and its p-value `_difference_p`. A TAR whose FAR the pairs cannot
    support is NaN, and `unsupported` names it; so is an interval with fewer than three people.
    pauc is the mean TAR over FAR from 0 to 0.1, d_prime that of the pairs without failures to enrol.
    """
    rows = []
    for test, models in results.items():
        reference = baseline or next(iter(models))
        if reference not in models:
            raise ValueError(f"the baseline {reference!r} is not among the models: {', '.join(models)}")
        for quality in STRATA:
            measured = {
                name: _measure(strata[quality]) for name, strata in models.items() if quality in strata
            }
            for name, (row, left_out, weights) in measured.items():
                head = {"model": name, "test": test, "quality": quality, "baseline": reference}
                compared = _compare(row, left_out, measured[reference], weights)
                rows.append(head | row | compared)
    return pd.DataFrame(rows)


Measured = tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray]


def _measure(counts: Counts) -> Measured:
    """A row of the report, and what its differences need: measures with a unit left out, units' weights."""
    genuine, impostor = int(counts.genuine.sum()), int(counts.impostor.sum())
    row: dict[str, Any] = {
        "people": counts.people,
        "photos": counts.photos,
        "genuine": genuine,
        "impostor": impostor,
        "left_out": counts.left_out,
        "fte": counts.failed / max(counts.photos, 1),
    }
    values = _measures(*_rates(counts.genuine, counts.impostor))
    left_out = _measures(*_rates(*_without_each(counts)))
    weights = counts.unit_genuine.sum(1)
    missing = [name for name, far in FARS.items() if impostor * far < SUPPORT]
    for name, value in values.items():
        if name in missing:
            left_out[name] = np.full(len(weights), np.nan)
        row[name] = np.nan if name in missing else float(value)
        row[f"{name}_low"], row[f"{name}_high"] = _interval(row[name], left_out[name], weights)
    row["d_prime"] = _d_prime(counts)
    row["unsupported"] = ", ".join(missing)
    return row, left_out, weights


def _compare(
    row: dict[str, Any], left_out: dict[str, np.ndarray], reference: Measured, weights: np.ndarray
) -> dict[str, float]:
    compared: dict[str, float] = {}
    for name, values in left_out.items():
        difference = row[name] - reference[0][name]
        low, high, p = _difference(difference, values - reference[1][name], weights)
        key = f"{name}_difference"
        compared |= {key: difference, f"{key}_low": low, f"{key}_high": high, f"{key}_p": p}
    return compared


# ---------------------------------------------------------------- measures


def _rates(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FAR and TAR [..., K + 1] of counts [..., K], from no pair accepted to all."""
    rates = []
    for counts in (impostor, genuine):
        accepted = np.zeros((*counts.shape[:-1], counts.shape[-1] + 1))
        np.cumsum(counts[..., ::-1], -1, out=accepted[..., 1:])
        with np.errstate(invalid="ignore", divide="ignore"):
            rates.append(accepted / accepted[..., -1:])
    return rates[0], rates[1]


def _area(far: np.ndarray, tar: np.ndarray, until: float = 1.0) -> np.ndarray:
    """Mean TAR over the FARs from 0 to `until`; pairs of equal score count half."""
    steps = np.diff(np.minimum(far, until), axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.nan_to_num(np.diff(tar, axis=-1) / np.diff(far, axis=-1), posinf=0.0)
    area = (steps * (tar[..., :-1] + slope * steps / 2)).sum(-1) / until
    return np.where(np.isnan(tar[..., -1]), np.nan, area)


def _measures(far: np.ndarray, tar: np.ndarray) -> dict[str, np.ndarray]:
    """Every measure of ROC curves [..., K + 1]."""
    curves = zip(far.reshape(-1, far.shape[-1]), tar.reshape(-1, far.shape[-1]), strict=True)
    at = np.array([np.interp(list(FARS.values()), *curve) for curve in curves]).reshape(*far.shape[:-1], -1)
    measures = {"auc": _area(far, tar), "pauc": _area(far, tar, 0.1), "eer": _crossing(far + tar - 1, far)}
    return measures | {name: at[..., i] for i, name in enumerate(FARS)}


def _crossing(rising: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` [..., K] where `rising` [..., K], which does not fall, passes 0, linear between two points."""
    after = np.clip((rising <= 0).sum(-1, keepdims=True), 1, rising.shape[-1] - 1)
    x0, x1 = (np.take_along_axis(rising, at, -1)[..., 0] for at in (after - 1, after))
    y0, y1 = (np.take_along_axis(values, at, -1)[..., 0] for at in (after - 1, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(x1 > x0, np.clip(-x0 / (x1 - x0), 0, 1), 0.0)
    return y0 + share * (y1 - y0)


def _d_prime(counts: Counts) -> float:
    """Distance of the mean scores in standard deviations; failures to enrol have no score."""
    scored = np.isfinite(counts.score)
    moments = []
    for weights in (counts.genuine[scored], counts.impostor[scored]):
        if not weights.sum():
            return np.nan
        mean = np.average(counts.score[scored], weights=weights)
        moments.append((mean, np.average((counts.score[scored] - mean) ** 2, weights=weights)))
    (g, g_variance), (i, i_variance) = moments
    spread = np.sqrt((g_variance + i_variance) / 2)
    return float((g - i) / spread) if spread else np.nan


# ---------------------------------------------------------------- uncertainty


def _coarse(counts: Counts, fine: np.ndarray) -> np.ndarray:
    at = np.searchsorted(counts.unit_score, counts.score, side="right") - 1
    return np.bincount(at, fine, minlength=len(counts.unit_score))


def _without_each(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Genuine and impostor counts with each unit left out in turn: [U, C]."""
    return (
        _coarse(counts, counts.genuine) - counts.unit_genuine,
        _coarse(counts, counts.impostor) - counts.unit_impostor,
    )


def _error(left_out: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Standard error by the delete-one jackknife, and its degrees of freedom; NaN with fewer than 3 units.

    left_out: the estimate without each unit [U]; weights: [U], the units' genuine pairs.
    """
    n = len(left_out)
    if n < 3 or not np.isfinite(left_out).all():
        return np.nan, np.nan
    error = np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    return float(error), max(1.0, float(weights.sum() ** 2 / (weights.astype(float) ** 2).sum()) - 1)


def _interval(value: float, left_out: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """95 % interval of a rate: Wilson's, for as many trials as would give the rate its standard error."""
    error, freedom = _error(left_out, weights)
    if not np.isfinite(value + error):
        return np.nan, np.nan
    t = stats.t.ppf(0.975, freedom)
    n = value * (1 - value) / error**2 if error > 0 and 0 < value < 1 else freedom + 1
    centre = (value + t**2 / (2 * n)) / (1 + t**2 / n)
    half = t / (1 + t**2 / n) * np.sqrt(value * (1 - value) / n + t**2 / (4 * n**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def _difference(value: float, left_out: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """95 % interval and p-value of a difference between two models."""
    error, freedom = _error(left_out, weights)
    if not np.isfinite(value + error):
        return np.nan, np.nan, np.nan
    if error == 0:
        return value, value, 1.0 if value == 0 else 0.0
    half = stats.t.ppf(0.975, freedom) * error
    return value - half, value + half, float(2 * stats.t.sf(abs(value) / error, freedom))


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
    keys = [(int(quality[a.start]), int(quality[b.start])) for a, b in jobs]
    # [genuine, all]: by code, and by unit and coarse code
    fine = {key: np.zeros((2, _CODES), np.int64) for key in set(keys)}
    coarse = {key: np.zeros((2, min(people, _UNITS), _COARSE), np.int64) for key in set(keys)}
    lock = Lock()

    def work(job: tuple[slice, slice], key: tuple[int, int]) -> None:
        a, b = job
        codes = _codes(vectors[a], vectors[b], failed[a], failed[b])
        if a == b:
            codes[np.tri(len(codes), dtype=bool)] = _LEFT_OUT
        for g in np.intersect1d(group[a], group[b]):
            if g >= 0:
                codes[np.ix_(group[a] == g, group[b] == g)] = _LEFT_OUT
        genuine, genuine_unit = _within(codes, identity[a], identity[b], unit[a])
        inside, inside_unit = _within(codes, unit[a], unit[b], unit[a])
        with lock:
            np.add.at(fine[key][0], genuine, 1)
            np.add.at(fine[key][1], codes.ravel(), 1)
            np.add.at(coarse[key][0], (genuine_unit, genuine >> _SHIFT), 1)
            np.subtract.at(coarse[key][1], (inside_unit, inside >> _SHIFT), 1)  # or they would count twice
        codes >>= _SHIFT
        for units, shape in ((unit[a], (-1, 1)), (unit[b], (1, -1))):
            first, last = int(units.min()), int(units.max()) + 1
            labels = codes + (units - first).reshape(shape) * _COARSE
            table = np.bincount(labels.ravel(), minlength=(last - first) * _COARSE)
            with lock:
                coarse[key][1, first:last] += table.reshape(-1, _COARSE)

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, jobs, keys))

    result = {}
    for name, wanted in STRATA.items():
        of = [key for key in fine if wanted in (None, key)]
        if of:
            photos = np.isin(quality, np.unique(of))
            result[name] = _compressed(
                [fine[key] for key in of],
                np.sum([coarse[key] for key in of], 0),
                people=len(np.unique(identity[photos])),
                photos=int(photos.sum()),
                failed=int(failed[photos].sum()),
                pairs=sum(_pairs(quality, *key) for key in of),
            )
    return result


def _codes(a: np.ndarray, b: np.ndarray, a_failed: np.ndarray, b_failed: np.ndarray) -> np.ndarray:
    """The codes [n, m] of the scores of unit rows [n, D] with unit rows [m, D]."""
    scores = a @ b.T
    scores *= _STEPS
    scores += _ZERO
    codes = scores.astype(np.int64)
    codes[a_failed] = _FAILED
    codes[:, b_failed] = _FAILED
    return codes


def _repeated(values: np.ndarray) -> np.ndarray:
    found, count = np.unique(values, return_counts=True)
    return found[(count > 1) & (found >= 0)]


def _pairs(quality: np.ndarray, a: int, b: int) -> int:
    n, m = int((quality == a).sum()), int((quality == b).sum())
    return n * (n - 1) // 2 if a == b else n * m


def _within(
    codes: np.ndarray, rows: np.ndarray, columns: np.ndarray, unit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The codes of a tile's pairs whose row and column have the same label, and the unit of each.

    rows, columns: labels, equal ones in a run; unit: of each row.
    """
    parts, units = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for label in np.intersect1d(rows, columns):
        r, c = np.flatnonzero(rows == label), np.flatnonzero(columns == label)
        block = codes[r[0] : r[-1] + 1, c[0] : c[-1] + 1].ravel()
        parts.append(block)
        units.append(np.full(len(block), unit[r[0]]))
    return np.concatenate(parts), np.concatenate(units)


def _compressed(
    fine: list[np.ndarray], coarse: np.ndarray, people: int, photos: int, failed: int, pairs: int
) -> Counts:
    used = np.flatnonzero(np.any([part[1] for part in fine], 0))
    used = used[used != _LEFT_OUT]
    genuine, both = (np.sum([part[row, used] for part in fine], 0) for row in (0, 1))
    used_coarse = np.flatnonzero(np.bincount(used >> _SHIFT))
    units = coarse[:, coarse[1].any(1)][..., used_coarse]
    return Counts(
        score=np.where(used == _FAILED, -np.inf, (used + 0.5 - _ZERO) / _STEPS),
        genuine=genuine,
        impostor=both - genuine,
        unit_score=np.where(
            used_coarse == _FAILED >> _SHIFT, -np.inf, ((used_coarse << _SHIFT) - _ZERO) / _STEPS
        ),
        unit_genuine=units[0],
        unit_impostor=units[1] - units[0],
        people=people,
        photos=photos,
        failed=failed,
        left_out=pairs - int(both.sum()),
    )
