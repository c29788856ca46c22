"""Maps of embeddings, fitted in seconds on the people in training: what a fine-tuned network has to beat.

Each `fit_...` takes embeddings of all photos and looks at those in "train" (and in "val", where there is
something to choose); it gives a module that needs no photos and can be kept, loaded and exported. Modules
work in double precision, as Gaussians in many dimensions cancel large numbers; `.float()` makes them single.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from src.evaluation import choosing, verification
from src.limits import NotPossible, attempt
from src.networks.embedding import unit_rows

UNKNOWN = 0.1  # share of photos expected to show nobody in training; 0 is a closed list of people
CAUTION = 2.0  # divides log densities: Gaussians in many dimensions are overconfident
FEW = 20  # photos of a quality below which nothing is fitted to them
SCALES = (2.0, 4.0, 8.0, 16.0, 32.0)  # that the cosines of a posterior may have
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.4)  # shares of the known people's photos, as quantiles; see `fit_posterior`
SHARPNESS = 4.0  # length of the rows that a logistic regression sees: its penalty belongs to this scale
_ROWS = 65_536  # embeddings mapped at a time


class Buffers(nn.Module):
    """A module made of tensors alone: what it is fitted to."""

    def __init__(self, **tensors: np.ndarray | Tensor) -> None:
        super().__init__()
        for name, values in tensors.items():
            self.register_buffer(name, torch.as_tensor(values))


class LinearMap(Buffers):
    """Embeddings [B, D] to unit rows [B, E]: less `shift` [D], times `matrix` [D, E]."""

    shift: Tensor
    matrix: Tensor

    def forward(self, embeddings: Tensor) -> Tensor:
        return F.normalize((embeddings.to(self.matrix.dtype) - self.shift) @ self.matrix).float()


class PLDA(nn.Module):
    """Who of the people in training does a photo show, or nobody of them, and what does it look like then?

    A photo of a person follows a Gaussian around the person's mean, of one covariance for all people; their
    means follow a wider one (the two-covariance model of PLDA, Ioffe 2006). Photos of high and of low quality
    stray differently: each quality has a covariance and an offset of its own, and as that of a new photo is
    not known, both are reckoned with. With p_k the probability that the photo shows person k, and p_0 that it
    shows somebody unknown, the result is (sqrt(p_1), ..., sqrt(p_K), sqrt(p_0) a), a being the embedding
    through the map `appearance`: two photos are alike if both show the same known person, or both an unknown
    one and look alike.

    Embeddings [B, D] to unit rows [B, K + E], float32. project: what embeddings go through before they are
    compared with the means.
    """

    def __init__(self, model: "TwoCovariance", project: nn.Module, appearance: LinearMap) -> None:
        super().__init__()
        self.model = model
        self.project = project
        self.appearance = appearance

    def forward(self, embeddings: Tensor) -> Tensor:
        people, nobody = self.model(self.project(embeddings))
        return self.joined(people, nobody, embeddings)

    def joined(self, people: Tensor, nobody: Tensor, embeddings: Tensor) -> Tensor:
        """The result, from the people's log probabilities [B, K] and the probability of nobody [B, 1]."""
        posterior = torch.sqrt((1 - nobody) * people.exp())
        appearance = torch.sqrt(nobody) * self.appearance(embeddings)
        return F.normalize(torch.cat([posterior, appearance], 1)).float()


class TwoCovariance(Buffers):
    """Log probabilities of the people in training [B, K], if it is one of them; and of nobody [B, 1]."""

    prior: Tensor  # [K + 1], log; the last is that nobody is shown
    shares: Tensor  # [Q], log, of the photos of each quality
    offsets: Tensor  # [Q, D]
    means: Tensor  # [K, D]
    widths: Tensor  # [K]: a mean of n photos is uncertain itself, the covariance is 1 + 1/n times that within
    within: Tensor  # [Q, D, D]: a root of the inverse covariance of photos around their person's mean
    middle: Tensor  # [D]: mean of the means
    total: Tensor  # [Q, D, D]: the same root for photos of anybody
    constants: Tensor  # [Q, K + 1], of the log densities

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        densities = self.densities(embeddings) + self.shares[:, None, None]
        return self.posterior(torch.logsumexp(densities, 0))

    def posterior(self, densities: Tensor) -> tuple[Tensor, Tensor]:
        """What is returned, from the log densities of all qualities together, [B, K + 1]."""
        logs = F.log_softmax(densities + self.prior, 1)
        return F.log_softmax(logs[:, :-1], 1), logs[:, -1:].exp()

    def densities(self, embeddings: Tensor) -> Tensor:
        """Log densities [Q, B, K + 1] of a photo of each quality, the last those of nobody."""
        rows = embeddings.to(self.means.dtype)
        densities = []
        for q in range(len(self.shares)):
            own, centres = (rows - self.offsets[q]) @ self.within[q], self.means @ self.within[q]
            squared = (own**2).sum(1, keepdim=True) - 2 * own @ centres.T + (centres**2).sum(1)
            away = (((rows - self.offsets[q] - self.middle) @ self.total[q]) ** 2).sum(1, keepdim=True)
            distances = torch.cat([squared / self.widths, away], 1)
            densities.append(-(distances + self.constants[q]) / 2 / CAUTION)
        return torch.stack(densities)


