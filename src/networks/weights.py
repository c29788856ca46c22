"""Weights: where networks start from, and files of numbers that execute nothing."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn

from src import artifacts

IMAGENET = torchvision.models.ResNet50_Weights.IMAGENET1K_V2


def imagenet() -> dict[str, Tensor]:
    """torchvision's ResNet-50 weights IMAGENET1K_V2, downloaded on first use and checked each time.

    Raises FileNotFoundError where they can't be had, ValueError where the file is damaged: both say which
    file to put where.
    """
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
    # torch checks only its own downloads
    if not artifacts.sha256(file).startswith(digest):
        raise ValueError(
            f"{file} is damaged (its SHA-256 does not begin with {digest}): delete it, then {remedy}"
        )
    return read(file)


def read(file: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors or .pth file, on the CPU.

    Raises FileNotFoundError without the file, ValueError where it can't be read or would execute code.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f'weights file {file} does not exist; weights is "imagenet", "pack", "none" or a file'
        )
    try:
        if file.suffix == ".safetensors":
            # copied, as these tensors keep the file mapped, and Windows can't replace it then
            return {name: value.clone() for name, value in safetensors.torch.load_file(file).items()}
        return torch.load(file, map_location="cpu", weights_only=True)
    except (
        SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError,
    ) as error:  # fmt: skip
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file} can't be read as weights (.pth or .safetensors): {reason}") from error


def write(file: Path, tensors: Mapping[str, Tensor], note: str = "") -> None:
    """Writes a .safetensors file, with a note in its header, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with artifacts.whole(file) as partial:
        safetensors.torch.save_file(plain, partial, metadata={"note": note})


def fit(module: nn.Module, found: Mapping[str, Tensor], source: str) -> None:
    """Loads `found` into `module` if every weight is there in its shape; what else is in it is left out.

    Raises ValueError, naming `source` and the first weight that is missing or of another shape.
    """
    wanted = module.state_dict()
    # counters of batches are absent from old files, and unused
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
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
