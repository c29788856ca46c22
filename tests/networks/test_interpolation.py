import numpy as np
import pytest
import torch

from src.evaluation import choosing, verification
from src.networks import finetuning, interpolation, network
from tests.networks.small import four_people

QUICK = finetuning.Settings(epochs=1, batch_size=8, per_identity=2, seed=3, warmup=0.0)


@pytest.fixture(scope="module")
def photos():
    return four_people()


@pytest.fixture
def before():
    return network.resnet50("none", embedding_size=8, input_size=32)


@pytest.fixture
def tuned(photos, before, tmp_path):
    return network.load(
        finetuning.train(before, photos[0], photos[1], QUICK, workspace=tmp_path / "training")
    )


def test_it_keeps_clean_accuracy_and_starts_from_the_old_weights(
    photos, before, tuned, tmp_path, monkeypatch
):
    crops, faces = photos
    faces = faces.assign(quality=np.repeat(["high", "low"], 16))
    name = "head.0.weight"
    rising, falling = iter((0.7, 0.73, 0.77, 0.8)), iter((0.9, 0.9, 0.8, 0.8))  # at each share
    monkeypatch.setattr(choosing, "aucs", lambda embeddings, faces: {"val_auc": next(rising)})
    monkeypatch.setattr(verification, "auc_or_nan", lambda embeddings, identity: next(falling))
    blend = network.load(interpolation.interpolate(before, tuned, crops, faces, workspace=tmp_path))
    chosen = blend.record["interpolation"]
    assert chosen["share"] == 0.2, "the highest on val that loses nothing on clean photos"
    assert [row["share"] for row in chosen["tried"]] == [0, 0.2, 0.4, 0.6]
    expected = torch.lerp(before.state_dict()[name], tuned.state_dict()[name], 0.2)
    torch.testing.assert_close(blend.state_dict()[name], expected)
    assert blend.record["history"] == tuned.record["history"]


def test_without_people_to_choose_on_it_is_the_default_and_said_so(photos, before, tuned, tmp_path):
    crops, faces = photos
    faces = faces.assign(split="train", quality="unknown")
    blend = network.load(interpolation.interpolate(before, tuned, crops, faces, workspace=tmp_path))
    chosen = blend.record["interpolation"]
    assert chosen["share"] == interpolation.DEFAULT and "by default" in chosen["note"]
    name = "head.0.weight"
    expected = torch.lerp(before.state_dict()[name], tuned.state_dict()[name], interpolation.DEFAULT)
    torch.testing.assert_close(blend.state_dict()[name], expected)


def test_networks_that_differ_are_refused(photos, before, tuned, tmp_path):
    other = network.resnet50("none", embedding_size=16, input_size=32)
    faces = photos[1].assign(quality="unknown")
    with pytest.raises(ValueError, match="another than the one to start from"):
        interpolation.interpolate(other, tuned, photos[0], faces, workspace=tmp_path)
