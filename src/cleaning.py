"""Opens every file to its last byte and says which are usable: status, quality measures, duplicates, groups.

A file that is not usable keeps its row, and its `status` and `reason` say why. Nothing is ever moved or deleted.
"""

import hashlib
import multiprocessing
import os
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from pebble import ProcessExpired, ProcessFuture, ProcessPool
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

from src import dataset

MINIMUM_SIDE = 16  # px; below it there is no face to recognise
MAXIMUM_BYTES = 512 * 2**20  # no photo has a file of this size; it is not even read
SECONDS_PER_FILE = 60.0  # a file that takes longer is set aside
MEMORY_PER_WORKER = 4 * 2**30  # bytes above what the worker starts with; Linux only

SHARPNESS_SIDE = 112  # px: the size the recogniser sees
THUMB = 32  # px: what hashes are computed from

_CHUNK_FILES, _CHUNK_BYTES = 256, 32 * 2**20
_SAVE_EVERY = 10.0  # seconds of work that may be lost when the run is killed


@dataclass(frozen=True)
class _Limits:
    minimum_side: int
    maximum_pixels: int


def clean(
    images: pd.DataFrame,
    folder: Path,
    minimum_side: int = MINIMUM_SIDE,
    maximum_pixels: int = dataset.MAXIMUM_PIXELS,
    workers: int | None = None,
    seconds_per_file: float = SECONDS_PER_FILE,
    workspace: Path | None = None,
) -> pd.DataFrame:
    """Decodes every file of `dataset.find`'s table fully, in `workers` processes (default: one per core).

    Returns the table, row by row, with new columns:

    - `width`, `height` (px, upright; 0 where unknown), `sha256` of the file's bytes ("" where it was not read);
    - `status`: "ok", or why the file is set aside, with a sentence in `reason`: "unreadable", "truncated",
      "not an image", "system file", "no person" (outside every person's folder), "too small" (shorter side below
      `minimum_side` px), "too large" (more than `maximum_pixels`), "duplicate" (of `duplicate_of`, by bytes or by decoded
      pixels), "label conflict" (the same photo under two people: both are set aside);
    - `phash`: 64-bit perceptual hash as 16 hex digits, as ImageHash's `phash` defines it;
    - `sharpness`: variance of the Laplacian (Pech-Pacheco et al., ICPR 2000) of the luma at 112 x 112 px, 0-255 scale;
      `brightness`: mean luma, 0-1; `contrast`: RMS contrast (Peli, JOSA A 1990), the luma's standard deviation, 0-1;
    - `quality_source`: "folder" where a folder's name gave `quality`, "measured" where `measured_quality` filled it in;
    - `group`: near-duplicates share a number; -1 where set aside.

    No file can end the run: one that kills its process, or takes longer than `seconds_per_file`, is "unreadable".
    Finished files are kept in `workspace`; an interrupted run goes on from there and ends in the same table.
    """
    folder, limits = Path(folder), _Limits(minimum_side, maximum_pixels)
    with tempfile.TemporaryDirectory() as temporary:
        parts = Path(workspace or temporary)
        parts.mkdir(parents=True, exist_ok=True)
        measured = _examine_all(
            images, folder, limits, workers or os.cpu_count() or 1, seconds_per_file, parts
        )
    images = images.reset_index(drop=True).join(measured)
    images["duplicate_of"] = ""
    _set_aside_copies(images, "sha256", "bytes")
    _set_aside_copies(images, "pixels", "pixels")
    images["group"] = _groups(images)
    _fill_quality(images)
    return images.drop(columns=["pixels", "thumb"])


# ---------------------------------------------------------------------------------------------------------------------
# One file


_EMPTY: dict[str, object] = {
    "width": 0, "height": 0, "sha256": "", "status": "ok", "reason": "", "pixels": "", "phash": "",
    "sharpness": np.nan, "brightness": np.nan, "contrast": np.nan, "thumb": b"",
}  # fmt: skip

