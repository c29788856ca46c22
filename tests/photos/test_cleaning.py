"""Cleaning: every hostile file gets a status, nothing is changed, nothing ends the run."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src import artifacts
from src.photos import cleaning, decoding, examining, finding
from tests.photos.cameras import frames
from tests.photos.samples import encoded, fill, jpeg, photo, png


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def see_through(alpha: int) -> bytes:
    """A PNG of nothing: black, and hardly or not at all opaque."""
    return encoded(Image.new("RGBA", (120, 90), (0, 0, 0, alpha)), "PNG")


WHOLE = jpeg(photo(1))
BOMB = png(np.zeros((4000, 4000, 3), np.uint8))
FILES = {
    "anna/good.jpg": (jpeg(photo(0)), "ok"),
    "anna/png named.jpg": (png(photo(2)), "ok"),
    "anna/no suffix": (jpeg(photo(3)), "ok"),
    "anna/ünïcode 日本.jpg": (jpeg(photo(4)), "ok"),
    "anna/cut.jpg": (WHOLE[: len(WHOLE) // 2], "truncated"),
    "anna/cut with end.jpg": (WHOLE[: len(WHOLE) // 2] + b"\xff\xd9", "truncated"),
    "anna/empty.jpg": (b"", "unreadable"),
    "anna/text.jpg": (b"not a photo", "not an image"),
    "anna/header.png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "unreadable"),
    "anna/tiny.png": (png(photo(5, 15)), "too small"),
    "anna/bomb.png": (BOMB, "too large"),
    "anna/Thumbs.db": (b"\xd0\xcf\x11\xe0", "system file"),
    "anna/._good.jpg": (jpeg(photo(6)), "system file"),
    "loose.jpg": (jpeg(photo(7)), "no person"),
    "ben/copy 1.jpg": (jpeg(photo(8)), "ok"),
    "ben/copy 2.jpg": (jpeg(photo(8)), "duplicate"),
    "ben/saved again.png": (png(decoding.decode(jpeg(photo(8)))), "duplicate"),
    "ben/stolen.jpg": (jpeg(photo(9)), "label conflict"),
    "cleo/stolen.jpg": (jpeg(photo(9)), "label conflict"),
    "ben/re-encoded.jpg": (jpeg(photo(10)), "label conflict"),
    "cleo/re-encoded.jpg": (jpeg(cv2.resize(photo(10)[4:, 3:], (120, 120)), 80), "label conflict"),
    "cleo/frame 1.jpg": (jpeg(photo(11)), "ok"),
    "cleo/frame 2.jpg": (jpeg(photo(11)[3:-2, 4:]), "ok"),
    "cleo/high_quality/other.jpg": (jpeg(photo(12)), "ok"),
    "anna/white.png": (png(np.full((80, 60, 3), 255, np.uint8)), "blank"),
    "ben/white.png": (png(np.full((80, 60, 3), 255, np.uint8)), "blank"),
    "ben/white again.png": (png(np.full((80, 60, 3), 255, np.uint8)), "blank"),
    "anna/lens cap.jpg": (jpeg(np.random.default_rng(0).integers(0, 9, (200, 300, 3), np.uint8)), "blank"),
    "ben/lens cap.jpg": (jpeg(np.random.default_rng(1).integers(0, 9, (200, 300, 3), np.uint8)), "blank"),
    "ben/red.jpg": (jpeg(np.full((90, 90, 3), (200, 30, 30), np.uint8)), "blank"),
    "cleo/red.png": (png(np.full((60, 90, 3), (200, 30, 30), np.uint8)), "blank"),
    "anna/transparent.png": (see_through(0), "blank"),
    "cleo/transparent.png": (see_through(0), "blank"),
    "ben/nearly transparent.png": (see_through(5), "blank"),
    "cleo/nearly transparent.png": (see_through(5), "blank"),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    folder = fill(tmp_path_factory.mktemp("hostile"), {name: data for name, (data, _) in FILES.items()})
    before = state(folder)
    images = finding.find(folder)
    cleaned = cleaning.clean(images, folder, maximum_pixels=10**7, workers=2)
    pd.testing.assert_frame_equal(
        cleaned[list(images)].drop(columns="quality"), images.drop(columns="quality")
    )
    assert state(folder) == before, "the dataset folder is only to be read"
    return folder, cleaned.set_index("path")


def test_every_file_has_the_status_it_deserves(hostile):
    _, images = hostile
    assert images["status"].to_dict() == {name: status for name, (_, status) in FILES.items()}
    assert ((images["reason"] == "") == (images["status"] == "ok")).all()


def test_duplicates_name_the_file_they_copy(hostile):
    _, images = hostile
    duplicates = images.loc[images["status"] == "duplicate", "duplicate_of"]
    assert duplicates.to_dict() == {
        "ben/copy 2.jpg": "ben/copy 1.jpg",
        "ben/saved again.png": "ben/copy 1.jpg",
    }


def test_groups_hold_near_duplicates_only(hostile):
    _, images = hostile
    usable = images[images["status"] == "ok"]
    assert usable.loc["cleo/frame 1.jpg", "group"] == usable.loc["cleo/frame 2.jpg", "group"]
    assert usable["group"].nunique() == len(usable) - 1
    assert (images.loc[images["status"] != "ok", "group"] == -1).all()


def test_usable_photos_have_all_measures(hostile):
    _, images = hostile
    usable = images[images["status"] == "ok"]
    assert usable[["sharpness", "brightness", "contrast"]].notna().all(axis=None)
    assert set(usable["quality"]) <= {"high", "low"}
    assert usable.loc["cleo/high_quality/other.jpg", "quality_source"] == "folder"
    assert (usable.drop("cleo/high_quality/other.jpg")["quality_source"] == "measured").all()
    assert usable["phash"].str.fullmatch("[0-9a-f]{16}").all()


def test_set_aside_and_summary_count_every_file(hostile):
    folder, images = hostile
    images = images.reset_index()
    aside = cleaning.set_aside(images)
    assert len(aside) + (images["status"] == "ok").sum() == len(FILES)
    assert cleaning.summary(images).loc[("all", ""), "all"] == len(FILES)
    pictures, captions = cleaning.thumbnails(images, folder, side=32)
    assert pictures.shape == (len(captions), 32, 32, 3)
    assert len(captions) == 19  # too small, loose, two duplicates, four conflicts, eleven blank


KILLED = """
import sys
from pathlib import Path
from src.photos import cleaning, examining, finding
if __name__ == "__main__":
    cleaning._SAVE_EVERY, examining._CHUNK_FILES = 0.0, 3
    folder, workspace = map(Path, sys.argv[1:])
    cleaning.clean(finding.find(folder), folder, workers=1, workspace=workspace)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_run_goes_on_and_ends_in_the_same_table(tmp_path):
    folder = fill(tmp_path / "photos", {f"p{n % 7}/{n}.jpg": jpeg(photo(n, 40)) for n in range(400)})
    images = finding.find(folder)
    workspace = tmp_path / "workspace"
    script = fill(tmp_path, {"killed.py": KILLED.encode()}) / "killed.py"
    root = str(Path(__file__).parents[2])
    run = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(workspace)],
        env=os.environ | {"PYTHONPATH": root},
        stderr=subprocess.DEVNULL,
        cwd=root,
    )
    while len(list(workspace.glob("?????.parquet"))) < 3:
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    finished = sum(len(pd.read_parquet(part)) for part in workspace.glob("?????.parquet"))
    assert 0 < finished < len(images)
    (workspace / "99999.partial.parquet").write_bytes(b"half a table")
    resumed = cleaning.clean(images, folder, workers=2, workspace=workspace)
    pd.testing.assert_frame_equal(resumed, cleaning.clean(images, folder, workers=1))


