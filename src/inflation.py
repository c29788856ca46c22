"""What a random split of photos, as in the study, would have reported: a warning, and no model's result."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from torch import nn

from src.evaluation import verification
from src.limits import NotPossible, attempt
from src.models import Comparison, Model
from src.networks import maps

SHARES = {"test_seen": 0.25, "val": 0.15}  # of the photos; what is left is trained on
REPEATS = 3  # random splits, whose mean is taken


def random_split(faces: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The faces with every photo dealt by lot, whoever it shows and whatever it repeats: the column `split`.

    Everybody is trained on and tested, and copies of one photo stand on both sides.
    """
    lot = np.random.default_rng(seed).random(len(faces))
    edges = np.cumsum(list(SHARES.values()))
    return faces.assign(split=np.array([*SHARES, "train"], object)[np.searchsorted(edges, lot, side="right")])


def table(comparison: Comparison, baseline: Model, report: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """AUC of all pairs by our split and by a random one, for the models that are fitted in seconds.

    baseline: the pack's recogniser as it comes. report: of `verification.report`; ours is its row of
    test_seen, or of test_unseen where that is missing. By a random split near-copies make pairs, too, as they
    did in the study; the mean of REPEATS splits.

    Columns: `model`, `ours`, `random`, `inflation` (random less ours), `note`: why a value is missing, or "".
    """
    embeddings, faces = comparison.embed(baseline), comparison.faces
    every = report[report["quality"] == "all"]
    rows = []
    plda: Callable[..., nn.Module] = partial(maps.fit_plda, unknown=comparison.unknown)
    fits: dict[str, Callable[..., nn.Module] | None] = {
        "": None,
        " + linear map": maps.fit_linear,
        f" + PLDA{comparison.closed}": plda,
    }
    for what, fit in fits.items():
        name = f"{comparison.label}{baseline.name}{what}"
        mine = every[every["model"] == name].sort_values("test")
        ours = float(mine["auc"].iloc[0]) if len(mine) else np.nan
        found, note = [], ""
        for repeat in range(REPEATS):
            dealt = random_split(faces, seed + repeat)
            given = embeddings
            if fit is not None:
                fitted = attempt(fit, embeddings, dealt)
                if isinstance(fitted, NotPossible):
                    note = str(fitted)
                    break
                given = maps.apply(fitted, embeddings)
            test = (dealt["split"] == "test_seen").to_numpy()
            found.append(verification.auc_or_nan(given[test], dealt.loc[test, "identity"]))
        random = float(np.mean(found)) if found and not note else np.nan
        rows.append((name, ours, random, random - ours, note))
    return pd.DataFrame(rows, columns=["model", "ours", "random", "inflation", "note"])
