"""Each row of the comparison, defined once: what it starts from, how it is fitted, what it is called.

A model is a function of crops alone: one network or several, and perhaps a map of what they give. It is
fitted on the people in training once, kept in a folder, and can be loaded on another machine.
"""

import functools
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src import artifacts, devices
from src.artifacts import cached, uses
from src.evaluation import verdict, verification
from src.limits import NotPossible, attempt
from src.networks import finetuning, fusion, interpolation, maps, network, recognisability, weights
from src.networks.embedding import embed
from src.networks.finetuning import Settings
from src.networks.loading import Nobody
from src.networks.losses import MakeLoss, cosface
from src.networks.network import FaceNetwork
from src.networks.recognisability import Recognisability

if TYPE_CHECKING:
    from src.packs.pack import Pack  # training must not need InsightFace

MODEL_FILE, MAP_FILE = "model.json", "map.safetensors"
MIRRORED = True  # whether models look at the mirror image too: all of a comparison, or none


class Model(nn.Module):
    """From crops to embeddings: its networks side by side, and a map of what they give.

    `forward` takes float [B, 3, 112, 112], RGB in [-1, 1], and returns unit rows [B, D]; `embedding.embed`
    applies it to uint8 crops. Networks go by names of their own, as several models may share one. mirrored:
    whether each network looks at the crop and at its mirror image, and gives the mean of what it sees. note:
    what the report is to say of the model.
    """

    def __init__(
        self,
        name: str,
        networks: dict[str, FaceNetwork],
        fitted: nn.Module | None = None,
        mirrored: bool = MIRRORED,
        note: str = "",
    ) -> None:
        super().__init__()
        self.name, self.mirrored, self.note = name, mirrored, note
        self.names = list(networks)
        self.networks = nn.ModuleList(networks.values())
        self.map = fitted

    def forward(self, images: Tensor) -> Tensor:
        return self.mapped(self.looks(images))

    def looks(self, images: Tensor) -> list[Tensor]:
        """What each network gives for images as of `forward`: unit rows [B, D]."""
        embeddings = [F.normalize(part(images).float()) for part in self.networks]
        if self.mirrored:
            images = images.flip(-1)
            mirror = [F.normalize(part(images).float()) for part in self.networks]
            embeddings = [F.normalize(a + b) for a, b in zip(embeddings, mirror, strict=True)]
        return embeddings

    def mapped(self, looks: list[Tensor]) -> Tensor:
        """The embeddings, unit rows [B, D], by what the networks give."""
        if self.map is None:
            return looks[0]
        with torch.autocast(looks[0].device.type, enabled=False):  # maps were fitted in single precision
            return self.map(*looks)

    @property
    def network(self) -> FaceNetwork:
        """Its first network; of most models the only one."""
        first = self.networks[0]
        assert isinstance(first, FaceNetwork)
        return first

    @property
    def history(self) -> pd.DataFrame:
        """Learning curves of its first network, one row per epoch: epoch, loss, accuracy, val_auc, ..."""
        return self.network.history


def save(model: Model, folder: Path) -> Path:
    """Writes a model to a new folder, from which `load` rebuilds it without photos; returns the folder."""
    for name, part in _networks(model).items():
        network.save(part, folder / _slug(name))
    if model.map is not None:
        weights.write(folder / MAP_FILE, model.map.state_dict())
    kind = None if model.map is None else type(model.map).__name__
    with artifacts.whole(folder / MODEL_FILE) as partial:
        about = {"mirrored": model.mirrored, "note": model.note}
        record = {"name": model.name, "networks": model.names, "map": kind, **about}
        partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return folder


def load(folder: Path) -> Model:
    """The model of a folder, on the CPU, set to evaluate. Reads numbers, executes nothing.

    Raises FileNotFoundError where the folder holds no model, ValueError where its files don't fit together.
    """
    file = folder / MODEL_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no model: {MODEL_FILE} is missing")
    record = json.loads(file.read_text(encoding="utf-8"))
    networks = {name: network.load(folder / _slug(name)) for name in record["networks"]}
    kind = record["map"]
    fitted = None if kind is None else fusion.rebuild(kind, weights.read(folder / MAP_FILE))
    mirrored, note = record.get("mirrored", False), record.get("note", "")
    return Model(record["name"], networks, fitted, mirrored, note).eval()


def _networks(model: Model) -> dict[str, FaceNetwork]:
    parts = [part for part in model.networks if isinstance(part, FaceNetwork)]
    return dict(zip(model.names, parts, strict=True))


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-")


