"""Which face of a photo is the person's: the one that agrees with the person's other photos.

A friend or a poster beside the person may be larger and more central; only the other photos tell. A person's
photos are compared within one split and never across: what is tested has no say in what is learnt.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src import artifacts
from src.packs.faces import WHOLE, take

ONLY, LARGEST = "only face", "largest and most central"
AGREES, NONE = "agrees with the person's other photos", "no face found"

MARGIN = 0.1  # cosine; a face that agrees better than another by less than that does not agree better
SAMPLE = 1000  # faces from which it is told how alike two people are
PAIR_LEVEL = 0.4  # cosine from which two faces are alike, where there is but one person to tell it from
COPY = 0.95  # cosine from which two faces are the same picture, as of a poster, and no evidence
MOST_ROUNDS = 10
MOST_PHOTOS = 256  # of a person without a single-face photo, in which alike faces are looked for
UNLIKE, UNLIKE_ANYBODY = 1.0, 3.0  # robust standard deviations below what is usual for a person


@artifacts.uses(images=("path", "status", "identity", "split", "group"))
def choose(
    candidates: pd.DataFrame,
    crops: np.ndarray,
    embeddings: np.ndarray,
    images: pd.DataFrame,
    workspace: Path | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Chooses one face for every usable image; returns `found`, a row for each, and their crops.

    candidates, crops: of `faces.every_face`. embeddings: float32 `[M, D]`, unit rows, of these crops by the
    pack's recogniser. images: the table that the faces were found in, with `identity`, `split` and `group`.

    What the photos of a person in one split show is told from those with a single face; where there are none,
    from the largest group of faces that are alike, one a photo. Of several faces that one is taken which
    agrees with these by MARGIN better than the largest and most central, and better than other people's faces
    usually do; else the largest and most central. The chosen ones then count too, until nothing changes.

    `found` has the columns of `candidates` and
    - `candidate`: the face's row in `candidates`, so that its embedding is `embeddings[candidate]`;
    - `rank`: 1 for the largest and most central face, 2 for the next, ...;
    - `chosen`: why this face, one of ONLY, LARGEST, AGREES, NONE;
    - `agreement`: mean cosine with the chosen faces of the person's other photos in the split, each `group`
      of near-copies counted once and the photo's own not at all; NaN where there are no others;
    - `other`, `other_agreement`: who else in the split it agrees with most, and how much; "" and NaN where
      there is nobody else.

    Raises ValueError where candidates and images do not belong together.
    """
    usable = images[images["status"] == "ok"].reset_index(drop=True)
    first = np.flatnonzero(~candidates["path"].duplicated())
    if usable["path"].tolist() != candidates["path"].iloc[first].tolist():
        raise ValueError("These are not the images that the faces were found in: their paths differ.")
    if not len(candidates) == len(crops) == len(embeddings):
        raise ValueError(
            f"{len(candidates)} faces, {len(crops)} crops and {len(embeddings)} embeddings: rows must match."
        )
    ends = np.append(first, len(candidates))
    face = (candidates["found"] != WHOLE).to_numpy()[first]
    single = face & (np.diff(ends) == 1)
    chosen, agrees = first.copy(), np.zeros(len(first), bool)
    agreement = pd.DataFrame(index=usable.index, columns=["agreement", "other", "other_agreement"])
    for photos in usable.groupby("split", dropna=False).indices.values():
        here = usable.iloc[photos]
        part = _Part(
            embeddings,
            [np.arange(ends[i], ends[i + 1]) for i in photos],
            pd.factorize(here["identity"])[0],
            here.groupby(["identity", "group"], dropna=False).ngroup().to_numpy(),
            face[photos],
            single[photos],
        )
        chosen[photos], agrees[photos] = _choose(part)
        agreement.iloc[photos] = _agreement(part, chosen[photos], pd.factorize(here["identity"])[1])
    why = np.select([~face, agrees, single], [NONE, AGREES, ONLY], LARGEST)
    found = candidates.iloc[chosen].reset_index(drop=True)
    found = found.assign(candidate=chosen, rank=chosen - first + 1, chosen=why, **agreement)
    found = found.astype({"agreement": float, "other_agreement": float})
    return found, take(crops, chosen, None if workspace is None else workspace / "crops.npy")


