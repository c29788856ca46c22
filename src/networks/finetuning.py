"""Fine-tuning of a face network: a learner, one epoch, and a loop that can be interrupted."""

import copy
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Generator, Tensor, nn
from tqdm.auto import tqdm

from src import artifacts, devices, workers
from src.artifacts import uses
from src.evaluation import choosing
from src.networks import embedding, losses, network, sharing, stepping, weights
from src.networks import hints as hinting
from src.networks.loading import (
    Nobody,
    TrainingData,
    augment,
    batches_of,
    in_a_pass,
    shown,
    steps_of,
    training_data,
    views,
)
from src.networks.network import FaceNetwork
from src.networks.recipes import PACK as PACK
from src.networks.recipes import Settings as Settings
from src.networks.recipes import within_reach

PAUSE = 20.0  # seconds between states kept for resuming: they are 0.4 GB each, and epochs may be short
TURNED = (1.0, 0.75, 0.5, 0.25, 0.0)  # shares of what tells nobody from people, that an embedding may lack
NEAR = 0.002  # of AUC on "val" that may be lost for a smaller one: with more of it, strangers are told better
SEEN_OF_NOBODY = 64  # photos of nobody that show where a network puts them
EVERY = 4  # steps between which the weights are averaged

Line = dict[str, Any]  # of a history


@uses(faces=("identity", "split"))
def train(
    start: FaceNetwork,
    crops: np.ndarray,
    faces: pd.DataFrame,
    settings: Settings,
    teacher: np.ndarray | None = None,
    loss: losses.MakeLoss = losses.cosface,
    guide: FaceNetwork | None = None,
    nobody: Nobody | None = None,
    *,
    workspace: Path,
) -> Path:
    """Fine-tunes a copy of `start` on the rows of `faces` in "train"; returns the checkpoint's folder.

    crops: uint8 [N, H, W, 3] RGB, row i of `faces`. teacher: embeddings [N, T] of the crops as they are, by a
    model that knows more; the student learns to give them, through a linear map, for degraded crops
    (distillation, Hinton et al. 2015). loss: makes the loss, see `losses`. guide: the teacher's network,
    whose feature maps a ResNet-50 learns, too: see `hints`.
    nobody: photos of nobody in training, one more class: else a network sees its people everywhere. To a
    ResNet-50 two bad photos would then be alike as both may show nobody; so its embeddings are turned from
    that class again, as little as "val" needs (`TURNED`), which the record says (`turned`).
    There are fewer epochs where a set is large: see `recipes.within_reach`.
    After each epoch the averaged weights are tried on the rows whose split is "val", on both questions that
    it asks (`choosing.aucs`). The checkpoint is the best epoch (the last, without such rows), with settings,
    training data and history; it is written when training ends. Training that was interrupted goes on from
    what is in `workspace`, after its last kept epoch: there, one file holds the state, the best weights so
    far and their history, which so never part. Where a cluster is joined, its workers share each batch; so do
    processes in a `sharing.group`.
    Raises ValueError where rows don't match or there are no epochs, NotPossible where there are too few
    people to train on, FloatingPointError where the loss is no longer finite.
    """
    if workers.joined():
        given = {"start": start, "faces": faces, "settings": settings, "teacher": teacher, "loss": loss}
        given |= {"guide": guide, "nobody": nobody}
        return sharing.on_cluster(train, crops, settings.batch_size, workspace, **given)
    data = training_data(crops, faces, settings, teacher)
    settings = within_reach(settings, in_a_pass(data, settings), devices.device().type != "cpu")
    if guide is not None and settings.hints and hinting.stages(start):
        guide = copy.deepcopy(guide).to(devices.device())
        data = replace(data, hints=hinting.give(guide, crops, data.rows, settings.seed))
    if settings.nobody:
        data = replace(data, nobody=nobody)
    settings, trials = _choose_rate(start, data, settings, loss, workspace / "trials.json")
    folder, state = workspace / "artefact", workspace / "state.safetensors"
    learner = Learner(start, data, settings, loss)
    history = learner.restore(state) if state.is_file() else []
    steps, batches = steps_of(data, settings), batches_of(data, settings, len(history))
    kept = time.perf_counter()
    bar = devices.Bar(
        total=steps * settings.epochs, initial=steps * len(history), desc="fine-tuning", unit="step"
    )
    with devices.kept_memory(), bar:
        for epoch in range(len(history), settings.epochs):
            if epoch - _best(history) >= settings.patience:
                break
            try:
                history.append(_epoch(learner, data, batches, epoch, steps, bar))
            except FloatingPointError as error:
                rescue = "nothing is kept"
                if history:
                    _finish(learner.best, data, folder, _record(data, settings, trials, history))
                    rescue = f"the best of the {epoch} epochs before is in {folder}"
                raise FloatingPointError(
                    f"{error}: {rescue}; try a learning_rate below {settings.learning_rate:g}"
                ) from None
            bar.set_postfix({name: f"{history[-1][name]:.3f}" for name in ("loss", "accuracy", "val_auc")})
            if _best(history) == epoch + 1:
                learner.best.load_state_dict(learner.averaged.state_dict())
            if sharing.grouped() or time.perf_counter() - kept >= PAUSE:
                learner.keep(state, history)
                kept = time.perf_counter()
    return _finish(learner.best, data, folder, _record(data, settings, trials, history))