def _saved(model: Model, *, workspace: Path) -> Path:
    return save(model, workspace / "artefact")


@uses(faces=("identity", "quality", "split"))
def _with_map(
    name: str,
    networks: dict[str, FaceNetwork],
    fit: Callable[..., nn.Module],
    embeddings: list[np.ndarray],
    faces: pd.DataFrame,
    options: dict[str, Any],
    *,
    workspace: Path,
) -> Path:
    fitted = fit(*embeddings, faces, **options)
    return save(Model(name, networks, fitted), workspace / "artefact")


@uses(faces=("candidate",))
def _of_chosen(every: np.ndarray, faces: pd.DataFrame) -> np.ndarray:
    return np.array(every[faces["candidate"]])


@dataclass(frozen=True)
class Missing:
    """A row of the comparison that these photos are too few for, and why."""

    name: str
    reason: NotPossible

    @property
    def history(self) -> NotPossible:
        """In the place of learning curves."""
        return self.reason


@dataclass(frozen=True)
class Comparison:
    """What all models of a comparison share: pack, crops, faces, and the folder in which they are kept."""

    pack: "Pack"
    crops: np.ndarray  # uint8 [N, 112, 112, 3] RGB
    faces: pd.DataFrame  # row i is crop i
    folder: Path
    label: str = ""  # before the name of every row of the report
    unknown: float = maps.UNKNOWN  # share of photos expected to show nobody in training; 0: a closed list
    every: np.ndarray | None = None  # the pack's embeddings of all faces found; `candidate` is a row of it

    @property
    def closed(self) -> str:
        """After the name of a row that takes every photo for somebody's in training."""
        return "" if self.unknown else ", closed list"

    def embed(self, model: Model) -> np.ndarray:
        """A model's embeddings of all crops, float32 [N, D], unit rows."""
        looks = self.looks(model)
        if model.map is None:
            return looks[model.names[0]]
        file = self._place("embeddings", model.name, ".npy")
        return cached(file, maps.apply, model.map, *looks.values())

    def looks(self, model: Model) -> dict[str, np.ndarray]:
        """What each network of a model gives for all crops, float32 [N, D], unit rows, by its name.

        Each network looks at the crops once, however many models share it. The pack's own recogniser does so
        in ONNX Runtime, which on processors is the faster (in torch, where only torch has a GPU), or has done
        so already, when faces were chosen.
        """
        given = {}
        for name, part in _networks(model).items():
            file, of_pack = self._place("embeddings", name, ".npy"), name == self.pack.name
            if (
                of_pack
                and self.every is not None
                and "candidate" in self.faces
                and model.mirrored == MIRRORED
            ):
                given[name] = cached(file, _of_chosen, self.every, self.faces)
            else:
                on_gpu = devices.device().type != "cpu" and self.pack.providers[0] == "CPUExecutionProvider"
                look = self.pack if of_pack and not on_gpu else part
                given[name] = cached(file, embed, self.crops, look, mirrored=model.mirrored)
        return given

    def rows(
        self,
        *models: Model | Missing,
        scores: Mapping[str, Recognisability | NotPossible] = MappingProxyType({}),
    ) -> dict[str, np.ndarray | NotPossible]:
        """The models' embeddings, or why there are none, by the names of their rows, in this order.

        With scores, as of `scores`, each embedding is as long as its photo shows much.
        """
        found: dict[str, np.ndarray | NotPossible] = {}
        for model in models:
            row = self.label + model.name
            found[row] = model.reason if isinstance(model, Missing) else self.embed(model)
            if isinstance(model, Model) and isinstance(score := scores.get(row), Recognisability):
                found[row] = self.embed(model) * score.lengths(self.looks(model))[:, None]
        return found

    def scores(
        self, probes: "Comparison", *models: Model | Missing
    ) -> dict[str, Recognisability | NotPossible]:
        """How each model tells how much a photo shows, or why it can't, by the names of their rows.

        probes: the same comparison, of the probes of `networks.probes` in the place of crops and faces.
        """
        return {
            self.label + model.name: model.reason
            if isinstance(model, Missing)
            else attempt(
                recognisability.fit, self.looks(model), probes.looks(model), self.faces, probes.faces
            )
            for model in models
        }

    def notes(self, *models: Model | Missing) -> dict[str, str]:
        """What the report is to say of them, by the names of their rows; only where there is something."""
        return {
            self.label + model.name: model.note
            for model in models
            if not isinstance(model, Missing) and model.note
        }

    def progress(self, model: Model | Missing, baseline: Model) -> str:
        """Whether fine-tuning has helped, judged on "val" alone, and what to try: see `verdict.progress`."""
        if isinstance(model, Missing):
            return f"{self.label}{model.name}: {model.reason}"
        counts = verification.val_for(verification.on_val(self.rows(baseline, model), self.faces), "val")
        report = verification.report({"val": counts}, self.label + baseline.name)
        return verdict.progress(model.history, report)

    def checkpoint(
        self, name: str, function: Callable[..., Path], *inputs: Any, **options: Any
    ) -> FaceNetwork:
        """The network that `function` leaves as a checkpoint, kept under `name`; ONNX Runtime makes room."""
        self.pack.release()
        return network.load(cached(self._place("checkpoints", name), function, *inputs, **options))

    def keep(self, model: Model) -> Model:
        """Saves a model; returns it as anybody will load it."""
        return load(cached(self._place("models", model.name), _saved, model))

    def with_map(self, name: str, fit: Callable[..., nn.Module], *bases: Model, **options: Any) -> Model:
        """The model made of the bases' networks and a map fitted on their embeddings, kept."""
        networks = {name: part for base in bases for name, part in _networks(base).items()}
        embeddings = [self.embed(base) for base in bases]
        inputs = (name, networks, fit, embeddings, self.faces, options)
        return load(cached(self._place("models", name), _with_map, *inputs))

    def forget(self, name: str) -> None:
        """Removes a kept model."""
        artifacts.forget(self._place("models", name))

    def _place(self, kind: str, name: str, suffix: str = "") -> Path:
        return self.folder / kind / (_slug(name) + suffix)


