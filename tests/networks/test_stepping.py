"""A step of training gives what it would on a device with more memory, and says what it had to do."""

import pytest
import torch
from torch import nn

from src import devices
from src.networks import stepping
from tests import fake_gpu
from tests.networks.small import small_network

IMAGES = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3
CPU = torch.device("cpu")


class Task:
    """A small network, its loss, and a device with room for so many photos."""

    def __init__(self, room=1000):
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1)
        self.room, self.seen, self.stepper = room, [], stepping.Stepper(CPU, torch.float32)
        self.spoil = lambda loss, found: loss

    def loss(self, images, labels, targets):
        self.seen.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        with self.stepper.autocast():
            found = self.network(images)
        loss = nn.functional.cross_entropy(found.float(), labels)
        if targets is not None:
            loss = loss + (found.float() - targets).square().mean()
        return self.spoil(loss, found), found

    def step(self, targets=None, clip=1e9):
        def loss_of(part):
            return self.loss(IMAGES[part], LABELS[part], None if targets is None else targets[part])

        loss, embeddings = self.stepper.gradients(loss_of, self.optimizer, len(IMAGES))
        self.stepper.update(self.optimizer, self.network.parameters(), clip)
        return loss, embeddings

    def weights(self):
        return torch.cat([parameter.detach().flatten() for parameter in self.network.parameters()])


@pytest.mark.parametrize("targets", [None, torch.randn(12, 3, generator=torch.Generator().manual_seed(1))])
def test_where_memory_is_short_the_batch_is_halved_and_the_step_is_the_same(capsys, targets):
    ample, short = Task(), Task(room=4)
    for _ in range(2):
        expected, given = ample.step(targets), short.step(targets)
        assert given[0] == pytest.approx(expected[0], rel=1e-5)
        torch.testing.assert_close(given[1], expected[1])
        torch.testing.assert_close(short.weights(), ample.weights())
    assert short.seen == [12, 6, 3, 3, 3, 3, 3, 3, 3, 3], "what was learnt of the memory is kept"
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "3 photos at a time, their gradients added up to those of 12" in said[-1]


def test_no_part_is_of_a_single_photo_and_then_it_ends_with_a_sentence():
    task = Task(room=1)
    with pytest.raises(RuntimeError, match=r"no memory left for 2 photos at a time.*FACE_DEVICE"):
        task.step()
    assert min(task.seen) >= 2


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    task = Task()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        task.stepper.gradients(lambda part: task.loss(IMAGES[..., :5], LABELS, None), task.optimizer, 12)
    assert task.stepper.parts == 1


def test_float16_scales_its_gradients_and_a_step_that_overflows_is_left_out():
    plain, scaled = Task(), Task()
    scaled.stepper.scaler = torch.amp.GradScaler("cpu", enabled=True)  # as the Stepper makes it for float16
    plain.step(clip=0.01)
    scaled.step(clip=0.01)
    torch.testing.assert_close(scaled.weights(), plain.weights())  # clipped after unscaling
    before = scaled.weights()
    next(scaled.network.parameters()).register_hook(lambda gradient: gradient * torch.inf)
    scale = scaled.stepper.scaler.get_scale()
    scaled.step()
    assert torch.equal(scaled.weights(), before) and scaled.stepper.scaler.get_scale() < scale


def test_only_float16_is_scaled():
    for precision in (torch.float32, torch.bfloat16, torch.float16):
        stepper = stepping.Stepper(CPU, precision)
        assert stepper.scaler.is_enabled() == (precision == torch.float16)
        with stepper.autocast():
            assert (nn.Linear(2, 2)(torch.ones(1, 2)).dtype) == precision


def test_a_loss_that_breaks_in_float16_is_tried_again_in_float32(capsys):
    task = Task()
    task.stepper = stepping.Stepper(CPU, torch.float16)
    task.spoil = lambda loss, found: loss * (torch.inf if found.dtype == torch.float16 else 1)
    plain = Task()
    assert task.step()[0] == pytest.approx(plain.step()[0])
    torch.testing.assert_close(task.weights(), plain.weights())
    assert task.stepper.precision == torch.float32 and not task.stepper.scaler.is_enabled()
    assert "not finite in float16" in capsys.readouterr().out


def test_a_loss_that_breaks_in_float32_is_handed_back():
    task = Task()
    task.spoil = lambda loss, found: loss * torch.nan
    before = task.weights()
    loss, _ = task.stepper.gradients(lambda part: task.loss(IMAGES, LABELS, None), task.optimizer, 12)
    assert loss != loss and torch.equal(task.weights(), before)


def test_the_precision_is_that_of_the_device_but_for_depthwise_networks_on_processors(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    depthwise = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    assert stepping.precision(CPU, small_network()) == torch.bfloat16
    assert stepping.precision(CPU, depthwise) == torch.float32
    fake_gpu.pretend(monkeypatch, fake_gpu.T4)
    assert stepping.precision(devices.device(), depthwise) == torch.float16
