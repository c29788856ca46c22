"""Opens every file to its last byte and says which are usable: status, quality measures, duplicates, groups.

A file that is not usable keeps its row: `status` and `reason` say why. Nothing is ever moved or deleted.
"""

import errno
import hashlib
import itertools
import multiprocessing
import os
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from pebble import ProcessExpired, ProcessPool
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

from src import dataset

MINIMUM_SIDE = 16  # px; below it there is no face to recognise
MAXIMUM_BYTES = 512 * 2**20  # no photo is a file of this size; it is not even read
SECONDS_PER_FILE = 60.0  # a file that takes longer to decode is set aside
MEMORY_PER_WORKER = 4 * 2**30  # bytes above what a worker starts with; enforced on Linux only

# A photo without a quality label is "low" below either: the recogniser sees 112 x 112 px, smaller photos
# are enlarged.
LOW_SIDE, LOW_SHARPNESS = 112, 200.0

# Near-duplicates, measured with benchmarks/near_duplicates.py: correlation of aligned thumbnails, and for
# the graver verdict across people also the largest difference of a thumbnail's pixels, in grey levels.
SAME_PERSON_CORRELATION = 0.985
ACROSS_PEOPLE_CORRELATION, ACROSS_PEOPLE_DIFFERENCE = 0.995, 20.0

SHARPNESS_SIDE = 112  # px
THUMB = 32  # px, side of the luma thumbnails that hashes and near-duplicates are computed from

_BATCH = 256  # thumbnails, or pairs of them, worked on at once
_CHUNK_FILES, _CHUNK_BYTES = 256, 32 * 2**20
_SECONDS_TO_START = 120.0
_SAVE_EVERY = 10.0  # seconds of work that are lost at most when the run is killed


def clean(
    images: pd.DataFrame,
    folder: Path,
    minimum_side: int = MINIMUM_SIDE,
    maximum_pixels: int = dataset.MAXIMUM_PIXELS,
    seconds_per_file: float = SECONDS_PER_FILE,
    workers: int | None = None,
    workspace: Path | None = None,
) -> pd.DataFrame:
    """Decodes every file of `dataset.find`'s table fully, in `workers` processes (one per core unless given).

    Returns the table, row by row, with these columns added:

    - `width`, `height`: px, of the upright photo; 0 where unknown;
    - `sha256` of the file's bytes; "" where it could not be read;
    - `status`: "ok", or why the file is set aside, with a sentence in `reason`: "unreadable", "truncated",
      "not an image", "system file", "no person" (outside every person's folder), "too small" (shorter side
      below `minimum_side` px), "too large" (more than `maximum_pixels`; not decoded), "duplicate" (by bytes
      or by decoded pixels, of the file in `duplicate_of`), "label conflict" (the same photo under two
      people: all its copies are set aside);
    - `phash`: 64-bit perceptual hash in 16 hex digits, as ImageHash's `phash` defines and `hex_to_hash`
      reads it;
    - `sharpness`: variance of the Laplacian (Pech-Pacheco et al., ICPR 2000) of the luma at 112 x 112 px,
      0-255 scale; `brightness`: mean luma, 0-1; `contrast`: RMS contrast (Peli, JOSA A 1990), standard
      deviation of the luma, 0-1;
    - `quality_source`: "folder" where a folder's name gave `quality`, "measured" where `measured_quality`
      filled it in, "" where the file is set aside and has none;
    - `group`: near-duplicates of one person share a number; -1 where set aside.

    No file ends the run: one whose decoder crashes, takes more than `seconds_per_file`, or asks for too
    much memory gets a status. Finished files are kept in `workspace`, and an interrupted run goes on from
    there to the identical table. The folder is only read. Raises OSError with one sentence where the disk
    is full.
    """
    if workspace is None:
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary)
            return clean(images, folder, minimum_side, maximum_pixels, seconds_per_file, workers, place)
    workspace.mkdir(parents=True, exist_ok=True)
    folder, limits = Path(folder), _Limits(minimum_side, maximum_pixels)
    images = images.reset_index(drop=True)
    workers = workers or os.cpu_count() or 1
    rows, thumbs = _examine_all(images, folder, limits, seconds_per_file, workers, workspace)
    images = images.join(pd.DataFrame(rows, columns=list(_Row._fields)))
    usable = (images["status"] == "ok").to_numpy()
    images["phash"] = ""
    images.loc[usable, "phash"] = [f"{code:016x}" for code in phash(thumbs[usable])]
    images["duplicate_of"] = ""
    _set_aside_copies(images, images["sha256"], "file")
    candidates = _candidates(images, thumbs)
    _set_aside_copies(images, _pixel_digests(images, folder, thumbs, candidates), "picture")
    _set_aside_conflicts(images, thumbs, candidates)
    images["group"] = _groups(images, thumbs, candidates)
    _fill_quality(images)
    return images


