"""The card of an exported pack: what it is, how good, how sure, and what it must not be used for.

It counts people and names none. Its thresholds stand in a file of their own, which `identify` reads.
"""

import json
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from src import artifacts
from src.evaluation import open_set
from src.evaluation.intervals import bounded
from src.evaluation.pairs import ACROSS
from src.limits import NotPossible
from src.models import Model
from src.networks.network import FaceNetwork
from src.networks.recognisability import KEPT_OUT
from src.packs.export import CARD, RECOGNISER, THRESHOLDS

_PACKAGES = (
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "insightface",
    "numpy",
    "scikit-learn",
)
_TEMPLATES = ("PLDA", "PosteriorFusion", "Posterior", "OpenSet")  # maps that hold what each person looks like
_TESTS = {
    "test_seen": "new photos of people in training",
    "test_unseen": "people who are not in training",
    ACROSS: "one photo of somebody in training, the other of somebody who is not",
}
_USE = """```python
import cv2
from insightface.app import FaceAnalysis
app = FaceAnalysis(name="processed_dataset/pack")  # this folder; or put it in ~/.insightface/models/<name>
app.prepare(ctx_id=0)
a, b = (app.get(cv2.imread(file))[0].normed_embedding for file in ("a.jpg", "b.jpg"))
print(a @ b)  # the same person from the threshold on
```"""
_NOT_FOR = """\
- Not for decisions about people that no person checks: nobody is to be accused, refused or
  found by a score alone.
- Not for watching or naming people who do not know of it and have not agreed. Embeddings of faces are
  biometric data: in the EU they fall under Article 9 of the GDPR and the AI Act, elsewhere under other laws.
- Not for other cameras, ages or groups of people than it was tested on: the figures say nothing about them.
- Not for commercial use, see Licences."""


@dataclass(frozen=True)
class Results:
    """What is known of a model: its rows, and in `report` the baseline's too, of the tables of results."""

    report: pd.DataFrame  # of verification.report
    rates: pd.DataFrame  # of verification.at_thresholds
    held: pd.DataFrame | NotPossible  # of open_set.measure
    target_fpir: float  # for which the second threshold of `held` was chosen
    too_poor: str | NotPossible  # how many photos are too poor to tell, or why embeddings carry no such score


def write(
    folder: Path,
    model: Model,
    name: str,
    base: str,
    faces: pd.DataFrame,
    results: Results,
    parity: pd.DataFrame,
    precision: str = "float32",
) -> Path:
    """Writes the card and the thresholds of the pack in `folder`; returns the card.

    name, base: the rows of the report that are this model's and the baseline's. faces: `identity`, `quality`,
    `split`. parity: of `take_home.compared`. Raises OSError where the disk is full.
    """
    known = thresholds(model, name, faces, results)
    with artifacts.room_for(THRESHOLDS, folder), artifacts.whole(folder / THRESHOLDS) as draft:
        draft.write_text(json.dumps(known, indent=1), encoding="utf-8")
    parts = {
        "Use": f"{_USE}\n\nOne aligned face, 112 x 112 pixels, to {known['numbers']} numbers; two are "
        f"compared by their cosine. `{RECOGNISER}` holds networks and map.",
        "Trained on": _training(model, faces),
        "How good": _measured(results, name, base),
        "Thresholds": _decisions(known, results),
        "Strangers": _strangers(results.held),
        "The people in training": _people(model),
        "What it must not be used for": _NOT_FOR,
        "Export": f"In {precision}. {parity_in_words(parity)}",
        "Settings": _settings(model),
        "Versions": _versions(),
        "Files": _files(folder),
        "Licences": _LICENCES,
    }
    text = "\n\n".join([f"# {name}", *(f"## {title}\n\n{part}" for title, part in parts.items())])
    with artifacts.room_for(CARD, folder), artifacts.whole(folder / CARD) as draft:
        draft.write_text(text + "\n", encoding="utf-8")
    return folder / CARD


_LICENCES = """\
InsightFace's packs are for non-commercial research only, and so is what derives from them: the detector and
other modules here, and a recogniser that was tuned from a pack's or learnt from it. The project's code is
under the MIT licence. Whose photos these were, and what they agreed to, the user knows."""


