"""Would more photos help: the parts are parts, and what is expected follows from what was measured."""

import numpy as np
import pandas as pd
import pytest

from src import more_photos
from src.evaluation import verification
from src.limits import NotPossible
from src.models import Model
from tests.test_inflation import Given


def world(photos: int = 24, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """16 people, two thirds of whose photos are in train; what tells people apart hides in large noise."""
    rng = np.random.default_rng(seed)
    people, size = 16, 64
    scale = np.where(np.arange(size) < 32, 3.0, 0.4)  # half of the numbers say nothing of the person
    looks = rng.standard_normal((people, 1, size)) * np.where(np.arange(size) < 32, 0.0, 0.35)
    rows = (looks + rng.standard_normal((people, photos, size)) * scale).reshape(-1, size)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    number = np.tile(np.arange(photos), people)
    faces = pd.DataFrame(
        {
            "identity": np.repeat([f"person {i:02d}" for i in range(people)], photos),
            "quality": np.where(number % 2, "low", "high"),
            "group": np.arange(people * photos) // 2,
            "split": np.where(number < photos * 2 // 3, "train", "test_seen"),
        }
    )
    return rows.astype(np.float32), faces


def table(seed: int = 0) -> pd.DataFrame:
    embeddings, faces = world()
    tests = verification.test_sets(faces)
    return more_photos.table(Given(embeddings, faces), Model("pack", {}), tests, seed)  # type: ignore[arg-type]


def test_a_part_leaves_groups_whole_everybody_in_and_the_tests_alone():
    faces = world()[1]
    quarter, half = (more_photos.part_of_train(faces, share, 1) for share in (0.25, 0.5))
    for part, share in ((quarter, 0.25), (half, 0.5)):
        left = part[part["split"] == "train"]
        assert left["identity"].value_counts().eq(16 * share).all()
        assert left.groupby("group").size().eq(2).all()  # whole groups
        assert (part["split"] == "test_seen").equals(faces["split"] == "test_seen")
    assert ((quarter["split"] == "train") <= (half["split"] == "train")).all()
    one = more_photos.part_of_train(faces, 0.01)
    assert one.loc[one["split"] == "train", "identity"].nunique() == 16
    assert more_photos.part_of_train(faces, 1.0)["split"].equals(faces["split"])


def test_more_photos_give_more_and_what_is_expected_goes_on_so():
    found = table()
    linear = found[found["model"] == "pack + linear map"]
    assert linear["photos"].tolist() == [4, 8, 16]
    assert linear["auc"].is_monotonic_increasing
    half, every = linear["auc"].iloc[1:]
    told = linear["expected"].notna()
    assert told.tolist() == [False, False, True]
    expected = linear["expected"].iloc[2]
    assert every < expected < 1 and (1 - expected) / (1 - every) == pytest.approx((1 - every) / (1 - half))
    assert f"to about {expected:.3f}" in more_photos.in_words(found)


def test_what_cannot_be_told_is_said():
    blind = table().assign(expected=np.nan)
    assert "can't be told" in more_photos.in_words(blind)
    assert "too few" in more_photos.in_words(NotPossible("too few"))
    embeddings, faces = world()
    nobody = Given(embeddings, faces.assign(split="test_seen"))
    with pytest.raises(NotPossible, match="no map"):
        more_photos.table(nobody, Model("pack", {}), verification.test_sets(faces))  # type: ignore[arg-type]
    with pytest.raises(NotPossible, match="no test"):
        more_photos.table(nobody, Model("pack", {}), {})  # type: ignore[arg-type]
