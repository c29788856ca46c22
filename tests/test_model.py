import json
import warnings
from dataclasses import replace

import cv2
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import safetensors.torch
import torch
import torchvision
from insightface.app import FaceAnalysis
from onnx import helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from src import demo, embedding, export, finetuning, model
from src.faces import align


@pytest.fixture(scope="module")
def network():
    return model.resnet50("none", embedding_size=16, input_size=32).eval()


def test_images_of_any_size_become_embeddings(network):
    for side in (32, 112):
        assert network(torch.rand(2, 3, side, side) * 2 - 1).shape == (2, 16)


def test_random_weights_follow_the_seed_and_leave_the_callers_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = model.resnet50("none", 8, seed=1)
    assert torch.equal(torch.rand(1), expected)
    again, other = model.resnet50("none", 8, seed=1), model.resnet50("none", 8, seed=2)
    assert torch.equal(first.head.state_dict()["0.weight"], again.head.state_dict()["0.weight"])
    assert not torch.equal(first.head.state_dict()["0.weight"], other.head.state_dict()["0.weight"])


def test_torchvision_weights_give_torchvisions_features(tmp_path):
    classifier = torchvision.models.resnet50(weights=None).eval()
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    safetensors.torch.save_file(classifier.state_dict(), tmp_path / "weights.safetensors")
    images = torch.rand(2, 3, 64, 64)
    standard = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(images)
    classifier.fc = torch.nn.Identity()
    for name in ("weights.pth", "weights.safetensors"):
        network = model.resnet50(str(tmp_path / name), 8).eval()
        assert model.pretrained(network)
        torch.testing.assert_close(
            network.backbone(images * 2 - 1), classifier(standard), rtol=1e-3, atol=1e-4
        )


def test_a_checkpoint_comes_back_the_same_and_can_be_started_from(network, tmp_path):
    model.save_weights(network, tmp_path)
    model.save_record(network, tmp_path, {"history": [{"epoch": 1, "loss": 2.0}]})
    loaded = model.load(tmp_path)
    images = torch.rand(2, 3, 32, 32)
    assert not loaded.training
    assert torch.equal(loaded(images), network(images))
    assert model.history(tmp_path)["loss"].tolist() == [2.0]
    started = model.resnet50(str(tmp_path / "model.safetensors"), 16, 32).eval()
    assert torch.equal(started.backbone(images), network.backbone(images))
    assert str(started) != str(network), (
        "a network's text, by which artefacts tell networks apart, says what it is"
    )


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Malice:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"conv1.weight": Malice()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth can't be read as weights"):
        model.resnet50(str(tmp_path / "weights.pth"))
    assert not (tmp_path / "executed").exists()


def test_unfit_weights_are_named(network, tmp_path):
    with pytest.raises(FileNotFoundError, match="imagent does not exist"):
        model.resnet50("imagent")
    weights = torchvision.models.resnet50(weights=None).state_dict()
    torch.save({**weights, "layer1.0.conv1.weight": torch.zeros(3, 3)}, tmp_path / "shape.pth")
    with pytest.raises(
        ValueError, match=r"layer1\.0\.conv1\.weight has shape \(3, 3\), not \(64, 64, 1, 1\)"
    ):
        model.resnet50(str(tmp_path / "shape.pth"))
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match="weights are missing"):
        model.resnet50(str(tmp_path / "resnet18.pth"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(ValueError, match=r"cut\.safetensors can't be read"):
        model.resnet50(str(tmp_path / "cut.safetensors"))


def test_without_network_imagenet_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(FileNotFoundError, match="no route to host") as caught:
        model.resnet50("imagenet")
    assert "https://download.pytorch.org/models/resnet50-11ad3fa6.pth" in str(caught.value)
    assert str(tmp_path / "checkpoints") in str(caught.value)


def test_a_damaged_imagenet_file_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet50-11ad3fa6.pth").write_bytes(b"half of it")
    with pytest.raises(ValueError, match=r"resnet50-11ad3fa6\.pth is damaged"):
        model.resnet50("imagenet")


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.json is missing"):
        model.load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"network": {"architecture": "os.system"}}))
    with pytest.raises(ValueError, match=r"unknown architecture 'os\.system'"):
        model.load(tmp_path)


