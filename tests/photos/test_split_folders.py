"""Split folders: what ImageFolder reads, complete or absent, and harmless to the photos."""

import errno
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from src.photos import cleaning, finding, split_folders, splitting
from src.photos.splitting import SPLITS
from tests.photos.samples import cleaned_table, encoded, photo, write


def names_in(folder):
    """What is in the folder, the lock aside."""
    return sorted(p.name for p in folder.iterdir() if p.name != ".locks")


@pytest.fixture
def split_photos(tmp_path):
    """A split table with its photos on the disk."""
    images = splitting.split(
        cleaned_table({f"p{i}": {"high": [1] * 6, "low": [1] * 6} for i in range(6)}, ["p0"])
    )
    for i, path in enumerate(images["path"]):
        file = tmp_path / "images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (i, 255 - i, 9)).save(file)
    return images, tmp_path / "images", tmp_path / "out"


def size(path):
    with Image.open(path) as photo:
        return photo.size


def snapshot(folder):
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_mode)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_folders_are_what_imagefolder_reads_and_the_dataset_is_untouched(split_photos):
    images, folder, out = split_photos
    before = snapshot(folder)
    counts = split_folders.materialise(images, folder, out)
    assert snapshot(folder) == before
    assert names_in(out) == sorted(SPLITS)
    datasets = pytest.importorskip("torchvision").datasets
    for name in SPLITS:
        used = images[images["split"] == name]
        found = datasets.ImageFolder(str(out / name))
        assert (
            set(found.classes) == set(used["identity"])
            and len(found) == len(used) == counts.loc[name, "photos"]
        )
        manifest = pd.read_csv(out / name / "manifest.csv")
        assert set(manifest["path"]) == set(used["path"])
        for file, path in zip(manifest["file"], manifest["path"], strict=True):
            assert (out / name / file).read_bytes() == (folder / path).read_bytes()
    assert set(counts["made"]) == {"linked"}


def test_unchanged_folders_are_left_alone_and_changed_ones_replaced(split_photos):
    images, folder, out = split_photos
    split_folders.materialise(images, folder, out)
    kept = {name: (out / name).stat().st_ino for name in SPLITS}
    assert set(split_folders.materialise(images, folder, out)["made"]) == {"unchanged"}
    assert {name: (out / name).stat().st_ino for name in SPLITS} == kept

    other = splitting.split(images[images.columns[:-2]], seed=5)
    assert (other["split"] != images["split"]).any()
    split_folders.materialise(other, folder, out)
    for name in SPLITS:
        assert len(list((out / name).rglob("*.jpg"))) == (other["split"] == name).sum()
    next((out / "train").rglob("*.jpg")).unlink()
    (out / "val" / ".DS_Store").touch()
    assert dict(split_folders.materialise(other, folder, out)["made"]) == {
        "train": "linked",
        "val": "unchanged",
        "test_seen": "unchanged",
        "test_unseen": "unchanged",
    }


