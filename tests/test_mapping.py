import numpy as np
import pandas as pd
import pytest

from src import mapping, verification


@pytest.fixture
def frozen():
    """Embeddings of 5 people in training and 3 unknown ones; most of the spread says nothing of identity."""
    rng = np.random.default_rng(0)
    means = rng.normal(0, 1, (8, 12))
    means[:, 6:] = 0
    spread = np.r_[np.full(6, 0.4), np.full(6, 3.0)]
    identity = np.repeat([f"person {i}" for i in range(8)], 60)
    embeddings = means.repeat(60, 0) + rng.normal(0, 1, (480, 12)) * spread
    split = np.where(
        identity < "person 5", np.tile(["train"] * 40 + ["val"] * 8 + ["test_seen"] * 12, 8), "test_unseen"
    )
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    faces = pd.DataFrame({"identity": identity, "split": split, "quality": "unknown"})
    return embeddings.astype(np.float32), faces


def auc(embeddings, faces, split):
    rows = (faces["split"] == split).to_numpy()
    return verification.auc(embeddings[rows], faces["identity"].to_numpy()[rows])


@pytest.mark.parametrize("kind", ["wccn", "lda", None])
def test_linear_maps_take_out_what_varies_within_people(frozen, kind):
    embeddings, faces = frozen
    mapped = mapping.linear_map(embeddings, faces, kind)
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, rtol=1e-5)
    for split in ("test_seen", "test_unseen") if kind == "wccn" else ("test_seen",):
        assert auc(mapped, faces, split) > auc(embeddings, faces, split) + 0.1


@pytest.mark.parametrize("fit", [mapping.linear_map, mapping.known_people])
def test_maps_see_nothing_but_training(frozen, fit):
    embeddings, faces = frozen
    other = faces.assign(identity=np.where(faces["split"].str.startswith("test"), "x", faces["identity"]))
    assert np.array_equal(fit(embeddings, faces), fit(embeddings, other))
    changed = np.where((faces["split"] == "test_seen").to_numpy()[:, None], embeddings[::-1], embeddings)
    train = (faces["split"] == "train").to_numpy()
    np.testing.assert_allclose(fit(changed, faces)[train], fit(embeddings, faces)[train], atol=1e-6)


def test_known_people_are_told_apart_and_unknown_ones_still_compared(frozen):
    embeddings, faces = frozen
    listed = mapping.known_people(embeddings, faces, unknown=0.0)
    open_ended = mapping.known_people(embeddings, faces, unknown=0.2)
    np.testing.assert_allclose(np.linalg.norm(open_ended, axis=1), 1, rtol=1e-5)
    assert auc(listed, faces, "test_seen") > auc(embeddings, faces, "test_seen") + 0.2
    assert auc(open_ended, faces, "test_seen") > auc(embeddings, faces, "test_seen") + 0.2
    assert auc(open_ended, faces, "test_unseen") > auc(listed, faces, "test_unseen")
    nobody = 1 - (open_ended[:, :5] ** 2).sum(1)
    assert nobody[faces["split"] == "test_unseen"].mean() > 1.5 * nobody[faces["split"] == "test_seen"].mean()


def test_maps_need_people_with_photos(frozen):
    embeddings, faces = frozen
    with pytest.raises(ValueError, match="needs 2 people"):
        mapping.linear_map(embeddings, faces.assign(identity="one"), "lda")
    with pytest.raises(ValueError, match="needs 2 people"):
        mapping.known_people(embeddings, faces.assign(identity=np.arange(480).astype(str)))
    with pytest.raises(ValueError, match='"wccn" or "lda"'):
        mapping.linear_map(embeddings, faces, "pca")


def test_who_is_known_follows_the_split(frozen):
    """With nobody but the people in training in any split, the list is closed: everybody is one of them."""
    embeddings, faces = frozen
    known = (faces["identity"] < "person 5").to_numpy()
    closed = mapping.known_people(embeddings[known], faces[known].reset_index(drop=True))
    np.testing.assert_allclose((closed[:, :5] ** 2).sum(1), 1, rtol=1e-5)
    assert (mapping.known_people(embeddings, faces)[:, :5] ** 2).sum(1).min() < 0.9


def test_qualities_have_spreads_of_their_own(frozen):
    """Bad photos say nothing in half of what tells people apart, and stray to one side: told so, it helps."""
    embeddings, faces = frozen
    rng = np.random.default_rng(2)
    low = rng.random(len(faces)) < 0.5
    astray = rng.normal(0, 0.6, (480, 12)) * (np.arange(12) < 3) + np.eye(12)[3] * 0.4
    strayed = embeddings + low[:, None] * astray
    strayed = (strayed / np.linalg.norm(strayed, axis=1, keepdims=True)).astype(np.float32)
    labelled = faces.assign(quality=np.where(low, "low", "high"))
    told = mapping.known_people(strayed, labelled)
    assert (
        auc(told, faces, "test_seen") > auc(mapping.known_people(strayed, faces), faces, "test_seen") + 0.005
    )
    few = labelled.assign(quality=np.where(np.arange(480) == 0, "low", "high"))  # one photo has no spread
    assert np.array_equal(mapping.known_people(strayed, few), mapping.known_people(strayed, faces))


def test_a_second_model_has_a_say_in_who_it_is(frozen):
    embeddings, faces = frozen
    rng = np.random.default_rng(3)
    second = rng.normal(size=(8, 6))[faces["identity"].str[-1].astype(int)] + rng.normal(size=(480, 6))
    second = (second / np.linalg.norm(second, axis=1, keepdims=True)).astype(np.float32)
    alone, both = (mapping.known_people(embeddings, faces, beside) for beside in (None, second))
    assert auc(both, faces, "test_seen") > auc(alone, faces, "test_seen") + 0.005
    nobody = [1 - (found[:, :5] ** 2).sum(1) for found in (alone, both)]
    np.testing.assert_allclose(nobody[0], nobody[1], atol=1e-5)  # whether anybody: the first alone says
    clear = rng.normal(size=(8, 6))[faces["identity"].str[-1].astype(int)] + rng.normal(0, 0.2, (480, 6))
    looks = mapping.known_people(embeddings, faces, looks=clear.astype(np.float32))
    assert auc(looks, faces, "test_unseen") > auc(alone, faces, "test_unseen") + 0.05
    noise = rng.normal(size=(480, 6)).astype(np.float32)  # a model that knows nothing does little harm
    assert auc(mapping.known_people(embeddings, faces, noise), faces, "test_seen") > (
        auc(alone, faces, "test_seen") - 0.01
    )
