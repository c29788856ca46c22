"""Two networks asked together who of the people in training a photo shows, or nobody of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.evaluation import choosing
from src.evaluation.intervals import PEOPLE
from src.evaluation.operating_point import in_training
from src.networks import maps
from src.networks.embedding import unit_rows
from src.networks.maps import PLDA, UNKNOWN

TEMPERS = (1.0, 0.5, 0.0)  # that the log densities of the first network may be multiplied by
WEIGHTS = (3.0, 0.0, 1.0, 2.0, 5.0, 8.0, 16.0)  # that the cosines of the second may
LEVELS = (0.05, 0.02, 0.1, 0.2, 0.4)  # of known photos, that rather look unknown to the second; quantiles
SHARES = (0.0, 0.3, 0.5, 0.7, 0.9)  # of the second in how unknown people are compared
NEAR = 0.001  # of AUC on "val" that may be lost for a choice that comes before in these lists


class PosteriorFusion(nn.Module):
    """A PLDA of one network's embeddings and the cosines of a second: both say who it is, or nobody.

    For each quality that the PLDA knows, the density of person k is multiplied by exp(weight cos_k), cos_k
    being the cosine of the second network's embedding with the person's unit mean, and that of nobody by
    exp(weight level) (a product of experts, Hinton 2002). So what each network has to say depends on how bad
    the photo is. Rows are as of `PLDA`; unknown people are compared by both networks' looks, the second's
    with `share` of the say. Embeddings [B, D] and [B, E] to unit rows, float32.
    """

    def __init__(self, plda: PLDA, second: "Second") -> None:
        super().__init__()
        self.plda = plda
        self.second = second

    def forward(self, embeddings: Tensor, second_embeddings: Tensor) -> Tensor:
        model = self.plda.model
        said, look = self.second(second_embeddings)
        densities = self.second.temper * model.densities(self.plda.project(embeddings))
        both = densities + self.second.weight[:, None, None] * said + model.shares[:, None, None]
        people, nobody = model.posterior(torch.logsumexp(both, 0))
        share = self.second.share.sqrt()
        looks = [(1 - share**2).sqrt() * self.plda.appearance(embeddings), share * look]
        posterior = torch.sqrt((1 - nobody) * people.exp())
        return F.normalize(torch.cat([posterior, torch.sqrt(nobody) * torch.cat(looks, 1)], 1)).float()


class Second(maps.Buffers):
    """What the second network says: cosines with the people's means, and how a photo looks to it."""

    centres: Tensor  # [K, E], unit rows
    level: Tensor  # cosine from which a photo rather shows somebody known than nobody
    weight: Tensor  # [Q], of each quality that the first network's PLDA knows
    temper: Tensor  # what the first network's log densities are multiplied by
    share: Tensor  # 0-1, of the say that the second has in how unknown people are compared

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines [B, K + 1], the last being `level`; unit rows [B, E]."""
        unit = F.normalize(embeddings.to(self.centres.dtype))
        cosines = unit @ self.centres.T
        return torch.cat([cosines, self.level.expand_as(cosines[:, :1])], 1), unit


@dataclass(frozen=True)
class _Choice:
    temper: float = TEMPERS[0]
    weight: tuple[float, ...] = ()
    level: float = LEVELS[0]
    share: float = SHARES[0]


def fit_fusion(
    embeddings: np.ndarray, second_embeddings: np.ndarray, faces: pd.DataFrame, unknown: float = UNKNOWN
) -> PosteriorFusion:
    """A fusion of the first network's embeddings [N, D] and a second's [N, E], fitted on "train".

    What each has to say is chosen on "val", one number after the other, from the lists of this module: the
    first of a list that comes near the best mean AUC of the known people there and of the others. Who it is
    is chosen where "val" shows enough known people, how unknown ones look where it shows enough of those;
    else the first of each list stays. unknown: as of `maps.fit_plda`. Raises NotPossible as
    `maps.fit_linear` does.
    """
    plda = maps.fit_plda(embeddings, faces, unknown=unknown)
    centres, own = maps.cosines_with_own(second_embeddings, faces)
    identity, val, qualities = faces["identity"].to_numpy(), choosing.val(faces), len(plda.model.shares)
    asked = [
        question
        for question, rows in choosing.parts(faces).items()
        if len(np.unique(identity[val][rows])) >= PEOPLE  # of fewer, what chooses is chance
    ]
    neutral = _neutral(second_embeddings, faces, centres, own)

    def fused(choice: _Choice) -> PosteriorFusion:
        second = Second(
            centres=centres,
            level=np.array(np.quantile(own, choice.level) if choosing.SEEN in asked else neutral),
            weight=np.array(choice.weight),
            temper=np.array(choice.temper),
            share=np.array(choice.share),
        )
        return PosteriorFusion(plda, second)

    def merit(choice: _Choice) -> float:
        mapped = maps.apply(fused(choice), embeddings[val], second_embeddings[val])
        return choosing.aucs(mapped, faces)["val_auc"]

    choice = _Choice(weight=(WEIGHTS[0],) * qualities)

    def best(options: list[_Choice]) -> _Choice:
        merits = np.array([merit(option) for option in options])
        return options[int(np.argmax(merits >= merits.max() - NEAR))]

    if choosing.SEEN in asked:
        choice = best(
            [replace(choice, temper=t, weight=(w,) * qualities) for t in TEMPERS for w in WEIGHTS if t or w]
        )
        for q in range(qualities if qualities > 1 else 0):
            weights = (choice.weight[q], *WEIGHTS)
            choice = best(
                [replace(choice, weight=(*choice.weight[:q], w, *choice.weight[q + 1 :])) for w in weights]
            )
        if unknown > 0:
            choice = best([replace(choice, level=level) for level in LEVELS])
    if choosing.UNSEEN in asked and unknown > 0:
        choice = best([replace(choice, share=share) for share in SHARES])
    return fused(choice)


def _neutral(embeddings: np.ndarray, faces: pd.DataFrame, centres: np.ndarray, own: np.ndarray) -> float:
    """A level that favours neither, where "val" has nobody who is known: cosines of "train" are too high.

    The median of the best cosines of strangers in "val"; without any, half of the known people's own.
    """
    strangers = (faces["split"] == "val").to_numpy() & ~in_training(faces)
    if not strangers.any():
        return float(np.median(own)) / 2
    return float(np.median((unit_rows(embeddings[strangers]) @ centres.T).max(1)))


def rebuild(kind: str, tensors: Mapping[str, Tensor]) -> nn.Module:
    """As `maps.rebuild`, of a fusion too."""
    if kind != "PosteriorFusion":
        return maps.rebuild(kind, tensors)
    plda = maps.rebuild("PLDA", maps.below(tensors, "plda."))
    assert isinstance(plda, PLDA)
    second: dict[str, Any] = maps.below(tensors, "second.")
    return PosteriorFusion(plda, Second(**second))
