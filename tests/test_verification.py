import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from src import verification


def make(people=6, photos=8, dimensions=32, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    identity = np.repeat(np.arange(people), photos)
    vectors = rng.normal(size=(people, dimensions))[identity] + noise * rng.normal(
        size=(people * photos, dimensions)
    )
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    faces = pd.DataFrame(
        {
            "identity": [f"person {i}" for i in identity],
            "quality": np.where(np.arange(len(identity)) % 3 == 0, "high", "low"),
            "group": np.arange(len(identity)),
            "split": "test_seen",
        }
    )
    return vectors, faces


def pairs(vectors, faces):
    i, j = np.triu_indices(len(vectors), 1)
    keep = faces["group"].to_numpy()[i] != faces["group"].to_numpy()[j]
    i, j = i[keep], j[keep]
    scores = (vectors[i].astype(np.float64) * vectors[j]).sum(1)
    return scores, faces["identity"].to_numpy()[i] == faces["identity"].to_numpy()[j]


def test_auc_agrees_with_scikit_learn():
    vectors, faces = make(noise=2.0)
    scores, same = pairs(vectors, faces)
    found = verification.auc(vectors, faces["identity"].to_numpy())
    assert found == pytest.approx(roc_auc_score(same, scores), abs=1e-6)


def test_report_counts_every_pair_once():
    vectors, faces = make(noise=2.0)
    faces.loc[1, "group"] = 0
    _, same = pairs(vectors, faces)
    results = verification.evaluate({"a": vectors}, {"test": verification.trials(faces, "test_seen")})
    table = verification.report(results).set_index("quality")
    assert table.loc["all", "genuine"] == same.sum()
    assert table.loc["all", "impostor"] == (~same).sum()
    assert table.loc["all", "left_out"] == 1
    parts = table.loc[["high-high", "high-low", "low-low"]]
    assert parts["impostor"].sum() == (~same).sum()
    assert (table["auc_low"] < table["auc"]).all() and (table["auc"] < table["auc_high"]).all()