_TYPES = {
    "width": "int64",
    "height": "int64",
    "sharpness": "float64",
    "brightness": "float64",
    "contrast": "float64",
}


def _examine(path: str, folder: str, limits: _Limits) -> dict[str, object]:
    """The row of one file, without its hash. Raises nothing: whatever goes wrong becomes the row's status."""
    row = dict(_EMPTY)
    try:
        data = _read(os.path.join(folder, path))  # noqa: PTH118 - 100,000 Path objects cost seconds
        row["sha256"] = hashlib.sha256(data).hexdigest()
        if dataset.is_system_file(path):
            raise dataset.UnusableImage("system file", "a hidden file, or one that a system left behind")
        pixels = dataset.decode(data, limits.maximum_pixels)
        height, width = pixels.shape[:2]
        row["width"], row["height"] = width, height
        if min(width, height) < limits.minimum_side:
            reason = f"{width} x {height} px; the shorter side must have {limits.minimum_side}"
            raise dataset.UnusableImage("too small", reason)
        if "/" not in path:
            raise dataset.UnusableImage("no person", "the file lies in no person's folder")
        row["pixels"] = f"{width}x{height} {hashlib.sha256(pixels).hexdigest()}"
        row.update(_measure(dataset.luma(pixels)))
    except dataset.UnusableImage as error:
        row["status"], row["reason"] = error.status, error.reason
    except MemoryError:
        row["status"], row["reason"] = "too large", "there is not enough memory to decode it"
    except Exception as error:  # whatever a decoder comes up with
        row["status"], row["reason"] = "unreadable", str(error) or type(error).__name__
    return row


def _read(path: str) -> bytes:
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to would wait forever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise dataset.UnusableImage("unreadable", _why_not_opened(path, error)) from error
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            folder = stat.S_ISDIR(status.st_mode)
            reason = (
                "a link back to a folder above it" if folder else "not a regular file but a pipe or a device"
            )
            raise dataset.UnusableImage("not an image", reason)
        if status.st_size > MAXIMUM_BYTES:
            raise dataset.UnusableImage(
                "too large", f"a file of {status.st_size / 2**20:,.0f} MiB is not read"
            )
        return file.read(status.st_size)


def _why_not_opened(path: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "permission denied"
    if os.path.islink(path):
        return "a link that leads nowhere"
    if isinstance(error, FileNotFoundError):
        return "no such file: it has gone since the folder was listed, or its name is not valid Unicode"
    return error.strerror or str(error)


def _measure(luma: np.ndarray) -> dict[str, object]:
    mean, deviation = cv2.meanStdDev(luma)
    square = cv2.resize(luma, (SHARPNESS_SIDE, SHARPNESS_SIDE), interpolation=cv2.INTER_AREA)
    _, edges = cv2.meanStdDev(cv2.Laplacian(square, cv2.CV_16S))
    thumb = cv2.resize(luma, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    return {
        "sharpness": float(edges[0, 0] ** 2),
        "brightness": float(mean[0, 0] / 255),
        "contrast": float(deviation[0, 0] / 255),
        "thumb": thumb.tobytes(),
    }


# Rows are the lowest eight frequencies of a DCT-II over a thumbnail's side; a common factor does not change a hash.
_DCT = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(THUMB) + 1) / (2 * THUMB)).astype(np.float32)


def _phash(thumbs: np.ndarray) -> np.ndarray:
    """Hashes uint8 `[N, 32, 32]` luma thumbnails to uint64 `[N]`: which of the 8 x 8 lowest frequencies exceed the median."""
    frequencies = (_DCT @ thumbs.astype(np.float32) @ _DCT.T).reshape(len(thumbs), 64)
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


# ---------------------------------------------------------------------------------------------------------------------
# All files