# ---------------------------------------------------------------- the rows


def row(pattern: str) -> Callable[[Callable[..., Model]], Callable[..., Any]]:
    """Names the row that a function makes, by the function's arguments, as in "{base.name} + linear map".

    The function gets the name in front. Where the photos are too few for the row, or for a model that it is
    made from, it is `Missing`.
    """

    def decorate(make: Callable[..., Model]) -> Callable[..., Any]:
        signature = inspect.signature(make)

        @functools.wraps(make)
        def made(*args: Any, **kwargs: Any) -> Model | Missing:
            arguments = signature.bind("", *args, **kwargs).arguments
            name = pattern.format(**arguments)
            missing = next((given for given in arguments.values() if isinstance(given, Missing)), None)
            if missing is None:
                try:
                    return make(name, *args, **kwargs)
                except NotPossible as reason:
                    print(f"{name}: {reason}")
                    missing = Missing(name, reason)
            arguments["comparison"].forget(name)  # an earlier run, of other photos, may have had the model
            return Missing(name, missing.reason)

        return made

    return decorate


@row("{comparison.pack.name}")
def frozen(name: str, comparison: Comparison) -> Model:
    """The pack's recogniser as it comes: what all else is measured against."""
    return comparison.keep(Model(name, {name: network.from_pack(comparison.pack.recogniser_file)}))


@row("{base.name} + linear map")
def linear_map(name: str, comparison: Comparison, base: Model) -> Model:
    """WCCN or LDA of the base's embeddings: takes seconds, and the base stays as it is."""
    return comparison.with_map(name, maps.fit_linear, base)


@row("{base.name} + PLDA{comparison.closed}")
def plda(name: str, comparison: Comparison, base: Model, linear_map: bool = False) -> Model:
    """Who of the people in training is it, or nobody: PLDA of the base's embeddings, or of a linear map's."""
    return comparison.with_map(name, maps.fit_plda, base, linear_map=linear_map, unknown=comparison.unknown)


@row("{base.name} + posterior{comparison.closed}")
def posterior(name: str, comparison: Comparison, base: Model) -> Model:
    """Who of the people in training is it, or nobody, by the cosines of a base that was trained on them."""
    return comparison.with_map(name, maps.fit_posterior, base, unknown=comparison.unknown)


@row("{second.name}, open set")
def open_set(name: str, comparison: Comparison, base: Model, second: Model, probes: Comparison) -> Model:
    """Who of the people in training is it, or nobody, told by strangers: base and second side by side.

    probes: the same comparison, of the probes of `networks.probes` in the place of crops and faces.
    """
    if not _shows_others(probes):
        raise NotPossible(
            'it learns from photos of other people: give a folder of some, or "lfw", as `strangers`'
        )
    train = (probes.faces["split"] == "train").to_numpy()
    nobody = [probes.embed(model)[train] for model in (base, second)]
    return comparison.with_map(name, maps.fit_open_set, base, second, nobody=nobody)


