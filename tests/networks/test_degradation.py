import cv2
import numpy as np
import pytest
import torch

from src.networks import degradation

EFFECTS = ("resolution", "blur", "motion", "noise", "jpeg", "light")


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    """Smooth colours under strong texture, four times the same."""
    generator = draw()
    coarse = torch.nn.functional.interpolate(
        torch.rand(1, 3, 7, 7, generator=generator), size=112, mode="bicubic"
    )
    return (
        (0.7 * coarse + 0.3 * torch.rand(1, 3, 112, 112, generator=generator)).clamp(0, 1).repeat(4, 1, 1, 1)
    )


def detail(images):
    """Energy of neighbouring pixels' differences, per image."""
    return images.diff(dim=-1).pow(2).mean((1, 2, 3)) + images.diff(dim=-2).pow(2).mean((1, 2, 3))


@pytest.mark.parametrize("name", EFFECTS)
def test_every_effect_keeps_shape_and_range_and_draws_per_image(images, name):
    effect = getattr(degradation, name)
    result = effect(images, draw(1))
    assert result.shape == images.shape
    assert 0 <= result.min() <= result.max() <= 1
    assert torch.equal(result, effect(images, draw(1)))
    assert not torch.equal(result[0], result[1])
    assert (result - images).abs().mean() > 0.003


@pytest.mark.parametrize("name", ["resolution", "blur", "motion"])
def test_detail_is_lost(images, name):
    assert (detail(getattr(degradation, name)(images, draw(2))) < 0.8 * detail(images)).all()


@pytest.mark.parametrize("name", ["blur", "motion", "jpeg"])
def test_a_flat_image_stays_flat(name):
    flat = torch.full((4, 3, 112, 112), 0.5)
    flat[:, 0], flat[:, 2] = 0.3, 0.8
    assert (getattr(degradation, name)(flat, draw(3)) - flat).abs().max() < 0.08


def test_blur_is_opencvs_gaussian(images, monkeypatch):
    monkeypatch.setattr(degradation, "_uniform", lambda images, *_: torch.full((len(images),), 2.0))
    ours = degradation.blur(images[:1], draw())[0].permute(1, 2, 0).numpy()
    theirs = cv2.GaussianBlur(
        images[0].permute(1, 2, 0).numpy(), (0, 0), 2.0, borderType=cv2.BORDER_REFLECT_101
    )
    assert np.abs(ours - theirs).max() < 0.01


def test_jpeg_is_opencvs(images, monkeypatch):
    monkeypatch.setattr(degradation, "_uniform", lambda images, *_: torch.full((len(images),), 20.0))
    ours = degradation.jpeg(images[:1], draw())[0].permute(1, 2, 0).numpy()
    pixels = (images[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    _, coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 20])
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None
    theirs = decoded[..., ::-1].astype(float) / 255
    damage = np.abs(theirs - pixels / 255).mean()
    assert np.abs(ours - theirs).mean() < 0.25 * damage


def test_the_clean_share_is_left_alone_and_the_rest_spoilt():
    images = torch.rand(400, 3, 16, 16, generator=draw())
    untouched = (degradation.degrade(images, draw(), clean=0.3, chance=1.0) == images).all((1, 2, 3))
    assert 0.2 < untouched.float().mean() < 0.4
    assert torch.equal(degradation.degrade(images, draw(), clean=1.0), images)


def test_the_given_images_are_not_changed(images):
    before = images.clone()
    for name in EFFECTS:
        getattr(degradation, name)(images, draw())
    degradation.degrade(images, draw(), clean=0.0)
    assert torch.equal(images, before)


def test_shares_beyond_one_are_refused(images):
    with pytest.raises(ValueError, match="between 0 and 1"):
        degradation.degrade(images, draw(), clean=40)
