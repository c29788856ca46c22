"""How tables, splits, near-duplicate search, crops, embeddings and pairs grow: seconds and memory.

    python -m benchmarks.growth --photos 1000 10000 100000
    python -m benchmarks.growth --photos 1000000 --stages tables near-duplicates

Everything is generated: 20 photos of each person, every tenth a near-copy of the one before it. Each row runs
in a process of its own. Seconds are of its own time on its cores, so that others beside it count little.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.all_pairs import peak, test_set
from src.evaluation import pairs
from src.networks import embedding
from src.photos import duplicates, splitting

PER_PERSON, COPIED = 20, 10


class Colours:
    """A recogniser that takes no time: colours of an 8 x 8 grid, times a matrix."""

    def __init__(self) -> None:
        self.matrix = np.random.default_rng(1).standard_normal((192, 512)).astype(np.float32)

    def recognise(self, crops: np.ndarray) -> np.ndarray:
        grid = crops.reshape(len(crops), 8, 14, 8, 14, 3).mean((2, 4), dtype=np.float32)
        return grid.reshape(len(crops), -1) @ self.matrix


def table(photos: int) -> pd.DataFrame:
    """A cleaned table."""
    number = np.arange(photos)
    images = pd.DataFrame({"identity": [f"person {i:06d}" for i in number // PER_PERSON]})
    images["path"] = [f"{who}/{i}.jpg" for i, who in enumerate(images["identity"])]
    images["quality"] = np.where(number % 2, "high", "low")
    images["status"] = "ok"
    images["sha256"] = [f"{i:064x}" for i in number]
    images["phash"] = [
        f"{code:016x}" for code in np.random.default_rng(0).integers(0, 2**63, photos, np.uint64)
    ]
    images["group"] = pd.factorize(np.where(number % COPIED == 1, number - 1, number))[0]
    return images


def tables(photos: int) -> Iterator[str]:
    images = table(photos)
    yield "table"
    images = splitting.split(images)
    yield "split"
    splitting.audit(images)
    yield "audit"


def near_duplicates(photos: int) -> Iterator[str]:
    images, rng = table(photos), np.random.default_rng(0)
    thumbs = np.empty((photos, 32, 32), np.uint8)
    for i in range(photos):
        if i % COPIED == 1:
            noise = rng.integers(-2, 3, (32, 32))
            thumbs[i] = np.clip(thumbs[i - 1] + noise, 0, 255)
        else:
            cv2.resize(
                rng.integers(0, 256, (7, 7), np.uint8), (32, 32), thumbs[i], interpolation=cv2.INTER_CUBIC
            )
    yield "thumbnails"
    found = duplicates.candidates(images, thumbs)
    yield "candidates"
    groups = duplicates.groups(images, thumbs, found)
    copies = groups[1::COPIED] == groups[::COPIED]
    print(f"{copies.mean():.1%} of the copies are found; {len(np.unique(groups)):,} groups")
    yield "groups"


def crops(photos: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "crops.npy"
        written = np.lib.format.open_memmap(file, "w+", np.uint8, (photos, 112, 112, 3))
        rng = np.random.default_rng(0)
        for start in range(0, photos, 1024):
            part = written[start : start + 1024]
            part[:] = rng.integers(0, 256, (len(part), 1, 1, 3), np.uint8)
        written.flush()
        del written, part
        yield "crops"
        embedding.embed(np.load(file, mmap_mode="r"), Colours(), mirrored=True)
        yield "embeddings"


def all_pairs(photos: int) -> Iterator[str]:
    vectors, test = test_set(photos, 512, PER_PERSON)
    yield "vectors"
    everyone = np.ones(photos, bool)
    pairs.count_pairs(vectors, test, everyone, ~everyone, "numpy")
    yield "pairs"


STAGES = {"tables": tables, "near-duplicates": near_duplicates, "crops": crops, "pairs": all_pairs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        begun = time.process_time()
        for name in STAGES[arguments.stages[0]](arguments.photos[0]):
            done = {"stage": name, "seconds": time.process_time() - begun, "peak_gb": peak()}
            print(json.dumps(done), flush=True)
            begun = time.process_time()
        return
    for stage in arguments.stages:
        for photos in arguments.photos:
            command = [sys.executable, "-m", "benchmarks.growth", "--one"]
            command += ["--stages", stage, "--photos", str(photos)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
                for line in run.stdout or ():
                    if line.startswith("{"):
                        done = json.loads(line)
                        line = f"{done['stage']:>12}: {done['seconds']:9.1f} s, peak {done['peak_gb']:.2f} GB"
                    print(f"{photos:>9,} photos {line.strip()}", flush=True)
            if run.returncode:
                raise SystemExit(f"{stage} of {photos:,} photos failed")


if __name__ == "__main__":
    main()
