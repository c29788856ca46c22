"""Who else is taken for one of the people one knows: strangers, smears, what shows no face at all.

Pairs do not answer this. A photo is held against everybody in training, and the best score decides: with a
hundred people behind a door, one false accept in a hundred comparisons lets almost everyone in. Terms as in
ISO/IEC 19795-1: FPIR is the share of probes of nobody known that are taken for somebody, TPIR that of probes
of known people that are found under the right name.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from src.artifacts import uses
from src.evaluation.intervals import bounded, interval, of_people, share_without_each
from src.evaluation.pairs import possible
from src.limits import NotPossible

PER_COMPARISON, PER_PROBE = "FAR of comparisons", "FPIR of val's probes"
KNOWN, OTHERS = "known people", "others"  # how these kinds begin
SIMULATED = "val has no strangers: its photos, held against all people but their own, stand in for them"
_WHEN = {
    PER_COMPARISON: "At the threshold for the target FAR of comparisons",
    PER_PROBE: "At the one for the target FPIR of val's probes",
}
QUALITIES = {"high": "good photos", "low": "bad photos"}


@uses(faces=("identity", "quality", "split"), probes=("kind", "split", "identity"))
def measure(
    embeddings: Mapping[str, np.ndarray | NotPossible],
    probe_embeddings: Mapping[str, np.ndarray | NotPossible],
    faces: pd.DataFrame,
    probes: pd.DataFrame,
    target_far: float = 0.01,
    target_fpir: float = 0.01,
) -> pd.DataFrame:
    """One row per model, threshold and kind of probe: the share taken for somebody known, or found.

    embeddings: float32 [N, D] by model, row i being row i of `faces` (`identity`, `quality`, `split`).
    probe_embeddings: float32 [M, D] of `probes` (`kind`, `split`, `identity`); those in
    "val" choose thresholds, those of "test" are counted, with the photos of test_unseen. A person is known by
    the mean of their embeddings in train, in which a longer one counts for more; else lengths don't matter.

    Two thresholds, both chosen on val: the lowest at which its impostor comparisons are accepted at
    `target_far` at most, and the lowest at which no kind of its probes is taken for somebody at more than
    `target_fpir`. With fewer than 1 / target_fpir of them it lies above all. Where val has no strangers, its
    own photos are held against all people but their own, and `note` says so.

    Columns: model, rule (PER_COMPARISON or PER_PROBE), threshold, kind, photos, people, rate (0-1) with its
    95 % interval over people, low and high, and note. The kind is one of `probes`, "strangers, good photos"
    and the like for test_unseen, or, for TPIR, KNOWN with the quality of test_seen's photos.
    Raises NotPossible where nobody is in training, or val is empty, or where there is no model.
    """
    rows: list[dict[str, object]] = []
    for model, vectors, others in _with_probes(embeddings, probe_embeddings):
        gallery = enrolled(vectors, faces)
        chosen, note = _thresholds(gallery, vectors, faces, others, probes, target_far, target_fpir)
        counted = []
        for kind in kinds(faces, probes):
            given, table = (others, probes) if kind.of_probes else (vectors, faces)
            identity, given = table["identity"].to_numpy()[kind.rows], given[kind.rows]
            scores = _right(gallery, given, identity) if kind.known else gallery.best(given)
            counted.append((kind.name, scores, identity))
        for rule, threshold in chosen.items():
            labels = {"model": model, "rule": rule, "threshold": threshold, "note": note}
            for name, scores, people in counted:
                rows.append(labels | {"kind": name} | _rate(scores >= threshold, people))
    order = ["model", "rule", "threshold", "kind", "photos", "people", "rate", "low", "high", "note"]
    return pd.DataFrame(rows)[order]


@uses(faces=("identity", "quality", "split"), probes=("kind", "split", "identity"))
def on_val(
    embeddings: Mapping[str, np.ndarray | NotPossible],
    probe_embeddings: Mapping[str, np.ndarray | NotPossible],
    faces: pd.DataFrame,
    probes: pd.DataFrame,
    target_fpir: float = 0.01,
) -> pd.DataFrame:
    """How many photos of known people each model finds in val, at the threshold chosen there for strangers.

    Arguments and errors as of `measure`, of which this is the part that chooses: no test has a say. Columns:
    model, threshold, found (the TPIR, 0-1; NaN where val shows nobody known), photos, note.
    """
    rows = []
    for model, vectors, others in _with_probes(embeddings, probe_embeddings):
        gallery = enrolled(vectors, faces)
        chosen, note = _thresholds(gallery, vectors, faces, others, probes, 0.5, target_fpir)
        at = ((faces["split"] == "val") & faces["identity"].isin(gallery.people)).to_numpy()
        hits = _right(gallery, vectors[at], faces["identity"].to_numpy()[at]) >= chosen[PER_PROBE]
        found = float(hits.mean()) if len(hits) else np.nan
        rows.append((model, chosen[PER_PROBE], found, len(hits), note))
    return pd.DataFrame(rows, columns=["model", "threshold", "found", "photos", "note"])


def _with_probes(
    embeddings: Mapping[str, np.ndarray | NotPossible],
    probe_embeddings: Mapping[str, np.ndarray | NotPossible],
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """The models that have embeddings of photos and of probes: name, both; NotPossible without any."""
    found, others = possible(embeddings), possible(probe_embeddings)
    both = [(model, vectors, others[model]) for model, vectors in found.items() if model in others]
    if not both:
        raise NotPossible("there is no model to hold strangers against")
    return both


class Kind(NamedTuple):
    """Photos of the tests that are told apart: `rows` of `faces`, or of the probes."""

    name: str
    rows: np.ndarray
    of_probes: bool = False

    @property
    def known(self) -> bool:
        """Whether they show people in training."""
        return self.name.startswith(KNOWN)


def kinds(faces: pd.DataFrame, probes: pd.DataFrame) -> list[Kind]:
    """What is held against the people known: photos of them and of strangers, by quality, and all probes."""
    found = []
    for split, what in (("test_seen", KNOWN), ("test_unseen", "strangers")):
        rows = np.flatnonzero(faces["split"] == split)
        quality = faces["quality"].to_numpy(str)[rows]
        found += [
            Kind(f"{what}, {QUALITIES.get(name, 'photos')}", rows[quality == name])
            for name in np.unique(quality)
        ]
    tested = probes[(probes["split"] == "test").to_numpy()]
    for name in tested["kind"].unique():
        rows = np.flatnonzero((probes["split"] == "test") & (probes["kind"] == name))
        found.append(Kind(str(name), rows, of_probes=True))
    return found


class Gallery(NamedTuple):
    """The people one knows: a mean embedding of each."""

    people: np.ndarray  # [K], sorted
    means: np.ndarray  # float32 [K, D], unit rows

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """Cosines [n, K]; -inf where there is no embedding."""
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.nan_to_num(vectors @ self.means.T / lengths, nan=-np.inf)

    def best(self, vectors: np.ndarray) -> np.ndarray:
        return self.scores(vectors).max(1)


def enrolled(vectors: np.ndarray, faces: pd.DataFrame) -> Gallery:
    """The people in training, each by the mean of their embeddings there; NotPossible where nobody is."""
    training = (faces["split"] == "train").to_numpy() & np.isfinite(vectors[:, 0])
    if not training.any():
        raise NotPossible("nobody is in training: there is nobody to take a stranger for")
    people, labels = np.unique(faces["identity"].to_numpy()[training], return_inverse=True)
    sums = np.zeros((len(people), vectors.shape[1]))
    np.add.at(sums, labels, vectors[training])
    return Gallery(people, (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32))


def _thresholds(
    gallery: Gallery,
    vectors: np.ndarray,
    faces: pd.DataFrame,
    others: np.ndarray,
    probes: pd.DataFrame,
    target_far: float,
    target_fpir: float,
) -> tuple[dict[str, float], str]:
    """Both thresholds of a model, and what is to be said of how they were chosen."""
    val = np.flatnonzero(faces["split"] == "val")
    if not len(val):
        raise NotPossible("val is empty: there is nothing to choose a threshold on")
    scores = gallery.scores(vectors[val])
    own = faces["identity"].to_numpy()[val][:, None] == gallery.people
    impostor = np.where(own, -np.inf, scores)
    stranger = ~own.any(1)
    best, kind = gallery.best(others), probes["kind"].to_numpy(str)
    on_val = (probes["split"] == "val").to_numpy()
    of_nobody = [best[on_val & (kind == name)] for name in np.unique(kind[on_val])]
    simulated = not stranger.any() and not np.char.startswith(kind[on_val], OTHERS).any()
    if stranger.any():
        of_nobody.append(impostor.max(1)[stranger])
    if simulated:
        if len(gallery.people) < 2:
            raise NotPossible("one person is in training, and val has nobody else to choose a threshold on")
        of_nobody.append(impostor.max(1))
    each = {
        PER_COMPARISON: _least(scores[~own], target_far),
        PER_PROBE: max(_least(scores, target_fpir) for scores in of_nobody),
    }
    return each, SIMULATED if simulated else ""


def _least(scores: np.ndarray, target: float) -> float:
    """The lowest threshold that at most a share `target` of the scores reach."""
    ordered = np.sort(scores)[::-1]
    allowed = int(target * len(ordered))
    refused = max(float(ordered[allowed]), -1.0)
    accepted = float(ordered[allowed - 1]) if allowed else refused
    if accepted > refused:
        return (accepted + refused) / 2  # half-way, clear of rounding
    return float(np.nextafter(np.float32(refused), np.float32(2)))


def _right(gallery: Gallery, vectors: np.ndarray, identity: np.ndarray) -> np.ndarray:
    """The score of each photo under the right name, [n]; -inf where another's is higher."""
    scores = gallery.scores(vectors)
    own = identity[:, None] == gallery.people
    right = np.where(own, scores, -np.inf).max(1, initial=-np.inf)
    other = np.where(own, -np.inf, scores).max(1, initial=-np.inf)
    return np.where(right > other, right, -np.inf)


