"""What is left in a photo: val says which network tells smears from faces, and where it ends."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.limits import NotPossible
from src.networks import recognisability
from src.networks.recognisability import SMEARS
from tests.evaluation.examples import unit_rows


def world(count: int = 100, spread: float = 0.5):
    """Photos and smears of train, val and test in two networks' spaces; only the second tells them apart."""
    rng = np.random.default_rng(0)
    faces = pd.DataFrame({"split": np.repeat(["train", "val", "test_seen"], count), "eye_distance": 30.0})
    faces["quality"] = np.where(np.arange(3 * count) % 2, "low", "high")
    probes = pd.DataFrame({"split": np.repeat(["train", "val", "test"], count), "kind": SMEARS})
    middle = rng.normal(size=16)
    photos = {name: unit_rows(rng.normal(size=(3 * count, 16))) for name in ("blind", "seeing")}
    others = {
        "blind": unit_rows(rng.normal(size=(3 * count, 16))),
        "seeing": unit_rows(middle + spread * rng.normal(size=(3 * count, 16))),
    }
    return photos, others, faces, probes


def test_the_network_that_tells_best_is_chosen_and_its_limit_keeps_smears_out():
    photos, others, faces, probes = world()
    found = recognisability.fit(photos, others, faces, probes)
    assert found.network == "seeing" and found.separation > 0.98
    train = (probes["split"] == "train").to_numpy()
    mean = others["seeing"][train].mean(0)
    np.testing.assert_allclose(found.centre, mean / np.linalg.norm(mean), rtol=1e-4)
    lengths = found.lengths(photos)
    expected = (1 - photos["seeing"] @ found.centre) / found.limit
    np.testing.assert_allclose(lengths, np.maximum(expected, recognisability.SHORTEST), rtol=1e-5)
    of_smears = found.lengths(others)
    val, test = ((probes["split"] == name).to_numpy() for name in ("val", "test"))
    assert (of_smears[val] < 1).mean() == pytest.approx(recognisability.KEPT_OUT, abs=0.01)
    assert (of_smears[test] < 1).mean() > 0.85 and (lengths < 1).mean() < 0.05


def test_rows_that_carry_the_score_say_which_photos_are_too_poor():
    photos, others, faces, probes = world()
    score = recognisability.fit(photos, others, faces, probes)
    rows = photos["blind"] * score.lengths(photos)[:, None]
    rows[:5] *= 0.5 / np.linalg.norm(rows[:5], axis=1, keepdims=True)
    poor = recognisability.too_poor(rows, score)
    assert poor[:5].all() and (poor == ~(np.linalg.norm(rows, axis=1) >= 1)).all()
    worst = recognisability.not_to_enrol(rows, poor, faces)
    assert (faces["split"][worst] == "train").all() and poor[worst].all() and len(worst) >= 5
    assert (np.diff(np.linalg.norm(rows[worst], axis=1)) >= 0).all()
    said = recognisability.in_words(score, poor, faces)
    at = (faces["split"] == "test_seen") & (faces["quality"] == "low")
    assert "smears in seeing" in said and f"{poor[at].mean():.1%} of 50 low-quality photos" in said
    assert f"So are {len(worst)} photos of train" in said
    measures = recognisability.beside(rows, score, faces.assign(score=0.5))
    assert len(measures) == 3 and all(values.shape == (len(rows),) for values in measures.values())
    assert recognisability.too_poor(np.full((1, 3), np.nan), score).all()


def test_only_val_chooses_and_train_says_where_smears_lie():
    photos, others, faces, probes = world()
    before = recognisability.fit(photos, others, faces, probes)
    tested = (probes["split"] == "test").to_numpy()
    for name in photos:
        photos[name] = np.where((faces["split"] == "val").to_numpy()[:, None], photos[name], others[name])
        others[name] = np.where(tested[:, None], -others[name], others[name])
    after = recognisability.fit(photos, others, faces, probes)
    assert (after.network, after.limit, after.separation) == (before.network, before.limit, before.separation)
    np.testing.assert_array_equal(after.centre, before.centre)


def test_what_can_not_be_told_is_said():
    photos, others, faces, probes = world(count=10)
    with pytest.raises(NotPossible, match="20 photos and 20 smears in val"):
        recognisability.fit(photos, others, faces, probes)
    photos, others, faces, probes = world()
    with pytest.raises(NotPossible, match=r"blind does not tell val's photos from smears \(AUC 0\."):
        recognisability.fit({"blind": photos["blind"]}, others, faces, probes)


class Two(nn.Module):
    """Stands in for a model of two networks, of which the second scores."""

    names = ("blind", "seeing")

    def looks(self, images):
        flat = images.flatten(1)
        return [F.normalize(flat[:, :8]), F.normalize(flat[:, 8:16])]

    def mapped(self, looks):
        return 3 * torch.cat([looks[0], looks[1]], 1)


def test_a_scored_model_keeps_directions_and_says_how_much_is_shown():
    torch.manual_seed(0)
    images = torch.rand(6, 1, 4, 4) - 0.5
    model = Two()
    score = recognisability.Recognisability("seeing", np.eye(8, dtype=np.float32)[0], 0.5, 1.0)
    given = recognisability.Scored(model, score)(images)
    looks = model.looks(images)
    expected = model.mapped(looks)
    assert F.cosine_similarity(given, expected).min() > 0.9999999
    lengths = score.lengths({"seeing": looks[1].numpy()})
    np.testing.assert_allclose(given.norm(dim=1).numpy(), lengths, rtol=1e-5)
    nothing = torch.zeros_like(images)
    nothing[:, :, 2] = torch.tensor([1.0, 0, 0, 0])  # what the second network sees is the centre
    nothing[:, :, 0] = 1.0
    lengths = recognisability.Scored(model, score)(nothing).norm(dim=1)
    assert lengths.numpy() == pytest.approx(recognisability.SHORTEST, rel=1e-4)
