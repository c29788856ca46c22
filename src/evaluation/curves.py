"""Curves and measures: from pairs counted by score to FAR and TAR, and to the figures made of them.

Failures to enrol count, as in the generalised rates of ISO/IEC 19795-1: their pairs are rejected at every
threshold. A curve therefore ends at the best FAR and TAR that a threshold reaches; TAR beyond that FAR is the
TAR there, and the EER may not be reached. The standard has no AUC. Ours is the probability that a genuine
pair scores higher than an impostor pair, ties as half (Mann & Whitney 1947; Hanley & McNeil 1982): pairs of
failures tie, below all others. So they have half credit in the AUC, as from guessing, and a model without any
embedding has 0.5; in no other measure have they any.
"""

import numpy as np

from src.evaluation.intervals import concordance, without_each
from src.evaluation.pairs import Counts

FARS = {f"tar_far_1e-{digits}": 10.0**-digits for digits in (1, 2, 3, 4)}


def auc_of(counts: Counts) -> float:
    """The AUC of counts, of the scores themselves: those of a bin are no ties."""
    return float(area(*far_and_tar(counts.genuine, counts.impostor))) + counts.order


def auc_without_each(counts: Counts) -> np.ndarray:
    """`auc_of` with each cluster left out in turn [U]; inside a bin, in the order of all clusters' scores."""
    far, tar = far_and_tar(*without_each(counts))
    inside = (concordance(counts)[::-1] - 0.5) * np.diff(far) * np.diff(tar)
    return area(far, tar) + inside.sum(-1) + counts.order


def far_and_tar(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FAR and TAR [..., K + 1] of counts [..., K] by ascending score, from no pair accepted to all."""
    shares = []
    for counts in (impostor, genuine):
        accepted = np.zeros((*counts.shape[:-1], counts.shape[-1] + 1))
        np.cumsum(counts[..., ::-1], -1, out=accepted[..., 1:])
        with np.errstate(invalid="ignore", divide="ignore"):
            shares.append(accepted / accepted[..., -1:])
    return shares[0], shares[1]


def area(far: np.ndarray, tar: np.ndarray, until: float = 1.0) -> np.ndarray:
    """Mean TAR over FARs from 0 to `until`, of curves [..., K + 1]; ties count half."""
    steps = np.diff(np.minimum(far, until), axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.nan_to_num(np.diff(tar, axis=-1) / np.diff(far, axis=-1), posinf=0.0)
    mean = (steps * (tar[..., :-1] + slope * steps / 2)).sum(-1) / until
    return np.where(np.isnan(tar[..., -1]), np.nan, mean)


def reachable(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """FAR and TAR that thresholds reach: all but the point at which failures to enrol would be accepted."""
    far, tar = far_and_tar(counts.genuine, counts.impostor)
    end = len(far) - np.isneginf(counts.score).sum()
    return far[:end], tar[:end]


def reachable_without_each(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """`reachable` with each cluster left out in turn: [U, C + 1], [U, C + 1]."""
    far, tar = far_and_tar(*without_each(counts))
    end = far.shape[-1] - np.isneginf(counts.cluster_score).sum()
    return far[:, :end], tar[:, :end]


def measures(far: np.ndarray, tar: np.ndarray, failures: bool = False) -> dict[str, np.ndarray]:
    """Every measure of ROC curves [..., K + 1]: auc, pauc, eer and the TARs at FARS.

    failures: whether the last step is that of failures to enrol, which counts for the auc only. An eer that
    is not reached is NaN.
    """
    values = {"auc": area(far, tar)}
    if failures:
        far, tar = far[..., :-1], tar[..., :-1]
    curves = zip(far.reshape(-1, far.shape[-1]), tar.reshape(-1, far.shape[-1]), strict=True)
    tars = np.array([np.interp(list(FARS.values()), *curve) for curve in curves])
    tars = tars.reshape(*far.shape[:-1], len(FARS))
    eer = np.where(far[..., -1] + tar[..., -1] < 1 - 1e-12, np.nan, _crossing(far + tar - 1, far))
    flat = np.append(far, np.ones((*far.shape[:-1], 1)), -1), np.append(tar, tar[..., -1:], -1)
    values |= {"pauc": area(*flat, 0.1), "eer": eer}
    return values | {name: tars[..., i] for i, name in enumerate(FARS)}


def _crossing(rising: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` [..., K] where `rising` [..., K] passes 0, linear from point to point.

    `rising` must not fall.
    """
    after = np.clip((rising <= 0).sum(-1, keepdims=True), 1, rising.shape[-1] - 1)
    x0, x1 = (np.take_along_axis(rising, at, -1)[..., 0] for at in (after - 1, after))
    y0, y1 = (np.take_along_axis(values, at, -1)[..., 0] for at in (after - 1, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(x1 > x0, np.clip(-x0 / (x1 - x0), 0, 1), 0.0)
    return np.where(np.isnan(rising[..., -1]), np.nan, y0 + share * (y1 - y0))


def middle(counts: Counts) -> np.ndarray:
    """The score [K] that stands for each bin."""
    return (counts.score + counts.top) / 2


def d_prime(counts: Counts) -> float:
    """Distance of the mean scores in standard deviations; failures to enrol have no score."""
    scored = np.isfinite(counts.score)
    score, moments = middle(counts)[scored], []
    for weights in (counts.genuine[scored], counts.impostor[scored]):
        if not weights.sum():
            return np.nan
        mean = np.average(score, weights=weights)
        moments.append((mean, np.average((score - mean) ** 2, weights=weights)))
    (genuine, genuine_variance), (impostor, impostor_variance) = moments
    spread = np.sqrt((genuine_variance + impostor_variance) / 2)
    return float((genuine - impostor) / spread) if spread else np.nan
