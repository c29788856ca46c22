"""Weights between those of a network and of the same network fine-tuned (WiSE-FT)."""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from src.artifacts import uses
from src.evaluation import verification
from src.networks import embedding, network
from src.networks.network import FaceNetwork

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
    AUC on "val" among those that lose at most `tolerance` of AUC there on pairs of high-quality photos (on
    all pairs, where qualities are unknown). It is `largest` at most, as "val" can't show what is lost on
    photos of other kinds.
    Returns the checkpoint's folder; its record is that of `tuned`, with `interpolation`: the share chosen,
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
    for share in tqdm(np.linspace(0, largest, 4).round(3).tolist(), "interpolating", leave=False):
        blend.load_state_dict(_weighted(old, new, share))
        embeddings = embedding.embed(crops[np.flatnonzero(val)], blend.to(network.device()))
        val_auc = verification.auc_or_nan(embeddings, faces["identity"][val].to_numpy())
        clean_auc = verification.auc_or_nan(embeddings[clean[val]], faces["identity"][clean].to_numpy())
        tried.append({"share": share, "val_auc": val_auc, "clean_auc": clean_auc})
    allowed = [row for row in tried if not row["clean_auc"] < tried[0]["clean_auc"] - tolerance]
    chosen = max(allowed, key=lambda row: row["val_auc"])["share"]
    blend.cpu().load_state_dict(_weighted(old, new, chosen))
    record = {**tuned.record, "interpolation": {"share": chosen, "tried": tried}}
    return network.save(blend, workspace / "artefact", record)


def _weighted(old: dict[str, Tensor], new: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The old weights and a `share` of the way to the new ones."""
    return {
        name: torch.lerp(old[name], new[name], share) if old[name].is_floating_point() else old[name]
        for name in old
    }
