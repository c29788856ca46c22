"""Decides who and what is tested: a split in which nothing leaks, its folders, and the audit that proves it.

- `test_unseen`: people who appear nowhere else. `val`: people of its own, too, where there are enough.
- `test_seen`: other photos of people in `train`; so is `val` where people are few.

Photos that nearly repeat each other form a group, and no group is in two splits.
"""

import csv
import errno
import hashlib
import io
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

SPLITS = ("train", "val", "test_seen", "test_unseen")
FEW_PEOPLE = 12  # below it, people are too precious in training to be spent on validation


def split(
    images: pd.DataFrame,
    unseen_share: float = 0.3,
    seed: int = 0,
    seen_share: float = 0.25,
    val_share: float = 0.15,
) -> pd.DataFrame:
    """Gives every usable row of `cleaning.clean`'s table its split; returns the table with two new columns.

    - `split`: "train", "val", "test_seen" or "test_unseen"; "" where the file is set aside.
    - `split_note`: what is out of the ordinary about that, in words, else ""; `notes` gathers them.

    unseen_share: of the people, for test_unseen (at least 2 of them, for impostor pairs). 0 is the original
    study's protocol: everyone is trained on, photos are held out. seen_share: of the photos of people in
    training, for test_seen. val_share: of the people; with fewer than `FEW_PEOPLE`, or an unseen_share of 0,
    of the photos of people in training.

    People are drawn from strata of like qualities and numbers of photos. A person's photos are dealt quality
    by quality, so that train and test_seen each get two where there are four. The outcome depends on paths,
    groups and `seed`, not on the order of the rows or on the machine.

    Raises ValueError where no test is possible, saying what is missing.
    """
    shares = {"unseen_share": unseen_share, "seen_share": seen_share, "val_share": val_share}
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}: give a share from 0 to below 1.")
    if seen_share + val_share >= 1:
        raise ValueError(f"seen_share {seen_share} and val_share {val_share} leave nothing to train on.")

    usable = (images["status"] == "ok").to_numpy()
    photos = images.loc[usable, ["path", "identity", "quality", "group"]].reset_index(drop=True)
    units, sizes = _units(photos, seed)
    people = _people(units, sizes, seed)
    _place_people(people, unseen_share, val_share)
    units["split"] = units["identity"].map(people["split"])
    own_val = (people["split"] == "val").any()
    _deal_photos(units, sizes, {"test_seen": seen_share} | ({} if own_val else {"val": val_share}))
    if not set(units["split"]) & {"test_seen", "test_unseen"}:
        raise ValueError(
            f"No test is possible with {len(people)} people of at most {people['groups'].max()} different "
            "photos each (near-copies count once): add people, or photos of the same people."
        )
    units["note"] = _explain(units, people, shares)

    unit = photos.groupby(["identity", "group"]).ngroup()
    places = pd.DataFrame("", index=range(len(images)), columns=["split", "split_note"])
    places[usable] = units.loc[unit, ["split", "note"]].to_numpy()
    return images.assign(split=places["split"].to_numpy(), split_note=places["split_note"].to_numpy())


def notes(images: pd.DataFrame) -> pd.DataFrame:
    """What is out of the ordinary about a split: one row per note, with the people and photos concerned."""
    noted = images[images["split_note"] != ""]
    noted = noted.assign(note=noted["split_note"].str.split("; ")).explode("note")
    counts = noted.groupby(["split", "note"]).agg(people=("identity", "nunique"), photos=("path", "size"))
    return counts.reset_index()


def summary(images: pd.DataFrame) -> pd.DataFrame:
    """People and photos in each split (rows), of all qualities together and of each (columns)."""
    used = images[images["split"] != ""]
    columns = {}
    for quality in ["all", *sorted(used["quality"].unique())]:
        part = (used if quality == "all" else used[used["quality"] == quality]).groupby("split")
        columns[quality, "people"] = part["identity"].nunique()
        columns[quality, "photos"] = part["path"].size()
    return pd.DataFrame(columns).reindex(list(SPLITS)).fillna(0).astype(int)