def test_copies_where_links_fail(split_photos, monkeypatch):
    images, folder, out = split_photos
    before = snapshot(folder)

    def refuse(self, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    counts = split_folders.materialise(images, folder, out)
    total = (images["split"] == "train").sum()
    assert counts["made"]["train"] == f"0 linked, {total} copied"
    photo = next((out / "train").rglob("*.jpg"))
    assert photo.stat().st_nlink == 1
    photo.write_bytes(b"")
    assert snapshot(folder) == before


def test_symbolic_links_become_photos(split_photos):
    images, folder, out = split_photos
    first = folder / images.loc[images["split"] == "train", "path"].iloc[0]
    first.rename(folder.parent / "elsewhere.jpg")
    first.symlink_to(Path("../../../elsewhere.jpg"))
    split_folders.materialise(images, folder, out)
    assert not any(p.is_symlink() for p in out.rglob("*"))
    shutil.rmtree(folder)
    assert {size(p) for p in out.rglob("*.jpg")} == {(20, 20)}


def test_foreign_files_are_never_deleted(split_photos):
    images, folder, out = split_photos
    (out / "val").mkdir(parents=True)
    (out / "val" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.txt.*move them away"):
        split_folders.materialise(images, folder, out)
    assert names_in(out) == ["val"] and [p.name for p in (out / "val").rglob("*")] == ["thesis.txt"]

    shutil.rmtree(out)
    split_folders.materialise(images, folder, out)
    (out / "train" / "p0" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"p0/notes\.txt"):
        split_folders.materialise(splitting.split(images, seed=5), folder, out)
    assert len(list((out / "train").rglob("*.jpg"))) == (images["split"] == "train").sum()


def test_a_photo_that_has_gone_is_a_sentence_and_leaves_no_half_folder(split_photos):
    images, folder, out = split_photos
    (folder / images.loc[images["split"] == "val", "path"].iloc[-1]).unlink()
    with pytest.raises(FileNotFoundError, match="has gone"):
        split_folders.materialise(images, folder, out)
    assert not any((out / name).exists() for name in SPLITS)


def test_a_full_disk_is_a_sentence_and_leaves_nothing(split_photos, monkeypatch):
    images, folder, out = split_photos

    def full(self, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def copy(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "hardlink_to", full)
    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises(OSError, match="The disk is full") as caught:
        split_folders.materialise(images, folder, out)
    assert caught.value.errno == errno.ENOSPC and not names_in(out)


class Killed(BaseException):
    """Stands for a kill: nothing may tidy up after it."""


@pytest.mark.parametrize("call", ["rename", "unlink", "rmdir", "mkdir", "hardlink_to", "write_text"])
def test_killed_at_any_step_folders_are_whole_or_absent_and_the_next_run_mends_it(
    split_photos, monkeypatch, call
):
    images, folder, out = split_photos
    other = splitting.split(images[images.columns[:-2]], seed=5)
    before = snapshot(folder)
    real = getattr(Path, call)
    for step in range(1, 40, 3):
        shutil.rmtree(out, ignore_errors=True)
        split_folders.materialise(images, folder, out)
        count = 0

        def counted(self, *args, **kwargs):
            nonlocal count
            count += 1
            if count == step:  # noqa: B023
                raise Killed
            return real(self, *args, **kwargs)

        monkeypatch.setattr(Path, call, counted)
        try:
            split_folders.materialise(other, folder, out)
        except Killed:
            pass
        finally:
            monkeypatch.setattr(Path, call, real)
        there = [name for name in SPLITS if (out / name).exists()]
        stands = [
            all(
                len(list((out / name).rglob("*.jpg"))) == (table["split"] == name).sum()
                and split_folders._is_current(
                    out / name, (out / name / "manifest.csv").read_text(encoding="utf-8")
                )
                for name in there
            )
            for table in (images, other)
        ]
        assert any(stands)
        split_folders.materialise(other, folder, out)
        assert names_in(out) == sorted(SPLITS)
        assert sum(1 for _ in out.rglob("*.jpg")) == (other["split"] != "").sum()
        if count < step:
            break
    assert snapshot(folder) == before


NASTY = ["con", "CON", "Ann", "ann", "a:b", "a?b", "a*b", "tail. ", "x" * 200, "x" * 201, "ß", "ss", "..."]


def test_names_are_unique_and_safe_on_any_file_system():
    paths = [
        "high/1.jpg",
        "low/1.jpg",
        "HIGH/1.jpg",
        "high/1.JPG",
        "high_1.jpg",
        "nul.jpg",
        "y" * 240 + ".jpeg",
        "a.gif",
    ]
    used = pd.DataFrame(
        [(f"{name}/{path}", name, "high") for name in NASTY for path in paths],
        columns=["path", "identity", "quality"],
    )
    names = split_folders._names(used)
    assert not names.str.casefold().duplicated().any()
    assert names.str.partition("/")[0].str.casefold().nunique() == len(NASTY)
    for name in names:
        for part in name.split("/"):
            assert len(os.fsencode(part)) <= 120
            assert not set(part) & set('<>:"\\|?*') and part == part.strip(" .")
            assert part.partition(".")[0].lower() not in {"con", "nul"}
        assert name.endswith((".jpg", ".jpeg"))
    assert "Ann" not in set(names.str.partition("/")[0])


def test_heic_becomes_jpeg_which_any_tool_reads(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    album = {f"{who}/{i}.HEIC": 10 * w + i for w, who in enumerate("ab") for i in range(3)}
    for name, seed in album.items():
        write(tmp_path / "photos" / name, encoded(photo(seed), "HEIF", quality=90))
    folder = tmp_path / "photos"
    images = splitting.split(cleaning.clean(finding.find(folder), folder, workers=1))
    split_folders.materialise(images, folder, tmp_path / "out")
    made = list((tmp_path / "out").rglob("*.jpg"))
    assert len(made) == (images["status"] == "ok").sum() == 6
    assert all(file.read_bytes().startswith(b"\xff\xd8") for file in made)
