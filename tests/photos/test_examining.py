"""Worker processes: what hostile files can do to them costs these files only."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.photos import decoding, examining, finding
from src.photos.examining import Limits, Row
from tests.photos.samples import encoded, fill, jpeg, photo


def examined(
    folder: Path,
    workers: int = 1,
    seconds: float = 60,
    after_each: Callable[[dict[str, Row]], None] = lambda rows: None,
) -> dict[str, Row]:
    images = finding.find(folder)
    paths, sizes = images["path"].tolist(), images["bytes"].tolist()
    rows: dict[str, Row] = {}
    for positions, found, thumbs in examining.examine(
        paths, sizes, folder, Limits(16, decoding.MAXIMUM_PIXELS), seconds, workers
    ):
        assert thumbs.shape == (len(positions), 32, 32) and thumbs.dtype == np.uint8
        assert not rows.keys() & {paths[position] for position in positions}
        rows |= {paths[position]: row for position, row in zip(positions, found, strict=True)}
        after_each(rows)
    return rows


def test_measures_follow_their_definitions():
    grey = np.full((112, 112), 51, np.uint8)
    assert examining._measures(grey) == pytest.approx((0, 0.2, 0), abs=1e-6)
    steps = np.random.default_rng(0).integers(0, 256, (112, 112), np.uint8)
    sharpness, brightness, contrast = examining._measures(steps)
    assert sharpness == pytest.approx(cv2.Laplacian(steps, cv2.CV_64F).var(), rel=1e-6)
    assert brightness == pytest.approx(steps.mean() / 255)
    assert contrast == pytest.approx((steps / 255).std())
    blurred = examining._measures(cv2.GaussianBlur(steps, (0, 0), 1))
    assert blurred[0] < sharpness / 10


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
    rows = examined(fill(tmp_path / "photos", files), workers=2, seconds=2)
    assert len(rows) == len(files)
    assert {path: row.status for path, row in rows.items() if row.status != "ok"} == {
        "anna/3.jpg": "unreadable",
        "anna/5.jpg": "unreadable",
        "anna/7.jpg": "too large",
        "anna/9.jpg": "unreadable",
    }
    assert "crashed" in rows["anna/3.jpg"].reason
    assert "more than 2 seconds" in rows["anna/5.jpg"].reason


@pytest.mark.skipif(os.name == "nt", reason="pipes, links and permissions of POSIX")
def test_what_is_no_regular_file_is_said_so(tmp_path):
    folder = fill(tmp_path, {"anna/1.jpg": jpeg(photo(0)), "anna/closed.jpg": jpeg(photo(1))})
    os.mkfifo(folder / "anna" / "pipe.jpg")
    (folder / "anna" / "loop").symlink_to(folder)
    (folder / "anna" / "nowhere.jpg").symlink_to("gone")
    (folder / "anna" / "itself.jpg").symlink_to("itself.jpg")
    (folder / "anna" / "linked.jpg").symlink_to("1.jpg")
    (folder / "anna" / "closed.jpg").chmod(0)
    status = {path: row.status for path, row in examined(folder).items()}
    closed = status.pop("anna/closed.jpg")
    assert closed == ("ok" if os.geteuid() == 0 else "unreadable")  # root may read anything
    assert status == {
        "anna/1.jpg": "ok",
        "anna/itself.jpg": "unreadable",
        "anna/linked.jpg": "ok",
        "anna/loop": "not an image",
        "anna/nowhere.jpg": "unreadable",
        "anna/pipe.jpg": "not an image",
    }


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_workers_that_are_killed_from_outside_cost_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(examining, "_CHUNK_FILES", 5)
    folder = fill(tmp_path, {f"p{n % 5}/{n}.jpg": jpeg(photo(n, 40)) for n in range(300)})
    expected = examined(folder, workers=2)
    killed: list[int | None] = []

    def kill(rows):
        if len(rows) > 80 and not killed:
            for worker in multiprocessing.active_children():
                worker.kill()
                killed.append(worker.pid)

    disturbed = examined(folder, workers=1, after_each=kill)
    assert killed
    assert len(disturbed) == 300 and disturbed == expected


def test_a_row_says_what_is_odd_and_how_it_was_read(tmp_path):
    whole = jpeg(photo(0))
    place = whole.index(b"\xff\xdb")
    few = encoded((photo(1)[:, :, 0].astype(np.uint16) * 16), "PNG")
    hidden = encoded(np.dstack([photo(2), np.zeros((160, 160), np.uint8)]), "PNG")
    files = {
        "anna/usual.jpg": whole,
        "anna/warned.jpg": whole[:place] + b"\0\0\0" + whole[place:],
        "anna/12 bits.png": few,
        "anna/hidden.png": hidden,
        "anna/phone.heic": encoded(photo(3), "HEIF"),
        "anna/video.mp4": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(100),
    }
    rows = examined(fill(tmp_path, files))
    assert {path: row.status for path, row in rows.items()} == {
        path: "ok" if path != "anna/video.mp4" else "not supported" for path in files
    }
    assert rows["anna/usual.jpg"].reason == rows["anna/phone.heic"].reason == ""
    assert "libjpeg warns" in rows["anna/warned.jpg"].reason
    assert "white is taken to be 4,095" in rows["anna/12 bits.png"].reason
    assert "transparent" in rows["anna/hidden.png"].reason
    assert "a video (MP4)" in rows["anna/video.mp4"].reason
    assert rows["anna/warned.jpg"][5:] == rows["anna/usual.jpg"][5:]
    assert rows["anna/12 bits.png"].contrast > 0.1 and rows["anna/phone.heic"].width == 160


def test_a_long_video_is_called_one_without_being_read(tmp_path):
    folder = fill(
        tmp_path, {"anna/long.mp4": b"\0\0\0\x18ftypisom\0\0\2\0isommp41", "anna/long.jpg": b"\xff\xd8\xff"}
    )
    for file in folder.glob("anna/*"):
        os.truncate(file, examining.MAXIMUM_BYTES + 1)
    rows = examined(folder)
    assert rows["anna/long.mp4"].status == "not supported" and "video" in rows["anna/long.mp4"].reason
    assert rows["anna/long.jpg"].status == "too large"


def test_two_hundred_million_pixels_fit_into_a_worker(tmp_path):
    flat = cv2.imencode(".jpg", np.full((12_288, 16_384), 90, np.uint8))[1].tobytes()
    row = examined(fill(tmp_path, {"anna/1.jpg": flat}))["anna/1.jpg"]
    assert (row.status, row.width, row.height) == ("ok", 16_384, 12_288)


def test_portions_hold_few_large_or_many_small_files(monkeypatch):
    monkeypatch.setattr(examining, "_CHUNK_FILES", 3)
    monkeypatch.setattr(examining, "_CHUNK_BYTES", 100)
    assert list(examining._chunks([10, 10, 10, 10, 95, 200, 5])) == [[0, 1, 2], [3], [4], [5], [6]]
    assert list(examining._chunks([])) == []


def test_workers_import_little():
    """Each imports the module anew: what it does not need costs time and memory once per process."""
    heavy = {"torch", "onnx", "onnxruntime", "insightface", "matplotlib", "scipy", "sklearn"}
    code = f"import sys, src.photos.examining; print(*{heavy} & set(sys.modules))"
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.split() == []
