import numpy as np
import pytest
import torch
from torch import nn

from src import devices
from src.networks import embedding
from tests import fake_gpu


class Recogniser:
    """Stands where a pack does: counts its calls."""

    def __init__(self):
        self.calls = 0

    def recognise(self, crops):
        self.calls += 1
        return crops.reshape(len(crops), -1)[:, :5].astype(np.float32)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, images.amin().item(), images.amax().item()))
        return self.linear(images.mean((2, 3)))


class Sided(Network):
    """Sees the left half only."""

    def forward(self, images):
        return super().forward(images[..., : images.shape[-1] // 2])


@pytest.fixture
def crops():
    crops = np.random.default_rng(0).integers(1, 256, (7, 8, 8, 3), dtype=np.uint8)
    crops[0, 0, 0], crops[0, 7, 7] = 0, 255
    return crops


def test_rows_are_unit_and_do_not_depend_on_the_batch(crops):
    network = Network().train()
    embeddings = embedding.embed(crops, network, batch_size=3)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(embedding.embed(crops, network, batch_size=7), embeddings, atol=1e-6)
    assert network.training, "the network is left in the mode it was in"
    assert all(not training for training, *_ in network.seen)
    assert network.seen[0][1:] == (-1, 1)


def test_colour_order_is_kept():
    red = np.zeros((1, 4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert embedding.to_images(torch.from_numpy(red))[0, :, 0, 0].tolist() == [1, -1, -1]


def test_a_pack_and_a_workspace(crops, tmp_path):
    pack = Recogniser()
    first = embedding.embed(crops, pack, batch_size=2, workspace=tmp_path)
    calls = pack.calls
    assert np.array_equal(embedding.embed(crops, pack, batch_size=2, workspace=tmp_path), first)
    assert pack.calls == calls == 4


@pytest.mark.parametrize("make", [Recogniser, Sided])
def test_mirrored_rows_are_the_mean_of_both_views(crops, make, tmp_path):
    model, mirror = make(), np.ascontiguousarray(crops[:, :, ::-1])
    one, other = (embedding.embed(views, model) for views in (crops, mirror))
    assert not np.allclose(one, other)
    both = embedding.embed(crops, model, 4, mirrored=True, workspace=tmp_path)
    np.testing.assert_allclose(both, (one + other) / np.linalg.norm(one + other, axis=1)[:, None], atol=1e-6)
    np.testing.assert_allclose(embedding.embed(mirror, model, mirrored=True), both, atol=1e-6)
    other_model = make()  # of other weights, if it has any
    kept = embedding.embed(crops, other_model, 4, mirrored=True, workspace=tmp_path)
    assert np.array_equal(kept, both)


def test_a_row_that_is_not_finite_is_named(crops):
    class Broken:
        def recognise(self, crops):
            values = np.ones((len(crops), 2), np.float32)
            values[crops[:, 1, 1, 1] == 77] = np.nan
            return values

    crops[:, 1, 1, 1] = 1
    crops[5, 1, 1, 1] = 77
    with pytest.raises(ValueError, match="1 crops, the first of them row 5"):
        embedding.embed(crops, Broken())


def test_what_is_no_crop_is_refused(crops):
    with pytest.raises(ValueError, match="uint8"):
        embedding.embed(crops.astype(np.float32), Network())
    with pytest.raises(ValueError, match="empty"):
        embedding.embed(crops[:0], Network())


# ---------------------------------------------------------------- on a device


class Tensed(Network):
    """Gives something else in half precision, and has memory for so many crops only."""

    def __init__(self, error=0.0, room=1000):
        super().__init__()
        self.error, self.room = error, room
        self.calls = []  # crops and precision of each

    def forward(self, images):
        half = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else torch.float32
        self.calls.append((len(images), half))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        values = super().forward(images)
        return values if half == torch.float32 else values + self.error * values.roll(1, 1)


@pytest.mark.parametrize("forced", ["", "cpu"])
def test_a_network_goes_where_networks_work_and_comes_back(crops, monkeypatch, forced):
    moves = fake_gpu.pretend(monkeypatch)
    monkeypatch.setenv(devices.FORCED, forced)
    network = Network()
    embedding.embed(crops, network)
    assert moves == ["cpu" if forced else "cuda", "cpu"]

    class Broken(Network):
        def forward(self, images):
            raise RuntimeError("sizes must match")

    broken = Broken().train()
    with pytest.raises(RuntimeError, match="sizes must match"):
        embedding.embed(crops, broken)
    assert moves[-1] == "cpu" and broken.training


@pytest.mark.parametrize(
    ("capability", "error", "used"),
    [
        (fake_gpu.A100, 1e-4, torch.float16),
        (fake_gpu.T4, 1e-4, torch.float16),
        (fake_gpu.A100, 0.1, torch.float32),  # half precision gives something else
        (fake_gpu.A100, torch.nan, torch.float32),
        (fake_gpu.GTX1080, 0.0, torch.float32),
    ],
)
def test_half_precision_is_used_where_it_is_fast_and_agrees(crops, monkeypatch, capability, error, used):
    fake_gpu.pretend(monkeypatch, capability)
    network = Tensed(error)
    found = embedding.embed(crops, network, batch_size=4)
    assert {precision for _, precision in network.calls[-2:]} == {used}
    monkeypatch.setenv(devices.FORCED, "cpu")
    assert (embedding.embed(crops, network) * found).sum(1).min() >= 0.9999


def test_processors_embed_in_single_precision_whatever_they_have(crops, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setenv(devices.FORCED, "cpu")
    network, kinds = nn.Sequential(nn.Conv2d(3, 12, 3), nn.Flatten()), []
    network[0].register_forward_hook(lambda part, given, result: kinds.append(result.dtype))
    embedding.embed(crops, network)
    assert set(kinds) == {torch.float32}


@pytest.mark.parametrize("mirrored", [False, True])
def test_what_does_not_fit_is_embedded_in_smaller_parts(crops, monkeypatch, mirrored):
    fake_gpu.pretend(monkeypatch)
    network = Tensed()
    whole = embedding.embed(crops, network, mirrored=mirrored)
    network.room = 2
    monkeypatch.setattr(embedding, "CHECKED", 2)
    network.calls.clear()
    np.testing.assert_allclose(embedding.embed(crops, network, mirrored=mirrored), whole, atol=1e-6)
    assert [count for count, _ in network.calls if count > 2] == [7, 4], "tried once, not with every batch"
    network.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        embedding.embed(crops, network)


def test_the_first_crops_that_tell_the_precision_may_not_fit_either(crops, monkeypatch):
    fake_gpu.pretend(monkeypatch)
    assert embedding.embed(crops, Tensed(room=2)).shape == (7, 4)