def test_finished_files_are_not_decoded_again_and_changed_ones_are(tmp_path, monkeypatch):
    folder = fill(tmp_path / "photos", {f"anna/{n}.jpg": jpeg(photo(n, 40)) for n in range(6)})
    images = finding.find(folder)
    first = cleaning.clean(images, folder, workers=1, workspace=tmp_path / "workspace")
    (folder / "anna" / "3.jpg").write_bytes(b"something else altogether")
    images = finding.find(folder)
    asked: list[str] = []
    examine = examining.examine

    def watched(paths, *rest):
        asked.extend(paths)
        return examine(paths, *rest)

    monkeypatch.setattr(examining, "examine", watched)
    second = cleaning.clean(images, folder, workers=1, workspace=tmp_path / "workspace")
    assert asked == ["anna/3.jpg"]
    assert second["status"].tolist() == ["ok"] * 3 + ["not an image"] + ["ok"] * 2
    pd.testing.assert_frame_equal(
        first.drop(index=3)[["path", "sha256"]], second.drop(index=3)[["path", "sha256"]]
    )


def test_photos_of_two_people_that_swap_places_are_cleaned_again(tmp_path, capsys):
    """Neither size nor date tells them apart; later stages would take one person for the other."""
    data = [encoded(photo(seed), "BMP") for seed in range(2)]
    folder = fill(tmp_path / "photos", {"anna/1.bmp": data[0], "ben/1.bmp": data[1]})
    one, other, aside = (folder / name for name in ("anna/1.bmp", "ben/1.bmp", "aside"))
    for file in (one, other):
        os.utime(file, ns=(10**18, 10**18))
    workspace = tmp_path / "workspace"

    def kept() -> pd.DataFrame:
        return artifacts.cached(
            tmp_path / "clean.parquet", cleaning.clean, finding.find(folder), folder, workers=1
        )

    def resumed() -> pd.DataFrame:
        return cleaning.clean(finding.find(folder), folder, workers=1, workspace=workspace)

    first, first_resumed = kept(), resumed()
    assert kept().equals(first) and "loaded clean.parquet" in capsys.readouterr().out
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    for file in (one, other):
        os.utime(file, ns=(10**18, 10**18))
    second, second_resumed = kept(), resumed()
    assert "computed clean.parquet" in capsys.readouterr().out
    assert second["sha256"].tolist() == first["sha256"].tolist()[::-1]
    assert second_resumed["sha256"].tolist() == first_resumed["sha256"].tolist()[::-1]


