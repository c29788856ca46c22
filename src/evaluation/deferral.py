"""Known, unknown, or too poor to tell: what a third answer changes, and which measure should give it."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from src.evaluation import open_set, verification
from src.evaluation.pairs import Trials
from src.limits import NotPossible

UNTIL = 0.3  # share of photos dropped up to which errors are averaged
STEPS = 20


def compared(
    embeddings: Mapping[str, np.ndarray | NotPossible],
    test: Trials,
    measures: Mapping[str, np.ndarray],
    chosen: pd.DataFrame,
    models: Collection[str] = (),
) -> pd.DataFrame:
    """How well each measure of a photo finds those that cause errors: error versus discard, in numbers.

    embeddings: float32 [N, D] unit rows by model; those of `models` only, where there are any. measures: by
    name, [N], higher is better. chosen: thresholds as of `verification.thresholds`. Columns: model, measure,
    frr (nothing dropped), left (the mean FRR over the shares dropped, from 0 to UNTIL: the partial area under
    the curve, divided by its width; lower is better), frr_at (when UNTIL of the photos are dropped). How to
    read such curves: Schlett et al., "Considerations on the Evaluation of Biometric Quality Assessment
    Algorithms", 2023.
    Raises NotPossible where no model has a threshold and pairs enough.
    """
    rows = []
    for model, vectors in embeddings.items():
        if models and model not in models:
            continue
        at = chosen[chosen["model"] == model]
        if isinstance(vectors, NotPossible) or at["threshold"].isna().all():
            continue
        for name, values in measures.items():
            table = verification.discard({model: vectors}, test, values, at, STEPS)
            part = table[table["discarded"] <= UNTIL + 1e-9]["frr"].to_numpy(float)
            if np.isfinite(part).all():
                rows.append((model, name, part[0], float(np.trapezoid(part) / (len(part) - 1)), part[-1]))
    if not rows:
        raise NotPossible("no model has a threshold, and 30 genuine pairs once photos are dropped")
    table = pd.DataFrame(rows, columns=["model", "measure", "frr", "left", "frr_at"])
    return table.sort_values(["model", "left"], kind="stable", ignore_index=True)


def answers(
    vectors: np.ndarray,
    others: np.ndarray,
    faces: pd.DataFrame,
    probes: pd.DataFrame,
    threshold: float,
    poor: np.ndarray,
    others_poor: np.ndarray,
) -> pd.DataFrame:
    """What is answered to each kind of photo: shares known, unknown and too poor to tell, of one model.

    vectors, others: embeddings of `faces` and of `probes`, float32 [N, D] and [M, D]; as of
    `open_set.measure`, lengths weigh. threshold: of a photo against the mean of a person's photos in train.
    poor, others_poor: which photos show too little, bool [N], [M].
    Columns: kind as of `open_set.measure`, photos, known (of known people: under the right name), wrong
    (taken for somebody that the photo does not show), unknown, too_poor; the four add up to 1.
    Raises NotPossible where there is no threshold, or nobody in training.
    """
    if not np.isfinite(threshold):
        raise NotPossible("val gives no threshold of a photo against a person")
    gallery = open_set.enrolled(vectors, faces)
    rows = []
    for kind in open_set.kinds(faces, probes):
        at = kind.rows
        given, unclear = (others[at], others_poor[at]) if kind.of_probes else (vectors[at], poor[at])
        scores = gallery.scores(given)
        taken = (scores.max(1) >= threshold) & ~unclear
        known = taken & kind.known
        if kind.known:
            known &= gallery.people[scores.argmax(1)] == faces["identity"].to_numpy()[at]
        shares = (known, taken & ~known, ~taken & ~unclear, unclear)
        rows.append((kind.name, len(at), *(float(share.mean()) for share in shares)))
    return pd.DataFrame(rows, columns=["kind", "photos", "known", "wrong", "unknown", "too_poor"])


def enrolment(
    vectors: np.ndarray,
    others: np.ndarray,
    faces: pd.DataFrame,
    probes: pd.DataFrame,
    threshold: float,
    poor: np.ndarray,
) -> pd.DataFrame:
    """What photos that are too poor do to a gallery: answers with them in it, and without.

    Arguments as of `answers`. A person all of whose photos in train are too poor keeps them. Columns: kind,
    photos, known and wrong (shares, all of train enrolled), known_without and wrong_without.
    Raises NotPossible where no photo of train is too poor, and as `answers` does.
    """
    training = (faces["split"] == "train").to_numpy()
    clear = faces["identity"].isin(faces["identity"][training & ~poor]).to_numpy()
    dropped = training & poor & clear
    if not dropped.any():
        raise NotPossible("no photo of train is too poor to be enrolled")
    fewer = faces.assign(split=faces["split"].mask(dropped, ""))
    none = np.zeros(len(faces), bool), np.zeros(len(probes), bool)
    found, without = (answers(vectors, others, kept, probes, threshold, *none) for kept in (faces, fewer))
    return found[["kind", "photos", "known", "wrong"]].assign(
        known_without=without["known"], wrong_without=without["wrong"]
    )
