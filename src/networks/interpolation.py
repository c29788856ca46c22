"""Weights between those of a network and of the same network fine-tuned (WiSE-FT)."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from src.artifacts import uses
from src.evaluation import choosing, verification
from src.networks import embedding, network
from src.networks.network import FaceNetwork

Weights = dict[str, Tensor]

DEFAULT = 0.4  # share of the tuned weights where there is no "val" to choose it on
LARGEST = 0.6  # share of the tuned weights: what a larger one gains on these photos it loses on others
TOLERANCE = 0.002  # of AUC on good photos of "val" that may be lost


@uses(faces=("identity", "quality", "split"))
def interpolate(
    before: FaceNetwork,
    tuned: FaceNetwork,
    crops: np.ndarray,
    faces: pd.DataFrame,
    largest: float = LARGEST,
    tolerance: float = TOLERANCE,
    *,
    workspace: Path,
) -> Path:
    """Weights between those of `before` and of `tuned` (WiSE-FT, Wortsman et al. 2022), as a checkpoint.

    crops: uint8 [N, H, W, 3] RGB, row i of `faces`. The share of the tuned weights is the one with the best
    AUC on "val" (the mean of its two questions, see `choosing.aucs`) among those that lose at most
    `tolerance` of AUC there on pairs of high-quality photos (on all pairs, where qualities are unknown). It
    is `largest` at most, as "val" can't show what is lost on photos of other kinds; and it is `DEFAULT` where
    "val" has no pairs.
    Returns the checkpoint's folder; its record is that of `tuned`, with `interpolation`: the share chosen,
    what each share gave, and a `note` where there was nothing to choose on. Raises ValueError where the
    networks differ.
    """
    val = faces["split"] == "val"
    clean = val & (faces["quality"] == "high")
    if not verification.has_pairs(faces["identity"][clean]):
        clean = val
    old, new = before.cpu().state_dict(), tuned.cpu().state_dict()
    if {name: value.shape for name, value in old.items()} != {
        name: value.shape for name, value in new.items()
    }:
        raise ValueError(f"the tuned network, {tuned.origin}, is another than the one to start from")
    blend = copy.deepcopy(tuned)
    if not verification.has_pairs(faces["identity"][val]):
        note = f'"val" has no two people with two photos of one to choose on: {DEFAULT} by default'
        return _saved(blend, old, new, {"share": DEFAULT, "tried": [], "note": note}, workspace)
    tried: list[dict[str, float]] = []
    for share in tqdm(np.linspace(0, largest, 4).round(3).tolist(), "interpolating", leave=False):
        blend.load_state_dict(_weighted(old, new, share))
        embeddings = embedding.embed(crops[np.flatnonzero(val)], blend)
        clean_auc = verification.auc_or_nan(embeddings[clean[val]], faces["identity"][clean].to_numpy())
        tried.append({"share": share, **choosing.aucs(embeddings, faces), "clean_auc": clean_auc})
    allowed = [row for row in tried if not row["clean_auc"] < tried[0]["clean_auc"] - tolerance]
    chosen = max(allowed, key=lambda row: row["val_auc"])["share"]
    return _saved(blend, old, new, {"share": chosen, "tried": tried, "note": ""}, workspace)


def _saved(blend: FaceNetwork, old: Weights, new: Weights, choice: dict[str, Any], workspace: Path) -> Path:
    blend.load_state_dict(_weighted(old, new, choice["share"]))
    return network.save(blend, workspace / "artefact", {**blend.record, "interpolation": choice})


def _weighted(old: Weights, new: Weights, share: float) -> Weights:
    """The old weights and a `share` of the way to the new ones."""
    return {
        name: torch.lerp(old[name], new[name], share) if old[name].is_floating_point() else old[name]
        for name in old
    }
