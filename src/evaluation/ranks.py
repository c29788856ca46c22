"""Counts of pairs by ascending score, in bins by rank."""

import numpy as np


def balance(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """AUC of counts [K] by ascending score, ties as half; 0 where a kind of pairs is lacking."""
    above = genuine.sum() - np.cumsum(genuine, dtype=float)
    pairs = float(genuine.sum()) * float(impostor.sum())
    return float(impostor @ (above + genuine / 2) / pairs) if pairs else 0.0


def merged(genuine: np.ndarray, impostor: np.ndarray, limit: int, alone: bool = False) -> np.ndarray:
    """Where to begin each of at most `limit` bins of counts [K] by ascending score: positions, from 0 up.

    Bins are of like rank among genuine and among impostor pairs, and finer in the tails that are errors: each
    is a like share of the sum of four ranks, two of them logarithmic. alone: the first count keeps a bin of
    its own, as that of failures to enrol.
    """
    if len(genuine) <= limit:
        return np.arange(len(genuine))
    rank, bins = np.zeros(len(genuine)), limit // 2 - 1
    for counts, from_top in ((genuine, False), (impostor, True)):
        below = np.cumsum(counts, dtype=float)
        if total := below[-1]:
            rank += below / total
            errors = total - below if from_top else below  # were the threshold above this score
            logs = np.log(errors + 1) / np.log(total + 1)
            rank += 1 - logs if from_top else logs
    rank *= bins / rank[-1]
    weight = np.diff(rank, prepend=0)
    begins = np.diff(np.floor(rank), prepend=-1) > 0
    heavy = weight >= 1
    begins |= heavy
    begins[1:] |= heavy[:-1]
    begins[0] = True
    begins[1] |= alone
    return np.flatnonzero(begins)
