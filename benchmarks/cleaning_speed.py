"""How fast cleaning is on many small JPEGs, against Pillow's verify() in one process, and what it finds.

    python benchmarks/cleaning_speed.py --files 100000 --side 64

Makes a folder of JPEGs with textures (1 % of them damaged in one of six ways), then times, in this order and
on the same files in the page cache: a loop of `Image.open(path).verify()`, `finding.find` + `cleaning.clean`,
and the loop again.
"""

import argparse
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


def verify_loop(paths: list[str]) -> tuple[float, set[str]]:
    start, failed = time.perf_counter(), set()
    for path in paths:
        try:
            with Image.open(path) as image:
                image.verify()
        except Exception:
            failed.add(path)
    return time.perf_counter() - start, failed


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
        first, failed = verify_loop(paths)
        start = time.perf_counter()
        images = finding.find(folder)
        found = time.perf_counter() - start
        images = cleaning.clean(images, folder, workers=options.workers)
        wall = time.perf_counter() - start
        second, _ = verify_loop(paths)
        verify = min(first, second)
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
            "verify loop s": [round(first, 2), round(second, 2)],
            "verify images/s": round(len(images) / verify),
            "times verify": round(verify / wall, 2),
            "planted": len(damaged),
            "missed": sorted(f"{path} ({damaged[path]})" for path in missed),
            "wrongly set aside": len(wrong),
            "wrongly grouped": grouped,
            "found by verify": len(failed),
            "statuses": dict(Counter(images["status"])),
            "peak MiB, main process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "peak MiB, largest worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
