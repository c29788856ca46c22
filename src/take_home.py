"""A row of the comparison, taken home: an InsightFace pack, checked against the report, with its card."""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn
from tqdm.auto import tqdm

from src import artifacts, model_card
from src.artifacts import cached
from src.evaluation import verification
from src.limits import NotPossible
from src.models import Comparison, Missing, Model
from src.networks import recognisability
from src.networks.embedding import unit_rows
from src.networks.network import FaceNetwork, Half
from src.networks.recognisability import Recognisability, Scored
from src.packs import export, forms, pack
from src.packs.pack import Pack

PRECISIONS = ("float32", "float16")
MOST_CROPS = 1000  # of the test sets, evenly spread, on which a pack is compared with the report
# Least cosine with what the report was made from: large networks may have been embedded in half precision.
# That the file gives what the network gives in single precision, `export.onnx` sees to (`graphs.PARITY`).
AGREEING = 0.999
_STEP = 64  # crops at a time
_UNSCORED = NotPossible("no score of how much a photo shows was given")


def named(row: str, comparison: Comparison, *models: Model | Missing) -> Model | Missing:
    """Of the models, that of a row of the report. Raises ValueError where none has the name."""
    found = {comparison.label + model.name: model for model in models}
    if row not in found:
        raise ValueError(f"no model makes the row {row!r}; these do: {', '.join(found)}")
    return found[row]


def keep(
    model: Model | Missing,
    comparison: Comparison,
    report: pd.DataFrame,
    rates: pd.DataFrame,
    held: pd.DataFrame | NotPossible,
    target_fpir: float = 0.01,
    precision: str = "float32",
    score: Recognisability | NotPossible = _UNSCORED,
) -> Path | NotPossible:
    """The model as an InsightFace pack with its card, kept in the comparison's folder under "pack".

    One ONNX file holds its networks and its map; the base pack's detector and other modules stand beside it.
    The pack is loaded again with InsightFace, and its embeddings of the test sets' crops are compared with
    those the report was made from. report, rates, held: the tables of `verification.report`,
    `verification.at_thresholds` and `open_set.measure`, for the card. precision: of the networks, "float32",
    or "float16", which takes half the room; what it costs is in the card. score: of `Comparison.scores`; the
    pack's embeddings carry it as their length, unless it is not possible.

    Returns the pack's folder, or why there is no such model. Raises ValueError for another precision, or
    where the pack does not give what the report was made from; OSError where the disk is full.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; it can be {' or '.join(PRECISIONS)}")
    folder = comparison.folder / "pack"
    if isinstance(model, Missing):
        artifacts.forget(folder)  # an earlier run, of other photos, may have had the model
        print(f"{model.name}: {model.reason}")
        return model.reason
    name, base = comparison.label + model.name, comparison.label + comparison.pack.name
    known = model_card.Results(
        report=report[report["model"].isin([name, base])],
        rates=rates[rates["model"] == name] if len(rates) else rates,
        held=held if isinstance(held, NotPossible) else held[held["model"] == name],
        target_fpir=target_fpir,
        too_poor=_too_poor(model, comparison, score),
    )
    inputs = (model, comparison.pack, comparison.crops, comparison.embed(model), comparison.faces)
    return cached(folder, _pack, *inputs, known, name, base, precision, score)


def _too_poor(
    model: Model, comparison: Comparison, score: Recognisability | NotPossible
) -> str | NotPossible:
    """How many photos of the tests are too poor to tell, for the card."""
    if isinstance(score, NotPossible):
        return score
    return recognisability.in_words(score, score.lengths(comparison.looks(model)) < 1, comparison.faces)


@artifacts.uses(faces=("identity", "quality", "split"))
def _pack(
    model: Model,
    base_pack: Pack,
    crops: np.ndarray,
    embeddings: np.ndarray,
    faces: pd.DataFrame,
    results: model_card.Results,
    name: str,
    base: str,
    precision: str,
    score: Recognisability | NotPossible,
    *,
    workspace: Path,
) -> Path:
    exported: nn.Module = model if precision == "float32" else in_half(model)
    if isinstance(score, Recognisability):
        exported = Scored(exported, score)
    folder = export.pack(exported, base_pack.folder, workspace / "pack")
    parity = compared(folder, crops, embeddings, faces)
    least = float(parity["cosine"].min())
    if precision == "float32" and least < AGREEING:
        raise ValueError(
            f"{name}: as a pack it does not give what the report was made from (cosine {least:.5f}, at least "
            f"{AGREEING} needed)"
        )
    print(f"{name}: {model_card.parity_in_words(parity)}")
    model_card.write(folder, model, name, base, faces, results, parity, precision)
    return folder


def in_half(model: Model) -> Model:
    """A model whose networks work in half precision; its map, which is small, stays as it is."""
    halved = copy.deepcopy(model)
    parts = [part for part in halved.networks if isinstance(part, FaceNetwork)]
    halved.networks = nn.ModuleList(Half(part) for part in parts)
    return halved.eval()


def compared(
    folder: Path, crops: np.ndarray, embeddings: np.ndarray, faces: pd.DataFrame, most: int = MOST_CROPS
) -> pd.DataFrame:
    """What a pack gives, by InsightFace, for the crops of the tests, against what the report was made from.

    crops: uint8 [N, 112, 112, 3] RGB; embeddings: float32 [N, D], unit rows; faces: `identity`, `split`.
    Where the test sets have more than `most` crops, so many, evenly spread. One row per test set: `test`,
    `crops` (how many), `cosine` (the least), and `auc` and `auc_before`, of all pairs of these crops, by the
    pack and by the embeddings; NaN where they make none. Without tests, all crops are taken.
    """
    splits = faces["split"].to_numpy(str)
    rows = np.flatnonzero(np.char.startswith(splits, "test"))
    rows = rows if len(rows) else np.arange(len(faces))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]
    recogniser = pack.load(folder)
    starts = tqdm(range(0, len(rows), _STEP), "pack against report", leave=False)
    given = unit_rows(
        np.concatenate(
            [recogniser.recognise(np.array(crops[rows[start : start + _STEP]])) for start in starts]
        )
    )
    cosines = (
        (given * embeddings[rows]).sum(1)
        if given.shape[1] == embeddings.shape[1]
        else np.full(len(rows), -1.0)
    )
    table = []
    for test in np.unique(splits[rows]):
        here = splits[rows] == test
        who = faces["identity"].to_numpy()[rows[here]]
        aucs = [
            verification.auc_or_nan(part, who) for part in (given[here], np.array(embeddings[rows[here]]))
        ]
        table.append((str(test), int(here.sum()), float(cosines[here].min()), *aucs))
    return pd.DataFrame(table, columns=["test", "crops", "cosine", "auc", "auc_before"])


def main(arguments: Sequence[str]) -> None:
    """`python -m src convert ...`: writes a pack's recogniser for another program; see `packs.forms`."""
    parser = argparse.ArgumentParser("python -m src convert", description="A pack for another program")
    parser.add_argument("form", choices=forms.FORMS)
    parser.add_argument(
        "--pack", default="processed_dataset/pack", help="an InsightFace pack: folder or name"
    )
    parser.add_argument("--out", type=Path, required=True, help="that program's folder of models")
    parser.add_argument("--name", default="buffalo_l", help="the model that Immich is set to")
    given = parser.parse_args(arguments)
    file = forms.write(given.form, pack.load(given.pack).recogniser_file, given.out, given.name)
    print(f"Written: {file}")
