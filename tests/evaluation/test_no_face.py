"""The no-face control sees backgrounds, and names the folders that have one of their own."""

import numpy as np
import pandas as pd
import pytest

from src.evaluation import no_face, verification
from tests.evaluation.examples import evaluated, make, row_of


def test_the_control_sees_the_border_and_not_the_face():
    rng = np.random.default_rng(0)
    vectors, faces = make(people=12)
    code = pd.factorize(faces["identity"])[0]
    crops = rng.integers(0, 30, (len(faces), 112, 112, 3), dtype=np.uint8)
    crops[:, 20:-20, 20:-20] += (code * 18).astype(np.uint8)[:, None, None, None]
    blind = no_face.no_face(crops)
    np.testing.assert_allclose(np.linalg.norm(blind, axis=1), 1, atol=1e-6)
    crops[:, :10] += (code * 18).astype(np.uint8)[:, None, None, None]
    table = verification.report(evaluated(faces, {"buffalo_l": vectors, "no face": no_face.no_face(crops)}))
    assert row_of(table, "no face")["auc"] == pytest.approx(1)
    table = verification.report(evaluated(faces, {"buffalo_l": vectors, "no face": blind}))
    assert row_of(table, "no face")["auc"] < 0.6
    bright = np.full((2, 112, 112, 3), 200, np.uint8)
    bright[1, :50] = 0  # outside the photo: no colour of the background
    inside, partly_outside = no_face.no_face(bright)
    np.testing.assert_allclose(inside, partly_outside, atol=1e-6)
    black = no_face.no_face(np.zeros_like(crops[:2]))
    np.testing.assert_allclose(np.linalg.norm(black, axis=1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="uint8"):
        no_face.no_face(crops / 255)


def test_folders_with_a_background_of_their_own_are_named():
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (24, 112, 112, 3)).astype(np.uint8)
    crops[:6] = crops[:6] // 8 + 200  # one camera, one bright wall
    people = np.repeat(["a", "b", "c", "d"], 6)
    faces = pd.DataFrame({"path": [f"{who}/{i}.jpg" for i, who in enumerate(people)], "identity": people})
    faces["group"] = np.arange(24)
    table = no_face.given_away(no_face.no_face(crops), faces)
    assert table["folder"].tolist() == ["a"]
    assert table["auc"][0] > 0.99
