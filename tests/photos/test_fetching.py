"""The ways in for data: links, archives that are not trusted, folders."""

import errno
import io
import shutil
import tarfile
import urllib.error
import zipfile
from pathlib import Path

import pytest

from src.photos import fetching, finding
from tests.photos.samples import encoded, scene, write


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as pack:
        for name, data in files.items():
            pack.writestr(name, data)
    return path


PEOPLE = {
    f"{person}/{quality}/1.jpg": encoded(scene(), "JPEG")
    for person in "ab"
    for quality in ("HQ", "low quality")
}


@pytest.mark.parametrize("above", ["", "study/data/images/"])
def test_archives_are_laid_out_by_person(tmp_path, above):
    extra = {"__MACOSX/._1.jpg": b"\x00\x05\x16\x07"}
    place = zipped(tmp_path / "a.zip", {above + name: data for name, data in PEOPLE.items()} | extra)
    folder = fetching.fetch(place, tmp_path / "dataset" / "images")
    assert {name for name in finding.find(folder)["path"] if not finding.is_system_file(name)} == set(PEOPLE)
    assert [entry.name for entry in folder.parent.iterdir()] == ["images"]  # nothing half-made is left


def test_tar_archives_of_one_person_keep_the_person(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tape:
        for name, data in PEOPLE.items():
            if name.startswith("a"):
                info = tarfile.TarInfo(f"images/{name}")
                info.size = len(data)
                tape.addfile(info, io.BytesIO(data))
    folder = fetching.fetch(tmp_path / "a.tar.gz", tmp_path / "images")
    assert set(finding.find(folder)["identity"]) == {"a"}


def test_folders_are_copied_and_left_alone(tmp_path):
    for name, data in PEOPLE.items():
        write(tmp_path / "mine" / "photos" / name, data)
    folder = fetching.fetch(tmp_path / "mine", tmp_path / "images")
    assert list(finding.find(folder)["path"]) == sorted(PEOPLE)
    assert list(finding.find(tmp_path / "mine" / "photos")["path"]) == sorted(PEOPLE)


def test_a_full_disk_is_a_sentence_and_leaves_no_photos(tmp_path, monkeypatch):
    for name, data in PEOPLE.items():
        write(tmp_path / "mine" / name, data)

    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(OSError, match="The disk is full: the photos") as caught:
        fetching.fetch(tmp_path / "mine", tmp_path / "dataset" / "images")
    assert caught.value.errno == errno.ENOSPC
    assert not [path for path in (tmp_path / "dataset").rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "/out.jpg", "..\\out.jpg", "C:\\out.jpg"])
def test_no_member_leads_out_of_the_folder(tmp_path, name):
    place = zipped(tmp_path / "a.zip", {**PEOPLE, name: b"x"})
    with pytest.raises(ValueError, match="leads out"):
        fetching.fetch(place, tmp_path / "below" / "images")
    assert not (tmp_path / "below" / "images").exists()
    assert not list(tmp_path.rglob("out.jpg"))


def test_links_in_archives_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tape:
        info = tarfile.TarInfo("a/passwd.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tape.addfile(info)
    link = zipfile.ZipInfo("a/passwd.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as pack:
        pack.writestr(link, "/etc/passwd")
    for name in ("a.tar", "a.zip"):
        with pytest.raises(ValueError, match="link or a device"):
            fetching.fetch(tmp_path / name, tmp_path / "images")


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "MAXIMUM_UNPACKED", 10**6)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("a/1.bmp", bytes(5 * 10**6))
    with pytest.raises(ValueError, match="photos do not"):
        fetching.fetch(tmp_path / "a.zip", tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_damaged_and_foreign_archives_are_said_so(tmp_path):
    whole = zipped(tmp_path / "a.zip", PEOPLE).read_bytes()
    damaged = bytearray(whole)
    damaged[200] ^= 0xFF
    for data, message in [
        (bytes(damaged), "damaged"),
        (whole[: len(whole) // 2], "neither a zip nor a tar"),
        (b"<!DOCTYPE html><html>quota exceeded", "web page"),
        (b"Rar!\x1a\x07", "neither a zip nor a tar"),
    ]:
        with pytest.raises(ValueError, match=message):
            fetching.fetch(write(tmp_path / "b", data), tmp_path / "images")
    with pytest.raises(ValueError, match="no images"):
        fetching.fetch(zipped(tmp_path / "c.zip", {"a/readme.txt": b"x"}), tmp_path / "images")
    with pytest.raises(ValueError, match="not the expected archive"):
        fetching.fetch(tmp_path / "a.zip", tmp_path / "images", sha256="0" * 64)


def test_nothing_is_overwritten(tmp_path):
    write(tmp_path / "images" / "a" / "1.jpg")
    with pytest.raises(FileExistsError, match="not empty"):
        fetching.fetch(zipped(tmp_path / "a.zip", PEOPLE), tmp_path / "images")


def test_drive_links_are_downloaded_by_their_id(tmp_path, monkeypatch):
    import gdown

    asked = []

    def download(output: str, resume: bool, **where) -> None:
        asked.append((where, resume))
        zipped(Path(output), PEOPLE)

    monkeypatch.setattr(gdown, "download", download)
    fetching.fetch("https://drive.google.com/file/d/1AbC-d_e/view?usp=sharing", tmp_path / "one")
    fetching.fetch("https://drive.google.com/uc?export=download&id=1AbC-d_e", tmp_path / "two")
    fetching.fetch("https://example.org/photos.zip", tmp_path / "three")
    assert asked == [({"id": "1AbC-d_e"}, True)] * 2 + [({"url": "https://example.org/photos.zip"}, True)]


def test_without_network_the_manual_way_is_given(tmp_path, monkeypatch):
    import gdown

    def download(**_):
        raise OSError("Name or service not known")

    monkeypatch.setattr(gdown, "download", download)
    with pytest.raises(ConnectionError, match="browser") as caught:
        fetching.fetch("https://drive.google.com/file/d/1AbC/view", tmp_path / "images")
    assert "\n" not in str(caught.value)


def test_faces_in_the_wild_that_are_there_are_taken_and_else_one_sentence_says_what_to_put_where(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))

    def unreachable(**options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(fetching.datasets, "fetch_lfw_people", unreachable)
    with pytest.raises(ConnectionError, match=r"lfw-funneled.tgz into .*lfw_home"):
        fetching.lfw()
    (tmp_path / "lfw_home" / "lfw_funneled" / "Ann").mkdir(parents=True)
    assert fetching.lfw() == tmp_path / "lfw_home" / "lfw_funneled"