def thresholds(model: Model, name: str, faces: pd.DataFrame, results: Results) -> dict[str, Any]:
    """What `identify` needs to decide.

    `pairs`: the threshold of two photos, None or as {threshold, target_far}. `people`: that of one photo
    against everybody known, by the mean of each person's embeddings, None or {threshold, target_fpir}.
    `known`: how many people it was chosen with. `too_poor`: the length below which an embedding shows too
    little, None or as {length, smears_below}. Templates then are means of embeddings as long as they come.
    """
    rates, held = results.rates, results.held
    pairs = people = None
    if len(rates) and np.isfinite(rates["threshold"].iloc[0]):
        first = rates.iloc[0]
        pairs = {"threshold": float(first["threshold"]), "target_far": float(first["target_far"])}
    if not isinstance(held, NotPossible):
        strict = held[held["rule"] == open_set.PER_PROBE]
        if len(strict) and np.isfinite(strict["threshold"].iloc[0]):
            threshold = float(strict["threshold"].iloc[0])
            people = {"threshold": threshold, "target_fpir": results.target_fpir}
    return {
        "model": name,
        "numbers": _numbers(model),
        "known": int(faces["identity"][faces["split"] == "train"].nunique()),
        "pairs": pairs,
        "people": people,
        "too_poor": None
        if isinstance(results.too_poor, NotPossible)
        else {"length": 1.0, "smears_below": KEPT_OUT},
    }


def parity_in_words(parity: pd.DataFrame) -> str:
    """What the pack gives for crops of the tests, against what the report was made from."""
    parts = [
        f"{row.test}, {row.crops} crops: least cosine {row.cosine:.6f}, AUC of all their pairs {row.auc:.4f} "
        f"(before the export {row.auc_before:.4f})"
        for row in parity.itertuples()
    ]
    return f"By InsightFace, against what the report was made from: {'; '.join(parts)}."


# ---------------------------------------------------------------- parts of the card


def _numbers(model: Model) -> int:
    with torch.inference_mode():
        return int(model.eval()(torch.zeros(1, 3, 112, 112)).shape[1])


def _training(model: Model, faces: pd.DataFrame) -> str:
    used = {}
    for split in ("train", "val"):
        part = faces[faces["split"] == split]
        kinds = ", ".join(
            f"{n} {quality}" for quality, n in part["quality"].value_counts().sort_index().items()
        )
        used[split] = (
            f"{len(part)} photos ({kinds}) of {part['identity'].nunique()} people" if len(part) else "none"
        )
    text = f"{used['train']}; epochs, thresholds and the like were chosen on {used['val']}."
    text += " The test photos chose nothing."
    starts = [
        f"{key}: {part.origin.architecture}, from {part.origin.weights}"
        for key, part in _networks(model).items()
    ]
    fitted = "none" if model.map is None else f"{type(model.map).__name__}, fitted on the same people"
    return f"{text}\n\nNetworks: {'; '.join(starts)}. Map of what they give: {fitted}."


def _networks(model: Model) -> dict[str, FaceNetwork]:
    parts = [part for part in model.networks if isinstance(part, FaceNetwork)]
    return dict(zip(model.names, parts, strict=True))


def _measured(results: Results, name: str, base: str) -> str:
    report = results.report
    compared = [f"AUC of {base}"] if name != base else []
    rows = [["test", "pairs", "people", "AUC", *compared, "EER", "not embedded"]]
    mine = report[(report["model"] == name) & report["auc"].notna()]
    for row in mine.to_dict("records"):
        same = report[
            (report["model"] == base)
            & (report["test"] == row["test"])
            & (report["quality"] == row["quality"])
        ]
        baseline = [bounded(same.iloc[0], "auc") if len(same) else ""] * len(compared)
        values = (bounded(row, "auc"), *baseline, bounded(row, "eer"), f"{row['fte']:.1%}")
        rows.append([row["test"], row["quality"], f"{row['genuine_people']:.0f}", *values])
    if len(rows) == 1:
        return "There are no test pairs of both kinds: nothing was measured."
    tests = "; ".join(f"{test}: {_TESTS[test]}" for test in mine["test"].unique() if test in _TESTS)
    return f"{_table(rows)}\n\nIn brackets 95 % intervals over people. {tests}."


