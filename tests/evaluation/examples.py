"""Small test sets for the tests of evaluation, and their pairs as anybody would count them."""

import numpy as np
import pandas as pd

from src.evaluation import verification


def unit_rows(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make(people=6, photos=8, dimensions=32, noise=2.0, seed=0, split="test_seen"):
    """Embeddings and the faces they belong to: unlike numbers of photos, a third of high quality."""
    rng = np.random.default_rng(seed)
    identity = np.repeat(np.arange(people), rng.integers(2, 2 * photos - 1, people))
    n = len(identity)
    centres = np.random.default_rng(0).normal(size=(people, dimensions))
    vectors = unit_rows(centres[identity] + noise * rng.normal(size=(n, dimensions)))
    faces = pd.DataFrame(
        {
            "identity": [f"person {i}" for i in identity],
            "quality": np.where(np.arange(n) % 3 == 0, "high", "low"),
            "group": np.arange(n),
            "split": split,
        }
    )
    return vectors, faces


def materialised(vectors, faces):
    """Scores, whether genuine, and stratum of every pair."""
    i, j = np.triu_indices(len(vectors), 1)
    group = faces["group"].to_numpy()
    apart = (group[i] != group[j]) | (group[i] < 0)
    i, j = i[apart], j[apart]
    low = (faces["quality"] == "low").to_numpy().astype(int)
    stratum = np.array(["high-high", "high-low", "low-low"])[low[i] + low[j]]
    names = faces["identity"].to_numpy()
    return (vectors[i].astype(np.float64) * vectors[j]).sum(1), names[i] == names[j], stratum


def evaluated(faces, models):
    """Results of these embeddings on `test_seen`."""
    return verification.evaluate(models, {"test_seen": verification.trials(faces, "test_seen")})


def row_of(table, model, quality="all"):
    """A model's row of the report, in one stratum."""
    return table[(table["model"] == model) & (table["quality"] == quality)].to_dict("records")[0]
