"""Any name becomes text that a table can hold, and leads back to its file."""

import os
from pathlib import Path

import pandas as pd
import pytest

from src.photos import paths
from tests.photos.samples import write


@pytest.mark.parametrize(
    "name",
    [
        "caf\udce9.jpg",
        "a\udcff\udc80/b\\udce9.jpg",
        "\\u005c",
        "\\\udce9",
        "back\\slash \\u005cudce9",
        "Ren\u00e9 $x$ 李.jpg",
        "\ud83d",
        "",
    ],
)
def test_names_lead_back_to_themselves(name, tmp_path):
    text = paths.to_text(name)
    pd.DataFrame({"path": [text]}).to_parquet(tmp_path / "table.parquet")
    assert paths.to_disk(pd.read_parquet(tmp_path / "table.parquet")["path"].item()) == name


def test_unicode_stays_as_it_is_and_no_two_names_become_one():
    assert paths.to_text("ç/ü $ \\ 李.jpg") == "ç/ü $ \\ 李.jpg"
    names = ["\udce9", "\\udce9", "\\u005cudce9", "\\u005c", "\\", "\\\\udce9"]
    assert len({paths.to_text(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/Thumbs.db", True),
        ("a/.DS_Store", True),
        ("__MACOSX/a/1.jpg", True),
        ("a/.hidden/1.jpg", True),
        ("anna/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", True),
        ("#recycle/anna/1.jpg", True),
        ("$RECYCLE.BIN/S-1-5/$R1.jpg", True),
        (".thumbnails/1.jpg", True),
        (".Trashes/501/1.jpg", True),
        ("lost+found/#123", True),
        ("System Volume Information", True),
        ("a/thumbs.db.jpg", False),
        ("a/1.jpg", False),
        ("$anna/1.jpg", False),
        ("lost/found.jpg", False),
        ("thumbnails/1.jpg", False),
    ],
)
def test_what_systems_leave_behind_is_told_from_photos(path, expected):
    assert paths.is_system_file(path) == expected


def test_the_home_folder_and_the_project_folder_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert paths.place("~/photos") == tmp_path / "photos"
    monkeypatch.chdir(tmp_path)
    assert paths.place("tests/photos") == Path(__file__).parent
    (tmp_path / "tests" / "photos").mkdir(parents=True)
    assert paths.place("tests/photos") == Path("tests/photos"), "what is here comes first"
    assert paths.place("nowhere") == Path("nowhere")


@pytest.mark.skipif(os.name == "nt", reason="there are no such names on Windows")
def test_a_user_who_is_not_known_is_said_so():
    with pytest.raises(ValueError, match="starts with a user who is not known"):
        paths.place("~nobody-of-that-name/photos")


def test_paths_of_a_csv_start_where_it_lies(tmp_path):
    table = write(tmp_path / "who.csv")
    assert paths.root(table) == tmp_path
    assert paths.open_path(table, "anna/1.jpg") == tmp_path / "anna" / "1.jpg"
    (tmp_path / "folder.csv").mkdir()
    assert paths.root(tmp_path / "folder.csv") == tmp_path / "folder.csv"
    assert paths.open_path(tmp_path, "caf\\udce9.jpg").name == "caf\udce9.jpg"
    assert paths.open_path(tmp_path, str(table)) == table
