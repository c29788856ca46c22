"""A network of the real kind with a light backbone, so that tests of training take no time."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from src.demo import drawing, people
from src.networks import finetuning
from src.networks.network import FaceNetwork, Origin
from src.packs.alignment import align

ORIGIN = Origin(
    architecture="resnet50",
    weights="none",
    learnt=False,
    knows_faces=False,
    frozen_statistics=False,
    embedding_size=8,
    input_size=32,
)


def small_network(seed: int = 0, origin: Origin = ORIGIN) -> FaceNetwork:
    torch.manual_seed(seed)
    backbone = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
    )
    return FaceNetwork(backbone, nn.Linear(256, 8), origin)


def four_people() -> tuple[np.ndarray, pd.DataFrame]:
    """Four people, told apart by the colours of their faces: 6 photos each to train on and 2 to validate."""
    rng = np.random.default_rng(0)
    identity = np.repeat(["ann", "bob", "cid", "dee"], 8)
    colours = rng.integers(30, 226, (4, 4, 4, 3)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    crops = np.clip(colours + rng.normal(0, 20, (32, 32, 32, 3)), 0, 255).astype(np.uint8)
    split = np.tile(["train"] * 6 + ["val"] * 2, 4)
    return crops, pd.DataFrame({"identity": identity, "split": split})


def generated(seeds: range, shots: int, start: int = 0) -> np.ndarray:
    """Aligned crops of generated people, `shots` of each: uint8 [len(seeds) * shots, 112, 112, 3] RGB."""
    views = [
        people.view(np.random.default_rng([start, seed, shot])) for seed in seeds for shot in range(shots)
    ]
    owners = [people.person(seed) for seed in seeds for _ in range(shots)]
    return np.stack([align(*drawing.draw(who, view, 160)) for who, view in zip(owners, views, strict=True)])


@contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, epochs: int = 1) -> Iterator[None]:
    """What is trained within is interrupted, as by Ctrl-C, when the state after so many epochs is kept."""
    keep = finetuning.Learner.keep

    def stopping(self, file, history):
        keep(self, file, history)
        if len(history) == epochs:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetuning.Learner, "keep", stopping)
        yield
