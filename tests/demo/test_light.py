"""What faces the light is brighter, and a layer covers by its share."""

from dataclasses import replace

import numpy as np

from src.demo import light, people

LOOK = replace(
    people.view(np.random.default_rng(0)), light=(60.0, 0.0), contrast=0.6, exposure=1.0, tint=(1.0, 1.0, 1.0)
)


def ball(side=64):
    """Depth in half heads of a ball that fills a picture, and where it is."""
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    inside = 0.9 - x * x - y * y
    return np.sqrt(np.maximum(inside, 0)).astype(np.float32), inside > 0


def lit(look):
    depth, hit = ball()
    grey = np.full((*depth.shape, 3), 128, np.uint8)
    return light.shade(grey, depth, hit, look, scale=32, gloss=0.0)


def test_the_side_towards_the_light_is_brighter():
    picture = lit(LOOK)
    assert picture[32, 46].mean() > 1.5 * picture[32, 18].mean()
    mirrored = lit(replace(LOOK, light=(-60.0, 0.0)))
    assert mirrored[32, 18].mean() > 1.5 * mirrored[32, 46].mean()


def test_exposure_and_tint_scale_the_light():
    np.testing.assert_allclose(lit(replace(LOOK, exposure=2.0)), 2 * lit(LOOK), rtol=1e-5)
    warm = lit(replace(LOOK, tint=(1.2, 1.0, 0.8)))
    np.testing.assert_allclose(warm[..., 0], 1.2 * lit(LOOK)[..., 0], rtol=1e-5)


def test_softening_keeps_the_mean_and_takes_the_detail():
    grain = np.random.default_rng(0).normal(5, 1, (64, 64)).astype(np.float32)
    soft = light.soften(grain, 4)
    assert abs(soft.mean() - grain.mean()) < 0.1
    assert soft.std() < 0.3 * grain.std()


def test_a_layer_covers_by_its_share():
    picture = np.zeros((1, 3, 3), np.float32)
    light.over(picture, np.ones_like(picture), np.array([[0, 0.25, 1]]))
    np.testing.assert_allclose(picture[0, :, 0], [0, 0.25, 1])
