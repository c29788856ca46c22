"""Throughput of the loop that everyone writes against ours, on the same photos, side by side in one run.

    python -m benchmarks.detection_speed --root FACE_TEST_DATA frmdb/images lfw3d/images

The loop is `app.get(cv2.imread(photo))` with `FaceAnalysis` as it comes. Ours is `faces.every_face` and
`pack.recognise`, that is detection with all retries, alignment, and an embedding of every face, as in the
loop. They take turns on slices of the photos, so that a busy computer slows both alike. Then the time of each
step, one photo at a time.
"""

import argparse
import os
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from insightface.app import FaceAnalysis

from src.packs import faces
from src.packs.pack import Pack, load
from src.photos import decoding, finding


def compare(folder: Path, paths: list[str], app: FaceAnalysis, pack: Pack, turns: int) -> dict:
    """Images per second and detection rate of both, each on all of `paths`."""
    table = pd.DataFrame({"path": paths, "status": "ok"})
    seconds = {"loop": 0.0, "ours": 0.0}
    found, every = {"loop": 0, "ours": 0}, 0
    for turn in range(turns):
        part = table.iloc[turn::turns]

        start = time.perf_counter()
        for path in part["path"]:
            found["loop"] += bool(app.get(cv2.imread(str(folder / path))))
        seconds["loop"] += time.perf_counter() - start

        start = time.perf_counter()
        rows, crops = faces.every_face(part, folder, pack)
        pack.recognise(crops)
        seconds["ours"] += time.perf_counter() - start
        found["ours"] += rows.loc[rows["found"] != faces.WHOLE, "path"].nunique()
        every += len(crops)
    return {
        "photos": len(table),
        "loop images/s": len(table) / seconds["loop"],
        "ours images/s": len(table) / seconds["ours"],
        "times as fast": seconds["loop"] / seconds["ours"],
        "loop finds": found["loop"] / len(table),
        "ours finds": found["ours"] / len(table),
        "faces a photo": every / len(table),
    }


def steps(folder: Path, paths: list[str], pack: Pack) -> dict[str, float]:
    """Milliseconds a photo of each step, one photo at a time."""
    spent = dict.fromkeys(("decode", "find and align", "recognise"), 0.0)

    def timed(step: str, function: Callable[..., Any], *args: Any) -> Any:
        start = time.perf_counter()
        result = function(*args)
        spent[step] += time.perf_counter() - start
        return result

    for path in paths:
        photo = timed("decode", decoding.read_rgb, folder / path)
        _, crop = timed("find and align", faces.find_faces, photo, pack)[0]
        timed("recognise", pack.recognise, crop[None])
    return {step: value / len(paths) * 1000 for step, value in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", help="folders of photos below --root")
    parser.add_argument("--root", type=Path, default=os.environ.get("FACE_TEST_DATA", "."))
    parser.add_argument("--pack", default="standin", help="a pack's name below --root/models, or its folder")
    parser.add_argument("--photos", type=int, default=400, help="how many of each folder, drawn at random")
    parser.add_argument("--turns", type=int, default=4)
    options = parser.parse_args()

    warnings.simplefilter("ignore", FutureWarning)  # of what InsightFace calls in scikit-image
    pack = load(options.pack, root=options.root)
    app = FaceAnalysis(name=str(pack.folder), providers=list(pack.providers))
    app.prepare(ctx_id=0)
    app.get(np.zeros((64, 64, 3), np.uint8))  # sets up what is only set up once
    results, shares = {}, {}
    for name in options.folders:
        folder = Path(options.root) / name
        paths = finding.find(folder)["path"].tolist()
        paths = random.Random(0).sample(paths, min(options.photos, len(paths)))
        results[name] = compare(folder, paths, app, pack, options.turns)
        shares[name] = steps(folder, paths[:100], pack)
    print(f"pack {pack.name} on {', '.join(pack.providers)}, {os.cpu_count()} cores")
    print(pd.DataFrame(results).T.round(2).to_string())
    print("\nmilliseconds a photo, one photo at a time")
    print(pd.DataFrame(shares).T.round(1).to_string())


if __name__ == "__main__":
    main()
