import json

import pytest
import safetensors.torch
import torch
import torchvision

from src import model


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