@dataclass(frozen=True)
class _Part:
    """The photos of one split, as far as the choice is concerned; all but `embeddings` have a row a photo."""

    embeddings: np.ndarray  # of all candidates
    faces: list[np.ndarray]  # rows of its candidates, the likeliest first
    person: np.ndarray  # 0, 1, ...
    group: np.ndarray  # 0, 1, ...; no two people share one
    found: np.ndarray  # whether there is a face at all
    single: np.ndarray  # whether there is one face


class _Looks:
    """How each person looks in some photos: the mean of their faces, near-copies counted once."""

    def __init__(self, part: _Part, faces: np.ndarray, counts: np.ndarray) -> None:
        """faces: rows of the photos' faces. counts: which photos count."""
        self.part = part
        photos = np.flatnonzero(counts)
        groups, people = int(part.group.max()) + 1, int(part.person.max()) + 1
        size = np.bincount(part.group[photos], minlength=groups)
        self.means = np.zeros((groups, part.embeddings.shape[1]), np.float32)
        np.add.at(self.means, part.group[photos], part.embeddings[faces[photos]])
        self.means /= np.maximum(size, 1)[:, None]
        self.known = size > 0
        owner = np.zeros(groups, int)
        owner[part.group] = part.person
        self.count = np.bincount(owner[self.known], minlength=people)
        self.sums = np.zeros((people, self.means.shape[1]), np.float32)
        np.add.at(self.sums, owner[self.known], self.means[self.known])

    def people(self) -> np.ndarray:
        """The mean of each person's faces `[P, D]`, NaN for those who have none."""
        return np.where(self.count > 0, 1, np.nan)[:, None] * self.sums / np.maximum(self.count, 1)[:, None]

    def others(self, photos: np.ndarray) -> np.ndarray:
        """For each photo, the mean of its person's faces elsewhere `[n, D]`, NaN where there are none."""
        person, group = self.part.person[photos], self.part.group[photos]
        own = self.known[group]
        count = self.count[person] - own
        sums = self.sums[person] - np.where(own[:, None], self.means[group], 0)
        return np.where(count > 0, 1, np.nan)[:, None] * sums / np.maximum(count, 1)[:, None]


# ---------------------------------------------------------------- choosing


def _choose(part: _Part) -> tuple[np.ndarray, np.ndarray]:
    """The row of each photo's chosen face, and whether it was chosen since it agrees."""
    first = np.array([rows[0] for rows in part.faces])
    chosen, agrees, known = first.copy(), np.zeros(len(first), bool), part.single.copy()
    several = np.flatnonzero(part.found & ~part.single)
    if not len(several):
        return chosen, agrees
    looks = _Looks(part, first, part.single)
    pair_level, mean_level = _levels(part, first, looks)
    for person in np.unique(part.person[several]):
        if not looks.count[person]:
            for photo, row in _alike(part, int(person), looks, pair_level).items():
                chosen[photo], known[photo] = row, True
    for _ in range(MOST_ROUNDS):
        before, was_known = chosen.copy(), known.copy()
        wanted = _Looks(part, chosen, known).others(several)
        for i, look in zip(several, wanted, strict=True):
            if np.isfinite(look).all():
                best, agrees[i] = _best(part.embeddings[part.faces[i]] @ look, mean_level)
                chosen[i] = part.faces[i][best]
                known[i] = agrees[i]
        if (chosen == before).all() and (known == was_known).all():
            break
    return chosen, agrees


def _best(scores: np.ndarray, least: float) -> tuple[int, bool]:
    """Which of a photo's faces to take, the likeliest being the first, and whether the scores decided it."""
    best = int(np.argmax(scores))
    rivals = np.delete(scores, best) if best == 0 else scores[:1]
    clear = scores[best] >= least and scores[best] - rivals.max() >= MARGIN
    return (best, True) if clear else (0, False)


