"""The inventory: every file has a row that says whose it is and when it changed."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest

from src.artifacts import cached
from src.photos import finding
from tests.photos.samples import encoded, scene, write


def test_every_file_has_a_row_sorted_by_path(tmp_path):
    names = ["b/1.jpg", "a/x/y/z/deep.png", "loose.txt", "ç é/ü  ñ.jpg", "$x$/1.jpg", "all/1.jpg"]
    names.append("a/" + "n" * 200)
    for name in names:
        write(tmp_path / name, b"12345")
    images = finding.find(tmp_path)
    assert list(images["path"]) == sorted(names)
    assert (images["bytes"] == 5).all()
    status = [(tmp_path / name).stat() for name in images["path"]]
    assert images["modified_ns"].tolist() == [one.st_mtime_ns for one in status]
    assert len(set(images["sample"])) == 1
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
        ("low quality (CCTV)", "low"),
        ("medium_quality", "unknown"),
    ],
)
def test_quality_comes_from_the_nearest_folder_that_names_one(tmp_path, folders, quality):
    write(tmp_path / "anna" / folders / "1.jpg")
    assert list(finding.find(tmp_path)["quality"]) == [quality]


def test_a_person_called_like_a_quality_is_a_person(tmp_path):
    write(tmp_path / "hq" / "1.jpg")
    write(tmp_path / "anna" / "1.jpg")
    images = finding.find(tmp_path)
    assert list(images["identity"]) == ["anna", "hq"] and set(images["quality"]) == {"unknown"}


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
def test_names_that_are_no_unicode_can_be_stored_and_opened(tmp_path):
    names = [b"ren\xe9/caf\xe9.jpg", b"ren\xe8/caf\\udce9.jpg", "ren\u00e9/ü.jpg".encode()]
    for name in names:
        try:
            write(Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/" + name)), name)
        except OSError:
            pytest.skip("this file system takes Unicode names only")
    finding.find(tmp_path / "photos").to_parquet(tmp_path / "table.parquet")
    images = pd.read_parquet(tmp_path / "table.parquet")
    found = [finding.open_path(tmp_path / "photos", path).read_bytes() for path in images["path"]]
    assert sorted(found) == sorted(names)
    assert set(images["identity"]) == {"ren\\udce9", "ren\\udce8", "ren\u00e9"}
    assert (images["bytes"] == images["path"].map(lambda p: len(os.fsencode(finding.to_disk(p))))).all()


def test_missing_empty_and_wrong_folders_are_said_so(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no dataset folder"):
        finding.find(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(f"no dataset folder nowhere in {tmp_path}: give")):
        finding.find("nowhere")
    with pytest.raises(ValueError, match="holds no files: put"):
        finding.find(tmp_path)
    with pytest.raises(NotADirectoryError, match=r"is a file: give a folder .* or a \.csv"):
        finding.find(write(tmp_path / "file"))


@pytest.mark.parametrize("litter", [".DS_Store", "Thumbs.db", "@eaDir/1.jpg/thumb.jpg"])
def test_a_folder_with_nothing_but_litter_is_empty(tmp_path, litter):
    write(tmp_path / litter)
    with pytest.raises(ValueError, match="holds no files of its own, only"):
        finding.find(tmp_path)


def test_what_systems_leave_behind_is_not_looked_into(tmp_path):
    litter = ["a/Thumbs.db", "a/.hidden", "a/@eaDir", "#recycle", "$RECYCLE.BIN", ".Trashes", "b/.thumbnails"]
    for name in ("a/1.jpg", "b/1.jpg", *litter[:2], *(f"{name}/a/1.jpg" for name in litter[2:])):
        write(tmp_path / name, b"12345")
    images = finding.find(tmp_path).set_index("path")
    skipped = images[images["skipped"] != ""]
    assert set(skipped.index) == set(litter) and set(images.index) - set(litter) == {"a/1.jpg", "b/1.jpg"}
    assert (skipped[["identity", "sample"]] == "").all(axis=None) and (skipped["bytes"] == 0).all()
    assert finding.describe(finding.find(tmp_path)) == "Each folder is a person: 2 people found."


def test_results_of_an_earlier_run_are_not_looked_into(tmp_path):
    photos = tmp_path / "dataset"
    for name in ("anna/1.jpg", "ben/1.jpg"):
        write(photos / name, encoded(scene()))
    before = finding.find(photos)
    made = cached(photos / "processed" / "clean.parquet", pd.DataFrame.copy, before)
    assert len(made) == 2
    write(photos / "processed" / "train" / "anna" / "1.jpg", b"a link")
    images = finding.find(photos)
    assert list(images["path"]) == ["anna/1.jpg", "ben/1.jpg", "processed"]
    assert images["skipped"].tolist() == ["", "", "the results of an earlier run"]
    assert "Not looked at, as it holds the results of an earlier run: 'processed'." in finding.describe(
        images
    )
    write(photos / "processed" / "more.npy", b"x")
    pd.testing.assert_frame_equal(finding.find(photos), images)
    with pytest.raises(
        ValueError, match="holds the results of an earlier run: give the folder of the photos"
    ):
        finding.find(photos / "processed")


def test_the_home_folder_and_relative_paths(tmp_path, monkeypatch):
    write(tmp_path / "photos" / "anna" / "1.jpg", b"1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for dataset in ("~/photos", "photos", Path("photos")):
        assert list(finding.find(dataset)["path"]) == ["anna/1.jpg"]
        assert finding.open_path(dataset, "anna/1.jpg").read_bytes() == b"1"


def test_who_is_who_is_understood_or_said(tmp_path):
    for name in ("train/anna/hq/1.jpg", "train/ben/1.jpg", "test/anna/2.jpg"):
        write(tmp_path / name)
    images = finding.find(tmp_path)
    assert list(images["identity"]) == ["anna", "anna", "ben"]
    assert list(images["quality"]) == ["unknown", "high", "unknown"]
    assert (images[["given_split", "given_group"]] == "").all(axis=None)
    assert finding.describe(images).startswith("2 folders above the people (test, train) are not people")
    given = finding.find(tmp_path, people="{split}/{identity}/**")
    assert list(given["given_split"]) == ["test_seen", "train", "train"]
    assert list(given["identity"]) == ["anna", "anna", "ben"]
    given.to_parquet(tmp_path / "x.parquet")


def test_what_is_not_clear_stops_in_one_message_with_the_folder(tmp_path):
    for name in ("train/1.jpg", "test/1.jpg"):
        write(tmp_path / name)
    with pytest.raises(
        finding.Unclear, match=re.escape(f"not clear who is who in {tmp_path}. Folders called 'test'")
    ):
        finding.find(tmp_path)
    assert list(finding.find(tmp_path, people="{identity}/*")["identity"]) == ["test", "train"]


def test_a_table_has_the_columns_of_a_folder(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "not listed.jpg"):
        write(tmp_path / "photos" / name, name.encode())
    lines = "path,identity,quality,group,split\nphotos/a/2.jpg,Anna,low,7,test\nphotos/a/1.jpg,Anna,,,train\n"
    table = write(tmp_path / "who.csv", lines.encode())
    images, folder = finding.find(table), finding.find(tmp_path / "photos", people="**/{identity}/*")
    assert list(images["path"]) == ["photos/a/1.jpg", "photos/a/2.jpg"]
    assert list(images["quality"]) == ["unknown", "low"]
    assert list(images["given_group"]) == ["", "7"] and list(images["given_split"]) == ["train", "test_seen"]
    assert images.columns.equals(folder.columns) and images.dtypes.equals(folder.dtypes)
    same = ["bytes", "modified_ns", "sample", "skipped"]
    pd.testing.assert_frame_equal(
        images[same], folder.loc[folder["identity"] == "a", same].reset_index(drop=True)
    )
    assert finding.open_path(table, images["path"][0]).read_bytes() == b"a/1.jpg"
    assert finding.describe(images).startswith("who.csv lists 2 photos of 1 person")
    assert finding.describe(images).endswith(
        "\nNot listed, so not used: 1 file, such as 'photos/not listed.jpg'."
    )
    with pytest.raises(ValueError, match="leave people empty"):
        finding.find(table, people="{identity}/*")


def test_photos_that_a_table_does_not_list_are_counted(tmp_path):
    for name in ("a/1.jpg", "a/2.png", "a/notes.txt", "a/.hidden.jpg", "@eaDir/1.jpg", "b/3.jpg", "c/d/4",
                 "out/images.parquet.inputs.json", "out/train/5.jpg"):  # fmt: skip
        write(tmp_path / name)
    outside = write(tmp_path.parent / "elsewhere" / "6.jpg")

    def said(*paths: str) -> list[str]:
        lines = ["path,identity", *(f"{path},Anna" for path in paths)]
        table = write(tmp_path / "who.csv", "\n".join(lines).encode())
        return finding.describe(finding.find(table)).splitlines()[1:]

    assert said("a/1.jpg", "b/3.jpg", str(outside)) == [
        "Not listed, so not used: 2 files, such as 'a/2.png'."
    ]
    assert said("a/1.jpg") == ["Not listed, so not used: 1 file, such as 'a/2.png'."]
    assert said("a/1.jpg", "a/2.png", "b/3.jpg", "c/d/4") == []
    assert said("a/1.jpg", "a/2.png") == [], "other folders beside are not looked at"
    assert said(str(outside)) == []


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
