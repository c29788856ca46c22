"""Networks that turn face crops into embeddings, and their checkpoints."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn

if TYPE_CHECKING:
    import onnx

PARITY = 0.9999  # least cosine between a pack's embedding and that of the network made from it
IMAGENET = torchvision.models.ResNet50_Weights.IMAGENET1K_V2


class FaceNetwork(nn.Module):
    """Backbone and embedding head, working on crops made `input_size` pixels square.

    `forward` takes float [B, 3, H, W], RGB in [-1, 1], and returns [B, D] embeddings, not normalised.
    `origin` says what the network is and where its weights came from; with it (and, for a pack's recogniser,
    its ONNX `graph`) `load` can rebuild the network. `record` is what the checkpoint it was loaded from says.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        input_size: int,
        origin: dict[str, Any],
        graph: bytes | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.input_size = input_size
        self.origin = origin
        self.graph = graph
        self.record: dict[str, Any] = {}

    def forward(self, images: Tensor) -> Tensor:
        size = (self.input_size, self.input_size)
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        return self.head(self.backbone(images))

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.origin.items())

    def train(self, mode: bool = True) -> "FaceNetwork":
        """Batch norms of a pack's recogniser keep the statistics of the millions of faces it has seen."""
        super().train(mode)
        if self.graph is not None:
            self.backbone.eval()
        return self


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


def resnet50(
    weights: str, embedding_size: int = 256, input_size: int | None = None, seed: int = 0
) -> FaceNetwork:
    """torchvision's ResNet-50 (He et al. 2016) with an embedding head instead of its classifier.

    weights: "imagenet" (torchvision's IMAGENET1K_V2, downloaded on first use), "none" (random, from `seed`),
    or a .pth or .safetensors file with a ResNet-50's weights (torchvision's names, or a checkpoint of ours).
    input_size: side in pixels at which the network looks at the crops; None is 112 where there is a GPU, else
    48, as bad photos hold little more and training takes about a fifth of the work.
    Raises FileNotFoundError where the weights can't be had, ValueError where they don't fit.
    """
    input_size = input_size or (48 if device().type == "cpu" else 112)
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


class RawPixels(nn.Module):
    """From [-1, 1] to [0, 255], for graphs that bring pixels to their own scale."""

    def forward(self, images: Tensor) -> Tensor:
        return images * 127.5 + 127.5


class PReLU(nn.Module):
    """In place of onnx2torch's, which fails in mixed precision: slopes are [C, 1, 1] or [1, C, 1, 1]."""

    def forward(self, values: Tensor, slopes: Tensor) -> Tensor:
        return torch.where(values >= 0, values, values * slopes.to(values.dtype))


def from_pack(recogniser: Path) -> FaceNetwork:
    """A pack's recogniser (ONNX, for crops of 112 x 112) as a network that can be tuned.

    Its batch norms are mostly folded into convolutions, and what is left of them stays as it is. Reshapes to
    a single row, as some exporters write them, are made to take a batch.
    Raises FileNotFoundError without the file, ValueError where it is no recogniser that can be rebuilt, or
    where the network's embeddings differ from the file's: cosine below 0.9999, one by one or in a batch.
    """
    if not recogniser.is_file():
        raise FileNotFoundError(f"there is no recogniser at {recogniser}")
    graph = recogniser.read_bytes()
    network = _from_graph(graph, recogniser.name)
    _require_parity(network, graph, recogniser)
    return network