def test_a_full_disk_is_one_sentence_and_leaves_no_part(tmp_path, monkeypatch):
    folder = fill(tmp_path / "photos", {"anna/1.jpg": jpeg(photo(0))})

    def full(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="The disk is full: what is cleaned so far") as caught:
        cleaning.clean(finding.find(folder), folder, workers=1, workspace=tmp_path / "workspace")
    assert caught.value.errno == errno.ENOSPC
    assert not list((tmp_path / "workspace").iterdir())


@pytest.mark.parametrize("one_spot", [True, False])
def test_frames_of_one_camera_stay_and_copies_of_them_under_another_person_go(tmp_path, one_spot):
    pictures = frames(1, one_spot, size=(360, 480))
    folder = fill(tmp_path, {path: jpeg(pixels, 80) for path, pixels in pictures.items()})
    images = cleaning.clean(finding.find(folder), folder, workers=2)
    assert (images["status"] == "ok").all()
    assert (images["identity"].value_counts() == 8).all()
    grey = cv2.cvtColor(cv2.cvtColor(pictures["0/0.jpg"], cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    copies = {
        "1/copy.jpg": jpeg(grey, 70),
        "2/copy.jpg": jpeg(pictures["1/1.jpg"][10:-10, 14:-14], 90),
        "3/copy.jpg": jpeg(cv2.resize(pictures["2/2.jpg"], (144, 108), interpolation=cv2.INTER_AREA), 95),
        "4/copy.jpg": jpeg(cv2.resize(pictures["3/3.jpg"], (960, 720)), 30),
        "5/copy.jpg": jpeg(pictures["4/4.jpg"].mean(axis=2).astype(np.uint8), 80),
    }
    fill(folder, copies)
    images = cleaning.clean(finding.find(folder), folder, workers=2).set_index("path")
    conflicts = images.index[images["status"] == "label conflict"]
    assert set(conflicts) == {*copies, "0/0.jpg", "1/1.jpg", "2/2.jpg", "3/3.jpg", "4/4.jpg"}
    assert (images.drop(conflicts)["status"] == "ok").all()
