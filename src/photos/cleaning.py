"""Says of every file whether it is usable: status, quality measures, duplicates, groups of near-duplicates.

A file that is not usable keeps its row: `status` and `reason` say why. Nothing is ever moved or deleted.
"""

import itertools
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from src import artifacts
from src.photos import decoding, duplicates, examining
from src.photos.decoding import THUMBNAIL_SIDE
from src.photos.examining import Limits, Row
from src.photos.paths import open_path

MINIMUM_SIDE = 16  # px; below it there is no face to recognise
SECONDS_PER_FILE = 60.0  # a file that takes longer to decode is set aside

# A photo without a quality label is "low" below either: the recogniser sees 112 x 112 px, smaller photos are
# enlarged.
LOW_SIDE, LOW_SHARPNESS = 112, 200.0

# What tells a file from all others, and from itself before it was changed.
_KEY = ["path", "bytes", "modified_ns", "sample"]
_SET_ASIDE = ("path", "identity", "quality", "status", "reason", "duplicate_of", "bytes", "sha256")
_SAVE_EVERY = 10.0  # seconds of work that are lost at most when the run is killed


def clean(
    images: pd.DataFrame,
    folder: Path,
    minimum_side: int = MINIMUM_SIDE,
    maximum_pixels: int = decoding.MAXIMUM_PIXELS,
    seconds_per_file: float = SECONDS_PER_FILE,
    workers: int | None = None,
    workspace: Path | None = None,
) -> pd.DataFrame:
    """Decodes every file of `finding.find`'s table fully, in `workers` processes (one per core unless given).

    folder: what the table's paths are relative to. Returns the table, row by row, with these columns added:

    - `width`, `height`: px, of the upright photo; 0 where unknown;
    - `sha256` of the file's bytes; "" where it could not be read;
    - `status`: "ok", or why the file is set aside: "unreadable", "truncated", "not an image", "not supported"
      (a video, a raw photo or another format that is not read), "system file", "no person" (outside every
      person's folder), "too small" (shorter side below `minimum_side` px), "too large" (more than
      `maximum_pixels`; not decoded), "blank" (one shade all over), "duplicate" (by bytes or by decoded
      pixels, of the file in `duplicate_of`), "label conflict" (the same photo under two people: all its
      copies are set aside);
    - `reason`: a sentence on it, and on what to do; beside "ok" on what is odd about the photo and how it was
      read all the same, for most "";
    - `phash`: 64-bit perceptual hash in 16 hex digits, as ImageHash's `phash` defines and `hex_to_hash`
      reads it;
    - `sharpness`: variance of the Laplacian (Pech-Pacheco et al., ICPR 2000) of the luma at 112 x 112 px,
      0-255 scale; `brightness`: mean luma, 0-1; `contrast`: RMS contrast (Peli, JOSA A 1990), standard
      deviation of the luma, 0-1;
    - `quality_source`: "folder" where a folder's name gave `quality`, "measured" where `measured_quality`
      filled it in, "" where the file is set aside and has none;
    - `group`: near-duplicates of one person share a number; -1 where set aside.

    No file ends the run: one whose decoder crashes, takes more than `seconds_per_file`, or asks for too
    much memory gets a status. Finished files are kept in `workspace`, and an interrupted run goes on from
    there to the identical table. The folder is only read.

    Raises OSError with one sentence where the disk is full, RuntimeError where no process can be started.
    """
    folder, limits = Path(folder), Limits(minimum_side, maximum_pixels)
    images = images.reset_index(drop=True)
    workers = workers or os.cpu_count() or 1
    with artifacts.workspace_or_temporary(workspace) as parts_folder:
        rows, thumbs = _examine_all(images, folder, limits, seconds_per_file, workers, parts_folder)
    images = images.join(pd.DataFrame(rows, columns=list(Row._fields)))
    nobody = (images["status"] == "ok") & (images["identity"] == "")
    images.loc[nobody, ["status", "reason"]] = "no person", "neither its folders nor its name say who it is"
    blank = (images["status"] == "ok") & duplicates.blank(thumbs)
    images.loc[blank, ["status", "reason"]] = "blank", "the same shade all over: there is no picture in it"
    usable = (images["status"] == "ok").to_numpy()
    images["phash"] = ""
    images.loc[usable, "phash"] = [f"{code:016x}" for code in duplicates.phash(thumbs[usable])]
    images["duplicate_of"] = ""
    duplicates.set_aside_copies(images, images["sha256"], "file")
    pairs = duplicates.candidates(images, thumbs)
    digests = duplicates.picture_digests(images, folder, thumbs, pairs)
    duplicates.set_aside_copies(images, digests, "picture")
    duplicates.set_aside_conflicts(images, folder, thumbs, pairs, workers)
    images["group"] = duplicates.groups(images, thumbs, pairs)
    _fill_quality(images)
    return images


# ---------------------------------------------------------------- every file, in parts that outlive a kill


