"""Every row of the comparison, fitted in little time: what tests of models and of packs share."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from src import models
from src.demo import mode
from src.models import Comparison, Model
from src.networks import finetuning, probes
from src.packs import pack
from tests.networks.small import generated

QUICK = finetuning.Settings(epochs=1, batch_size=8, per_identity=2)
QUICK_PACK = replace(finetuning.PACK, epochs=1, batch_size=8, per_identity=2)


def comparison(folder: Path) -> Comparison:
    """Six people in training, who are tested and validated too, and two others."""
    crops = generated(range(8), 12)  # so many that no single pair decides the AUC's fourth digit
    faces = pd.DataFrame(
        {
            "identity": np.repeat([f"person {i}" for i in range(8)], 12),
            "quality": np.tile(["high", "low"], 48),
            "split": np.tile(["train"] * 3 + ["val"] * 4 + ["test_seen"] * 5, 8),
            "group": np.arange(96),
            "eye_distance": 40.0,
        }
    )
    faces.loc[faces["identity"] >= "person 6", "split"] = "test_unseen"
    return Comparison(pack.load(mode.PACK), crops, faces, folder, "demo · ")


def beside(comparison: Comparison, folder: Path) -> Comparison:
    """The same with probes in the place of photos: smears of its crops, and four people who are others."""
    splits = {"train": 24, "val": 24, "test": 12}
    rows = [("smears", split) for split, count in splits.items() for _ in range(count)]
    # in so few pixels that the demo pack, too, tells them from faces
    few = [cv2.resize(crop, (3, 3), interpolation=cv2.INTER_AREA) for crop in comparison.crops[: len(rows)]]
    smears = [cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC) for small in few]
    rows += [(probes.OTHERS, split) for split in ("train", "val") for _ in range(8)]
    table = pd.DataFrame(rows, columns=["kind", "split"]).assign(identity="x", path="")
    crops = np.concatenate([smears, generated(range(20, 24), 4)])
    return replace(comparison, crops=crops, faces=table, folder=folder)


def rows(comparison: Comparison, there: Comparison) -> dict[str, Model]:
    """Every model of the comparison, by its name."""
    baseline = models.frozen(comparison)
    tuned = models.tuned_pack(comparison, baseline, QUICK_PACK)
    fine_tuned = models.fine_tuned_pack(comparison, baseline, tuned)
    before = models.resnet50(comparison, "none", input_size=32)
    resnet50 = models.fine_tuned_resnet50(comparison, before, QUICK, teacher=tuned)
    made = (
        baseline,
        models.linear_map(comparison, baseline),
        models.plda(comparison, baseline),
        fine_tuned,
        models.plda(comparison, fine_tuned, linear_map=True),
        before,
        resnet50,
        models.posterior(comparison, resnet50),
        models.fused(comparison, baseline, resnet50),
        models.open_set(comparison, baseline, fine_tuned, there),
    )
    return {model.name: model for model in made}
