import json
from dataclasses import asdict, replace

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

from src.demo import drawing, mode, people
from src.networks import embedding, finetuning, interpolation, network
from src.packs import export, graphs
from src.packs.alignment import align
from tests.networks.small import small_network


@pytest.fixture(scope="module")
def resnet50():
    return network.resnet50("none", embedding_size=16, input_size=32).eval()


def test_images_of_any_size_become_embeddings(resnet50):
    for side in (32, 112):
        assert resnet50(torch.rand(2, 3, side, side) * 2 - 1).shape == (2, 16)


def test_random_weights_follow_the_seed_and_leave_the_callers_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = network.resnet50("none", 8, seed=1)
    assert torch.equal(torch.rand(1), expected)
    again, other = (network.resnet50("none", 8, seed=seed) for seed in (1, 2))
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
        start = network.resnet50(str(tmp_path / name), 8).eval()
        assert start.origin.learnt
        last = start.backbone(images * 2 - 1)[:, : 2048 * 4].unflatten(1, (2048, 4)).mean(2)
        torch.testing.assert_close(last, classifier(standard), rtol=1e-3, atol=1e-4)


def test_a_checkpoint_comes_back_the_same_and_can_be_started_from(resnet50, tmp_path):
    network.save(resnet50, tmp_path, {"history": [{"epoch": 1, "loss": 2.0}]})
    loaded = network.load(tmp_path)
    images = torch.rand(2, 3, 32, 32)
    assert not loaded.training
    assert torch.equal(loaded(images), resnet50(images))
    assert loaded.history["loss"].tolist() == [2.0]
    assert loaded.origin == resnet50.origin
    started = network.resnet50(str(tmp_path / network.WEIGHTS_FILE), 16, 32).eval()
    layers = started.backbone.state_dict()
    assert all(torch.equal(layers[name], value) for name, value in resnet50.backbone.state_dict().items())
    network.save(started, tmp_path / "by place")
    assert torch.equal(network.load(tmp_path / "by place")(images), started(images))
    again = network.resnet50(str(tmp_path / "by place" / network.WEIGHTS_FILE), 16, 32, seed=1).eval()
    assert torch.equal(again.backbone(images), started.backbone(images))
    # a network's text, by which artefacts tell networks apart, says what it is
    assert str(started) != str(resnet50)


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"network\.json is missing"):
        network.load(tmp_path)
    origin = asdict(network.resnet50("none", 8).origin) | {"architecture": "os.system"}
    (tmp_path / network.RECORD_FILE).write_text(json.dumps({"origin": origin}))
    with pytest.raises(ValueError, match=r"unknown architecture 'os\.system'"):
        network.load(tmp_path)


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
    rebuilt = network.from_pack(file)
    images = torch.rand(3, 3, 112, 112) * 2 - 1
    session = onnxruntime.InferenceSession(file)
    single = np.concatenate([session.run(None, {"input": images[i : i + 1].numpy()})[0] for i in range(3)])
    np.testing.assert_allclose(rebuilt(images).detach().numpy(), single, rtol=1e-3, atol=1e-4)
    assert rebuilt.origin.embedding_size == 8
    assert rebuilt.origin.learnt


def test_a_recogniser_that_is_rebuilt_wrongly_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "free_batch", lambda graph: graph)
    with pytest.raises(ValueError, match=r"recogniser\.onnx was not rebuilt faithfully: in a batch"):
        network.from_pack(write_recogniser(tmp_path / "recogniser.onnx", [1, -1]))


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
    plain = network.from_pack(write_recogniser(tmp_path / "plain.onnx", [1, 8]))
    raw = network.from_pack(write_recogniser(tmp_path / "raw.onnx", [1, 8], nodes))
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    torch.testing.assert_close(raw(images), plain(images * 127.5 / 128), rtol=1e-3, atol=1e-4)


