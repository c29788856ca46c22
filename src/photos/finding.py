"""Lists the files of a folder that holds one subfolder per person. The folder is only ever read."""

import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm.auto import tqdm

_QUALITIES = {
    "high": "high", "highquality": "high", "hq": "high", "highres": "high",
    "low": "low", "lowquality": "low", "lq": "low", "lowres": "low",
}  # fmt: skip
_SYSTEM = re.compile(r"(^|/)(\.|(thumbs\.db|ehthumbs\.db|desktop\.ini|__macosx|icon\r)(/|$))", re.IGNORECASE)


_BLOCKS, _BLOCK = 16, 4096  # how many blocks of a file are looked at, and how many bytes each has


class FoundFile(NamedTuple):
    """What `walk` finds. `path` is posix, relative to the folder; the numbers are as in `find`."""

    path: str
    bytes: int = 0
    modified_ns: int = 0
    sample: str = ""


def find(folder: Path) -> pd.DataFrame:
    """Lists every file below `folder`, laid out as `<person>/**/<file>`: one row each, sorted by `path`.

    Suffixes are not looked at, and nothing is left out: cleaning decides from the content. Links to files
    and to folders are followed. A link to a folder that is being walked already (a loop), a broken link and
    a folder that can't be opened have a row of their own, as have pipes and other files that are not regular.

    Columns:

    - `path`: posix, relative to `folder`;
    - `identity`: the first folder's name, Unicode NFC; "" for files that lie in no person's folder;
    - `quality`: "high" or "low" by the nearest folder of that name (any case, spaces, dashes or underscores,
      also `hq`, `lq`), else "unknown";
    - `bytes`, `modified_ns`: size and date of the content; 0 where there is nothing to stat;
    - `sample`: a digest of the content, of small files whole, of larger ones of 16 blocks spread over them; ""
      for what is no regular file or can't be read.

    The last three tell a changed folder from an unchanged one without reading all of it. Two photos that swap
    places are seen even if size and date are the same. Not seen is a change in place that keeps the size, lies
    between the blocks, and is followed by putting the date back.

    Raises FileNotFoundError or NotADirectoryError where there is no such folder, ValueError where it holds
    no file at all.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(
            f"There is no dataset folder {folder}: give a folder with one subfolder per person."
        )
    if not folder.is_dir():
        raise NotADirectoryError(
            f"The dataset {folder} is a file: give a folder with one subfolder per person."
        )
    rows = []
    for file in tqdm(walk(folder), desc="finding images", unit=" files", leave=False):
        # Names that are not valid Unicode can't be stored. Cleaning says that the escaped name leads nowhere.
        path = file.path.encode("utf-8", "backslashreplace").decode()
        *folders, _ = path.split("/")
        rows.append((path, _identity(folders), quality_of(folders[1:]), *file[1:]))
    if not rows:
        raise ValueError(
            f"The dataset folder {folder} holds no files: put one subfolder of photos per person there."
        )
    images = pd.DataFrame(rows, columns=["path", "identity", "quality", *FoundFile._fields[1:]])
    images = images.astype({"bytes": "int64", "modified_ns": "int64"})
    return images.sort_values("path", ignore_index=True)


def is_system_file(path: str) -> bool:
    """Tells what systems leave behind (`Thumbs.db`, `.DS_Store`, `__MACOSX/*`, hidden files) from photos."""
    return _SYSTEM.search(path) is not None


def quality_of(folders: list[str]) -> str:
    """The quality, "high" or "low", that the last of the folders' names to name one gives; else "unknown"."""
    for name in reversed(folders):
        quality = _QUALITIES.get(re.sub(r"[\s_-]+", "", name.lower()))
        if quality:
            return quality
    return "unknown"


def walk(folder: Path) -> Iterator[FoundFile]:
    """Yields all below `folder` that is no folder, in any order. Links and loops are treated as in `find`."""
    top = folder.stat()
    stack = [("", frozenset({(top.st_dev, top.st_ino)}))]
    while stack:
        below, above = stack.pop()
        try:
            entries = list(os.scandir(folder / below))
        except OSError:
            yield FoundFile(below)
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            try:
                status = entry.stat()
            except OSError:
                yield FoundFile(path)
                continue
            if not stat.S_ISDIR(status.st_mode):
                sample = _sample(entry.path, status.st_size) if stat.S_ISREG(status.st_mode) else ""
                yield FoundFile(path, status.st_size, status.st_mtime_ns, sample)
                continue
            status = Path(entry.path).stat()  # on Windows, entries do not know which folder they are
            place = (status.st_dev, status.st_ino)
            if place in above:
                yield FoundFile(path)
            else:
                stack.append((path, above | {place}))


def _identity(folders: list[str]) -> str:
    # macOS stores é as e + accent: without NFC one person's two folders could be two people.
    return unicodedata.normalize("NFC", folders[0]) if folders else ""


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
