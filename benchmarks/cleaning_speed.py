"""How fast cleaning is on many JPEGs, against a full decode by Pillow in one process, and what it finds.

    python -m benchmarks.cleaning_speed --files 4000 --side 250
    python -m benchmarks.cleaning_speed --files 40 --side 3464

Makes a folder of JPEGs with textures (1 % of them damaged in one of six ways), then times, in this order and
on the same files in the page cache: a loop that decodes each file to its last pixel and takes its SHA-256,
`finding.find` + `cleaning.clean`, the loop again, and a loop of `Image.open(path).verify()`, which decodes
nothing. Beside the time by the clock stands the processors' own, of all processes, to which other programs
make little difference.
"""

import argparse
import hashlib
import io
import json
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from src.photos import cleaning, finding

DAMAGES: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "cut": lambda data, rng: data[: rng.integers(len(data) // 3, len(data) - 2)],
    "cut, end marker in place": lambda data, rng: data[: len(data) * 2 // 3] + b"\xff\xd9",
    "zeros from the middle on": lambda data, rng: data[: len(data) // 2] + bytes(len(data) // 2),
    "header only": lambda data, rng: data[:20],
    "empty": lambda data, rng: b"",
    "text": lambda data, rng: b"<html>404 Not Found</html>",
}


def make(folder: Path, files: int, side: int, seed: int = 0) -> dict[str, str]:
    """Writes the photos, 100 per person; returns which paths are damaged, and how."""
    rng = np.random.default_rng(seed)
    damaged = {}
    for number in range(files):
        path = f"{number // 100:05d}/{number % 100:02d}.jpg"
        if number % 100 == 0:
            (folder / path).parent.mkdir(parents=True)
        coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
        picture = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        picture = (picture + rng.integers(-12, 13, picture.shape)).clip(0, 255).astype(np.uint8)
        data = simplejpeg.encode_jpeg(picture, quality=85)
        if number % 100 == 37:
            name = list(DAMAGES)[number // 100 % len(DAMAGES)]
            data, damaged[path] = DAMAGES[name](data, rng), name
        (folder / path).write_bytes(data)
    return damaged


def loop(paths: list[str], examine: Callable[[bytes], object]) -> tuple[float, float, set[str]]:
    """Seconds by the clock and of the processor, and the files that fail."""
    start, busy, failed = time.perf_counter(), time.process_time(), set()
    for path in paths:
        try:
            examine(Path(path).read_bytes())
        except Exception:
            failed.add(path)
    return time.perf_counter() - start, time.process_time() - busy, failed


def decode(data: bytes) -> tuple[Image.Image, str]:
    """What cleaning does for each file at least."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB"), hashlib.sha256(data).hexdigest()


def verify(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.verify()


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=64, help="px")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="where to make the files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        damaged = make(folder, options.files, options.side)
        paths = [str(folder / path) for path in sorted(finding.find(folder)["path"])]
        first = loop(paths, decode)
        start, busy = time.perf_counter(), processor_seconds()
        images = finding.find(folder)
        found = time.perf_counter() - start
        images = cleaning.clean(images, folder, workers=options.workers)
        wall, processors = time.perf_counter() - start, processor_seconds() - busy
        second, verified = loop(paths, decode), loop(paths, verify)
        clock, processor = (min(times) for times in zip(first[:2], second[:2], strict=True))
        set_aside = images[images["status"] != "ok"]
        missed = set(damaged) - set(set_aside["path"])
        wrong = set(set_aside["path"]) - set(damaged)
        grouped = int(images.loc[images["status"] == "ok", "group"].duplicated().sum())
        report = {
            "files": len(images),
            "side": options.side,
            "mean bytes": int(images["bytes"].mean()),
            "find s": round(found, 2),
            "find + clean s": round(wall, 2),
            "images/s": round(len(images) / wall),
            "decoding loop s": [round(first[0], 2), round(second[0], 2)],
            "times the loop": round(clock / wall, 2),
            "processor ms a file": round(processors / len(images) * 1000, 3),
            "processor ms a file, loop": round(processor / len(images) * 1000, 3),
            "times the loop, processor": round(processor / processors, 2),
            "times verify": round(verified[0] / wall, 2),
            "planted": len(damaged),
            "missed": sorted(f"{path} ({damaged[path]})" for path in missed),
            "wrongly set aside": len(wrong),
            "wrongly grouped": grouped,
            "found by the loop, by verify": [len(first[2]), len(verified[2])],
            "statuses": dict(Counter(images["status"])),
            "peak MiB, main process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "peak MiB, largest worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
