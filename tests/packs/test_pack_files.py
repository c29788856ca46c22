"""Packs are found, downloaded, verified and unpacked, or one sentence says what to do."""

import errno
import shutil
import zipfile
from pathlib import Path

import pytest

from src import artifacts
from src.packs import pack_files
from src.packs.pack_files import Archive, find


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Path:
    """A project folder with nothing in it, no home and no network."""
    monkeypatch.setattr(pack_files, "PROJECT", tmp_path / "work" / "project")
    monkeypatch.setattr(pack_files, "HOME", tmp_path / "home" / "models")

    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(pack_files, "download_file", offline)
    (tmp_path / "work" / "project").mkdir(parents=True)
    (tmp_path / "home" / "models").mkdir(parents=True)
    return tmp_path / "work" / "project"


def publish(monkeypatch, folder: Path, archive: Path) -> None:
    """Makes `folder` the published pack buffalo_l, zipped at `archive`."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as file:
        for member in folder.glob("*.onnx"):
            file.write(member, f"buffalo_l/{member.name}")
        file.writestr("../../escaped.onnx", (folder / "det.onnx").read_bytes())
        file.writestr("README.md", "not a model")
    files = {member.name: artifacts.sha256(member) for member in folder.glob("*.onnx")}
    published = Archive(archive.stat().st_size, artifacts.sha256(archive), files)
    monkeypatch.setattr(pack_files, "PUBLISHED", {"buffalo_l": published})


def test_a_pack_is_found_by_name_and_by_folder_with_the_digests_of_its_files(tiny):
    assert find("tiny", root=tiny.parents[1]) == find(tiny)
    folder, digests = find(tiny)
    assert folder == tiny
    assert digests == {name: artifacts.sha256(tiny / name) for name in ("det.onnx", "rec.onnx")}


def test_a_folder_within_a_folder_of_the_same_name_is_found(tiny):
    inner = tiny / "tiny"
    inner.mkdir()
    for file in tiny.glob("*.onnx"):
        file.rename(inner / file.name)
    assert find("tiny", root=tiny.parents[1])[0] == inner


def test_an_unknown_pack_is_one_sentence_that_names_the_places(alone):
    with pytest.raises(FileNotFoundError, match="no pack nowhere") as error:
        find("nowhere")
    assert str(alone / "models") in str(error.value)


def test_without_a_network_the_sentence_names_file_folder_size_and_checksum(alone):
    with pytest.raises(FileNotFoundError) as error:
        find("buffalo_l")
    published = pack_files.PUBLISHED["buffalo_l"]
    for part in ("buffalo_l.zip", str(alone / "models"), f"{published.size:,} bytes", published.sha256):
        assert part in str(error.value)
    assert not list(pack_files.HOME.iterdir())


@pytest.mark.parametrize("place", ["models", ".", "../models"])
def test_a_zip_dropped_beside_the_project_is_verified_and_unpacked(alone, tiny, monkeypatch, place):
    archive = (alone / place).resolve() / "buffalo_l.zip"
    publish(monkeypatch, tiny, archive)
    assert find("buffalo_l")[0] == archive.with_suffix("")
    assert sorted(f.name for f in archive.with_suffix("").iterdir()) == [
        "det.onnx",
        "escaped.onnx",
        "rec.onnx",
    ]
    assert not list(alone.parents[1].glob("escaped.onnx")) and not list(alone.parent.glob("escaped.onnx"))
    assert not list(archive.parent.glob(".buffalo_l-*"))


def test_a_zip_cut_off_is_refused_and_nothing_unpacked(alone, tiny, monkeypatch):
    archive = alone / "models" / "buffalo_l.zip"
    publish(monkeypatch, tiny, archive)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut off"):
        find("buffalo_l")
    assert [file.name for file in archive.parent.iterdir()] == ["buffalo_l.zip"]


def test_a_download_is_verified_before_use(alone, tiny, monkeypatch, tmp_path):
    publish(monkeypatch, tiny, tmp_path / "server" / "buffalo_l.zip")

    def fetch(url, path, overwrite):
        shutil.copy(tmp_path / "server" / "buffalo_l.zip", path)

    monkeypatch.setattr(pack_files, "download_file", fetch)
    assert find("buffalo_l")[0] == pack_files.HOME / "buffalo_l"


def test_a_download_for_which_there_is_no_room_is_one_sentence(alone, tiny, monkeypatch, tmp_path):
    publish(monkeypatch, tiny, tmp_path / "server" / "buffalo_l.zip")

    def fetch(url, path, overwrite):
        Path(path).write_bytes(b"the beginning")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pack_files, "download_file", fetch)
    with pytest.raises(OSError, match=r"The disk is full: buffalo_l\.zip"):
        find("buffalo_l")
    assert not list(pack_files.HOME.iterdir())


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_a_half_unpacked_published_pack_is_recognised(alone, tiny, monkeypatch, tmp_path, damage):
    publish(monkeypatch, tiny, tmp_path / "elsewhere" / "buffalo_l.zip")
    folder = alone / "models" / "buffalo_l"
    shutil.copytree(tiny, folder)
    file = folder / "rec.onnx"
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"not whole.*rec\.onnx") as error:
        find("buffalo_l")
    assert str(folder) in str(error.value)
    # InsightFace leaves the zip beside the folder: then it is mended.
    shutil.copy(tmp_path / "elsewhere" / "buffalo_l.zip", folder.with_suffix(".zip"))
    assert find("buffalo_l")[0] == folder
