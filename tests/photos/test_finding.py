"""The inventory: every file has a row that says whose it is and when it changed."""

import os
from pathlib import Path

import pandas as pd
import pytest

from src.photos import finding
from tests.photos.samples import encoded, scene, write


def test_every_file_has_a_row_sorted_by_path(tmp_path):
    names = ["b/1.jpg", "a/x/y/z/deep.png", "a/Thumbs.db", "a/.hidden", "loose.txt", "ç é/ü  ñ.jpg"]
    names.append("a/" + "n" * 200)
    for name in names:
        write(tmp_path / name, b"12345")
    images = finding.find(tmp_path)
    assert list(images["path"]) == sorted(names)
    assert (images["bytes"] == 5).all()
    status = [(tmp_path / name).stat() for name in images["path"]]
    assert images["modified_ns"].tolist() == [one.st_mtime_ns for one in status]
    assert images["sample"].nunique() == 1
    assert images.set_index("path")["identity"].to_dict() == {
        name: name.split("/")[0] if "/" in name else "" for name in names
    }


@pytest.mark.parametrize(
    ("folders", "quality"),
    [
        ("High_Quality", "high"),
        ("low quality", "low"),
        ("LOW-QUALITY", "low"),
        ("hq", "high"),
        ("LQ", "low"),
        ("high_quality/cam 1", "high"),
        ("low_quality/high_quality", "high"),
        ("highland", "unknown"),
        ("session", "unknown"),
    ],
)
def test_quality_comes_from_the_nearest_folder_that_names_one(tmp_path, folders, quality):
    write(tmp_path / "anna" / folders / "1.jpg")
    assert list(finding.find(tmp_path)["quality"]) == [quality]


def test_a_person_called_like_a_quality_is_a_person(tmp_path):
    write(tmp_path / "hq" / "1.jpg")
    row = finding.find(tmp_path).iloc[0]
    assert (row["identity"], row["quality"]) == ("hq", "unknown")


def test_composed_and_decomposed_names_are_one_person(tmp_path):
    write(tmp_path / "Ren\u00e9" / "1.jpg")
    write(tmp_path / "Rene\u0301" / "2.jpg")
    assert set(finding.find(tmp_path)["identity"]) == {"Ren\u00e9"}


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_followed_and_loops_are_rows(tmp_path):
    photos = tmp_path / "photos"
    write(photos / "anna" / "1.jpg")
    write(tmp_path / "elsewhere" / "2.jpg")
    (photos / "ben").symlink_to(tmp_path / "elsewhere")
    (photos / "anna" / "up").symlink_to(photos)
    (photos / "anna" / "itself").symlink_to("itself")
    (photos / "anna" / "nowhere").symlink_to("gone.jpg")
    images = finding.find(photos)
    assert list(images["path"]) == ["anna/1.jpg", "anna/itself", "anna/nowhere", "anna/up", "ben/2.jpg"]
    assert (images.loc[1:3, ["bytes", "modified_ns"]] == 0).all(axis=None)  # nothing to stat
    assert (images.loc[1:3, "sample"] == "").all()


@pytest.mark.skipif(os.name == "nt", reason="file names are always Unicode on Windows")
def test_a_name_that_is_no_unicode_can_be_stored(tmp_path):
    try:
        write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/anna/caf\xe9.jpg")))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    images = finding.find(tmp_path)
    images.to_parquet(tmp_path / "table.parquet")
    assert len(images) == 1


def test_missing_empty_and_wrong_folders_are_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset folder"):
        finding.find(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no files"):
        finding.find(tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file"):
        finding.find(write(tmp_path / "file"))


def bitmaps(folder: Path) -> tuple[Path, Path]:
    """Photos of two people that neither size nor date tells apart."""
    files = [write(folder / person / "1.bmp", encoded(scene(seed=i), "BMP")) for i, person in enumerate("ab")]
    for file in files:
        os.utime(file, ns=(10**18, 10**18))
    return files[0], files[1]


def swap_places(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def swap_contents(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize("swap", [swap_places, swap_contents])
def test_two_files_of_one_size_and_date_that_are_swapped_are_seen(tmp_path, swap):
    one, other = bitmaps(tmp_path)
    before = finding.find(tmp_path)
    assert before["bytes"].nunique() == before["modified_ns"].nunique() == 1
    swap(one, other)
    for file in (one, other):
        os.utime(file, ns=(10**18, 10**18))
    after = finding.find(tmp_path)
    assert before.drop(columns="sample").equals(after.drop(columns="sample"))
    assert after["sample"].tolist() == before["sample"].tolist()[::-1]


@pytest.mark.parametrize("at", [0, 250_000, 499_999])
def test_a_large_file_is_sampled_from_its_first_byte_to_its_last(tmp_path, at):
    data = bytearray(500_000)
    file = write(tmp_path / "anna" / "1.bmp", bytes(data))
    before = finding.find(tmp_path)["sample"].item()
    data[at] = 1
    file.write_bytes(bytes(data))
    assert (finding.find(tmp_path)["sample"].item() != before) == (at != 250_000), "between two blocks"


def test_hard_links_to_a_photo_do_not_make_it_look_changed(tmp_path):
    """The split folders are made of such links: they must not have everything cleaned again."""
    one, _ = bitmaps(tmp_path / "photos")
    before = finding.find(tmp_path / "photos")
    (tmp_path / "link.bmp").hardlink_to(one)
    pd.testing.assert_frame_equal(finding.find(tmp_path / "photos"), before)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/Thumbs.db", True),
        ("a/.DS_Store", True),
        ("__MACOSX/a/1.jpg", True),
        ("a/.hidden/1.jpg", True),
        ("a/thumbs.db.jpg", False),
        ("a/1.jpg", False),
    ],
)
def test_what_systems_leave_behind_is_told_from_photos(path, expected):
    assert finding.is_system_file(path) == expected
