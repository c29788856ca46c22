"""Only the project's own dataset/images, and only without photos, becomes a demo."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from src.demo import mode

GIVEN = ("buffalo_l", "imagenet", 80, 4)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The project's dataset/images, not made yet."""
    monkeypatch.setattr(mode, "_PHOTOS", tmp_path / "dataset" / "images")
    return tmp_path / "dataset" / "images"


@pytest.fixture
def made(monkeypatch):
    """Instead of drawing, notes for how many people a demo set was asked."""
    asked = []

    def make(folder, people, seed=0, **photos):
        asked.append((people, seed))
        return folder / "images"

    monkeypatch.setattr(mode, "make", make)
    return asked


def real(folder):
    return mode.Run(folder, *GIVEN, label="")


def test_without_photos_it_is_the_demo(own, tmp_path, capsys):
    run = mode.choose(str(own), *GIVEN, tmp_path / "out", people=1)
    assert run.folder == tmp_path / "out" / "demo" / "images"
    assert [folder.name for folder in run.folder.iterdir()] == ["person_001"]
    assert (run.pack, run.weights, run.label) == (str(mode.PACK), "none", "demo · ")
    assert (run.epochs, run.pack_epochs) == (mode.EPOCHS[0], 4)
    assert "DEMO" in capsys.readouterr().out
    strangers = Path(run.strangers)
    assert [folder.name for folder in strangers.iterdir()] == ["person_001"]
    theirs = {path.read_bytes() for path in strangers.rglob("*.*")}
    assert not theirs & {path.read_bytes() for path in run.folder.rglob("high_*.jpg")}
    with pytest.raises(FrozenInstanceError):
        run.epochs = 3  # type: ignore[misc]


def test_strangers_that_are_given_are_taken(own, made, tmp_path):
    assert mode.choose(str(own), *GIVEN, tmp_path / "out", strangers="lfw").strangers == "lfw"
    assert mode.choose(str(own), *GIVEN, tmp_path / "out").strangers == str(
        tmp_path / "out" / "demo" / "strangers" / "images"
    )
    (own / "ann").mkdir(parents=True)
    assert mode.choose(str(own), *GIVEN, tmp_path / "out", strangers="lfw").strangers == "lfw"
    assert mode.choose(str(own), *GIVEN, tmp_path / "out").strangers == ""


def test_with_photos_it_is_what_was_given(own, made, tmp_path, capsys):
    (own / "ann").mkdir(parents=True)
    assert mode.choose(str(own), *GIVEN, tmp_path / "out") == real(own)
    assert not made and not capsys.readouterr().out


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_of_the_users_own_is_never_replaced(own, made, tmp_path, exists):
    elsewhere = tmp_path / "elsewhere"
    if exists:
        elsewhere.mkdir()
    assert mode.choose(str(elsewhere), *GIVEN, tmp_path / "out") == real(elsewhere)
    assert not made


@pytest.mark.parametrize(
    "name", [".DS_Store", "Thumbs.db", "desktop.ini", "README.md", "readme.txt", ".gitkeep"]
)
def test_litter_is_no_photo(own, made, tmp_path, name):
    own.mkdir(parents=True)
    (own / name).touch()
    assert mode.choose(str(own), *GIVEN, tmp_path / "out").label == "demo · "
    assert made == [(48, 0), (48, mode.STRANGERS)]
    (own / "ann.jpg").touch()
    assert mode.choose(str(own), *GIVEN, tmp_path / "out") == real(own)


def test_a_folder_called_readme_is_a_person(own, made, tmp_path):
    (own / "Readme").mkdir(parents=True)
    assert mode.choose(str(own), *GIVEN, tmp_path / "out") == real(own)


def test_a_link_to_a_missing_drive_is_the_users_own(own, made, tmp_path):
    own.parent.mkdir()
    try:
        own.symlink_to(tmp_path / "drive")
    except OSError:
        pytest.skip("links need a privilege on this system")
    run = mode.choose(str(own), *GIVEN, tmp_path / "out")
    assert run == real(own) and not made
