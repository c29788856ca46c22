"""Fine-tuning of a face network: settings, and one loop that can be interrupted."""

import copy
import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import CosFaceLoss
from safetensors import safe_open
from torch import Generator, Tensor, nn
from tqdm.auto import tqdm

from src import degradation, embedding, model, verification

PAUSE = 20.0  # seconds between states kept for resuming: they are 0.4 GB each, and epochs may be short
EVERY = 4  # steps between which the weights are averaged


@dataclass(frozen=True)
class Settings:
    """How a network is fine-tuned; shares of the steps run from 0 at the first to 1 at the last."""

    # schedule
    epochs: int = 45  # passes over the training photos
    most_photos: int = 150  # of one person in a pass; of a person with more, each pass shows others
    batch_size: int = 32  # photos per step
    per_identity: int = 4  # photos of one person in a batch
    patience: int = 30  # epochs without a better validation AUC after which training stops
    seed: int = 0  # of everything that is drawn
    # optimiser: AdamW; the learning rate rises linearly, then falls along a cosine
    learning_rate: float = 2e-3  # at its peak
    backbone_rate: float = 0.1  # times learning_rate, for a backbone that starts from learnt weights
    weight_decay: float = 0.05  # of matrices and kernels, not of norms
    warmup: float = 0.1  # share of the steps in which the learning rate rises
    clip: float = 5.0  # largest norm of the gradient
    averaging: float = 0.99  # decay, per step, of the running average of the weights; the average is kept
    # loss: margin softmax (CosFace, Wang et al. 2018)
    scale: float = 16.0  # of the cosines; low, as there are few people
    imprinted: bool = True  # classes start at the means of what the network, or its teacher, knows of them
    margin: float = 0.3  # taken off the cosine with the right identity, once fully there
    margin_from: float = (
        0.3  # share of the steps before the margin begins to grow: a random network can't bear it
    )
    margin_until: float = 0.6  # share of the steps after which it is fully there
    frozen: float = 0.0  # share of the backbone's weights, counted from the input, that stay as they are
    distillation: float = 5.0  # weight of 1 - cosine with the teacher's embedding, where there is a teacher
    # what the training photos go through
    clean: float = 0.85  # share of the photos that is not degraded
    chance: float = 0.5  # that an effect acts on a photo that is
    jitter: float = 0.02  # misalignment: shift as a share of the side, zoom, turn in radians
    # machine
    bfloat16: bool = True  # mixed precision on machines that are faster with it


# For a pack's own recogniser: it knows faces already, so it learns slowly and keeps its first layers.
ADAPTED = Settings(
    epochs=18,
    learning_rate=2.5e-4,
    backbone_rate=1.0,
    weight_decay=0.01,
    scale=32.0,
    margin_from=0.0,
    margin_until=0.3,
    frozen=0.4,
    distillation=0.0,
    clean=0.4,
    jitter=0.06,
)