def audit(images: pd.DataFrame) -> pd.DataFrame:
    """What any two splits have in common, one row per pair of splits.

    Columns: `splits`; `people`, `groups` and `photos` (by sha256) in both; `distance`, how many of the 64
    bits of `phash` differ between the two most similar photos across the pair, which are `photo` and `other`;
    `leak`, what should not be in both, "" where all is well: only people may be, and none of test_unseen.
    """
    parts = {name: images[images["split"] == name] for name in SPLITS}
    rows = []
    for a, b in combinations(SPLITS, 2):
        one, two = parts[a], parts[b]
        columns = {"people": "identity", "groups": "group", "photos": "sha256"}
        shared = {name: len(set(one[column]) & set(two[column])) for name, column in columns.items()}
        forbidden = [name for name in shared if name != "people" or b == "test_unseen"]
        nearest = _nearest(one, two)
        leak = ", ".join(name for name in forbidden if shared[name])
        rows.append({"splits": f"{a} - {b}", **shared, **nearest, "leak": leak})
    return pd.DataFrame(rows).astype({"distance": "Int64"})


# ---------------------------------------------------------------- people


def _rank(seed: int, text: str) -> int:
    """A number drawn by `seed` for this text alone: the same on any machine, in any table."""
    words = f"{seed}:{text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big") >> 1  # fits an int64


