"""Any model: face crops to unit embeddings."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from src import artifacts


class Recogniser(Protocol):
    """What an InsightFace pack offers: crops uint8 [n, 112, 112, 3] RGB to float32 [n, D]."""

    def recognise(self, crops: np.ndarray) -> np.ndarray: ...


def embed(
    crops: np.ndarray,
    model: nn.Module | Recogniser,
    batch_size: int = 256,
    mirrored: bool = False,
    workspace: Path | None = None,
) -> np.ndarray:
    """Embeddings float32 [N, D], unit rows, of crops uint8 [N, H, W, 3] RGB.

    A network runs where its weights are, in evaluation mode, and is left in the mode it was in. mirrored:
    each row is the mean of the unit embeddings of the crop and of its mirror image. With a workspace, batches
    already there are not computed again.
    Raises ValueError where crops are not such images, or where a row of the result is not finite.
    """
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[-1] != 3:
        raise ValueError(f"crops must be uint8 [N, H, W, 3] RGB, not {crops.dtype} {list(crops.shape)}")
    if not len(crops):
        raise ValueError("there are no crops to embed: the set is empty")
    parts = []
    for start in tqdm(
        range(0, len(crops), batch_size), "embedding", leave=False, disable=len(crops) <= batch_size
    ):
        file = workspace / f"{batch_size}-{start}.npy" if workspace else None
        if file is not None and file.is_file():
            parts.append(np.load(file))
            continue
        batch = np.array(crops[start : start + batch_size])  # in memory and writable, as torch wants it
        part = _given(model, batch)
        if mirrored:
            part = unit_rows(part) + unit_rows(_given(model, np.ascontiguousarray(batch[:, :, ::-1])))
        parts.append(part)
        if file is not None:
            with artifacts.whole(file) as partial:
                np.save(partial, parts[-1])
    embeddings = np.concatenate(parts)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))
    if len(bad):
        raise ValueError(
            f"the model gives no usable embedding for {len(bad)} crops, the first of them row {bad[0]}"
        )
    return embeddings / norms


def _given(model: nn.Module | Recogniser, crops: np.ndarray) -> np.ndarray:
    given = _forward(model, crops) if isinstance(model, nn.Module) else model.recognise(crops)
    return np.asarray(given, np.float32)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows [N, D] brought to length 1; one of nothing but zeros stays."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)


def to_images(crops: Tensor) -> Tensor:
    """From crops uint8 [B, H, W, 3] to a network's input: float [B, 3, H, W] in [-1, 1], channels last."""
    images = crops.permute(0, 3, 1, 2).float() / 127.5 - 1
    return images.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def _forward(network: nn.Module, crops: np.ndarray) -> np.ndarray:
    where = next(network.parameters()).device
    training = network.training
    network.eval()
    try:
        return network(to_images(torch.from_numpy(crops).to(where))).float().cpu().numpy()
    finally:
        network.train(training)
