"""However scores crowd together, the AUC of counts is that of the pairs, of all people and without each."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from src.evaluation import counting, curves, pairs

# How scores of 32 bits may lie: relation (from -1 to 1, of two people's likeness) and chance to a score.
WORLDS = {
    "all within 1e-7": lambda z, rng: 0.5 + 6e-8 * np.round(z),
    "all within 1e-7 of 1": lambda z, rng: 1 - 6e-8 * np.abs(np.round(z)),
    "heavy ties": lambda z, rng: np.round(z) / 8,
    "no difference at all": lambda z, rng: np.zeros_like(z),
    "as of posteriors": lambda z, rng: 10.0 ** np.minimum(4 * z - 10, 0),
    "both sides of 0": lambda z, rng: np.sign(z) * 10.0 ** (-np.abs(z) * 4),
    "two heaps": lambda z, rng: np.where(z > 0.5, 0.9, -0.3) + 1e-6 * z,
    "three heaps": lambda z, rng: rng.choice([-0.6, 0.2, 0.7], z.shape) + 1e-7 * np.round(3 * z),
    "as usual": lambda z, rng: z / 10,
}


def example(seed, world, failures):
    """Scores of all pairs float32 [n, n], and the test set of photos that they belong to."""
    rng = np.random.default_rng(seed)
    n, people = 70, int(rng.integers(3, 9))
    identity = np.unique(rng.integers(0, people, n), return_inverse=True)[1]
    z = rng.normal(size=(n, n)) + rng.choice([0, 1, 2]) * (identity[:, None] == identity)
    scores = WORLDS[world](z, rng).astype(np.float32)
    scores = np.clip(np.triu(scores, 1) + np.triu(scores, 1).T, -1, 1)
    quality = rng.integers(0, 2, n).astype(np.int8)
    group = np.where(rng.random(n) < 0.2, rng.integers(0, 8, n), -1)
    missing = rng.random(n) < (0.15 if failures else 0)
    return scores, pairs.Trials("t", np.arange(n), identity, (), quality, group), missing


def expected(scores, test, missing, stratum, without=None):
    """AUC by scikit-learn of the pairs of a stratum, failures below all others; NaN without both kinds."""
    i, j = np.triu_indices(len(scores), 1)
    of = (test.group[i] != test.group[j]) | (test.group[i] < 0)
    if wanted := counting.STRATA[stratum]:
        of &= test.quality[i] + test.quality[j] == sum(wanted)
    if without is not None:
        of &= (test.identity[i] != without) & (test.identity[j] != without)
    i, j = i[of], j[of]
    score = np.where(missing[i] | missing[j], -2, scores[i, j])
    same = test.identity[i] == test.identity[j]
    return roc_auc_score(same, score) if 0 < same.sum() < len(same) else np.nan


def check(given, tolerance, of_people):
    """Counts the pairs of an example, whose scores are given: a photo's vector is its place among them."""
    scores, test, missing = given
    vectors = np.arange(len(scores), dtype=np.float32)[:, None]
    everything = np.ones(len(scores), bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_TILE", 16)
        patch.setattr(
            counting, "_scores", lambda a, b: scores[np.ix_(a[:, 0].astype(int), b[:, 0].astype(int))]
        )
        strata = pairs.count_pairs(vectors, test, everything, missing, "numpy")
    for name, counts in strata.items():
        auc = expected(scores, test, missing, name)
        assert curves.auc_of(counts) == pytest.approx(auc, abs=tolerance, nan_ok=True), name
        assert (np.diff(counts.score) > 0).all() and (counts.score <= counts.top).all()
        assert (counts.top[:-1] < counts.score[1:]).all()
        if name == "all":
            wanted = [expected(scores, test, missing, name, who) for who in range(test.identity.max() + 1)]
            np.testing.assert_allclose(curves.auc_without_each(counts), wanted, atol=of_people)


@pytest.mark.parametrize("world", WORLDS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), failures=st.booleans())
def test_sorted_pairs_have_the_auc_of_scikit_learn(world, seed, failures):
    check(example(seed, world, failures), 1e-9, 1e-9)


@pytest.mark.parametrize("world", WORLDS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10**6), failures=st.booleans())
def test_bins_of_sorted_pairs_cost_the_auc_nothing(world, seed, failures):
    """With far too few bins: 64 for 2,400 pairs, and 32 without each person."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_KEPT", 64)
        patch.setattr(counting, "_CLUSTER_BINS", 32 * 8)
        check(example(seed, world, failures), 1e-9, 0.02)


@pytest.mark.parametrize("world", WORLDS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10**6), failures=st.booleans())
def test_the_grid_has_the_auc_of_scikit_learn(world, seed, failures):
    """Made from a sample that shows little, and refined; of so few pairs, two that tie cost the AUC 1e-6."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_EXACT", 0)
        patch.setattr(counting, "_TILE_OF_SAMPLE", 12)
        for name, value in (("_CELL", 16), ("_CELLS", 2**16), ("_CODES", 2**20)):
            patch.setattr(counting, name, value)
        check(example(seed, world, failures), 5e-6, 0.02)