def _units(photos: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """What is dealt, one row per person and group, and the photos of each per quality, [units, qualities]."""
    path = photos["path"].map(lambda text: unicodedata.normalize("NFC", text))
    grouped = photos.assign(path=path).groupby(["identity", "group"])
    units = grouped.agg(first=("path", "min")).reset_index()
    units["rank"] = [_rank(seed, first) for first in units["first"]]
    # A group under two people is likely a wrong label. It stays in training, so that no copy of it is tested.
    units["spread"] = units["group"].duplicated(keep=False)
    quality, names = pd.factorize(photos["quality"], sort=True)
    sizes = np.zeros((len(units), len(names)), int)
    np.add.at(sizes, (grouped.ngroup().to_numpy(), quality), 1)
    return units, sizes


def _people(units: pd.DataFrame, sizes: np.ndarray, seed: int) -> pd.DataFrame:
    """One row per person. Raises ValueError where no pair could be formed at all."""
    table = pd.DataFrame(sizes > 0).groupby(units["identity"]).any().sum(axis=1).to_frame("qualities")
    people = table.join(units.groupby("identity").agg(groups=("group", "size"), linked=("spread", "any")))
    if people.empty:
        raise ValueError("No photo is usable: every file is set aside; the column `reason` says why.")
    if len(people) == 1:
        raise ValueError(
            f"All usable photos are of one person, {people.index[0]!r}: at least two people are needed, each "
            "with a folder of their own."
        )
    if people["groups"].max() == 1:
        raise ValueError(
            "Nobody has two different photos (near-copies count once), so that no two photos of a person can "
            "be compared: add photos of the same people."
        )
    people["rank"] = [_rank(seed, unicodedata.normalize("NFC", str(name))) for name in people.index]
    # Who can be kept out of training: two photos make a genuine pair, and no group may tie them to others.
    people["able"] = (people["groups"] >= 2) & ~people["linked"]
    return people


def _place_people(people: pd.DataFrame, unseen_share: float, val_share: float) -> None:
    """Adds the column `split`: "test_unseen", "val" or, for all others, "train"."""
    people["split"] = "train"
    able = people[people["able"]]
    own_val = unseen_share > 0 and val_share > 0 and len(able) >= FEW_PEOPLE
    n_val = min(max(2, round(val_share * len(able))), len(able) // 3) if own_val else 0
    room = min(len(able), len(people) - 2) - n_val  # training tells people apart: it keeps two
    if room >= 2:
        people.loc[_draw(able, min(_wanted(people, unseen_share), room)), "split"] = "test_unseen"
    people.loc[_draw(people[people["able"] & (people["split"] == "train")], n_val), "split"] = "val"


def _wanted(people: pd.DataFrame, unseen_share: float) -> int:
    return max(2, round(unseen_share * people["able"].sum())) if unseen_share else 0


def _draw(people: pd.DataFrame, count: int) -> list[str]:
    """Draws one person from each of `count` strata of like numbers of qualities and of photos."""
    ordered = people.sort_values(["qualities", "groups", "rank"], ascending=False)
    edges = np.linspace(0, len(ordered), count + 1).round().astype(int)
    strata = [ordered["rank"].iloc[start:stop] for start, stop in pairwise(edges)]
    return [str(stratum.idxmin()) for stratum in strata]


# ---------------------------------------------------------------- photos of people in training


def _deal_photos(units: pd.DataFrame, sizes: np.ndarray, shares: dict[str, float]) -> None:
    """Deals the units of people in "train" to the splits in `shares`; what is left stays in "train"."""
    shares = {name: share for name, share in shares.items() if share > 0}
    place = units["split"].to_numpy(object, copy=True)
    rank, spread = units["rank"].to_numpy(), units["spread"].to_numpy()
    training = units.index[units["split"] == "train"]
    for mine in units.loc[training].groupby("identity").indices.values():
        rows = training[mine].to_numpy()
        place[rows] = _deal(sizes[rows], rank[rows], spread[rows], shares)
    if units.loc[place == "test_seen", "identity"].nunique() < 2:
        place[place == "test_seen"] = "train"  # one person alone has no impostors
    units["split"] = place


def _deal(sizes: np.ndarray, rank: np.ndarray, fixed: np.ndarray, shares: dict[str, float]) -> np.ndarray:
    """Deals one person's units; returns the split of each.

    sizes: photos per unit and quality, [units, qualities]. fixed: units that must stay in "train".
    First test_seen gets two units, and two of a quality where there are four, then val likewise, the smallest
    ones: what is tested should not be one scene many times over. The rest goes by `shares`, the largest units
    first, where they fit.
    """
    place = np.full(len(sizes), "train", object)
    if len(sizes) < 3:  # two to test, one to train on
        return place
    has = sizes > 0
    order = np.lexsort((rank, sizes.sum(axis=1)))
    order = order[~fixed[order]]

    for name in shares:
        for q in range(sizes.shape[1]):
            left = int(np.sum((place == "train") & has[:, q]))
            spare = left // 2 if name == "test_seen" else left - 2
            lacking = 2 - int(np.sum((place == name) & has[:, q]))
            free = order[(place[order] == "train") & has[order, q]]
            place[free[: max(0, min(lacking, spare))]] = name
        if name == "test_seen":
            lacking = 2 - int(np.sum(place == name))
            place[order[place[order] == "train"][: max(0, lacking)]] = name

    targets = {"train": 1 - sum(shares.values())} | shares
    free = order[place[order] == "train"]
    dealt = np.ones(len(sizes), bool)
    dealt[free] = False
    lacks = {
        name: share * sizes.sum(axis=0) - sizes[dealt & (place == name)].sum(axis=0)
        for name, share in targets.items()
    }
    for unit in free[::-1]:
        fitting = [name for name in shares if (sizes[unit] <= np.maximum(lacks[name] + 0.5, 0)).all()]
        # The choice that brings the splits closest to their targets, in squared photos.
        place[unit] = max([*fitting, "train"], key=lambda name: float(lacks[name] @ sizes[unit]))
        lacks[place[unit]] -= sizes[unit]
    return place


def _explain(units: pd.DataFrame, people: pd.DataFrame, shares: dict[str, float]) -> pd.Series:
    """The note of every unit: all statements that concern it, joined by "; "."""
    place, identity = units["split"], units["identity"]
    training = place == "train"
    able, unseen = people["able"].sum(), (people["split"] == "test_unseen").sum()
    wanted = _wanted(people, shares["unseen_share"])
    absent = {
        "val": ("val_share", "too few photos"),
        "test_seen": ("seen_share", "it needs 2 people in training with 3 different photos each"),
        "test_unseen": (
            "unseen_share",
            "it needs 4 people, 2 of them with 2 different photos and no near-copies under other people, and "
            f"there are {len(people)} and {able}",
        ),
    }
    statements = [
        (training & units["spread"], "a near-copy is filed under another person: trained on only"),
        (
            (place == "test_unseen") & (unseen < wanted),
            f"{unseen} people, not {wanted}: training must keep two",
        ),
    ]
    if (place == "test_seen").any():
        untested = training & ~identity.isin(identity[place == "test_seen"])
        statements.append(
            (untested, "too few different photos of the person to test as well: trained on only")
        )
    if not (people["split"] == "val").any():
        few = f"fewer than {FEW_PEOPLE} people could be kept apart"
        reason = few if shares["unseen_share"] else "everyone is trained on"
        statements.append((place == "val", f"other photos of people in training: {reason}"))
    for name, (share, reason) in absent.items():
        if not (place == name).any():
            statements.append((training, f"no {name}: {reason if shares[share] else f'{share} is 0'}"))
    note = pd.Series("", index=units.index)
    for where, statement in statements:
        note[where] = np.where(note[where] == "", statement, note[where] + "; " + statement)
    return note


# ---------------------------------------------------------------- audit


def _nearest(one: pd.DataFrame, two: pd.DataFrame) -> dict[str, object]:
    """The two most similar photos across two tables, by the Hamming distance of their hashes; exact."""
    one, two = (part[part["phash"] != ""].drop_duplicates("phash") for part in (one, two))
    if one.empty or two.empty:
        return {"distance": pd.NA, "photo": "", "other": ""}
    a, b = (np.array([int(text, 16) for text in part["phash"]], np.uint64) for part in (one, two))
    step = max(1, 2**20 // len(b))  # rows at a time, so that the table of distances stays in the cache
    best = (65, 0, 0)
    for start in range(0, len(a), step):
        distances = np.bitwise_count(a[start : start + step, None] ^ b)
        i, j = divmod(int(distances.argmin()), len(b))
        best = min(best, (int(distances[i, j]), start + i, j))
    distance, i, j = best
    return {"distance": distance, "photo": one["path"].iloc[i], "other": two["path"].iloc[j]}


# ---------------------------------------------------------------- folders


MANIFEST = "manifest.csv"  # in each split folder: what is in it, and where it comes from
# torchvision's ImageFolder goes by these suffixes; what decodes the file goes by its contents.
_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # what file managers leave in a folder that was looked at
_RESERVED = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE
)  # names Windows keeps for itself


def materialise(images: pd.DataFrame, folder: Path, out: Path) -> pd.DataFrame:
    """Lays the split out as folders, `out/<split>/<person>/<photo>`, which any ImageFolder tool can read.

    Photos are hard links into `folder`, copies where links fail, so never edit one: it may be the original. A
    photo's name is its quality, its own name and a few digits that keep it unique; `manifest.csv` in each
    folder tells where it comes from. A folder is complete or absent, and left alone where nothing changed.

    Returns, per split, people, photos and how they were made: "linked", "copied" or "unchanged". Raises
    FileExistsError, before touching anything, where a folder of that name holds files it did not make,
    FileNotFoundError for a photo that has gone, and OSError where the disk is full; each in one sentence.
    """
    folder, out = Path(folder), Path(out)
    used = images[images["split"] != ""]
    names = _names(used)
    files = {name: pd.Series(dtype=object) for name in SPLITS}
    files |= {str(name): part for name, part in names.groupby(used["split"])}
    manifests = {name: _manifest(part, used) for name, part in files.items()}
    made = dict.fromkeys(SPLITS, "unchanged")
    stale = [name for name in SPLITS if not _is_current(out / name, manifests[name])]
    for leftover in (out / f"{name}.{kind}" for name in SPLITS for kind in ("partial", "old")):
        _check_ours(leftover)
        _discard(leftover)
    for name in stale:
        _check_ours(out / name)
    with tqdm(total=sum(len(files[name]) for name in stale), desc="split folders", unit=" photos") as bar:
        for name in stale:
            sources = (folder / path for path in used.loc[files[name].index, "path"])
            made[name] = _build(out / f"{name}.partial", files[name], sources, manifests[name], bar)
    # All old folders go before any new one comes: folders of two splits must never stand side by side.
    for name in stale:
        if (out / name).exists():
            (out / name).rename(out / f"{name}.old")
    for name in stale:
        (out / f"{name}.partial").rename(out / name)
        _discard(out / f"{name}.old")
    counts = used.groupby("split").agg(people=("identity", "nunique"), photos=("path", "size"))
    return counts.reindex(list(SPLITS), fill_value=0).assign(made=pd.Series(made))


def _digits(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _plain(text: str, length: int) -> str:
    """The text without what some file system refuses in a name."""
    text = re.sub(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]', "_", unicodedata.normalize("NFC", text))
    return text[:length].strip(" .")


def _names(used: pd.DataFrame) -> pd.Series:
    """`<person>/<photo>` for every row: unique on any file system, whatever it makes of case."""
    people = used["identity"].drop_duplicates()
    plain = people.map(lambda text: _plain(text, 60))
    twins = plain.str.casefold().duplicated(keep=False)
    changed = twins | (plain != people) | plain.map(lambda text: bool(_RESERVED.fullmatch(text)))
    persons = dict(zip(people, plain.where(~changed, plain + "_" + people.map(_digits)), strict=True))
    return pd.Series(
        [
            f"{persons[person]}/{_photo_name(path, quality)}"
            for path, person, quality in zip(used["path"], used["identity"], used["quality"], strict=True)
        ],
        index=used.index,
        dtype=object,
    )


def _photo_name(path: str, quality: str) -> str:
    name = PurePosixPath(path)
    known = name.suffix.lower() in _SUFFIXES
    stem, suffix = (name.stem, name.suffix.lower()) if known else (name.name, ".jpg")
    return f"{quality}_{_plain(stem, 40)}_{_digits(path)}{suffix}"


def _manifest(files: pd.Series, used: pd.DataFrame) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "path", "sha256"])
    rows = used.loc[files.index, ["path", "sha256"]]
    writer.writerows(sorted(zip(files, rows["path"], rows["sha256"], strict=True)))
    return text.getvalue()


def _listed(folder: Path) -> set[str]:
    """The files that the folder's manifest says were made there; empty without a manifest."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return set()
    with manifest.open(encoding="utf-8", newline="") as lines:
        return {row["file"] for row in csv.DictReader(lines)} | {MANIFEST}


def _present(folder: Path) -> Iterator[str]:
    for where, _, names in os.walk(folder):
        start = Path(where).relative_to(folder)
        yield from (unicodedata.normalize("NFC", (start / name).as_posix()) for name in names)


def _is_current(folder: Path, manifest: str) -> bool:
    if not (folder / MANIFEST).is_file() or (folder / MANIFEST).read_text(encoding="utf-8") != manifest:
        return False
    return _listed(folder) <= set(_present(folder))


def _check_ours(folder: Path) -> None:
    listed = _listed(folder)
    foreign = [name for name in _present(folder) if name not in listed and Path(name).name not in _LITTER]
    if foreign:
        raise FileExistsError(
            f"{folder} holds files that were not made here, such as {foreign[0]!r}: move them away, "
            "or choose another folder."
        )


def _discard(folder: Path) -> None:
    """Deletes the files that the folder's manifest lists, the manifest last, and the emptied folders."""
    listed = _listed(folder)
    present = [name for name in _present(folder) if name in listed or Path(name).name in _LITTER]
    for name in sorted(present, key=lambda name: name == MANIFEST):
        (folder / name).unlink()
    for where, _, _ in os.walk(folder, topdown=False):
        Path(where).rmdir()


def _build(folder: Path, files: pd.Series, sources: Iterator[Path], manifest: str, bar: tqdm) -> str:
    """Fills a new folder with links or copies of the sources; returns how."""
    copied = 0
    try:
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(manifest, encoding="utf-8", newline="\n")
        for person in {name.partition("/")[0] for name in files}:
            (folder / person).mkdir()
        for name, source in zip(files, sources, strict=True):
            copied += not _link(source, folder / name)
            bar.update()
    except OSError as error:
        _discard(folder)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = (
            f"The disk is full: {folder.parent} has no room for the split folders. Free some, run again."
        )
        raise OSError(errno.ENOSPC, message) from error
    return f"{len(files) - copied} linked, {copied} copied" if copied else "linked"


def _link(source: Path, target: Path) -> bool:
    """Hard-links the file; copies it where that fails, and returns False."""
    try:
        # A link to a symbolic link may dangle; a read-only file, on Windows, could not be deleted here again
        # without touching the original.
        if os.name == "nt" and not os.access(source, os.W_OK):
            raise PermissionError
        target.hardlink_to(source.resolve() if source.is_symlink() else source)
        return True
    except FileExistsError:
        raise
    except OSError:
        if not source.is_file():
            raise FileNotFoundError(
                f"{source} has gone since it was read: run again from the first stage."
            ) from None
        shutil.copyfile(source, target)
        return False
