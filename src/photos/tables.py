"""A table instead of folders: a .csv that says who is in each photo, and maybe its quality, group and
split."""

import csv
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from src.photos import words
from src.photos.paths import to_disk
from src.photos.remarks import counted, listed, normal

COLUMNS = ("path", "identity", "quality", "group", "split")  # the first two there must be

_SPLITS = "train, val, test, test_seen, test_unseen"


class Entry(NamedTuple):
    """A line of the table; "" where it says nothing. `path` is as `finding.find` has it."""

    path: str
    identity: str
    quality: str
    group: str
    split: str


def read(file: Path) -> list[Entry]:
    """The lines of the .csv `file`: UTF-8, columns in any order, parted by commas, semicolons or tabs.

    Paths are absolute, or start where the file lies. A split called just "test" is test_seen for people who
    may be trained on, else test_unseen.

    Raises ValueError in one sentence for a column that is missing, a line that does not say who is shown or
    says what there is not, and a photo that is listed twice, FileNotFoundError for photos that are not
    there.
    """
    entries: dict[str, Entry] = {}
    lines: dict[str, int] = {}
    for number, cells in _rows(file):
        where = f"{file}, line {number}"
        if not cells["path"] or not cells["identity"]:
            lacking = "path" if not cells["path"] else "identity"
            raise ValueError(f"{where}: there is no {lacking}; every photo needs a path and a person.")
        path, identity = _path(cells["path"], file), normal(cells["identity"])
        quality = _known("quality", words.quality, cells["quality"], "high, low, unknown", where)
        split = _known("split", words.split, cells["split"], _SPLITS, where)
        if path in entries:
            other = entries[path].identity
            whose = "" if other == identity else f", as {other!r} and as {identity!r}"
            raise ValueError(f"{where}: {path!r} is in line {lines[path]} already{whose}; list it once.")
        entries[path] = Entry(path, identity, quality, cells["group"], split)
        lines[path] = number
    if not entries:
        raise ValueError(
            f"The table {file} lists no photos: add a line per photo below the names of columns."
        )
    _check_files(file, lines)
    found = list(entries.values())
    splits = words.tests_told_apart([entry.identity for entry in found], [entry.split for entry in found])
    return [entry._replace(split=split) for entry, split in zip(found, splits, strict=True)]


def describe(entries: list[Entry], file: Path) -> str:
    """What the table holds, in a line for the notebook."""
    people = counted({entry.identity for entry in entries}, "person")
    line = f"{file.name} lists {counted(entries, 'photo')} of {people}"
    given = Counter(entry.split for entry in entries if entry.split)
    if given:
        line += f", with a split of its own ({listed(f'{count} in {name}' for name, count in given.items())})"
    return f"{line}."


def on_disk(path: str, file: Path) -> Path:
    return file.parent / to_disk(path)


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Numbers of lines, and the cells of `COLUMNS` without spaces around them."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            header = text.readline()
            text.seek(0)
            rows = csv.DictReader(text, delimiter=max(",;\t", key=header.count), strict=True)
            called = {(name or "").strip().lower(): name for name in rows.fieldnames or []}
            lacking = [name for name in COLUMNS[:2] if name not in called]
            if lacking:
                raise ValueError(
                    f"The table {file} has no column {' and no column '.join(map(repr, lacking))}, only "
                    f"{listed(map(repr, called), 8)}: it needs path and identity, and may have quality, "
                    "group and split."
                )
            for row in rows:
                if any(row.values()):
                    yield rows.line_num, {name: (row.get(called.get(name)) or "").strip() for name in COLUMNS}
    except UnicodeDecodeError:
        raise ValueError(f"The table {file} is not UTF-8 text: save it anew, as CSV UTF-8.") from None
    except csv.Error as error:
        raise ValueError(f"The table {file} can't be read ({error}): save it anew, as CSV UTF-8.") from None


def _path(text: str, file: Path) -> str:
    """The path as tables have it: from the table's folder where it lies below, else absolute; posix."""
    if "\\" in text and not os.path.lexists(on_disk(text, file)):
        text = text.replace("\\", "/")
    path = Path(text).expanduser() if text.startswith("~") else Path(text)
    folder = file.parent.absolute()
    if path.is_absolute():
        plain = Path(os.path.normpath(path))
        return (plain.relative_to(folder) if plain.is_relative_to(folder) else plain).as_posix()
    return posixpath.normpath(path.as_posix())


def _check_files(file: Path, lines: dict[str, int]) -> None:
    """Raises FileNotFoundError where photos are not there, ValueError for folders."""
    absent = [path for path in lines if not on_disk(path, file).exists()]
    if absent:
        others = f" ({len(absent)} of {len(lines)} photos are not there)" if len(absent) > 1 else ""
        raise FileNotFoundError(
            f"{file}, line {lines[absent[0]]}: there is no file {absent[0]!r}{others}; paths must be "
            f"absolute, or start in {file.parent.absolute()}."
        )
    folder = next((path for path in lines if on_disk(path, file).is_dir()), None)
    if folder is not None:
        raise ValueError(
            f"{file}, line {lines[folder]}: {folder!r} is a folder; list its photos, one a line."
        )


def _known(column: str, meaning: Callable[[str], str], text: str, there: str, where: str) -> str:
    value = meaning(text) if text else ""
    if text and not value and (column, text.lower()) != ("quality", "unknown"):
        raise ValueError(f"{where}: the {column} {text!r} is none of {there}.")
    return value
