import dataclasses
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from src import embedding, finetuning, model

QUICK = finetuning.Settings(epochs=3, batch_size=8, per_identity=2, seed=3, warmup=0.0)


@pytest.fixture(scope="module")
def photos():
    """Four people, told apart by the colours of their faces: 6 photos each to train on and 2 to validate."""
    rng = np.random.default_rng(0)
    identity = np.repeat(["ann", "bob", "cid", "dee"], 8)
    colours = rng.integers(30, 226, (4, 4, 4, 3)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    crops = np.clip(colours + rng.normal(0, 20, (32, 32, 32, 3)), 0, 255).astype(np.uint8)
    split = np.tile(["train"] * 6 + ["val"] * 2, 4)
    return crops, pd.DataFrame({"identity": identity, "split": split})


def small(seed=0):
    """A network of the real kind with a light backbone, so that tests of the loop take no time."""
    torch.manual_seed(seed)
    backbone = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
    )
    origin = {"architecture": "resnet50", "weights": "none", "embedding_size": 8, "input_size": 32}
    return model.FaceNetwork(backbone, nn.Linear(256, 8), 32, origin)


def test_training_learns_who_is_who(photos):
    settings = dataclasses.replace(QUICK, epochs=25, learning_rate=1e-2, averaging=0.9)
    history = model.history(finetuning.train(small(), photos[0], photos[1], settings))
    assert history["loss"].iloc[:3].mean() > history["loss"].iloc[-3:].mean()
    assert history["accuracy"].iloc[-1] > 0.8
    assert history["val_auc"].max() > 0.9


def test_resnet50_goes_through_training_and_back(photos, tmp_path):
    network = model.resnet50("none", embedding_size=8, input_size=32)
    before = embedding.embed(photos[0], network)
    settings = dataclasses.replace(QUICK, epochs=1)
    folder = finetuning.train(network, photos[0], photos[1], settings, workspace=tmp_path)
    record = model.read_record(folder)
    assert record["settings"] == dataclasses.asdict(settings)
    assert record["trained_on"]["people"] == ["ann", "bob", "cid", "dee"]
    assert record["trained_on"]["photos"] == 24
    assert np.array_equal(embedding.embed(photos[0], network), before), "the given network is left as it was"
    assert not np.allclose(embedding.embed(photos[0], model.load(folder)), before)


