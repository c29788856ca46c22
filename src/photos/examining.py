"""Opens files that nobody can vouch for, in worker processes that may crash, hang or run out of memory.

Every file gets a row that says what is wrong with it, or measures of its quality and a thumbnail. The worker
processes import this module and what it needs, so it needs little.
"""

import errno
import hashlib
import itertools
import multiprocessing
import os
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pebble import ProcessExpired, ProcessPool

from src import workers
from src.photos import decoding, formats
from src.photos.decoding import THUMBNAIL_SIDE, UnusableImage
from src.photos.paths import open_path, root

MAXIMUM_BYTES = 512 * 2**20  # no photo is a file of this size; it is not even read
MEMORY_PER_WORKER = 4 * 2**30  # bytes above what a worker starts with; enforced on Linux only
SHARPNESS_SIDE = 112  # px

_CHUNK_FILES, _CHUNK_BYTES = 256, 32 * 2**20  # sent to a worker at once, at most
_SECONDS_TO_START = 120.0


@dataclass(frozen=True)
class Limits:
    """Which photos are usable: of a shorter side of so many px at least, and so many pixels at most."""

    minimum_side: int
    maximum_pixels: int


class Row(NamedTuple):
    """What is found out about a file; the columns are those of `cleaning.clean`'s table.

    A `reason` beside "ok" says what is odd about the photo, and how it was read all the same.
    """

    width: int = 0
    height: int = 0
    sha256: str = ""
    status: str = "ok"
    reason: str = ""
    sharpness: float = np.nan
    brightness: float = np.nan
    contrast: float = np.nan


def examine(
    paths: Sequence[str], sizes: Sequence[int], folder: Path, limits: Limits, seconds: float, processes: int
) -> Iterator[tuple[list[int], list[Row], np.ndarray]]:
    """Examines files in so many processes: yields positions in `paths`, their rows and thumbnails.

    They come in portions and in any order, as they are finished; every position comes once. Thumbnails are
    uint8 luma `[n, 32, 32]`, black where there is none. A portion that kills its worker, or takes more than
    `seconds`, is taken again file by file, and the file that does so alone is "unreadable".

    paths: as in `finding.find`'s table of the dataset `folder`. sizes: of the files, in bytes; they decide
    the portions only.

    Where a cluster is joined, each of its workers has one process. Raises RuntimeError where worker processes
    can't be started.
    """
    chunks = _chunks(sizes)
    if workers.joined():
        parts = list(chunks)
        examiner = _Examiner(root(folder).absolute(), limits, seconds, 1)
        here = [[paths[position] for position in part] for part in parts]
        for part, (rows, thumbs) in zip(parts, workers.each(examiner, here, gpu=False), strict=True):
            yield part, rows, thumbs
    elif first := next(chunks, None):
        examiner = _Examiner(folder, limits, seconds, processes)
        try:
            yield from examiner.portions(paths, itertools.chain([first], chunks))
        finally:
            examiner.stop()


class _Examiner:
    """Worker processes, and what they are told; they start with the first work, and anew when one dies."""

    def __init__(self, folder: Path, limits: Limits, seconds: float, processes: int) -> None:
        self.folder, self.limits, self.seconds, self.processes = folder, limits, seconds, processes
        self.pool: ProcessPool | None = None

    def __call__(self, paths: list[str]) -> tuple[list[Row], np.ndarray]:
        """Rows and thumbnails of a few files, in order."""
        rows, thumbs = [Row()] * len(paths), _black(len(paths))
        for places, found, shown in self.portions(paths, iter([list(range(len(paths)))])):
            for place, row in zip(places, found, strict=True):
                rows[place] = row
            thumbs[places] = shown
        return rows, thumbs

    def portions(
        self, paths: Sequence[str], chunks: Iterator[list[int]]
    ) -> Iterator[tuple[list[int], list[Row], np.ndarray]]:
        """As of `examine`, of these portions."""
        waiting: list[list[int]] = []
        running: dict[Future, list[int]] = {}
        while True:
            pool = self._started()
            while len(running) < 3 * self.processes:  # enough to keep all busy, and memory flat
                chunk = waiting.pop() if waiting else next(chunks, [])
                if not chunk:
                    break
                arguments = ([paths[position] for position in chunk], str(self.folder), self.limits)
                try:
                    running[pool.schedule(_examine_chunk, args=arguments, timeout=self.seconds)] = chunk
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
                    row = Row(status="unreadable", reason=_why_lost(error, self.seconds))
                    yield chunk, [row], _black(1)
            if not pool.active:
                waiting += running.values()
                running.clear()

    def _started(self) -> ProcessPool:
        if self.pool is None or not self.pool.active:
            self.stop()
            self.pool = _start_pool(self.processes, self.folder, self.limits)
        return self.pool

    def stop(self) -> None:
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()


