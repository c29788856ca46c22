import numpy as np
import pandas as pd
import pytest

from src.evaluation import choosing, verification


@pytest.fixture
def faces():
    """Three people in training with photos in val, two of val's own; photos of other splits lie between."""
    identity = np.repeat(["ann", "bob", "cid", "dee", "eve"], 8)
    split = np.where(np.isin(identity, ["dee", "eve"]), "val", np.tile(["train", "val"], 20))
    return pd.DataFrame({"identity": identity, "split": split})


def embeddings_of(faces, seed=0):
    rows = np.random.default_rng(seed).normal(size=(len(choosing.val(faces)), 6)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_both_questions_are_asked_and_their_mean_chooses(faces):
    rows, identity = embeddings_of(faces), faces["identity"].to_numpy()[choosing.val(faces)]
    seen = np.isin(identity, ["ann", "bob", "cid"])
    found = choosing.aucs(rows, faces)
    expected = [verification.auc(rows[part], identity[part]) for part in (seen, ~seen)]
    assert [found[choosing.SEEN], found[choosing.UNSEEN]] == expected
    assert found["val_auc"] == np.mean(expected)


def test_a_question_without_pairs_is_not_asked(faces):
    closed = faces[~faces["identity"].isin(["dee", "eve"])].reset_index(drop=True)
    found = choosing.aucs(embeddings_of(closed), closed)
    assert found["val_auc"] == found[choosing.SEEN] and np.isnan(found[choosing.UNSEEN])


def test_where_neither_has_pairs_all_of_val_stands_for_the_second():
    faces = pd.DataFrame({"identity": ["ann", "ann", "ann", "dee", "dee"], "split": ["train"] + ["val"] * 4})
    assert list(choosing.parts(faces)) == [choosing.UNSEEN]
    found = choosing.aucs(embeddings_of(faces), faces)
    assert np.isfinite(found["val_auc"]) and np.isnan(found[choosing.SEEN])


def test_without_pairs_nothing_chooses():
    faces = pd.DataFrame({"identity": ["ann", "bob", "ann"], "split": ["train", "train", "val"]})
    assert choosing.parts(faces) == {}
    assert all(np.isnan(value) for value in choosing.aucs(np.ones((1, 4), np.float32), faces).values())