class Learner:
    """A network in training: its loss, the map to its teacher, the optimiser, the average of its weights.

    `best` is what the average was after the best epoch.
    """

    def __init__(
        self, start: FaceNetwork, data: TrainingData, settings: Settings, make_loss: losses.MakeLoss
    ) -> None:
        self.settings = settings
        self.device = devices.device()
        half = stepping.precision(self.device, start) if settings.bfloat16 else torch.float32
        self.stepper = stepping.Stepper(self.device, half)
        torch.manual_seed(settings.seed)
        self.network = copy.deepcopy(start).to(self.device).to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.network)
        self.best = copy.deepcopy(self.network)
        size, targets = start.origin.embedding_size, data.targets
        self.people = len(data.people)
        classes = self.people + (data.nobody is not None)
        self.loss = make_loss(classes, size, settings.margin, settings.scale).to(self.device)
        self.full_margin = getattr(self.loss, "margin", None)
        self.to_teacher = nn.Linear(size, 1 if targets is None else targets.shape[1], bias=False)
        self.to_teacher.to(self.device)
        nn.init.eye_(self.to_teacher.weight)
        if settings.imprinting:
            self._imprint(data)
        backbone = list(self.network.backbone.parameters())
        for parameter in backbone[: int(settings.frozen * len(backbone))]:
            parameter.requires_grad_(False)
        self.trained = nn.ModuleDict(
            {"network": self.network, "loss": self.loss, "to_teacher": self.to_teacher}
        )
        self.followed = np.empty(0, int) if data.hints is None else data.hints.row
        if data.hints is not None:
            self.trained["hints"] = hinting.Follower(self.network, data.hints).to(self.device)
        self.shared = sharing.shared(self.trained)
        self.optimizer = self._optimizer()

    def _imprint(self, data: TrainingData) -> None:
        """Classes start at what is known of them: by the network, or else by its teacher."""
        size, targets = self.network.origin.embedding_size, data.targets
        if self.network.origin.knows_faces:
            known = torch.from_numpy(embedding.embed(data.crops[data.rows], self.network))
        elif targets is not None:
            axes = torch.linalg.svd(targets[data.rows], full_matrices=False).Vh[:size].T
            axes = F.pad(axes, (0, size - axes.shape[1]))
            self.to_teacher.weight.data.copy_(axes)
            known = targets[data.rows] @ axes
        else:
            return
        labels = data.labels
        if data.nobody is not None:
            if self.network.origin.knows_faces:
                nobody = torch.from_numpy(_of_nobody(self.network, data.nobody))
            else:
                nobody = -known.mean(0)  # opposite to all that is known
            known, labels = torch.cat([known, nobody[None]]), np.append(labels, self.people)
        losses.imprint(self.loss, known, labels)

    def _optimizer(self) -> torch.optim.Optimizer:
        backbone = {id(parameter) for parameter in self.network.backbone.parameters()}
        slow = self.settings.backbone_rate if self.network.origin.learnt else 1.0
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter in (p for p in self.trained.parameters() if p.requires_grad):
            peak = self.settings.learning_rate * (slow if id(parameter) in backbone else 1.0)
            decay = self.settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((peak, decay), []).append(parameter)
        return torch.optim.AdamW(
            [
                {"params": parameters, "peak": peak, "weight_decay": decay}
                for (peak, decay), parameters in groups.items()
            ],
            fused=True,
        )

    def schedule(self, progress: float) -> None:
        """Sets learning rates and margin for `progress`, the share of the steps that are done."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate(progress, self.settings)
        if self.full_margin is not None:
            self.loss.margin = self.full_margin * margin_share(progress, self.settings)

    def step(
        self, images: Tensor, labels: Tensor, targets: Tensor | None, batch: np.ndarray, moved: Tensor
    ) -> tuple[float, float]:
        """One step on images float [B, 3, H, W], labels [B] and the teacher's embeddings [B, T].

        batch, moved: which photos these are and how they were moved, as of `hints.Follower`; -1 shows nobody,
        of which the teacher says nothing. Returns loss and accuracy. A loss that is not finite changes
        nothing. Of several processes each takes its part.
        """
        mine = sharing.part(len(images))
        known, hinted = (
            _weights(which, mine).to(images.device) for which in (batch >= 0, np.isin(batch, self.followed))
        )
        images, labels, batch, moved = images[mine], labels[mine], batch[mine], moved[mine]
        targets = None if targets is None else targets[mine]

        def loss_of(part: slice) -> tuple[Tensor, Tensor]:
            with self.stepper.autocast():
                embeddings = self.network(images[part])
            embeddings = embeddings.float()
            loss = self.loss(embeddings, labels[part])
            if targets is not None and (here := known[part] > 0).any():
                said = self.to_teacher(embeddings[here])
                agreement = F.cosine_similarity(said, targets[part][here])
                weight = self.settings.distillation * known[part].mean()
                loss = loss + weight * (1 - agreement).mean()
            if "hints" in self.trained:
                with self.stepper.autocast():
                    apart = self.trained["hints"](batch[part], moved[part])
                loss = loss + self.settings.hints * hinted[part].mean() * apart
            return loss, embeddings

        of_all = partial(self.shared, loss_of)
        loss, embeddings = self.stepper.gradients(of_all, self.optimizer, len(images))
        if not math.isfinite(loss):
            return loss, math.nan
        self.stepper.update(self.optimizer, self.trained.parameters(), self.settings.clip)
        right = losses.accuracy(self.loss, embeddings[known > 0], labels[known > 0])
        return sharing.mean(loss, right, int((known > 0).sum()))

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Moves the running average of weights and batch statistics towards the network's."""
        decay = min(self.settings.averaging**EVERY, (1 + step) / (10 + step))
        mean, current = self.averaged.state_dict(), self.network.state_dict()
        floats = [name for name in mean if mean[name].is_floating_point()]
        torch._foreach_lerp_([mean[name] for name in floats], [current[name] for name in floats], 1 - decay)

    def keep(self, file: Path, history: list[Line]) -> None:
        """Writes all that training needs to go on from here, whole or not at all."""
        if not sharing.first():
            return
        tensors = {f"trained.{name}": value for name, value in self.trained.state_dict().items()}
        tensors |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
        weights.write(file, tensors, note=json.dumps(history))

    def restore(self, file: Path) -> list[Line]:
        """Reads what `keep` wrote; returns the history."""
        parts: dict[str, dict[str, Tensor]] = {
            "trained": {}, "averaged": {}, "best": {}, "optimizer": {},
        }  # fmt: skip
        for name, value in weights.read(file).items():
            part, rest = name.split(".", 1)
            parts[part][rest] = value
        self.trained.load_state_dict(parts["trained"])
        self.averaged.load_state_dict(parts["averaged"])
        self.best.load_state_dict(parts["best"])
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            i, moment = name.split(".")
            if value.ndim:  # in the parameter's memory layout, which the fused optimiser takes for granted
                value = torch.empty_like(parameters[int(i)]).copy_(value)
            moments.setdefault(int(i), {})[moment] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        with safe_open(file, "pt") as header:
            return json.loads(header.metadata()["note"])


