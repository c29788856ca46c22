"""Photos that belong together by their names: one session folder, one video, one burst, one source picture.

Precision comes first: numbers that merely count a person's photos (`Aaron_0001`, `frontal_01`) and codes of
poses (`Img_12`) tie nothing.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd

from src.photos import words

CONSISTENT = 0.9  # of a person's photos must be named alike, where one name alone is no evidence
LEAST_SOURCES = 3  # source numbers of a person; fewer may number the person
RUN_GAP = 25  # frames; a larger gap between two numbers begins another clip
BURST_GAP = 2.0  # seconds between two photos of one burst

_VIDEO = r"(?:video|vid|clip|mov|mvi|movie|tracklet|track|seq|sequence|scene|take|session|rec|recording)"
_SESSION_FOLDER = re.compile(rf"(?:{_VIDEO}|sess|burst|shoot|day)[ _-]?\d+", re.IGNORECASE)
_DAY = re.compile(r"(?=(?:\D*\d){6})[\d _.-]+")  # a date with its day, not a year alone
_FRAME = re.compile(
    r"(?P<clip>.*?)[ _.-]*(?:frame|frm|fr|f|img|image)?[ _.-]*(?P<number>\d{3,})", re.IGNORECASE
)
_CLIP = re.compile(rf"(?:.*[ _.-])?(?:{_VIDEO}[ _-]?\d+.*|(?:19|20)\d{{6}}[ _-]?\d{{4,6}}.*)", re.IGNORECASE)
_NO_CLIP = re.compile(rf"(?:.*[ _.-])?(?:{_VIDEO}|frames?)", re.IGNORECASE)
_DEVICE = r"(?:img|dsc[nf]?|pxl|mvimg|pict|gopr|sam|photo)"
_BURST = re.compile(
    rf"(?P<shot>{_DEVICE}[ _-]?(?:\d{{4,6}}|\d{{8}}[ _-]\d{{6,9}}))(?:[ _-](?:burst)?|\()\d{{1,3}}\)?",
    re.IGNORECASE,
)
_BURST_OF = re.compile(r".*(?P<shot>burst\d{14,17}).*", re.IGNORECASE)
_TIME = re.compile(
    r"(?:\D*[ _-])?(?P<day>(?:19|20)\d{6})[ _-](?P<time>\d{6})(?P<thousandth>\d{3})?", re.IGNORECASE
)
_SOURCE = re.compile(
    r"(?P<source>.*?(?:\d{4,}|(?=[a-f]*\d)[0-9a-f]{8,}))[ _-](?:face|crop)?[ _-]?\d{1,2}", re.IGNORECASE
)


class Reading(NamedTuple):
    """One way to read the names: what photos of one key share, and the key of each photo, "" for none."""

    what: str
    key: pd.Series


def readings(images: pd.DataFrame) -> list[Reading]:
    """What the names of photos say of which belong together, the coarsest first.

    images: `path` (posix) and `identity`. Keys hold for one person each; a key that only one photo has is "".
    """
    people: list[tuple[str, Callable[[Sequence[str]], list[str]]]] = [
        ("one session folder", _sessions),
        ("one video", _videos),
        ("one burst", _bursts),
        ("one source picture", _sources),
    ]
    result = []
    for what, read in people:
        names = np.full(len(images), "", object)
        for rows in images.groupby("identity").indices.values():
            names[rows] = read(images["path"].iloc[rows].tolist())
        key = pd.Series(names, index=images.index)
        alone = ~key.groupby([images["identity"], key]).transform("size").gt(1)
        result.append(Reading(what, key.mask(alone, "")))
    return result


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _sessions(paths: Sequence[str]) -> list[str]:
    """Folders above or below the person that are called like a session, a video or a day."""
    return ["/".join(filter(_is_session, path.split("/")[:-1])) for path in paths]


def _is_session(folder: str) -> bool:
    day = "date" in words.kinds(folder) and _DAY.fullmatch(folder.strip()) is not None
    return day or _SESSION_FOLDER.fullmatch(folder.strip()) is not None


def _videos(paths: Sequence[str]) -> list[str]:
    """`clip2_000123`: the clip is named. `clip_000123`: numbers with gaps between tell the clips apart."""
    found = [_FRAME.fullmatch(_stem(path)) for path in paths]
    clips = [match["clip"].lower() if match else "" for match in found]
    numbers = [int(match["number"]) if match else -1 for match in found]
    keys = [
        clip if _CLIP.fullmatch(clip) and not _TIME.fullmatch(_stem(path)) else ""
        for clip, path in zip(clips, paths, strict=True)
    ]
    wide = [match is not None and len(match["number"]) >= 5 and match["clip"] != "" for match in found]
    several = sum(wide) >= CONSISTENT * len(paths) and len(set(clips)) > 1
    for clip in set(clips) - {""}:
        mine = [i for i, name in enumerate(clips) if name == clip and not keys[i]]
        runs = _runs([numbers[i] for i in mine])
        if _NO_CLIP.fullmatch(clip) and len(set(runs)) > 1:
            for i, run in zip(mine, runs, strict=True):
                keys[i] = f"{clip} {run}"
        elif (
            several and min((numbers[i] for i in mine), default=0) > 1 and _dense([numbers[i] for i in mine])
        ):
            for i in mine:
                keys[i] = clip
    return keys


def _runs(numbers: Sequence[int]) -> list[int]:
    """Which run each number is in: a new one begins where the gap is far wider than usual."""
    if len(numbers) < 2:
        return [0] * len(numbers)
    order = np.argsort(numbers, kind="stable")
    gaps = np.diff(np.array(numbers)[order])
    wide = gaps > max(RUN_GAP, 10 * float(np.median(gaps)))
    runs = np.empty(len(numbers), int)
    runs[order] = np.concatenate([[0], np.cumsum(wide)])
    return runs.tolist()


def _dense(numbers: Sequence[int]) -> bool:
    return len(numbers) > 1 and float(np.median(np.diff(np.sort(numbers)))) <= RUN_GAP


def _bursts(paths: Sequence[str]) -> list[str]:
    """`IMG_1234_1`, `IMG_1234_2`; `IMG_20200131_101500`, `IMG_20200131_101501`; names that say burst."""
    stems = [_stem(path) for path in paths]
    keys = []
    for stem in stems:
        match = _BURST.fullmatch(stem) or _BURST_OF.fullmatch(stem)
        keys.append(match["shot"].lower() if match else "")
    seconds = {i: at for i, stem in enumerate(stems) if not keys[i] and (at := _seconds(stem)) is not None}
    before, first = -np.inf, 0.0
    for i in sorted(seconds, key=lambda i: seconds[i]):
        first = first if seconds[i] - before <= BURST_GAP else seconds[i]
        before = seconds[i]
        keys[i] = f"at {first}"
    return keys


def _seconds(stem: str) -> float | None:
    match = _TIME.fullmatch(stem)
    if not match:
        return None
    try:
        at = datetime.strptime(match["day"] + match["time"], "%Y%m%d%H%M%S")
    except ValueError:  # such numbers, but no time
        return None
    return (at - datetime(1900, 1, 1)).total_seconds() + int(match["thousandth"] or 0) / 1000


def _sources(paths: Sequence[str]) -> list[str]:
    """`0014_01`, `0014_02`: faces cut from one picture; where nearly all of the photos are named so."""
    found = [_SOURCE.fullmatch(_stem(path)) for path in paths]
    keys = [match["source"].lower() if match else "" for match in found]
    named = len(keys) - keys.count("")
    if named < CONSISTENT * len(keys) or len(set(keys) - {""}) < LEAST_SOURCES:
        return [""] * len(keys)
    return keys