def _examine_all(
    images: pd.DataFrame, folder: Path, limits: Limits, seconds: float, workers: int, parts_folder: Path
) -> tuple[list[Row], np.ndarray]:
    """Rows, and thumbnails uint8 `[N, 32, 32]` (black where there is none), in the order of `images`.

    What an interrupted run left in `parts_folder` is taken from there, where the files are still the same.
    """
    rows: list[Row | None] = [None] * len(images)
    thumbs = np.zeros((len(images), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    finished = sorted(part for part in parts_folder.glob("*.parquet") if part.stem.isdigit())
    for part in finished:
        _restore(part, images, rows, thumbs)
    if "skipped" in images:
        for place, why in enumerate(images["skipped"]):
            if why:
                rows[place] = Row(status="system file", reason=why)
    todo = [position for position, row in enumerate(rows) if row is None]
    names = (parts_folder / f"{number:05d}.parquet" for number in itertools.count(len(finished)))
    paths, sizes = images["path"].iloc[todo].tolist(), images["bytes"].iloc[todo].tolist()
    unsaved: list[int] = []
    saved = time.monotonic()
    with tqdm(total=len(images), initial=len(images) - len(todo), desc="cleaning", unit=" images") as bar:
        portions = examining.examine(paths, sizes, folder, limits, seconds, workers)
        for places, portion_rows, portion_thumbs in portions:
            positions = [todo[place] for place in places]
            for position, row in zip(positions, portion_rows, strict=True):
                rows[position] = row
            thumbs[positions] = portion_thumbs
            unsaved += positions
            bar.update(len(positions))
            if time.monotonic() - saved > _SAVE_EVERY:
                _save(next(names), images, unsaved, rows, thumbs)
                unsaved, saved = [], time.monotonic()
    if unsaved:
        _save(next(names), images, unsaved, rows, thumbs)
    return [row for row in rows if row is not None], thumbs


def _save(
    part: Path, images: pd.DataFrame, positions: list[int], rows: list[Row | None], thumbs: np.ndarray
) -> None:
    table = pd.DataFrame([rows[position] for position in positions], columns=list(Row._fields))
    table[_KEY] = images[_KEY].iloc[positions].to_numpy()
    table["thumb"] = [thumbs[position].tobytes() for position in positions]
    with (
        artifacts.room_for("what is cleaned so far", part.parent, resumable=True),
        artifacts.whole(part) as partial,
    ):
        table.to_parquet(partial, index=False)


def _restore(part: Path, images: pd.DataFrame, rows: list[Row | None], thumbs: np.ndarray) -> None:
    now = images[_KEY].assign(position=np.arange(len(images)))
    table = pd.read_parquet(part).merge(now, on=_KEY)
    values = table[list(Row._fields)].itertuples(index=False)
    for position, thumb, row in zip(table["position"], table["thumb"], values, strict=True):
        rows[position] = Row(*row)
        thumbs[position] = np.frombuffer(thumb, np.uint8).reshape(THUMBNAIL_SIDE, THUMBNAIL_SIDE)


# ---------------------------------------------------------------- quality, tables, thumbnails


def _fill_quality(images: pd.DataFrame) -> None:
    labelled = images["quality"] != "unknown"
    fill = ~labelled & (images["status"] == "ok")
    images["quality_source"] = np.select([labelled, fill], ["folder", "measured"], "")
    images.loc[fill, "quality"] = measured_quality(images[fill])


def measured_quality(images: pd.DataFrame) -> pd.Series:
    """Calls photos "low" that are small (shorter side below 112 px) or blurred, and all others "high".

    images: `width`, `height` (px) and `sharpness`, as `clean` gives them. Returns one value per row.

    A stand-in for labels, no more: it sees the photo, not the face in it.
    """
    small = images[["width", "height"]].min(axis=1) < LOW_SIDE
    blurred = images["sharpness"] < LOW_SHARPNESS
    return pd.Series(np.where(small | blurred, "low", "high"), index=images.index)


def summary(images: pd.DataFrame) -> pd.DataFrame:
    """Counts files per person and quality (rows) and status (columns, "ok" first); sums come last.

    images: `clean`'s table, of which `identity`, `quality` and `status` are used.
    """
    counts = pd.crosstab([images["identity"], images["quality"]], images["status"])
    counts = counts[sorted(counts, key=lambda status: (status != "ok", status))]
    total = pd.DataFrame(
        [counts.sum()], index=pd.MultiIndex.from_tuples([("all", "")], names=counts.index.names)
    )
    return pd.concat([counts, total]).assign(all=lambda table: table.sum(axis=1))


@artifacts.uses(images=_SET_ASIDE)
def set_aside(images: pd.DataFrame) -> pd.DataFrame:
    """The rows of `clean`'s table of files that are not used, and why, in the columns that tell about it."""
    return images.loc[images["status"] != "ok", list(_SET_ASIDE)].reset_index(drop=True)


def remarks(images: pd.DataFrame) -> pd.DataFrame:
    """What is odd about usable photos, and how they were read all the same: columns path, reason."""
    odd = (images["status"] == "ok") & (images["reason"] != "")
    return images.loc[odd, ["path", "reason"]].reset_index(drop=True)


def thumbnails(
    images: pd.DataFrame, folder: Path, count: int = 24, side: int = 96
) -> tuple[np.ndarray, list[str]]:
    """Shows files that were set aside though they can be decoded, `count` of them spread over the table.

    images: `clean`'s table of the photos in `folder`. Returns uint8 RGB `[N, side, side, 3]`, letterboxed in
    white, and for each one "status: path". Raises OSError or UnusableImage where a photo has gone or changed.
    """
    rows = images[(images["status"] != "ok") & (images["width"] > 0)]
    rows = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]
    pictures = np.full((len(rows), side, side, 3), 255, np.uint8)
    for picture, path in zip(pictures, rows["path"], strict=True):
        pixels = decoding.read_rgb(open_path(folder, path))
        scale = side / max(pixels.shape[:2])
        height, width = (max(1, round(length * scale)) for length in pixels.shape[:2])
        small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        top, left = (side - height) // 2, (side - width) // 2
        picture[top : top + height, left : left + width] = small
    return pictures, [f"{status}: {path}" for status, path in zip(rows["status"], rows["path"], strict=True)]