def _examine_chunk(paths: list[str], folder: str, limits: _Limits) -> list[dict[str, object]]:
    rows = [_examine(path, folder, limits) for path in paths]
    with_thumb = [row for row in rows if row["thumb"]]
    if with_thumb:
        thumbs = np.frombuffer(b"".join(row["thumb"] for row in with_thumb), np.uint8).reshape(
            -1, THUMB, THUMB
        )  # type: ignore[misc]
        for row, code in zip(with_thumb, _phash(thumbs), strict=True):
            row["phash"] = f"{code:016x}"
    return rows


def _start_worker(memory: int) -> None:
    cv2.setNumThreads(1)
    if sys.platform == "linux":
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, resource.RLIM_INFINITY))
    parent = multiprocessing.parent_process()
    if parent is not None:  # a worker must not outlive a killed notebook
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _examine_all(
    images: pd.DataFrame, folder: Path, limits: _Limits, workers: int, seconds: float, parts: Path
) -> pd.DataFrame:
    """Measures of every row, from the finished `parts` where they have it, in the order of `images`."""
    done = _finished(parts, images)
    todo = images[~images["path"].isin(done["path"])]
    rows: list[dict[str, object]] = []
    fresh: list[pd.DataFrame] = []
    saved = time.monotonic()

    def save() -> None:
        nonlocal rows, saved
        if rows:
            part = pd.DataFrame(rows).merge(todo[["path", "bytes", "modified_ns"]], on="path")
            place = parts / f"{part['path'].iloc[0].__hash__() & 0xFFFFFFFF:08x}-{time.time_ns()}.parquet"
            part.to_parquet(place.with_suffix(".unfinished"), index=False)
            place.with_suffix(".unfinished").replace(place)
            fresh.append(part)
        rows, saved = [], time.monotonic()

    with tqdm(total=len(images), initial=len(done), desc="cleaning", unit=" images") as bar:
        for chunk, results in _run(_chunks(todo), str(folder), limits, workers, seconds):
            rows.extend({"path": path, **row} for path, row in zip(chunk, results, strict=True))
            bar.update(len(chunk))
            if time.monotonic() - saved > _SAVE_EVERY:
                save()
        save()
    measured = pd.concat([done, *fresh]).drop(columns=["bytes", "modified_ns"])
    return images[["path"]].merge(measured, on="path", how="left").drop(columns="path").astype(_TYPES)


def _finished(parts: Path, images: pd.DataFrame) -> pd.DataFrame:
    """Rows that an interrupted run left, as far as their files are still the same."""
    found = [pd.read_parquet(part) for part in sorted(parts.glob("*.parquet"))]
    empty = pd.DataFrame(columns=["path", *_EMPTY, "bytes", "modified_ns"])
    rows = pd.concat(found or [empty], ignore_index=True).drop_duplicates("path", keep="last")
    return rows.merge(images[["path", "bytes", "modified_ns"]], on=["path", "bytes", "modified_ns"])


def _chunks(todo: pd.DataFrame) -> Iterator[list[str]]:
    chunk: list[str] = []
    total = 0
    for path, size in zip(todo["path"], todo["bytes"], strict=True):
        if chunk and (len(chunk) == _CHUNK_FILES or total + size > _CHUNK_BYTES):
            yield chunk
            chunk, total = [], 0
        chunk.append(path)
        total += size
    if chunk:
        yield chunk


