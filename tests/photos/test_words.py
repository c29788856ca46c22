"""Names of folders: which speak of a quality, and which are surely no people."""

import pytest

from src.photos import words


@pytest.mark.parametrize(
    ("name", "quality"),
    [
        ("High_Quality", "high"),
        ("low quality", "low"),
        ("LOW-QUALITY", "low"),
        ("lowQuality", "low"),
        ("hq", "high"),
        ("L Q", "low"),
        ("high", "high"),
        ("low_resolution", "low"),
        ("LR", "low"),
        ("HR", "high"),
        ("low quality (CCTV)", "low"),
        ("low_quality1", "low"),
        ("hi-res", "high"),
        ("lowres2", "low"),
        ("low_images", "low"),
        ("HR cam2", "high"),
        ("good quality", "high"),
        ("highland", ""),
        ("session", ""),
        ("low light", ""),
        ("high angle", ""),
        ("HR department", ""),
        ("low-q", "low"),
        ("q", ""),
        ("medium_quality", ""),
        ("not low quality", ""),
        ("high_to_low_quality", ""),
        ("good", ""),
        ("quality", ""),
    ],
)
def test_quality(name, quality):
    assert words.quality(name) == quality


@pytest.mark.parametrize(
    "name", ["medium_quality", "quality", "good", "LR_bicubic", "not low quality", "h-quality"]
)
def test_near_misses_are_seen_as_such(name):
    assert words.seems_quality(name) and not words.quality(name)


@pytest.mark.parametrize("name", ["anna", "session", "glasses", "highland", "Lowell", "cam_1", "2024"])
def test_other_names_do_not_speak_of_quality(name):
    assert not words.seems_quality(name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train", "split"),
        ("Testing_Set", "split"),
        ("Face_Identification_Test_Set", "split"),
        ("Gallery_Match", "split"),
        ("high_quality", "quality"),
        ("cam_1", "camera"),
        ("surveillance_cameras_distance_1", "camera"),
        ("surveillance_cameras_IR_cam8", "camera"),
        ("P1E_S1_C1", "camera"),
        ("P2E_S1_C1.1", "camera"),
        ("4.20m", "camera"),
        ("session 2", "session"),
        ("2024-01-31", "date"),
        ("31.12.2024", "date"),
        ("20240131", "date"),
        ("January 2024", "date"),
        ("2024-01-31 12.30", "date"),
        ("20240131_083000", "date"),
        ("Monday", "date"),
        ("office", "camera"),
        ("frontal", "view"),
        ("Images", "container"),
        ("align_112x112", "container"),
        ("lfw-deepfunneled", "source"),
        ("CASIA-WebFace", "source"),
        ("men", "group"),
        ("distractors", "nobody"),
    ],
)
def test_folders_that_are_no_people(name, kind):
    assert kind in words.kinds(name)


@pytest.mark.parametrize(
    "name",
    ["anna", "Anna May", "n000002", "0000045", "s1", "S1", "person1", "face1", "man2", "unknown_2", "20",
     "2nd", "train_anna", "camera kitchen", "99991231", "李明", "all", "$anna"],
)  # fmt: skip
def test_folders_that_may_be_people(name):
    assert words.kinds(name) <= {"container"} and (name == "all" or not words.kinds(name))


def test_splits_by_any_name_and_tests_by_who_is_trained_on():
    names = ["Training", "dev", "Test_Set", "test_seen", "test-unseen", "anna"]
    found = ["train", "val", "test", "test_seen", "test_unseen", ""]
    assert [words.split(name) for name in names] == found
    people = ["anna", "anna", "ben", "carl", "carl", "dora"]
    splits = ["train", "test", "test", "", "test", "val"]
    told = ["train", "test_seen", "test_unseen", "", "test_seen", "val"]
    assert words.tests_told_apart(people, splits) == told