def train(
    network: model.FaceNetwork,
    crops: np.ndarray,
    faces: pd.DataFrame,
    settings: Settings,
    teacher: np.ndarray | None = None,
    workspace: Path | None = None,
) -> Path:
    """Fine-tunes a copy of `network` on the rows of `faces` in "train"; returns the checkpoint's folder.

    crops: uint8 [N, H, W, 3] RGB, row i of `faces`. teacher: embeddings [N, T] of the crops as they are, by a
    model that knows more; the student learns to give them, through a linear map, for degraded crops.
    After each epoch the averaged weights are tried on the rows whose split is "val". The checkpoint is the
    best epoch (the last, without such rows): model.safetensors, and model.json with settings, training data
    and history. With a workspace, interrupted training goes on after its last whole epoch, to the same
    result. Raises ValueError where rows don't match, or there are no epochs or too few people to train on,
    FloatingPointError where the loss is no longer finite.
    """
    workspace = workspace or Path(tempfile.mkdtemp(prefix="finetuning-"))
    folder, state = workspace / "artefact", workspace / "state.safetensors"
    rows, val_rows = (np.flatnonzero(faces["split"] == split) for split in ("train", "val"))
    people, labels = np.unique(faces["identity"].to_numpy()[rows], return_inverse=True)
    if settings.epochs < 1:
        raise ValueError(f"epochs is {settings.epochs}: training takes at least one pass over the photos")
    if len(people) < 2:
        raise ValueError(
            f'fine-tuning needs photos of at least 2 people in "train", and there are {len(people)}'
        )

    if len(crops) != len(faces) or (teacher is not None and len(teacher) != len(faces)):
        given = f"{len(crops)} crops" + (
            "" if teacher is None else f", {len(teacher)} embeddings of the teacher"
        )
        raise ValueError(f"row i of all is one photo, but there are {len(faces)} faces, {given}")
    if teacher is not None and not np.isfinite(teacher[rows]).all():
        raise ValueError(
            "the teacher fails on photos in train: give its embeddings of our crops, which have no gaps"
        )

    where = model.device()
    autocast = torch.autocast(
        where.type, torch.bfloat16, enabled=settings.bfloat16 and _fast_bfloat16(where, network)
    )
    torch.manual_seed(settings.seed)
    network = copy.deepcopy(network).to(where).to(memory_format=torch.channels_last)
    averaged = copy.deepcopy(network)
    size = network.origin["embedding_size"]
    margin_softmax = CosFaceLoss(len(people), size, margin=settings.margin, scale=settings.scale).to(where)
    targets = F.normalize(
        torch.from_numpy(np.zeros((len(faces), 1)) if teacher is None else np.array(teacher)).float()
    )
    to_teacher = nn.Linear(size, targets.shape[1], bias=False).to(where)
    nn.init.eye_(to_teacher.weight)
    if settings.imprinted and network.graph is not None:
        _imprint(margin_softmax, torch.from_numpy(embedding.embed(crops[rows], network)), labels)
    elif settings.imprinted and teacher is not None:
        axes = torch.linalg.svd(targets[rows], full_matrices=False).Vh[:size].T
        axes = F.pad(axes, (0, size - axes.shape[1]))
        to_teacher.weight.data.copy_(axes)
        _imprint(margin_softmax, targets[rows] @ axes, labels)
    held = list(network.backbone.parameters())
    for parameter in held[: int(settings.frozen * len(held))]:
        parameter.requires_grad_(False)
    learner = nn.ModuleDict({"network": network, "margin_softmax": margin_softmax, "to_teacher": to_teacher})
    optimizer = _optimizer(learner, settings)

    history = _restore(state, learner, averaged, optimizer) if state.is_file() else []
    in_a_pass = np.minimum(np.bincount(labels), settings.most_photos).sum()
    steps = math.ceil(in_a_pass / settings.batch_size)
    total = steps * settings.epochs
    kept = time.perf_counter()
    bar = tqdm(total=total, initial=steps * len(history), desc="fine-tuning", unit="step")
    for epoch in range(len(history), settings.epochs):
        if epoch - _best(history) >= settings.patience:
            break
        started = time.perf_counter()
        seed = (
            settings.seed * 100_003 + epoch
        )  # every epoch draws afresh, so that any can be the first after a pause
        torch.manual_seed(seed)
        generator = Generator(where).manual_seed(seed)
        batches = balanced(labels, settings.batch_size, settings.per_identity, np.random.default_rng(seed))
        network.train()
        losses, hits = [], []
        for step in range(epoch * steps, (epoch + 1) * steps):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate(step / total, settings)
            margin_softmax.margin = margin(step / total, settings)
            batch = next(batches)
            images = augment(torch.from_numpy(crops[rows[batch]]).to(where), settings, generator)
            with autocast:
                embeddings = network(images)
            embeddings = embeddings.float()
            label = torch.from_numpy(labels[batch]).to(where)
            loss = margin_softmax(embeddings, label)
            if teacher is not None:
                agreement = F.cosine_similarity(to_teacher(embeddings), targets[rows[batch]].to(where))
                loss = loss + settings.distillation * (1 - agreement).mean()
            if not torch.isfinite(loss):
                bar.close()
                rescue = (
                    f"the best of the {epoch} epochs before is in {folder}" if history else "nothing is kept"
                )
                raise FloatingPointError(
                    f"the loss became {loss.item()} in epoch {epoch + 1}: {rescue}; "
                    f"try a learning_rate below {settings.learning_rate:g}"
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learner.parameters(), settings.clip)
            optimizer.step()
            # averaging every time would cost as much as the optimiser
            if (step + 1) % EVERY == 0 or step + 1 == (epoch + 1) * steps:
                _average(averaged, network, min(settings.averaging**EVERY, (1 + step) / (10 + step)))
            losses.append(loss.item())
            hits.append(
                (margin_softmax.get_logits(embeddings.detach()).argmax(1) == label).float().mean().item()
            )
            bar.update()
        history.append(
            {
                "epoch": epoch + 1,
                "loss": float(np.mean(losses)),
                "accuracy": float(np.mean(hits)),
                "val_auc": _val_auc(averaged, crops[val_rows], faces["identity"].to_numpy()[val_rows]),
                "learning_rate": optimizer.param_groups[-1]["lr"],
                "margin": margin_softmax.margin,
                "seconds": time.perf_counter() - started,
            }
        )
        bar.set_postfix({name: f"{history[-1][name]:.3f}" for name in ("loss", "accuracy", "val_auc")})
        if _best(history) == epoch + 1:
            model.save_weights(averaged, folder)
        record = {
            "epoch": _best(history),
            "settings": asdict(settings),
            "trained_on": {
                "photos": len(rows),
                "people": people.tolist(),
                "teacher": teacher is not None,
            },
            "history": history,
        }
        model.save_record(network, folder, record)
        if time.perf_counter() - kept >= PAUSE:
            _keep(state, learner, averaged, optimizer, history)
            kept = time.perf_counter()
    bar.close()
    return folder


