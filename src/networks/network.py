"""Networks that turn face crops into embeddings: ResNet-50, and the recognisers of InsightFace packs."""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from src import artifacts, devices
from src.networks import weights as weight_files
from src.packs.alignment import SIDE

WEIGHTS_FILE, RECORD_FILE, GRAPH_FILE = "network.safetensors", "network.json", "graph.onnx"
_LARGE = 256  # numbers; larger constants of a graph are weights, and kept with the weights


@dataclass(frozen=True)
class Origin:
    """What a network is and where its weights came from."""

    architecture: str  # "resnet50", or "pack": that of an InsightFace recogniser
    weights: str  # "imagenet", "none" (random), or the name of the file they were read from
    learnt: bool  # whether the backbone starts from learnt weights, rather than from random ones
    knows_faces: bool  # whether its embeddings tell people apart before any training
    frozen_statistics: bool  # whether batch norms keep the statistics they came with
    embedding_size: int
    input_size: int  # side in pixels at which it looks at crops


class FaceNetwork(nn.Module):
    """Backbone and embedding head, working on crops made `origin.input_size` pixels square.

    `forward` takes float [B, 3, H, W], RGB in [-1, 1], and returns [B, D] embeddings, not normalised.
    `graph` is the ONNX file that a pack's recogniser was made from, its weights left out; None for others.
    `record` is what the checkpoint it was loaded from says of its training.
    """

    def __init__(
        self, backbone: nn.Module, head: nn.Module, origin: Origin, graph: bytes | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.origin = origin
        self.graph = graph
        self.record: dict[str, Any] = {}

    def forward(self, images: Tensor) -> Tensor:
        size = (self.origin.input_size, self.origin.input_size)
        if tuple(images.shape[-2:]) != size:
            where = images.device
            if where.type == "mps":  # which lacks it
                images = images.cpu()
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
            images = images.to(where)
        return self.head(self.backbone(images))

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in asdict(self.origin).items())

    def train(self, mode: bool = True) -> "FaceNetwork":
        """As of `nn.Module`, but frozen batch norms keep the statistics of the faces they have seen."""
        super().train(mode)
        if self.origin.frozen_statistics:
            self.backbone.eval()
        return self

    @property
    def history(self) -> pd.DataFrame:
        """Learning curves of the training, one row per epoch: epoch, loss, accuracy, val_auc, ..."""
        return pd.DataFrame(self.record.get("history", []))


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


class Places(torchvision.models.ResNet):
    """torchvision's ResNet-50, giving what its last two stages see, place by place.

    Instead of the mean over all places and of a classifier: faces are aligned, so where a thing is says as
    much as what it is. From [B, 3, H, W] to [B, 2048 * 2 * 2 + 128 * 4 * 4]: what the last stage sees in
    2 x 2 places, then what the one before sees in 4 x 4, through a 1x1 convolution.
    """

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3])
        self.fc = nn.Identity()
        self.squeeze = nn.Sequential(nn.Conv2d(1024, 128, 1, bias=False), nn.BatchNorm2d(128))

    def forward(self, images: Tensor) -> Tensor:
        early = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        late = self.layer3(self.layer2(self.layer1(early)))
        last = F.adaptive_avg_pool2d(self.layer4(late), 2)
        return torch.cat([last.flatten(1), F.adaptive_avg_pool2d(self.squeeze(late), 4).flatten(1)], 1)


def _resnet50(learnt: bool, embedding_size: int) -> tuple[torchvision.models.ResNet, nn.Module]:
    """Backbone and head with random weights: by place where learnt weights will follow, else by the mean.

    What random layers see in a place tells nothing yet, and there is too little to learn it from: a mean
    over the places does better.
    """
    if learnt:
        backbone: torchvision.models.ResNet = Places()
        width = 2048 * 2 * 2 + 128 * 4 * 4
    else:
        # Residual branches that start at zero let a random network of this depth learn within few steps.
        backbone = torchvision.models.resnet50(weights=None, zero_init_residual=True)
        backbone.fc, width = nn.Identity(), 2048
    return backbone, nn.Sequential(
        nn.Linear(width, embedding_size, bias=False), nn.BatchNorm1d(embedding_size)
    )


def _empty_resnet50(origin: Origin) -> FaceNetwork:
    """The network of this origin, for weights to be put into."""
    backbone, head = _resnet50(origin.learnt, origin.embedding_size)
    return FaceNetwork(nn.Sequential(ImageNetInput(), backbone), head, origin)


