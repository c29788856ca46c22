"""Score normalisation by a cohort: how far a score stands out from those with people who are nobody here."""

import numpy as np


def as_norm(scores: np.ndarray, first: np.ndarray, second: np.ndarray, top: int = 100) -> np.ndarray:
    """Adaptive symmetric normalisation (AS-norm) of scores [n, m].

    first: scores of each of the n photos with a cohort, [n, C]; second: of each of the m, [m, C]. The cohort
    is photos of people who are in no pair. Of each photo the `top` highest count, so that it is held against
    those who are like it: a score becomes the mean of its distances to both photos' cohort scores, in their
    standard deviations. Cumani et al., "Comparison of speaker recognition approaches for real applications"
    (2011), as compared in Matejka et al., "Analysis of score normalization in multilingual speaker
    recognition" (2017). -inf, the score of what has no embedding, stays.
    Raises ValueError where the cohort has fewer than two photos, or shapes do not match.
    """
    if first.shape[1:] != second.shape[1:] or scores.shape != (len(first), len(second)):
        shapes = ", ".join(str(list(part.shape)) for part in (scores, first, second))
        raise ValueError(f"scores [n, m] and cohort scores [n, C] and [m, C] do not match: {shapes}")
    if min(top, first.shape[1]) < 2:
        raise ValueError(f"{min(top, first.shape[1])} cohort scores a photo are too few for a deviation")
    of_photos = []
    for cohort in (first, second):
        highest = -np.sort(-cohort, axis=1)[:, :top]
        of_photos.append((highest.mean(1), np.maximum(highest.std(1), 1e-9)))
    (mean, deviation), (its_mean, its_deviation) = of_photos
    apart = (scores - mean[:, None]) / deviation[:, None] + (scores - its_mean) / its_deviation
    return np.where(np.isneginf(scores), -np.inf, apart / 2)
