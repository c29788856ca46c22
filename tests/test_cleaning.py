"""Cleaning: every hostile file gets a status, nothing is changed, nothing ends the run."""

import errno
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tqdm.auto import tqdm

from src import cleaning, dataset


def photo(seed: int, side: int = 160) -> np.ndarray:
    """A picture of soft shapes, unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


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
    "ben/saved again.png": (png(dataset.decode(jpeg(photo(8)))), "duplicate"),
    "ben/stolen.jpg": (jpeg(photo(9)), "label conflict"),
    "cleo/stolen.jpg": (jpeg(photo(9)), "label conflict"),
    "ben/re-encoded.jpg": (jpeg(photo(10)), "label conflict"),
    "cleo/re-encoded.jpg": (jpeg(cv2.resize(photo(10)[4:, 3:], (120, 120)), 80), "label conflict"),
    "cleo/frame 1.jpg": (jpeg(photo(11)), "ok"),
    "cleo/frame 2.jpg": (jpeg(photo(11)[3:-2, 4:]), "ok"),
    "cleo/high_quality/other.jpg": (jpeg(photo(12)), "ok"),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    folder = fill(tmp_path_factory.mktemp("hostile"), {name: data for name, (data, _) in FILES.items()})
    before = state(folder)
    images = dataset.find(folder)
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
    assert len(captions) == 8  # too small, loose, two duplicates, four conflicts


def test_measures_follow_their_definitions():
    grey = np.full((112, 112), 51, np.uint8)
    assert cleaning._measure(grey) == pytest.approx((0, 0.2, 0), abs=1e-6)
    steps = np.random.default_rng(0).integers(0, 256, (112, 112), np.uint8)
    sharpness, brightness, contrast = cleaning._measure(steps)
    assert sharpness == pytest.approx(cv2.Laplacian(steps, cv2.CV_64F).var(), rel=1e-6)
    assert brightness == pytest.approx(steps.mean() / 255)
    assert contrast == pytest.approx((steps / 255).std())
    blurred = cleaning._measure(cv2.GaussianBlur(steps, (0, 0), 1))
    assert blurred[0] < sharpness / 10


def test_hashes_are_those_of_imagehash():
    for seed in range(20):
        luma = cv2.cvtColor(photo(seed), cv2.COLOR_RGB2GRAY)
        ours = imagehash.hex_to_hash(f"{cleaning.phash(cleaning._thumb(luma)[None])[0]:016x}")
        assert ours - imagehash.phash(Image.fromarray(luma)) <= 4


def changed(pixels: np.ndarray, how: str) -> np.ndarray:
    height, width = pixels.shape[:2]
    y, x = round(height * 0.03), round(width * 0.03)
    if how == "re-encoded":
        return dataset.decode(jpeg(pixels, 40))
    if how == "resized":
        return cv2.resize(pixels, (int(width * 0.7), int(height * 0.7)), interpolation=cv2.INTER_AREA)
    if how == "cropped":
        return pixels[y : height - y, x : width - x]
    if how == "cropped at a corner":
        return pixels[: height - y, x:]
    return cv2.convertScaleAbs(pixels, alpha=0.8, beta=20)


@pytest.mark.parametrize("how", ["re-encoded", "resized", "cropped", "cropped at a corner", "lighter"])
def test_near_duplicates_are_proposed_and_confirmed(how):
    seeds = range(60)
    lumas = [cv2.cvtColor(photo(seed), cv2.COLOR_RGB2GRAY) for seed in seeds]
    lumas += [cv2.cvtColor(changed(photo(seed), how), cv2.COLOR_RGB2GRAY) for seed in seeds]
    thumbs = np.stack([cleaning._thumb(luma) for luma in lumas])
    images = pd.DataFrame({"status": "ok", "identity": "anna", "path": ""}, index=range(len(thumbs)))
    groups = cleaning._groups(images, thumbs, cleaning._candidates(images, thumbs))
    assert (groups[:60] == groups[60:]).all()
    assert len(set(groups)) == 60


def test_hashes_that_differ_in_six_bits_are_always_proposed(monkeypatch):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**63, 400, np.uint64)
    near = codes.copy()
    for index in range(len(near)):
        for bit in rng.choice(64, rng.integers(0, 7), replace=False):
            near[index] ^= np.uint64(1) << np.uint64(bit)
    monkeypatch.setattr(cleaning, "_CROPS", [(0, 0, 0, 0)])
    monkeypatch.setattr(cleaning, "phash", lambda *_: np.concatenate([codes, near]))
    images = pd.DataFrame({"status": "ok"}, index=range(800))
    pairs = cleaning._candidates(images, np.zeros((800, 32, 32), np.uint8))
    assert {(index, index + 400) for index in range(400)} <= {tuple(pair) for pair in pairs.tolist()}


def test_the_search_stays_linear_when_all_photos_look_alike(monkeypatch):
    compared = 0
    near = cleaning._near

    def counting(first, *rest):
        nonlocal compared
        compared += len(first)
        return near(first, *rest)

    monkeypatch.setattr(cleaning, "_near", counting)
    base = cv2.cvtColor(photo(0), cv2.COLOR_RGB2GRAY)
    noise = np.random.default_rng(0).integers(-3, 4, (1200, 32, 32))
    thumbs = (cleaning._thumb(base) + noise).clip(0, 255).astype(np.uint8)
    images = pd.DataFrame({"status": "ok", "identity": "anna"}, index=range(len(thumbs)))
    pairs = cleaning._candidates(images, thumbs)
    assert len(pairs) <= cleaning._PAIRS_PER_PHOTO * len(thumbs)
    assert len(pairs) > 2 * cleaning._BATCH  # so that whole batches are linked already
    assert set(cleaning._groups(images, thumbs, pairs)) == {0}
    assert compared < 28 * cleaning._NEIGHBOURS * len(cleaning._CROPS) * len(thumbs)


def test_different_real_photos_are_not_merged_and_crops_are_found(real):
    files = sorted((real / "lfw3d" / "images").rglob("*.*"))[::3]
    pictures = [dataset.read_rgb(file) for file in files]
    lumas = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pictures]
    lumas += [cv2.cvtColor(changed(p, "cropped"), cv2.COLOR_RGB2GRAY) for p in pictures]
    thumbs = np.stack([cleaning._thumb(luma) for luma in lumas])
    images = pd.DataFrame({"status": "ok", "identity": "all", "path": ""}, index=range(len(thumbs)))
    groups = cleaning._groups(images, thumbs, cleaning._candidates(images, thumbs))
    assert (groups[: len(files)] == groups[len(files) :]).all()
    assert len(set(groups)) == len(files)


# ---- what files can do to the run

HOSTILE_DECODER = """
import os, signal, time
import simplejpeg
header = simplejpeg.decode_jpeg_header
def hostile(data, **options):
    if b"CRASH" in data:
        os.kill(os.getpid(), signal.SIGKILL)
    if b"HANG" in data:
        time.sleep(600)
    if b"MEMORY" in data:
        bytearray(10**14)
    return header(data, **options)
