"""What a test set can support: independent trials behind a rate, people behind the pairs.

Pairs that share people are not independent: 40 false matches may all be of two people who look alike. They
count as many as would give the rate its standard error over people ("effective"), not as they are.
"""

from typing import Any

import numpy as np

from src.evaluation.curves import FARS, far_and_tar, reachable
from src.evaluation.intervals import detectable, on_coarse_grid, trials, unseen, why_no_difference, why_none
from src.evaluation.pairs import Counts

# Independent false matches that a FAR takes to be reported ("rule of 30", Doddington et al. 2000).
SUPPORT = 30


def independent_false_matches(far: float, overall: np.ndarray, without: np.ndarray, pairs: int) -> float:
    """How many independent false matches stand behind a FAR from 0 to 1, at the threshold that has it.

    overall: the FARs [C + 1] of the clusters' bins, from no pair accepted to all, and without: those without
    each cluster [U, C + 1]; pairs: how many impostor pairs there are.
    As many as would give the FAR its standard error over people (`intervals.trials`), and never more than
    there are. 0 where the people are too few to tell, or where all of them have the same FAR.
    """
    if not np.isfinite(overall[-1]):
        return 0.0
    at = float(np.interp(far, overall, np.arange(len(overall))))
    step = min(int(at), len(overall) - 2)
    left_out = without[:, step] + (at - step) * (without[:, step + 1] - without[:, step])
    return limited(far, left_out, pairs)


def limited(rate: float, left_out: np.ndarray, pairs: int) -> float:
    """The events of a rate as independent ones, at most those of so many pairs; 0 where it can't be told.

    left_out: the rate without each cluster [U].
    """
    independent = trials(rate, left_out)
    return rate * min(independent, pairs) if np.isfinite(independent) else 0.0


def unsupported(counts: Counts, without: np.ndarray) -> list[str]:
    """The names of `FARS` with fewer than `SUPPORT` independent false matches.

    without: the FARs without each cluster [U, C + 1], as of `curves.far_and_tar`.
    """
    impostor = on_coarse_grid(counts, counts.impostor)
    overall, pairs = far_and_tar(impostor, impostor)[0], int(impostor.sum())
    return [
        name
        for name, far in FARS.items()
        if pairs * far < SUPPORT or independent_false_matches(far, overall, without, pairs) < SUPPORT
    ]


def columns(counts: Counts, auc: float, left_out: np.ndarray) -> dict[str, Any]:
    """Columns of the report that say what stands behind a row.

    genuine_people: people with genuine pairs. auc_trials: how many independent comparisons of a genuine pair
    with an impostor pair the AUC is worth. unseen: the share of people up to which a kind of them may be
    missing among those, with a chance of 5 %. far_reached: the highest FAR of a threshold, below 1 where
    there are failures to enrol; auc_half_credit: what their pairs add to the AUC, as if guessed.
    auc_interval: why the AUC has no interval, "" where it has one.
    """
    genuine, impostor = (float(part.sum()) for part in (counts.genuine, counts.impostor))
    failed = np.isneginf(counts.score)
    both = float(counts.genuine[failed].sum()) * float(counts.impostor[failed].sum())
    weights = counts.cluster_genuine.sum(1)
    return {
        "genuine_people": counts.genuine_people,
        "auc_trials": trials(auc, left_out),
        "unseen": unseen(counts.genuine_people),
        "far_reached": float(reachable(counts)[0][-1]),
        "auc_half_credit": both / (genuine * impostor) / 2 if genuine and impostor else np.nan,
        "auc_interval": why_none(auc, left_out, weights),
    }


def compared(
    old: float, new: float, old_left_out: np.ndarray, new_left_out: np.ndarray, weights: np.ndarray
) -> dict[str, Any]:
    """Columns of the report that say what stands behind a difference of two AUCs.

    auc_detectable: the smallest difference that would have been seen 4 times in 5. auc_difference_interval:
    why the difference has no interval, "" where it has one. Arguments as of `intervals.difference`.
    """
    why = why_no_difference(old, new, old_left_out, new_left_out, weights)
    detected = detectable(new_left_out - old_left_out)
    return {"auc_detectable": detected, "auc_difference_interval": why}