def resnet50(
    weights: str, embedding_size: int = 256, input_size: int | None = None, seed: int = 0
) -> FaceNetwork:
    """torchvision's ResNet-50 (He et al. 2016), as of `Places`, with an embedding head.

    weights: "imagenet" (torchvision's IMAGENET1K_V2, downloaded on first use), "none" (random, from `seed`),
    or a .pth or .safetensors file with a ResNet-50's weights (torchvision's names, or a checkpoint of ours).
    input_size: side in pixels at which the network looks at the crops; None is 112 where there is a GPU, else
    64, as bad photos hold little more and training takes about a third of the work.
    Raises FileNotFoundError where the weights can't be had, ValueError where they don't fit.
    """
    origin = Origin(
        architecture="resnet50",
        weights=weights if weights in ("imagenet", "none") else Path(weights).name,
        learnt=weights != "none",
        knows_faces=False,
        frozen_statistics=False,
        embedding_size=embedding_size,
        input_size=input_size or devices.input_side(),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _empty_resnet50(origin)
    backbone = network.backbone.get_submodule("1")
    # what torchvision's ResNet-50 lacks stays random, unless the file has it
    new = {name: value for name, value in backbone.state_dict().items() if name.startswith("squeeze.")}
    if weights == "imagenet":
        weight_files.fit(backbone, new | weight_files.imagenet(), "torchvision's ImageNet weights")
    elif weights != "none":
        prefix = "backbone.1."  # in our own checkpoints
        found = {name.removeprefix(prefix): value for name, value in weight_files.read(Path(weights)).items()}
        weight_files.fit(backbone, new | found, weights)
    return network


def can_be_turned(network: FaceNetwork) -> bool:
    """Whether `turned_from` is for this network: its head ends as that of a ResNet-50."""
    return isinstance(network.head, nn.Sequential) and isinstance(network.head[-1], nn.BatchNorm1d)


def turned_from(network: FaceNetwork, direction: np.ndarray, share: float) -> FaceNetwork:
    """A ResNet-50 whose embeddings lack a share of what they say along a unit vector [D].

    What the last batch norm gives is projected, which its weights and the last layer's can hold: the network
    stays what it is. Raises ValueError for a network with another head.
    """
    result = copy.deepcopy(network)
    if not (can_be_turned(network) and isinstance(result.head, nn.Sequential)):
        raise ValueError(f"the head of {network.origin.architecture} ends in no batch norm to project")
    linear, norm = result.head
    assert isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None and norm.running_var is not None
    along = torch.from_numpy(direction).double().to(linear.weight.device)
    keep = torch.eye(len(along), dtype=torch.float64, device=along.device) - share * along[:, None] * along
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    with torch.no_grad():
        linear.weight.copy_(keep @ (gain[:, None] * linear.weight.double()))
        norm.bias.copy_(keep @ (norm.bias.double() - gain * norm.running_mean.double()))
        norm.weight.fill_(1.0)
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0 - norm.eps)
    return result


class Half(nn.Module):
    """A network in half precision, of which nothing outside needs to know: single precision in and out.

    The given network is left as it was.
    """

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()
        self.size = network.origin.input_size

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.size:  # before, as images are resized in single precision
            size = (self.size, self.size)
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        return self.network(images.half()).float()


# ---------------------------------------------------------------- recognisers of packs


class RawPixels(nn.Module):
    """From [-1, 1] to [0, 255], for graphs that bring pixels to their own scale."""

    def forward(self, images: Tensor) -> Tensor:
        return images * 127.5 + 127.5


class PReLU(nn.Module):
    """In place of onnx2torch's, which fails in mixed precision: slopes are [C, 1, 1] or [1, C, 1, 1]."""

    def forward(self, values: Tensor, slopes: Tensor) -> Tensor:
        return torch.where(values >= 0, values, values * slopes.to(values.dtype))


def from_pack(recogniser_file: Path) -> FaceNetwork:
    """A pack's recogniser (ONNX, for crops of 112 x 112) as a network that can be tuned.

    Its batch norms are mostly folded into convolutions, and what is left of them stays as it is. Reshapes to
    a single row, as some exporters write them, are made to take a batch.
    Raises FileNotFoundError without the file, ValueError where it is no recogniser that can be rebuilt, or
    where the network's embeddings differ from the file's: cosine below 0.9999, one by one or in a batch.
    """
    if not recogniser_file.is_file():
        raise FileNotFoundError(f"there is no recogniser at {recogniser_file}")
    graph = recogniser_file.read_bytes()
    network = _from_graph(graph, recogniser_file.name)
    _require_parity(network, graph, recogniser_file)
    return network


def is_iresnet50(network: FaceNetwork) -> bool:
    """Whether a network has the architecture of buffalo_l's w600k_r50.onnx: InsightFace's ResNet-50.

    By its layers, whatever their widths: 53 full convolutions (1 at the entry, 2 in each of 3 + 4 + 14 + 3
    blocks, 4 in shortcuts), and a PReLU at the entry and in each block.
    """
    parts = list(network.backbone.modules())
    convolutions = [part for part in parts if isinstance(part, nn.Conv2d)]
    slopes = sum(isinstance(part, (PReLU, nn.PReLU)) for part in parts)
    return len(convolutions) == 53 and slopes == 25 and all(part.groups == 1 for part in convolutions)


