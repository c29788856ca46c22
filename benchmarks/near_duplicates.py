"""Near-duplicate detection on real photos: how many copies are found, how many different photos are merged.

    python benchmarks/near_duplicates.py [DATASET/images ...]     (default: the sets of FACE_TEST_DATA)

Every photo gets a copy, changed in one way; `cleaning.clean` runs on photos and copies together, once per
way. Recall is the share of copies in their photo's group. False merges are counted on the photos alone:
pairs of one person in one group, and photos called the same picture under two people. A set that does hold
duplicates (study6) shows them as merges: look at them before calling them false.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import simplejpeg

from src.photos import cleaning, decoding, finding

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def resized(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    size = (max(1, round(width * 0.7)), max(1, round(height * 0.7)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def cropped(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Takes 3 % of the width and 3 % of the height, at random sides."""
    height, width = pixels.shape[:2]
    top, left = rng.uniform(0, 0.03 * height), rng.uniform(0, 0.03 * width)
    return pixels[round(top) : round(top + 0.97 * height), round(left) : round(left + 0.97 * width)]


def cropped_all_round(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Takes 3 % of every side."""
    height, width = pixels.shape[:2]
    return pixels[round(0.03 * height) : round(0.97 * height), round(0.03 * width) : round(0.97 * width)]


def next_frame(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Imitates a neighbouring video frame: a small move, turn and zoom, a little light, fresh noise."""
    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-1, 1), rng.uniform(0.98, 1.02))
    turn[:, 2] += rng.uniform(-0.015, 0.015, 2) * np.array([width, height])
    moved = cv2.warpAffine(pixels, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    noisy = moved * rng.uniform(0.95, 1.05) + rng.normal(0, 3, moved.shape)
    return noisy.clip(0, 255).astype(np.uint8)


CHANGES: dict[str, tuple[Change, int]] = {  # and the JPEG quality of the copy
    "re-encoded, quality 75": (lambda pixels, rng: pixels, 75),
    "re-encoded, quality 40": (lambda pixels, rng: pixels, 40),
    "resized to 70 %": (resized, 90),
    "cropped by 3 %": (cropped, 90),
    "cropped by 3 % of every side": (cropped_all_round, 90),
    "cropped by 3 %, resized to 70 %, quality 75": (
        lambda pixels, rng: resized(cropped(pixels, rng), rng),
        75,
    ),
    "neighbouring frame (imitated)": (next_frame, 85),
}


def copies_found(photos: pd.DataFrame, folder: Path, change: Change, quality: int, seed: int = 0) -> float:
    """Share of changed copies that end in the group of their photo, or are called its exact copy."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as temporary:
        mixed = Path(temporary)
        for number, path in enumerate(photos["path"]):
            person = mixed / path.split("/")[0]
            person.mkdir(exist_ok=True)
            os.link(folder / path, person / f"{number:06d} photo")
            pixels = np.ascontiguousarray(change(decoding.read_rgb(folder / path), rng))
            (person / f"{number:06d} copy").write_bytes(simplejpeg.encode_jpeg(pixels, quality=quality))
        images = cleaning.clean(finding.find(mixed), mixed, minimum_side=1)
        groups = images.set_index("path")["group"]
        twins = images["duplicate_of"].to_numpy()
        names = images["path"].to_numpy()
        copies = [name for name in names if name.endswith("copy")]
        twin_of = dict(zip(names, twins, strict=True))
        found = [
            groups[name] == groups[name[:-4] + "photo"] >= 0 or twin_of[name] == name[:-4] + "photo"
            for name in copies
        ]
        return float(np.mean(found))


def merged(photos: pd.DataFrame) -> dict[str, str]:
    usable = photos[photos["status"] == "ok"]
    people = usable["identity"].value_counts().to_numpy()
    sizes = usable["group"].value_counts().to_numpy()
    within, between = (people * (people - 1) // 2).sum(), (people.sum() ** 2 - (people**2).sum()) // 2
    pairs = (sizes * (sizes - 1) // 2).sum()
    conflicts = (photos["status"] == "label conflict").sum()
    return {
        "photos": str(len(photos)),
        "pairs of one person, merged": f"{pairs} of {within:,}",
        "photos under two people": f"{conflicts} (of {between:,} pairs)",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--photos", type=int, default=1000, help="at most, per set")
    options = parser.parse_args()
    real = Path(os.environ.get("FACE_TEST_DATA", "."))
    folders = options.folders or [real / name / "images" for name in ("lfw3d", "frmdb", "study6")]
    recall, merges = {}, {}
    for folder in folders:
        photos = cleaning.clean(finding.find(folder), folder)
        merges[folder.parent.name] = merged(photos)
        # Of what the set itself holds twice, one photo is enough.
        single = photos[(photos["status"] == "ok") & ~photos["group"].duplicated()]
        single = single.sample(min(options.photos, len(single)), random_state=0).sort_values("path")
        recall[folder.parent.name] = {
            name: round(copies_found(single, folder, change, quality), 4)
            for name, (change, quality) in CHANGES.items()
        }
    print(pd.DataFrame(recall).to_string(), "\n", pd.DataFrame(merges).to_string(), sep="\n")


if __name__ == "__main__":
    main()
