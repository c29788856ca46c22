"""Every fine-tuning arm on real photos, several splits and seeds: the tables of benchmarks/README.md.

    python benchmarks/finetuning.py FACE_TEST_DATA --out OUT [--quick] [--sets study6 frmdb] [--arms ...]
    [--ablation]

FACE_TEST_DATA holds <set>/images folders, models/standin, a small InsightFace pack that stands in for
buffalo_l, and models/resnet50_tiny.safetensors, a ResNet-50 that knows photos of other things, in place of
ImageNet's. Each run (set x split x seed x arm) leaves its rows in OUT and is not repeated; the tables are
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
from torch import Tensor, nn
from torch.nn.utils import parametrize

from src import models
from src.artifacts import cached
from src.evaluation import verification
from src.models import Model
from src.networks import finetuning, maps, network, recipes, weights
from src.networks.embedding import embed
from src.packs import faces as face_finding
from src.packs import pack as packs
from src.photos import cleaning, finding, splitting

BASE = "stand-in pack"
SETS = {  # share of people kept unseen, and the pairs that are the headline
    "study6": (0.0, "low-low"),
    "frmdb": (0.3, "high-low"),
}
LEARNT = Path("models") / "resnet50_tiny.safetensors"
RESNET50 = recipes.RECIPES["photos"]
ABLATION = {
    "classes start at random": replace(RESNET50, imprinting=False),
    "no distillation": replace(RESNET50, distillation=0.0, hints=0.0),
    "no hints": replace(RESNET50, hints=0.0),
    "no degradation": replace(RESNET50, clean=1.0),
    "margin from the start": replace(RESNET50, margin_from=0.0, margin_until=0.0),
    "no margin": replace(RESNET50, margin=0.0),
    "no weight averaging": replace(RESNET50, averaging=0.0),
    "no misalignment": replace(RESNET50, jitter=0.0),
}


class Bench:
    """One set of photos with its split: what all arms share."""

    def __init__(self, data: Path, out: Path, name: str, split: int, seed: int, epochs: int = 0) -> None:
        pack = packs.load(data / "models" / "standin")
        self.name, self.split, self.seed, self.epochs = name, split, seed, epochs
        self.learnt = str(data / LEARNT)
        faces, crops = prepared(data, out, name, pack)
        faces = faces.assign(split=splitting.split(faces, SETS[name][0], seed=split)["split"])
        unknown = maps.expected_unknown(SETS[name][0])
        self.comparison = models.Comparison(pack, crops, faces, out / name / f"{split}-{seed}", "", unknown)
        generic, generic_crops = prepared(data, out, "lfw3d", pack)
        self.strangers = generic["identity"].to_numpy()
        self.generic = {"lfw3d": generic_crops, "lfw3d at 20 px": shrunk(generic_crops, 20)}

    @cached_property
    def base(self) -> Model:
        return models.frozen(self.comparison)

    @cached_property
    def generic_base(self) -> dict[str, float]:
        return {test: self.generic_auc(test, self.base) for test in self.generic}

    def generic_auc(self, test: str, model: Model) -> float:
        return verification.auc(embed(self.generic[test], model), self.strangers)


def prepared(data: Path, out: Path, name: str, pack: packs.Pack) -> tuple[pd.DataFrame, np.ndarray]:
    folder = data / name / "images"
    images = cached(out / name / "images.parquet", cleaning.clean, finding.find(folder), folder)
    extracted = (out / name / "found.parquet", out / name / "crops.npy")
    found, crops = cached(extracted, face_finding.extract, images, folder, pack)
    return face_finding.table(images, found), crops


Arm = Callable[[Bench], Model]


def linear_map(bench: Bench) -> Model:
    return models.linear_map(bench.comparison, bench.base)


def plda(bench: Bench) -> Model:
    return models.plda(bench.comparison, bench.base)


def tuned(bench: Bench) -> Model:
    return models.tuned_pack(bench.comparison, bench.base, replace(finetuning.PACK, seed=bench.seed))


def fine_tuned(bench: Bench) -> Model:
    return models.fine_tuned_pack(bench.comparison, bench.base, tuned(bench))


def fine_tuned_plda(bench: Bench) -> Model:
    return models.plda(bench.comparison, fine_tuned(bench), linear_map=True)


def resnet50(
    bench: Bench, settings: finetuning.Settings = RESNET50, folder: str = "", start: str = ""
) -> Model:
    settings = replace(settings, seed=bench.seed, epochs=bench.epochs or settings.epochs)
    teacher = tuned(bench) if settings.distillation else None
    comparison = replace(bench.comparison, folder=bench.comparison.folder / folder)
    before = models.resnet50(comparison, start or bench.learnt, bench.seed, input_size=64)
    return models.fine_tuned_resnet50(comparison, before, settings, teacher)


def from_random(bench: Bench) -> Model:
    return resnet50(bench, recipes.RECIPES["nothing"], "random", "none")


def posterior(bench: Bench, base: Arm = resnet50, folder: str = "") -> Model:
    comparison = replace(bench.comparison, folder=bench.comparison.folder / folder)
    return models.posterior(comparison, base(bench))


def fused(bench: Bench) -> Model:
    return models.fused(bench.comparison, bench.base, resnet50(bench))


def low_rank(bench: Bench) -> Model:
    """LoRA (Hu et al. 2022) on the recogniser's convolutions, merged afterwards; all else is held."""
    start = network.from_pack(bench.comparison.pack.recogniser_file)
    start.requires_grad_(False)
    torch.manual_seed(bench.seed)
    for conv in [part for part in start.modules() if isinstance(part, nn.Conv2d) and part.groups == 1]:
        parametrize.register_parametrization(conv, "weight", LowRank(conv.weight))
    settings = replace(finetuning.PACK, frozen=0.0, learning_rate=1e-3, seed=bench.seed)
    comparison = bench.comparison
    inputs = (finetuning.train, start, comparison.crops, comparison.faces, settings)
    folder = cached(comparison.folder / "checkpoints" / "low-rank", *inputs)
    start.load_state_dict(weights.read(folder / network.WEIGHTS_FILE))
    for part in [part for part in start.modules() if parametrize.is_parametrized(part)]:
        parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
    return Model("low rank", {"low rank": start})


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
    "pack + linear map": linear_map,
    "pack + PLDA": plda,
    "pack as tuned": tuned,
    "pack fine-tuned": fine_tuned,
    "pack fine-tuned + PLDA": fine_tuned_plda,
    "pack fine-tuned, low rank": low_rank,
    "ResNet-50 fine-tuned": resnet50,  # after its teacher, so that its time is its own
    "ResNet-50 fine-tuned + posterior": posterior,
    "ResNet-50 fine-tuned, random weights": from_random,
    "ResNet-50 fine-tuned + posterior, random weights": partial(posterior, base=from_random, folder="random"),
    "ResNet-50 + pack": fused,
}
ABLATED: dict[str, Arm] = {
    arm: partial(resnet50, settings=settings, folder=arm) for arm, settings in ABLATION.items()
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
    model = function(bench)
    embeddings = bench.comparison.embed(model)
    seconds = time.perf_counter() - started
    faces = bench.comparison.faces
    tests = {
        name: verification.trials(faces, name)
        for name in ("test_seen", "test_unseen")
        if (faces["split"] == name).any()
    }
    base = bench.comparison.embed(bench.base)
    rows = verification.report(verification.evaluate({BASE: base, arm: embeddings}, tests))
    for test, old in bench.generic_base.items():
        auc = bench.generic_auc(test, model)
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