# ---------------------------------------------------------------- a pack's recogniser


def write_recogniser(file, shape, nodes=()):
    """A convolution, an average, and a Reshape to `shape`, after `nodes` that go from "input" to "ready"."""
    kernel = np.random.default_rng(0).normal(size=(8, 3, 5, 5)).astype(np.float32)
    graph = helper.make_graph(
        [
            *(nodes or [helper.make_node("Identity", ["input"], ["ready"])]),
            helper.make_node("Conv", ["ready", "kernel"], ["maps"], kernel_shape=[5, 5], strides=[4, 4]),
            helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
            helper.make_node("Reshape", ["means", "shape"], ["embedding"]),
        ],
        "recogniser",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.array(shape), "shape")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


@pytest.mark.parametrize("shape", [[1, 8], [1, -1], [-1, 8], [0, 8]])
def test_a_pack_recogniser_takes_batches_even_where_its_reshape_does_not(tmp_path, shape):
    file = write_recogniser(tmp_path / "recogniser.onnx", shape)
    network = model.from_pack(file)
    images = torch.rand(3, 3, 112, 112) * 2 - 1
    session = onnxruntime.InferenceSession(file)
    single = np.concatenate([session.run(None, {"input": images[i : i + 1].numpy()})[0] for i in range(3)])
    np.testing.assert_allclose(network(images).detach().numpy(), single, rtol=1e-3, atol=1e-4)
    assert network.origin["embedding_size"] == 8
    assert model.pretrained(network)


def test_a_recogniser_that_is_rebuilt_wrongly_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "_free_batch", lambda graph: None)
    with pytest.raises(ValueError, match=r"recogniser\.onnx was not rebuilt faithfully: in a batch"):
        model.from_pack(write_recogniser(tmp_path / "recogniser.onnx", [1, -1]))


def test_a_graph_that_scales_pixels_itself_is_given_pixels(tmp_path):
    middle, scale = np.float32(127.5), np.float32(1 / 128)
    constants = [
        numpy_helper.from_array(np.array(value), name) for name, value in (("m", middle), ("s", scale))
    ]
    nodes = [
        *(helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in constants),
        helper.make_node("Sub", ["input", "m"], ["centred"], name="Sub_0"),
        helper.make_node("Mul", ["centred", "s"], ["ready"], name="Mul_0"),
    ]
    plain = model.from_pack(write_recogniser(tmp_path / "plain.onnx", [1, 8]))
    raw = model.from_pack(write_recogniser(tmp_path / "raw.onnx", [1, 8], nodes))
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    torch.testing.assert_close(raw(images), plain(images * 127.5 / 128), rtol=1e-3, atol=1e-4)


