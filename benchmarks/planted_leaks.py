"""Copies planted in a set of photos: how many end on both sides of the split, without and with the pass.

    python -m benchmarks.planted_leaks FACE_TEST_DATA [--sets lfw3d study6 ...] [--people 60]

FACE_TEST_DATA holds one folder per set, with `images/<person>/...` in it, and the pack `models/standin`. Each
usable photo gets one copy under a random name, changed in one of KINDS, in its person's folder or, one in
five, in somebody else's. Photos and copies together go through cleaning, detection, the second pass and the
split, as in the notebook. Reported are, for each kind,

- how many copies were planted, and how many were still there after cleaning (others are set aside as a
  duplicate or a label conflict, which leaks nothing);
- how many of these are not in their photo's group, without and with the second pass;
- how many of these stand on the other side of a split, without and with it, the mean over `--splits` seeds.

The price is counted on the set as it is, without planted copies: photos that the second pass ties to a photo
of another group. Whether these show one scene, as frames of one video do, only a look at them tells:
`--sheet FOLDER` writes the pairs as pictures, to be looked at and not to be passed on.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import simplejpeg

from src import plots
from src.networks.embedding import embed
from src.packs import faces, second_pass
from src.packs import pack as packs
from src.photos import cleaning, decoding, finding, grouping, splitting

Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def recropped(share: float) -> Change:
    """Takes a share of the width and of the height, at random sides, around the face, as a detector would."""

    def change(pixels: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        corners = []
        for size, low, high in ((pixels.shape[0], box[1], box[3]), (pixels.shape[1], box[0], box[2])):
            kept = round((1 - share) * size)
            # where the face does not fit, the middle of it stays in the middle third
            slack = max(0.0, kept - (high - low)) or kept / 3
            start = (low + high) / 2 - kept / 2 + rng.uniform(-0.5, 0.5) * slack
            corners.append(int(np.clip(round(start), 0, size - kept)))
        height, width = (round((1 - share) * size) for size in pixels.shape[:2])
        return pixels[corners[0] : corners[0] + height, corners[1] : corners[1] + width]

    return change


def face_of(side: float, enlarged: bool) -> Change:
    """Shrinks the photo so that its face has a longer side of so many px; enlarged: back to its own size."""

    def change(pixels: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        scale = min(1.0, side / max(box[2] - box[0], box[3] - box[1]))
        # what cleaning takes for too small would not be tested
        scale = min(1.0, max(scale, 17 / min(pixels.shape[:2])))
        height, width = pixels.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) if enlarged else small

    return change


def grey(pixels: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def mirrored(pixels: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return pixels[:, ::-1]


def same(pixels: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return pixels


def both(*changes: Change) -> Change:
    """One after the other. A crop comes last, as the others need to know where the face is."""

    def change(pixels: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for one in changes:
            pixels = one(pixels, box, rng)
        return pixels

    return change


def then_mirrored(first: Change) -> Change:
    return lambda pixels, box, rng: first(pixels, box, rng)[:, ::-1]


def cropped_then_shrunk(share: float, side: float) -> Change:
    """The face has `side` px after the crop."""

    def change(pixels: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return face_of(side, False)(recropped(share)(pixels, box, rng), box, rng)

    return change


KINDS: dict[str, tuple[Change, int]] = {  # and the JPEG quality of the copy
    "recropped by 10 %": (recropped(0.1), 90),
    "recropped by 20 %": (recropped(0.2), 90),
    "recropped by 40 %": (recropped(0.4), 90),
    "blurred to 16 px": (face_of(16, True), 90),
    "shrunk to 24 px": (face_of(24, False), 90),
    "JPEG 20": (same, 20),
    "grey": (grey, 90),
    "mirrored": (mirrored, 90),
    "recropped by 20 %, blurred to 16 px": (both(face_of(16, True), recropped(0.2)), 90),
    "recropped by 20 %, grey, mirrored": (then_mirrored(both(grey, recropped(0.2))), 90),
    "recropped by 40 %, shrunk to 24 px": (cropped_then_shrunk(0.4, 24), 90),
    "shrunk to 24 px, mirrored, JPEG 20": (then_mirrored(face_of(24, False)), 20),
    "recropped by 40 %, grey, mirrored, JPEG 20": (then_mirrored(both(grey, recropped(0.4))), 20),
}
ACROSS = 0.2  # of the copies lie under another person


def plant(photos: pd.DataFrame, folder: Path, target: Path, seed: int) -> pd.DataFrame:
    """Puts the photos into `target`, and a changed copy of each usable one beside them or under others.

    photos: `path`, `identity`, `status`, `left`, `top`, `right`, `bottom` of the likeliest face, in px.
    Returns a row per copy: `photo`, `copy` (paths), `kind`, `across`.
    """
    rng = np.random.default_rng(seed)
    rows, people = [], photos["identity"].unique()
    kinds = list(KINDS)
    usable = photos[photos["status"] == "ok"]
    for place, photo in enumerate(usable.sample(frac=1, random_state=seed).itertuples()):
        kind = kinds[place % len(kinds)]
        across = bool(rng.random() < ACROSS)
        where = Path(str(photo.path)).parts
        if across:
            others = people[people != photo.identity]
            where = (str(rng.choice(others)), *where[1:])
        change, quality = KINDS[kind]
        box = np.array([photo.left, photo.top, photo.right, photo.bottom], float)
        pixels = np.ascontiguousarray(change(decoding.read_rgb(folder / str(photo.path)), box, rng))
        copy = Path(*where[:-1], f"{rng.bytes(6).hex()}.jpg")
        (target / copy).parent.mkdir(parents=True, exist_ok=True)
        (target / copy).write_bytes(simplejpeg.encode_jpeg(pixels, quality=quality))
        rows.append((photo.path, copy.as_posix(), kind, across))
    for path in photos["path"]:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target / path)
    return pd.DataFrame(rows, columns=["photo", "copy", "kind", "across"])


def run(
    name: str, real: Path, pack: packs.Pack, people: int, seeds: int, sheet: Path | None
) -> tuple[pd.DataFrame, dict]:
    """The copies planted in one set, a row each, and what the second pass ties in the set as it is."""
    folder = real / name / "images"
    with tempfile.TemporaryDirectory() as temporary:
        mixed = Path(temporary)
        files = finding.find(folder)
        chosen = sorted(set(files["identity"]) - {""})[:people]
        files = files[files["identity"].isin(chosen)].reset_index(drop=True)
        clean, candidates, crops, same, seconds = searched(files, folder, pack)
        price = tied(clean, same) | {"seconds": f"{seconds:.0f}"}
        if sheet is not None:
            _draw(same, candidates, crops, sheet / f"{name}.png")
        photos = clean.merge(candidates.drop_duplicates("path"), on="path", how="left")
        plan = plant(photos, folder, mixed, 0)
        clean, _, _, same, _ = searched(finding.find(mixed), mixed, pack)
    return plan.assign(set=name, **followed(plan, clean, same, seeds)), {"set": name, **price}


def searched(files: pd.DataFrame, folder: Path, pack: packs.Pack) -> tuple:
    """Cleaning, detection and the second pass, as in the notebook; and the seconds that the last took."""
    clean = cleaning.clean(files, folder)
    candidates, crops = faces.every_face(clean, folder, pack)
    start = time.perf_counter()
    same = second_pass.same_pictures(clean, candidates, crops, embed(crops, pack))
    return clean, candidates, crops, same, time.perf_counter() - start


def tied(clean: pd.DataFrame, same: pd.DataFrame) -> dict[str, str]:
    usable = clean[clean["status"] == "ok"]
    group, _ = grouping.merged(clean, same)
    sizes = pd.Series(group[group >= 0]).value_counts()
    within, across = (
        set(part["path"]) | set(part["other"]) for part in (same[~same["across"]], same[same["across"]])
    )
    return {
        "photos": str(len(usable)),
        "tied within people": f"{len(within)} ({len(within) / len(usable):.1%})",
        "across": f"{len(across)} ({len(across) / len(usable):.1%})",
        "largest group": str(sizes.iloc[0]),
    }


def followed(
    plan: pd.DataFrame, clean: pd.DataFrame, same: pd.DataFrame, seeds: int
) -> dict[str, np.ndarray]:
    """Of each copy: whether cleaning left it, and whether it is apart from its photo, without and with it."""
    place = pd.Series(np.arange(len(clean)), index=clean["path"])
    photo, copy = (place[plan[side]].to_numpy() for side in ("photo", "copy"))
    usable = (clean["status"] == "ok").to_numpy()
    left = usable[photo] & usable[copy]
    result = {"left": left}
    for what, ties in (("without", None), ("with", same)):
        group, _ = grouping.merged(clean, ties)
        result[f"apart {what}"] = left & (group[photo] != group[copy])
        crossing = np.zeros(len(plan))
        for seed in range(seeds):
            split = splitting.split(clean, seed=seed, ties=ties)["split"].to_numpy()
            crossing += left & (split[photo] != split[copy])
        result[f"crossing {what}"] = crossing / seeds
    return result


def _draw(same: pd.DataFrame, candidates: pd.DataFrame, crops: np.ndarray, file: Path) -> None:
    row = pd.Series(np.arange(len(candidates)), index=candidates["path"])
    row = row[~row.index.duplicated()]
    pairs = [
        np.concatenate([crops[row[a]], crops[row[b]]], axis=1)
        for a, b in zip(same["path"], same["other"], strict=True)
    ]
    titles = [
        f"{value:.3f}{' across' * across}"
        for value, across in zip(same["correlation"], same["across"], strict=True)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    plots.save(plots.contact_sheet(pairs[:240], titles[:240], columns=8), file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=["lfw3d", "study6", "frmdb", "cfp300"])
    parser.add_argument("--people", type=int, default=60, help="of each set, at most")
    parser.add_argument("--splits", type=int, default=5, help="seeds of the split")
    parser.add_argument(
        "--sheet", type=Path, help="folder for pictures of what is tied in the sets as they are"
    )
    options = parser.parse_args()
    pack = packs.load(str(options.folder / "models" / "standin"))
    copies, prices = [], []
    for name in options.sets:
        planted, price = run(name, options.folder, pack, options.people, options.splits, options.sheet)
        copies.append(planted)
        prices.append(price)
        print(pd.DataFrame(prices).to_string(index=False), flush=True)
        print(counted(pd.concat(copies)).to_string(), "\n", flush=True)


def counted(copies: pd.DataFrame) -> pd.DataFrame:
    numbers = {"left": "sum"} | {
        f"{what} {how}": "sum" for how in ("without", "with") for what in ("apart", "crossing")
    }
    table = copies.groupby(["kind", "across"]).agg(
        planted=("left", "size"), **{k: (k, v) for k, v in numbers.items()}
    )
    return pd.concat([table, table.sum().to_frame(("all", "")).T]).round(1)


if __name__ == "__main__":
    main()
