"""Hair covers what its style says, stands off the head, and hangs only where it is long."""

from dataclasses import replace

import numpy as np

from src.demo import hair, head, people, texture

WHO = replace(people.person(3), hair_volume=1.0, hair_curl=0.2)
LOOK = people.view(np.random.default_rng(0))


def styled(style):
    return replace(WHO, hair_style=style)


def covered(style):
    return hair.surface(styled(style))[1][..., 3].mean()


def test_longer_styles_cover_more():
    assert covered("bald") < covered("cropped") < covered("long")


def test_hair_stands_off_the_crown_but_not_out_of_the_face():
    shell, colours = hair.surface(styled("short"))
    bare = head.relief(WHO)
    crown, nose = (20, texture.WIDTH // 2), (280, texture.WIDTH // 2)
    assert shell[crown] > bare[crown] and colours[crown][3] > 200
    assert shell[nose] < bare[nose] and colours[nose][3] == 0


def test_only_hanging_styles_have_a_curtain_and_long_hair_hangs_further():
    assert set(hair.HANGING) < set(people.HAIR_STYLES)
    y, x = np.mgrid[-1:2:90j, -1:1:60j].astype(np.float32)
    lowest = {}
    for style in hair.HANGING:
        picture = np.ones((90, 60, 3), np.float32)
        hair.curtain(picture, styled(style), LOOK, x, y, edge=0.05)
        lowest[style] = y[(picture != 1).any(-1)].max()
    assert lowest["bob"] < lowest["long"]