# --------------------------------------------------------------------------------------------------------
# One file


@dataclass(frozen=True)
class _Limits:
    minimum_side: int
    maximum_pixels: int


class _Row(NamedTuple):
    width: int = 0
    height: int = 0
    sha256: str = ""
    status: str = "ok"
    reason: str = ""
    sharpness: float = np.nan
    brightness: float = np.nan
    contrast: float = np.nan


def _examine(path: str, folder: str, limits: _Limits) -> tuple[_Row, np.ndarray | None]:
    """The row of one file and its thumbnail. Raises nothing: what is wrong with the file becomes its row's
    status."""
    sha256, width, height = "", 0, 0
    try:
        data = _read(f"{folder}/{path}")
        sha256 = hashlib.sha256(data).hexdigest()
        if dataset.is_system_file(path):
            raise dataset.UnusableImage("system file", "a hidden file, or one that a system leaves behind")
        luma = dataset.decode_luma(data, limits.maximum_pixels)
        height, width = luma.shape
        if min(width, height) < limits.minimum_side:
            reason = f"{width} x {height} px; the shorter side must have at least {limits.minimum_side}"
            raise dataset.UnusableImage("too small", reason)
        if "/" not in path:
            raise dataset.UnusableImage("no person", "the file lies in no person's folder")
        return _Row(width, height, sha256, "ok", "", *_measure(luma)), _thumb(luma)
    except dataset.UnusableImage as error:
        return _Row(width, height, sha256, error.status, error.reason), None
    except MemoryError:
        return _Row(width, height, sha256, "too large", "there is not enough memory to decode it"), None
    except Exception as error:  # whatever a decoder comes up with
        return _Row(width, height, sha256, "unreadable", str(error) or type(error).__name__), None


# O_NONBLOCK: opening a pipe that nobody writes to would wait forever. Windows has neither it nor text files
# without O_BINARY.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


def _read(path: str) -> bytes:
    try:
        file = os.open(path, _FLAGS)
    except OSError as error:
        raise dataset.UnusableImage(*_why_not_opened(Path(path), error)) from error
    try:
        status = os.fstat(file)
        if stat.S_ISDIR(status.st_mode):
            raise dataset.UnusableImage("not an image", "a link back to a folder above it")
        if not stat.S_ISREG(status.st_mode):
            raise dataset.UnusableImage("not an image", "not a regular file but a pipe or a device")
        if status.st_size > MAXIMUM_BYTES:
            size = f"{status.st_size / 2**20:,.0f} MiB"
            raise dataset.UnusableImage("too large", f"a file of {size} is not read")
        data = os.read(file, status.st_size)
        while len(data) < status.st_size and (more := os.read(file, status.st_size - len(data))):
            data += more
        return data
    finally:
        os.close(file)


def _why_not_opened(path: Path, error: OSError) -> tuple[str, str]:
    if isinstance(error, PermissionError):
        kind = "folder" if path.is_dir() else "file"
        return "unreadable", f"no permission to open this {kind}"
    if error.errno == errno.ENXIO:
        return "not an image", "not a regular file but a socket or a device"
    if path.is_symlink():
        return "unreadable", "a link that leads nowhere, or to itself"
    if isinstance(error, FileNotFoundError):
        return (
            "unreadable",
            "no such file: it has gone since the folder was listed, or its name is not valid Unicode",
        )
    return "unreadable", error.strerror or str(error)