class Posterior(Buffers):
    """Who of the people in training does a photo show, or nobody of them, by the network's own cosines?

    With cos_k the cosine with the unit mean `centres` [K, E] of person k, the probability of person k is
    proportional to exp(scale cos_k), that of nobody to exp(scale level), each times its prior: the classifier
    that a margin loss trains, asked at test time. The result is as of `PLDA`, (sqrt(p_1), ..., sqrt(p_K),
    sqrt(p_0) a), a being the unit embedding: the cosine of two photos is then the Bhattacharyya coefficient
    of what they say (Bhattacharyya 1943). Embeddings [B, E] to unit rows [B, K + E], float32.
    """

    prior: Tensor  # [K + 1], log; the last is that nobody is shown
    scale: Tensor
    level: Tensor
    centres: Tensor

    def forward(self, embeddings: Tensor) -> Tensor:
        unit = F.normalize(embeddings.to(self.centres.dtype))
        cosines = unit @ self.centres.T
        logits = self.scale * torch.cat([cosines, self.level.expand_as(cosines[:, :1])], 1) + self.prior
        share = F.softmax(logits, 1).sqrt()
        return F.normalize(torch.cat([share[:, :-1], share[:, -1:] * unit], 1)).float()


class OpenSet(Buffers):
    """Who of the people in training does a photo show, or nobody of them, told by photos of nobody of them?

    A logistic regression of the networks' unit embeddings side by side, with nobody as one more class: it has
    seen strangers, smears and crops without a face (a background class; compare Dhamija et al., "Reducing
    network agnostophobia", 2018). The result is as of `PLDA`, a being the first network's unit embedding.
    Embeddings [B, D] of each network to unit rows [B, K + D], float32.
    """

    weights: Tensor  # [sum of the D, K + 1]; the last class is nobody
    offsets: Tensor  # [K + 1]

    def forward(self, *embeddings: Tensor) -> Tensor:
        logits = _side_by_side(embeddings).to(self.weights.dtype) @ self.weights + self.offsets
        share = F.softmax(logits, 1).sqrt()
        appearance = share[:, -1:] * F.normalize(embeddings[0].to(share.dtype))
        return F.normalize(torch.cat([share[:, :-1], appearance], 1)).float()


def _side_by_side(embeddings: Sequence[Tensor]) -> Tensor:
    """Unit rows of each network, joined to rows of length `SHARPNESS`."""
    return torch.cat([F.normalize(part.double()) for part in embeddings], 1) * (
        SHARPNESS / len(embeddings) ** 0.5
    )


@torch.inference_mode()
def apply(fitted: nn.Module, *embeddings: np.ndarray) -> np.ndarray:
    """A map's unit rows, float32 [N, E], of the embeddings [N, D] of each network it takes."""
    parts = [
        fitted(*(torch.from_numpy(np.array(rows[start : start + _ROWS])) for rows in embeddings)).numpy()
        for start in range(0, len(embeddings[0]), _ROWS)
    ]
    return np.concatenate(parts)


# ---------------------------------------------------------------- fitting