def _from_graph(graph: bytes, name: str) -> FaceNetwork:
    import onnx  # here and below: training must not need what only packs need
    import onnx2torch
    from onnx2torch.node_converters.activations import OnnxPReLU

    try:
        proto = onnx.load_from_string(graph)
        _free_batch(proto.graph)
        backbone = onnx2torch.convert(proto)
        for part, module in list(backbone.named_modules()):
            if isinstance(module, OnnxPReLU):
                backbone.set_submodule(part, PReLU())
    except Exception as error:  # protobuf and onnx2torch raise all kinds
        raise ValueError(f"{name} can't be rebuilt as a torch network: {error}") from error
    # InsightFace's own rule (ArcFaceONNX): with nodes of these names at its beginning, a graph wants raw
    # pixels.
    names = [node.name for node in proto.graph.node[:8]]
    subtracts = any(name.startswith(("Sub", "_minus")) for name in names)
    multiplies = any(name.startswith(("Mul", "_mul")) for name in names)
    entry: nn.Module = RawPixels() if subtracts and multiplies else nn.Identity()
    network = FaceNetwork(nn.Sequential(entry, backbone), nn.Identity(), 112, {}, graph).eval()
    with torch.inference_mode():
        shape = tuple(network(torch.zeros(1, 3, 112, 112)).shape)
    if len(shape) != 2:
        raise ValueError(f"{name} is no recogniser: for one crop it gives {list(shape)}, not a row")
    network.origin |= {"architecture": "pack", "weights": name, "embedding_size": shape[1], "input_size": 112}
    return network


def _free_batch(graph: "onnx.GraphProto") -> None:
    """Makes Reshapes what onnx2torch and a batch need.

    Those to a single row, or to [1, C, H, W], take any number of rows, which they would mix up; all those to
    rows become a Flatten, as torch's exporter can't write onnx2torch's Reshape. `allowzero`, which onnx2torch
    does not know and torch's exporter always sets, goes where the shape has no zero.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).copy()
        if 0 not in shape:
            del node.attribute[:]
        if len(shape) == 2 and shape[0] in (1, 0, -1):
            node.op_type = "Flatten"
            del node.input[1], node.attribute[:]
        elif len(shape) > 2 and shape[0] == 1:
            shape[0] = 0 if -1 in shape else -1  # 0 copies the side of the input
            free = numpy_helper.from_array(shape, f"{node.output[0]}/free_shape")
            graph.initializer.append(free)
            node.input[1] = free.name


def _require_parity(network: FaceNetwork, graph: bytes, file: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(4, 3, 7, 7, generator=generator), size=112, mode="bicubic").clamp(0, 1)
    images = smooth * 2 - 1
    with torch.inference_mode():
        pixels = network.backbone[0](images).numpy()  # type: ignore[index]
        expected = np.concatenate(
            [session.run(None, {entry: pixels[i : i + 1]})[0] for i in range(len(pixels))]
        )
        found = {
            "one by one": torch.cat([network(image[None]) for image in images]),
            "in a batch": network(images),
        }
    for how, embeddings in found.items():
        if embeddings.shape != expected.shape:
            cosine = -1.0
        else:
            cosine = F.cosine_similarity(embeddings, torch.from_numpy(expected)).min().item()
        if not cosine >= PARITY:  # a NaN fails too
            raise ValueError(
                f"{file} was not rebuilt faithfully: {how}, its embeddings differ from the file's "
                f"(cosine {cosine:.5f}, at least {PARITY} needed)"
            )


def pretrained(network: FaceNetwork) -> bool:
    """Whether the backbone started from learnt weights, which a high learning rate would destroy."""
    return network.origin["weights"] != "none"


def device() -> torch.device:
    """Where networks run: CUDA or Apple's GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def save_weights(network: FaceNetwork, folder: Path) -> None:
    """Writes the weights of a checkpoint: model.safetensors, and graph.onnx for a pack's recogniser."""
    folder.mkdir(parents=True, exist_ok=True)
    if network.graph is not None:
        (folder / "graph.onnx").write_bytes(network.graph)
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
    record = read_record(folder)
    origin = record["network"]
    if origin["architecture"] == "resnet50":
        network = resnet50("none", origin["embedding_size"], origin["input_size"])
    elif origin["architecture"] == "pack" and (folder / "graph.onnx").is_file():
        network = _from_graph((folder / "graph.onnx").read_bytes(), origin["weights"])
    else:
        raise ValueError(
            f"{folder} can't be rebuilt: unknown architecture {origin['architecture']!r} or no graph.onnx"
        )
    network.origin, network.record = origin, record
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
