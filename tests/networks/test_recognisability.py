"""What is left in a photo: val says which score tells smears from faces, and where it ends."""

import numpy as np
import pandas as pd
import pytest

from src.limits import NotPossible
from src.networks import recognisability
from src.networks.probes import SMEARS
from tests.evaluation.examples import unit_rows


def tables(by_length: float, by_distance: float, count: int = 100):
    """Photos and smears of train, val and test that the two scores tell apart by so many deviations."""
    rng = np.random.default_rng(0)
    split = np.repeat(["train", "val", "test_seen"], count)
    faces = pd.DataFrame({"split": split, "eye_distance": 30.0})
    probes = pd.DataFrame({"split": np.repeat(["train", "val", "test"], count), "kind": SMEARS})
    apart = np.array([by_length, by_distance])
    photos, others = (rng.normal(size=(3 * count, 2)) + shift for shift in (10 + apart, 10.0))
    names = ["length", "distance"]
    return pd.DataFrame(photos, columns=names), faces, pd.DataFrame(others, columns=names), probes


def test_the_better_score_is_chosen_and_its_threshold_keeps_smears_out():
    for apart, name in (((4.0, 1.0), "length"), ((1.0, 4.0), "distance")):
        photos, faces, others, probes = tables(*apart)
        found = recognisability.fit(photos, faces, others, probes)
        assert found.measure == name and found.separation > 0.98
        val, test = ((probes["split"] == name).to_numpy() for name in ("val", "test"))
        assert recognisability.too_poor(others[val], found).mean() == pytest.approx(
            recognisability.KEPT_OUT, abs=0.01
        )
        assert recognisability.too_poor(others[test], found).mean() > 0.85
        assert recognisability.too_poor(photos, found).mean() < 0.05
        worst = recognisability.not_to_enrol(photos, found, faces)
        assert (faces["split"][worst] == "train").all() and photos[name][worst].is_monotonic_increasing
        assert set(worst) <= set(np.flatnonzero(recognisability.too_poor(photos, found)))
        names = recognisability.beside(photos, faces.assign(score=0.5))
        assert len(names) == 4 and all(values.shape == (len(photos),) for values in names.values())
    nothing = pd.DataFrame({"length": [np.nan], "distance": [np.nan]})
    assert recognisability.too_poor(nothing, found).all()


def test_only_val_chooses():
    photos, faces, others, probes = tables(4.0, 1.0)
    before = recognisability.fit(photos, faces, others, probes)
    elsewhere = (faces["split"] != "val").to_numpy()
    photos.loc[elsewhere, "length"] = 0.0
    others.loc[(probes["split"] != "val").to_numpy(), "length"] = 99.0
    assert recognisability.fit(photos, faces, others, probes) == before


def test_length_and_distance_are_measured():
    class Pack:
        def recognise(self, crops):
            return crops[:, 0, 0].astype(np.float32)

    rng = np.random.default_rng(1)
    crops = rng.integers(0, 255, (600, 2, 2, 3), dtype=np.uint8)
    embeddings = unit_rows(crops[:, 0, 0].astype(np.float64) + 1)
    probes = pd.DataFrame({"kind": SMEARS, "split": np.where(np.arange(600) < 300, "train", "test")})
    middle = recognisability.centre(embeddings, probes)
    assert np.linalg.norm(middle) == pytest.approx(1)
    expected = embeddings[:300].mean(0)
    np.testing.assert_allclose(middle, expected / np.linalg.norm(expected), rtol=1e-5)
    found = recognisability.measures(crops, Pack(), embeddings, middle)
    np.testing.assert_allclose(
        found["length"], np.linalg.norm(crops[:, 0, 0].astype(float), axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(found["distance"], 1 - embeddings @ middle, rtol=1e-5)


def test_too_few_are_said():
    photos, faces, others, probes = tables(4.0, 1.0, count=10)
    with pytest.raises(NotPossible, match="20 photos and 20 smears"):
        recognisability.fit(photos, faces, others, probes)
    with pytest.raises(NotPossible, match="20 smears in train"):
        recognisability.centre(np.ones((30, 4), np.float32), probes)
