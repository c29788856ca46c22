"""The pairs on which a model does worst, each person or two people once."""

import numpy as np
import pytest

from src.evaluation import pairs
from src.evaluation.hardest import hardest
from tests.evaluation.examples import make, materialised


def test_hardest_pairs_are_the_worst():
    vectors, faces = make(people=10)
    found = hardest(vectors, pairs.trials(faces, "test_seen"), count=4)
    scores, genuine, _ = materialised(vectors, faces)
    assert list(found["kind"]) == ["genuine"] * 4 + ["impostor"] * 4
    assert found["score"][0] == pytest.approx(scores[genuine].min(), abs=1e-6)
    assert found["score"][4] == pytest.approx(scores[~genuine].max(), abs=1e-6)
    names = faces["identity"].to_numpy()
    assert (names[found["a"]] == found["person_a"]).all() and (names[found["b"]] == found["person_b"]).all()
    assert ((found["person_a"] == found["person_b"]) == (found["kind"] == "genuine")).all()
    assert not found[["person_a", "person_b"]].apply(lambda r: tuple(sorted(r)), axis=1).duplicated().any()
    np.testing.assert_allclose((vectors[found["a"]] * vectors[found["b"]]).sum(1), found["score"], atol=1e-6)


def test_hardest_leaves_out_near_duplicates_and_failures():
    vectors, faces = make(people=10)
    test = pairs.trials(faces, "test_seen")
    worst = hardest(vectors, test, count=1)
    first = worst.iloc[0]
    faces.loc[first["b"], "group"] = faces.loc[first["a"], "group"]
    vectors[worst["a"][1]] = np.nan
    again = hardest(vectors, pairs.trials(faces, "test_seen"), count=1)
    assert (again["a"][0], again["b"][0]) != (first["a"], first["b"])
    assert worst["a"][1] not in set(again[["a", "b"]].to_numpy().ravel())