def _weights(which: np.ndarray, mine: slice) -> Tensor:
    """Of the photos that are this process's, float32: those that a mean is of, 0 for the others.

    which: bool, of the batch. A mean over such photos of a part of the batch, times that of their weights, is
    the part's share of the mean over such photos of the whole batch.
    """
    return torch.from_numpy(which[mine]).float() / max(float(which.mean()), 1e-9)


def _choose_rate(
    start: FaceNetwork, data: TrainingData, settings: Settings, loss: losses.MakeLoss, file: Path
) -> tuple[Settings, list[Line]]:
    """The settings with the `backbone_rate` that does best on "val" in a short training of its own.

    Returns what each did, too: backbone_rate, epochs, val_auc; kept in `file`, so that none is tried twice.
    Nothing is tried where the backbone starts from random weights, or "val" has no pairs: the settings' own
    rate stays.
    """
    if not (start.origin.learnt and settings.try_rates and choosing.parts(data.asked)):
        return settings, []
    trials: list[Line] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    epochs = max(1, round(settings.trial * settings.epochs))
    for rate_tried in settings.try_rates[len(trials) :]:
        short = replace(settings, backbone_rate=rate_tried, epochs=epochs)
        learner, steps, batches = (
            Learner(start, data, short, loss),
            steps_of(data, short),
            batches_of(data, short),
        )
        with tqdm(total=steps * epochs, desc=f"trying rate {rate_tried:g}", unit="step", leave=False) as bar:
            try:
                val_auc = [
                    _epoch(learner, data, batches, epoch, steps, bar)["val_auc"] for epoch in range(epochs)
                ][-1]
            except FloatingPointError:
                val_auc = 0.0
        trials.append({"backbone_rate": rate_tried, "epochs": epochs, "val_auc": val_auc})
        if sharing.first():
            with artifacts.whole(file) as whole:
                whole.write_text(json.dumps(trials), encoding="utf-8")
    best = max(trials, key=lambda line: line["val_auc"])["backbone_rate"]
    return replace(settings, backbone_rate=best), trials


