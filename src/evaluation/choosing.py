"""The two questions that "val" asks: of held-out photos of people in training, and of people of its own.

Epoch, interpolation and what a map leaves open are each one choice that serves both tests; so the mean of
both AUCs chooses.
"""

import numpy as np
import pandas as pd

from src.evaluation import verification
from src.evaluation.operating_point import in_training

SEEN, UNSEEN = "val_seen", "val_unseen"  # AUC of people in training, and of people of val's own


def val(faces: pd.DataFrame) -> np.ndarray:
    """Rows of `faces` (`split`) that are in "val", int64 [m]."""
    return np.flatnonzero(faces["split"] == "val")


def parts(faces: pd.DataFrame) -> dict[str, np.ndarray]:
    """Which rows of `val` make up each question, bool [m], by its name: `SEEN`, `UNSEEN`.

    faces: `identity`, `split`. Only questions that have genuine and impostor pairs; where neither does but
    all of val together, that stands for the second.
    """
    rows = val(faces)
    identity, seen = faces["identity"].to_numpy()[rows], in_training(faces)[rows]
    kept = {
        name: part for name, part in ((SEEN, seen), (UNSEEN, ~seen)) if verification.has_pairs(identity[part])
    }
    return kept or ({UNSEEN: np.ones(len(seen), bool)} if verification.has_pairs(identity) else {})


def aucs(embeddings: np.ndarray, faces: pd.DataFrame) -> dict[str, float]:
    """AUC of the embeddings [m, D] of the rows of `val` for each question; NaN for one that has no pairs.

    `val_auc` is their mean: it chooses.
    """
    identity = faces["identity"].to_numpy()[val(faces)]
    found = {name: verification.auc(embeddings[rows], identity[rows]) for name, rows in parts(faces).items()}
    mean = float(np.mean(list(found.values()))) if found else np.nan
    return {"val_auc": mean} | {name: found.get(name, np.nan) for name in (SEEN, UNSEEN)}
