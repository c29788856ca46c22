"""A head turns as a solid body, and rays meet it where its points are placed."""

from dataclasses import replace

import numpy as np
import pytest

from src.demo import head, people, texture

FRONTAL = replace(
    people.view(np.random.default_rng(0)), yaw=0.0, pitch=0.0, roll=0.0, size=0.3, centre=(0.5, 0.5)
)
NOSE = np.array([[0.0, 0.34]])


@pytest.fixture
def who():
    return people.person(3)


def test_the_nose_stands_out(who):
    points = np.array([[0, who.nose_length - 0.05], [0.3, who.nose_length - 0.05]])
    nose, cheek = head.place(points, who, replace(FRONTAL, yaw=90.0))[:, 0]  # seen from the side
    assert nose > cheek


def test_rotations_turn_and_stretch_nothing():
    for yaw, pitch, roll in ((30, 0, 0), (0, -20, 5), (-40, 15, 10)):
        matrix = head.rotation(replace(FRONTAL, yaw=yaw, pitch=pitch, roll=roll))
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(matrix) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("change", "axis"), [({"yaw": 20.0}, 0), ({"pitch": 15.0}, 1)])
def test_turning_and_nodding_move_the_nose(who, change, axis):
    moved = head.place(NOSE, who, replace(FRONTAL, **change)) - head.place(NOSE, who, FRONTAL)
    assert moved[0, axis] > 0.02


def test_a_ray_meets_the_surface_where_a_point_is_placed(who):
    points = np.array([[0.0, 0.34], [-0.28, 0.0], [0.2, 0.6]])
    look = replace(FRONTAL, yaw=10.0, roll=5.0)
    shares = head.place(points, who, look)
    x, y = ((shares - look.centre) / look.size).astype(np.float32).T[:, None]
    hit, _, column, row = head.cast(head.relief(who), head.half_axes(who), head.rotation(look), x, y)
    assert hit.all()
    found = np.stack([column[0], row[0]], 1) / texture.DETAIL - texture.ORIGIN
    np.testing.assert_allclose(found, points, atol=0.02)


def test_a_ray_beside_the_head_meets_nothing(who):
    far = np.full((1, 1), 1.6, np.float32)
    hit, *_ = head.cast(head.relief(who), head.half_axes(who), head.rotation(FRONTAL), far, far)
    assert not hit.any()