simplejpeg.decode_jpeg_header = hostile
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_files_that_crash_hang_or_eat_memory_cost_themselves_only(tmp_path, monkeypatch):
    fill(tmp_path / "site", {"sitecustomize.py": HOSTILE_DECODER.encode()})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))  # workers are new processes and load it
    files = {f"anna/{seed}.jpg": jpeg(photo(seed)) for seed in range(12)}
    for seed, trick in ((3, b"CRASH"), (5, b"HANG"), (7, b"MEMORY"), (9, b"CRASH")):
        files[f"anna/{seed}.jpg"] += trick
    folder = fill(tmp_path / "photos", files)
    images = cleaning.clean(dataset.find(folder), folder, workers=2, seconds_per_file=2).set_index("path")
    bad = images[images["status"] != "ok"]
    assert bad["status"].to_dict() == {
        "anna/3.jpg": "unreadable",
        "anna/5.jpg": "unreadable",
        "anna/7.jpg": "too large",
        "anna/9.jpg": "unreadable",
    }
    reasons = bad["reason"].to_dict()
    assert "crashed" in reasons["anna/3.jpg"]
    assert "more than 2 seconds" in reasons["anna/5.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="pipes, links and permissions of POSIX")
def test_what_is_no_regular_file_is_said_so(tmp_path):
    folder = fill(tmp_path, {"anna/1.jpg": jpeg(photo(0)), "anna/closed.jpg": jpeg(photo(1))})
    os.mkfifo(folder / "anna" / "pipe.jpg")
    (folder / "anna" / "loop").symlink_to(folder)
    (folder / "anna" / "nowhere.jpg").symlink_to("gone")
    (folder / "anna" / "itself.jpg").symlink_to("itself.jpg")
    (folder / "anna" / "linked.jpg").symlink_to("1.jpg")
    (folder / "anna" / "closed.jpg").chmod(0)
    images = cleaning.clean(dataset.find(folder), folder, workers=1).set_index("path")
    status = images["status"].to_dict()
    closed = status.pop("anna/closed.jpg")
    assert closed == ("ok" if os.geteuid() == 0 else "unreadable")  # root may read anything
    assert status == {
        "anna/1.jpg": "ok",
        "anna/itself.jpg": "unreadable",
        "anna/linked.jpg": "duplicate",
        "anna/loop": "not an image",
        "anna/nowhere.jpg": "unreadable",
        "anna/pipe.jpg": "not an image",
    }


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_workers_that_are_killed_from_outside_cost_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(cleaning, "_CHUNK_FILES", 5)
    folder = fill(tmp_path, {f"p{n % 5}/{n}.jpg": jpeg(photo(n, 40)) for n in range(300)})
    images = dataset.find(folder)
    killed: list[int | None] = []
    restore = tqdm.update

    def disturb(bar, count):
        if bar.n > 80 and not killed:
            for worker in multiprocessing.active_children():
                worker.kill()
                killed.append(worker.pid)
        return restore(bar, count)

    monkeypatch.setattr(tqdm, "update", disturb)
    disturbed = cleaning.clean(images, folder, workers=1)
    assert killed
    pd.testing.assert_frame_equal(disturbed, cleaning.clean(images, folder, workers=2))


KILLED = """
import sys
from pathlib import Path
from src import cleaning, dataset
if __name__ == "__main__":
    cleaning._SAVE_EVERY, cleaning._CHUNK_FILES = 0.0, 3
    folder, workspace = map(Path, sys.argv[1:])
    cleaning.clean(dataset.find(folder), folder, workers=1, workspace=workspace)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_run_goes_on_and_ends_in_the_same_table(tmp_path):
    folder = fill(tmp_path / "photos", {f"p{n % 7}/{n}.jpg": jpeg(photo(n, 40)) for n in range(400)})
    images = dataset.find(folder)
    workspace = tmp_path / "workspace"
    script = fill(tmp_path, {"killed.py": KILLED.encode()}) / "killed.py"
    root = str(Path(__file__).parents[1])
    run = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(workspace)],
        env=os.environ | {"PYTHONPATH": root},
        stderr=subprocess.DEVNULL,
        cwd=root,
    )
    while len(list(workspace.glob("*.parquet"))) < 3:
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    finished = sum(len(pd.read_parquet(part)) for part in workspace.glob("*.parquet"))
    assert 0 < finished < len(images)
    (workspace / "99999.unfinished").write_bytes(b"half a table")
    resumed = cleaning.clean(images, folder, workers=2, workspace=workspace)
    pd.testing.assert_frame_equal(resumed, cleaning.clean(images, folder, workers=1))


def test_finished_files_are_not_decoded_again_and_changed_ones_are(tmp_path, monkeypatch):
    folder = fill(tmp_path / "photos", {f"anna/{n}.jpg": jpeg(photo(n, 40)) for n in range(6)})
    images = dataset.find(folder)
    first = cleaning.clean(images, folder, workers=1, workspace=tmp_path / "workspace")
    (folder / "anna" / "3.jpg").write_bytes(b"something else altogether")
    images = dataset.find(folder)
    asked: list[str] = []
    run = cleaning._run

    def watched(images, chunks, *rest):
        chunks = list(chunks)
        asked.extend(images["path"].iloc[position] for chunk in chunks for position in chunk)
        return run(images, iter(chunks), *rest)

    monkeypatch.setattr(cleaning, "_run", watched)
    second = cleaning.clean(images, folder, workers=1, workspace=tmp_path / "workspace")
    assert asked == ["anna/3.jpg"]
    assert second["status"].tolist() == ["ok"] * 3 + ["not an image"] + ["ok"] * 2
    pd.testing.assert_frame_equal(
        first.drop(index=3)[["path", "sha256"]], second.drop(index=3)[["path", "sha256"]]
    )


def test_a_full_disk_is_one_sentence_and_leaves_no_part(tmp_path, monkeypatch):
    folder = fill(tmp_path / "photos", {"anna/1.jpg": jpeg(photo(0))})

    def full(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="is full: free some space") as caught:
        cleaning.clean(dataset.find(folder), folder, workers=1, workspace=tmp_path / "workspace")
    assert caught.value.errno == errno.ENOSPC
    assert not list((tmp_path / "workspace").iterdir())
