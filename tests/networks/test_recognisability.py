"""What is left in a photo: smears lie together, faces lie apart."""

import numpy as np
import pytest

from src.limits import NotPossible
from src.networks import recognisability
from tests.evaluation.examples import unit_rows


def smears(count, seed):
    rng = np.random.default_rng(seed)
    return unit_rows(np.eye(1, 32) * 3 + rng.normal(size=(count, 32)) * 0.5)


def test_the_threshold_calls_smears_too_poor_and_faces_not():
    split = np.repeat(["train", "val"], 100)
    fitted = recognisability.fit(smears(200, 0), split)
    assert np.linalg.norm(fitted.centre) == pytest.approx(1) and fitted.centre[0] > 0.9
    val = smears(200, 0)[100:]
    assert fitted.too_poor(val).mean() == pytest.approx(recognisability.KEPT_OUT, abs=0.02)
    assert fitted.too_poor(smears(500, 1)).mean() > 0.9
    faces = unit_rows(np.random.default_rng(2).normal(size=(500, 32)))
    assert fitted.too_poor(faces).mean() < 0.02
    between = unit_rows(
        np.linspace(0, 1, 9)[:, None] * faces[:1] + np.linspace(1, 0, 9)[:, None] * fitted.centre
    )
    assert (np.diff(fitted.scores(between)) > 0).all()  # the more of a face, the higher


def test_a_photo_without_an_embedding_is_too_poor():
    fitted = recognisability.fit(smears(200, 0), np.repeat(["train", "val"], 100))
    nothing = np.full((1, 32), np.nan, np.float32)
    assert np.isnan(fitted.scores(nothing)).all() and fitted.too_poor(nothing).all()


def test_too_few_smears_are_said():
    with pytest.raises(NotPossible, match="20 smears"):
        recognisability.fit(smears(60, 0), np.repeat(["train", "val"], [50, 10]))