def trials_in_words(record: Mapping[str, Any]) -> str:
    """Which rate of the backbone short trials have chosen, and what each gave; "" where none were made."""
    if not (trials := record.get("trials")):
        return ""
    tried = ", ".join(f"{line['backbone_rate']:g} gives AUC {line['val_auc']:.3f}" for line in trials)
    chosen = record["settings"]["backbone_rate"]
    return (
        f"its learnt layers get {chosen:g} times the learning rate, as short trials of "
        f"{trials[0]['epochs']} passes on val say: {tried}"
    )


def _epoch(
    learner: Learner, data: TrainingData, batches: Iterator[np.ndarray], epoch: int, steps: int, bar: tqdm
) -> Line:
    """One pass over the training photos, and its line of the history. Raises FloatingPointError."""
    settings, started = learner.settings, time.perf_counter()
    # every epoch draws afresh, so that any can be the first after a pause
    seed = settings.seed * 100_003 + epoch
    torch.manual_seed(seed)
    # Apple's GPU lacks a dozen of the operations that photos are made worse with
    where = torch.device("cpu") if learner.device.type == "mps" else learner.device
    generator = Generator(where).manual_seed(seed)
    rng = np.random.default_rng((seed, 1))
    learner.network.train()
    results = []
    for step in range(epoch * steps, (epoch + 1) * steps):
        learner.schedule(step / (steps * settings.epochs))
        crops, classes, batch = shown(data, next(batches), settings, rng)
        moved = views(len(batch), settings, generator)
        images = augment(torch.from_numpy(crops).to(where), settings, generator, moved).to(learner.device)
        labels = torch.from_numpy(classes).to(learner.device)
        targets = None if data.targets is None else data.targets[data.rows[batch]].to(learner.device)
        results.append(learner.step(images, labels, targets, batch, moved))
        if not math.isfinite(results[-1][0]):
            raise FloatingPointError(f"the loss became {results[-1][0]} in epoch {epoch + 1}")
        # averaging every time would cost as much as the optimiser
        if (step + 1) % EVERY == 0 or step + 1 == (epoch + 1) * steps:
            learner.average(step)
        bar.update()
    loss, accuracy = np.mean(results, axis=0).tolist()
    return {
        "epoch": epoch + 1,
        "loss": loss,
        "accuracy": accuracy,
        **sharing.agreed(_val_aucs(learner.averaged, data)),
        "learning_rate": learner.optimizer.param_groups[-1]["lr"],
        "margin": getattr(learner.loss, "margin", math.nan),
        "seconds": time.perf_counter() - started,
    }