def _measure(luma: np.ndarray) -> tuple[float, float, float]:
    """Sharpness, brightness and contrast of uint8 luma `[H, W]`."""
    mean, deviation = cv2.meanStdDev(luma)
    square = cv2.resize(luma, (SHARPNESS_SIDE, SHARPNESS_SIDE), interpolation=cv2.INTER_AREA)
    edges = cv2.Laplacian(square, cv2.CV_16S)
    # The variance by hand: cv2.meanStdDev takes longer for 16 bits than all else together.
    variance = cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - cv2.mean(edges)[0] ** 2
    return variance, float(mean[0, 0]) / 255, float(deviation[0, 0]) / 255


def _thumb(luma: np.ndarray) -> np.ndarray:
    return cv2.resize(luma, (THUMB, THUMB), interpolation=cv2.INTER_AREA)


# --------------------------------------------------------------------------------------------------------
# All files


def _examine_all(
    images: pd.DataFrame, folder: Path, limits: _Limits, seconds: float, workers: int, parts: Path
) -> tuple[list[_Row], np.ndarray]:
    """Rows, and thumbnails uint8 `[N, 32, 32]` (black where there is none), in the order of `images`.

    What an interrupted run left in `parts` is taken from there, as far as the files are still the same.
    """
    rows: list[_Row | None] = [None] * len(images)
    thumbs = np.zeros((len(images), THUMB, THUMB), np.uint8)
    finished = sorted(parts.glob("*.parquet"))
    for part in finished:
        _restore(part, images, rows, thumbs)
    todo = [position for position, row in enumerate(rows) if row is None]
    names = (parts / f"{number:05d}.parquet" for number in itertools.count(len(finished)))
    unsaved: list[int] = []
    saved = time.monotonic()
    with tqdm(total=len(images), initial=len(images) - len(todo), desc="cleaning", unit=" images") as bar:
        chunks = _chunks(images, todo)
        for chunk, chunk_rows, chunk_thumbs in _run(images, chunks, str(folder), limits, seconds, workers):
            for position, row in zip(chunk, chunk_rows, strict=True):
                rows[position] = row
            thumbs[chunk] = chunk_thumbs
            unsaved += chunk
            bar.update(len(chunk))
            if time.monotonic() - saved > _SAVE_EVERY:
                _save(next(names), images, unsaved, rows, thumbs)
                unsaved, saved = [], time.monotonic()
    if unsaved:
        _save(next(names), images, unsaved, rows, thumbs)
    return [row for row in rows if row is not None], thumbs


_KEY = ["path", "bytes", "modified_ns"]


def _save(
    part: Path, images: pd.DataFrame, positions: list[int], rows: list[_Row | None], thumbs: np.ndarray
) -> None:
    table = pd.DataFrame([rows[position] for position in positions], columns=list(_Row._fields))
    table[_KEY] = images[_KEY].iloc[positions].to_numpy()
    table["thumb"] = [thumbs[position].tobytes() for position in positions]
    unfinished = part.with_suffix(".unfinished")
    try:
        table.to_parquet(unfinished, index=False)
        unfinished.replace(part)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        unfinished.unlink(missing_ok=True)
        message = (
            f"The disk that holds {part.parent} is full: free some space and run again, nothing is lost."
        )
        raise OSError(errno.ENOSPC, message) from error


def _restore(part: Path, images: pd.DataFrame, rows: list[_Row | None], thumbs: np.ndarray) -> None:
    now = images[_KEY].assign(position=np.arange(len(images)))
    table = pd.read_parquet(part).merge(now, on=_KEY)
    for position, thumb, values in zip(
        table["position"], table["thumb"], table[list(_Row._fields)].itertuples(index=False), strict=True
    ):
        rows[position] = _Row(*values)
        thumbs[position] = np.frombuffer(thumb, np.uint8).reshape(THUMB, THUMB)


