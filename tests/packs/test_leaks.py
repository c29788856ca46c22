"""The audit by other measures finds a copy that stands on both sides."""

import numpy as np
import pandas as pd
import pytest

from src.demo import drawing, people
from src.packs import leaks
from src.packs.alignment import align

SPLIT = ["train", "train", "train", "val", "test_seen", "test_seen"]


@pytest.fixture
def faces():
    """A row a photo, crops and embeddings: 6 people with 6 photos each, all different."""
    rows: list[tuple] = []
    crops = []
    for who in range(6):
        for number, split in enumerate(SPLIT):
            look = people.view(np.random.default_rng([who, number]))
            crops.append(align(*drawing.draw(people.person(who), look, 128)))
            rows.append((f"{who}/{number}.png", f"person {who}", split, len(rows)))
    embeddings = np.random.default_rng(0).standard_normal((len(rows), 64)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return pd.DataFrame(rows, columns=["path", "identity", "split", "group"]), np.stack(crops), embeddings


def first(found: pd.DataFrame, by: str) -> pd.Series:
    return found[(found["splits"] == "train - test_seen") & (found["by"] == by)].iloc[0]


@pytest.mark.parametrize("mirror", [False, True])
def test_a_copy_on_both_sides_is_the_nearest_by_its_crop(faces, mirror):
    table, crops, embeddings = faces
    crops[4] = (
        crops[18][:, ::-1] if mirror else crops[18] // 2 + 40
    )  # person 3, trained on, as person 0, tested
    nearest = first(leaks.nearest(table, crops, embeddings), leaks.BY_CROP)
    assert (nearest["path"], nearest["other"]) == ("3/0.png", "0/4.png")
    assert nearest["score"] > 0.95 > nearest["apart"] and not nearest["same_person"]


def test_a_copy_on_both_sides_is_the_nearest_by_its_embedding(faces):
    table, crops, embeddings = faces
    embeddings[5] = embeddings[1]
    nearest = first(leaks.nearest(table, crops, embeddings), leaks.BY_EMBEDDING)
    assert (nearest["path"], nearest["other"]) == ("0/1.png", "0/5.png")
    assert nearest["score"] == pytest.approx(1) and nearest["same_person"]


def test_every_two_splits_that_have_photos_are_looked_at_nearest_first(faces):
    found = leaks.nearest(*faces)
    assert set(found["splits"]) == {"train - val", "train - test_seen", "val - test_seen"}
    for _, part in found.groupby(["splits", "by"]):
        assert len(part) == leaks.SHOWN and part["score"].is_monotonic_decreasing
        assert not part["b"].duplicated().any()
    pictures, titles = leaks.side_by_side(found, faces[1])
    assert len(pictures) == len(titles) == len(found) and pictures[0].shape == (112, 224, 3)


def test_failures_to_enrol_are_nearest_to_nobody(faces):
    table, crops, embeddings = faces
    embeddings[4] = np.nan
    found = leaks.nearest(table, crops, embeddings)
    by_embedding = found[found["by"] == leaks.BY_EMBEDDING]
    assert np.isfinite(found["score"]).all() and "0/4.png" not in set(by_embedding["other"])


def test_groups_under_several_people_are_counted(faces):
    table = faces[0]
    assert leaks.across_people(table).startswith("No group")
    said = leaks.across_people(table.assign(group=table["group"].replace(6, 0)))
    assert "1 groups" in said and "2 photos of 2 people, in train" in said
