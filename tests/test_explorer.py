"""The threshold explorer shows what a count by hand gives, and fast enough to be dragged."""

import time

import cv2
import numpy as np
import pytest

from src import explorer
from src.evaluation import verification
from src.limits import NotPossible
from tests.evaluation.examples import make, materialised


@pytest.fixture(scope="module")
def example():
    vectors, faces = make(people=10, photos=10)
    crops = np.random.default_rng(0).integers(0, 255, (len(faces), 112, 112, 3), dtype=np.uint8)
    return vectors, faces, verification.trials(faces, "test_seen"), crops


def test_shares_and_neighbours_are_those_of_a_count_by_hand(example):
    vectors, faces, test, _ = example
    pairs = explorer.sorted_pairs(vectors, test)
    scores, genuine, _ = materialised(vectors, faces)
    for threshold in (-0.5, 0.1, 0.4):
        for kind, chosen in (("genuine", genuine), ("impostor", ~genuine)):
            accepted = pairs[kind].accepted(threshold)
            assert accepted == pytest.approx((scores[chosen] >= threshold).mean(), abs=1e-3)
            below, above = pairs[kind].beside(threshold)
            own = np.sort(scores[chosen])
            at = np.searchsorted(own, threshold)
            np.testing.assert_allclose(pairs[kind].score[below], own[max(at - 4, 0) : at][::-1], atol=1e-5)
            np.testing.assert_allclose(pairs[kind].score[above], own[at : at + 4], atol=1e-5)
    names = faces["identity"].to_numpy()
    assert (names[pairs["genuine"].a] == names[pairs["genuine"].b]).all()
    assert (names[pairs["impostor"].a] != names[pairs["impostor"].b]).all()


def test_near_duplicates_make_no_pair_and_failures_are_rejected(example):
    vectors, faces, *_ = example
    faces = faces.assign(group=faces["group"].where(faces.index > 1, 0))
    failed = vectors.copy()
    failed[3] = np.nan
    pairs = explorer.sorted_pairs(failed, verification.trials(faces, "test_seen"))
    assert not ((pairs["genuine"].a == 0) & (pairs["genuine"].b == 1)).any()
    assert pairs["impostor"].accepted(-1.0) < 1
    assert np.isnan(explorer.Pairs(*[np.empty(0)] * 3).accepted(0))


def test_the_slider_moves_words_and_picture(example):
    vectors, _, test, crops = example
    box = explorer.explore(vectors, test, crops, 0.3, "pack")
    slider, words, _, image = box.children
    before = words.value, image.value
    assert slider.value == pytest.approx(0.3) and "TAR" in words.value and "FAR" in words.value
    shown = cv2.imdecode(np.frombuffer(image.value, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None and shown.shape[0] < 200 < shown.shape[1] < 1280
    slider.value = 0.0
    assert words.value != before[0] and image.value != before[1]
    with pytest.raises(NotPossible, match="no pair"):
        explorer.explore(np.full_like(vectors, np.nan), test, crops, 0.3)
    assert explorer.explore(vectors, test, crops, float("nan")).children[0].value != 0.3


def test_ten_million_pairs_follow_within_a_tenth_of_a_second(example):
    crops = example[3]
    rng = np.random.default_rng(0)
    many = {
        kind: explorer.Pairs(
            np.sort(rng.normal(size=count).astype(np.float32)),
            rng.integers(0, len(crops), count).astype(np.int32),
            rng.integers(0, len(crops), count).astype(np.int32),
        )
        for kind, count in (("genuine", 100_000), ("impostor", 10_000_000))
    }
    times = []
    for threshold in (-1.0, 0.0, 0.5, 1.0, 2.0):
        start = time.perf_counter()
        explorer.in_words(many, threshold), explorer.picture(many, threshold, crops)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 0.1