def rate(progress: float, settings: Settings) -> float:
    """Share of the peak learning rate at `progress`, the share of the steps that are done."""
    if progress < settings.warmup:
        return progress / settings.warmup + 1e-3
    return 0.5 * (1 + math.cos(math.pi * (progress - settings.warmup) / (1 - settings.warmup)))


def margin(progress: float, settings: Settings) -> float:
    """Margin at `progress`, the share of the steps that are done."""
    grown = (progress - settings.margin_from) / max(settings.margin_until - settings.margin_from, 1e-9)
    return settings.margin * min(max(grown, 0.0), 1.0)


def balanced(
    labels: np.ndarray, batch_size: int, per_identity: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Endless batches of positions in `labels`: each identity as often, all its photos before any again."""
    photos = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    waiting_people: list[int] = []
    waiting: list[list[int]] = [[] for _ in photos]
    while True:
        batch: list[int] = []
        while len(batch) < batch_size:
            waiting_people = waiting_people or rng.permutation(len(photos)).tolist()
            label = waiting_people.pop()
            for _ in range(min(per_identity, batch_size - len(batch))):
                waiting[label] = waiting[label] or rng.permutation(photos[label]).tolist()
                batch.append(waiting[label].pop())
        yield np.array(batch)


def augment(crops: Tensor, settings: Settings, generator: Generator) -> Tensor:
    """From crops uint8 [B, H, W, 3] to a network's input float [B, 3, H, W]: misaligned, mirrored, degraded.

    A face that is hard to see is also hard to align, so landmarks and thus crops are a little off.
    """
    images = (embedding.to_images(crops) + 1) / 2
    shift_x, shift_y, zoom, turn = settings.jitter * torch.randn(
        4, len(images), generator=generator, device=images.device
    )
    mirror = torch.randint(2, (len(images),), generator=generator, device=images.device) * 2 - 1
    zoom = zoom.exp()
    top = torch.stack([mirror * zoom * turn.cos(), -zoom * turn.sin(), shift_x], 1)
    bottom = torch.stack([mirror * zoom * turn.sin(), zoom * turn.cos(), shift_y], 1)
    grid = F.affine_grid(torch.stack([top, bottom], 1), list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = degradation.degrade(images, generator, settings.clean, settings.chance)
    return (images * 2 - 1).contiguous(memory_format=torch.channels_last)


def _imprint(margin_softmax: CosFaceLoss, embeddings: Tensor, labels: np.ndarray) -> None:
    """Starts the classes at the means of what is known of them (weight imprinting, Qi et al. 2018).

    From random classes, the first steps would distort what a learnt network knows (Kumar et al. 2022).
    """
    means = [embeddings[torch.from_numpy(labels == label)].mean(0) for label in range(labels.max() + 1)]
    margin_softmax.W.data.copy_(F.normalize(torch.stack(means, 1), dim=0))


def _optimizer(learner: nn.ModuleDict, settings: Settings) -> torch.optim.Optimizer:
    network = learner["network"]
    assert isinstance(network, model.FaceNetwork)
    backbone = {id(parameter) for parameter in network.backbone.parameters()}
    slow = settings.backbone_rate if model.pretrained(network) else 1.0
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in (p for p in learner.parameters() if p.requires_grad):
        peak = settings.learning_rate * (slow if id(parameter) in backbone else 1.0)
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((peak, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": params, "peak": peak, "weight_decay": decay} for (peak, decay), params in groups.items()],
        fused=True,
    )


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves the running average of weights and batch statistics a step towards the network's."""
    mean, current = averaged.state_dict(), network.state_dict()
    floats = [name for name in mean if mean[name].is_floating_point()]
    torch._foreach_lerp_([mean[name] for name in floats], [current[name] for name in floats], 1 - decay)


def _val_auc(network: nn.Module, crops: np.ndarray, identity: np.ndarray) -> float:
    return _auc(embedding.embed(crops, network), identity) if len(crops) else math.nan


def _auc(embeddings: np.ndarray, identity: np.ndarray) -> float:
    """AUC over all pairs; NaN where there are no genuine pairs, or no impostor pairs."""
    return verification.auc(embeddings, identity) if verification.has_pairs(identity) else math.nan


def _best(history: list[dict[str, Any]]) -> int:
    """The epoch with the best validation AUC, the last of equals; the last where there is no validation."""
    return (
        max(history, key=lambda epoch: (np.nan_to_num(epoch["val_auc"]), epoch["epoch"]))["epoch"]
        if history
        else 0
    )


def _keep(
    file: Path,
    learner: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: list[dict[str, Any]],
) -> None:
    tensors = {f"learner.{name}": value for name, value in learner.state_dict().items()}
    tensors |= {f"averaged.{name}": value for name, value in averaged.state_dict().items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
    model.write_tensors(file, tensors, note=json.dumps(history))


def _restore(
    file: Path, learner: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer
) -> list[dict[str, Any]]:
    tensors = safetensors.torch.load_file(file)
    parts: dict[str, dict[str, Tensor]] = {"learner": {}, "averaged": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = value
    learner.load_state_dict(parts["learner"])
    averaged.load_state_dict(parts["averaged"])
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        i, moment = name.split(".")
        if value.ndim:  # in the parameter's memory layout, which the fused optimiser takes for granted
            value = torch.empty_like(parameters[int(i)]).copy_(value)
        moments.setdefault(int(i), {})[moment] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    with safe_open(file, "pt") as header:
        return json.loads(header.metadata()["note"])


def _fast_bfloat16(where: torch.device, network: nn.Module) -> bool:
    """Whether mixed precision pays.

    1.5 times as fast on CPUs with AVX512-BF16, slower on those without, and for depthwise convolutions.
    """
    if where.type == "cpu":
        depthwise = any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in network.modules())
        return torch.cpu._is_avx512_bf16_supported() and not depthwise
    return where.type == "cuda" and torch.cuda.is_bf16_supported()


def interpolate(
    before: model.FaceNetwork,
    tuned: model.FaceNetwork,
    crops: np.ndarray,
    faces: pd.DataFrame,
    most: float = 0.6,
    tolerance: float = 0.002,
    workspace: Path | None = None,
) -> Path:
    """Weights between those of `before` and of the checkpoint `tuned` (WiSE-FT, Wortsman et al. 2022).

    The share of the tuned weights is the one with the best AUC on "val" among those that lose at most
    `tolerance` of AUC there on pairs of high-quality photos (on all pairs, where qualities are unknown). It
    is `most` at most: what a larger share gains on these photos it loses on photos of other kinds, which
    "val" can't show.
    Returns a new checkpoint's folder; its record is that of `tuned`, with `interpolation`: the share chosen,
    and what each share gave. Raises ValueError where there are no "val" rows of two people to choose on, or
    where the networks differ.
    """
    val = faces["split"] == "val"
    clean = val & (faces["quality"] == "high")
    if not verification.has_pairs(faces["identity"][clean]):
        clean = val
    if not verification.has_pairs(faces["identity"][val]):
        raise ValueError(
            'interpolation is chosen on "val", and there are no two people with two photos of one in it'
        )
    old, new = before.cpu().state_dict(), tuned.cpu().state_dict()
    if {name: value.shape for name, value in old.items()} != {
        name: value.shape for name, value in new.items()
    }:
        raise ValueError(f"the tuned network, {tuned.origin}, is another than the one to start from")
    blend = copy.deepcopy(tuned)
    tried: list[dict[str, float]] = []
    for share in tqdm(np.linspace(0, most, 4).round(3).tolist(), "interpolating", leave=False):
        blend.load_state_dict(_between(old, new, share))
        embeddings = embedding.embed(crops[np.flatnonzero(val)], blend.to(model.device()))
        tried.append(
            {
                "share": share,
                "val_auc": _auc(embeddings, faces["identity"][val].to_numpy()),
                "clean_auc": _auc(embeddings[clean[val]], faces["identity"][clean].to_numpy()),
            }
        )
    allowed = [row for row in tried if not row["clean_auc"] < tried[0]["clean_auc"] - tolerance]
    chosen = max(allowed, key=lambda row: row["val_auc"])["share"]
    blend.cpu().load_state_dict(_between(old, new, chosen))
    target = (workspace or Path(tempfile.mkdtemp(prefix="interpolation-"))) / "artefact"
    model.save_weights(blend, target)
    record = {name: value for name, value in tuned.record.items() if name != "network"}
    model.save_record(blend, target, {**record, "interpolation": {"share": chosen, "tried": tried}})
    return target


def _between(old: dict[str, Tensor], new: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    return {
        name: torch.lerp(old[name], new[name], share) if old[name].is_floating_point() else old[name]
        for name in old
    }