def _decisions(known: dict[str, Any], results: Results) -> str:
    if known["pairs"] is None:
        parts = ["Two photos: val has too few pairs to choose a threshold on."]
    else:
        at = results.rates[results.rates["quality"] == "all"].to_dict("records")
        held = "; ".join(
            f"{row['test']}, from {_score(row['threshold'])} on, FAR {bounded(row, 'far', '.2%')}, "
            f"TAR {bounded(row, 'tar', '.2%')}"
            for row in at
        )
        pairs = known["pairs"]
        parts = [
            f"Two photos: the same person from a cosine of **{_score(pairs['threshold'])}** on, chosen on "
            f"val for a FAR of {pairs['target_far']:.2%}. On the tests, each with the threshold from val's "
            f"pairs of its kind: {held}."
        ]
    if known["people"] is None:
        parts.append(
            "One photo against everybody known: no threshold of its own; that of two photos stands in."
        )
    else:
        people = known["people"]
        parts.append(
            f"One photo against everybody known ({_mean(known)}): somebody from "
            f"**{_score(people['threshold'])}** on, chosen on val with {known['known']} known people so that "
            f"at most {people['target_fpir']:.0%} of each kind of probe of nobody known is taken for one of "
            "them. With more people known, more strangers are taken for one."
        )
    if isinstance(results.too_poor, NotPossible):
        parts.append(f"Too poor to tell: {results.too_poor}. The length of an embedding says nothing.")
    else:
        parts.append(
            "Too poor to tell: whatever the scores, an embedding shorter than "
            f"**{known['too_poor']['length']:g}** (`face.embedding_norm`), as {KEPT_OUT:.0%} of val's smears "
            f"are. {results.too_poor}"
        )
    return "\n\n".join(parts)


def _mean(known: dict[str, Any]) -> str:
    if known["too_poor"] is None:
        return "the mean of each person's unit embeddings"
    return "the mean of each person's embeddings as they come, so that photos weigh as much as they show"


def _strangers(held: pd.DataFrame | NotPossible) -> str:
    if isinstance(held, NotPossible) or not len(held):
        return f"Not tested: {held}." if isinstance(held, NotPossible) else "Not tested."
    rows = [["threshold", "photos of", "how many", "taken for somebody known, or found"]]
    for row in held.to_dict("records"):
        share = bounded(row | {"rate_low": row["low"], "rate_high": row["high"]}, "rate", ".1%")
        rows.append([f"{_score(row['threshold'])} ({row['rule']})", row["kind"], f"{row['photos']}", share])
    note = "" if pd.isna(held["note"].iloc[0]) else str(held["note"].iloc[0])  # a .csv has no ""
    return _table(rows) + (f"\n\n{note[0].upper()}{note[1:]}." if note else "")


def _people(model: Model) -> str:
    kind = type(model.map).__name__ if model.map is not None else ""
    if kind in _TEMPLATES:
        return (
            f"**This file holds biometric templates of the people in training**: its map ({kind}) keeps what "
            "each of them looks like to the network. Treat it as their biometric data: whoever has the file "
            "can tell whether a photo shows one of them. The network alone can be exported instead: the row "
            "of the report without the map."
        )
    return (
        "No template of anybody is stored. A network that was tuned to few people can still give away that "
        "somebody was among them: they stand further apart in it than others."
    )


def _settings(model: Model) -> str:
    looks = (
        "each network sees the crop and its mirror image, the mean counts" if model.mirrored else "not seen"
    )
    lines = [f"Mirror image: {looks}."]
    for name, part in _networks(model).items():
        used = part.record.get("settings")
        blend = part.record.get("interpolation", {}).get("share")
        text = ", ".join(f"{key} {value}" for key, value in (used or {}).items()) or "as it came"
        lines.append(
            f"- {name}: {text}" + ("" if blend is None else f"; {blend:.0%} of the way from the old weights")
        )
    return "\n".join([lines[0], "", *lines[1:]])


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def _files(folder: Path) -> str:
    rows = [["file", "bytes", "SHA-256"]]
    rows += [
        [file.name, f"{file.stat().st_size:,}", artifacts.sha256(file)]
        for file in sorted(folder.iterdir())
        if file.name != CARD
    ]
    return _table(rows)


def _score(value: float) -> str:
    """A threshold; of models that are sure of everything, to more digits."""
    return f"{value:.4f}" if value < 0.9995 else f"{value:.7f}"


def _table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