def fit_linear(embeddings: np.ndarray, faces: pd.DataFrame, kind: str | None = None) -> LinearMap:
    """A linear map fitted on the rows of the embeddings [N, D] that are in "train".

    kind: "wccn" divides by the spread within people (within-class covariance normalisation, Hatch et al.
    2006), "lda" keeps only what tells the people in training apart (linear discriminant analysis); both with
    Ledoit-Wolf shrinkage. None takes the one with the higher AUC on "val", "wccn" where "val" has no pairs.
    Raises NotPossible where there are fewer than 2 people, or no person with 2 photos, in training.
    """
    if kind is None:
        val = (faces["split"] == "val").to_numpy()
        identity = faces["identity"].to_numpy()[val]
        wccn = fit_linear(embeddings, faces, "wccn")
        lda = attempt(fit_linear, embeddings, faces, "lda")
        if isinstance(lda, NotPossible) or not verification.has_pairs(identity):
            return wccn
        return max((wccn, lda), key=lambda one: verification.auc(apply(one, embeddings[val]), identity))
    people, labels, known = _known(embeddings, faces)
    if kind == "lda":
        try:
            lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(known, labels)
        except np.linalg.LinAlgError:
            raise NotPossible(
                "LDA needs people whose photos differ among themselves: 3 photos of each in training would do"
            ) from None
        directions = lda.scalings_[:, : min(len(people) - 1, known.shape[1])]
        return LinearMap(shift=np.zeros(known.shape[1]), matrix=directions)
    if kind != "wccn":
        raise ValueError(f'kind is "wccn" or "lda", not {kind!r}')
    within = ledoit_wolf(known - _means(known, labels)[labels], assume_centered=True)[0]
    return LinearMap(shift=known.mean(0), matrix=_root(within))


def fit_plda(
    embeddings: np.ndarray,
    faces: pd.DataFrame,
    linear_map: bool = False,
    unknown: float = UNKNOWN,
) -> PLDA:
    """A PLDA fitted on the rows of the embeddings [N, D] that are in "train".

    linear_map: whether they go through `fit_linear`'s map first. unknown: the share of photos expected to
    show people who are not in "train"; 0 is a closed list of people. It says what the model is for, and is
    never taken from the photos that test it. Raises NotPossible as `fit_linear` does.
    """
    project = fit_linear(embeddings, faces) if linear_map else None
    if project is not None and project.matrix.shape[1] == 1:  # of two people: unit rows are 1 or -1
        project = fit_linear(embeddings, faces, "wccn")
    projected = embeddings if project is None else apply(project, embeddings)
    people, labels, known = _known(projected, faces)
    means = _means(known, labels)
    among = ledoit_wolf(means - means.mean(0), assume_centered=True)[0] * len(means) / (len(means) - 1)
    widths = 1 + 1 / np.bincount(labels)
    size = known.shape[1]
    quality = faces["quality"][faces["split"] == "train"]
    spreads = _spreads(known - means[labels], quality)
    constants = []
    for _, _, within in spreads:
        of_people = np.linalg.slogdet(within)[1] + size * np.log(2 * np.pi * widths)
        of_nobody = np.linalg.slogdet(within + among)[1] + size * np.log(2 * np.pi)
        constants.append(np.append(of_people, of_nobody))
    model = TwoCovariance(
        prior=_prior(len(people), unknown),
        shares=np.log([share for share, _, _ in spreads]),
        offsets=np.array([offset for _, offset, _ in spreads]),
        means=means,
        widths=widths,
        within=np.array([_root(within) for _, _, within in spreads]),
        middle=means.mean(0),
        total=np.array([_root(within + among) for _, _, within in spreads]),
        constants=np.array(constants),
    )
    return PLDA(model, project or nn.Identity(), fit_linear(embeddings, faces, "wccn"))