def test_what_is_no_recogniser_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recogniser at"):
        network.from_pack(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(ValueError, match=r"broken\.onnx can't be rebuilt"):
        network.from_pack(tmp_path / "broken.onnx")
    with pytest.raises(ValueError, match=r"maps\.onnx is no recogniser"):
        network.from_pack(write_recogniser(tmp_path / "maps.onnx", [1, 8, 1, 1]))


def test_the_iresnet50_of_buffalo_l_is_tuned_saved_and_loaded(iresnet50, tmp_path):
    rebuilt = network.from_pack(iresnet50)
    assert rebuilt.origin.embedding_size == 512
    assert network.is_iresnet50(rebuilt)
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    before = rebuilt(images).detach()
    statistics = {name: value.clone() for name, value in rebuilt.named_buffers() if "running" in name}
    rebuilt.train()
    optimizer = torch.optim.SGD(rebuilt.parameters(), 1e-3)
    rebuilt(images).square().mean().backward()
    optimizer.step()
    rebuilt.eval()
    assert not torch.allclose(rebuilt(images), before)
    assert all(
        torch.equal(value, statistics[name]) for name, value in rebuilt.named_buffers() if name in statistics
    )
    network.save(rebuilt, tmp_path, {})
    torch.testing.assert_close(network.load(tmp_path)(images), rebuilt(images))
    weights_size, graph_size = (
        (tmp_path / name).stat().st_size for name in (network.WEIGHTS_FILE, network.GRAPH_FILE)
    )
    assert graph_size < weights_size / 10, "the graph is kept without its weights"


def test_the_iresnet50_of_buffalo_l_goes_the_whole_way(iresnet50, tmp_path):
    """Rebuilt, tuned, interpolated, exported, and loaded by InsightFace as a pack."""
    start = network.from_pack(iresnet50)
    heads = [
        drawing.draw(people.person(seed), people.view(np.random.default_rng(seed)), 160) for seed in range(12)
    ]
    crops = np.stack([align(*head) for head in heads])
    faces = pd.DataFrame(
        {"identity": list("aaabbbcccddd"), "split": ["train", "train", "val"] * 4, "quality": "high"}
    )
    faces.loc[[5, 8], "identity"] = "a"  # two photos of one person to validate on
    settings = replace(finetuning.PACK, epochs=1, batch_size=8, per_identity=2, warmup=0.0)
    tuned = network.load(finetuning.train(start, crops, faces, settings, workspace=tmp_path / "tuned"))
    blend = network.load(
        interpolation.interpolate(start, tuned, crops, faces, workspace=tmp_path / "interpolated")
    )
    assert 0 <= blend.record["interpolation"]["share"] <= 1
    assert blend.record["trained_on"]["people"] == list("abcd")
    assert not np.allclose(embedding.embed(crops, tuned), embedding.embed(crops, start), atol=1e-4)
    app = FaceAnalysis(
        name=str(export.pack(tuned, mode.PACK, tmp_path / "pack")), providers=["CPUExecutionProvider"]
    )
    found = app.models["recognition"].get_feat([cv2.cvtColor(crop, cv2.COLOR_RGB2BGR) for crop in crops])
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    assert (found * embedding.embed(crops, tuned)).sum(1).min() > 0.9999


def test_other_networks_are_no_iresnet50(resnet50):
    assert not network.is_iresnet50(network.from_pack(mode.PACK / "rec_demo.onnx"))
    assert not network.is_iresnet50(resnet50)


@pytest.mark.parametrize("side", [32, 112])
def test_half_precision_is_nobody_elses_business(side):
    """Single precision goes in and comes out, and the network itself stays as it was."""
    given = small_network().eval()
    images = torch.rand(3, 3, side, side) * 2 - 1
    expected = given(images)
    halved = network.Half(given).eval()
    found = halved(images)
    assert found.dtype == torch.float32 and next(given.parameters()).dtype == torch.float32
    assert next(halved.parameters()).dtype == torch.float16
    assert torch.cosine_similarity(found, expected).min() > 0.999
    assert not torch.equal(found, expected)


def test_a_network_turned_from_a_direction_gives_its_embeddings_without_it():
    start = network.resnet50("none", embedding_size=8, input_size=32).eval()
    rng = np.random.default_rng(0)
    norm = start.head.get_submodule("1")
    assert isinstance(norm, torch.nn.BatchNorm1d)
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            norm.state_dict()[name].copy_(torch.from_numpy(rng.uniform(0.5, 2, 8)))
    along = rng.normal(size=8).astype(np.float32)
    along /= np.linalg.norm(along)
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        plain = start(images).numpy()
        for share in (0.0, 0.5, 1.0):
            found = network.turned_from(start, along, share).eval()(images).numpy()
            np.testing.assert_allclose(found, plain - share * (plain @ along)[:, None] * along, atol=1e-4)
        assert np.array_equal(start(images).numpy(), plain), "the given network is left as it was"
    with pytest.raises(ValueError, match="no batch norm to project"):
        network.turned_from(small_network(), along, 1.0)
