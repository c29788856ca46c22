"""Hand a fine-tuned network back as an InsightFace pack, for code that already calls FaceAnalysis."""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import load as load_onnx
from onnx import save as save_onnx
from onnxruntime import InferenceSession
from torch import nn

SIDE = 112  # pixels; the size InsightFace aligns faces to
PARITY = 0.9999  # least cosine between an embedding of the file and the network's
OPSET = 18
RECOGNISER = "rec_finetuned.onnx"


def onnx(network: nn.Module, path: Path) -> Path:
    """Write a face embedding network as a recogniser that InsightFace loads (its `ArcFaceONNX`).

    network: float [B, 3, 112, 112], RGB in [-1, 1] -> [B, D]; it is left as it was. InsightFace itself brings
    uint8 images to [-1, 1], so nothing is normalised in the graph. The file takes any batch size.

    Raises ValueError where the file's embeddings differ from the network's, alone or in a batch; then nothing
    is written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    module = copy.deepcopy(network).cpu().float().eval()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        draft = Path(folder) / path.name
        torch.onnx.export(
            module,
            (torch.zeros(2, 3, SIDE, SIDE),),
            draft,
            dynamo=True,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["embedding"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
        tidy(draft)
        _require_parity(module, draft, path)
        draft.replace(path)
    return path


def tidy(file: Path) -> None:
    """Take the exporter's notes (such as paths of this machine) out of an ONNX file and number its nodes.

    InsightFace reads from the names of the first nodes whether an image is still to be brought to [-1, 1]; a
    network that begins with a `Sub` and a `Mul` of its own would be misread.
    """
    model = load_onnx(str(file))
    graph = model.graph
    for part in (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    ):
        del part.metadata_props[:]
        part.doc_string = ""
    for number, node in enumerate(graph.node):
        node.name = f"node_{number}"
    save_onnx(model, str(file))


def _require_parity(module: nn.Module, file: Path, name: Path) -> None:
    """Compare file and network on noise and on smooth pictures: a batch of five, and each one alone."""
    generator = torch.Generator().manual_seed(0)
    smooth = nn.functional.interpolate(torch.rand(3, 3, 7, 7, generator=generator), SIDE, mode="bilinear")
    images = torch.cat([smooth, torch.rand(2, 3, SIDE, SIDE, generator=generator)]) * 2 - 1
    with torch.inference_mode():
        expected = module(images).numpy()
    session = InferenceSession(str(file), providers=["CPUExecutionProvider"])
    batch = session.run(None, {"input": images.numpy()})[0]
    alone = np.concatenate([session.run(None, {"input": images[i : i + 1].numpy()})[0] for i in range(5)])
    for found, how in ((batch, "a batch"), (alone, "single images")):
        cosine = _cosine(found, expected).min() if found.shape == expected.shape else -1.0
        if not cosine >= PARITY:  # a NaN fails too
            raise ValueError(
                f"{name.name} was not written: for {how} its embeddings differ from the network's "
                f"(cosine {cosine:.5f}, at least {PARITY} needed)."
            )


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def pack(network: nn.Module, base_pack_folder: Path, destination: Path) -> Path:
    """Make an InsightFace pack: the base pack with its recogniser replaced by `network`.

    The base pack's detector (and, where it has them, its landmark and attribute models) are copied. The
    result is a folder for `FaceAnalysis(name=str(folder))`, or to be put under `~/.insightface/models/`. An
    earlier pack at `destination` is replaced once the new one is complete.

    Raises FileNotFoundError where the base pack has no detector, ValueError where the export fails or where
    `destination` is the base pack or holds something that is no pack.
    """
    base, destination = Path(base_pack_folder), Path(destination)
    files = sorted(base.glob("*.onnx"))
    if not any(_task(file) == "detection" for file in files):
        raise FileNotFoundError(
            f"No detection model among the ONNX files in {base}; give an InsightFace pack."
        )
    if destination.resolve() == base.resolve():
        raise ValueError(f"{destination} is the base pack itself; give another folder for the new one.")
    if destination.exists() and any(file.suffix != ".onnx" for file in destination.iterdir()):
        raise ValueError(f"{destination} holds files that are not ONNX models; give a new folder.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".pack-") as folder:
        draft = Path(folder) / destination.name
        onnx(network, draft / RECOGNISER)
        for file in files:
            if _task(file) != "recognition":
                shutil.copy2(file, draft / file.name)
        if destination.exists():
            destination.replace(Path(folder) / "replaced")
        draft.replace(destination)
    return destination


def _task(file: Path) -> str:
    """What InsightFace takes a model file for, by its inputs and outputs (`model_zoo.ModelRouter`)."""
    graph = load_onnx(str(file), load_external_data=False).graph
    height, width = (axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim[2:4])
    if len(graph.output) >= 5:
        return "detection"
    square = height == width >= SIDE and height % 16 == 0
    return "recognition" if square and height != 192 and len(graph.input) == 1 else "other"
