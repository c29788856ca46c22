"""Who is who by a pattern of the user's: `{split}/{identity}/**`, `{identity}_*`.

A pattern is held against each photo's path, from the dataset's folder on. `{identity}` is the person. There
may also be `{quality}` (high or low, as folders are called), `{split}` (train, val, test, test_seen,
test_unseen) and `{group}` (photos that must not be split up). Each of these stands for as few characters as
possible, at least one, of one folder or file. `*` is anything within one folder or file, `#` a number, `**`
any folders, also none. A `*` or `**` at the end is all that lies below. A pattern without a slash is held
against the name of the file alone. Case does not count.
"""

import re
from collections.abc import Callable, Sequence

from src.photos import words
from src.photos.layouts import Layout
from src.photos.remarks import counted, is_photo, listed, normal, qualities, remarks

_FIELDS = ("identity", "quality", "split", "group")
_PART = re.compile(r"(\{[^{}]*\}|\*+|#)")


def read(paths: Sequence[str], people: str) -> Layout:
    """What the pattern `people` says of every path, posix and relative to the dataset's folder.

    A split called just "test" is test_seen for people who may be trained on, else test_unseen.

    Raises ValueError where the pattern is none, fits no photo, or finds a quality or split that there is not.
    """
    strict, free = compiled(people)
    matches = [strict.fullmatch(path) or free.fullmatch(path) for path in map(normal, paths)]
    fitting = [path for path, match in zip(paths, matches, strict=True) if match and is_photo(path)]
    if not fitting:
        photos = [path for path in paths if is_photo(path)] or list(paths)
        raise ValueError(
            f'people = "{people}" fits none of the {counted(photos, "photo")}, such as {photos[0]!r}: write '
            "{identity} for the part that names the person, and * for other parts."
        )
    found = {name: [_part(match, name) for match in matches] for name in _FIELDS}
    person = found["identity"]
    # which part of the path the person is
    places = [match.string.count("/", 0, match.start("identity")) if match else -1 for match in matches]
    by_folders, ignored = qualities(paths, places)
    said = [_known("quality", words.quality, text, people) for text in found["quality"]]
    quality = [text or other for text, other in zip(said, by_folders, strict=True)]
    split = words.tests_told_apart(
        person, [_known("split", words.split, text, people) for text in found["split"]]
    )
    example = f"{fitting[0]!r} is {person[list(paths).index(fitting[0])]!r}"
    line = f'people = "{people}": {counted(set(person) - {""}, "person")} found, as {example}.'
    return Layout(person, quality, found["group"], split, [line, *remarks(paths, person), *ignored])


def compiled(people: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The pattern as regular expressions, with groups called as the fields; ValueError where it is none.

    In the first, a quality and a split look like one, so that what else stands there is the person's.
    """
    text = normal(people).strip().replace("\\", "/").removeprefix("./").strip("/")
    wrong = f'people = "{people}"'
    named = [part[1:-1] for part in _PART.split(text) if part.startswith("{")]
    unknown = [name for name in named if name not in _FIELDS]
    if unknown:
        known = listed(f"{{{name}}}" for name in _FIELDS)
        raise ValueError(f"{wrong}: {{{unknown[0]}}} is not known; there are {known}.")
    if "identity" not in named or len(set(named)) < len(named):
        raise ValueError(f"{wrong} must say {{identity}}, and each such name once only.")
    if re.search(r"[}*#][{*#]", text.replace("**", "*")):
        raise ValueError(
            f"{wrong}: between {{identity}} and what stands beside it there must be a character that tells "
            "where it ends, as in {identity}_*."
        )
    if text.rpartition("/")[2] == "{identity}":
        raise ValueError(
            f'{wrong} takes a file\'s whole name for the person: write "{text}/**" for a folder.'
        )
    *folders, last = text.split("/") if "/" in text else ["**", text]
    forms = []
    for looks in ({"quality": words.QUALITY, "split": words.SPLIT}, {}):
        rows = [r"(?:[^/]+/)*" if name == "**" else _expression(name, looks) + "/" for name in folders]
        end = ".+" if re.fullmatch(r"\*+", last) else _expression(last, looks)
        forms.append(re.compile("".join(rows) + end, re.IGNORECASE | re.DOTALL))
    return forms[0], forms[1]


def _expression(text: str, looks: dict[str, str]) -> str:
    """One folder or file of the pattern."""
    pieces = []
    for part in _PART.split(text):
        if part.startswith("{"):
            name = part[1:-1]
            pieces.append(rf"(?P<{name}>{looks.get(name, '[^/]+?')})")
        elif part.startswith("*"):
            pieces.append("[^/]*" if len(text) > len(part) else "[^/]+")
        else:
            pieces.append(r"\d+" if part == "#" else re.escape(part))
    return "".join(pieces)


def _part(match: re.Match[str] | None, name: str) -> str:
    return match[name] if match and name in match.re.groupindex else ""


def _known(name: str, meaning: Callable[[str], str], text: str, people: str) -> str:
    """The quality or the split that a text stands for; "" for none. Raises ValueError where there is no
    such."""
    value = meaning(text) if text else ""
    if text and not value and (name, text.lower()) != ("quality", "unknown"):
        there = "high or low" if name == "quality" else "train, val, test, test_seen or test_unseen"
        raise ValueError(
            f'people = "{people}" finds the {name} {text!r}, but there is only {there}: rename the folder, '
            f"or write * for {{{name}}}."
        )
    return value