def _chunks(images: pd.DataFrame, positions: list[int]) -> Iterator[list[int]]:
    """Parts `positions` into portions that are worth sending to a worker, of few large or many small
    files."""
    chunk: list[int] = []
    total = 0
    for position, size in zip(positions, images["bytes"].iloc[positions], strict=True):
        if chunk and (len(chunk) == _CHUNK_FILES or total + size > _CHUNK_BYTES):
            yield chunk
            chunk, total = [], 0
        chunk.append(position)
        total += size
    if chunk:
        yield chunk


def _run(
    images: pd.DataFrame,
    chunks: Iterator[list[int]],
    folder: str,
    limits: _Limits,
    seconds: float,
    workers: int,
) -> Iterator[tuple[list[int], list[_Row], np.ndarray]]:
    """Examines chunks in worker processes. One that kills its worker, or hangs, is taken again file by file.

    Yields positions, rows and thumbnails of the chunks, as they are finished.
    """
    paths = images["path"].to_numpy()
    waiting = [chunk for chunk in [next(chunks, None)] if chunk]
    if not waiting:
        return
    running: dict[Future, list[int]] = {}
    pool = _start_pool(workers, folder, limits)
    try:
        while True:
            while len(running) < 3 * workers:  # enough to keep workers busy, few enough to keep memory flat
                chunk = waiting.pop() if waiting else next(chunks, [])
                if not chunk:
                    break
                arguments = (list(paths[chunk]), folder, limits)
                try:
                    running[pool.schedule(_examine_chunk, args=arguments, timeout=seconds)] = chunk
                except RuntimeError:  # the pool has broken just now
                    waiting.append(chunk)
                    break
            if not running and not waiting:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                chunk = running.pop(future)
                error = future.exception()
                if error is None:
                    yield chunk, *future.result()
                elif isinstance(error, BrokenExecutor):  # an idle worker was killed: no file is to blame
                    waiting.append(chunk)
                elif len(chunk) > 1:
                    waiting += [[position] for position in chunk]
                else:
                    row = _Row(status="unreadable", reason=_why_lost(error, seconds))
                    yield chunk, [row], np.zeros((1, THUMB, THUMB), np.uint8)
            if not pool.active:
                waiting += running.values()
                running.clear()
                pool.stop()
                pool.join()
                pool = _start_pool(workers, folder, limits)
    finally:
        pool.stop()
        pool.join()


def _start_pool(workers: int, folder: str, limits: _Limits) -> ProcessPool:
    # Spawned on every system: forking a process with threads, as notebooks are, can deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(workers, initializer=_start_worker, initargs=(MEMORY_PER_WORKER,), context=context)
    try:  # with nothing to examine, so that workers that can't even start are not held against the files
        pool.schedule(_examine_chunk, args=([], folder, limits)).result(timeout=_SECONDS_TO_START)
    except Exception as error:
        pool.stop()
        pool.join()
        raise RuntimeError(
            "The worker processes do not start: a script that calls cleaning.clean must do so below "
            "`if __name__ == '__main__':`, as for all of Python's multiprocessing."
        ) from error
    return pool


def _why_lost(error: BaseException, seconds: float) -> str:
    if isinstance(error, ProcessExpired):
        return f"decoding it crashed the process (exit code {error.exitcode})"
    return f"decoding it took more than {seconds:g} seconds"


def _examine_chunk(paths: list[str], folder: str, limits: _Limits) -> tuple[list[_Row], np.ndarray]:
    rows: list[_Row] = []
    thumbs = np.zeros((len(paths), THUMB, THUMB), np.uint8)
    for index, path in enumerate(paths):
        row, thumb = _examine(path, folder, limits)
        rows.append(row)
        if thumb is not None:
            thumbs[index] = thumb
    return rows, thumbs


