"""Every fine-tuning arm on real photos, several splits and seeds: the tables behind what README.md claims.

    python benchmarks/finetuning.py FACE_TEST_DATA --out OUT [--quick] [--sets study6 frmdb] [--arms ...]
    [--ablation]

FACE_TEST_DATA holds <set>/images folders and models/standin, a small InsightFace pack that stands in for
buffalo_l. Each run (set x split x seed x arm) leaves its rows in OUT and is not repeated; the tables are
printed from what is there. Differences are to the pack with the same crops; intervals are over people,
spreads over splits and seeds.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from src import (
    cleaning,
    dataset,
    embedding,
    faces,
    finetuning,
    insightface_pack,
    mapping,
    model,
    splitting,
    verification,
)
from src.artifacts import cached

BASE = "stand-in pack"
SETS = {  # share of people kept unseen, and the pairs that are the headline
    "study6": (0.0, "low-low"),
    "frmdb": (0.3, "high-low"),
}
STUDENT = finetuning.Settings()
ADAPTED = finetuning.ADAPTED
ABLATION = {
    "classes start at random": replace(STUDENT, imprinted=False),
    "no distillation": replace(STUDENT, distillation=0.0),
    "no degradation": replace(STUDENT, clean=1.0),
    "margin from the start": replace(STUDENT, margin_from=0.0, margin_until=0.0),
    "no margin": replace(STUDENT, margin=0.0),
    "no weight averaging": replace(STUDENT, averaging=0.0),
    "no misalignment": replace(STUDENT, jitter=0.0),
}


class Bench:
    """One set of photos with its split: what all arms share."""

    def __init__(self, data: Path, out: Path, name: str, split: int, seed: int, epochs: int = 0) -> None:
        self.pack = insightface_pack.load(data / "models" / "standin")
        self.name, self.split, self.seed, self.out, self.epochs = name, split, seed, out, epochs
        self.faces, self.crops = prepared(data, out, name, self.pack)
        columns = splitting.split(self.faces, SETS[name][0], seed=split)
        self.faces = self.faces.assign(split=columns["split"])
        self.base = cached(out / name / "base.npy", embedding.embed, self.crops, self.pack)
        generic, crops = prepared(data, out, "lfw3d", self.pack)
        self.strangers = generic["identity"].to_numpy()
        self.generic = {"lfw3d": crops, "lfw3d at 20 px": shrunk(crops, 20)}

    @cached_property
    def generic_base(self) -> dict[str, float]:
        return {test: self.generic_auc(test, self.pack) for test in self.generic}

    def generic_auc(self, test: str, network: model.FaceNetwork | insightface_pack.Pack) -> float:
        return verification.auc(embedding.embed(self.generic[test], network), self.strangers)

    @cached_property
    def teacher(self) -> np.ndarray:
        return embedding.embed(self.crops, tuned(self))

    def folder(self, arm: str) -> Path:
        return self.out / self.name / f"{arm.replace(' ', '-')}-{self.split}-{self.seed}"

    def trained(self, arm: str, network: model.FaceNetwork, settings: finetuning.Settings) -> Path:
        if self.epochs and network.graph is None:
            settings = replace(settings, epochs=self.epochs)
        settings = replace(settings, seed=self.seed)
        teacher = self.teacher if settings.distillation else None
        return cached(self.folder(arm), finetuning.train, network, self.crops, self.faces, settings, teacher)


def prepared(
    data: Path, out: Path, name: str, pack: insightface_pack.Pack
) -> tuple[pd.DataFrame, np.ndarray]:
    folder = data / name / "images"
    images = cached(out / name / "images.parquet", cleaning.clean, dataset.find(folder), folder)
    return cached(
        (out / name / "faces.parquet", out / name / "crops.npy"), faces.extract, images, folder, pack
    )


Arm = Callable[[Bench], np.ndarray | model.FaceNetwork]  # embeddings of the set, or what embeds any photo


def linear_map(bench: Bench) -> np.ndarray:
    return mapping.linear_map(bench.base, bench.faces)


def known_people(bench: Bench) -> np.ndarray:
    return mapping.known_people(bench.base, bench.faces)


def resnet50(
    bench: Bench, arm: str = "resnet50", settings: finetuning.Settings = STUDENT
) -> model.FaceNetwork:
    network = model.resnet50("none", input_size=48, seed=bench.seed)
    return model.load(bench.trained(arm, network, settings))


def resnet50_beside(bench: Bench) -> np.ndarray:
    looks = embedding.embed(bench.crops, resnet50(bench))
    return mapping.known_people(bench.base, bench.faces, looks)


def tuned(bench: Bench) -> model.FaceNetwork:
    network = model.from_pack(bench.pack.recogniser_file)
    return model.load(bench.trained("adapted", network, ADAPTED))


def interpolated(bench: Bench) -> model.FaceNetwork:
    before = model.from_pack(bench.pack.recogniser_file)
    target = bench.folder("interpolated")
    return model.load(cached(target, finetuning.interpolate, before, tuned(bench), bench.crops, bench.faces))


def adapted_known(bench: Bench) -> np.ndarray:
    between = embedding.embed(bench.crops, interpolated(bench))
    return mapping.known_people(mapping.linear_map(between, bench.faces), bench.faces, looks=between)


def low_rank(bench: Bench) -> model.FaceNetwork:
    """LoRA (Hu et al. 2022) on the recogniser's convolutions, merged afterwards; all else is held."""
    network = model.from_pack(bench.pack.recogniser_file)
    network.requires_grad_(False)
    torch.manual_seed(bench.seed)
    for part in [part for part in network.modules() if isinstance(part, nn.Conv2d) and part.groups == 1]:
        parametrize.register_parametrization(part, "weight", LowRank(part.weight))
    folder = bench.trained("low rank", network, replace(ADAPTED, frozen=0.0, learning_rate=1e-3))
    network.load_state_dict(load_file(folder / "model.safetensors"))
    for tuned_part in [part for part in network.modules() if parametrize.is_parametrized(part)]:
        parametrize.remove_parametrizations(tuned_part, "weight", leave_parametrized=True)
    return network


