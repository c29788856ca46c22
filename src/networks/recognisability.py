"""Is anything left in this photo? How far it lies from where a model puts faces in which nothing is.

Faces of all people in which nothing can be recognised lie close together, so that they resemble each other
and whoever was enrolled with such a photo (Deng et al., "Harnessing Unrecognizable Faces for Improving Face
Recognition", WACV 2023). The distance from their centre says how much of a face is left.
"""

from dataclasses import dataclass

import numpy as np

from src.limits import NotPossible
from src.networks.embedding import unit_rows

LEAST = 20  # smears that tell where their centre is, and as many that tell where it ends
KEPT_OUT = 0.95  # share of val's smears that the threshold calls too poor to tell


@dataclass(frozen=True)
class Recognisability:
    """A model's: `centre`, float32 `[D]` of length 1, and the score below which a photo is too poor."""

    centre: np.ndarray
    threshold: float

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Of unit rows `[N, D]`: 0 in the smears' centre, up to 2; NaN where there is no embedding. `[N]`"""
        return 1 - embeddings @ self.centre

    def too_poor(self, embeddings: np.ndarray) -> np.ndarray:
        """Which photos `[N, D]` show too little to tell, those without an embedding too. Bool `[N]`"""
        return ~(self.scores(embeddings) >= self.threshold)


def fit(smears: np.ndarray, split: np.ndarray) -> Recognisability:
    """A model's recognisability, from its embeddings of smears, unit rows `[M, D]`, and their splits `[M]`.

    Those of "train" give the centre, those of "val" the threshold: KEPT_OUT of them lie below it.
    Raises NotPossible where there are fewer than LEAST of either.
    """
    train, val = smears[split == "train"], smears[split == "val"]
    if min(len(train), len(val)) < LEAST:
        raise NotPossible(f"{LEAST} smears in train and in val are needed to say what is too poor")
    centre = unit_rows(train.mean(0, keepdims=True))[0].astype(np.float32)
    return Recognisability(centre, float(np.quantile(1 - val @ centre, KEPT_OUT)))
