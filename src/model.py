"""Networks that turn face crops into embeddings, and their checkpoints."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn

IMAGENET = torchvision.models.ResNet50_Weights.IMAGENET1K_V2


class FaceNetwork(nn.Module):
    """Backbone and embedding head, working on crops made `input_size` pixels square.

    `forward` takes float [B, 3, H, W], RGB in [-1, 1], and returns [B, D] embeddings, not normalised.
    `origin` says what the network is and where its weights came from; with it, `load` can rebuild the
    network.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, input_size: int, origin: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.input_size = input_size
        self.origin = origin

    def forward(self, images: Tensor) -> Tensor:
        size = (self.input_size, self.input_size)
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        return self.head(self.backbone(images))


class ImageNetInput(nn.Module):
    """From [-1, 1] to the mean and spread that torchvision's ImageNet weights were trained on."""

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("scale", (0.5 / std).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", ((0.5 - mean) / std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift


def resnet50(weights: str, embedding_size: int = 256, input_size: int = 112, seed: int = 0) -> FaceNetwork:
    """torchvision's ResNet-50 (He et al. 2016) with an embedding head instead of its classifier.

    weights: "imagenet" (torchvision's IMAGENET1K_V2, downloaded on first use), "none" (random, from `seed`),
    or a .pth or .safetensors file with a ResNet-50's weights (torchvision's names, or a checkpoint of ours).
    input_size: side in pixels at which the network looks at the crops; half the side is a quarter of the
    work. Raises FileNotFoundError where the weights can't be had, ValueError where they don't fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Residual branches that start at zero let a random network of this depth learn within few steps.
        backbone = torchvision.models.resnet50(weights=None, zero_init_residual=True)
        backbone.fc = nn.Identity()
        head = nn.Sequential(nn.Linear(2048, embedding_size, bias=False), nn.BatchNorm1d(embedding_size))
    origin = {
        "architecture": "resnet50",
        "weights": weights if weights in ("imagenet", "none") else Path(weights).name,
        "embedding_size": embedding_size,
        "input_size": input_size,
    }
    if weights == "imagenet":
        _fit(backbone, _imagenet(), "torchvision's ImageNet weights")
    elif weights != "none":
        prefix = "backbone.1."  # in our own checkpoints
        found = {name.removeprefix(prefix): value for name, value in _read(Path(weights)).items()}
        _fit(backbone, found, weights)
    return FaceNetwork(nn.Sequential(ImageNetInput(), backbone), head, input_size, origin)


def pretrained(network: FaceNetwork) -> bool:
    """Whether the backbone started from learnt weights, which a high learning rate would destroy."""
    return network.origin["weights"] != "none"


def device() -> torch.device:
    """Where networks run: CUDA or Apple's GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def save_weights(network: FaceNetwork, folder: Path) -> None:
    """Writes the weights of a checkpoint: model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", network.state_dict())


def save_record(network: FaceNetwork, folder: Path, record: Mapping[str, Any]) -> None:
    """Writes what a checkpoint says about itself: model.json, with the network's origin and `record`."""
    partial = folder / "model.json.partial"
    partial.write_text(json.dumps({"network": network.origin, **record}, indent=1), encoding="utf-8")
    partial.replace(folder / "model.json")


def load(folder: Path) -> FaceNetwork:
    """The network of a checkpoint folder, on the CPU, set to evaluate. Reads numbers, executes nothing.

    Raises FileNotFoundError where the folder holds no checkpoint, ValueError where its files don't fit
    together.
    """
    origin = read_record(folder)["network"]
    if origin["architecture"] != "resnet50":
        raise ValueError(
            f"{folder / 'model.json'} asks for the unknown architecture {origin['architecture']!r}"
        )
    network = resnet50("none", origin["embedding_size"], origin["input_size"])
    network.origin = origin
    _fit(network, _read(folder / "model.safetensors"), str(folder / "model.safetensors"))
    return network.eval()


def read_record(folder: Path) -> dict[str, Any]:
    """What a checkpoint says about itself: origin, settings, what it was trained on, history."""
    file = folder / "model.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no checkpoint: model.json is missing; fine-tune first")
    return json.loads(file.read_text(encoding="utf-8"))


def history(folder: Path) -> pd.DataFrame:
    """Learning curves of a checkpoint, one row per epoch: epoch, loss, accuracy, val_auc, ..."""
    return pd.DataFrame(read_record(folder)["history"])


def write_tensors(file: Path, tensors: Mapping[str, Tensor], note: str = "") -> None:
    """Writes a .safetensors file, with a note in its header, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    partial = file.with_suffix(".partial")
    safetensors.torch.save_file(plain, partial, metadata={"note": note})
    partial.replace(file)


def _imagenet() -> dict[str, Tensor]:
    url = IMAGENET.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    digest = file.stem.rsplit("-", 1)[1]
    remedy = f"put {file.name} from {url} into {file.parent}, or give weights a file of your own"
    if not file.is_file():
        try:
            IMAGENET.get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:  # no network; wrong checksum
            reason = f"ImageNet weights can't be downloaded ({error})"
            raise FileNotFoundError(f"{reason}: {remedy}") from error
    if (
        not hashlib.sha256(file.read_bytes()).hexdigest().startswith(digest)
    ):  # torch checks only its own downloads
        raise ValueError(
            f"{file} is damaged (its SHA-256 does not begin with {digest}): delete it, then {remedy}"
        )
    return _read(file)


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(
            f'weights file {file} does not exist; weights is "imagenet", "none" or a file'
        )
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        pickle.UnpicklingError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file} can't be read as weights (.pth or .safetensors): {reason}") from error


def _fit(module: nn.Module, found: Mapping[str, Tensor], source: str) -> None:
    """Loads `found` into `module` if every weight is there in its shape; a classifier's are left out."""
    wanted = module.state_dict()
    counters = {
        name for name in wanted if name.endswith("num_batches_tracked")
    }  # absent from old files, unused
    missing = [name for name in wanted if name not in found and name not in counters]
    if missing:
        raise ValueError(
            f"{source} does not hold this network: {len(missing)} of {len(wanted)} weights are missing, "
            f"the first of them {missing[0]}"
        )
    for name in wanted.keys() & found.keys():
        if wanted[name].shape != found[name].shape:
            shapes = f"{tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
            raise ValueError(f"{source} does not fit this network: {name} has shape {shapes}")
    module.load_state_dict({name: found.get(name, wanted[name]) for name in wanted})
