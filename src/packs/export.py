"""A network or a model, handed back as an InsightFace pack for code that already calls `FaceAnalysis`."""

import copy
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from onnxruntime import InferenceSession
from torch import nn

from src import artifacts
from src.packs import graphs
from src.packs.alignment import SIDE

OPSET = 18
RECOGNISER = "rec_finetuned.onnx"
CARD, THRESHOLDS = "MODEL_CARD.md", "thresholds.json"  # what a pack of ours holds beside its ONNX files


def onnx(network: nn.Module, path: Path) -> Path:
    """Writes a network as a recogniser that InsightFace loads (its `ArcFaceONNX`); returns `path`.

    network: float [B, 3, 112, 112], RGB in [-1, 1] -> [B, D], a network alone or a whole model; it is left as
    it was. InsightFace itself brings uint8 images to [-1, 1], so nothing is normalised in the graph. The file
    takes any batch size. What the network reckons with in double precision, the file has in single.

    Raises ValueError where the file's embeddings differ from the network's, alone or in a batch, and OSError
    where the disk is full. Then nothing is written.
    """
    path = Path(path)
    with artifacts.room_for(path.name, path.parent):
        _write(network, path)
    return path


def _write(network: nn.Module, path: Path) -> None:
    module = copy.deepcopy(network).cpu().eval()
    expected = _on_probes(module)
    module._apply(lambda values: values.float() if values.dtype == torch.float64 else values)
    with artifacts.whole(path) as draft:
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
        graphs.tidy(draft)
        _require_parity(expected, draft, path.name)


def _on_probes(module: nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return module(torch.from_numpy(graphs.probes())).float().numpy()


def _require_parity(expected: np.ndarray, file: Path, name: str) -> None:
    """Compares a file with what its network gives for the probes: all in a batch, and each one alone."""
    images = graphs.probes()
    session = InferenceSession(str(file), providers=["CPUExecutionProvider"])
    batch = session.run(None, {"input": images})[0]
    alone = np.concatenate([session.run(None, {"input": image[None]})[0] for image in images])
    for found, how in ((batch, "a batch"), (alone, "single images")):
        cosine = graphs.least_cosine(found, expected)
        if cosine < graphs.PARITY:
            raise ValueError(
                f"{name} was not written: for {how} its embeddings differ from the network's "
                f"(cosine {cosine:.5f}, at least {graphs.PARITY} needed)."
            )


def pack(network: nn.Module, base_pack_folder: Path, destination: Path) -> Path:
    """Makes an InsightFace pack: the base pack with its recogniser replaced by `network`.

    network: float [B, 3, 112, 112], RGB in [-1, 1] -> [B, D], alone or a whole model. The base pack's
    detector (and, where it has them, its landmark and attribute models) are copied. The result, whose folder
    is returned, is for `FaceAnalysis(name=str(folder))`, or to be put under `~/.insightface/models/`. An
    earlier pack at `destination`, with its card and thresholds, is replaced once the new one is complete.

    Raises FileNotFoundError where the base pack has no detector, ValueError where the export fails or where
    `destination` is the base pack or holds something that is no pack, OSError where the disk is full.
    """
    base, destination = Path(base_pack_folder), Path(destination)
    tasks = {file: graphs.task(file) for file in sorted(base.glob("*.onnx"))}
    if "detection" not in tasks.values():
        raise FileNotFoundError(
            f"No detection model among the ONNX files in {base}; give an InsightFace pack."
        )
    if destination.resolve() == base.resolve():
        raise ValueError(f"{destination} is the base pack itself; give another folder for the new one.")
    if destination.exists() and not all(_of_a_pack(file) for file in destination.iterdir()):
        raise ValueError(f"{destination} holds files that are not ONNX models; give a new folder.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with (
        artifacts.room_for(f"the pack {destination.name}", destination.parent),
        tempfile.TemporaryDirectory(dir=destination.parent, prefix=".pack-") as folder,
    ):
        draft = Path(folder) / destination.name
        _write(network, draft / RECOGNISER)
        for file, task in tasks.items():
            if task != "recognition":
                shutil.copy2(file, draft / file.name)
        if destination.exists():
            destination.replace(Path(folder) / "replaced")
        draft.replace(destination)
    return destination


def _of_a_pack(file: Path) -> bool:
    return file.suffix == ".onnx" or file.name in (CARD, THRESHOLDS)
