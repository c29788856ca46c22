"""Any model: face crops to unit embeddings."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from src import artifacts, devices, workers

AGREEING = 0.9999  # least cosine of two embeddings of a crop, in half and single precision, for the same
CHECKED = 32  # crops on which that is seen
WORTH = 4096  # crops from which the workers of a cluster are worth starting


class Recogniser(Protocol):
    """What an InsightFace pack offers: crops uint8 [n, 112, 112, 3] RGB to float32 [n, D]."""

    def recognise(self, crops: np.ndarray) -> np.ndarray: ...


def embed(
    crops: np.ndarray,
    model: nn.Module | Recogniser,
    batch_size: int = 256,
    mirrored: bool = False,
    workspace: Path | None = None,
    unit: bool = True,
) -> np.ndarray:
    """Embeddings float32 [N, D], unit rows, of crops uint8 [N, H, W, 3] RGB.

    A network runs on the device where networks work (`devices.device`), in half precision where that is
    faster and agrees, in parts that fit, in evaluation mode; it is left where, and in the mode that, it was.
    mirrored: each row is the mean of the unit embeddings of the crop and of its mirror image. With a
    workspace, batches already there are not computed again. unit: False leaves rows as long as they came.
    Raises ValueError where crops are not such images, or where a row of the result is not finite.
    """
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[-1] != 3:
        raise ValueError(f"crops must be uint8 [N, H, W, 3] RGB, not {crops.dtype} {list(crops.shape)}")
    if not len(crops):
        raise ValueError("there are no crops to embed: the set is empty")
    starts = range(0, len(crops), batch_size)
    files = {start: workspace / f"{batch_size}-{start}.npy" for start in starts} if workspace else {}
    parts = {start: np.load(file) for start, file in files.items() if file.is_file()}
    todo = [start for start in starts if start not in parts]
    of_all = workers.Rows(crops), batch_size, mirrored
    with (
        ExitStack() as stack,
        devices.Bar(
            total=len(starts), initial=len(parts), desc="embedding", leave=False, disable=len(starts) == 1
        ) as bar,
    ):
        if workers.joined() and len(crops) >= WORTH:
            found = workers.each(_Batches(model, *of_all), todo)
        else:
            found = map(partial(_batch, stack.enter_context(_looking(model)), *of_all), todo)
        for start, part in zip(todo, found, strict=True):
            parts[start] = part
            if files:
                with artifacts.whole(files[start]) as file:
                    np.save(file, part)
            bar.update()
    embeddings = np.concatenate([parts[start] for start in starts])
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))
    if len(bad):
        raise ValueError(
            f"the model gives no usable embedding for {len(bad)} crops, the first of them row {bad[0]}"
        )
    return embeddings / norms if unit else embeddings


def _batch(
    look: Callable[[np.ndarray], np.ndarray], crops: workers.Rows, size: int, mirrored: bool, start: int
) -> np.ndarray:
    """Rows of the batch of so many crops that begins at `start`."""
    batch = np.array(crops.array[start : start + size])  # writable, as torch wants it
    part = look(batch)
    if mirrored:
        part = unit_rows(part) + unit_rows(look(np.ascontiguousarray(batch[:, :, ::-1])))
    return part


class _Batches:
    """`_batch` of a model that a worker of a cluster is sent, and keeps looking with."""

    def __init__(self, model: nn.Module | Recogniser, crops: workers.Rows, size: int, mirrored: bool) -> None:
        self.model, self.crops, self.size, self.mirrored = model, crops, size, mirrored
        self.look: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, start: int) -> np.ndarray:
        if self.look is None:
            self.kept = ExitStack()
            self.look = self.kept.enter_context(_looking(self.model))
            self.look(np.array(self.crops.array[:CHECKED]))  # all workers choose one precision
        return _batch(self.look, self.crops, self.size, self.mirrored, start)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows [N, D] brought to length 1; one of nothing but zeros stays."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)


def to_images(crops: Tensor) -> Tensor:
    """From crops uint8 [B, H, W, 3] to a network's input: float [B, 3, H, W] in [-1, 1], channels last."""
    images = crops.permute(0, 3, 1, 2).float() / 127.5 - 1
    return images.contiguous(memory_format=torch.channels_last)


@contextmanager
def _looking(model: nn.Module | Recogniser) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """What gives a model's embeddings float32 [n, D] of crops; a network is on its device meanwhile."""
    if not isinstance(model, nn.Module):
        yield lambda crops: np.asarray(model.recognise(crops), np.float32)
        return
    where, training = devices.device(), model.training
    before = next((parameter.device for parameter in model.parameters()), where)
    model.to(where).eval()
    try:
        yield _Look(model, where)
    finally:
        model.train(training).to(before)
        devices.give_back(where)


class _Look:
    """A network's embeddings, in the precision that agrees and in parts that fit the memory."""

    def __init__(self, network: nn.Module, where: torch.device) -> None:
        self.network, self.where = network, where
        self.precision: torch.dtype | None = None  # until the first crops have shown it
        self.most = 2**31  # crops at once

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        if self.precision is None:
            self.precision = self._agreeing(crops[:CHECKED])
        return self._in_parts(crops, self.precision)

    def _in_parts(self, crops: np.ndarray, precision: torch.dtype) -> np.ndarray:
        parts, start = [], 0
        while start < len(crops):
            part = crops[start : start + self.most]
            try:
                found = self._forward(part, precision)
            except (RuntimeError, MemoryError) as error:
                if len(part) == 1 or not devices.out_of_memory(error):
                    raise
                found = None
            if found is None:  # out of the except block, which holds on to the memory
                self.most = (len(part) + 1) // 2
                devices.give_back(self.where)
            else:
                parts.append(found)
                start += len(part)
        return np.concatenate(parts)

    def _agreeing(self, crops: np.ndarray) -> torch.dtype:
        half = devices.embedding_precision(self.where)
        if half == torch.float32:
            return half
        exact, fast = (unit_rows(self._in_parts(crops, kind)) for kind in (torch.float32, half))
        return half if (exact * fast).sum(1).min() >= AGREEING else torch.float32

    @torch.inference_mode()
    def _forward(self, crops: np.ndarray, precision: torch.dtype) -> np.ndarray:
        with devices.autocast(self.where, precision):
            return self.network(to_images(torch.from_numpy(crops).to(self.where))).float().cpu().numpy()
