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

PEOPLE, SHOTS = 6, 14
# By kind of start: epochs of 2 steps, and the AUC that new photos of the people in training must reach.
KINDS = {"nothing": (20, 0.9), "photos": (20, 0.85), "faces": (16, 0.82)}


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


def test_a_large_set_gets_fewer_passes_and_a_small_one_as_many_as_asked_for():
    settings = recipes.recipe(ORIGIN, epochs=45)

    def passes(in_a_pass, on_gpu=False):
        return recipes.within_reach(settings, in_a_pass, on_gpu).epochs

    assert passes(500) == 45
    assert passes(1200) == 33  # the study's 8 people with 2,800 photos each: 150 of each in a pass
    assert passes(1200, on_gpu=True) == 45
    assert passes(45_000) == recipes.LEAST_PASSES
    assert recipes.within_reach(replace(settings, epochs=3), 45_000, on_gpu=False).epochs == 3


@pytest.fixture(scope="module")
def pack():
    return network.from_pack(mode.PACK / "rec_demo.onnx")


def album(first: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Six generated people: of each, 8 photos to train on, 2 to validate, 4 to test."""
    split = np.tile(["train"] * 8 + ["val"] * 2 + ["test_seen"] * 4, PEOPLE)
    faces = pd.DataFrame({"identity": np.repeat(np.arange(PEOPLE).astype(str), SHOTS), "split": split})
    return generated(range(first, first + PEOPLE), SHOTS), faces


def trained(start, crops, faces, workspace, epochs, teacher=None):
    settings = recipes.recipe(start.origin, epochs=epochs, batch_size=24)
    targets = None if teacher is None else embed(crops, teacher)
    return finetuning.train(start, crops, faces, settings, targets, guide=teacher, workspace=workspace)


@pytest.fixture
def start(request, pack, tmp_path):
    """A network of each kind: random, read from a file that has learnt from other pictures, a pack's."""
    if request.param == "faces":
        return pack
    random = network.resnet50("none", 64, input_size=32)
    if request.param == "nothing":
        return random
    learnt = trained(random, *album(first=50), tmp_path / "other people", epochs=12, teacher=pack)
    return network.resnet50(str(learnt / network.WEIGHTS_FILE), 64, input_size=32)


def auc(of, crops, faces):
    test = (faces["split"] == "test_seen").to_numpy()
    return verification.auc(embed(crops[test], of), faces["identity"].to_numpy()[test])


@pytest.mark.parametrize(("start", "kind"), [(kind, kind) for kind in KINDS], indirect=["start"])
def test_each_kind_of_start_is_better_after_training_than_before(kind, start, pack, tmp_path):
    assert recipes.kind_of(start.origin) == kind
    assert KINDS.keys() == recipes.RECIPES.keys()
    crops, faces = album(first=0)
    if kind == "faces":  # good photos of these people it tells apart already
        noise = np.random.default_rng(0).normal(0, 60, crops.shape)
        small = crops.reshape(-1, 14, 8, 14, 8, 3).mean((2, 4)).repeat(8, 1).repeat(8, 2)
        crops = np.clip(small + noise, 0, 255).astype(np.uint8)
    epochs, floor = KINDS[kind]
    teacher = None if kind == "faces" else pack
    folder = trained(start, crops, faces, tmp_path / "training", epochs, teacher)
    before, after = auc(start, crops, faces), auc(network.load(folder), crops, faces)
    assert after > max(before, floor), (before, after)
