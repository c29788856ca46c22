import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from src.networks import embedding, loading, recipes
from tests.networks.small import four_people


def test_a_large_class_is_shown_whole_over_the_run():
    """Eight people with 1,960 photos each to train on, as in the study: every photo twice at least."""
    settings = recipes.within_reach(recipes.Settings(), 8 * 150, on_gpu=False)
    labels = np.repeat(np.arange(8), 1960)
    data = loading.TrainingData(
        np.empty(0), np.arange(len(labels)), labels, [*"abcdefgh"], None, pd.DataFrame()
    )
    steps = loading.steps_of(data, settings) * settings.epochs
    whole = list(itertools.islice(loading.batches_of(data, settings), steps))
    assert np.bincount(np.concatenate(whole), minlength=len(labels)).min() >= 2
    later = next(loading.batches_of(data, settings, epochs=2))
    assert np.array_equal(later, whole[2 * loading.steps_of(data, settings)]), "a resumed run goes on"


@pytest.mark.parametrize("counts", [(2, 40, 9), (1, 1)])
def test_batches_show_every_person_equally_and_every_photo(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    batches = loading.balanced(labels, 12, 4, np.random.default_rng(0))
    drawn = np.concatenate([next(batches) for _ in range(30)])
    shown = np.bincount(labels[drawn])
    assert shown.max() - shown.min() <= 4
    times = np.bincount(drawn, minlength=len(labels))
    for label in range(len(counts)):
        assert np.ptp(times[labels == label]) <= 1


def test_augmentation_without_effects_is_the_crop_or_its_mirror_image():
    crops = torch.from_numpy(four_people()[0])
    settings = recipes.Settings(jitter=0.0, clean=1.0)
    generator = torch.Generator().manual_seed(0)
    moved = loading.views(len(crops), settings, generator)
    images = loading.augment(crops, settings, generator, moved)
    plain = embedding.to_images(crops)
    same = (images - plain).abs().amax((1, 2, 3)) < 1e-2
    mirrored = (images - plain.flip(-1)).abs().amax((1, 2, 3)) < 1e-2
    assert (same | mirrored).all()
    assert same.any()
    assert mirrored.any()


def test_photos_of_nobody_come_on_top_of_each_kind_as_often():
    crops, faces = four_people()
    settings = recipes.Settings(nobody=0.5)
    nobody = loading.Nobody(np.full((30, 32, 32, 3), 7, np.uint8), np.repeat(["smears", "others"], [29, 1]))
    data = loading.training_data(crops, faces, settings, None)
    batch = np.arange(8)
    rng = np.random.default_rng(0)
    for given, positions in ((data, batch), (replace(data, nobody=nobody), np.append(batch, [-1] * 4))):
        images, labels, found = loading.shown(given, batch, settings, rng)
        assert np.array_equal(found, positions)
        assert np.array_equal(images[:8], crops[data.rows[batch]])
        assert (images[8:] == 7).all() and (labels[8:] == 4).all()
    drawn = nobody.draw(400, rng)
    assert 150 < (drawn == 29).sum() < 250
