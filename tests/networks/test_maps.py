import numpy as np
import pandas as pd
import pytest
import torch

from src.evaluation import verification
from src.networks import maps


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


def linear_map(embeddings, faces, kind=None):
    return maps.apply(maps.fit_linear(embeddings, faces, kind), embeddings)


def plda(embeddings, faces, **options):
    return maps.apply(maps.fit_plda(embeddings, faces, **options), embeddings)


@pytest.mark.parametrize("kind", ["wccn", "lda", None])
def test_linear_maps_take_out_what_varies_within_people(frozen, kind):
    embeddings, faces = frozen
    mapped = linear_map(embeddings, faces, kind)
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, rtol=1e-5)
    for split in ("test_seen", "test_unseen") if kind == "wccn" else ("test_seen",):
        assert auc(mapped, faces, split) > auc(embeddings, faces, split) + 0.1


@pytest.mark.parametrize("fit", [linear_map, plda])
def test_maps_see_nothing_but_training(frozen, fit):
    embeddings, faces = frozen
    other = faces.assign(identity=np.where(faces["split"].str.startswith("test"), "x", faces["identity"]))
    assert np.array_equal(fit(embeddings, faces), fit(embeddings, other))
    changed = np.where((faces["split"] == "test_seen").to_numpy()[:, None], embeddings[::-1], embeddings)
    train = (faces["split"] == "train").to_numpy()
    np.testing.assert_allclose(fit(changed, faces)[train], fit(embeddings, faces)[train], atol=1e-6)


def test_people_in_training_are_told_apart_and_unknown_ones_still_compared(frozen):
    embeddings, faces = frozen
    closed, open_ended = (plda(embeddings, faces, unknown=unknown) for unknown in (0.0, 0.2))
    np.testing.assert_allclose(np.linalg.norm(open_ended, axis=1), 1, rtol=1e-5)
    assert auc(closed, faces, "test_seen") > auc(embeddings, faces, "test_seen") + 0.2
    assert auc(open_ended, faces, "test_seen") > auc(embeddings, faces, "test_seen") + 0.2
    assert auc(open_ended, faces, "test_unseen") > auc(closed, faces, "test_unseen")
    nobody = 1 - (open_ended[:, :5] ** 2).sum(1)
    assert nobody[faces["split"] == "test_unseen"].mean() > 1.5 * nobody[faces["split"] == "test_seen"].mean()


def test_maps_need_people_with_photos(frozen):
    embeddings, faces = frozen
    with pytest.raises(ValueError, match="needs 2 people"):
        linear_map(embeddings, faces.assign(identity="one"), "lda")
    with pytest.raises(ValueError, match="needs 2 people"):
        plda(embeddings, faces.assign(identity=np.arange(480).astype(str)))
    with pytest.raises(ValueError, match='"wccn" or "lda"'):
        linear_map(embeddings, faces, "pca")


def test_whether_the_list_is_closed_is_said_and_never_read_from_the_test(frozen):
    """Who stands in the test sets changes nothing; a closed list takes everybody for somebody it knows."""
    embeddings, faces = frozen
    known = (faces["identity"] < "person 5").to_numpy()
    alone = faces[known].reset_index(drop=True)
    for fit in (maps.fit_plda, maps.fit_posterior):
        for unknown in (0.0, 0.1):
            with_strangers = maps.apply(fit(embeddings, faces, unknown=unknown), embeddings[known])
            without = maps.apply(fit(embeddings[known], alone, unknown=unknown), embeddings[known])
            np.testing.assert_allclose(with_strangers, without, atol=1e-5)
            people = (without[:, :5] ** 2).sum(1)
            assert people.min() < 0.9 if unknown else np.allclose(people, 1, atol=1e-5)
    assert maps.expected_unknown(0.0) == 0 < maps.expected_unknown(0.3)
    with pytest.raises(ValueError, match="unknown is 1"):
        maps.fit_plda(embeddings, faces, unknown=1.0)


@pytest.fixture
def trained():
    """What a network gives that was trained on 5 people: each near a mean of its own, 3 others anywhere."""
    rng = np.random.default_rng(0)
    means = np.vstack([np.eye(5, 16), rng.normal(0, 0.2, (3, 16)) + np.eye(3, 16, k=8) * 0.3])
    identity = np.repeat([f"person {i}" for i in range(8)], 40)
    embeddings = means.repeat(40, 0) + rng.normal(0, 0.25, (320, 16))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    split = np.tile(["train"] * 20 + ["val"] * 8 + ["test_seen"] * 12, 8)
    split = np.where(identity < "person 5", split, np.where(identity < "person 6", "val", "test_unseen"))
    faces = pd.DataFrame({"identity": identity, "split": split, "quality": "unknown"})
    return embeddings.astype(np.float32), faces


