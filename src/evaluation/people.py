"""Who fails and how: people who are not accepted as themselves, people who are taken for one another."""

import numpy as np
import pandas as pd
from scipy import stats

from src.evaluation.pairs import Trials, checked, genuine_pairs
from src.limits import NotPossible

_TILE = 2048  # rows of the similarity matrix that are worked on at once


def failing(embeddings: np.ndarray, test: Trials, threshold: float) -> pd.DataFrame:
    """How each person of a test set fails at a threshold, the hardest to accept first.

    embeddings: float32 [N, D] unit rows. Columns: person, photos, rejected (share of the person's genuine
    pairs below the threshold, 0-1), rejected_low and rejected_high, taken_for (the person with whom the
    largest share of this one's impostor pairs is accepted, "" for nobody), taken, taken_low, taken_high (that
    share). Photos, not pairs, are what is independent here: a share counts as so many of the person's photos,
    with Wilson's 95 % interval ("Probable inference", 1927). A person with one photo has no genuine pairs.
    Raises NotPossible where there is no threshold.
    """
    if not np.isfinite(threshold):
        raise NotPossible("val gives no threshold at which anybody could fail")
    vectors = checked(embeddings, test.rows, "the model")
    people = len(test.people)
    photos = np.bincount(test.identity, minlength=people)
    genuine, rejected = np.zeros(people, np.int64), np.zeros(people, np.int64)
    for a, b in genuine_pairs(test):  # NaN, where a photo has no embedding, is not accepted
        accepted = np.einsum("id,id->i", vectors[a], vectors[b]) >= threshold
        genuine[test.identity[a[0]]] += len(a)
        rejected[test.identity[a[0]]] += (~accepted).sum()
    taken = _accepted_between(vectors, test, threshold) / np.maximum(np.outer(photos, photos), 1)
    rows = []
    for person in np.flatnonzero(photos):
        share = rejected[person] / genuine[person] if genuine[person] else np.nan
        row = {"person": test.people[person], "photos": photos[person], "rejected": share}
        row["rejected_low"], row["rejected_high"] = _wilson(share, photos[person])
        other = int(taken[person].argmax())
        most = taken[person, other]
        row |= {"taken_for": test.people[other] if most > 0 else "", "taken": most}
        row["taken_low"], row["taken_high"] = _wilson(most, min(photos[person], photos[other]))
        rows.append(row)
    order = ["rejected", "taken"]
    return pd.DataFrame(rows).sort_values(order, ascending=False, kind="stable", ignore_index=True)


def _accepted_between(vectors: np.ndarray, test: Trials, threshold: float) -> np.ndarray:
    """Impostor pairs accepted of every two people, [P, P], 0 on the diagonal."""
    people = len(test.people)
    accepted = np.zeros((people, people), np.int64)
    for start in range(0, len(vectors), _TILE):
        rows = test.identity[start : start + _TILE]
        near = test.group[start : start + _TILE, None] == test.group[None]
        hits = (vectors[start : start + _TILE] @ vectors.T >= threshold) & ~(near & (test.group[None] >= 0))
        by_person = np.zeros((len(rows), people), np.int64)
        for person in range(people):
            by_person[:, person] = hits[:, test.identity == person].sum(1)
        np.add.at(accepted, rows, by_person)
    np.fill_diagonal(accepted, 0)
    return accepted


def _wilson(share: float, count: int) -> tuple[float, float]:
    if np.isnan(share):
        return np.nan, np.nan
    found = stats.binomtest(round(share * count), int(count)).proportion_ci(method="wilson")
    return min(float(found.low), share), max(float(found.high), share)
