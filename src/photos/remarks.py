"""What is worth saying about who is who: qualities that are not understood, photos of nobody, twins."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Sized

from src.photos import words

# Files beside the photos that say nothing of who is who; they keep their rows.
_NO_PHOTO = re.compile(
    r"\.(txt|csv|tsv|jsonl?|xml|ya?ml|mat|npy|npz|pkl|h5|md|rst|pdf|html?|docx?|xlsx?|db|ini|log|zip|tar|gz|7z"
    r"|rar|bz2|py|ipynb|m|sh|bat|lst|rec|idx|bin|pth|pt|onnx|eye|pts|lnk|url|mp4|avi|mov|mkv|lock|parquet)$",
    re.IGNORECASE,
)


def is_photo(path: str) -> bool:
    """Whether a file may be a photo by its name: what is surely something else says nothing of people."""
    return not _NO_PHOTO.search(path)


def normal(name: str) -> str:
    """Unicode NFC: macOS stores é as e + accent, and one person's two folders could be two people."""
    return unicodedata.normalize("NFC", name)


def listed(names: Iterable[str], at_most: int = 4) -> str:
    """Names for a sentence, the first few of them."""
    names = list(names)
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")


def counted(things: Sized, what: str) -> str:
    """How many there are, in words: 1 person, 2 people, 3 photos."""
    many = "people" if what == "person" else f"{what}s"
    return f"{len(things)} {what if len(things) == 1 else many}"


def quality_of(folders: Sequence[str]) -> str:
    """The quality, "high" or "low", that the last of the folders' names to name one gives; else "unknown"."""
    return next((value for name in reversed(folders) if (value := words.quality(name))), "unknown")


def qualities(paths: Sequence[str], places: Sequence[int]) -> tuple[list[str], list[str]]:
    """The quality of each path, and a remark on names of folders that speak of one but are not understood.

    places: which part of each path names the person, -1 where none does; that part names no quality.
    """
    known: dict[tuple[str, int], tuple[str, str]] = {}
    found, ignored = [], Counter[str]()
    for path, place in zip(paths, places, strict=True):
        folder = path.rpartition("/")[0]
        if (folder, place) not in known:
            names = [name for i, name in enumerate(folder.split("/")) if i != place]
            value = quality_of(names)
            doubtful = next((name for name in reversed(names) if words.seems_quality(name)), "")
            known[folder, place] = value, "" if value != "unknown" else doubtful
        value, doubtful = known[folder, place]
        found.append(value)
        if doubtful and is_photo(path):
            ignored[doubtful] += 1
    if not ignored:
        return found, []
    names = [f"{name!r} ({counted(range(count), 'photo')})" for name, count in ignored.most_common()]
    return found, [f"Ignored, as it is not clear which quality they name: {listed(names)}."]


def remarks(paths: Sequence[str], identity: Sequence[str]) -> list[str]:
    """Sentences on photos of nobody, on names that differ in case or spaces only, on a person "unknown"."""
    lines = []
    nobody = [path for path, person in zip(paths, identity, strict=True) if not person and is_photo(path)]
    if nobody:
        files = "1 file is" if len(nobody) == 1 else f"{len(nobody)} files are"
        lines.append(f"{files} in no person's folder, such as {nobody[0]!r}, and not used.")
    alike = defaultdict(set)
    for person in set(identity) - {""}:
        alike[" ".join(re.split(r"[\s_-]+", person.casefold().strip()))].add(person)
    twins = [" and ".join(map(repr, sorted(names))) for names in alike.values() if len(names) > 1]
    if twins:
        lines.append(
            f"Names that differ only in case or spaces are different people: {listed(sorted(twins))}."
        )
    nobodies = sorted(name for name in set(identity) if words.kinds(name) == {"nobody"})
    if nobodies:
        lines.append(f"{listed(map(repr, nobodies))} counts as one person: take it out if it is not.")
    return lines