def test_a_trained_network_is_asked_who_it_is(trained):
    embeddings, faces = trained
    closed, open_set = (
        maps.apply(maps.fit_posterior(embeddings, faces, unknown=unknown), embeddings)
        for unknown in (0.0, 0.1)
    )
    for mapped in (closed, open_set):
        assert mapped.dtype == np.float32 and mapped.shape == (320, 5 + 16)
        np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, rtol=1e-5)
        assert auc(mapped, faces, "test_seen") > auc(embeddings, faces, "test_seen") + 0.02
    assert auc(open_set, faces, "test_unseen") > auc(closed, faces, "test_unseen") + 0.05
    assert auc(open_set, faces, "test_unseen") > auc(embeddings, faces, "test_unseen") - 0.05
    nobody = (open_set[:, 5:] ** 2).sum(1)
    assert nobody[faces["split"] == "test_unseen"].mean() > 3 * nobody[faces["split"] == "test_seen"].mean()


def test_a_posterior_without_val_takes_the_middle_scale(trained):
    embeddings, faces = trained
    unchosen = faces.assign(split=faces["split"].replace("val", "test_seen"))
    assert maps.fit_posterior(embeddings, unchosen).scale == maps.SCALES[len(maps.SCALES) // 2]
    assert maps.fit_posterior(embeddings, faces).scale in maps.SCALES


def test_qualities_have_spreads_of_their_own(frozen):
    """Bad photos say nothing in half of what tells people apart, and stray to one side: told so, it helps."""
    embeddings, faces = frozen
    rng = np.random.default_rng(2)
    low = rng.random(len(faces)) < 0.5
    astray = rng.normal(0, 0.6, (480, 12)) * (np.arange(12) < 3) + np.eye(12)[3] * 0.4
    strayed = embeddings + low[:, None] * astray
    strayed = (strayed / np.linalg.norm(strayed, axis=1, keepdims=True)).astype(np.float32)
    labelled = faces.assign(quality=np.where(low, "low", "high"))
    told, untold = plda(strayed, labelled), plda(strayed, faces)
    assert auc(told, faces, "test_seen") > auc(untold, faces, "test_seen") + 0.005
    few = labelled.assign(quality=np.where(np.arange(480) == 0, "low", "high"))  # one photo has no spread
    assert np.array_equal(plda(strayed, few), untold)


def test_through_a_linear_map_people_not_in_training_are_compared_by_the_embeddings_themselves(frozen):
    embeddings, faces = frozen
    fitted = maps.fit_plda(embeddings, faces, linear_map=True)
    _, nobody = fitted.model(torch.from_numpy(linear_map(embeddings, faces)))
    expected = nobody.sqrt() * fitted.appearance(torch.from_numpy(embeddings))
    np.testing.assert_allclose(maps.apply(fitted, embeddings)[:, 5:], expected.numpy(), atol=1e-6)


def test_who_has_seen_others_is_not_taken_in_by_them(frozen):
    embeddings, faces = frozen
    others = (faces["split"] == "test_unseen").to_numpy()
    seen = others & (np.arange(len(faces)) % 2 == 0)  # of the others; the rest are tested with
    fitted = maps.fit_open_set(embeddings, embeddings, faces, nobody=[embeddings[seen], embeddings[seen]])
    mapped = maps.apply(fitted, embeddings, embeddings)
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, rtol=1e-5)
    nobody = 1 - (mapped[:, :5] ** 2).sum(1)
    known = (faces["split"] == "test_seen").to_numpy()
    assert nobody[others & ~seen].mean() > nobody[known].mean() + 0.5
    right = mapped[known, :5].argmax(1) == faces["identity"][known].str[-1].astype(int)
    assert right.mean() > 0.9
    again = maps.rebuild("OpenSet", fitted.state_dict())
    assert np.array_equal(maps.apply(again, embeddings, embeddings), mapped)


def fitted_ones(embeddings, faces):
    yield maps.fit_linear(embeddings, faces)
    yield maps.fit_plda(embeddings, faces)
    yield maps.fit_plda(embeddings, faces, linear_map=True, unknown=0.0)
    yield maps.fit_posterior(embeddings, faces)
    yield maps.fit_posterior(embeddings, faces, unknown=0.0)


def test_maps_come_back_from_their_tensors(frozen):
    embeddings, faces = frozen
    for fitted in fitted_ones(embeddings, faces):
        again = maps.rebuild(type(fitted).__name__, fitted.state_dict())
        assert np.array_equal(maps.apply(again, embeddings), maps.apply(fitted, embeddings))
    with pytest.raises(ValueError, match="no map of the kind 'Pickle'"):
        maps.rebuild("Pickle", {})


def test_maps_work_in_single_precision_too(frozen):
    """As they do in an exported file."""
    embeddings, faces = frozen
    for fitted in fitted_ones(embeddings, faces):
        exact = maps.apply(fitted, embeddings)
        assert (exact * maps.apply(fitted.float(), embeddings)).sum(1).min() > 0.99999
