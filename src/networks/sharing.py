"""Training shared among processes, each with its part of every batch (PyTorch DDP): `finetuning`'s one loop.

All processes draw whole batches alike and take their part of them, batch norms see the whole batch, and
gradients are averaged: the curve is that of one process, however many there are. Processes are `torchrun`'s,
within `group`, or a Ray cluster's, by `on_cluster`. Where there is one process alone, nothing is done.
"""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src import devices, workers

RETRIES = 100  # of a training, each after a machine or a worker has been lost
LEAST = 4  # photos of a batch that are worth a worker
_JOB, _ERROR = "job.pickle", "error.pickle"


@contextmanager
def group() -> Iterator[None]:
    """Makes the processes that `torchrun` has started one group, for the time of training."""
    where = devices.device()
    if where.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def several() -> bool:
    """Whether this is one of several processes that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def first() -> bool:
    """Whether this process is the one that writes files."""
    return not several() or dist.get_rank() == 0


def part(batch: int) -> slice:
    """Which photos of a batch of so many are this process's. Raises ValueError where there are too few."""
    if not several():
        return slice(0, batch)
    count, rank = dist.get_world_size(), dist.get_rank()
    if batch < count:
        raise ValueError(f"batch_size is {batch}, and {count} processes share it: give each a photo at least")
    edges = np.linspace(0, batch, count + 1).astype(int)
    return slice(int(edges[rank]), int(edges[rank + 1]))


def shared(trained: nn.Module) -> Callable[..., Any]:
    """What calls a function that computes a loss with `trained`, so that its gradients are the mean of all.

    The function's loss must be a mean over the photos it is given. Batch norms of `trained` are changed in
    place to norms over the whole batch; their weights and statistics stay what they are.
    """
    if not several():
        return lambda function, *arguments: function(*arguments)
    for module in trained.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.__class__ = cast(Any, _SharedNorm)
    # A loss need not use all: there is a map to the teacher where there is no teacher.
    return DistributedDataParallel(_Calling(trained), find_unused_parameters=True)


class _Calling(nn.Module):
    def __init__(self, trained: nn.Module) -> None:
        super().__init__()
        self.trained = trained

    def forward(self, function: Callable[..., tuple[Tensor, Tensor]], photos: slice) -> tuple[Tensor, Tensor]:
        """The function's loss, weighted as its photos' share of the batch, and its embeddings.

        Where any process's loss is not finite none is, so that all do the same about it.
        """
        loss, embeddings = function(photos)
        mine = photos.stop - photos.start
        loss = loss * mine * dist.get_world_size()
        total = torch.stack([loss.detach().float(), loss.new_tensor(mine, dtype=torch.float32)])
        dist.all_reduce(total)
        return loss / total[1] + 0 * total[0], embeddings


class _SharedNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm whose mean and variance are those of all processes' photos, on any device.

    torch's own `SyncBatchNorm` does without CPUs.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values = input.float()
        over = [d for d in range(values.ndim) if d != 1]
        shape = [1, -1, *[1] * (values.ndim - 2)]
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = _Sum.apply(torch.cat([values.sum(over), count]))
        number = sums[-1].detach()
        mean = sums[:-1] / number
        centred = values - mean.view(shape)
        variance = _Sum.apply((centred**2).sum(over)) / number
        if self.running_mean is not None and self.running_var is not None:
            share = self.momentum or 0.0
            with torch.no_grad():
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * number / (number - 1), share)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked += 1
        normed = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(input.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes, of a tensor and, backwards, of its gradients."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(context, gradient.contiguous())


def mean(loss: float, accuracy: float, photos: int) -> tuple[float, float]:
    """Of the whole batch: the loss, to which this is one's part, and the accuracy, of so many photos each."""
    if not several():
        return loss, accuracy
    right = accuracy * photos if photos else 0.0
    sums = torch.tensor([loss / dist.get_world_size(), right, photos], device=devices.device())
    dist.all_reduce(sums)
    total, right, count = sums.tolist()
    return total, right / max(count, 1)


def agreed(value: Any) -> Any:
    """What the first process has found, in the place of what each has: rounding must not part them."""
    if not several():
        return value
    given = [value]
    dist.broadcast_object_list(given)
    return given[0]


# ---------------------------------------------------------------- on a Ray cluster


def on_cluster(
    train: Callable[..., Path], crops: np.ndarray, batch: int, workspace: Path, **arguments: Any
) -> Path:
    """`train(crops=..., workspace=..., **arguments)` by workers of the cluster, all at once; what it returns.

    There is a worker per GPU or, without any, per machine, with all of its cores; fewer where batches of so
    many photos are small. `workspace` must be in a folder that all machines share. Where one is lost, all
    go on from the last epoch, with as many as there are then.
    Raises what `train` raises, RuntimeError where the cluster gives up.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    workspace = workspace.resolve()
    workspace.mkdir(parents=True, exist_ok=True)
    (workspace / _ERROR).unlink(missing_ok=True)
    job = partial(_given, train, workers.Rows(crops), workspace, arguments)
    (workspace / _JOB).write_bytes(ray.cloudpickle.dumps(job))
    gpus = int(ray.cluster_resources().get("GPU", 0))
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    most = max(1, min(gpus or len(machines), batch // LEAST))
    count: Any = (1, most)  # as many as there are
    each = {"CPU": 1, "GPU": 1} if gpus else {"CPU": min(machine["CPU"] for machine in machines)}
    trainer = TorchTrainer(
        _work,
        train_loop_config={"workspace": str(workspace)},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=count, use_gpu=bool(gpus), resources_per_worker=each),
        run_config=RunConfig(
            name="ray", storage_path=str(workspace), failure_config=FailureConfig(max_failures=RETRIES)
        ),
    )
    trainer.fit()
    (workspace / _JOB).unlink()
    if (workspace / _ERROR).is_file():
        raise pickle.loads((workspace / _ERROR).read_bytes())
    return workspace / "artefact"


def _given(
    train: Callable[..., Path], crops: workers.Rows, workspace: Path, arguments: dict[str, Any]
) -> Path:
    return train(crops=crops.array, workspace=workspace, **arguments)


def _work(config: dict[str, Any]) -> None:
    """What runs in each worker. What `train` has to say is no reason to try again, whoever is waiting."""
    workspace = Path(config["workspace"])
    if (workspace / _ERROR).is_file():
        return
    try:
        pickle.loads((workspace / _JOB).read_bytes())()
    except (ValueError, FloatingPointError) as error:
        (workspace / _ERROR).write_bytes(pickle.dumps(error))
