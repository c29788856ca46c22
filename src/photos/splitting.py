"""Decides who and what is tested: a split in which nothing leaks, and the audit that proves it.

- `test_unseen`: people who appear nowhere else.
- `test_seen`: other photos of people in `train`.
- `val`: people of its own, where there are enough, and other photos of people in `train`, where these have
  enough and are enough: it chooses for both tests, so it asks both questions.

Photos that nearly repeat each other form a group, and no group is in two splits.
"""

import hashlib
import unicodedata
from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
import pandas as pd

from src.photos import grouping

SPLITS = ("train", "val", "test_seen", "test_unseen")
FEW_PEOPLE = 12  # below it, people are too precious in training to be spent on validation
FEW_WITH_MANY = 5  # people in training with many photos; fewer could not tell much in val
FEW_PHOTOS = 10  # of a person, different ones; below it, they are, where val has people of its own


def split(
    images: pd.DataFrame,
    unseen_share: float = 0.3,
    seed: int = 0,
    seen_share: float = 0.25,
    val_share: float = 0.15,
    ties: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Gives every usable row of `cleaning.clean`'s table its split; returns the table with two new columns.

    - `split`: "train", "val", "test_seen" or "test_unseen"; "" where the file is set aside.
    - `split_note`: what is out of the ordinary about that, in words, else ""; `notes` gathers them.

    unseen_share: of the people, for test_unseen (at least 2 of them, for impostor pairs). 0 is the original
    study's protocol: everyone is trained on, photos are held out. seen_share: of the photos of people in
    training, for test_seen. val_share: of the people, and half of it of the photos of those in training who
    have `FEW_PHOTOS`; with fewer than `FEW_PEOPLE`, or an unseen_share of 0, of the photos of all of them.

    People are drawn from strata of like qualities and numbers of photos. A person's photos are dealt quality
    by quality, so that train and test_seen each get two where there are four. The outcome depends on paths,
    groups and `seed`, not on the order of the rows or on the machine.

    ties: pairs of photos, columns `path` and `other`, whose groups stay on one side, of one person or of two:
    those of `second_pass.same_pictures`. So do photos that belong together by their names: see `grouping`.

    Where the photos are too few to train and to test, all are test_unseen: the pack is tested as it is. A
    split that a table gave (column `given_split`) is kept as it is, and photos that share a `given_group` are
    one group.

    Raises ValueError where no two photos of a person, or no two people, can be compared.
    """
    shares = {"unseen_share": unseen_share, "seen_share": seen_share, "val_share": val_share}
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}: give a share from 0 to below 1.")
    if seen_share + val_share >= 1:
        raise ValueError(f"seen_share {seen_share} and val_share {val_share} leave nothing to train on.")

    # Photos too small for a face are tested, as failures to enrol, and not trained on.
    small = (images["status"] == "too small").to_numpy()
    usable = (images["status"] == "ok").to_numpy() | small
    group, tied = grouping.merged(images, ties)
    images = images.assign(group=group)
    photos = images.assign(quality=images["quality"].mask(small, "low"))
    photos = photos.loc[usable, ["path", "identity", "quality", "group"]].reset_index(drop=True)
    bundles, sizes = _bundles(photos, seed)
    people = _people(bundles, sizes, seed)
    _place_people(people, unseen_share, val_share)
    bundles["split"] = bundles["identity"].map(people["split"])
    own_val = bool((people["split"] == "val").any())
    dealt_shares = {"test_seen": seen_share, "val": val_share / 2 if own_val else val_share}
    many = (people["split"] == "train") & (people["groups"] >= FEW_PHOTOS)
    if own_val and many.sum() < FEW_WITH_MANY:
        dealt_shares["val"] = 0
    _deal_photos(bundles, sizes, dealt_shares, FEW_PHOTOS if own_val else 0)
    if not set(bundles["split"]) & {"test_seen", "test_unseen"}:
        bundles["split"], people["split"] = "test_unseen", "test_unseen"
    bundles["note"] = _explain(bundles, people, shares)

    bundle = photos.groupby(["identity", "group"]).ngroup()
    places = pd.DataFrame("", index=images.index, columns=["split", "split_note"])
    places[usable] = bundles.loc[bundle, ["split", "note"]].to_numpy()
    places[small & ~places["split"].str.startswith("test").to_numpy()] = ""
    images = _as_given(images.assign(split=places["split"], split_note=places["split_note"]), usable)
    both = images["split_note"].str.cat(tied, sep="; ").str.strip("; ")
    return images.assign(split_note=both.where(images["split"] != "", images["split_note"]))


def _as_given(images: pd.DataFrame, usable: np.ndarray) -> pd.DataFrame:
    """The table with the split that it was given, where it was given one; the audit says whether it leaks."""
    if "given_split" not in images or not (images["given_split"][usable] != "").any():
        return images
    given = images["given_split"].where(usable, "")
    trained = given.where(given != "", "train")[usable]
    seen = set(images.loc[trained[trained == "train"].index, "identity"])
    test = np.where(images["identity"].isin(seen), "test_seen", "test_unseen")
    given = given.mask(given == "test", test)
    note = np.where(given == "", "no split was given: trained on", "as it was given")
    split = given.where(given != "", "train").where(usable, "")
    return images.assign(split=split, split_note=np.where(usable, note, ""))


def notes(images: pd.DataFrame) -> pd.DataFrame:
    """What is out of the ordinary about `split`'s table: one row per note, with numbers of people and photos.

    Columns: `split`, `note`, `people`, `photos`.
    """
    noted = images[images["split_note"] != ""]
    noted = noted.assign(note=noted["split_note"].str.split("; ")).explode("note")
    counts = noted.groupby(["split", "note"]).agg(people=("identity", "nunique"), photos=("path", "size"))
    return counts.reset_index()


def summary(images: pd.DataFrame) -> pd.DataFrame:
    """Numbers of people and photos in each split (rows), of all qualities and of each (columns).

    images: `split`'s table. The columns have two levels: quality, "all" first, and "people" or "photos".
    """
    used = images[images["split"] != ""]
    columns = {}
    for quality in ["all", *sorted(used["quality"].unique())]:
        part = (used if quality == "all" else used[used["quality"] == quality]).groupby("split")
        columns[quality, "people"] = part["identity"].nunique()
        columns[quality, "photos"] = part["path"].size()
    return pd.DataFrame(columns).reindex(list(SPLITS)).fillna(0).astype(int)


def audit(images: pd.DataFrame) -> pd.DataFrame:
    """What any two splits have in common: one row per pair of splits of `split`'s table.

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


def _bundles(photos: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """What is dealt: a bundle is one person's photos of one group of near-duplicates.

    Returns one row per bundle, and the numbers of its photos of each quality, int `[bundles, qualities]`.
    """
    path = photos["path"].map(lambda text: unicodedata.normalize("NFC", text))
    grouped = photos.assign(path=path).groupby(["identity", "group"])
    bundles = grouped.agg(first=("path", "min")).reset_index()
    bundles["rank"] = [_rank(seed, first) for first in bundles["first"]]
    # A group under two people is likely a wrong label. It stays in training, so that no copy of it is tested.
    bundles["spread"] = bundles["group"].duplicated(keep=False)
    quality, names = pd.factorize(photos["quality"], sort=True)
    sizes = np.zeros((len(bundles), len(names)), int)
    np.add.at(sizes, (grouped.ngroup().to_numpy(), quality), 1)
    return bundles, sizes


def _people(bundles: pd.DataFrame, sizes: np.ndarray, seed: int) -> pd.DataFrame:
    """One row per person. Raises ValueError where no pair could be formed at all."""
    table = pd.DataFrame(sizes > 0).groupby(bundles["identity"]).any().sum(axis=1).to_frame("qualities")
    people = table.join(bundles.groupby("identity").agg(groups=("group", "size"), linked=("spread", "any")))
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
    # Of people in training, val takes photos where somebody has six; else it needs people of its own.
    few = FEW_PEOPLE if (people["groups"] >= 6).any() else 6
    own_val = unseen_share > 0 and val_share > 0 and len(able) >= few
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


def _deal_photos(bundles: pd.DataFrame, sizes: np.ndarray, shares: dict[str, float], few: int) -> None:
    """Deals the bundles of people in "train" to the splits in `shares`; what is left stays in "train".

    Of people with fewer than `few`, val gets none.
    """
    shares = {name: share for name, share in shares.items() if share > 0}
    place = bundles["split"].to_numpy(object, copy=True)
    rank, spread = bundles["rank"].to_numpy(), bundles["spread"].to_numpy()
    training = bundles.index[bundles["split"] == "train"]
    for mine in bundles.loc[training].groupby("identity").indices.values():
        rows = training[mine].to_numpy()
        here = {name: share for name, share in shares.items() if name != "val" or len(rows) >= few}
        place[rows] = _deal(sizes[rows], rank[rows], spread[rows], here)
    for name in shares:
        dealt = (place == name) & (bundles["split"] == "train").to_numpy()
        photos = bundles.loc[dealt, "identity"].value_counts()
        if len(photos) < 2 or photos.max() < 2:
            place[dealt] = "train"  # no impostors, or no genuine pair
    bundles["split"] = place


def _deal(sizes: np.ndarray, rank: np.ndarray, fixed: np.ndarray, shares: dict[str, float]) -> np.ndarray:
    """Deals one person's bundles; returns the split of each.

    sizes: photos per bundle and quality, int `[bundles, qualities]`. fixed: bundles that stay in "train".

    First test_seen gets two bundles, and two of a quality where there are four, then val likewise; from six
    bundles on val has two. The rest goes by `shares`, where it fits. Lots decide, whatever the size of a
    bundle, but one that alone is more than a split's share is trained on if any other will do.
    """
    place = np.full(len(sizes), "train", object)
    if len(sizes) < 3:  # two to test, one to train on
        return place
    photos, has = sizes.sum(axis=1), sizes > 0
    order = np.argsort(rank, kind="stable")
    order = order[~fixed[order]]

    def give(name: str, count: int, among: np.ndarray, giver: str = "train") -> None:
        free = order[(place[order] == giver) & among[order]]
        large = photos[free] > max(1, shares[name] * photos.sum())
        free = free[np.argsort(np.where(large, photos[free], 0), kind="stable")]
        place[free[: max(0, count)]] = name

    for name in shares:
        for of_quality in has.T:
            left = int(np.sum((place == "train") & of_quality))
            spare = left // 2 if name == "test_seen" else left - 2
            give(name, min(2 - int(np.sum((place == name) & of_quality)), spare), of_quality)
        if name == "test_seen":
            give(name, 2 - int(np.sum(place == name)), np.ones(len(sizes), bool))
    if "val" in shares and len(sizes) >= 6:
        _lend_to_val(place, has, give)
    _deal_by_share(place, order, sizes, shares)
    return place


def _lend_to_val(place: np.ndarray, has: np.ndarray, give: Callable[..., None]) -> None:
    """Brings val to two bundles, of different qualities if it can be, from the split that has most."""
    for _ in range(2 - int(np.sum(place == "val"))):
        giver = max(("train", "test_seen"), key=lambda name: int(np.sum(place == name)))
        served, there = has[place == "val"].sum(axis=0), has[place == giver].sum(axis=0)
        quality = min(np.flatnonzero(there), key=lambda q: (served[q], -there[q]))
        give("val", 1, has[:, quality], giver)


def _deal_by_share(place: np.ndarray, order: np.ndarray, sizes: np.ndarray, shares: dict[str, float]) -> None:
    """Deals the bundles of `order` that are in "train", so that each split has its share of photos."""
    targets = {"train": 1 - sum(shares.values())} | shares
    free = order[place[order] == "train"]
    dealt = np.ones(len(sizes), bool)
    dealt[free] = False
    lacks = {
        name: share * sizes.sum(axis=0) - sizes[dealt & (place == name)].sum(axis=0)
        for name, share in targets.items()
    }
    for bundle in free:
        size = sizes[bundle]
        fitting = [name for name in shares if (size <= np.maximum(lacks[name] + 0.5, 0)).all()]
        # The choice that brings the splits closest to their targets, in squared photos.
        gains = {name: float(lacks[name] @ size) for name in [*fitting, "train"]}
        place[bundle] = max(gains, key=lambda name: gains[name])
        lacks[place[bundle]] -= size


def _explain(bundles: pd.DataFrame, people: pd.DataFrame, shares: dict[str, float]) -> pd.Series:
    """The note of every bundle: all statements that concern it, joined by "; "."""
    place, identity = bundles["split"], bundles["identity"]
    if not (place == "train").any():
        needed = "2 people with 3 different photos each, or 4 people with 2"
        tested = f"nothing to train on, the pack is tested as it is: training and a test need {needed}"
        return pd.Series(tested, index=bundles.index)
    training = place == "train"
    able, unseen = people["able"].sum(), (people["split"] == "test_unseen").sum()
    wanted = _wanted(people, shares["unseen_share"])
    absent = {
        "val": (
            "val_share",
            "it needs 2 people in training with 5 different photos, one of them with 6, or 6 people of whom "
            "some are neither trained on nor tested; what it chooses falls to defaults",
        ),
        "test_seen": ("seen_share", "it needs 2 people in training with 3 different photos each"),
        "test_unseen": (
            "unseen_share",
            "it needs 4 people, 2 of them with 2 different photos and no near-copies under other people, and "
            f"there are {len(people)} and {able}",
        ),
    }
    statements = [
        (training & bundles["spread"], "a near-copy is filed under another person: trained on only"),
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
            why = reason if shares[share] else f"{share} is 0"
            statements.append((training, f"no {name}: {why}"))
    note = pd.Series("", index=bundles.index)
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
