"""Probes that show nobody known: smears, no face at all, other people's photos, as they are and made as bad.

Held against the people in training, none of them should be taken for one. Each probe belongs to a split:
models learn from "train" that there are others, "val" chooses thresholds, "test" is counted. No photo is in
two of them, and no stranger.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from src.artifacts import cached, uses
from src.limits import NotPossible, attempt
from src.networks.embedding import embed, unit_rows
from src.networks.recognisability import SMEARS
from src.packs import faces as face_finding
from src.packs.alignment import SIDE, TEMPLATE
from src.photos import cleaning, decoding, fetching, finding
from src.photos.paths import open_path, place

if TYPE_CHECKING:
    from src.packs.pack import Pack

NO_FACE = "no face"
OTHERS, OTHERS_BAD = "others' photos", "others' photos, made as bad"
MOST = {"train": 400, "val": 200, "test": 200}  # probes of a kind
MOST_OTHERS = 400  # people that are looked at, of a folder with more
PHOTOS_EACH = 3  # photos of one of them
STANDS_OUT = 6.0  # robust standard deviations by which somebody is nearer than other strangers are
SMEAR_SIDES = (7, 12)  # px that are left across a crop: a face of 4 to 7 px
_EYES = float(np.linalg.norm(TEMPLATE[1] - TEMPLATE[0]))  # px between the eyes in a crop
_BLOCK = SIDE // 4  # px, of what is scrambled
_SIGMAS = (0.0, 0.5, 0.8, 1.2, 1.7, 2.3, 3.0, 4.0)  # px, of the blurs that are tried


# ---------------------------------------------------------------- from the user's own photos


@uses(faces=("path", "identity", "split", "found", "n_faces", "left", "top", "right", "bottom"))
def nobody(
    faces: pd.DataFrame, crops: np.ndarray, folder: Path, seed: int = 0
) -> tuple[pd.DataFrame, np.ndarray]:
    """Smears of the user's crops, and what of the photos shows no face: a table of probes, and their crops.

    faces: of `faces.table`, row i being crop i, uint8 `[N, 112, 112, 3]` RGB. Photos make probes of their own
    split; where there is no val, every second one of train makes those of "val".
    In a smear of 7 to 12 pixels nobody can be told. What shows no face is a window of the photo, as large as
    the face and clear of it; where there are few of those, crops cut into blocks and put together anew.

    Columns: `kind`, `split`, `identity` (whose photo it was made of; photos of one person count together) and
    `path`. Returns them with crops uint8 `[M, 112, 112, 3]` RGB.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for split, rows in _rows(faces).items():
        if not len(rows):
            continue
        chosen = np.resize(rng.permutation(rows), MOST[split])  # of few photos, several smears each
        parts += [(SMEARS, split, row, smeared(crops[row], rng)) for row in chosen]
        patches = _patches(faces, np.unique(chosen), folder, rng)
        scrambles = chosen[: max(0, MOST[split] // 2 - len(patches))]
        patches += [(row, scrambled(crops[row], rng)) for row in scrambles]
        parts += [(NO_FACE, split, row, patch) for row, patch in patches]
    table = pd.DataFrame([part[:3] for part in parts], columns=["kind", "split", "row"])
    made_of = faces.loc[table["row"], ["identity", "path"]].reset_index(drop=True)
    return table.drop(columns="row").join(made_of), _stacked([part[3] for part in parts])


def smeared(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop, uint8 `[112, 112, 3]`, of which 7 to 12 pixels across are left: a face of 4 to 7."""
    side = int(rng.integers(SMEAR_SIDES[0], SMEAR_SIDES[1] + 1))
    small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    up = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(3))]
    return cv2.resize(small, (SIDE, SIDE), interpolation=up)


def scrambled(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop, uint8 `[112, 112, 3]`, cut into 16 blocks that are put together anew, some of them mirrored."""
    across = SIDE // _BLOCK
    blocks = crop.reshape(across, _BLOCK, across, _BLOCK, 3).swapaxes(1, 2).reshape(-1, _BLOCK, _BLOCK, 3)
    blocks = blocks[rng.permutation(len(blocks))]
    mirrored = rng.random(len(blocks)) < 0.5
    blocks = np.where(mirrored[:, None, None, None], blocks[:, :, ::-1], blocks)
    return blocks.reshape(across, across, _BLOCK, _BLOCK, 3).swapaxes(1, 2).reshape(SIDE, SIDE, 3)


def _rows(faces: pd.DataFrame) -> dict[str, np.ndarray]:
    """Rows of the photos that make the probes of each split."""
    split = faces["split"].to_numpy(str)
    train, val = np.flatnonzero(split == "train"), np.flatnonzero(split == "val")
    if not len(val):
        train, val = train[::2], train[1::2]
    return {"train": train, "val": val, "test": np.flatnonzero(np.char.startswith(split, "test"))}


def _patches(
    faces: pd.DataFrame, rows: np.ndarray, folder: Path, rng: np.random.Generator
) -> list[tuple[int, np.ndarray]]:
    """Windows of photos that hold one face, clear of it and as large: rows of `faces`, and crops."""
    patches = []
    alone = rows[((faces["found"] != face_finding.WHOLE) & (faces["n_faces"] == 1)).to_numpy()[rows]]
    for row in tqdm(alone, desc="patches without a face", leave=False):
        left, top, right, bottom = faces.loc[row, ["left", "top", "right", "bottom"]].astype(float)
        side = round(max(right - left, bottom - top))
        photo = decoding.read_rgb(open_path(folder, faces.loc[row, "path"]))
        height, width = photo.shape[:2]
        if side < 16 or side > min(height, width):
            continue
        for _ in range(8):
            x, y = (int(rng.integers(0, room + 1)) for room in (width - side, height - side))
            apart_x = x + side <= left - 0.1 * side or x >= right + 0.1 * side
            if apart_x or y + side <= top - 0.2 * side or y >= bottom + 0.1 * side:
                window = photo[y : y + side, x : x + side]
                patches.append((int(row), cv2.resize(window, (SIDE, SIDE), interpolation=cv2.INTER_AREA)))
                break
    return patches


# ---------------------------------------------------------------- other people's photos


@uses(faces=("identity", "quality", "split", "eye_distance"))
def others(
    photos: Path,
    pack: "Pack",
    faces: pd.DataFrame,
    crops: np.ndarray,
    known: np.ndarray,
    seed: int = 0,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Photos of other people, as they are and made as bad as the user's: a table of probes, and their crops.

    photos: a folder with a subfolder per person, or any layout that `finding.find` knows. faces, crops: the
    user's, uint8 `[N, 112, 112, 3]` RGB, and known, float32 `[N, D]`, the pack's embeddings of them.
    Lots divide the people among the splits. Somebody who looks like one of the people in training is left
    out: the same person may be in both sets.

    Columns as of `nobody`, and `note`, where people were left out, how many. Raises NotPossible where the
    folder holds no other people.
    """
    files = finding.find(photos).sort_values("path")
    rng = np.random.default_rng(seed)
    people = rng.permutation(np.unique(files["identity"]))[:MOST_OTHERS]
    drawn = files[files["identity"].isin(people)].sample(frac=1, random_state=rng)
    drawn = drawn.groupby("identity").head(PHOTOS_EACH).sort_values("path")
    clean = cleaning.clean(drawn.reset_index(drop=True), photos)
    if not (clean["status"] == "ok").any():
        raise NotPossible(f"{photos} holds no usable photo of other people")
    found, theirs = face_finding.extract(clean, photos, pack)
    table = face_finding.table(clean, found)
    seen = (table["found"] != face_finding.WHOLE).to_numpy()
    if not seen.any():
        raise NotPossible(f"in none of the {len(table)} photos tried of {photos} a face was found")
    table, theirs = table[seen].reset_index(drop=True), theirs[seen]
    alike = resembling(embed(theirs, pack), table["identity"], known, faces)
    left = ~table["identity"].isin(alike).to_numpy()
    table, theirs = table[left].reset_index(drop=True), theirs[left]
    if table.empty:
        raise NotPossible(f"{photos} holds no photo of people other than those in training")
    worse = as_bad_as(theirs, crops, faces, seed)
    split = table["identity"].map({name: ("train", "val", "test")[i % 3] for i, name in enumerate(people)})
    note = f"{len(alike)} people look like somebody in training and are left out" if alike else ""
    rows = table[["identity", "path"]].assign(split=split, note=note)
    both = pd.concat([rows.assign(kind=OTHERS), rows.assign(kind=OTHERS_BAD)], ignore_index=True)
    return both, np.concatenate([theirs, worse])


def resembling(
    embeddings: np.ndarray, identity: pd.Series, known: np.ndarray, faces: pd.DataFrame
) -> list[str]:
    """Who among others is likely one of the people in training: the same celebrity may be in both sets.

    embeddings: float32 `[M, D]` of the others' photos, with their `identity`. known: float32 `[N, D]` of the
    user's, row i being row i of `faces`. Somebody is left out whose likest photo is as near to the mean of a
    person in training as nine in ten of that people's own good photos are, and stands out from all others by
    `STANDS_OUT` robust standard deviations. A mere look-alike stays: that is what is tested.
    """
    training = (faces["split"] == "train").to_numpy()
    people = faces["identity"].to_numpy()[training]
    unit = unit_rows(known[training])
    names = np.unique(people)
    means = unit_rows(np.stack([unit[people == name].mean(0) for name in names]))
    own = (unit * means[np.searchsorted(names, people)]).sum(1)
    good = (faces["quality"] != "low").to_numpy()[training]
    nearest = pd.Series((unit_rows(embeddings) @ means.T).max(1)).groupby(identity.to_numpy()).max()
    middle = nearest.median()
    spread = 1.4826 * (nearest - middle).abs().median()
    least = max(np.quantile(own[good] if good.any() else own, 0.1), middle + STANDS_OUT * spread)
    return [str(name) for name in nearest.index[nearest >= least]]


def as_bad_as(good: np.ndarray, crops: np.ndarray, faces: pd.DataFrame, seed: int = 0) -> np.ndarray:
    """Crops uint8 `[M, 112, 112, 3]`, each made as bad as one low-quality photo of train or val, by lot.

    crops: the user's, row i being row i of `faces`, with `eye_distance` in pixels. The eyes come as close
    together as in that photo, then what JPEG leaves at quality 50, then the blur that brings the crop's fine
    detail to that photo's. Without low-quality photos, any of train and val are the models.
    """
    rng = np.random.default_rng(seed)
    usable = faces["split"].isin(["train", "val"]) & faces["eye_distance"].notna()
    low = usable & (faces["quality"] == "low")
    rows = np.flatnonzero(low if low.any() else usable)
    if not len(rows):
        raise NotPossible("no face was found in the photos of train and val, to make others' as bad")
    worse = np.empty_like(good)
    for i, crop in enumerate(good):
        model = int(rng.choice(rows))
        side = round(SIDE * min(1.0, float(faces["eye_distance"].iloc[model]) / _EYES))
        small = cv2.resize(crop, (max(4, side),) * 2, interpolation=cv2.INTER_AREA)
        packed = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
        unpacked = cv2.imdecode(packed, cv2.IMREAD_COLOR)  # the order of the colours does not matter here
        assert unpacked is not None
        large = cv2.resize(unpacked, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        wanted = detail(crops[model])
        blurred = [large if s == 0 else cv2.GaussianBlur(large, (0, 0), s) for s in _SIGMAS]
        worse[i] = min(blurred, key=lambda image: abs(np.log(detail(image) / wanted)))
    return worse


def detail(crop: np.ndarray) -> float:
    """How much fine detail a crop shows: the size of its Laplacian against its contrast, above 0."""
    luma = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)[16:-16, 16:-16]
    return float(np.abs(cv2.Laplacian(luma, cv2.CV_32F)).mean() / (luma.std() + 1.0)) + 1e-4


# ---------------------------------------------------------------- all of them


def gather(
    faces: pd.DataFrame,
    crops: np.ndarray,
    folder: Path,
    strangers: str,
    pack: "Pack",
    known: np.ndarray,
    out: Path,
    seed: int = 0,
) -> tuple[pd.DataFrame, np.ndarray]:
    """All probes, each part kept below `out`: `nobody`'s, and `others`' of the folder `strangers`.

    "lfw" is Labeled Faces in the Wild; with "" there are no others. The rest as of these two functions.
    """
    stored = (out / "nobody.parquet", out / "nobody.npy")
    parts = [cached(stored, nobody, faces, crops, folder, seed)]
    if strangers:
        stored = (out / "others.parquet", out / "others.npy")
        of_others = fetching.lfw() if strangers == "lfw" else place(strangers)
        found = attempt(cached, stored, others, of_others, pack, faces, crops, known, seed)
        if isinstance(found, NotPossible):
            print(f"strangers: {found}")
        else:
            print(found[0]["note"].iloc[0], end="\n" if found[0]["note"].iloc[0] else "")
            parts.append(found)
    table = pd.concat([part[0] for part in parts], ignore_index=True)
    return table.fillna({"note": ""}) if "note" in table else table, np.concatenate([p[1] for p in parts])


def _stacked(crops: list[np.ndarray]) -> np.ndarray:
    return np.stack(crops) if crops else np.empty((0, SIDE, SIDE, 3), np.uint8)