def _run(
    chunks: Iterator[list[str]], folder: str, limits: _Limits, workers: int, seconds: float
) -> Iterator[tuple[list[str], list[dict[str, object]]]]:
    """Examines chunks in worker processes, in any order. A chunk that kills its worker is taken again file by file."""
    pool = ProcessPool(
        workers,
        initializer=_start_worker,
        initargs=(MEMORY_PER_WORKER,),
        context=multiprocessing.get_context("spawn"),
    )
    running: dict[ProcessFuture, list[str]] = {}
    singly: list[list[str]] = []
    try:
        while True:
            while (
                len(running) < 3 * workers
            ):  # enough to keep workers busy, little enough to keep memory flat
                chunk = singly.pop() if singly else next(chunks, None)
                if chunk is None:
                    break
                future = pool.schedule(_examine_chunk, args=(chunk, folder, limits), timeout=seconds)
                running[future] = chunk
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                chunk = running.pop(future)
                try:
                    yield chunk, future.result()
                except (TimeoutError, ProcessExpired) as error:
                    if len(chunk) > 1:
                        singly.extend([path] for path in chunk)
                        continue
                    if isinstance(error, ProcessExpired):
                        reason = f"its decoder crashed the process (exit code {error.exitcode})"
                    else:
                        reason = f"decoding took more than {seconds:g} seconds"
                    yield chunk, [{**_EMPTY, "status": "unreadable", "reason": reason}]
    finally:
        pool.stop()
        pool.join()


# ---------------------------------------------------------------------------------------------------------------------
# Duplicates and groups


def _set_aside_copies(images: pd.DataFrame, key: str, what: str) -> None:
    """Among usable rows with the same `key`: one person's first stays, several people's are all set aside."""
    usable = images[images["status"] == "ok"]
    for _, copies in usable[usable.duplicated(key, keep=False)].groupby(key, sort=False):
        people = sorted(copies["identity"].unique())
        if len(people) > 1:
            images.loc[copies.index, "status"] = "label conflict"
            images.loc[copies.index, "reason"] = f"the same {what} under {', '.join(people)}"
        else:
            first, others = copies["path"].iloc[0], copies.index[1:]
            images.loc[others, "status"] = "duplicate"
            images.loc[others, "reason"] = f"the same {what} as {first}"
            images.loc[others, "duplicate_of"] = first


def _groups(images: pd.DataFrame) -> np.ndarray:
    usable = images.index[images["status"] == "ok"].to_numpy()
    groups = np.full(len(images), -1, np.int64)
    codes = np.array([int(code, 16) for code in images.loc[usable, "phash"]], np.uint64)
    people = pd.factorize(images.loc[usable, "identity"])[0]
    first, second = [], []
    for band in range(4):
        key = (codes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.lexsort((key, people))
        for step in (1, 2, 3):
            a, b = order[:-step], order[step:]
            near = (people[a] == people[b]) & (np.bitwise_count(codes[a] ^ codes[b]) <= 6)
            first.append(a[near])
            second.append(b[near])
    a, b = np.concatenate(first), np.concatenate(second)
    links = coo_array((np.ones(len(a)), (a, b)), shape=(len(usable), len(usable)))
    groups[usable] = connected_components(links, directed=False)[1]
    return groups


# ---------------------------------------------------------------------------------------------------------------------
# Quality and summaries


def _fill_quality(images: pd.DataFrame) -> None:
    labelled = images["quality"] != "unknown"
    images["quality_source"] = np.where(labelled, "folder", "measured")
    fill = ~labelled & (images["status"] == "ok")
    images.loc[fill, "quality"] = measured_quality(images[fill])


def measured_quality(images: pd.DataFrame) -> pd.Series:
    """ "low" for photos that are small or blurred, else "high"."""
    small = images[["width", "height"]].min(axis=1) < 80
    blurred = images["sharpness"] < 100
    return pd.Series(np.where(small | blurred, "low", "high"), index=images.index)


def summary(images: pd.DataFrame) -> pd.DataFrame:
    """Counts of files by person and quality (rows) and status (columns), with their sum."""
    counts = pd.crosstab([images["identity"], images["quality"]], images["status"])
    first = ["ok"] if "ok" in counts else []
    counts = counts[first + [status for status in counts if status != "ok"]]
    return counts.assign(files=counts.sum(axis=1))


def set_aside(images: pd.DataFrame) -> pd.DataFrame:
    """The rows that are not used: path, identity, quality, status, reason, duplicate_of."""
    columns = ["path", "identity", "quality", "status", "reason", "duplicate_of"]
    return images.loc[images["status"] != "ok", columns].reset_index(drop=True)
