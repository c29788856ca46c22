"""Photos and pairs on this machine and on a Ray cluster: seconds, and whether all that comes out is the same.

    python -m benchmarks.cluster PHOTOS PACK --cores 1 2

PHOTOS is a folder with one subfolder per person, PACK a folder of ONNX files. Each row runs in a process of
its own that may use so many cores. Embeddings are those of the pack; pairs are counted of `--pairs` photos.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.all_pairs import test_set
from src import workers
from src.evaluation import counting, pairs
from src.networks import embedding
from src.packs import faces, pack
from src.photos import cleaning, finding

STAGES = ("start", "cleaning", "faces", "embeddings", "pairs")


def measure(way: str, photos: Path, folder: Path, out: Path, count: int) -> dict[str, float]:
    """Seconds of each stage; what the stages gave is written to `out`."""
    seconds: dict[str, float] = {}
    given: dict[str, Any] = {}

    def timed(stage: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        given[stage] = function(*arguments, **options)
        seconds[stage] = time.perf_counter() - begun
        return given[stage]

    embedding.WORTH = counting._EXACT = 0  # however small the set is
    timed("start", workers.join, "local" if way == "Ray" else "")
    found = finding.find(photos)
    clean = timed("cleaning", cleaning.clean, found, photos, workers=workers.cores())
    tool = pack.load(folder)
    with tempfile.TemporaryDirectory() as place:
        _, crops = timed("faces", faces.every_face, clean, photos, tool, workspace=Path(place))
        timed("embeddings", embedding.embed, crops, tool, batch_size=64, mirrored=True)
        given["faces"] = given["faces"][0], np.array(crops)
    vectors, test = test_set(count, 512, 20)
    everyone = np.ones(count, bool)
    counts = timed("pairs", pairs.count_pairs, vectors, test, everyone, ~everyone, "numpy")
    given["pairs"] = {name: [getattr(c, f.name) for f in fields(c)] for name, c in counts.items()}
    out.write_bytes(pickle.dumps(given))
    workers.join("")
    return seconds


def same(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """In words, what is the same of two runs."""
    said = ["cleaning " + ("identical" if one["cleaning"].equals(other["cleaning"]) else "DIFFERS")]
    table, crops = (np.array_equal(a, b) for a, b in zip(one["faces"], other["faces"], strict=True))
    table = one["faces"][0].equals(other["faces"][0])
    said.append("faces " + ("identical" if table and crops else "DIFFER"))
    said.append(f"embeddings within {np.abs(one['embeddings'] - other['embeddings']).max():.1e}")
    counted = all(
        np.array_equal(a, b)
        for name, parts in one["pairs"].items()
        for a, b in zip(parts, other["pairs"][name], strict=True)
    )
    return [*said, "pairs " + ("identical" if counted else "DIFFER")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=8000, help="photos of which all pairs are counted")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: arguments.cores[0]]))
        way, out = arguments.one
        seconds = measure(way, arguments.photos, arguments.pack, Path(out), arguments.pairs)
        print(json.dumps(seconds))
        return
    print(f"{'':>12}" + "".join(f"{stage:>12}" for stage in STAGES) + "  seconds")
    first: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for way in ("here", "Ray"):
            for cores in arguments.cores:
                out = str(Path(place) / "given")
                command = [sys.executable, "-m", "benchmarks.cluster", arguments.photos, arguments.pack]
                command += ["--cores", str(cores), "--pairs", str(arguments.pairs), "--one", way, out]
                run = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds = json.loads(run.stdout.splitlines()[-1])
                given = pickle.loads(Path(out).read_bytes())
                first = first or given
                print(
                    f"{way + ', ' + str(cores):>12}" + "".join(f"{seconds[s]:>12.1f}" for s in STAGES),
                    "; ".join(same(first, given)),
                    flush=True,
                )


if __name__ == "__main__":
    main()
