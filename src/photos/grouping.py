"""Groups of photos that must stay on one side of a split: near-duplicates, and what else ties photos."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from src.photos import series

ENOUGH = 3  # groups that a tie by names must leave a person who has as many: to be trained on and tested
BY_FACE = "the same picture as another photo, by its face: kept on one side"


def merged(images: pd.DataFrame, ties: pd.DataFrame | None = None) -> tuple[np.ndarray, pd.Series]:
    """The groups of `cleaning.clean`'s table, int64 `[N]`, those made one that something ties; and notes.

    Tied are photos that share a `given_group`, photos that are a pair of `ties` (columns `path`, `other`),
    and those of one person that belong together by their names (`series`). Where names would leave a person
    with fewer than ENOUGH groups, they tie nothing, and the note says so. -1 for photos that are set aside;
    those too small to be compared are each a group of their own.

    The notes, one a photo, say why it was tied to a photo of another group by its face or its name, else "".
    """
    group = images["group"].to_numpy(np.int64, copy=True)
    small = np.flatnonzero((images["status"] == "too small") & (group < 0))
    group[small] = group.max(initial=0) + 1 + np.arange(len(small))
    usable = group >= 0
    notes = pd.Series("", index=images.index, dtype=object)
    if "given_group" in images:
        named = np.flatnonzero((images["given_group"] != "") & usable)
        group = _joined(group, named, pd.factorize(images["given_group"].iloc[named])[0])
    if ties is not None and len(ties):
        place = pd.Series(np.arange(len(images)), index=images["path"])
        pairs = ties.loc[ties["path"].isin(place.index) & ties["other"].isin(place.index)]
        one, two = (place[pairs[side]].to_numpy() for side in ("path", "other"))
        new = usable[one] & usable[two] & (group[one] != group[two])
        one, two = one[new], two[new]
        notes.iloc[np.union1d(one, two)] = BY_FACE
        group = _joined(group, np.concatenate([one, two]), np.tile(np.arange(len(one)), 2))
    for what, key in series.readings(images[usable]):
        group, said = _by_name(
            images["identity"].to_numpy(), group, key.reindex(images.index, fill_value=""), what
        )
        notes = notes.str.cat(said, sep="; ").str.strip("; ")
    return group, notes


def _by_name(
    identity: np.ndarray, group: np.ndarray, key: pd.Series, what: str
) -> tuple[np.ndarray, pd.Series]:
    """The groups with those of one key made one, person by person; and what is to be said of each photo."""
    said = pd.Series("", index=key.index, dtype=object)
    named = np.flatnonzero(key != "")
    shared = pd.Series(identity[named]).str.cat(key.iloc[named].to_numpy(), sep="\0")
    number = pd.factorize(shared)[0]
    tying = np.zeros(len(named), bool)
    for mine in pd.Series(identity[named]).groupby(identity[named]).indices.values():
        person = np.flatnonzero((identity == identity[named[mine[0]]]) & (group >= 0))
        before = len(np.unique(group[person]))
        tied = _joined(group, named[mine], number[mine])
        new = pd.Series(group[named[mine]]).groupby(number[mine]).transform("nunique").to_numpy() > 1
        if len(np.unique(tied[person])) >= min(before, ENOUGH):
            tying[mine] = True
            said.iloc[named[mine[new]]] = f"{what} by the names: kept on one side"
        elif new.any():
            said.iloc[named[mine[new]]] = (
                f"{what} by the names, but too few of them to train and to test: not kept on one side"
            )
    return _joined(group, named[tying], number[tying]), said


def _joined(group: np.ndarray, rows: np.ndarray, number: np.ndarray) -> np.ndarray:
    """The groups, -1 left alone, with those made one that share a number in these rows."""
    if not len(rows):
        return group
    number = number + group.max() + 1
    links = coo_array((np.ones(len(rows), bool), (group[rows], number)), shape=(number.max() + 1,) * 2)
    component = connected_components(links, directed=False)[1]
    return np.where(group >= 0, component[group], -1)
