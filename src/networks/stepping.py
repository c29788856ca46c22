"""A step of training on whatever device there is: in its precision, in as many parts as its memory needs."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from src import devices
from src.networks import sharing
from src.networks.network import is_depthwise

LossOf = Callable[[slice], tuple[Tensor, Tensor]]  # of a part of the batch: loss, embeddings


class Stepper:
    """Takes gradients of a loss, and a step along them.

    In float16 gradients are scaled, so that small ones don't vanish (Micikevicius et al., ICLR 2018). Where
    even so a loss is not finite, as on GPUs that have float16 but no tensor cores, it goes on in float32.
    """

    def __init__(self, where: torch.device, precision: torch.dtype) -> None:
        self.where, self.precision = where, precision
        self.scaler = torch.amp.GradScaler(where.type, enabled=precision == torch.float16)
        self.parts = 1  # of a batch, one after the other

    def autocast(self) -> AbstractContextManager[Any]:
        """For the network's forward pass."""
        return devices.autocast(self.where, self.precision)

    def gradients(
        self,
        loss_of: LossOf,
        optimizer: torch.optim.Optimizer,
        batch: int,
    ) -> tuple[float, Tensor]:
        """Leaves the gradients of the loss of a batch of so many photos; returns loss and embeddings [B, D].

        loss_of: for a part of the batch its loss, a mean over the part, and embeddings. Where the memory is
        too small, the batch is halved from here on, and the gradients of its parts are added up. Batch norms
        see the parts, of 2 photos at least. After a loss that is not finite there is no step to take. Raises
        RuntimeError where not even 2 photos fit.
        """
        while True:
            optimizer.zero_grad()
            try:
                loss, embeddings = self._add_up(loss_of, batch)
            except RuntimeError as error:
                if not devices.out_of_memory(error):
                    raise
                loss, embeddings = None, None
            if loss is None or embeddings is None:  # out of the except block, which holds on to the memory
                self._halve(batch)
            elif self.precision == torch.float16 and not loss.isfinite():
                tqdm.write("the loss is not finite in float16: training goes on in float32, which is slower")
                self.precision = torch.float32
                self.scaler = torch.amp.GradScaler(self.where.type, enabled=False)
            else:
                return loss.item(), embeddings

    def update(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], clip: float
    ) -> None:
        """A step along the gradients, their norm at most `clip`; none where scaled ones have overflowed."""
        self.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, clip)
        self.scaler.step(optimizer)
        self.scaler.update()

    def _add_up(self, loss_of: LossOf, batch: int) -> tuple[Tensor, Tensor]:
        losses: list[Tensor] = []
        embeddings: list[Tensor] = []
        for rows in torch.arange(batch).tensor_split(self.parts):
            loss, found = loss_of(slice(int(rows[0]), int(rows[-1]) + 1))
            loss = loss * (len(rows) / batch)
            losses.append(loss.detach())
            embeddings.append(found.detach())
            if not loss.isfinite():
                break
            self.scaler.scale(loss).backward()
        return torch.stack(losses).sum(), torch.cat(embeddings)

    def _halve(self, batch: int) -> None:
        if sharing.several():
            raise ValueError(
                f"{devices.name(self.where)} has no memory left for {batch} photos, its part of a batch: "
                "give a smaller batch_size, or more workers"
            )
        self.parts *= 2
        devices.give_back(self.where)
        at_once = -(-batch // self.parts)
        if batch // self.parts < 2:
            raise RuntimeError(
                f"{devices.name(self.where)} has no memory left for 2 photos at a time: close what else uses "
                f'it, or train on the CPU, with the environment variable {devices.FORCED}="cpu"'
            )
        tqdm.write(
            f"no memory left on {devices.name(self.where)}: from here on {at_once} photos at a time, their "
            f"gradients added up to those of {batch}"
        )


def precision(where: torch.device, network: nn.Module) -> torch.dtype:
    """In what a network trains fastest: on CPUs, depthwise convolutions are slower in bfloat16."""
    slower = where.type == "cpu" and is_depthwise(network)
    return torch.float32 if slower else devices.training_precision(where)