def test_an_interrupted_training_comes_to_the_same_result(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, "PAUSE", 0.0)
    teacher = np.random.default_rng(1).normal(size=(32, 5)).astype(np.float32)
    whole = finetuning.train(small(), photos[0], photos[1], QUICK, teacher, tmp_path / "whole")
    keep = finetuning._keep

    def interrupted(file, learner, averaged, optimizer, history):
        keep(file, learner, averaged, optimizer, history)
        if len(history) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(finetuning, "_keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetuning.train(small(), photos[0], photos[1], QUICK, teacher, tmp_path / "parts")
    monkeypatch.setattr(finetuning, "_keep", keep)
    parts = finetuning.train(small(), photos[0], photos[1], QUICK, teacher, tmp_path / "parts")
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert model.history(parts).drop(columns="seconds").equals(model.history(whole).drop(columns="seconds"))


def test_a_loss_that_is_not_finite_stops_with_a_sentence_and_keeps_the_best(photos, tmp_path, monkeypatch):
    broken = small()
    with torch.no_grad():
        broken.head.bias.fill_(torch.nan)
    with pytest.raises(
        FloatingPointError, match=r"loss became nan in epoch 1: nothing is kept; try a learning_rate"
    ):
        finetuning.train(broken, photos[0], photos[1], QUICK)

    augment = finetuning.augment
    calls: Counter[str] = Counter()

    def spoilt(*args):
        calls["batches"] += 1
        return augment(*args) * (torch.nan if calls["batches"] == 6 else 1)  # the last batch of epoch 2

    monkeypatch.setattr(finetuning, "augment", spoilt)
    with pytest.raises(FloatingPointError, match="in epoch 2: the best of the 1 epochs before is in"):
        finetuning.train(small(), photos[0], photos[1], QUICK, workspace=tmp_path)
    assert len(model.history(tmp_path / "artefact")) == 1


def test_without_validation_the_last_epoch_is_kept(photos):
    crops, faces = photos
    record = model.read_record(finetuning.train(small(), crops, faces.assign(split="train"), QUICK))
    assert record["epoch"] == QUICK.epochs


def test_training_stops_when_validation_no_longer_improves(photos, monkeypatch):
    falling = iter(np.linspace(0.9, 0.1, 20))
    monkeypatch.setattr(finetuning, "_val_auc", lambda *_: float(next(falling)))
    record = model.read_record(
        finetuning.train(small(), photos[0], photos[1], dataclasses.replace(QUICK, epochs=20, patience=2))
    )
    assert record["epoch"] == 1
    assert len(record["history"]) == 3


def test_a_single_person_and_no_epochs_are_refused(photos):
    crops, faces = photos
    with pytest.raises(ValueError, match="at least 2 people"):
        finetuning.train(small(), crops, faces.assign(identity="ann"), QUICK)
    with pytest.raises(ValueError, match="epochs is 0"):
        finetuning.train(small(), crops, faces, dataclasses.replace(QUICK, epochs=0))


def test_a_person_with_many_photos_does_not_make_a_pass_long(photos, monkeypatch):
    crops, faces = photos
    augment = finetuning.augment
    batches: list[int] = []

    def counted(*args):
        batches.append(len(args[0]))
        return augment(*args)

    monkeypatch.setattr(finetuning, "augment", counted)
    settings = dataclasses.replace(QUICK, epochs=1, batch_size=4, most_photos=2)
    finetuning.train(small(), crops, faces, settings)
    assert batches == [4, 4]  # 4 people, 2 of their 6 photos each


def test_training_starts_from_what_is_known_of_the_people(photos, monkeypatch):
    """A network that tells them apart already must not be led astray by classes at random places."""
    crops, faces = photos
    settings = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-9, margin=0.0, clean=1.0, jitter=0.0)
    accuracy = {}
    for start in ("random", "learnt"):
        network = small()
        if start == "learnt":
            monkeypatch.setattr(network, "graph", b"of a pack")
        history = model.history(finetuning.train(network, crops, faces, settings))
        accuracy[start] = history["accuracy"].iloc[0]
    assert accuracy["learnt"] > accuracy["random"] + 0.3


@pytest.mark.parametrize("width", [3, 40])
def test_a_teacher_of_any_width_gives_the_classes_their_places(photos, width, monkeypatch):
    crops, faces = photos
    teacher = np.random.default_rng(1).normal(size=(32, width)).astype(np.float32)
    placed = []
    imprint = finetuning._imprint

    def noted(margin_softmax, places, labels):
        placed.append(places)
        imprint(margin_softmax, places, labels)

    monkeypatch.setattr(finetuning, "_imprint", noted)
    finetuning.train(small(), crops, faces, dataclasses.replace(QUICK, epochs=1), teacher)
    rows = (faces["split"] == "train").to_numpy()
    unit = teacher[rows] / np.linalg.norm(teacher[rows], axis=1, keepdims=True)
    (places,) = placed
    assert places.shape == (24, 8)
    if width <= 8:  # nothing of the teacher's angles is lost
        assert np.allclose(places @ places.T, unit @ unit.T, atol=1e-5)


def test_frozen_layers_stay_as_they_are(photos):
    network = small()
    settings = dataclasses.replace(QUICK, frozen=0.5)  # of convolution and batch norm, weights and biases
    tuned = model._read(finetuning.train(network, photos[0], photos[1], settings) / "model.safetensors")
    start = network.state_dict()
    assert torch.equal(tuned["backbone.0.weight"], start["backbone.0.weight"])
    assert torch.equal(tuned["backbone.0.bias"], start["backbone.0.bias"])
    assert not torch.equal(tuned["backbone.1.weight"], start["backbone.1.weight"])


