"""How long all pairs take, and how much memory, against scikit-learn on materialised scores.

    python -m benchmarks.all_pairs --photos 1000 10000 30000 100000
    python -m benchmarks.all_pairs --photos 100000 --device cuda

Each size runs in a process of its own, for its own peak of memory. scikit-learn gets the same pairs (float32
scores, labels) where they fit, and gives the AUC that ours is compared with. Of a GPU, the time to start it
is measured too, its own memory is not.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
from sklearn.metrics import roc_auc_score

from src.evaluation import verification


def test_set(photos: int, dimensions: int, per_person: int) -> tuple[np.ndarray, verification.Trials]:
    """Random embeddings around a centre per person, every other photo of low quality."""
    rng = np.random.default_rng(0)
    identity = np.arange(photos) // per_person
    centres = rng.standard_normal((identity[-1] + 1, dimensions), np.float32)
    vectors = rng.standard_normal((photos, dimensions), np.float32)
    vectors *= 4
    for start in range(0, photos, 8192):
        block = slice(start, start + 8192)
        vectors[block] += centres[identity[block]]
        vectors[block] /= np.linalg.norm(vectors[block], axis=1, keepdims=True)
    quality = (np.arange(photos) % 2).astype(np.int8)
    return vectors, verification.Trials("test", np.arange(photos), identity, (), quality, np.full(photos, -1))


def peak() -> float:
    """Peak memory of this process in GB."""
    scale = 1e9 if sys.platform == "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def measure(way: str, photos: int, dimensions: int, per_person: int, device: str | None) -> dict[str, float]:
    vectors, test = test_set(photos, dimensions, per_person)
    before, start = peak(), time.perf_counter()
    if way == "ours":
        results = verification.evaluate({"model": vectors}, {"test": test}, device=device)
        counts = results["test"]["model"]["all"]
        seconds, used = time.perf_counter() - start, peak()
        table = verification.report({"test": {"model": {"all": counts}}})
        return {"seconds": seconds, "peak_gb": used, "before_gb": before, "auc": table["auc"].item()}
    scores = np.concatenate([vectors[i + 1 :] @ vectors[i] for i in range(photos)])
    same = np.concatenate([test.identity[i + 1 :] == test.identity[i] for i in range(photos)])
    auc = float(roc_auc_score(same, scores))
    return {"seconds": time.perf_counter() - start, "peak_gb": peak(), "before_gb": before, "auc": auc}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, nargs="+", default=[1000, 10_000, 30_000, 100_000])
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--per-person", type=int, default=20)
    parser.add_argument(
        "--reference-until", type=int, default=10_000, help="photos that scikit-learn still gets"
    )
    parser.add_argument(
        "--device", help='"numpy", or a device of torch such as "cuda" (default: as evaluate)'
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        of = (arguments.photos[0], arguments.dimensions, arguments.per_person, arguments.device)
        print(json.dumps(measure(arguments.one, *of)))
        return
    device = arguments.device or "default"
    print(f"{os.cpu_count()} cores, {arguments.dimensions} dimensions, device {device}")
    for photos in arguments.photos:
        for way in ("ours", "scikit-learn"):
            if way == "ours" or photos <= arguments.reference_until:
                options = ["--one", way, "--photos", str(photos), "--dimensions", str(arguments.dimensions)]
                options += ["--per-person", str(arguments.per_person)]
                options += ["--device", arguments.device] if arguments.device else []
                command = [sys.executable, "-m", "benchmarks.all_pairs", *options]
                run = subprocess.run(command, capture_output=True, text=True, check=True)
                found = json.loads(run.stdout.splitlines()[-1])
                pairs = photos * (photos - 1) // 2
                print(
                    f"{photos:>7,} photos {pairs:>13,} pairs {way:>12}: {found['seconds']:8.2f} s, peak "
                    f"{found['peak_gb']:.2f} GB ({found['before_gb']:.2f} before), AUC {found['auc']:.8f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
