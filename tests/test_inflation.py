"""What a random split would have reported: nothing more where photos are all different, more with copies."""

import numpy as np
import pandas as pd
import pytest

from src import inflation
from src.models import Model


class Given:
    """A comparison whose baseline gives these embeddings."""

    label, unknown, closed = "", 0.1, ""

    def __init__(self, embeddings: np.ndarray, faces: pd.DataFrame) -> None:
        self.embeddings, self.faces = embeddings, faces

    def embed(self, model: Model) -> np.ndarray:
        return self.embeddings


def world(copies: int, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """12 people with 10 different photos each, of which there are so many copies."""
    rng = np.random.default_rng(seed)
    looks = rng.standard_normal((12, 1, 64)) * 0.5 + rng.standard_normal((12, 10, 64))
    rows = np.repeat(looks.reshape(120, 64), copies, axis=0) + 0.05 * rng.standard_normal((120 * copies, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    person = np.repeat([f"person {i:02d}" for i in range(12)], 10 * copies)
    faces = pd.DataFrame({"identity": person, "quality": "high", "split": "train"})
    return rows.astype(np.float32), faces


def report(auc: float = 0.7) -> pd.DataFrame:
    names = ["pack", "pack + linear map", "pack + PLDA"]
    return pd.DataFrame({"model": names, "test": "test_seen", "quality": "all", "auc": auc})


def table(copies: int) -> pd.DataFrame:
    return inflation.table(Given(*world(copies)), Model("pack", {}), report())  # type: ignore[arg-type]


def test_a_random_split_deals_every_photo_by_lot_and_the_same_for_a_seed():
    faces = world(1)[1]
    dealt = inflation.random_split(faces, 3)["split"]
    assert (dealt == inflation.random_split(faces, 3)["split"]).all()
    assert (dealt != inflation.random_split(faces, 4)["split"]).any()
    shares = dealt.value_counts(normalize=True)
    assert shares["test_seen"] == pytest.approx(0.25, abs=0.12) and shares["train"] == pytest.approx(
        0.6, abs=0.15
    )


def test_the_table_has_a_row_for_each_model_that_is_fitted_in_seconds():
    found = table(1)
    assert found["model"].tolist() == report()["model"].tolist()
    assert (found["ours"] == 0.7).all() and found["random"].between(0, 1).all()
    assert np.allclose(found["inflation"], found["random"] - found["ours"])


def test_the_rows_of_a_closed_list_are_found_by_their_names():
    given = Given(*world(1))
    given.unknown, given.closed = 0.0, ", closed list"
    names = {"pack + PLDA": "pack + PLDA, closed list"}
    found = inflation.table(given, Model("pack", {}), report().replace({"model": names}))  # type: ignore[arg-type]
    assert (found["ours"] == 0.7).all() and found["model"].iloc[-1] == "pack + PLDA, closed list"


def test_copies_on_both_sides_inflate_what_is_fitted():
    more, less = table(4)["random"], table(1)["random"]
    assert (more > less).all() and (more > less + 0.02).iloc[1:].all()


def test_what_photos_are_too_few_for_says_so():
    embeddings, faces = world(1)
    few = np.array([0, 10])
    found = inflation.table(Given(embeddings[few], faces.iloc[few]), Model("pack", {}), report())  # type: ignore[arg-type]
    assert found["note"].iloc[1:].str.startswith("not possible").all() and found["random"].isna().all()
