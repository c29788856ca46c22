"""Bins hold like ranks, and an AUC of counts is that of their pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from src.evaluation import ranks


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 200), st.booleans())
def test_bins_are_few_of_like_rank_and_leave_heavy_scores_alone(seed, limit, alone):
    rng = np.random.default_rng(seed)
    genuine, impostor = rng.geometric(rng.random(), (2, 1000)) - 1
    genuine[rng.integers(1000)] = genuine.sum() + 5
    begins = ranks.merged(genuine, impostor, limit, alone)
    assert begins[0] == 0 and (np.diff(begins) > 0).all() and len(begins) <= limit
    assert not alone or begins[1] == 1
    if limit >= 50:
        heavy = int(genuine.argmax())
        assert {heavy, heavy + 1} <= {*begins, 1000}, "a score with half of the pairs has a bin of its own"
        shares = np.add.reduceat(np.delete(impostor, heavy), np.unique(np.minimum(begins, 998)))
        assert shares.max() <= impostor.max() + 20 * impostor.sum() / limit


def test_balance_is_the_auc_of_tied_scores():
    rng = np.random.default_rng(0)
    genuine, impostor = rng.integers(0, 5, (2, 8))
    scores = np.repeat(np.tile(np.arange(8), 2), np.append(genuine, impostor))
    same = np.arange(len(scores)) < genuine.sum()
    assert ranks.balance(genuine, impostor) == pytest.approx(roc_auc_score(same, scores))
    assert ranks.balance(genuine, 0 * impostor) == 0
