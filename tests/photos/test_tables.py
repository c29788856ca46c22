"""A .csv instead of folders."""

import os
from pathlib import Path

import pytest

from src.photos import tables
from tests.photos.samples import write


@pytest.fixture
def folder(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4 x.jpg"):
        write(tmp_path / name)
    return tmp_path


def table(folder: Path, *lines: str, encoding: str = "utf-8", name: str = "who.csv") -> Path:
    return write(folder / name, ("\n".join(lines) + "\n").encode(encoding))


def test_every_line_is_a_photo(folder):
    file = table(
        folder,
        "identity,path,quality,group,split",
        "Rene\u0301,a/1.jpg,LR,s 1,train",
        "Ren\u00e9, ./a/../a/2.jpg ,,,test",
        "",
        '"Lee, Ben",b/3.jpg,high,,testing',
        f"Bo,{folder / 'b' / '4 x.jpg'},unknown,,validation",
    )
    assert tables.read(file) == [
        ("a/1.jpg", "Ren\u00e9", "low", "s 1", "train"),
        ("a/2.jpg", "Ren\u00e9", "", "", "test_seen"),
        ("b/3.jpg", "Lee, Ben", "high", "", "test_unseen"),
        ("b/4 x.jpg", "Bo", "", "", "val"),
    ]
    assert tables.describe(tables.read(file), file) == (
        "who.csv lists 4 photos of 3 people, with a split of its own "
        "(1 in train, 1 in test_seen, 1 in test_unseen, 1 in val)."
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_spreadsheets_write_is_read(folder, separator, encoding):
    file = table(folder, separator.join(["Path", " IDENTITY "]), separator.join(["a\\1.jpg", "anna"]),
                 encoding=encoding)  # fmt: skip
    assert tables.read(file) == [("a/1.jpg", "anna", "", "", "")]


def test_paths_outside_of_the_tables_folder(folder):
    file = table(folder / "tables", "path,identity", "../a/1.jpg,anna", f"{folder}/a/2.jpg,anna")
    assert [entry.path for entry in tables.read(file)] == ["../a/1.jpg", (folder / "a/2.jpg").as_posix()]


def test_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    assert tables.read(table(folder, "path,identity", "~/a/1.jpg,anna"))[0].path == "a/1.jpg"


@pytest.mark.skipif(os.name == "nt", reason="a backslash parts folders on Windows")
def test_a_backslash_in_a_name_stays(folder):
    write(folder / "a\\1.jpg")
    assert tables.read(table(folder, "path,identity", "a\\1.jpg,anna"))[0].path == "a\\1.jpg"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,person", "a/1.jpg,x"], "has no column 'identity', only 'path', 'person'"),
        (["file,name", "a/1.jpg,x"], "has no column 'path' and no column 'identity'"),
        ([""], "has no column 'path'"),
        (["path,identity"], "lists no photos"),
        (["path,identity", "a/1.jpg,"], "line 2: there is no identity"),
        (["path,identity", ",anna"], "line 2: there is no path"),
        (["path,identity", "a/1.jpg"], "line 2: there is no identity"),
        (["path,identity", "a/1.jpg,x", "", "a/9.jpg,x"], "line 4: there is no file 'a/9.jpg';"),
        (["path,identity", "8.jpg,x", "9.jpg,x", "a/1.jpg,x"], r"'8.jpg' \(2 of 3 photos are not there\)"),
        (["path,identity", "a,x"], "line 2: 'a' is a folder"),
        (["path,identity", "a/1.jpg,x", "./a//1.jpg,x"], "line 3: 'a/1.jpg' is in line 2 already; list it"),
        (["path,identity", "a/1.jpg,x", "a/1.jpg,y"], "in line 2 already, as 'x' and as 'y'; list it once"),
        (["path,identity,quality", "a/1.jpg,x,fair"], "line 2: the quality 'fair' is none of high, low"),
        (["path,identity,quality", "a/1.jpg,x,medium quality"], "quality 'medium quality' is none of"),
        (["path,identity,split", "a/1.jpg,x,blue"], "line 2: the split 'blue' is none of train, val"),
        (["path,identity", '"a/1.jpg,x'], r"can't be read \(unexpected end of data\)"),
    ],
)
def test_what_is_wrong_is_one_sentence(folder, lines, message):
    error = FileNotFoundError if "no file" in message or "not there" in message else ValueError
    with pytest.raises(error, match=message) as caught:
        tables.read(table(folder, *lines))
    assert "\n" not in str(caught.value) and "who.csv" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_said_so(folder, encoding):
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        tables.read(table(folder, "path,identity", "a/1.jpg,Ren\u00e9", encoding=encoding))


def test_a_test_photo_of_somebody_whose_other_photos_may_be_trained_on_is_seen(folder):
    file = table(folder, "path,identity,split", "a/1.jpg,anna,test", "a/2.jpg,anna,", "b/3.jpg,ben,test")
    assert [entry.split for entry in tables.read(file)] == ["test_seen", "", "test_unseen"]
