"""A scene is one of many, the same each time it is drawn; the body stands below the head."""

from dataclasses import replace

import numpy as np

from src.demo import people, scene

LOOK = replace(people.view(np.random.default_rng(0)), size=0.3, centre=(0.5, 0.45))


def test_a_background_depends_on_the_scene_alone():
    one, again = scene.background(LOOK, 64), scene.background(LOOK, 64)
    np.testing.assert_array_equal(one, again)
    assert one.shape == (64, 64, 3) and one.min() > 0
    assert (scene.background(replace(LOOK, scene=LOOK.scene + 1), 64) != one).any()


def test_the_body_is_below_the_face_and_wears_the_clothes():
    who = replace(people.person(3), hair_style="short")
    before = scene.background(LOOK, 100)
    dressed, otherwise = before.copy(), before.copy()
    scene.body(dressed, who, replace(LOOK, clothes=(200.0, 20.0, 20.0)))
    scene.body(otherwise, who, replace(LOOK, clothes=(20.0, 20.0, 200.0)))
    np.testing.assert_array_equal(dressed[:50], before[:50])
    red, _, blue = dressed[97, 50]
    assert red > blue
    red, _, blue = otherwise[97, 50]
    assert red < blue


def test_long_hair_falls_behind_the_neck():
    bare, hung = (np.ones((100, 100, 3), np.float32) for _ in range(2))
    scene.body(bare, replace(people.person(3), hair_style="short"), LOOK)
    scene.body(hung, replace(people.person(3), hair_style="long"), LOOK)
    assert (bare != hung).any(-1)[60:80].mean() > 0.05
