"""Paths as text that any table can hold, and back to the files on the disk."""

import os
import re
from pathlib import Path

_PROJECT = Path(__file__).parents[2]

# What systems and network drives leave behind: hidden files, thumbnails, bins, forks, recovered files.
_SYSTEM = re.compile(
    r"(^|/)(\.|"
    r"(thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini|picasa\.ini|zbthumbnail\.info|icon\r|__macosx"
    r"|@eadir|@recycle|@recently-snapshot|@tmp|@sharebin|#recycle|#snapshot|\$recycle\.bin|recycler"
    r"|system volume information|network trash folder|temporary items|lost\+found)(/|$))",
    re.IGNORECASE,
)
# Characters that no table can hold: bytes of a name that are not UTF-8, and halves of a pair on Windows.
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(r"\\u(d[89a-f][0-9a-f]{2}|005c)")


def place(dataset: str | Path) -> Path:
    """Where a dataset is that the user names: `~` is the home folder; a relative path is as given.

    Where there is nothing at a relative path, one that starts at the project's folder is taken: a notebook
    may be run from another folder. Raises ValueError for the home folder of somebody unknown.
    """
    try:
        path = Path(dataset).expanduser()
    except RuntimeError:
        raise ValueError(
            f"The dataset {dataset} starts with a user who is not known: write it out."
        ) from None
    if not path.is_absolute() and not os.path.lexists(path) and (_PROJECT / path).exists():
        return _PROJECT / path
    return path


def root(dataset: str | Path) -> Path:
    """The folder that paths of `finding.find`'s table start from: the dataset, or where its .csv lies."""
    path = place(dataset)
    return path.parent if path.suffix.lower() == ".csv" and path.is_file() else path


def open_path(dataset: str | Path, path: str) -> Path:
    """The file on the disk that `path`, of `finding.find(dataset)`'s table, stands for.

    All who open photos by that table must go by this: names may be escaped, `dataset` may be a .csv.
    """
    return root(dataset) / to_disk(path)


def to_text(name: str) -> str:
    r"""A name or path of the disk as text that any table can hold; all that is Unicode stays as it is.

    Bytes that are not UTF-8, which Python holds as lone surrogates, become `\udc80` to `\udcff`. Where a name
    has such a sequence of its own, its backslash becomes `\u005c`, so that `to_disk` always leads back.
    """
    if not name.isascii() or "\\" in name:
        name = _ESCAPE.sub(lambda match: r"\u005c" + match[0][1:], name)
        name = _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", name)
    return name


def to_disk(path_text: str) -> str:
    """What `to_text` was given: undoes it exactly."""
    if "\\" not in path_text:
        return path_text
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), path_text)


def is_system_file(path: str) -> bool:
    """Tells what systems leave behind (`Thumbs.db`, `.DS_Store`, `@eaDir/*`, hidden files) from photos."""
    return _SYSTEM.search(path) is not None
