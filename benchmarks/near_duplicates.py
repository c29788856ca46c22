"""Near-duplicate detection: how many copies are found, and how many different photos are taken for copies.

    python benchmarks/near_duplicates.py [DATASET/images ...]     (default: the sets of FACE_TEST_DATA)

Every photo gets a copy, changed in one way; `cleaning.clean` runs on photos and copies together, once per
way. Recall within a person is the share of copies in their photo's group; across people, where the copy lies
in another person's folder, the share of photos and copies that are both set aside as a label conflict.

False merges are counted on the photos alone: pairs of one person in one group, and photos called the same
picture under two people. A set that does hold duplicates (study6) shows them as merges: look at them before
calling them false. Fixed cameras follow: frames that share all but a drawn person in front of the camera,
none of which may be set aside, and the same frames with copies of some of them under other people.
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
from tests.photos.cameras import frames

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def scaled(pixels: np.ndarray, factor: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def grey(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def grey_by_mean(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.repeat(pixels.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)


def resized(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return scaled(pixels, 0.7)


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
    "re-encoded, quality 95": (lambda pixels, rng: pixels, 95),
    "re-encoded, quality 75": (lambda pixels, rng: pixels, 75),
    "re-encoded, quality 40": (lambda pixels, rng: pixels, 40),
    "re-encoded, quality 30": (lambda pixels, rng: pixels, 30),
    "grey": (grey, 90),
    "grey, the mean of the colours": (grey_by_mean, 90),
    "resized to 70 %": (resized, 90),
    "resized to 30 %": (lambda pixels, rng: scaled(pixels, 0.3), 90),
    "resized to 200 %": (lambda pixels, rng: scaled(pixels, 2), 90),
    "cropped by 3 %": (cropped, 90),
    "cropped by 3 % of every side": (cropped_all_round, 90),
    "cropped by 3 %, resized to 70 %, quality 75": (
        lambda pixels, rng: resized(cropped(pixels, rng), rng),
        75,
    ),
    "neighbouring frame (imitated)": (next_frame, 85),
}


def copies_found(
    photos: pd.DataFrame, folder: Path, change: Change, quality: int, across: bool, seed: int = 0
) -> float:
    """Share of changed copies that are found, within a person or across people."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as temporary:
        mixed = Path(temporary)
        pairs = []
        for number, path in enumerate(photos["path"]):
            person = path.split("/")[0]
            photo, copy = f"{person}/{number:06d} photo", f"{person}{' again' * across}/{number:06d} copy"
            for file in (photo, copy):
                (mixed / file).parent.mkdir(exist_ok=True)
            os.link(folder / path, mixed / photo)
            pixels = np.ascontiguousarray(change(decoding.read_rgb(folder / path), rng))
            (mixed / copy).write_bytes(simplejpeg.encode_jpeg(pixels, quality=quality))
            pairs.append((photo, copy))
        images = cleaning.clean(finding.find(mixed), mixed, minimum_side=1).set_index("path")
        status, group, twin = (images[column].to_dict() for column in ("status", "group", "duplicate_of"))
        found = [
            status[photo] == status[copy] == "label conflict"
            if across
            else group[copy] == group[photo] >= 0 or twin[copy] == photo
            for photo, copy in pairs
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


# ---------------------------------------------------------------- fixed cameras


def fixed_camera(seed: int, one_spot: bool, planted: int = 16) -> dict[str, str]:
    """Frames of one camera that are set aside: alone, and with `planted` copies under other people."""
    rng = np.random.default_rng(seed)
    pictures = frames(seed, one_spot)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path, pixels in pictures.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(simplejpeg.encode_jpeg(pixels, quality=int(rng.integers(70, 91))))
        alone = cleaning.clean(finding.find(folder), folder)["status"]
        copied = set()
        for path in rng.choice(sorted(pictures), planted, replace=False):
            factor, share = rng.choice([0.3, 0.5, 0.7, 1, 1.5, 2]), rng.choice([0, 1])
            pixels = cropped(pictures[path], rng) if share else pictures[path]
            other = f"{(int(path[0]) + rng.integers(1, 8)) % 8}/copy of {path.replace('/', ' ')}"
            data = simplejpeg.encode_jpeg(scaled(pixels, factor), quality=int(rng.integers(30, 96)))
            (folder / other).write_bytes(data)
            copied |= {path, other}
        images = cleaning.clean(finding.find(folder), folder)
        conflicts = set(images.loc[images["status"] == "label conflict", "path"])
    return {
        "set aside": f"{(alone != 'ok').sum()} of {len(alone)}",
        "planted conflicts found": f"{len(conflicts & copied)} of {len(copied)}",
        "others set aside with them": str(len(conflicts - copied)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--photos", type=int, default=1000, help="at most, per set")
    parser.add_argument("--cameras", type=int, default=3, help="fixed cameras that are drawn")
    options = parser.parse_args()
    real = Path(os.environ.get("FACE_TEST_DATA", "."))
    folders = options.folders or [real / name / "images" for name in ("lfw3d", "frmdb", "study6")]
    recall: dict[tuple[str, str], dict[str, float]] = {}
    merges = {}
    for folder in folders:
        photos = cleaning.clean(finding.find(folder), folder)
        merges[folder.parent.name] = merged(photos)
        # Of what the set itself holds twice, one photo is enough.
        single = photos[(photos["status"] == "ok") & ~photos["group"].duplicated()]
        single = single.sample(min(options.photos, len(single)), random_state=0).sort_values("path")
        for across in (False, True):
            recall[folder.parent.name, "across people" if across else "within a person"] = {
                name: round(copies_found(single, folder, change, quality, across), 4)
                for name, (change, quality) in CHANGES.items()
            }
    for table in (recall, merges):
        print(pd.DataFrame(table).to_string(), "\n", flush=True)
    cameras = {
        (f"camera {seed}", "one spot" if one_spot else "anywhere"): fixed_camera(seed, one_spot)
        for seed in range(options.cameras)
        for one_spot in (False, True)
    }
    print(pd.DataFrame(cameras).to_string())


if __name__ == "__main__":
    main()
