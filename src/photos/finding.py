"""Lists the photos of a dataset, a folder or a .csv, and says who is who. The folder is only ever read."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from src.photos import layouts, patterns, tables
from src.photos.layouts import Unclear
from src.photos.paths import is_system_file, open_path, place, root, to_disk, to_text
from src.photos.remarks import counted, is_photo, normal, quality_of

__all__ = [
    "FoundFile", "Unclear", "describe", "find", "is_system_file", "open_path", "place", "quality_of", "root",
    "to_disk", "walk",
]  # fmt: skip

_BLOCKS, _BLOCK = 16, 4096  # how many blocks of a file are looked at, and how many bytes each has
# What a run leaves among its results: what `artifacts.cached` writes beside the first ones, and the notebook.
_SIDECARS = {"clean.parquet.inputs.json", "images.parquet.inputs.json", "faces.parquet.inputs.json"}
_MARKS = _SIDECARS | {"Face_Recognition_Project.ipynb"}
_SYSTEM = "a hidden file, or one that a system leaves behind"
_RESULTS = "the results of an earlier run"
_GIVE = "give a folder with one subfolder per person, or a .csv"


class FoundFile(NamedTuple):
    """What `walk` finds. `path` is posix, relative to the folder; the others are as in `find`."""

    path: str
    bytes: int = 0
    modified_ns: int = 0
    sample: str = ""
    skipped: str = ""


def find(dataset: str | Path, people: str = "") -> pd.DataFrame:
    """Lists every file of `dataset`, a folder or a .csv: one row each, sorted by `path`.

    A folder is laid out as `<person>/**/<file>`, or in one of the other ways that `layouts` understands;
    where it does not, `people` says it: a pattern as in `patterns`, such as "{split}/{identity}/**". A .csv
    lists photos as `tables` says. `describe` tells what was understood.

    In a folder, suffixes are not looked at, and nothing is left out: cleaning decides from the content.
    Links to files and folders are followed. A link to a folder that is being walked already (a loop), a
    broken link and a folder that can't be opened have a row of their own, as have pipes and other files that
    are not regular, and folders that are not looked into: what systems leave behind, and the results of an
    earlier run.

    Columns:

    - `path`: posix, relative to `root(dataset)`, or absolute; names that no table can hold are escaped: open
      photos with `open_path(dataset, path)`;
    - `identity`: who is shown, Unicode NFC; "" for files that are of nobody;
    - `quality`: "high" or "low" by the nearest folder that names one (`words.quality`), else "unknown";
    - `bytes`, `modified_ns`: size and date of the content; 0 where there is nothing to stat;
    - `sample`: a digest of the content, of small files whole, of larger ones of 16 blocks spread over them;
      "" for what is no regular file or can't be read;
    - `skipped`: why a file or folder is not looked at, "" for all others;
    - `given_group`, `given_split`: what a .csv or `people` says of it, else "". A split is "train", "val",
      "test_seen" or "test_unseen".

    `bytes`, `modified_ns` and `sample` tell a changed folder from an unchanged one without reading all of
    it. Two photos that swap places are seen even if size and date are the same. Not seen is a change in
    place that keeps the size, lies between the blocks, and is followed by putting the date back.

    Raises FileNotFoundError or NotADirectoryError where there is no such dataset, ValueError where it holds
    no photo, or the .csv or `people` is wrong, and its subclass Unclear where it is not clear who is who.
    """
    dataset = place(dataset)
    if not dataset.exists():
        looked = "" if dataset.is_absolute() else f" in {Path.cwd()}"
        raise FileNotFoundError(f"There is no dataset folder {dataset}{looked}: {_GIVE}.")
    if dataset.is_dir():
        images, lines = _in_folder(dataset, people)
    elif dataset.suffix.lower() != ".csv":
        raise NotADirectoryError(f"The dataset {dataset} is a file: {_GIVE}.")
    elif people:
        raise ValueError(f"The table {dataset} says who is who: leave people empty.")
    else:
        images, lines = _in_table(dataset)
    columns = ["path", "identity", "quality", *FoundFile._fields[1:], "given_group", "given_split"]
    images = images[columns].astype({"bytes": "int64", "modified_ns": "int64"})
    images = images.sort_values("path", ignore_index=True)
    images.attrs["layout"] = "\n".join(lines)
    return images


def describe(images: pd.DataFrame) -> str:
    """What was understood of the dataset, in a few lines for the reader. images: as `find` returned it."""
    return str(images.attrs.get("layout", ""))


def walk(folder: Path) -> Iterator[FoundFile]:
    """Yields all below `folder` that is no folder, in any order. Links and loops are treated as in `find`.

    Folders that are not looked into come as they are, with the reason in `skipped`.
    """
    top = folder.stat()
    stack = [("", frozenset({(top.st_dev, top.st_ino)}))]
    while stack:
        below, above = stack.pop()
        try:
            entries = list(os.scandir(folder / below))
        except OSError:
            yield FoundFile(below)
            continue
        if below and any(entry.name in _MARKS for entry in entries):
            yield FoundFile(below, skipped=_RESULTS)
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if is_system_file(entry.name):
                yield FoundFile(path, skipped=_SYSTEM)
                continue
            try:
                status = entry.stat()
            except OSError:
                yield FoundFile(path)
                continue
            if not stat.S_ISDIR(status.st_mode):
                yield _file(path, entry.path, status)
                continue
            status = Path(entry.path).stat()  # on Windows, entries do not know which folder they are
            inside = (status.st_dev, status.st_ino)
            if inside in above:
                yield FoundFile(path)
            else:
                stack.append((path, above | {inside}))


def _in_folder(folder: Path, people: str) -> tuple[pd.DataFrame, list[str]]:
    """The table of a folder, and what was understood."""
    fill = "put one subfolder of photos per person there"
    if any((folder / name).exists() for name in _SIDECARS):
        raise ValueError(f"The dataset folder {folder} holds {_RESULTS}: give the folder of the photos.")
    found = list(tqdm(walk(folder), desc="finding images", unit=" files", leave=False))
    if not found:
        raise ValueError(f"The dataset folder {folder} holds no files: {fill}.")
    if all(file.skipped for file in found):
        litter = f"only {found[0].path!r} and the like"
        raise ValueError(f"The dataset folder {folder} holds no files of its own, {litter}: {fill}.")
    if not found[0].path:
        raise PermissionError(f"The dataset folder {folder} may not be read: change its permissions.")
    rows = sorted((to_text(file.path), *file[1:]) for file in found)  # in any order: what is said is the same
    images = pd.DataFrame(rows, columns=FoundFile._fields)
    new = {"identity": "", "quality": "unknown", "given_group": "", "given_split": ""}
    images = images.assign(**new)
    used = images["skipped"] == ""
    paths = images.loc[used, "path"].tolist()
    try:
        layout = patterns.read(paths, people) if people else layouts.understand(paths)
    except Unclear as unclear:
        raise Unclear(f"It is not clear who is who in {folder}. {unclear}") from None
    for name, values in zip(new, layout, strict=False):
        images.loc[used, name] = values
    results = images.loc[images["skipped"] == _RESULTS, "path"]
    return images, [*layout.lines, *(f"Not looked at, as it holds {_RESULTS}: {path!r}." for path in results)]


def _in_table(file: Path) -> tuple[pd.DataFrame, list[str]]:
    """The table of what a .csv lists, and what was understood."""
    entries = tables.read(file)
    rows = []
    for path, identity, quality, group, split in tqdm(entries, "finding images", unit=" files", leave=False):
        found = tables.on_disk(path, file)
        rows.append((*_file(path, str(found), found.stat()), identity, quality or "unknown", group, split))
    columns = [*FoundFile._fields, "identity", "quality", "given_group", "given_split"]
    lines, beside = [tables.describe(entries, file)], _unlisted(file, [entry.path for entry in entries])
    if beside:
        lines.append(f"Not listed, so not used: {counted(beside, 'file')}, such as {min(beside)!r}.")
    return pd.DataFrame(rows, columns=columns), lines


def _unlisted(file: Path, listed: list[str]) -> list[str]:
    """Paths of other files with names as photos have, where the listed ones lie: in the table's folder, or in
    the one folder there that holds them all."""
    below = [path for path in listed if not Path(path).is_absolute() and not path.startswith("../")]
    if not below:
        return []
    folders_used = {path.partition("/")[0] if "/" in path else "" for path in below}
    top = file.parent / to_disk(folders_used.pop() if len(folders_used) == 1 else "")
    known = {normal(path).casefold() for path in below}  # as some file systems compare names
    found = []
    for folder, folders, names in os.walk(top):
        if Path(folder) != top and not _MARKS.isdisjoint(names):
            folders.clear()  # the results of an earlier run
            continue
        folders[:] = [name for name in folders if not is_system_file(name)]
        paths = [(Path(folder) / name).relative_to(file.parent).as_posix() for name in names]
        found += [to_text(path) for path in paths if is_photo(path) and not is_system_file(Path(path).name)]
    return [path for path in found if normal(path).casefold() not in known]


def _file(path: str, place_on_disk: str, status: os.stat_result) -> FoundFile:
    sample = _sample(place_on_disk, status.st_size) if stat.S_ISREG(status.st_mode) else ""
    return FoundFile(path, status.st_size, status.st_mtime_ns, sample)


def _sample(path: str, size: int) -> str:
    """Digest of the file's content, or of `_BLOCKS` blocks from its first bytes to its last."""
    digest = hashlib.blake2b(digest_size=8)
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib would take longer than the rest
            if size <= _BLOCKS * _BLOCK:
                digest.update(file.read())
            else:
                for i in range(_BLOCKS):
                    file.seek(i * (size - _BLOCK) // (_BLOCKS - 1))
                    digest.update(file.read(_BLOCK))
    except OSError:
        return ""
    return digest.hexdigest()