def test_what_is_no_recogniser_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recogniser at"):
        model.from_pack(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(ValueError, match=r"broken\.onnx can't be rebuilt"):
        model.from_pack(tmp_path / "broken.onnx")
    with pytest.raises(ValueError, match=r"maps\.onnx is no recogniser"):
        model.from_pack(write_recogniser(tmp_path / "maps.onnx", [1, 8, 1, 1]))


class Block(nn.Module):
    """Of arcface_torch's IResNet: the norms after convolutions folded into them, the first one left."""

    def __init__(self, before, channels, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = folded(nn.Conv2d(before, channels, 3, 1, 1, bias=False))
        self.prelu = nn.PReLU(channels)
        self.conv2 = folded(nn.Conv2d(channels, channels, 3, stride, 1, bias=False))
        plain = stride == 1 and before == channels
        self.downsample = (
            nn.Identity() if plain else folded(nn.Conv2d(before, channels, 1, stride, bias=False))
        )

    def forward(self, images):
        return self.conv2(self.prelu(self.conv1(self.bn1(images)))) + self.downsample(images)


def folded(convolution):
    norm = nn.BatchNorm2d(convolution.out_channels)
    norm.running_mean, norm.running_var = torch.rand(len(norm.weight)), 0.5 + torch.rand(len(norm.weight))
    return fuse_conv_bn_eval(convolution.eval(), norm.eval())


@pytest.fixture(scope="session")
def iresnet50(tmp_path_factory):
    """The architecture of buffalo_l's w600k_r50.onnx with random weights, a quarter as wide to save time."""
    torch.manual_seed(0)
    stages, before = [], 16
    for channels, blocks in ((16, 3), (32, 4), (64, 14), (128, 3)):
        for i in range(blocks):
            stages.append(Block(before, channels, 2 if i == 0 else 1))
            before = channels
    network = nn.Sequential(
        folded(nn.Conv2d(3, 16, 3, 1, 1, bias=False)), nn.PReLU(16), *stages,
        nn.BatchNorm2d(128), nn.Dropout(0.0), nn.Flatten(), nn.Linear(128 * 49, 512), nn.BatchNorm1d(512),
    ).eval()  # fmt: skip
    file = tmp_path_factory.mktemp("pack") / "w600k_r50.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(2, 3, 112, 112),)
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            network,
            example,
            file,
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=18,
            external_data=False,
            verbose=False,
        )
    return file


def test_the_iresnet50_of_buffalo_l_is_tuned_saved_and_loaded(iresnet50, tmp_path):
    network = model.from_pack(iresnet50)
    assert network.origin["embedding_size"] == 512
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    before = network(images).detach()
    statistics = {name: value.clone() for name, value in network.named_buffers() if "running" in name}
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    network(images).square().mean().backward()
    optimizer.step()
    network.eval()
    assert not torch.allclose(network(images), before)
    assert all(
        torch.equal(value, statistics[name]) for name, value in network.named_buffers() if name in statistics
    )
    model.save_weights(network, tmp_path)
    model.save_record(network, tmp_path, {})
    torch.testing.assert_close(model.load(tmp_path)(images), network(images))


def test_the_iresnet50_of_buffalo_l_goes_the_whole_way(iresnet50, tmp_path):
    """Rebuilt, tuned, interpolated, exported, and loaded by InsightFace as a pack."""
    network = model.from_pack(iresnet50)
    heads = [demo.draw(demo.person(seed), demo.view(np.random.default_rng(seed)), 160) for seed in range(12)]
    crops = np.stack([align(*head) for head in heads])
    faces = pd.DataFrame(
        {"identity": list("aaabbbcccddd"), "split": ["train", "train", "val"] * 4, "quality": "high"}
    )
    faces.loc[[5, 8], "identity"] = "a"  # two photos of one person to validate on
    settings = replace(finetuning.ADAPTED, epochs=1, batch_size=8, per_identity=2, warmup=0.0)
    tuned = finetuning.train(network, crops, faces, settings, workspace=tmp_path / "tuned")
    between = finetuning.interpolate(network, model.load(tuned), crops, faces, workspace=tmp_path / "between")
    assert 0 <= model.read_record(between)["interpolation"]["share"] <= 1
    assert model.read_record(between)["trained_on"]["people"] == list("abcd")
    adapted = model.load(tuned)
    assert not np.allclose(embedding.embed(crops, adapted), embedding.embed(crops, network), atol=1e-4)
    app = FaceAnalysis(
        name=str(export.pack(adapted, demo.PACK, tmp_path / "pack")), providers=["CPUExecutionProvider"]
    )
    found = app.models["recognition"].get_feat([cv2.cvtColor(crop, cv2.COLOR_RGB2BGR) for crop in crops])
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    assert (found * embedding.embed(crops, adapted)).sum(1).min() > 0.9999
