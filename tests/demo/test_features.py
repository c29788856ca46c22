"""An expression moves the features it is about, and what a person wears is painted."""

from dataclasses import replace

import numpy as np
import pytest

from src.demo import features, people, texture

LOOK = replace(people.view(np.random.default_rng(0)), smile=0.0, mouth_open=0.0, with_glasses=True)
WHO = replace(people.person(3), glasses="none", beard="none")


def changed(before, after):
    """Face coordinates [n, 2] of the pixels in which two painted faces differ."""
    rows, columns = np.nonzero((before != after).any(-1))
    return np.stack([columns, rows], 1) / texture.DETAIL - texture.ORIGIN


def test_a_face_is_a_texture_of_bytes():
    face = features.face(WHO, LOOK)
    assert face.shape == (texture.HEIGHT, texture.WIDTH, 3) and face.dtype == np.uint8


def test_a_smile_widens_and_lifts_the_mouth():
    left, right = features.mouth_corners(WHO, LOOK)
    smiling_left, smiling_right = features.mouth_corners(WHO, replace(LOOK, smile=1.0))
    assert smiling_left[0] < left[0] < right[0] < smiling_right[0]
    assert smiling_right[1] < right[1]


@pytest.mark.parametrize(
    ("change", "top", "bottom"),
    [({"mouth_open": 0.8}, 0.4, 0.85), ({"gaze": 0.7}, -0.2, 0.2), ({"brows_up": 2.0}, -0.45, 0.05)],
)
def test_an_expression_changes_only_its_part_of_the_face(change, top, bottom):
    calm = replace(LOOK, gaze=0.0, brows_up=0.0)
    points = changed(features.face(WHO, calm), features.face(WHO, replace(calm, **change)))
    assert len(points) > 50
    assert points[:, 1].min() > top and points[:, 1].max() < bottom


def test_glasses_are_painted_only_when_worn():
    wearer = replace(WHO, glasses="round")
    bare = features.face(WHO, LOOK)
    assert len(changed(bare, features.face(wearer, LOOK))) > 1000
    assert not len(changed(bare, features.face(wearer, replace(LOOK, with_glasses=False))))


def test_a_full_beard_covers_the_chin_and_spares_the_forehead():
    points = changed(features.face(WHO, LOOK), features.face(replace(WHO, beard="full"), LOOK))
    assert points[:, 1].min() > 0.2
    assert (np.abs(points - [0, 0.95]).max(1) < 0.1).any()