def is_depthwise(network: nn.Module) -> bool:
    """Whether it has convolutions of single channels, which CPUs are slower at in bfloat16."""
    return any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in network.modules())


def _from_graph(graph: bytes, name: str) -> FaceNetwork:
    # here and below: training must not need what only packs need
    import onnx
    import onnx2torch
    from onnx2torch.node_converters.activations import OnnxPReLU

    from src.packs import graphs

    try:
        proto = graphs.free_batch(onnx.load_from_string(graph))
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
    layers = nn.Sequential(entry, backbone).eval()
    with torch.inference_mode():
        shape = tuple(layers(torch.zeros(1, 3, SIDE, SIDE)).shape)
    if len(shape) != 2:
        raise ValueError(f"{name} is no recogniser: for one crop it gives {list(shape)}, not a row")
    origin = Origin(
        architecture="pack",
        weights=name,
        learnt=True,
        knows_faces=True,
        frozen_statistics=True,
        embedding_size=shape[1],
        input_size=SIDE,
    )
    return FaceNetwork(layers, nn.Identity(), origin, _without_weights(graph)).eval()


def _without_weights(graph: bytes) -> bytes:
    """The ONNX file without the contents of its large constants: these are among the network's weights."""
    import onnx

    proto = onnx.load_from_string(graph)
    for tensor in _large(proto):
        for field in ("raw_data", "float_data"):
            tensor.ClearField(field)
    return proto.SerializeToString()


def _with_zeros(graph: bytes) -> bytes:
    """The ONNX file with zeros where `_without_weights` left nothing."""
    import onnx

    proto = onnx.load_from_string(graph)
    for tensor in _large(proto):
        tensor.raw_data = bytes(4 * int(np.prod(tensor.dims)))
    return proto.SerializeToString()


def _large(proto: Any) -> list[Any]:
    """The constants of a graph that are weights: single precision, of more than a few numbers."""
    from onnx import TensorProto

    return [
        tensor
        for tensor in proto.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > _LARGE
    ]


def _require_parity(network: FaceNetwork, graph: bytes, file: Path) -> None:
    import onnxruntime

    from src.packs import graphs

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    images = torch.from_numpy(graphs.probes())
    with torch.inference_mode():
        pixels = network.backbone[0](images).numpy()  # type: ignore[index]
        expected = np.concatenate([session.run(None, {entry: image[None]})[0] for image in pixels])
        found = {
            "one by one": torch.cat([network(image[None]) for image in images]),
            "in a batch": network(images),
        }
    for how, embeddings in found.items():
        cosine = graphs.least_cosine(embeddings.numpy(), expected)
        if cosine < graphs.PARITY:
            raise ValueError(
                f"{file} was not rebuilt faithfully: {how}, its embeddings differ from the file's "
                f"(cosine {cosine:.5f}, at least {graphs.PARITY} needed)"
            )


# ---------------------------------------------------------------- checkpoints


def save(network: FaceNetwork, folder: Path, record: Mapping[str, Any] | None = None) -> Path:
    """Writes a checkpoint: weights, the architecture of a pack's recogniser, and what there is to say of it.

    record: settings, what it was trained on, history; without one, the network's own. Returns the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if network.graph is not None:
        (folder / GRAPH_FILE).write_bytes(network.graph)
    weight_files.write(folder / WEIGHTS_FILE, network.state_dict())
    save_record(network, folder, network.record if record is None else record)
    return folder


def save_record(network: FaceNetwork, folder: Path, record: Mapping[str, Any]) -> None:
    """Writes what a checkpoint says of itself: the network's origin, and `record`."""
    with artifacts.whole(folder / RECORD_FILE) as partial:
        partial.write_text(
            json.dumps({"origin": asdict(network.origin), **record}, indent=1), encoding="utf-8"
        )


def load(folder: Path) -> FaceNetwork:
    """The network of a checkpoint folder, on the CPU, set to evaluate. Reads numbers, executes nothing.

    Raises FileNotFoundError where the folder holds no checkpoint, ValueError where its files don't fit
    together.
    """
    file = folder / RECORD_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no checkpoint: {RECORD_FILE} is missing; fine-tune first")
    record = json.loads(file.read_text(encoding="utf-8"))
    origin = Origin(**record.pop("origin"))
    if origin.architecture == "resnet50":
        network = _empty_resnet50(origin)
    elif origin.architecture == "pack" and (folder / GRAPH_FILE).is_file():
        graph = (folder / GRAPH_FILE).read_bytes()
        network = _from_graph(_with_zeros(graph), origin.weights)
    else:
        raise ValueError(
            f"{folder} can't be rebuilt: unknown architecture {origin.architecture!r} or no {GRAPH_FILE}"
        )
    network.origin, network.record = origin, record
    weight_files.fit(network, weight_files.read(folder / WEIGHTS_FILE), str(folder / WEIGHTS_FILE))
    return network.eval()