def _start_worker(memory: int) -> None:
    cv2.setNumThreads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders complain there; the table says it better
    if sys.platform == "linux":
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = taken + memory if hard == resource.RLIM_INFINITY else min(taken + memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Workers must not outlive a notebook that is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# --------------------------------------------------------------------------------------------------------
# Exact copies


def _set_aside_copies(images: pd.DataFrame, keys: pd.Series, what: str) -> None:
    """Among usable rows of equal key (not ""), one person's first stays; those of several people are all
    set aside."""
    usable = keys[(images["status"] == "ok") & (keys != "")]
    for _, copies in usable[usable.duplicated(keep=False)].groupby(usable, sort=False):
        if len(images.loc[copies.index, "identity"].unique()) > 1:
            _set_conflict(images, copies.index, what)
        else:
            first, others = images.loc[copies.index[0], "path"], copies.index[1:]
            images.loc[others, ["status", "reason", "duplicate_of"]] = (
                "duplicate",
                f"the same {what} as {first}",
                first,
            )


def _set_conflict(images: pd.DataFrame, rows: pd.Index, what: str) -> None:
    people = ", ".join(sorted(images.loc[rows, "identity"].unique()))
    images.loc[rows, ["status", "reason"]] = "label conflict", f"the same {what} under {people}"


def _pixel_digests(
    images: pd.DataFrame, folder: Path, thumbs: np.ndarray, candidates: np.ndarray
) -> pd.Series:
    """SHA-256 of the decoded picture, for files that look equal to another one; "" for all others.

    Looking equal is: the same size, and thumbnails that differ by no more than rounding. So hardly any
    photo is decoded twice, and what is called the same picture is so to the last pixel.
    """
    digests = pd.Series("", index=images.index)
    paths = images["path"].to_numpy()
    first, second = candidates.T
    size = images[["width", "height"]].to_numpy()
    same = (size[first] == size[second]).all(axis=1)
    first, second = first[same], second[same]
    difference = np.abs(thumbs[first].astype(np.int16) - thumbs[second]).max(axis=(1, 2), initial=0)
    equal = difference <= 2
    for row in tqdm(np.union1d(first[equal], second[equal]), desc="comparing pixels", leave=False):
        try:
            pixels = dataset.read_rgb(folder / paths[row])
        except (OSError, ValueError):  # it has gone, or changed, since it was examined
            continue
        digests[row] = f"{pixels.shape} {hashlib.sha256(pixels.data).hexdigest()}"
    return digests


# --------------------------------------------------------------------------------------------------------
# Near-duplicates: hashes propose pairs, the alignment of their thumbnails decides


def _linear(positions: np.ndarray) -> np.ndarray:
    """Matrices `[..., 32, 32]` that sample a thumbnail's side at positions `[..., 32]` (px), linearly."""
    positions = positions.clip(0, THUMB - 1)
    return np.clip(1 - np.abs(positions[..., None] - np.arange(THUMB, dtype=np.float32)), 0, None)


def _cropped(before: float, after: float) -> np.ndarray:
    """Matrix `[32, 32]` that samples a thumbnail's side anew, without these shares at its ends."""
    pixels = np.arange(THUMB, dtype=np.float32)
    return _linear((pixels + 0.5) * (1 - before - after) + before * THUMB - 0.5)


# Rows: the eight lowest frequencies of a DCT-II of a thumbnail's side (the scale does not matter to a hash).
_DCT = np.cos(np.pi / THUMB * np.outer(np.arange(8), np.arange(THUMB) + 0.5)).astype(np.float32)
# A crop moves a hash by up to 18 of its 64 bits. So a photo is also looked up as it would be after losing 3
# % of its width and height: on all sides, or at one of its corners.
_CROP = 0.03
_CROPS = [(0, 0, 0, 0), (_CROP,) * 4] + [(a, _CROP - a, b, _CROP - b) for a in (0, _CROP) for b in (0, _CROP)]


def phash(
    thumbs: np.ndarray, top: float = 0, bottom: float = 0, left: float = 0, right: float = 0
) -> np.ndarray:
    """Perceptual hashes uint64 `[N]` of uint8 luma thumbnails `[N, 32, 32]`, cropped by these shares of
    their sides.

    ImageHash's `phash` for many images at once: bits say which of the 8 x 8 lowest frequencies exceed their
    median.
    """
    rows, columns = _DCT @ _cropped(top, bottom), _DCT @ _cropped(left, right)
    codes = np.empty(len(thumbs), np.uint64)
    for start in range(0, len(thumbs), _BATCH):
        batch = thumbs[start : start + _BATCH].astype(np.float32)
        frequencies = (rows @ batch @ columns.T).reshape(len(batch), 64)
        bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
        codes[start : start + _BATCH] = np.packbits(bits, axis=1).view(">u8").ravel()
    return codes


_RADIUS = 6  # bits in which the hashes of a pair may differ
_NEIGHBOURS = 64  # hashes that one is compared with per table, at most: keeps the search linear on any data
_PAIRS_PER_PHOTO = 12  # candidates that are looked at per photo, the nearest first


def _candidates(images: pd.DataFrame, thumbs: np.ndarray) -> np.ndarray:
    """Pairs of usable rows, int64 `[P, 2]`, whose hashes, or hashes after a crop, differ in at most six bits.

    Two hashes that differ in at most six bits agree in at least two of their eight bytes. So it is enough
    to sort them by every two bytes, 28 times, and to compare neighbours (multi-index hashing; Norouzi et
    al., CVPR 2012).
    """
    usable = np.flatnonzero(images["status"] == "ok")
    thumbs = thumbs[usable]
    codes = np.concatenate([phash(thumbs, *crop) for crop in _CROPS])
    owners = np.tile(usable, len(_CROPS))
    order = np.lexsort((owners, codes))
    codes, owners = codes[order], owners[order]
    found = []
    for step in (1, 2, 3, 4):  # photos of one hash: each with the next few
        here = np.flatnonzero(codes[:-step] == codes[step:])
        found.append(_near(owners[here], owners[here + step], codes[here] ^ codes[here + step]))

    codes, firsts = np.unique(codes, return_index=True)
    owners = owners[firsts]
    octets = codes.view(np.uint8).reshape(-1, 8).astype(np.uint16)
    for one, other in itertools.combinations(range(8), 2):
        keys = octets[:, one] << 8 | octets[:, other]
        order = np.argsort(keys, kind="stable")
        keys, here = keys[order], np.arange(len(keys))
        table = []
        for step in range(1, _NEIGHBOURS + 1):
            here = here[: np.searchsorted(here, len(keys) - step)]
            here = here[keys[here] == keys[here + step]]
            if not len(here):
                break
            a, b = order[here], order[here + step]
            table.append(_near(owners[a], owners[b], codes[a] ^ codes[b]))
        if table:
            found.append(np.unique(np.concatenate(table)))
    return _nearest(np.unique(np.concatenate(found)))


def _near(first: np.ndarray, second: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Pairs of different rows whose hashes differ in few enough bits.

    Each is one number, uint64: 28 bits for the lower row, 28 for the upper one, 8 for the bits that differ.
    """
    bits = np.bitwise_count(difference)
    near = (bits <= _RADIUS) & (first != second)
    first, second = first[near].astype(np.uint64), second[near].astype(np.uint64)
    return np.minimum(first, second) << np.uint64(36) | np.maximum(first, second) << np.uint64(8) | bits[near]


def _nearest(found: np.ndarray) -> np.ndarray:
    """Pairs int64 `[P, 2]` from `_near`'s sorted numbers: each once, those that are among the nearest of a
    photo."""
    found = found[np.unique(found >> np.uint64(8), return_index=True)[1]]
    row = np.uint64(2**28 - 1)
    first, second = (found >> np.uint64(36)).astype(np.int64), (found >> np.uint64(8) & row).astype(np.int64)
    bits = (found & np.uint64(255)).astype(np.int64)
    photo, pair = np.concatenate([first, second]), np.tile(np.arange(len(found)), 2)
    order = np.lexsort((pair, np.tile(second - first, 2), np.tile(bits, 2), photo))
    photo, pair = photo[order], pair[order]
    rank = np.arange(len(photo)) - np.searchsorted(photo, photo)
    kept = np.unique(pair[rank < _PAIRS_PER_PHOTO])
    kept = kept[np.argsort(bits[kept], kind="stable")]
    return np.column_stack([first[kept], second[kept]])


_STEPS = 5
_REACH = 2.5  # px of a thumbnail, 8 % of its side


def agreement(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation `[N]` and largest difference `[N]` (grey levels) of luma thumbnails `[N, 32, 32]`, once
    aligned.

    The second is stretched and shifted along both axes, by up to 8 % of its side, until it fits the first
    best (Gauss-Newton, as Lucas and Kanade, IJCAI 1981; gain and offset of the grey values are free). Both
    are blurred a little before, so that the sampling of fine detail does not count. The margin, which a
    crop may have cut off, is left out.
    """
    first = gaussian_filter(first.astype(np.float32), (0, 1, 1))
    second = gaussian_filter(second.astype(np.float32), (0, 1, 1))
    inner = slice(2, THUMB - 2)
    pixels = np.arange(THUMB, dtype=np.float32)
    stretch = (pixels - (THUMB - 1) / 2) / (THUMB / 2)
    target, norm = _normalise(first[:, inner, inner])
    move = np.zeros(
        (len(first), 4), np.float32
    )  # stretch and shift downwards, stretch and shift to the right; px
    correlation = np.full(len(first), -1, np.float32)
    difference = np.full(len(first), 255, np.float32)
    for _ in range(_STEPS):
        rows = pixels + move[:, 0:1] * stretch + move[:, 1:2]
        columns = pixels + move[:, 2:3] * stretch + move[:, 3:4]
        moved = _linear(rows) @ second @ _linear(columns).transpose(0, 2, 1)
        slope_down, slope_right = np.gradient(moved, axis=(1, 2))
        current, scale = _normalise(moved[:, inner, inner])
        fit = (target * current).sum(axis=(1, 2))
        rest = target - current * fit[:, None, None]
        better = fit > correlation
        correlation = np.where(better, fit, correlation)
        difference = np.where(better, np.abs(rest).max(axis=(1, 2)) * norm, difference)

        down = slope_down[:, inner, inner] / scale[:, None, None]
        right = slope_right[:, inner, inner] / scale[:, None, None]
        along = stretch[inner]
        slopes = [down * along[:, None], down, right * along, right, current, np.ones_like(current)]
        jacobian = np.stack(slopes, axis=1).reshape(len(first), 6, -1)
        normal = jacobian @ jacobian.transpose(0, 2, 1)
        # Damped: a thumbnail without structure says nothing about how to move it.
        damping = 1e-5 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(
            6, dtype=np.float32
        ) + 1e-6 * np.eye(6, dtype=np.float32)
        step = np.linalg.solve(normal + damping, jacobian @ (target - current).reshape(len(first), -1, 1))
        move = np.clip(move + step[:, :4, 0], -_REACH, _REACH)
    return correlation, difference


def _normalise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values `[N, H, W]` with mean 0 and norm 1, and the norms `[N]` they had."""
    values = values - values.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt((values**2).sum(axis=(1, 2)))
    return values / np.maximum(norm, 1e-3)[:, None, None], norm


def _set_aside_conflicts(images: pd.DataFrame, thumbs: np.ndarray, candidates: np.ndarray) -> None:
    """Sets aside photos that are surely the same under two people: re-encoded, resized or slightly
    cropped."""
    pairs = _usable(images, candidates)
    people = images["identity"].to_numpy()
    pairs = pairs[people[pairs[:, 0]] != people[pairs[:, 1]]]
    same = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), _BATCH):
        first, second = pairs[start : start + _BATCH].T
        correlation, difference = agreement(thumbs[first], thumbs[second])
        same[start : start + _BATCH] = (correlation >= ACROSS_PEOPLE_CORRELATION) & (
            difference <= ACROSS_PEOPLE_DIFFERENCE
        )
    picture = pd.Series(_components(len(images), pairs[same]), index=images.index)
    involved = picture[np.unique(pairs[same])]
    for _, copies in involved.groupby(involved, sort=False):
        _set_conflict(images, copies.index, "picture")


def _groups(images: pd.DataFrame, thumbs: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Numbers the usable photos, near-duplicates of one person alike; -1 for those set aside."""
    pairs = _usable(images, candidates)
    people = images["identity"].to_numpy()
    pairs = pairs[people[pairs[:, 0]] == people[pairs[:, 1]]]
    links = pairs[:0]
    for start in tqdm(range(0, len(pairs), _BATCH), desc="near-duplicates", leave=False):
        group = _components(len(images), links)
        first, second = pairs[start : start + _BATCH].T
        apart = group[first] != group[second]  # most pairs of a long video are linked already
        if not apart.any():
            continue
        first, second = first[apart], second[apart]
        correlation, _ = agreement(thumbs[first], thumbs[second])
        near = correlation >= SAME_PERSON_CORRELATION
        links = np.concatenate([links, np.column_stack([first[near], second[near]])])
    usable = (images["status"] == "ok").to_numpy()
    groups = np.full(len(images), -1, np.int64)
    groups[usable] = pd.factorize(_components(len(images), links)[usable])[0]
    return groups


def _usable(images: pd.DataFrame, pairs: np.ndarray) -> np.ndarray:
    usable = (images["status"] == "ok").to_numpy()
    return pairs[usable[pairs].all(axis=1)]


def _components(count: int, links: np.ndarray) -> np.ndarray:
    graph = coo_array((np.ones(len(links), bool), links.T), shape=(count, count))
    return connected_components(graph, directed=False)[1]


# --------------------------------------------------------------------------------------------------------
# Quality, tables, thumbnails


def _fill_quality(images: pd.DataFrame) -> None:
    labelled = images["quality"] != "unknown"
    fill = ~labelled & (images["status"] == "ok")
    images["quality_source"] = np.select([labelled, fill], ["folder", "measured"], "")
    images.loc[fill, "quality"] = measured_quality(images[fill])


def measured_quality(images: pd.DataFrame) -> pd.Series:
    """Calls photos "low" that are small (shorter side below 112 px, the recogniser's) or blurred, others
    "high".

    A stand-in for labels, no more: it sees the photo, not the face in it.
    """
    small = images[["width", "height"]].min(axis=1) < LOW_SIDE
    blurred = images["sharpness"] < LOW_SHARPNESS
    return pd.Series(np.where(small | blurred, "low", "high"), index=images.index)


def summary(images: pd.DataFrame) -> pd.DataFrame:
    """Counts files per person and quality (rows) and status (columns, "ok" first), with a last row and
    column of sums."""
    counts = pd.crosstab(
        [images["identity"], images["quality"]], images["status"], margins=True, margins_name="all"
    )
    return counts[sorted(counts, key=lambda status: (status == "all", status != "ok", status))]


def set_aside(images: pd.DataFrame) -> pd.DataFrame:
    """The rows of files that are not used, and why: the content of `set_aside.csv`."""
    columns = ["path", "identity", "quality", "status", "reason", "duplicate_of", "bytes", "sha256"]
    return images.loc[images["status"] != "ok", columns].reset_index(drop=True)


def thumbnails(
    images: pd.DataFrame, folder: Path, count: int = 24, side: int = 96
) -> tuple[np.ndarray, list[str]]:
    """Shows files that were set aside though they can be decoded, `count` of them spread over the table.

    Returns uint8 RGB `[N, side, side, 3]`, letterboxed in white, and for each one "status: path".
    """
    rows = images[(images["status"] != "ok") & (images["width"] > 0)]
    rows = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]
    pictures = np.full((len(rows), side, side, 3), 255, np.uint8)
    for picture, path in zip(pictures, rows["path"], strict=True):
        pixels = dataset.read_rgb(Path(folder) / path)
        scale = side / max(pixels.shape[:2])
        height, width = (max(1, round(length * scale)) for length in pixels.shape[:2])
        small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        top, left = (side - height) // 2, (side - width) // 2
        picture[top : top + height, left : left + width] = small
    return pictures, [f"{status}: {path}" for status, path in zip(rows["status"], rows["path"], strict=True)]
