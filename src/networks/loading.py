"""What fine-tuning is shown, batch by batch: who, how the photos are moved and made worse."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from src.limits import NotPossible
from src.networks import degradation, embedding
from src.networks.hints import Hints
from src.networks.recipes import Settings


@dataclass(frozen=True)
class Nobody:
    """Photos of nobody in training, such as strangers' photos and smears: a class of their own."""

    crops: np.ndarray  # uint8 [M, H, W, 3] RGB
    kind: np.ndarray  # [M]; each kind is drawn as often

    @cached_property
    def of_kinds(self) -> list[np.ndarray]:
        """Which of the crops are of each kind."""
        return [np.flatnonzero(self.kind == kind) for kind in np.unique(self.kind)]

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """So many of the crops, int64 [count]."""
        drawn = rng.integers(len(self.of_kinds), size=count)
        return np.array([rng.choice(self.of_kinds[kind]) for kind in drawn])


@dataclass(frozen=True)
class TrainingData:
    """What is trained and validated on; rows of the crops."""

    crops: np.ndarray  # uint8 [N, H, W, 3] RGB
    rows: np.ndarray  # int64 [n] in "train"
    labels: np.ndarray  # int64 [n], codes into people
    people: list[str]
    targets: Tensor | None  # float32 [N, T], unit rows: the teacher's embeddings
    asked: pd.DataFrame  # identity and split of all rows: those in "val" choose
    hints: Hints | None = None  # of the rows
    nobody: Nobody | None = None


def training_data(
    crops: np.ndarray, faces: pd.DataFrame, settings: Settings, teacher: np.ndarray | None
) -> TrainingData:
    identity = faces["identity"].to_numpy()
    rows = np.flatnonzero(faces["split"] == "train")
    people, labels = np.unique(identity[rows], return_inverse=True)
    if settings.epochs < 1:
        raise ValueError(f"epochs is {settings.epochs}: training takes at least one pass over the photos")
    if settings.batch_size < 2:
        raise ValueError(
            f"batch_size is {settings.batch_size}: a step takes at least 2 photos, which batch norms compare"
        )
    if len(people) < 2:
        raise NotPossible(
            f'fine-tuning needs photos of at least 2 people in "train", and there are {len(people)}: '
            "3 photos of each of 2 people would do"
        )
    if len(crops) != len(faces):
        raise ValueError(f"row i of all is one photo, but there are {len(faces)} faces, {len(crops)} crops")
    if teacher is not None and len(teacher) != len(faces):
        raise ValueError(
            f"row i of all is one photo, but there are {len(faces)} faces, {len(teacher)} embeddings of the "
            "teacher"
        )
    if teacher is not None and not np.isfinite(teacher[rows]).all():
        raise ValueError(
            "the teacher fails on photos in train: give its embeddings of our crops, which have no gaps"
        )
    targets = None if teacher is None else F.normalize(torch.from_numpy(np.array(teacher)).float())
    return TrainingData(crops, rows, labels, people.tolist(), targets, faces[["identity", "split"]])


def steps_of(data: TrainingData, settings: Settings) -> int:
    """Steps of an epoch."""
    return math.ceil(in_a_pass(data, settings) / settings.batch_size)


def in_a_pass(data: TrainingData, settings: Settings) -> int:
    """Photos that an epoch shows."""
    return int(np.minimum(np.bincount(data.labels), settings.most_photos).sum())


def batches_of(data: TrainingData, settings: Settings, epochs: int = 0) -> Iterator[np.ndarray]:
    """The batches of a whole run, those of the first epochs aside.

    They go on from epoch to epoch, so that a person's photos are all shown before any is again, also where
    there are more than fit in a pass.
    """
    batches = balanced(
        data.labels, settings.batch_size, settings.per_identity, np.random.default_rng(settings.seed)
    )
    return islice(batches, epochs * steps_of(data, settings), None)


def shown(
    data: TrainingData, batch: np.ndarray, settings: Settings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A step's crops uint8 [B, H, W, 3], labels [B] and positions among those that are trained on [B].

    batch: positions of known people's photos; photos of nobody are added, a share `settings.nobody` of them.
    These have the label after the last and the position -1.
    """
    crops, labels = data.crops[data.rows[batch]], data.labels[batch]
    if data.nobody is None:
        return crops, labels, batch
    drawn = data.nobody.draw(max(1, round(settings.nobody * len(batch))), rng)
    return (
        np.concatenate([crops, data.nobody.crops[drawn]]),
        np.append(labels, np.full(len(drawn), len(data.people))),
        np.append(batch, np.full(len(drawn), -1)),
    )


def balanced(
    labels: np.ndarray, batch_size: int, per_identity: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Endless batches of positions in `labels`: each identity as often, all its photos before any again."""
    photos = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    waiting_people: list[int] = []
    waiting: list[list[int]] = [[] for _ in photos]
    while True:
        batch: list[int] = []
        while len(batch) < batch_size:
            waiting_people = waiting_people or rng.permutation(len(photos)).tolist()
            label = waiting_people.pop()
            for _ in range(min(per_identity, batch_size - len(batch))):
                waiting[label] = waiting[label] or rng.permutation(photos[label]).tolist()
                batch.append(waiting[label].pop())
        yield np.array(batch)


def views(count: int, settings: Settings, generator: Generator) -> Tensor:
    """How so many crops are moved: turned, zoomed, shifted, mirrored; float [B, 2, 3] as of `affine_grid`.

    A face that is hard to see is also hard to align, so landmarks and thus crops are a little off.
    """
    where = generator.device
    shift_x, shift_y, zoom, turn = settings.jitter * torch.randn(4, count, generator=generator, device=where)
    mirror = torch.randint(2, (count,), generator=generator, device=where) * 2 - 1
    zoom = zoom.exp()
    top = torch.stack([mirror * zoom * turn.cos(), -zoom * turn.sin(), shift_x], 1)
    bottom = torch.stack([mirror * zoom * turn.sin(), zoom * turn.cos(), shift_y], 1)
    return torch.stack([top, bottom], 1)


def augment(crops: Tensor, settings: Settings, generator: Generator, moved: Tensor) -> Tensor:
    """From crops uint8 [B, H, W, 3] to a network's input float [B, 3, H, W]: moved (`views`), degraded."""
    images = (embedding.to_images(crops) + 1) / 2
    grid = F.affine_grid(moved, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = degradation.degrade(images, generator, settings.clean, settings.chance)
    return (images * 2 - 1).contiguous(memory_format=torch.channels_last)
