"""Would more photos help? What models fitted in seconds make of a part of each person's photos."""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from torch import nn

from src.evaluation import verification
from src.evaluation.pairs import Trials
from src.limits import NotPossible, attempt
from src.models import Comparison, Model
from src.networks import maps

SHARES = {"a quarter": 0.25, "half": 0.5, "all": 1.0}


def part_of_train(faces: pd.DataFrame, share: float, seed: int = 0) -> pd.DataFrame:
    """The faces with a share of each person's near-duplicate groups of train left in it: the column `split`.

    At least one group of a person stays. A smaller share is a part of a larger one with the same seed.
    """
    training = faces[faces["split"] == "train"]
    if training.empty:
        return faces
    groups = training[["identity", "group"]].drop_duplicates()
    groups = groups.assign(lot=np.random.default_rng(seed).random(len(groups)))
    place = groups.groupby("identity")["lot"].rank(method="first")
    many = groups["identity"].map(groups["identity"].value_counts())
    kept = groups.loc[place <= np.maximum(1, np.round(share * many)), ["identity", "group"]]
    stay = pd.MultiIndex.from_frame(training[["identity", "group"]]).isin(pd.MultiIndex.from_frame(kept))
    return faces.assign(split=faces["split"].mask(faces.index.isin(training.index[~stay]), ""))


def table(comparison: Comparison, base: Model, tests: Mapping[str, Trials], seed: int = 0) -> pd.DataFrame:
    """AUC on the first test set of a linear map and of PLDA, fitted on a quarter, half and all of train.

    base: whose embeddings are mapped. Columns: model, photos (of train, per person, the median), auc and its
    95 % interval over people, and expected: what twice as many photos would give if the error went on falling
    as it did from half to all, NaN where the two cannot be told apart. Raises NotPossible where no map can be
    fitted, or the test has no pairs.
    """
    if not tests:
        raise NotPossible("there is no test set to measure on")
    test = next(iter(tests))
    embeddings = comparison.embed(base)
    rows = []
    fits: dict[str, Callable[..., nn.Module]] = {"linear map": maps.fit_linear, "PLDA": maps.fit_plda}
    for kind, fit in fits.items():
        given: dict[str, np.ndarray] = {}
        photos: dict[str, int] = {}
        for name, share in SHARES.items():
            part = part_of_train(comparison.faces, share, seed)
            with warnings.catch_warnings():  # a person of whom one photo is left has no spread
                warnings.simplefilter("ignore", UserWarning)
                fitted = attempt(fit, embeddings, part)
            if not isinstance(fitted, NotPossible):
                given[name] = maps.apply(fitted, embeddings)
                photos[name] = int(part.loc[part["split"] == "train", "identity"].value_counts().median())
        if "all" not in given:
            continue
        baseline = "half" if "half" in given else "all"
        report = verification.report(verification.evaluate(given, {test: tests[test]}), baseline)
        every = report[report["quality"] == "all"].set_index("model")
        for name in given:
            row = every.loc[name]
            found = {"model": f"{comparison.label}{base.name} + {kind}", "photos": photos[name]}
            found |= {column: row[column] for column in ("auc", "auc_low", "auc_high")}
            told = name == "all" and row["auc_difference_low"] > 0
            found["expected"] = 1 - (1 - row["auc"]) ** 2 / (1 - every["auc"][baseline]) if told else np.nan
            rows.append(found)
    if not rows:
        raise NotPossible("no map could be fitted on a part of the photos")
    return pd.DataFrame(rows)


def in_words(found: pd.DataFrame | NotPossible) -> str:
    """Whether more photos of the same people would be expected to help, in a sentence."""
    if isinstance(found, NotPossible):
        return f"Whether more photos would help: {found}."
    last = found.groupby("model", sort=False).tail(1)
    told = last[last["expected"].notna()]
    if told.empty:
        return (
            "Whether more photos of the same people would help can't be told: the maps do not do "
            "measurably worse with half of them."
        )
    parts = [f"{row.model} from AUC {row.auc:.3f} to about {row.expected:.3f}" for row in told.itertuples()]
    return f"Twice as many photos of the same people would be expected to bring {' and '.join(parts)}."
