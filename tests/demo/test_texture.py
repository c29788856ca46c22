"""Painting fills what it is told to, and no more."""

import numpy as np
import pytest

from src.demo import texture


@pytest.fixture
def blank():
    return np.zeros((texture.HEIGHT, texture.WIDTH, 3), np.float32)


def at(painted, x, y):
    """The painted colour at face coordinates."""
    column, row = ((np.array([x, y]) + texture.ORIGIN) * texture.DETAIL).astype(int)
    return painted[row, column]


def test_directions_have_length_one_and_face_forward_in_the_middle():
    x, y, longitude, latitude = texture.directions()
    np.testing.assert_allclose(np.linalg.norm(texture.ray(x, y), axis=0), 1, rtol=1e-5)
    middle = tuple((texture.ORIGIN * texture.DETAIL).astype(int)[::-1])
    assert abs(longitude[middle]) < 0.02 and abs(latitude[middle]) < 0.02


def test_paint_fills_an_outline_with_a_colour(blank):
    texture.paint(blank, texture.ellipse(0.2, 0.1, 0.1, 0.05), (200, 100, 50), opacity=0.5)
    np.testing.assert_allclose(at(blank, 0.2, 0.1), (100, 50, 25))
    assert not at(blank, 0.35, 0.1).any()
    assert not at(blank, 0.2, 0.2).any()


def test_paint_stays_inside_another_outline(blank):
    outline, within = texture.ellipse(0, 0, 0.2, 0.2), texture.ellipse(0.2, 0, 0.1, 0.1)
    texture.paint(blank, outline, (255, 255, 255), within=within)
    assert at(blank, 0.15, 0).all() and not at(blank, -0.1, 0).any() and not at(blank, 0.25, 0).any()


def test_a_soft_edge_fades(blank):
    texture.paint(blank, texture.ellipse(0, 0, 0.2, 0.2), (255, 255, 255), softness=0.05)
    inside, edge, outside = (at(blank, x, 0)[0] for x in (0, 0.2, 0.3))
    assert inside > edge > outside > 0


def test_a_stroke_is_as_thick_as_asked():
    line = np.stack([np.linspace(-1, 1, 5), np.zeros(5)], 1)
    outline = texture.stroke(line, 0.2)
    assert np.ptp(outline[:, 1]) == pytest.approx(0.2)
    assert np.ptp(outline[:, 0]) == pytest.approx(2)


def test_turning_keeps_distances_from_the_centre():
    points, centre = texture.ellipse(0.3, 0.1, 0.2, 0.1), (0.3, 0.1)
    turned = texture.turn(points, centre, 0.5)
    np.testing.assert_allclose(*(np.linalg.norm(p - centre, axis=1) for p in (points, turned)))
    np.testing.assert_allclose(texture.turn(turned, centre, -0.5), points)


@pytest.mark.parametrize("kind", ["skin", "strands", "curls", "patches"])
def test_noise_has_deviation_one(kind):
    assert texture.noise(kind).std() == pytest.approx(1, rel=1e-3)
