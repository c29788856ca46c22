import pytest
import torch
import torchvision

from src.networks import network


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Malice:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"conv1.weight": Malice()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth can't be read as weights"):
        network.resnet50(str(tmp_path / "weights.pth"))
    assert not (tmp_path / "executed").exists()


def test_unfit_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="imagent does not exist"):
        network.resnet50("imagent")
    found = torchvision.models.resnet50(weights=None).state_dict()
    torch.save({**found, "layer1.0.conv1.weight": torch.zeros(3, 3)}, tmp_path / "shape.pth")
    with pytest.raises(
        ValueError, match=r"layer1\.0\.conv1\.weight has shape \(3, 3\), not \(64, 64, 1, 1\)"
    ):
        network.resnet50(str(tmp_path / "shape.pth"))
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match="weights are missing"):
        network.resnet50(str(tmp_path / "resnet18.pth"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(ValueError, match=r"cut\.safetensors can't be read"):
        network.resnet50(str(tmp_path / "cut.safetensors"))


def test_without_network_imagenet_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(FileNotFoundError, match="no route to host") as caught:
        network.resnet50("imagenet")
    assert "https://download.pytorch.org/models/resnet50-11ad3fa6.pth" in str(caught.value)
    assert str(tmp_path / "checkpoints") in str(caught.value)


def test_a_damaged_imagenet_file_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet50-11ad3fa6.pth").write_bytes(b"half of it")
    with pytest.raises(ValueError, match=r"resnet50-11ad3fa6\.pth is damaged"):
        network.resnet50("imagenet")
