from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from src.demo import mode
from src.networks import embedding, finetuning, hints, loading, network, weights
from src.networks.network import FaceNetwork
from tests.networks.small import ORIGIN, four_people, interrupted, small_network


class Blurred(nn.Module):
    """A teacher that sees what is there: means of 8 x 8 pixels and of 16 x 16, all of it the embedding."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.AvgPool2d(8), nn.AvgPool2d(2), nn.Flatten())
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.layers(images)


def teacher():
    return FaceNetwork(Blurred(), nn.Identity(), replace(ORIGIN, input_size=112)).eval()


@pytest.fixture(scope="module")
def smooth():
    """Crops uint8 [20, 112, 112, 3] without detail, no two alike and none its own mirror image."""
    rough = torch.rand(20, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    large = nn.functional.interpolate(rough, size=112, mode="bicubic").clamp(0, 1)
    return (large * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def given(*arguments):
    result = hints.give(*arguments)
    assert result is not None
    return result


def test_the_last_maps_before_the_embedding_are_watched(smooth):
    seen = hints.watched(teacher(), smooth)
    assert [tuple(maps.shape) for maps in seen] == [(20, 3, 8, 8), (20, 3, 4, 4), (20, 3, 2, 2)]
    pixels = embedding.to_images(torch.from_numpy(smooth))
    torch.testing.assert_close(seen[2].mean((2, 3)), pixels.mean((2, 3)), atol=0.1, rtol=0)


def test_a_packs_recogniser_gives_hints(smooth):
    told = given(network.from_pack(mode.PACK / "rec_demo.onnx"), smooth, np.arange(20))
    assert [tuple(maps.shape) for maps in told.maps] == [
        (2, 20, 64, 8, 8), (2, 20, 64, 4, 4), (2, 20, 64, 2, 2),
    ]  # fmt: skip
    for maps in told.maps:
        assert maps[0].float().square().mean() == pytest.approx(1, abs=0.1)
        assert maps[0].float().mean() == pytest.approx(0, abs=0.1)


def test_who_has_no_maps_gives_no_hints(smooth):
    layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1), nn.Flatten())
    flat = FaceNetwork(layers, nn.Identity(), replace(ORIGIN, input_size=112)).eval()
    assert hints.give(flat, smooth, np.arange(20)) is None
    assert hints.stages(small_network()) == [], "and only a ResNet takes any"


def student():
    return network.resnet50("none", embedding_size=8, input_size=64)


def test_hints_move_as_the_photos_do(smooth, monkeypatch):
    """What is told of a photo that is mirrored, turned, zoomed and shifted is what the teacher would see."""
    monkeypatch.setattr(hints, "_basis", lambda maps: (torch.zeros(3, 1, 1), torch.eye(3)))
    rows = np.arange(4, 20)
    follower = hints.Follower(student(), given(teacher(), smooth, rows))
    settings = finetuning.Settings(jitter=0.05, clean=1.0)
    generator = torch.Generator().manual_seed(1)
    moved = loading.views(len(rows), settings, generator)
    assert {float(sign) for sign in torch.linalg.det(moved[:, :, :2]).sign()} == {-1.0, 1.0}
    images = loading.augment(torch.from_numpy(smooth[rows]), settings, generator, moved)
    views = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    told = follower.told(np.arange(len(rows)), moved)
    still = hints.watched(teacher(), smooth[rows])
    for now, before, expected in zip(told, still, hints.watched(teacher(), views), strict=True):
        assert (now - expected).square().mean() < 0.2 * (before - expected).square().mean()


def test_only_photos_with_hints_count(smooth, monkeypatch):
    monkeypatch.setattr(hints, "MOST", 5)
    few = given(teacher(), smooth, np.arange(20))
    assert len(few.row) == len(set(few.row)) == 5
    start = student()
    follower = hints.Follower(start, few)
    with torch.no_grad():
        start(torch.zeros(3, 3, 64, 64))
        for parameter in follower.adaptors.parameters():
            parameter.zero_()
        still = torch.eye(2, 3).expand(3, 2, 3)
        others = np.setdiff1d(np.arange(20), few.row)[:3]
        assert follower(others, still) == 0
        one = follower(np.array([few.row[0], *others[:2]]), still)
        alone = [maps[0, 0].float().square().mean() for maps in few.maps]
    assert one == pytest.approx(float(sum(alone) / 3), rel=1e-2)


QUICK = finetuning.Settings(
    epochs=6, batch_size=8, per_identity=2, warmup=0.0, clean=1.0, averaging=0.9, distillation=0.0
)


@pytest.fixture
def train(tmp_path):
    """Trains a student with a guide; returns the checkpoint's folder."""
    crops, faces = four_people()
    crops = crops.repeat(4, 1).repeat(4, 2)[:, :112, :112]

    def trained(settings, folder):
        workspace = tmp_path / folder
        return finetuning.train(student(), crops, faces, settings, guide=teacher(), workspace=workspace)

    return trained


def test_a_student_comes_to_see_what_its_teacher_sees(train, monkeypatch):
    forward, differences = hints.Follower.forward, []

    def noted(self, *given):
        differences.append(forward(self, *given))
        return differences[-1]

    monkeypatch.setattr(hints.Follower, "forward", noted)
    train(QUICK, "with")
    found = [float(one.detach()) for one in differences]
    assert len(found) == 18
    assert np.mean(found[-3:]) < 0.7 * np.mean(found[:3])
    train(replace(QUICK, hints=0.0, epochs=1), "without")
    assert len(differences) == 18


def test_an_interrupted_training_with_hints_comes_to_the_same_result(train, monkeypatch):
    monkeypatch.setattr(finetuning, "PAUSE", 0.0)
    settings = replace(QUICK, epochs=2)
    at_once = train(settings, "at once")
    with interrupted(monkeypatch):
        train(settings, "in parts")
    in_parts = train(settings, "in parts")
    first, second = (weights.read(folder / network.WEIGHTS_FILE) for folder in (at_once, in_parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