def test_rows_that_do_not_match_and_a_teacher_with_gaps_are_refused(photos):
    crops, faces = photos
    with pytest.raises(ValueError, match="32 faces, 31 crops"):
        finetuning.train(small(), crops[1:], faces, QUICK)
    gaps = np.ones((32, 5), np.float32)
    with pytest.raises(ValueError, match="31 embeddings of the teacher"):
        finetuning.train(small(), crops, faces, QUICK, gaps[1:])
    gaps[0] = np.nan
    with pytest.raises(ValueError, match="teacher fails on photos in train"):
        finetuning.train(small(), crops, faces, QUICK, gaps)


def test_the_margin_waits_and_the_rate_rises_and_falls():
    progress = np.linspace(0, 1, 101)
    settings = finetuning.Settings(warmup=0.1, margin=0.3, margin_from=0.3, margin_until=0.6)
    margins = np.array([finetuning.margin(p, settings) for p in progress])
    rates = np.array([finetuning.rate(p, settings) for p in progress])
    assert (margins[progress <= 0.3] == 0).all()
    assert np.allclose(margins[progress >= 0.6], 0.3)
    assert (np.diff(margins) >= 0).all()
    assert rates.argmax() == 10
    assert rates[-1] < 1e-6 < rates[0]


@pytest.mark.parametrize("counts", [(2, 40, 9), (1, 1)])
def test_batches_show_every_person_equally_and_every_photo(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    batches = finetuning.balanced(labels, 12, 4, np.random.default_rng(0))
    drawn = np.concatenate([next(batches) for _ in range(30)])
    shown = np.bincount(labels[drawn])
    assert shown.max() - shown.min() <= 4
    times = np.bincount(drawn, minlength=len(labels))
    for label in range(len(counts)):
        assert np.ptp(times[labels == label]) <= 1


def test_augmentation_without_effects_is_the_crop_or_its_mirror_image(photos):
    crops = torch.from_numpy(photos[0])
    settings = finetuning.Settings(jitter=0.0, clean=1.0)
    images = finetuning.augment(crops, settings, torch.Generator().manual_seed(0))
    plain = embedding.to_images(crops)
    same = (images - plain).abs().amax((1, 2, 3)) < 1e-2
    mirrored = (images - plain.flip(-1)).abs().amax((1, 2, 3)) < 1e-2
    assert (same | mirrored).all()
    assert same.any()
    assert mirrored.any()


# ---------------------------------------------------------------- between old and new weights


def test_interpolation_keeps_clean_accuracy_and_starts_from_the_old_weights(photos, tmp_path, monkeypatch):
    crops, faces = photos
    faces = faces.assign(quality=np.repeat(["high", "low"], 16))
    before = model.resnet50("none", embedding_size=8, input_size=32)
    folder = finetuning.train(before, crops, faces, dataclasses.replace(QUICK, epochs=1), workspace=tmp_path)
    old, new = before.state_dict(), model.load(folder).state_dict()
    name = "head.0.weight"
    aucs = iter(np.repeat(np.linspace(0.7, 0.8, 4), 2))  # of val and of its clean photos, at each share

    def risen_and_fallen(embeddings, identity):
        auc = next(aucs)
        return float(auc if len(embeddings) == 8 else (0.9 if auc < 0.745 else 0.8))

    monkeypatch.setattr(finetuning.verification, "auc", risen_and_fallen)
    blend = finetuning.interpolate(before, model.load(folder), crops, faces)
    record = model.read_record(blend)
    assert record["interpolation"]["share"] == 0.2, "the highest on val that loses nothing on clean photos"
    assert [row["share"] for row in record["interpolation"]["tried"]] == [0, 0.2, 0.4, 0.6]
    expected = torch.lerp(old[name], new[name], 0.2)
    torch.testing.assert_close(model.load(blend).state_dict()[name], expected)
    assert record["history"] == model.read_record(folder)["history"]


def test_interpolation_needs_people_to_choose_on(photos, tmp_path):
    crops, faces = photos
    faces = faces.assign(split="train", quality="unknown")
    before = model.resnet50("none", embedding_size=8, input_size=32)
    folder = finetuning.train(before, crops, faces, dataclasses.replace(QUICK, epochs=1), workspace=tmp_path)
    with pytest.raises(ValueError, match='chosen on "val"'):
        finetuning.interpolate(before, model.load(folder), crops, faces)
