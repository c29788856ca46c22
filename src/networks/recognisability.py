"""Is anything left in this photo? Scores for which smears, in which nothing is, are low and faces are high.

Two are tried, and val says which tells smears from the user's photos better. The length of the pack's
embedding before it is brought to 1: training makes it long where a face is clear (Meng et al., "MagFace",
CVPR 2021), though not in every network. And the distance from the centre of the smears: faces of all people
in which nothing can be recognised lie close together (Deng et al., "Harnessing Unrecognizable Faces for
Improving Face Recognition", WACV 2023).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from src.limits import NotPossible
from src.networks.embedding import unit_rows
from src.networks.probes import SMEARS

if TYPE_CHECKING:
    from src.networks.embedding import Recogniser

LEAST = 20  # smears, and photos, of val that are needed to choose
KEPT_OUT = 0.95  # share of val's smears that the threshold calls too poor to tell


@dataclass(frozen=True)
class Recognisability:
    """What `fit` chose.

    `measure` is the column of `measures`, `threshold` the score below which a photo is too poor to tell,
    `separation` the AUC of val's photos against val's smears.
    """

    measure: str
    threshold: float
    separation: float


def too_poor(table: pd.DataFrame, fitted: Recognisability) -> np.ndarray:
    """Which rows of a table as of `measures` show too little to tell. Bool `[N]`"""
    return ~(table[fitted.measure].to_numpy() >= fitted.threshold)


def in_words(fitted: Recognisability, poor: np.ndarray, faces: pd.DataFrame) -> str:
    """What was chosen, and how many of the tests' photos are too poor to tell, by quality; and of train's."""
    named = {"length": "the length of the pack's embedding", "distance": "the distance from the smears"}
    text = (
        f"By {named[fitted.measure]}, which tells val's photos from smears with AUC {fitted.separation:.3f}, "
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


def not_to_enrol(
    table: pd.DataFrame, fitted: Recognisability, faces: pd.DataFrame, count: int = 24
) -> np.ndarray:
    """Rows of the photos of train in which nothing is left, the worst first, at most so many."""
    training = (faces["split"] == "train").to_numpy()
    rows = np.flatnonzero(training & too_poor(table, fitted))
    return rows[np.argsort(table[fitted.measure].to_numpy()[rows], kind="stable")][:count]


def beside(table: pd.DataFrame, faces: pd.DataFrame) -> dict[str, np.ndarray]:
    """All measures of each photo that may tell how much it shows, by name; higher is better. Each `[N]`"""
    lengths = {"length of the pack's embedding": table["length"], "distance from smears": table["distance"]}
    others = {"distance of the eyes": faces["eye_distance"], "detector's score": faces["score"]}
    return {name: np.asarray(column, float) for name, column in {**lengths, **others}.items()}


def centre(embeddings: np.ndarray, probes: pd.DataFrame) -> np.ndarray:
    """The middle of train's smears, float32 `[D]` of length 1, of the probes' embeddings `[M, D]`.

    Raises NotPossible where there are fewer than LEAST of them.
    """
    chosen = ((probes["kind"] == SMEARS) & (probes["split"] == "train")).to_numpy()
    if chosen.sum() < LEAST:
        raise NotPossible(f"{LEAST} smears in train are needed to say where they lie")
    return unit_rows(embeddings[chosen].mean(0, keepdims=True))[0].astype(np.float32)


def measures(
    crops: np.ndarray, pack: "Recogniser", embeddings: np.ndarray, smears: np.ndarray, batch: int = 256
) -> pd.DataFrame:
    """Both scores of each crop, uint8 `[N, 112, 112, 3]` RGB: the columns `length` and `distance`, `[N]`.

    embeddings: the pack's of these crops, unit rows `[N, D]`. smears: of `centre`.
    """
    starts = range(0, len(crops), batch)
    rows = [pack.recognise(np.array(crops[start : start + batch])) for start in starts]
    lengths = np.concatenate([np.linalg.norm(part, axis=1) for part in rows])
    return pd.DataFrame({"length": lengths.astype(np.float32), "distance": 1 - embeddings @ smears})


def fit(
    photos: pd.DataFrame, faces: pd.DataFrame, others: pd.DataFrame, probes: pd.DataFrame
) -> Recognisability:
    """Chooses the score and its threshold on val.

    photos, others: as of `measures`, of `faces` and of `probes`, row by row. Photos in which no face was
    found do not choose. Raises NotPossible where val has fewer than LEAST photos or smears.
    """
    clear = photos[((faces["split"] == "val") & faces["eye_distance"].notna()).to_numpy()]
    smears = others[((probes["split"] == "val") & (probes["kind"] == SMEARS)).to_numpy()]
    if min(len(clear), len(smears)) < LEAST:
        raise NotPossible(f"{LEAST} photos and {LEAST} smears in val are needed to say what is too poor")
    found = []
    for name in photos:
        is_photo = np.repeat([1, 0], [len(clear), len(smears)])
        scores = np.concatenate([clear[name], smears[name]])
        separation = float(roc_auc_score(is_photo, scores))
        found.append(Recognisability(str(name), float(smears[name].quantile(KEPT_OUT)), separation))
    return max(found, key=lambda one: one.separation)