def of_posteriors(people=12, photos=30, seed=0):
    """Embeddings as of PLDA, the roots of posteriors: most cosines lie next to 0."""
    rng = np.random.default_rng(seed)
    identity = np.repeat(np.arange(people), photos)
    z = 20 * rng.normal(size=(len(identity), people + 8))
    z[np.arange(len(z)), identity] += 30
    posterior = np.exp(z - z.max(1, keepdims=True))
    vectors = np.sqrt(posterior / posterior.sum(1, keepdims=True)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), identity


@pytest.mark.parametrize(("exact", "device"), [(10**7, "numpy"), (0, "numpy"), (0, "cpu")])
def test_plda_embeddings_tie_on_a_grid_of_equal_steps_and_not_on_ours(monkeypatch, exact, device):
    vectors, identity = of_posteriors()
    n = len(vectors)
    test = pairs.Trials("t", np.arange(n), identity, (), np.full(n, 2, np.int8), np.full(n, -1))
    monkeypatch.setattr(counting, "_EXACT", exact)
    counts = pairs.count_pairs(vectors, test, np.ones(n, bool), np.zeros(n, bool), device)["all"]
    scores = (vectors.astype(np.float64) @ vectors.T).astype(np.float32)
    i, j = np.triu_indices(n, 1)
    auc = roc_auc_score(identity[i] == identity[j], scores[i, j])
    steps = roc_auc_score(identity[i] == identity[j], np.floor(scores[i, j] * np.float64(1e6)))
    assert abs(steps - auc) > 1e-3
    assert curves.auc_of(counts) == pytest.approx(auc, abs=1e-6)
    kept = identity != 3
    i, j = np.triu_indices(kept.sum(), 1)
    without = roc_auc_score(identity[kept][i] == identity[kept][j], scores[kept][:, kept][i, j])
    assert curves.auc_without_each(counts)[3] == pytest.approx(without, abs=1e-6)


def test_a_grid_that_ties_too_much_is_refined(monkeypatch):
    """The sample saw no score where all of them are."""
    passes = []
    on_cores = counting._on_cores

    def counted(photos, grid):
        passes.append(len(grid.lowest))
        return on_cores(photos, grid)

    monkeypatch.setattr(counting, "_on_cores", counted)
    nowhere = counting._Seen(np.full(2, -0.9, np.float32), np.array([1, 0]), np.array([0, 1]))
    monkeypatch.setattr(counting, "_sample", lambda photos: nowhere)
    monkeypatch.setattr(counting, "_EXACT", 0)
    check(example(1, "as usual", True), 1e-6, 1e-6)
    assert len(passes) == 2


def test_no_order_of_summing_breaks_a_tie():
    """Photos with one and the same embedding, in tiles of any shape, tell nothing apart."""
    rng = np.random.default_rng(0)
    vectors = np.tile(rng.normal(size=(1, 512)), (50, 1)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    identity = np.arange(50) // 5
    test = pairs.Trials("t", np.arange(50), identity, (), np.full(50, 2, np.int8), np.full(50, -1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_TILE", 7)
        counts = pairs.count_pairs(vectors, test, np.ones(50, bool), np.zeros(50, bool))["all"]
    assert len(counts.score) == 1 and curves.auc_of(counts) == 0.5


def test_numbers_keep_their_order():
    numbers = np.array(
        [-np.inf, -1.0, -0.5, -1e-30, 0, 1e-38, 1e-7, 0.5, np.nextafter(0.5, 1), 1], np.float32
    )
    ordered = counting._ordered(numbers)
    assert (np.diff(ordered) >= 0).all()
    np.testing.assert_array_equal(counting._numbers(ordered), numbers.astype(np.float64))


def crowded(people=46, photos=100):
    """Embeddings so alike that float32 tells few of their cosines apart."""
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(people), photos)
    vectors = 1 + 5e-4 * (rng.normal(size=(people, 16))[identity] + rng.normal(size=(len(identity), 16)))
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), identity


@pytest.mark.parametrize("make", [of_posteriors, crowded])
def test_more_pairs_than_can_be_sorted_have_their_auc_within_a_millionth(make):
    vectors, identity = make(46, 100)
    n = len(vectors)
    assert n * (n - 1) // 2 > counting._EXACT
    missing = np.random.default_rng(1).random(n) < 0.02
    test = pairs.Trials("t", np.arange(n), identity, (), np.full(n, 2, np.int8), np.full(n, -1))
    counts = pairs.count_pairs(vectors, test, np.ones(n, bool), missing, "numpy")["all"]
    genuine, impostor = [], []
    known = np.where(missing[:, None], 0, vectors)
    for a in range(0, n, pairs._TILE):  # in the same tiles, which round alike
        for b in range(a, n, pairs._TILE):
            scores = counting._scores(known[a : a + pairs._TILE], known[b : b + pairs._TILE])
            scores[missing[a : a + pairs._TILE, None] | missing[b : b + pairs._TILE]] = -np.inf
            i, j = np.triu_indices(len(scores), 1) if a == b else np.indices(scores.shape).reshape(2, -1)
            same = identity[a + i] == identity[b + j]
            genuine.append(scores[i, j][same])
            impostor.append(scores[i, j][~same])
    won, below = np.concatenate(genuine), np.sort(np.concatenate(impostor))
    higher = sum(np.searchsorted(below, won, side).mean() for side in ("left", "right")) / 2
    assert curves.auc_of(counts) == pytest.approx(higher / len(below), abs=1e-6)
