"""Which model to take home: chosen on val, for a closed list of people and for where strangers come.

What does best on a test set owes a part of it to chance, so no test has a say here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.evaluation import verification
from src.evaluation.curves import auc_of
from src.evaluation.intervals import PEOPLE
from src.evaluation.operating_point import OWN, SEEN
from src.evaluation.pairs import possible
from src.limits import NotPossible


@dataclass(frozen=True)
class Recommendation:
    """What `recommend` chose.

    `closed_list` is the model for people who are all known, `strangers` the one for where others come, None
    where that could not be tried. `model` is the one of the two that the user's question asks for. `why` says
    how it was chosen, and `table` holds the numbers of val: model, auc (of pairs of people in training),
    auc_unseen (of pairs of people of its own, the column left out where there are none), threshold, found
    (known people's photos found at it, 0-1), photos, note.
    """

    model: str
    closed_list: str
    strangers: str | None
    why: str
    table: pd.DataFrame

    @property
    def threshold(self) -> float:
        """The recommended model's, of a photo against a person's mean embedding; NaN where there is none."""
        return float(self.table.set_index("model")["threshold"].get(self.model, np.nan))


def recommend(
    embeddings: Mapping[str, np.ndarray | NotPossible],
    faces: pd.DataFrame,
    found: pd.DataFrame | NotPossible,
    closed: bool = False,
    target_fpir: float = 0.01,
) -> Recommendation:
    """The models to take; the first is the baseline, which stays where nothing beats it.

    embeddings: of the models to choose from, float32 [N, D] unit rows, row i being row i of `faces`
    (`identity`, `quality`, `group`, `split`); those that were not possible are passed over. found: of
    `open_set.on_val`, or why there is none. closed: whether the user says that nobody but the people in
    training will ever stand before the camera.

    For a closed list the highest AUC on val's pairs of people in training decides, or, where it has none, of
    all its pairs if they are of enough people; for strangers the share of those people's photos found under
    the right name at the threshold at which no more than `target_fpir` of val's probes of nobody known get
    in. Raises ValueError where there are no models.
    """
    candidates = list(possible(embeddings))
    if not candidates:
        raise ValueError("there are no models to choose from")
    table, whose = _on_val(embeddings, faces, candidates)
    places = {name: place for place, name in enumerate(candidates)}
    if isinstance(found, NotPossible):
        table = table.assign(threshold=np.nan, found=np.nan, photos=0, note=str(found))
    else:
        table = table.merge(found, how="left", on="model")
    order = table.assign(place=table["model"].map(places), auc=table["auc"].round(6))
    by_auc = order.sort_values(["auc", "place"], ascending=[False, True])
    closed_list = str(by_auc["model"].iloc[0]) if table["auc"].notna().any() else candidates[0]
    strangers = None
    if table["found"].notna().any():
        by_found = order.sort_values(["found", "auc", "place"], ascending=[False, False, True])
        strangers = str(by_found["model"].iloc[0])
    model = closed_list if closed or strangers is None else strangers
    why = _why(table.set_index("model"), model, closed_list, strangers, closed, target_fpir, whose)
    return Recommendation(model, closed_list, strangers, why, table)


def _on_val(
    embeddings: Mapping[str, np.ndarray | NotPossible], faces: pd.DataFrame, candidates: list[str]
) -> tuple[pd.DataFrame, str]:
    """AUC by model on val's pairs of people in training, and of others there; and which of them decides."""
    val = verification.on_val({name: embeddings[name] for name in candidates}, faces)

    def aucs(whose: str) -> list[float]:
        counts = val.get(whose, {})
        return [auc_of(counts[name]["all"]) if counts.get(name) else np.nan for name in candidates]

    table = pd.DataFrame({"model": candidates, "auc": aucs(SEEN), "auc_unseen": aucs(OWN)})
    if table["auc"].notna().any():
        return (table if table["auc_unseen"].notna().any() else table.drop(columns="auc_unseen")), SEEN
    photos = faces.loc[faces["split"] == "val", "identity"].value_counts()
    enough = (photos > 1).sum() >= PEOPLE
    own = table["auc_unseen"] if enough else np.nan
    return table.drop(columns="auc_unseen").assign(auc=own), OWN if enough else SEEN


def _why(
    table: pd.DataFrame,
    model: str,
    closed_list: str,
    strangers: str | None,
    closed: bool,
    target_fpir: float,
    whose: str,
) -> str:
    """How the choice was made, and what it costs, in a few sentences."""

    def auc(name: str) -> str:
        return f"AUC {table['auc'][name]:.3f}"

    def finds(name: str) -> str:
        return f"finds {table['found'][name]:.0%} of known people's photos"

    if table["auc"].isna().all() and strangers is None:
        return f"val shows too few people to choose on, so {model} stays."
    start = "Chosen on val, no test had a say"
    by_auc = f"{closed_list} for a closed list of people ({auc(closed_list)} on val's pairs of {whose})"
    if strangers is None:
        why = table["note"].iloc[0] or "val has no photos of people in training"
        return f"{start}: {by_auc}. Which suits where strangers come could not be tried: {why}."
    door = f"where {target_fpir:.0%} of val's probes of nobody known get in, it {finds(strangers)}"
    if strangers == closed_list:
        best = f"{strangers} has the best {auc(model)} on pairs of {whose}"
        return f"{start}: {best}, and {door}: none finds more."
    other = f"{closed_list} {finds(closed_list)}"
    by_found = f"{strangers} where strangers come ({auc(strangers)}; {door}, {other})"
    asked = " You asked for a closed list." if closed else ""
    return f"{start}: {by_found}; {by_auc}.{asked}"
