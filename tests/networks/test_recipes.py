"""Every kind of start trains for real, by its own recipe: no default is ever unmeasured."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from src.demo import mode
from src.evaluation import verification
from src.networks import finetuning, network, recipes
from src.networks.embedding import embed
from tests.networks.small import ORIGIN, generated

PEOPLE, SHOTS = 6, 12
# What each kind must reach on photos of people in training: AUC.
FLOORS = {"nothing": 0.6, "photos": 0.6, "faces": 0.6}


@pytest.mark.parametrize(
    ("learnt", "knows_faces", "kind"),
    [(False, False, "nothing"), (True, False, "photos"), (True, True, "faces")],
)
def test_the_origin_decides_the_recipe(learnt, knows_faces, kind):
    origin = replace(ORIGIN, learnt=learnt, knows_faces=knows_faces)
    assert recipes.kind_of(origin) == kind
    assert recipes.recipe(origin) == recipes.RECIPES[kind]
    assert recipes.recipe(origin, epochs=3) == replace(recipes.RECIPES[kind], epochs=3)


def test_no_recipe_slows_a_learnt_backbone_to_a_tenth():
    """Measured: a tenth of the rate is worse than the pack, and worse than random weights."""
    for kind, settings in recipes.RECIPES.items():
        assert min((settings.backbone_rate, *(settings.try_rates or ()))) >= 0.3, kind


@pytest.fixture(scope="module")
def photos():
    """Six generated people: of each, 8 photos to train on, 2 to validate, 2 to test."""
    split = np.tile(["train"] * 8 + ["val"] * 2 + ["test_seen"] * 2, PEOPLE)
    faces = pd.DataFrame({"identity": np.repeat(np.arange(PEOPLE).astype(str), SHOTS), "split": split})
    return generated(range(PEOPLE), SHOTS), faces


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """A network of each kind: random, read from a file that was learnt on other pictures, a pack's."""
    folder = tmp_path_factory.mktemp("learnt")
    faces = pd.DataFrame({"identity": np.repeat(np.arange(8).astype(str), 8), "split": "train"})
    random = network.resnet50("none", 64, input_size=32)
    settings = recipes.recipe(random.origin, epochs=12, batch_size=16)
    learnt = finetuning.train(random, generated(range(50, 58), 8), faces, settings, workspace=folder)
    return {
        "nothing": random,
        "photos": network.resnet50(str(learnt / network.WEIGHTS_FILE), 64, input_size=32),
        "faces": network.from_pack(mode.PACK / "rec_demo.onnx"),
    }


def auc(network_, photos):
    crops, faces = photos
    test = (faces["split"] == "test_seen").to_numpy()
    return verification.auc(embed(crops[test], network_, mirrored=True), faces["identity"].to_numpy()[test])


@pytest.mark.parametrize("kind", recipes.RECIPES)
def test_each_kind_of_start_is_better_after_training_than_before(kind, photos, starts, tmp_path):
    start = starts[kind]
    assert recipes.kind_of(start.origin) == kind
    settings = recipes.recipe(start.origin, epochs=16, batch_size=16)
    trained = network.load(finetuning.train(start, photos[0], photos[1], settings, workspace=tmp_path))
    before, after = auc(start, photos), auc(trained, photos)
    print(kind, before, after, trained.record["trials"])
    assert after > before + 0.05
    assert after > FLOORS[kind]