class LowRank(nn.Module):
    """What a convolution's weight [O, I, h, w] becomes: plus a product of rank 8, zero at first."""

    def __init__(self, weight: Tensor, rank: int = 8) -> None:
        super().__init__()
        inner = weight[0].numel()
        self.down = nn.Parameter(torch.randn(rank, inner) / inner**0.5)
        self.up = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)


ARMS: dict[str, Arm] = {
    "linear map": linear_map,
    "known people": known_people,
    "adapted, as tuned": tuned,
    "adapted": interpolated,
    "adapted, known people": adapted_known,
    "adapted, low rank": low_rank,
    "ResNet-50": resnet50,  # after its teacher, the recogniser as tuned, so that its time is its own
    "ResNet-50 beside the pack": resnet50_beside,
}
ABLATED: dict[str, Arm] = {
    arm: partial(resnet50, arm=arm, settings=settings) for arm, settings in ABLATION.items()
}


def shrunk(crops: np.ndarray, side: int) -> np.ndarray:
    """Crops as they look after `side` x `side` pixels."""

    def one(crop: np.ndarray) -> np.ndarray:
        small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, crop.shape[1::-1], interpolation=cv2.INTER_CUBIC)

    return np.stack([one(crop) for crop in crops])


def measured(bench: Bench, arm: str, function: Arm) -> pd.DataFrame:
    """The report's rows for an arm and the baseline, and how well generic photos are still told apart."""
    started = time.perf_counter()
    found = function(bench)
    embeddings = found if isinstance(found, np.ndarray) else embedding.embed(bench.crops, found)
    seconds = time.perf_counter() - started
    tests = {
        name: verification.trials(bench.faces, name)
        for name in ("test_seen", "test_unseen")
        if (bench.faces["split"] == name).any()
    }
    rows = verification.report(verification.evaluate({BASE: bench.base, arm: embeddings}, tests))
    if not isinstance(found, np.ndarray):
        for test, old in bench.generic_base.items():
            auc = bench.generic_auc(test, found)
            line = {"test": test, "quality": "all"}
            more = [{"model": BASE, "auc": old, **line}]
            more.append({"model": arm, "auc": auc, "auc_difference": auc - old, **line})
            rows = pd.concat([rows, pd.DataFrame(more)], ignore_index=True)
    return rows.assign(set=bench.name, split=bench.split, seed=bench.seed, seconds=seconds)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Means and spreads over splits and seeds; `fold`: how many times smaller 1 - AUC is than the pack's."""
    key = ["set", "test", "quality", "split", "seed"]
    base = rows[rows["model"] == BASE].drop_duplicates(key).set_index(key)["auc"].rename("base")
    rows = rows[rows["model"] != BASE].join(base, on=key)
    rows["fold"] = (1 - rows["base"]) / (1 - rows["auc"])
    rows["above_0"] = rows["auc_difference_low"] > 0
    found = rows.groupby(["set", "test", "quality", "model"]).agg(
        runs=("auc", "size"),
        base=("base", "mean"),
        auc=("auc", "mean"),
        spread=("auc", "std"),
        gain=("auc_difference", "mean"),
        least=("auc_difference", "min"),
        above_0=("above_0", "mean"),
        fold=("fold", "median"),
        seconds=("seconds", "max"),
    )
    return found.round(4)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", default=os.environ.get("FACE_TEST_DATA"))
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps runs, networks and tables")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--arms", nargs="+", choices=ARMS | ABLATED, default=list(ARMS))
    parser.add_argument(
        "--ablation", action="store_true", help="ResNet-50 with one ingredient less at a time, too"
    )
    parser.add_argument("--epochs", type=int, default=0, help="of ResNet-50, if not as many as usual")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one split and seed")
    given = parser.parse_args()
    if given.data is None:
        parser.error("say where the photos are, on the command line or in FACE_TEST_DATA")
    names = [*given.arms, *(ABLATED if given.ablation else [])]
    given.out.mkdir(parents=True, exist_ok=True)
    parts = []
    for split in range(1 if given.quick else given.splits):
        for seed in range(1 if given.quick else given.seeds):
            for name in given.sets:
                bench = None
                for arm in names:
                    file = given.out / name / f"{arm.replace(' ', '-')}-{split}-{seed}.csv"
                    if not file.is_file():
                        bench = bench or Bench(given.data, given.out, name, split, seed, given.epochs)
                        rows = measured(bench, arm, (ARMS | ABLATED)[arm])
                        rows.to_csv(file.with_suffix(".partial"), index=False)
                        file.with_suffix(".partial").replace(file)
                    parts.append(pd.read_csv(file))
    found = table(pd.concat(parts, ignore_index=True))
    found.to_csv(given.out / "finetuning.csv")
    with pd.option_context("display.width", 200, "display.max_rows", None, "display.max_columns", None):
        for name, (_, headline) in SETS.items():
            for (test, quality), part in found.groupby(["test", "quality"]):
                if name in given.sets and quality in (headline, "high-high", "all"):
                    chosen = part.loc[name] if name in part.index.get_level_values(0) else None
                    if chosen is not None:
                        print(f"\n{name}, {test}, {quality} pairs\n{chosen.droplevel([0, 1]).to_string()}")
    print(json.dumps({"runs": len(parts), "table": str(given.out / "finetuning.csv")}))


if __name__ == "__main__":
    main()