def _shows_others(probes: Comparison) -> bool:
    """Whether probes to learn from show other people."""
    train = (probes.faces["split"] == "train").to_numpy()
    return bool(probes.faces["kind"][train].str.startswith("others").any())


def _nobody(probes: Comparison | None) -> Nobody | None:
    """The probes to learn from, where they show other people: from smears alone nobody learns who is not."""
    if probes is None or not _shows_others(probes):
        return None
    train = np.flatnonzero(probes.faces["split"] == "train")
    return Nobody(np.array(probes.crops[train]), probes.faces["kind"].to_numpy(str)[train])


@row("{start.name} as tuned")
def tuned_pack(
    name: str,
    comparison: Comparison,
    start: Model,
    settings: Settings = finetuning.PACK,
    probes: Comparison | None = None,
) -> Model:
    """The pack's recogniser fine-tuned: it has forgotten some of what it knew. Teaches the ResNet-50.

    probes: as of `open_set`; where they show other people, it learns that there are others, too.
    """
    inputs = (start.network, comparison.crops, comparison.faces, settings)
    nobody = _nobody(probes)
    return Model(name, {name: comparison.checkpoint(name, finetuning.train, *inputs, nobody=nobody)})


@row("{start.name} fine-tuned")
def fine_tuned_pack(name: str, comparison: Comparison, start: Model, tuned: Model) -> Model:
    """Weights between those before and after tuning (WiSE-FT), as far from the old as "val" allows."""
    inputs = (start.network, tuned.network, comparison.crops, comparison.faces)
    blend = comparison.checkpoint(name, interpolation.interpolate, *inputs)
    if note := blend.record["interpolation"]["note"]:
        print(f"{name}: {note}")
    return comparison.keep(Model(name, {name: blend}))


@row("ResNet-50 before")
def resnet50(
    name: str, comparison: Comparison, start_from: str, seed: int = 0, input_size: int | None = None
) -> Model:
    """The study's network at its start; start_from and input_size as of `network.resnet50`.

    start_from may be "pack", too: the pack's own recogniser, where it is an IResNet-50, as in buffalo_l.
    Raises ValueError where it is something else.
    """
    if start_from == "pack":
        found = network.from_pack(comparison.pack.recogniser_file)
        if not network.is_iresnet50(found):
            raise ValueError(
                f'weights is "pack", but {comparison.pack.recogniser_file.name} of {comparison.pack.name} is '
                'no ResNet-50 (buffalo_l\'s w600k_r50.onnx is one): let weights be "imagenet", "none" or a '
                "file; the pack's own recogniser is fine-tuned in any case"
            )
        return Model(name, {comparison.pack.name: found})
    return Model(name, {name: network.resnet50(start_from, input_size=input_size, seed=seed)})


@row("ResNet-50 fine-tuned")
def fine_tuned_resnet50(
    name: str,
    comparison: Comparison,
    start: Model,
    settings: Settings,
    teacher: Model | None = None,
    loss: MakeLoss = cosface,
    probes: Comparison | None = None,
) -> Model:
    """The study's model: learns from the labels, and from what the teacher gives for the same photos.

    probes: as of `open_set`; where they show other people, it learns that there are others, too.
    From the pack's own recogniser it is what `fine_tuned_pack` makes of it, with the teacher as that tuned.
    """
    if start.network.origin.knows_faces:
        base = frozen(comparison)
        twin = fine_tuned_pack(comparison, base, teacher or tuned_pack(comparison, base, settings))
        if isinstance(twin, Missing):
            raise twin.reason
        note = f"the same as {comparison.label}{twin.name}, as it starts from the pack's own recogniser"
        print(f"{name}: {note}")
        return comparison.keep(Model(name, _networks(twin), note=note))
    targets = None if teacher is None else comparison.embed(teacher)
    guide = None if teacher is None else teacher.network
    inputs = (start.network, comparison.crops, comparison.faces, settings, targets, loss, guide)
    trained = comparison.checkpoint(name, finetuning.train, *inputs, nobody=_nobody(probes))
    if (passes := trained.record["settings"]["epochs"]) < settings.epochs:
        print(f"{name}: {passes} passes instead of {settings.epochs}, as each shows many photos")
    if said := finetuning.trials_in_words(trained.record):
        print(f"{name}: {said}")
    return comparison.keep(Model(name, {name: trained}))


@row("ResNet-50 + {base.name}{comparison.closed}")
def fused(name: str, comparison: Comparison, base: Model, second: Model) -> Model:
    """Posterior fusion: both say who of the people in training a photo shows, or nobody."""
    return comparison.with_map(name, fusion.fit_fusion, base, second, unknown=comparison.unknown)
