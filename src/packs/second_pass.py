"""The second search for photos that repeat each other, by their faces: before the split, on aligned crops.

A photo cropped anew by a face detector, blurred, shrunken, grey or mirrored has other thumbnails and another
hash, and no embedding to speak of where it is blurred. Its face, aligned, is still the same picture. What is
found here is kept on one side of the split, across people too; no photo is set aside for it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from src import artifacts
from src.packs.same_picture import (
    FINE,
    FINE_BLURS,
    GRID,
    LEAST_CONTRAST,
    Finder,
    Pictures,
    agreement,
    detail,
    everywhere,
    pictures,
)

# Measured with benchmarks/planted_leaks.py.
SAME = 0.96  # correlation from which two crops may show one picture
DETAIL = 0.92  # correlation of their detail from which they likely do
# What they lack to a correlation of 1, as a share of what photos that are known to differ lack: below the
# first they are the same picture; below the second, if their detail agrees everywhere by so much.
SURELY, LIKELY, EVERYWHERE = 0.15, 0.5, 0.6
# Else only if their detail agrees so well everywhere, and by so much on the coarse grid.
ALL_OVER, LEAST_DETAIL = 0.88, 0.84

WORTH = 0.6  # correlation as they are, at 14 pixels a side, from which two crops are aligned

ALL = 40  # faces of a person, of which every two are compared; of more
BY_PIXELS, BY_EMBEDDING = 16, 8  # the nearest of each
ACROSS_BY_PIXELS, ACROSS_BY_EMBEDDING = 4, 4  # and of other people
ACROSS_UNSURE = 12  # by each, of a face whose landmarks may be off
SEARCHED = 320  # faces of a person, among all of which one is looked for whose landmarks may be off
SEARCHED_OF_MORE = 64  # of more faces, among so many that are nearest by embedding
PLACES = 3  # in which it is

_SCREEN = 14  # pixels a side of what tells which are near
PEOPLE = 16  # that are worked on before what was found is written
_ROWS = 1024  # of the table of all pairs, worked on at once

COLUMNS = ("path", "other", "correlation", "mirrored", "across")


@artifacts.uses(images=("path", "identity", "status", "group", "width", "height"))
def same_pictures(
    images: pd.DataFrame,
    candidates: pd.DataFrame,
    crops: np.ndarray,
    embeddings: np.ndarray,
    workspace: Path | None = None,
) -> pd.DataFrame:
    """Pairs of usable photos that are not of one `group` and have a face that is the same picture.

    images: `cleaning.clean`'s table. candidates, crops: of `faces.every_face`. embeddings: float32 `[M, D]`,
    unit rows, of these crops by the pack's recogniser.

    Returns a row per pair: `path` and `other`, the `correlation` of the aligned faces, whether one is
    `mirrored`, and whether the two are `across` people. Of one person every two faces are compared that are
    near by pixels or by embedding, and, where a face's landmarks may be off, each with all; across people the
    nearest. How alike different photos are is told from pairs of two people: of each face the second most
    alike person's nearest one, as the most alike may be the same picture under another name. With a workspace
    what is there already is not searched again.

    Raises ValueError where candidates and images do not belong together.
    """
    place = pd.Series(np.arange(len(images)), index=images["path"])
    if not set(candidates["path"]) <= set(images.loc[images["status"] == "ok", "path"]):
        raise ValueError("These are not the images that the faces were found in: their paths differ.")
    if not len(candidates) == len(crops) == len(embeddings):
        raise ValueError(
            f"{len(candidates)} faces, {len(crops)} crops and {len(embeddings)} embeddings: rows must match."
        )
    photo = place[candidates["path"]].to_numpy()
    shown = pictures(crops, candidates, images[["width", "height"]].to_numpy()[photo])
    search = _Search(
        shown,
        shown.mirrored(),
        np.asarray(embeddings),
        photo,
        images["group"].to_numpy()[photo],
        pd.factorize(images["identity"])[0][photo],
        shown.contrast() >= LEAST_CONTRAST,
    )
    sizes = images[["width", "height"]].to_numpy()[photo]
    with artifacts.workspace_or_temporary(workspace) as place_of_work:
        found = search.found(crops, candidates, sizes, place_of_work)
    first, second = (images["path"].to_numpy()[photo[found[side]]] for side in ("one", "two"))
    person = images["identity"].to_numpy()[photo]
    found = found.assign(
        path=np.minimum(first, second),
        other=np.maximum(first, second),
        across=person[found["one"]] != person[found["two"]],
    )
    found = found.sort_values("correlation", ascending=False).drop_duplicates(["path", "other"])
    return found.sort_values(["path", "other"])[list(COLUMNS)].reset_index(drop=True)


class _Search:
    """Faces, a row each: pictures, embeddings, photo, group and person; and whether they show anything."""

    def __init__(
        self,
        shown: Pictures,
        mirrored: Pictures,
        embeddings: np.ndarray,
        photo: np.ndarray,
        group: np.ndarray,
        person: np.ndarray,
        shows: np.ndarray,
    ) -> None:
        self.shown, self.mirrored, self.embeddings = shown, mirrored, embeddings
        self.photo, self.group, self.person, self.shows = photo, group, person, shows
        self.plain, self.flipped = _screened(shown), _screened(mirrored)
        self.finders = (Finder(shown, shown), Finder(shown, mirrored))

    def found(
        self, crops: np.ndarray, candidates: pd.DataFrame, sizes: np.ndarray, workspace: Path
    ) -> pd.DataFrame:
        """Pairs that are the same picture: rows `one`, `two`, `correlation`, `mirrored`."""
        rows = np.flatnonzero(self.shows)
        across = self._near(rows, rows, ACROSS_BY_PIXELS, ACROSS_BY_EMBEDDING, True)
        direct = [
            _kept(workspace / f"across-{mirror}.parquet", self._agreeing, across, None, mirror, -1.0)
            for mirror in (False, True)
        ]
        rivals = _Rivals(pd.concat(direct), self.person)
        unsure = rows[self.shown.uncertain[rows]]
        wider = self._near(unsure, rows, ACROSS_UNSURE, ACROSS_UNSURE, True)
        found = [table[table["correlation"] >= SAME] for table in direct]
        found.append(_kept(workspace / "across-searched.parquet", self._searched, wider))
        people = list(pd.Series(self.person).groupby(self.person).indices.values())
        starts = range(0, len(people), PEOPLE)
        for start in tqdm(starts, desc="the same faces, within people", leave=False):
            file = workspace / f"within-{start}.parquet"
            found.append(_kept(file, self._within, people[start : start + PEOPLE]))
        table = pd.concat(found, ignore_index=True)
        table["detail"] = self._detail(table)
        table = table[table["detail"] >= LEAST_DETAIL]
        share = (1 - table["correlation"]) / (1 - rivals.of(table))
        fine = table["detail"] >= DETAIL
        surely = (fine & (share < SURELY)).to_numpy()
        agree = np.full(len(table), -1.0)
        agree[~surely] = _everywhere(table[~surely], crops, candidates, sizes)
        likely = (fine & (share < LIKELY)).to_numpy() & (agree >= EVERYWHERE)
        return table[surely | likely | (agree >= ALL_OVER)]

    def _within(self, people: list[np.ndarray]) -> pd.DataFrame:
        """What agrees of the faces of each of some people."""
        found = []
        for rows in people:
            rows = rows[self.shows[rows]]
            near = (
                self._all(rows)
                if len(rows) <= ALL
                else self._near(rows, rows, BY_PIXELS, BY_EMBEDDING, False)
            )
            found += [self._agreeing(near, None, mirror, SAME) for mirror in (False, True)]
            found.append(self._searched(self._unsure(rows)))
        return pd.concat(found)

    def _all(self, rows: np.ndarray) -> np.ndarray:
        one, two = np.triu_indices(len(rows), 1)
        return self._apart(np.column_stack([rows[one], rows[two]]))

    def _apart(self, pairs: np.ndarray) -> np.ndarray:
        """The pairs, once each, of which nothing is known: of two photos and of two groups."""
        pairs = np.unique(np.sort(pairs, axis=1), axis=0)
        one, two = pairs.T
        return pairs[(self.photo[one] != self.photo[two]) & (self.group[one] != self.group[two])]

    def _near(
        self, rows: np.ndarray, others: np.ndarray, pixels: int, embedding: int, across: bool
    ) -> np.ndarray:
        """Pairs of faces and their nearest, by pixels, also mirrored, and by embedding: `[P, 2]`."""
        found = [np.empty((0, 2), int)]
        blocks = range(0, len(rows), _ROWS)
        for start in tqdm(blocks, desc="the same faces, across people", leave=False, disable=not across):
            here = rows[start : start + _ROWS]
            barred = self.group[here][:, None] == self.group[others]
            if across:
                barred |= self.person[here][:, None] == self.person[others]
            scores = (
                (_correlations(self.plain[:, here], self.plain[:, others]), pixels),
                (_correlations(self.plain[:, here], self.flipped[:, others]), pixels),
                (self.embeddings[here] @ self.embeddings[others].T, embedding),
            )
            for values, count in scores:
                values[barred] = -np.inf
                count = min(count, len(others) - 1)
                nearest = np.argpartition(-values, count, axis=1)[:, :count]
                one, two = np.nonzero(np.isfinite(np.take_along_axis(values, nearest, axis=1)))
                found.append(np.column_stack([here[one], others[nearest[one, two]]]))
        return self._apart(np.concatenate(found))

    def _agreeing(
        self, pairs: np.ndarray, starts: np.ndarray | None, mirror: bool, least: float
    ) -> pd.DataFrame:
        """Those of the pairs that agree so much once aligned, and the moves that align them.

        Without starts, only pairs that are somewhat alike as they are: the landmarks align them already.
        """
        other = self.mirrored if mirror else self.shown
        if starts is None:
            pairs = pairs[self._alike(pairs, mirror)]
        scores, moves = agreement(self.shown, other, pairs, starts)
        same = scores >= least
        columns = {"one": pairs[same, 0], "two": pairs[same, 1], "correlation": scores[same]}
        return pd.DataFrame({**columns, "mirrored": mirror, "move": list(moves[same].reshape(-1, 6))})

    def _alike(self, pairs: np.ndarray, mirror: bool) -> np.ndarray:
        """Which of the pairs are worth an alignment, bool `[P]`."""
        other = self.flipped if mirror else self.plain
        parts = [
            _correlations(self.plain[:, part[:, :1]], other[:, part[:, 1:]])[:, 0, 0]
            for part in (pairs[start : start + _ROWS] for start in range(0, len(pairs), _ROWS))
        ]
        return np.concatenate([np.empty(0), *parts]) >= WORTH

    def _detail(self, table: pd.DataFrame) -> np.ndarray:
        result = np.empty(len(table), np.float32)
        for mirror, other in ((False, self.shown), (True, self.mirrored)):
            mine = (table["mirrored"] == mirror).to_numpy()
            result[mine] = detail(self.shown, other, *_pairs_and_moves(table[mine]))
        return result

    def _unsure(self, rows: np.ndarray) -> np.ndarray:
        """Pairs of the rows of which one has landmarks that may be off, with many others: `[P, 2]`."""
        unsure = rows[self.shown.uncertain[rows]]
        if len(rows) <= SEARCHED:
            return self._apart(np.stack(np.meshgrid(unsure, rows), axis=-1).reshape(-1, 2))
        found = [np.empty((0, 2), int)]
        for row in unsure:
            alike = self.embeddings[rows] @ self.embeddings[row]
            nearest = rows[np.argpartition(-alike, SEARCHED_OF_MORE)[:SEARCHED_OF_MORE]]
            found.append(np.column_stack([np.full(SEARCHED_OF_MORE, row), nearest]))
        return self._apart(np.concatenate(found))

    def _searched(self, pairs: np.ndarray) -> pd.DataFrame:
        """Those of the pairs that agree, wherever one lies in the other."""
        found = [self._agreeing(pairs[:0], None, False, SAME)]
        for start in range(0, len(pairs), _ROWS):
            places = [
                place
                for one, two in pairs[start : start + _ROWS].tolist()
                for place in self._places(one, two)
            ]
            for mirror in (False, True):
                mine = [(order, move) for mirrored, order, move in places if mirrored == mirror]
                if mine:
                    orders, moves = (np.array(part) for part in zip(*mine, strict=True))
                    found.append(self._agreeing(orders, moves, mirror, SAME))
        return pd.concat(found)

    def _places(self, one: int, two: int) -> list[tuple[bool, tuple[int, int], np.ndarray]]:
        """The likeliest places of one picture in the other: mirrored, rows, move."""
        unsure = self.shown.uncertain
        orders = (
            [(one, two)] if not unsure[two] else [(two, one)] if not unsure[one] else [(one, two), (two, one)]
        )
        found = [
            (score, mirror, order, move)
            for mirror, finder in zip((False, True), self.finders, strict=True)
            for order in orders
            for score, move in finder.starts(*order)
        ]
        found.sort(key=lambda entry: -entry[0])
        return [entry[1:] for entry in found[:PLACES]]


class _Rivals:
    """How alike each face is with other people's: with the most alike person's, the next, and the third."""

    def __init__(self, pairs: pd.DataFrame, person: np.ndarray) -> None:
        """pairs: of two people, with their `correlation`. person: of each face."""
        self.person = person
        one, two = pairs["one"].to_numpy(), pairs["two"].to_numpy()
        faces, others = np.concatenate([one, two]), person[np.concatenate([two, one])]
        every = pd.DataFrame({"face": faces, "person": others, "score": np.tile(pairs["correlation"], 2)})
        best = every.groupby(["face", "person"])["score"].max().reset_index()
        table = best.sort_values(["face", "score"], ascending=[True, False])
        rank = table.groupby("face").cumcount().to_numpy()
        table, rank = table[rank < 3], rank[rank < 3]
        self.scores = np.full((len(person), 3), -1.0)
        self.people = np.full((len(person), 3), -1)
        self.scores[table["face"], rank] = table["score"]
        self.people[table["face"], rank] = table["person"]

    def of(self, table: pd.DataFrame) -> np.ndarray:
        """How alike different photos of a pair's faces are, at least, `[P]`; -1 where nobody else is near."""
        one, two = table["one"].to_numpy(), table["two"].to_numpy()
        return np.minimum(self._second(one, two), self._second(two, one))

    def _second(self, face: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The second of a face's scores, those with the other's person aside."""
        scores = np.where(self.people[face] == self.person[other][:, None], -1.0, self.scores[face])
        return np.sort(scores, axis=1)[:, -2]


def _kept(file: Path, function: Callable[..., pd.DataFrame], *inputs: Any) -> pd.DataFrame:
    """What is in the file, or what the function gives, which is then there."""
    if not file.is_file():
        with artifacts.whole(file) as partial:
            function(*inputs).reset_index(drop=True).to_parquet(partial)
    return pd.read_parquet(file)


def _pairs_and_moves(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    moves = np.array(table["move"].tolist(), np.float32).reshape(-1, 2, 3)
    return table[["one", "two"]].to_numpy(), moves


def _everywhere(
    table: pd.DataFrame, crops: np.ndarray, candidates: pd.DataFrame, sizes: np.ndarray
) -> np.ndarray:
    """`everywhere` on a finer grid, the sharper of the two blurred like the other; the best, `[P]`."""
    best = np.full(len(table), -1.0)
    if table.empty:
        return best
    pairs, moves = _pairs_and_moves(table)
    moves[:, :, 2] *= FINE / GRID
    rows = np.unique(pairs)
    pairs = np.searchsorted(rows, pairs)
    shown = {
        blur: pictures(crops[rows], candidates.iloc[rows], sizes[rows], FINE, blur)
        for blur in {blur for both in FINE_BLURS for blur in both}
    }
    for mirror in (False, True):
        mine = (table["mirrored"] == mirror).to_numpy()
        for blur, other in FINE_BLURS:
            first, second = shown[blur], shown[other].mirrored() if mirror else shown[other]
            aligned = agreement(first, second, pairs[mine], moves[mine])[1]
            best[mine] = np.maximum(best[mine], everywhere(first, second, pairs[mine], aligned))
    return best


def _screened(shown: Pictures) -> np.ndarray:
    """What `_correlations` needs: weight, weighted values and weighted squares, float32 `[3, M, 196]`."""
    rows = np.empty((3, len(shown), _SCREEN**2), np.float32)
    for row, (grey, weight) in enumerate(zip(shown.grey, shown.weight, strict=True)):
        values, share = (
            cv2.resize(np.ascontiguousarray(part), (_SCREEN, _SCREEN), interpolation=cv2.INTER_AREA).ravel()
            for part in (grey, weight)
        )
        values = (values - values.mean()) / 64  # small numbers, so that single precision is enough
        rows[:, row] = share, share * values, share * values**2
    return rows


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlations `[..., n, m]` of pictures where both have pixels (Padfield, IEEE TIP 2012).

    first, second: of `_screened`, `[3, ..., n, 196]` and `[3, ..., m, 196]`.
    """
    (weight, values, squares), (weight_2, values_2, squares_2) = first, second.swapaxes(-1, -2)
    total = np.maximum(weight @ weight_2, 1e-3)
    one, two = values @ weight_2 / total, weight @ values_2 / total
    spread = (squares @ weight_2 / total - one**2) * (weight @ squares_2 / total - two**2)
    return (values @ values_2 / total - one * two) / np.sqrt(np.maximum(spread, 1e-8))
