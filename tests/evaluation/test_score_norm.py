"""A photo that resembles everybody loses what it has too much."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from src.evaluation.score_norm import as_norm


def test_a_score_becomes_its_distance_to_the_likest_of_the_cohort():
    scores = np.array([[0.9, -np.inf]])
    first, second = np.array([[0.1, 0.5, 0.3]]), np.array([[0.0, 0.2, 0.4], [0.0, 0.1, 0.2]])
    left = (0.9 - 0.4) / 0.1  # of .5 and .3
    right = (0.9 - 0.3) / 0.1  # of .4 and .2
    found = as_norm(scores, first, second, top=2)
    assert found[0, 0] == pytest.approx((left + right) / 2) and found[0, 1] == -np.inf
    np.testing.assert_allclose(as_norm(scores.T, second, first, 2), found.T)


def test_photos_that_resemble_everybody_no_longer_do():
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(10), 6)
    i, j = np.triu_indices(60, 1)
    same, near = identity[i] == identity[j], rng.normal(size=60)  # how near each photo is to everybody
    scores = np.zeros((60, 60))
    scores[i, j] = 1.5 * same + near[i] + near[j] + rng.normal(size=len(i))
    to_cohort = near[:, None] + rng.normal(size=(60, 300))
    normalised = as_norm(scores, to_cohort, to_cohort, 50)
    before, after = (roc_auc_score(same, of[i, j]) for of in (scores, normalised))
    assert after > before + 0.05


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"do not match: \[2, 3\], \[2, 4\], \[3, 5\]"):
        as_norm(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="1 cohort scores a photo are too few"):
        as_norm(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros((3, 4)), top=1)
