"""Maps of embeddings, fitted on the people in training in seconds: what a fine-tuned network has to beat."""

import numpy as np
import pandas as pd
from scipy.special import log_softmax, logsumexp
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from src import verification

UNKNOWN = 0.1  # share of photos expected to show nobody in training, where other people are tested too
CAUTION = 2.0  # divides log densities: Gaussians in many dimensions are overconfident
FEW = 20  # photos of a quality below which nothing is fitted to them
SAYS = (1.0, 2.0, 3.0, 5.0, 8.0)  # what a second model's cosines may weigh
NEAR = 0.002  # of AUC on "val" that may be lost for a smaller weight


def linear_map(embeddings: np.ndarray, faces: pd.DataFrame, kind: str | None = None) -> np.ndarray:
    """Embeddings [N, D] through a linear map fitted on the rows in "train", float32 [N, D'], unit rows.

    kind: "wccn" divides by the spread within people (within-class covariance normalisation, Hatch et al.
    2006), "lda" keeps only what tells the people in training apart (linear discriminant analysis); both with
    Ledoit-Wolf shrinkage. None takes the one with the higher AUC on "val", "wccn" where "val" has no pairs.
    Raises ValueError where there are fewer than 2 people, or no person with 2 photos, in training.
    """
    if kind is None:
        val = (faces["split"] == "val").to_numpy()
        identity = faces["identity"].to_numpy()[val]
        maps = [linear_map(embeddings, faces, kind) for kind in ("wccn", "lda")]
        if not verification.has_pairs(identity):
            return maps[0]
        return max(maps, key=lambda mapped: verification.auc(mapped[val], identity))
    _, labels, known = _known(embeddings, faces)
    if kind == "lda":
        lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(known, labels)
        return _unit(lda.transform(embeddings))
    if kind != "wccn":
        raise ValueError(f'kind is "wccn" or "lda", not {kind!r}')
    within = ledoit_wolf(known - _means(known, labels)[labels], assume_centered=True)[0]
    return _unit((embeddings - known.mean(0)) @ np.linalg.cholesky(np.linalg.inv(within)))


def known_people(
    embeddings: np.ndarray,
    faces: pd.DataFrame,
    beside: np.ndarray | None = None,
    looks: np.ndarray | None = None,
    unknown: float | None = None,
) -> np.ndarray:
    """Embeddings that say which person in "train" a photo shows, and how it looks if it shows none of them.

    A photo of a person follows a Gaussian around the person's mean, of one covariance for all people; their
    means follow a wider one (the two-covariance model of PLDA, Ioffe 2006). Photos of high and of low quality
    stray differently: each quality has a covariance and an offset of its own, and as that of a new photo is
    not known, both are reckoned with. With p_k the probability that the photo shows person k, and p_0 that it
    shows somebody unknown, the embedding is (sqrt(p_1), ..., sqrt(p_K), sqrt(p_0) w), w being the WCCN
    embedding: two photos are alike if both show the same known person, or both an unknown one and look alike.

    beside: embeddings [N, E] of a network trained on the same people, which has a say in who of them it is:
    p_k is multiplied by exp(say cos_k), cos_k being the cosine with the person's mean (a product of experts,
    Hinton 2002), and p_0 is left alone. Of `SAYS`, say is the least that comes near the best AUC on "val".
    looks: embeddings [N, F] to compare people by who are not in training, instead of the first.
    unknown: the share of photos expected to show people who are not in "train"; 0 is a closed list of people.
    None is 0 where no split holds anybody else, else `UNKNOWN`.
    Returns float32 [N, K + D], unit rows. Raises ValueError as `linear_map` does.
    """
    people, labels, known = _known(embeddings, faces)
    if unknown is None:
        unknown = 0.0 if faces["identity"].isin(people).all() else UNKNOWN
    means = _means(known, labels)
    between = ledoit_wolf(means - means.mean(0), assume_centered=True)[0] * len(means) / (len(means) - 1)
    densities = []
    for share, offset, within in _spreads(known - means[labels], faces["quality"][faces["split"] == "train"]):
        of_people = _log_densities(embeddings - offset, means, within, np.bincount(labels))
        of_nobody = multivariate_normal(means.mean(0) + offset, within + between).logpdf(embeddings)
        densities.append(np.column_stack([of_people, of_nobody]) / CAUTION + np.log(share))
    prior = np.append(np.full(len(people), (1 - unknown) / len(people)), unknown)
    with np.errstate(divide="ignore"):
        logs = log_softmax(logsumexp(densities, axis=0) + np.log(prior), axis=1)
    who, nobody = log_softmax(logs[:, :-1], axis=1), np.exp(logs[:, -1:])
    mapped = linear_map(embeddings if looks is None else looks, faces, "wccn")

    def joined(who: np.ndarray) -> np.ndarray:
        return _unit(np.hstack([np.sqrt((1 - nobody) * np.exp(who)), np.sqrt(nobody) * mapped]))

    if beside is None:
        return joined(who)
    _, _, seen = _known(beside, faces)
    cosines = _unit(beside) @ _unit(_means(seen, labels)).T
    said = [joined(log_softmax(who + say * cosines, axis=1)) for say in SAYS]
    val = (faces["split"] == "val").to_numpy()
    identity = faces["identity"].to_numpy()[val]
    if not verification.has_pairs(identity):
        return said[len(SAYS) // 2]
    aucs = np.array([verification.auc(rows[val], identity) for rows in said])
    return said[int(np.argmax(aucs >= aucs.max() - NEAR))]


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


def _log_densities(
    embeddings: np.ndarray, means: np.ndarray, within: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Log densities [N, K] of Gaussians around people's means [K, D], of covariance `within` [D, D] and more.

    A mean of `counts` photos is itself uncertain: the covariance is (1 + 1 / count) times that within people.
    """
    root = np.linalg.cholesky(np.linalg.inv(within))
    own, centres = embeddings @ root, means @ root
    squared = (own**2).sum(1)[:, None] - 2 * own @ centres.T + (centres**2).sum(1)
    widths = 1 + 1 / counts
    size = len(within)
    constant = np.linalg.slogdet(within)[1] + size * np.log(2 * np.pi * widths)
    return -(squared / widths + constant) / 2


def _known(embeddings: np.ndarray, faces: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """People in training, their photos' labels 0, 1, ... and embeddings, in double precision."""
    rows = (faces["split"] == "train").to_numpy()
    people, labels = np.unique(faces["identity"].to_numpy()[rows], return_inverse=True)
    if len(people) < 2 or len(labels) == len(people):
        raise ValueError(
            'a map needs 2 people, and 2 photos of one of them, in "train", and there are '
            f"{len(people)} people with {len(labels)} photos"
        )
    return people, labels, embeddings[rows].astype(np.float64)


def _means(known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Means of the people [K, D]."""
    return np.array([known[labels == label].mean(0) for label in range(labels.max() + 1)])


def _unit(embeddings: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.maximum(norms, 1e-12)).astype(np.float32)
