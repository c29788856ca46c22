"""The demo set is what a real collection is like, and the same on every run."""

import errno
import json

import cv2
import numpy as np
import pytest

from src.demo import album, people


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return album.make(tmp_path_factory.mktemp("demo"), people=3, seed=5, high=3, low=4)


def readable(folder):
    return {file: cv2.imread(str(file)) for file in sorted(folder.rglob("*.*")) if file.stat().st_size}


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.*")}


def test_layout_and_counts(images):
    names = sorted(folder.name for folder in images.iterdir())
    assert names == ["person_001", "person_002", "person_003"]
    for name in names:
        for quality, count in (("high", 3), ("low", 4)):
            files = list((images / name / f"{quality}_quality").glob(f"{quality}_*"))
            assert len(files) == count
            assert all(cv2.imread(str(file)) is not None for file in files)


def test_same_seed_same_pictures_other_seed_others(images, tmp_path):
    again = album.make(tmp_path / "again", people=3, seed=5, high=3, low=4)
    assert contents(images) == contents(again)
    other = album.make(tmp_path / "other", people=1, seed=6, high=1, low=0)
    photo = next((other / "person_001" / "high_quality").glob("high_00.*"))
    assert photo.read_bytes() not in {file.read_bytes() for file in images.rglob("high_00.*")}


def test_fewer_people_are_the_first_of_more(images, tmp_path):
    """A demo set can be made larger without changing anyone: photos depend on the person, not on the set."""
    fewer = album.make(tmp_path, people=2, seed=5, high=3, low=4)
    for file in (fewer / "person_002").rglob("high_*.*"):
        assert file.read_bytes() == (images / file.relative_to(fewer)).read_bytes()


def test_photos_differ(images):
    photos = [file.read_bytes() for file in images.rglob("*_[0-9][0-9].*")]
    assert len(set(photos)) == len(photos) == 21


def test_unreadable_files_and_copies_are_planted(images):
    unreadable = {file.name for file, picture in readable(images).items() if picture is None}
    assert {"notes.jpg", "header_only.jpg", "page.png"} <= unreadable
    assert [file.name for file in images.rglob("*.*") if file.stat().st_size == 0] == ["empty.jpg"]
    first = images / "person_001" / "high_quality"
    assert (first / "frame_0_copy.jpg").read_bytes() == (first / "frame_0.jpg").read_bytes()
    broken = (first / "broken_download.jpg").read_bytes()
    assert (first / "frame_0.jpg").read_bytes().startswith(broken)


def test_near_duplicates_are_nearer_than_other_photos(images):
    first = images / "person_001" / "high_quality"

    def small(name):
        picture = np.asarray(cv2.imread(str(first / name)))
        return cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA).astype(float)

    last = next(first.glob("high_02.*")).name
    others = next(first.glob("high_00.*")).name
    distance = np.abs(small(last) - small(others)).mean()
    assert np.abs(small(last) - small("again_reencoded.jpg")).mean() < 0.2 * distance
    assert np.abs(small(last) - small("again_smaller.jpg")).mean() < 0.2 * distance
    assert np.abs(small("frame_0.jpg") - small("frame_1.jpg")).mean() < 0.5 * distance


def test_a_finished_set_is_kept_and_foreign_files_are_never_touched(images, tmp_path):
    stamp = {file: file.stat().st_mtime_ns for file in images.rglob("*.*")}
    assert album.make(images.parent, people=3, seed=5, high=3, low=4) == images
    assert {file: file.stat().st_mtime_ns for file in images.rglob("*.*")} == stamp
    mine = tmp_path / "images" / "someone" / "photo.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="not a demo set"):
        album.make(tmp_path, people=1, high=1, low=1)
    assert mine.read_bytes() == b"mine"
    with pytest.raises(ValueError, match="people"):
        album.make(tmp_path / "none", people=0)


def test_another_recipe_replaces_the_set(tmp_path):
    album.make(tmp_path, people=2, seed=1, high=1, low=0)
    images = album.make(tmp_path, people=1, seed=1, high=1, low=0)
    assert [folder.name for folder in images.iterdir()] == ["person_001"]
    assert json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))["people"] == 1


@pytest.mark.parametrize("step", ["_plant_unreadable", "_write_note"])
def test_an_interrupted_set_is_made_again(tmp_path, monkeypatch, step):
    """Interrupted before or after the photos are in their place: they are not taken for somebody else's."""
    recipe = {"people": 1, "seed": 1, "high": 1, "low": 0}
    real = getattr(album, step)

    def interrupted(*arguments):
        if arguments[-1] == {}:  # the note that a set has been begun
            return real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(album, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        album.make(tmp_path, **recipe)
    monkeypatch.undo()
    images = album.make(tmp_path, **recipe)
    assert contents(images) == contents(album.make(tmp_path / "other", **recipe))


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(album, "_plant_unreadable", full)
    with pytest.raises(OSError, match="disk is full: the demo set could not be written"):
        album.make(tmp_path, people=1, high=1, low=0)


def test_low_quality_is_worse():
    who = people.person(3)
    sizes, contrasts = [], []
    for quality in ("high", "low"):
        photos = [album.photo(who, quality, np.random.default_rng(k)) for k in range(6)]
        sizes.append(np.median([len(photo) for photo in photos]))
        contrasts.append(np.median([np.percentile(photo, 98) - np.percentile(photo, 2) for photo in photos]))
    assert sizes[1] < 0.7 * sizes[0]
    assert contrasts[1] < contrasts[0]
