"""Is anything left in this photo? A score for which smears, in which nothing is, are low and faces are high.

Faces of all people in which nothing can be recognised lie close together in a network's space (Deng et al.,
"Harnessing Unrecognizable Faces for Improving Face Recognition", WACV 2023), so the distance from the centre
of smears is the score. A row of the comparison scores photos by one of its own networks, and an embedding
carries the score as its length (compare Meng et al., "MagFace", CVPR 2021): below 1, too poor to tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from src.limits import NotPossible

SMEARS = "smears"  # this kind of probe
LEAST = 20  # smears in train, and smears and photos in val, that are needed
TELLING = 0.9  # AUC of val's photos against val's smears below which a network can't tell
KEPT_OUT = 0.95  # share of val's smears that are too poor to tell
SHORTEST = 1e-3  # of a length: an embedding needs a direction


@dataclass(frozen=True)
class Recognisability:
    """How a row of the comparison tells how much a photo shows.

    `network` is the one of its networks that does, `centre`, float32 `[D]` of length 1, is where that puts
    smears, `limit` the distance (1 - cosine) from it below which a photo is too poor to tell, `separation`
    the AUC of val's photos against val's smears.
    """

    network: str
    centre: np.ndarray
    limit: float
    separation: float

    def lengths(self, looks: Mapping[str, np.ndarray]) -> np.ndarray:
        """The score of each photo, float32 `[N]`, from 1 on good enough. looks: each network's unit rows."""
        return np.maximum((1 - looks[self.network] @ self.centre) / self.limit, SHORTEST).astype(np.float32)


def fit(
    photos: Mapping[str, np.ndarray],
    others: Mapping[str, np.ndarray],
    faces: pd.DataFrame,
    probes: pd.DataFrame,
) -> Recognisability:
    """The score of the network, of those given, that tells val's photos from val's smears best.

    photos, others: each network's unit rows `[N, D]` of `faces` and `[M, D]` of `probes`. Centres are of the
    smears in train. Photos in which no face was found do not choose. Raises NotPossible where there are fewer
    than LEAST photos or smears, or where no network tells them apart.
    """
    is_smear, split = (probes["kind"] == SMEARS).to_numpy(), probes["split"].to_numpy(str)
    clear = ((faces["split"] == "val") & faces["eye_distance"].notna()).to_numpy()
    train, val = (is_smear & (split == name) for name in ("train", "val"))
    if min(train.sum(), val.sum(), clear.sum()) < LEAST:
        raise NotPossible(
            f"{LEAST} smears in train, and {LEAST} photos and {LEAST} smears in val, are needed to say what "
            "is too poor to tell"
        )
    found = []
    for name, rows in photos.items():
        middle = np.asarray(others[name])[train].mean(0)
        centre = (middle / np.linalg.norm(middle)).astype(np.float32)
        of_photos, of_smears = 1 - rows[clear] @ centre, 1 - others[name][val] @ centre
        is_photo = np.repeat([1, 0], [len(of_photos), len(of_smears)])
        separation = float(roc_auc_score(is_photo, np.concatenate([of_photos, of_smears])))
        limit = max(float(np.quantile(of_smears, KEPT_OUT)), SHORTEST)
        found.append(Recognisability(name, centre, limit, separation))
    best = max(found, key=lambda one: one.separation)
    if best.separation < TELLING:
        raise NotPossible(
            f"{best.network} does not tell val's photos from smears (AUC {best.separation:.2f}, {TELLING} is "
            "needed): what is too poor to tell it can't say"
        )
    return best


# ---------------------------------------------------------------- embeddings that carry it


class Scored(nn.Module):
    """A `models.Model` whose embeddings carry the score as their length; their directions are the model's.

    `forward` takes float [B, 3, 112, 112], RGB in [-1, 1], and returns [B, D].
    """

    centre: Tensor

    def __init__(self, model: Any, score: Recognisability) -> None:
        super().__init__()
        self.model = model
        self.limit, self.place = score.limit, self.model.names.index(score.network)
        self.register_buffer("centre", torch.from_numpy(np.array(score.centre)))

    def forward(self, images: Tensor) -> Tensor:
        looks = self.model.looks(images)
        length = (1 - looks[self.place] @ self.centre) / self.limit
        return F.normalize(self.model.mapped(looks)) * length.clamp(min=SHORTEST)[:, None]


def too_poor(rows: np.ndarray, score: Recognisability) -> np.ndarray:
    """Which of the rows `[N, D]`, whose lengths are the score's, show too little to tell. Bool `[N]`"""
    return ~(np.linalg.norm(rows, axis=1) >= 1)


def in_words(score: Recognisability, poor: np.ndarray, faces: pd.DataFrame) -> str:
    """How it is told, and how many of the tests' photos are too poor to tell, by quality; and of train's."""
    text = (
        f"By the distance from smears in {score.network}, which tells val's photos from smears with AUC "
        f"{score.separation:.3f}, "
    )
    parts = []
    for quality in np.unique(faces["quality"].to_numpy(str)):
        at = faces["split"].str.startswith("test").to_numpy() & (faces["quality"] == quality).to_numpy()
        if at.any():
            parts.append(f"{poor[at].mean():.1%} of {at.sum()} {quality}-quality photos")
    text += f"too poor to tell are {', '.join(parts)} of the tests."
    enrolled = poor & (faces["split"] == "train").to_numpy()
    if enrolled.any():
        text += f" So are {enrolled.sum()} photos of train: better not enrol them."
    return text


def not_to_enrol(rows: np.ndarray, poor: np.ndarray, faces: pd.DataFrame, count: int = 24) -> np.ndarray:
    """Which photos of train are too poor to tell, the worst first, at most so many: their rows."""
    found = np.flatnonzero((faces["split"] == "train").to_numpy() & poor)
    return found[np.argsort(np.linalg.norm(rows[found], axis=1), kind="stable")][:count]


def beside(rows: np.ndarray, score: Recognisability, faces: pd.DataFrame) -> dict[str, np.ndarray]:
    """All measures of each photo that may tell how much it shows, by name; higher is better. Each `[N]`"""
    measures = {
        f"distance from smears in {score.network}": np.linalg.norm(rows, axis=1),
        "distance of the eyes": faces["eye_distance"],
        "detector's score": faces["score"],
    }
    return {name: np.asarray(column, float) for name, column in measures.items()}