def _rate(hits: np.ndarray, people: np.ndarray) -> dict[str, object]:
    """The share of hits and its interval, which leaves out each person's probes in turn."""
    value, left_out, photos = share_without_each(pd.Series(hits), people)
    low, high = interval(value, left_out, photos)
    if np.isnan(low):  # as where nobody is taken for anybody: then what so many people can show
        low, high = of_people(value, photos)
    return {"photos": len(hits), "people": len(photos), "rate": value, "low": low, "high": high}


def at(measured: pd.DataFrame, rule: str = PER_PROBE) -> pd.DataFrame:
    """The rows of one rule: at the threshold that it chooses."""
    return measured[measured["rule"] == rule]


def in_words(measured: pd.DataFrame | NotPossible, model: str, baseline: str) -> str:
    """What becomes of strangers, as a point of a list in Markdown: how many of 100 are taken for somebody.

    The probes are those nearest to what a camera sees that there are: bad photos of others before good ones,
    people of test_unseen before those of a folder, smears where there is nobody else.
    """
    if isinstance(measured, NotPossible):
        return f"\n- **Strangers.** Not tested: {measured}."
    kind, known = worst_kinds(measured)
    text = ""
    for rule, when in _WHEN.items():
        rates = at(measured, rule).set_index(["model", "kind"])["rate"].to_dict()
        parts = []
        for name in (baseline, model):
            if (name, kind) in rates:
                found = f" (known people found: {rates[name, known]:.0%})" if known else ""
                parts.append(f"{name} {100 * rates[name, kind]:.0f}{found}")
        text += f" {when}: {', '.join(parts)}." if parts else ""
    note = "" if pd.isna(measured["note"].iloc[0]) else str(measured["note"].iloc[0])  # a .csv has no ""
    what = kind if kind.startswith(("strangers", "others")) else f"probes, {kind}"
    tested = f"\n- **Strangers.** Of 100 {what}, so many are taken for one of the people in training.{text}"
    return tested + (f" {note[0].upper()}{note[1:]}." if note else "")


def worst_kinds(measured: pd.DataFrame) -> tuple[str, str]:
    """The kind of probe nearest to what a camera sees of others, and that of known people; "" for none."""
    kinds = [str(kind) for kind in measured["kind"].unique()]
    others = [name for name in kinds if not name.startswith(KNOWN)]
    known = [name for name in kinds if name.startswith(KNOWN)]
    return min(others, key=_worth, default=""), max(known, key=lambda name: "bad" in name, default="")


def _worth(kind: str) -> tuple[bool, bool, bool]:
    return kind in ("smears", "no face"), "bad" not in kind, kind.startswith("others")


def in_columns(measured: pd.DataFrame, rule: str = PER_PROBE) -> pd.DataFrame:
    """To read: a row per model, a column per kind, "3% [1, 8]", at the threshold chosen by `rule`."""
    rows = at(measured, rule).rename(columns={"low": "rate_low", "high": "rate_high"})
    text = [bounded(row, "rate", ".0%") for row in rows.to_dict("records")]
    texts = rows.assign(text=text).pivot_table("text", "model", "kind", aggfunc="first")
    return texts.reindex(index=rows["model"].unique(), columns=rows["kind"].unique())