def fit_posterior(embeddings: np.ndarray, faces: pd.DataFrame, unknown: float = UNKNOWN) -> Posterior:
    """A posterior of the embeddings [N, D] of a network that was trained on the rows in "train".

    Of `SCALES`, the one with the best AUC on "val" (the middle one, where "val" has no pairs of people in
    training). unknown: as of `fit_plda`; where it is above 0, the cosine from which a photo rather shows
    somebody known than nobody is such that a share of `LEVELS` of the known people's photos in "val" (else in
    "train") lies below it: the share with the best mean of the AUC of the known people in "val" and of the
    others there; 0.05 where there are no others. Raises NotPossible as `fit_linear` does.
    """
    centres, cosines = cosines_with_own(embeddings, faces)
    prior = _prior(len(centres), unknown)
    parts, val = choosing.parts(faces), choosing.val(faces)
    shares = LEVELS if unknown > 0 and len(parts) == 2 else (0.05,)
    tried = [
        Posterior(prior=prior, scale=np.array(s), level=np.quantile(cosines, q), centres=centres)
        for s in (SCALES if choosing.SEEN in parts else SCALES[len(SCALES) // 2 :][:1])
        for q in shares
    ]

    def merit(one: Posterior) -> float:
        return choosing.aucs(apply(one, embeddings[val]), faces)["val_auc"] if parts else 0.0

    return max(tried, key=merit)


def cosines_with_own(embeddings: np.ndarray, faces: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Unit means [K, D] of the people in training, and the cosines of known photos with their own person's.

    The photos are those of these people in "val", else in "train". Raises NotPossible as `fit_linear` does.
    """
    people, labels, known = _known(embeddings, faces)
    centres, identity = _centres(known, labels), faces["identity"].to_numpy()
    seen = (faces["split"] == "val").to_numpy() & np.isin(identity, people)
    seen = seen if seen.any() else (faces["split"] == "train").to_numpy()
    unit = unit_rows(embeddings[seen].astype(np.float64))
    return centres, (unit * centres[np.searchsorted(people, identity[seen])]).sum(1)


def fit_open_set(*arguments: np.ndarray | pd.DataFrame, nobody: Sequence[np.ndarray]) -> OpenSet:
    """An open-set classifier of the networks' embeddings, each [N, D], and, last, the table `faces`.

    It learns from the rows in "train". nobody: each network's embeddings [M, D] of probes that show nobody in
    training. Raises NotPossible as `fit_linear` does.
    """
    *embeddings, faces = arguments
    assert isinstance(faces, pd.DataFrame)
    rows = (faces["split"] == "train").to_numpy()
    people, labels, _ = _known(np.asarray(embeddings[0]), faces)
    joined = [
        _side_by_side([torch.from_numpy(np.array(part)) for part in parts]).numpy()
        for parts in ([np.asarray(part)[rows] for part in embeddings], nobody)
    ]
    classes = np.concatenate([labels, np.full(len(joined[1]), len(people))])
    fitted = LogisticRegression(max_iter=1000).fit(np.concatenate(joined), classes)
    return OpenSet(weights=fitted.coef_.T, offsets=fitted.intercept_)


def expected_unknown(unseen_share: float) -> float:
    """The `unknown` of a study that keeps this share of its people out of training: none is a closed list."""
    return UNKNOWN if unseen_share > 0 else 0.0


def rebuild(kind: str, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A map from its class's name and its tensors. Raises ValueError for a kind that is not known here."""

    if kind in ("LinearMap", "Posterior", "OpenSet"):
        return {"LinearMap": LinearMap, "Posterior": Posterior, "OpenSet": OpenSet}[kind](**tensors)
    if kind == "PLDA":
        projecting = below(tensors, "project.")
        return PLDA(
            TwoCovariance(**below(tensors, "model.")),
            LinearMap(**projecting) if projecting else nn.Identity(),
            LinearMap(**below(tensors, "appearance.")),
        )
    raise ValueError(f"there is no map of the kind {kind!r}")


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _spreads(residuals: np.ndarray, quality: pd.Series) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Share, offset [D] and covariance [D, D] of the photos of each quality around their people's means.

    All photos are one quality where those of any are too few to tell.
    """
    kinds = list(quality.groupby(quality.to_numpy()).indices.values())
    if min(map(len, kinds)) < FEW:
        kinds = [np.arange(len(quality))]
    spreads = []
    for rows in kinds:
        offset = residuals[rows].mean(0)
        covariance = ledoit_wolf(residuals[rows] - offset, assume_centered=True)[0]
        spreads.append((len(rows) / len(quality), offset, covariance))
    return spreads


def _root(covariance: np.ndarray) -> np.ndarray:
    """The matrix that brings rows of this covariance to a spread of one: a root of its inverse."""
    try:
        return np.linalg.cholesky(np.linalg.inv(covariance))
    except np.linalg.LinAlgError:
        raise NotPossible(
            "the photos of each person in training are too alike to tell how photos of a person stray: "
            "3 different photos of each in training would do"
        ) from None


def _known(embeddings: np.ndarray, faces: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """People in training, their photos' labels 0, 1, ... and embeddings, in double precision."""
    rows = (faces["split"] == "train").to_numpy()
    people, labels = np.unique(faces["identity"].to_numpy()[rows], return_inverse=True)
    if len(people) < 2 or len(labels) == len(people):
        raise NotPossible(
            'a map needs 2 people, and 2 photos of one of them, in "train", and there are '
            f"{len(people)} people with {len(labels)} photos: 4 photos of each person would do"
        )
    return people, labels, embeddings[rows].astype(np.float64)


def _means(known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Means of the people [K, D]."""
    return np.array([known[labels == label].mean(0) for label in range(labels.max() + 1)])


def _centres(known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Unit means of the people [K, D]."""
    means = _means(known, labels)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def _prior(people: int, unknown: float) -> np.ndarray:
    """Log probabilities [K + 1] of the people in training, all alike, and of nobody, before any photo."""
    if not 0 <= unknown < 1:
        raise ValueError(f"unknown is {unknown}: it is a share of the photos, from 0 to below 1")
    with np.errstate(divide="ignore"):
        return np.log(np.append(np.full(people, (1 - unknown) / people), unknown))
