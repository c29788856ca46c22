"""The same seed gives the same person; people and views stay within what can be drawn."""

import numpy as np

from src.demo import people


def test_a_seed_is_a_person():
    assert people.person(3) == people.person(3)
    assert len({people.person(seed) for seed in range(50)}) == 50


def test_people_are_of_every_kind():
    crowd = [people.person(seed) for seed in range(300)]
    assert {who.hair_style for who in crowd} == set(people.HAIR_STYLES)
    assert {who.beard for who in crowd} == set(people.BEARDS)
    assert {who.glasses for who in crowd} == {"none", "round", "square"}
    colours = np.array([(who.skin, who.iris, who.hair_colour, who.lip_colour) for who in crowd])
    assert colours.min() >= 4 and colours.max() <= 251


def test_a_wild_view_turns_the_head_further():
    yaw = {
        wild: np.std([people.view(np.random.default_rng(k), wild).yaw for k in range(200)])
        for wild in (0.0, 1.0)
    }
    assert yaw[1.0] > 1.2 * yaw[0.0]
    views = [people.view(np.random.default_rng(k), wild=1.0) for k in range(200)]
    assert max(abs(look.yaw) for look in views) <= 45