def _record(
    data: TrainingData, settings: Settings, trials: list[Line], history: list[Line]
) -> dict[str, Any]:
    trained_on = {"photos": len(data.rows), "people": data.people, "teacher": data.targets is not None}
    return {
        "epoch": _best(history),
        "settings": asdict(settings),
        "trials": trials,
        "trained_on": trained_on,
        "history": history,
    }


def _val_aucs(averaged: FaceNetwork, data: TrainingData) -> dict[str, float]:
    """What val says of a network; of what it gives when turned from nobody, where that is a class."""
    if not choosing.parts(data.asked):
        return choosing.aucs(np.empty(0), data.asked)
    embeddings = embedding.embed(data.crops[choosing.val(data.asked)], averaged)
    if data.nobody is not None and network.can_be_turned(averaged):
        embeddings = _turned(embeddings, _of_nobody(averaged, data.nobody), TURNED[0])
    return choosing.aucs(embeddings, data.asked)


def _of_nobody(given: FaceNetwork, nobody: Nobody) -> np.ndarray:
    """Where a network puts photos of nobody: a unit vector, float32 [D]."""
    some = np.random.default_rng(0).permutation(len(nobody.crops))[:SEEN_OF_NOBODY]
    return embedding.unit_rows(embedding.embed(nobody.crops[some], given).mean(0, keepdims=True))[0]


def _turned(embeddings: np.ndarray, along: np.ndarray, share: float) -> np.ndarray:
    """Unit rows [n, D] without a share of what they say along a unit vector [D]."""
    return embedding.unit_rows(embeddings - share * (embeddings @ along)[:, None] * along)


def _finish(best: FaceNetwork, data: TrainingData, folder: Path, record: dict[str, Any]) -> Path:
    """Writes the checkpoint of the best weights, turned from nobody, where that was a class."""
    if data.nobody is not None and network.can_be_turned(best):
        along, share = _of_nobody(best, data.nobody), TURNED[0]
        if choosing.parts(data.asked):
            embeddings = embedding.embed(data.crops[choosing.val(data.asked)], best)
            aucs = [choosing.aucs(_turned(embeddings, along, s), data.asked)["val_auc"] for s in TURNED]
            share = TURNED[int(np.flatnonzero(np.array(aucs) >= max(aucs) - NEAR)[-1])]
        best, record = network.turned_from(best, along, share), {**record, "turned": share}
    return network.save(best, folder, record) if sharing.first() else folder


def _best(history: list[Line]) -> int:
    """The epoch with the best validation AUC, the last of equals; the last where there is no validation."""
    if not history:
        return 0
    return max(history, key=lambda line: (np.nan_to_num(line["val_auc"]), line["epoch"]))["epoch"]


def rate(progress: float, settings: Settings) -> float:
    """Share of the peak learning rate at `progress`, the share of the steps that are done."""
    if progress < settings.warmup:
        return progress / settings.warmup + 1e-3
    return 0.5 * (1 + math.cos(math.pi * (progress - settings.warmup) / (1 - settings.warmup)))


def margin_share(progress: float, settings: Settings) -> float:
    """Share of the margin that is there at `progress`, the share of the steps that are done."""
    grown = (progress - settings.margin_from) / max(settings.margin_until - settings.margin_from, 1e-9)
    return min(max(grown, 0.0), 1.0)
