"""The recommended model is chosen on val, whatever the tests say."""

import numpy as np
import pandas as pd
import pytest

from src.evaluation import open_set, recommendation
from src.limits import NotPossible
from tests.evaluation.examples import unit_rows
from tests.evaluation.test_open_set import world


def noisy(vectors, where, by, seed=1):
    """Rows in which those of `where` are spoilt."""
    noise = np.random.default_rng(seed).normal(size=vectors.shape) * by * where[:, None]
    return unit_rows(vectors + noise / np.sqrt(vectors.shape[1]))


@pytest.fixture
def set_of_models():
    vectors, faces, others, probes = world()
    faces["group"] = np.arange(len(faces))
    split = faces["split"].to_numpy()
    models = {
        "pack": noisy(vectors, split == "val", 1.5),
        "lucky": noisy(vectors, split == "val", 3.0),  # the best of all on the tests
        "honest": noisy(vectors, split == "test_seen", 3.0),  # the best on val
    }
    return models, dict.fromkeys(models, others), faces, probes


def test_val_chooses_and_no_test(set_of_models):
    models, others, faces, probes = set_of_models
    found = open_set.on_val(models, others, faces, probes, 0.05)
    chosen = recommendation.recommend(models, faces, found)
    assert chosen.model == chosen.closed_list == chosen.strangers == "honest"
    assert "no test had a say" in chosen.why
    at = found.set_index("model")["threshold"]["honest"]
    assert chosen.threshold == pytest.approx(at)
    split = faces["split"]
    shuffled = {
        n: np.where((split == "test_seen").to_numpy()[:, None], v[::-1], v) for n, v in models.items()
    }
    again = recommendation.recommend(shuffled, faces, open_set.on_val(shuffled, others, faces, probes, 0.05))
    pd.testing.assert_frame_equal(again.table, chosen.table)


def test_both_questions_of_val_are_shown(set_of_models):
    models, _, faces, _ = set_of_models
    trained = faces["identity"].isin(faces.loc[faces["split"] == "train", "identity"])
    own = (faces["split"] == "val") & ~trained
    spoilt = {name: noisy(rows, own.to_numpy(), 30.0) for name, rows in models.items()}
    before, after = (
        recommendation.recommend(given, faces, NotPossible("no probes")).table for given in (models, spoilt)
    )
    assert (after["auc_unseen"] < before["auc_unseen"]).all()
    pd.testing.assert_series_equal(after["auc"], before["auc"])


def test_a_model_that_sees_its_people_everywhere_is_for_a_closed_list_only(set_of_models):
    models, others, faces, probes = set_of_models
    known = faces["identity"].isin(faces.loc[faces["split"] == "train", "identity"]).to_numpy()
    own = pd.factorize(faces["identity"])[0]
    centres = np.random.default_rng(7).normal(size=(own.max() + 1, 32))
    near = centres[own] + 0.5 * np.random.default_rng(8).normal(size=(len(own), 32))
    sure = np.where(known[:, None], near, models["pack"])
    everywhere = np.broadcast_to(unit_rows(centres[:1]), others["pack"].shape)
    models, others = {**models, "sure": unit_rows(sure)}, {**others, "sure": everywhere}
    found = open_set.on_val(models, others, faces, probes, 0.05)
    door = recommendation.recommend(models, faces, found)
    assert door.closed_list == "sure" and door.strangers == "honest" == door.model
    assert "sure for a closed list" in door.why and "honest where strangers come" in door.why
    listed = recommendation.recommend(models, faces, found, closed=True)
    assert listed.model == "sure" and "You asked for a closed list" in listed.why


def test_the_baseline_stays_where_nothing_can_be_told(set_of_models):
    models, _, faces, _ = set_of_models
    no_val = faces.assign(split=faces["split"].replace("val", "train"))
    chosen = recommendation.recommend(models, no_val, NotPossible("val is empty"))
    assert chosen.model == "pack" and chosen.strangers is None and "too few people to choose on" in chosen.why
    assert np.isnan(chosen.threshold)
    same = dict.fromkeys(models, models["pack"])
    assert recommendation.recommend(same, faces, NotPossible("no probes")).model == "pack"
    missing = {"pack": models["pack"], "lost": NotPossible("too few")}
    assert recommendation.recommend(missing, faces, NotPossible("no probes")).table["model"].tolist() == [
        "pack"
    ]
    with pytest.raises(ValueError, match="no models"):
        recommendation.recommend({}, faces, NotPossible("no probes"))


def test_people_of_its_own_choose_where_val_shows_nobody_in_training(set_of_models):
    models, _, faces, _ = set_of_models
    trained = faces.loc[faces["split"] == "train", "identity"]
    own = faces.assign(
        split=faces["split"].mask((faces["split"] == "val") & faces["identity"].isin(trained), "")
    )
    chosen = recommendation.recommend(models, own, NotPossible("nobody known"))
    assert "people of its own" in chosen.why and chosen.table["auc"].notna().all()
    two = own["identity"].isin(own.loc[own["split"] == "val", "identity"].unique()[2:])
    few = own.assign(split=own["split"].mask((own["split"] == "val") & two, ""))
    assert recommendation.recommend(models, few, NotPossible("nobody known")).model == "pack"
