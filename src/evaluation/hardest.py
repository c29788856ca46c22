"""The pairs on which a model does worst."""

import numpy as np
import pandas as pd

from src.evaluation.pairs import Trials, checked, genuine_pairs

_TILE = 2048  # rows of the similarity matrix that are worked on at once


def hardest(embeddings: np.ndarray, test: Trials, count: int = 8) -> pd.DataFrame:
    """The genuine pairs with the lowest scores and the impostor pairs with the highest, worst first.

    embeddings: float32 [N, D] unit rows; count: of pairs of each kind.
    Columns: kind ("genuine" or "impostor"), a and b (rows of the embeddings), score, person_a, person_b. At
    most one pair for every person, or every two people, so that no one fills the list. Failures to enrol have
    no score and do not appear.
    """
    vectors = checked(embeddings, test.rows, "the model")
    genuine = sorted(_least_alike(vectors, test))[:count]
    impostor = sorted(_most_alike(vectors, test), reverse=True)[:count]
    rows = []
    for kind, pairs in (("genuine", genuine), ("impostor", impostor)):
        for score, i, j in pairs:
            people = [test.people[test.identity[at]] if test.people else "" for at in (i, j)]
            rows.append((kind, int(test.rows[i]), int(test.rows[j]), score, *people))
    return pd.DataFrame(rows, columns=["kind", "a", "b", "score", "person_a", "person_b"])


def _least_alike(vectors: np.ndarray, test: Trials) -> list[tuple[float, int, int]]:
    """The genuine pairs with the lowest scores: score and two positions in the test set."""
    found = []
    for a, b in genuine_pairs(test):
        scores = np.einsum("id,id->i", vectors[a], vectors[b])
        if np.isfinite(scores).any():
            worst = np.nanargmin(scores)
            found.append((float(scores[worst]), int(a[worst]), int(b[worst])))
    return found


def _most_alike(vectors: np.ndarray, test: Trials) -> list[tuple[float, int, int]]:
    """Of every two people the pair with the highest score: score and two positions in the test set."""
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    for start in range(0, len(vectors), _TILE):
        scores = np.nan_to_num(vectors[start : start + _TILE] @ vectors.T, nan=-2.0)
        rows = np.arange(start, start + len(scores))
        same = test.identity[rows, None] == test.identity[None]
        near = (test.group[rows, None] == test.group[None]) & (test.group[None] >= 0)
        scores[same | near] = -2.0
        # the best partner of every photo: enough, since a pair of people is to appear once
        for i, j in zip(rows.tolist(), scores.argmax(1).tolist(), strict=True):
            score = float(scores[i - start, j])
            first, second = sorted((int(test.identity[i]), int(test.identity[j])))
            if score > -2 and score > best.get((first, second), (-2.0, 0, 0))[0]:
                best[first, second] = (score, i, j)
    return list(best.values())