def _levels(part: _Part, first: np.ndarray, looks: _Looks) -> tuple[float, float]:
    """Cosines that pairs of two people's faces, and faces with another's mean, do not usually reach."""
    photos = np.flatnonzero(part.found)
    photos = photos[np.linspace(0, len(photos) - 1, min(SAMPLE, len(photos))).astype(int)]
    faces, person = part.embeddings[first[photos]], part.person[photos]
    pairs = (faces @ faces.T)[person[:, None] != person]
    means = (faces @ looks.people().T)[person[:, None] != np.arange(len(looks.count))]
    return _above(pairs, 2, PAIR_LEVEL), _above(means[np.isfinite(means)], 1, -1.0)


def _above(values: np.ndarray, deviations: int, otherwise: float) -> float:
    """So many robust standard deviations above the median: a few of the values may be of the same people."""
    if not len(values):
        return otherwise
    median = np.median(values)
    return float(median + deviations * 1.4826 * np.median(np.abs(values - median)))


def _alike(part: _Part, person: int, looks: _Looks, least: float) -> dict[int, int]:
    """Of a person without a single-face photo, the largest group of faces alike: row by photo.

    Faces more like somebody else, who is known from single-face photos, are not theirs. Empty where there are
    none, or two groups are equally large.
    """
    photos = np.flatnonzero((part.person == person) & part.found)
    photos = photos[np.linspace(0, len(photos) - 1, min(MOST_PHOTOS, len(photos))).astype(int)]
    rows = np.concatenate([part.faces[photo] for photo in photos])
    owner = np.repeat(np.arange(len(photos)), [len(part.faces[photo]) for photo in photos])
    faces = part.embeddings[rows]
    group = part.group[photos][owner]
    alike = faces @ faces.T
    linked = (alike >= least) & (alike < COPY) & (group[:, None] != group)
    elsewhere = np.nan_to_num(faces @ looks.people().T, nan=-1.0).max(axis=1)
    here_too = (alike * linked).sum(axis=1) / np.maximum(linked.sum(axis=1), 1)
    somebody_else = elsewhere >= np.maximum(least, here_too - MARGIN)
    linked[somebody_else] = linked[:, somebody_else] = False
    here, there = np.nonzero(linked)
    pairs = np.unique(np.stack([here, owner[there]], axis=1), axis=0)
    support = np.bincount(pairs[:, 0], minlength=len(rows))
    if not support.any():
        return {}
    seed = int(np.argmax(support))
    members: dict[int, int] = {int(owner[seed]): seed}
    for other in np.flatnonzero(linked[seed]):
        photo = int(owner[other])
        if photo not in members or alike[seed, other] > alike[seed, members[photo]]:
            members[photo] = int(other)
    rivals = np.setdiff1d(np.arange(len(rows)), [*members.values(), *np.flatnonzero(linked[seed])])
    if support[rivals].max(initial=0) >= support[seed]:
        return {}
    return {int(photos[photo]): int(rows[row]) for photo, row in members.items()}