def _chunks(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Parts positions into portions worth sending to a worker, of few large or many small files."""
    chunk: list[int] = []
    total = 0
    for position, size in enumerate(sizes):
        if chunk and (len(chunk) == _CHUNK_FILES or total + size > _CHUNK_BYTES):
            yield chunk
            chunk, total = [], 0
        chunk.append(position)
        total += size
    if chunk:
        yield chunk


def _start_pool(processes: int, folder: Path, limits: Limits) -> ProcessPool:
    # Spawned on every system: forking a process with threads, as notebooks are, can deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(processes, initializer=_start_worker, initargs=(MEMORY_PER_WORKER,), context=context)
    try:  # with nothing to examine, so that workers that can't even start are not held against the files
        nothing = pool.schedule(_examine_chunk, args=([], str(folder), limits))
        nothing.result(timeout=_SECONDS_TO_START)
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


# ---------------------------------------------------------------- in a worker process


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


def _examine_chunk(paths: list[str], folder: str, limits: Limits) -> tuple[list[Row], np.ndarray]:
    rows: list[Row] = []
    thumbs = _black(len(paths))
    for index, path in enumerate(paths):
        row, thumb = _examine_file(path, folder, limits)
        rows.append(row)
        if thumb is not None:
            thumbs[index] = thumb
    return rows, thumbs


def _black(count: int) -> np.ndarray:
    return np.zeros((count, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)


def _examine_file(path: str, folder: str, limits: Limits) -> tuple[Row, np.ndarray | None]:
    """The row and the thumbnail of one file. Raises nothing: what is wrong becomes the row's status."""
    sha256, width, height = "", 0, 0
    try:
        data = _read(str(open_path(folder, path)))
        sha256 = hashlib.sha256(data).hexdigest()
        luma, note = decoding.decode_luma(data, limits.maximum_pixels)
        height, width = luma.shape
        if min(width, height) < limits.minimum_side:
            reason = f"{width} x {height} px; the shorter side must have at least {limits.minimum_side}"
            raise UnusableImage("too small", reason)
        return Row(width, height, sha256, "ok", note, *_measures(luma)), decoding.thumbnail(luma)
    except UnusableImage as error:
        return Row(width, height, sha256, error.status, error.reason), None
    except MemoryError:
        return Row(width, height, sha256, "too large", "there is not enough memory to decode it"), None
    except Exception as error:  # whatever a decoder comes up with
        return Row(width, height, sha256, "unreadable", str(error) or type(error).__name__), None


# O_NONBLOCK: opening a pipe that nobody writes to would wait forever. Windows does not have it, but needs
# O_BINARY to read a file as it is.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


def _read(path: str) -> bytes:
    try:
        file = os.open(path, _FLAGS)
    except OSError as error:
        raise UnusableImage(*_why_not_opened(Path(path), error)) from error
    try:
        status = os.fstat(file)
        if stat.S_ISDIR(status.st_mode):
            raise UnusableImage("not an image", "a link back to a folder above it")
        if not stat.S_ISREG(status.st_mode):
            raise UnusableImage("not an image", "not a regular file but a pipe or a device")
        if status.st_size > MAXIMUM_BYTES:
            formats.check_supported(os.read(file, 4096))  # most are videos, and called so
            size = f"{status.st_size / 2**20:,.0f} MiB"
            raise UnusableImage("too large", f"a file of {size} is not read")
        data = os.read(file, status.st_size)
        while len(data) < status.st_size and (more := os.read(file, status.st_size - len(data))):
            data += more
        return data
    finally:
        os.close(file)


def _why_not_opened(path: Path, error: OSError) -> tuple[str, str]:
    """Status and reason of a file that could not be opened."""
    if isinstance(error, PermissionError):
        kind = "folder" if path.is_dir() else "file"
        return "unreadable", f"no permission to open this {kind}"
    if error.errno == errno.ENXIO:
        return "not an image", "not a regular file but a socket or a device"
    if path.is_symlink():
        return "unreadable", "a link that leads nowhere, or to itself"
    if isinstance(error, FileNotFoundError):
        reason = "no such file: it has gone since the folder was listed, or its name is not valid Unicode"
        return "unreadable", reason
    return "unreadable", error.strerror or str(error)


def _measures(luma: np.ndarray) -> tuple[float, float, float]:
    """Sharpness, brightness and contrast, as `cleaning.clean` defines them, of uint8 luma `[H, W]`."""
    mean, deviation = cv2.meanStdDev(luma)
    small = decoding.halved(luma, 4 * SHARPNESS_SIDE)
    square = cv2.resize(small, (SHARPNESS_SIDE, SHARPNESS_SIDE), interpolation=cv2.INTER_AREA)
    edges = cv2.Laplacian(square, cv2.CV_16S)
    # The variance by hand: cv2.meanStdDev takes longer for 16 bits than all else together.
    variance = cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - cv2.mean(edges)[0] ** 2
    return variance, float(mean[0, 0]) / 255, float(deviation[0, 0]) / 255