def _agreement(part: _Part, chosen: np.ndarray, names: pd.Index) -> np.ndarray:
    """`agreement`, `other` and `other_agreement` of each photo; names: of the people, by their numbers."""
    looks = _Looks(part, chosen, part.found)
    people = np.nan_to_num(looks.people())
    photos = np.arange(len(chosen))
    result = np.empty((len(chosen), 3), object)
    for some in np.array_split(photos, -(-len(photos) // 4096)):
        faces, rows = part.embeddings[chosen[some]], np.arange(len(some))
        result[some, 0] = (faces * looks.others(some)).sum(axis=1)
        scores = np.where(looks.count > 0, faces @ people.T, -np.inf)
        scores[rows, part.person[some]] = -np.inf
        nearest = scores.argmax(axis=1)
        somebody = np.isfinite(scores[rows, nearest])
        result[some, 1] = np.where(somebody, names[nearest], "")
        result[some, 2] = np.where(somebody, scores[rows, nearest], np.nan)
    return result


# ---------------------------------------------------------------- for a person to look at


def doubtful(faces: pd.DataFrame) -> pd.DataFrame:
    """The photos that somebody should look at, worst first, with two columns: a word or two, and a sentence.

    faces: a row a photo, with the columns of `choose`, `identity` and `split`. The result has all of its
    columns and keeps its index: `crops[result.index]` are the crops. `doubt` is the worst of these, in this
    order, and `reason` says all that apply:

    - "unlike others": the face is unlike its person's others: see `_unlike`. The most unlike come first.
    - "another face": not the largest and most central face was taken, as it agrees with the others.
    - "2 faces": the largest and most central was taken, as the others do not tell.
    - "turned 180": the photo was turned for the face to stand.
    - "whole photo": no face was found.

    Of several faces the largest, agreeing with the person's other photos, is in no doubt.
    """
    unlike, void = _unlike(faces)
    several = (faces["n_faces"] > 1) & (faces["chosen"] == LARGEST)
    numbers, degrees = faces["n_faces"].astype(str), faces["turned"].astype(str)
    kinds: list[tuple[pd.Series, Any, Any]] = [
        (unlike, "unlike others", _likeness(faces)),
        (faces["rank"] > 1, "another face", f"another than the largest face taken: it {AGREES}"),
        (several, numbers + " faces", numbers + f" faces, {LARGEST} taken: other photos do not tell"),
        (faces["turned"] != 0, "turned " + degrees, "turned by " + degrees + " degrees"),
        (faces["found"] == WHOLE, WHOLE, f"{NONE}, the whole photo taken"),
    ]
    doubt = pd.Series("", faces.index)
    reason, order = doubt.copy(), pd.Series(len(kinds), faces.index)
    for place, (applies, words, sentence) in enumerate(kinds):
        new = applies & (doubt == "")
        order = order.mask(new, place)
        reason = reason.mask(applies, reason + np.where(reason == "", "", "; ") + sentence)
        doubt = doubt.mask(new, words)
    worst = np.lexsort((-void.fillna(-np.inf), order))
    return faces.assign(doubt=doubt, reason=reason).iloc[worst[: int((doubt != "").sum())]]


def _unlike(faces: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Which faces are unlike their person's others, so that the label may be wrong, and how much they are.

    They agree less with them than with somebody else of the split, or than faces of the split usually do with
    that other person whom they are most like: so much says nothing. And they lie below what is usual for the
    person by more than UNLIKE robust standard deviations; where there is nobody else in the split, by more
    than UNLIKE_ANYBODY, and that is enough. Usual is the median `agreement` of the person's photos in the
    split, or of all in the split where the person has fewer than 4. The deviation is 1.4826 times the median
    distance from it, over the split.
    """
    found = faces["found"] != WHOLE
    agreement, other = faces["agreement"].where(found), faces["other_agreement"].where(found)
    split, person = faces["split"], [faces["identity"], faces["split"]]
    few = agreement.groupby(person).transform("count") < 4
    usual = agreement.groupby(person).transform("median")
    below = usual.mask(few, agreement.groupby(split).transform("median")) - agreement
    deviations = below / (1.4826 * below.abs().groupby(split).transform("median")).clip(lower=1e-6)
    anybody = other.groupby(split).transform("median")
    void = other.where(other > anybody, anybody).fillna(0.0) - agreement
    unlike = ((void > 0) & (deviations > UNLIKE)) | (other.isna() & (deviations > UNLIKE_ANYBODY))
    return unlike, void


def _likeness(faces: pd.DataFrame) -> pd.Series:
    """How little each face is like its person's others, and whom it is more like, if anybody."""
    unlike = "unlike the person's other photos (" + faces["agreement"].map("{:.2f}".format) + ")"
    somebody = ", more like " + faces["other"] + faces["other_agreement"].map(" ({:.2f})".format)
    return unlike + somebody.where(faces["other_agreement"] > faces["agreement"], "")
