"""Where it is not clear who is who: what was understood, what else it may be, and what to write to say so."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from src.photos import filenames, words
from src.photos.remarks import listed, normal

MANY = 8  # folders that recur under others: by chance a few do

_CSV = "or list the photos in a .csv with the columns path and identity, and give that as the dataset"
_PERSON = "{identity}/**"

Folders = Mapping[str, set[str]]  # the names of folders, and of those in each


class Unclear(ValueError):  # noqa: N818 - the name says what the caller holds
    """It is not clear who is who: what was understood, what else it may be, and what to write to say so."""


def look(folders: Folders, photos: Mapping[str, Sequence[str]], depth: int) -> list[str]:
    """Looks at folders taken for people: says what else they may be, or raises Unclear where they hardly are.

    photos: the names, without suffixes, of some of the photos in each folder. depth: how many folders stand
    above them.
    """
    start = "*/" * depth
    _check_mixed(folders, start)
    _check_parts(folders, start)
    notes = [*_check_shared(folders, start), *_check_photos(photos, start), *_grid(folders, start)]
    odd = sorted(name for name in folders if words.kinds(name) - {"nobody"})
    if odd and len(odd) < len(folders):
        verb = "counts as a person" if len(odd) == 1 else "count as people"
        notes.append(f"{_quoted(odd)} {verb}, as other people stand beside.")
    return notes


def check_numbers(paths: Sequence[str], places: Sequence[int], identity: Sequence[str]) -> None:
    """Raises Unclear where men and women, or two sets, number their people alike: these may be different."""
    groups: dict[str, set[str]] = defaultdict(set)
    for path, place, person in zip(paths, places, identity, strict=True):
        if place > 0 and re.fullmatch(r"\D?\d+", person):
            groups[person].add(" ".join(filter(None, map(_group, path.split("/")[:place]))))
    twice = sorted(person for person, names in groups.items() if len(names) > 1)
    if twice:
        verb = "is" if len(twice) == 1 else "are"
        raise Unclear(
            f"{_quoted(twice)} {verb} in {_quoted(groups[twice[0]])}, the same person or another. If the "
            f"same, write {_people('*/', _PERSON)}; else give the folders names of their own, {_CSV}."
        )


def no_names(folders: Sequence[Sequence[str]], example: str, why: str) -> Unclear:
    """What to say of photos in `folders` that are no people's, and whose own names do not help."""
    depth = max(map(len, folders))
    names = f"if their names start with the person, write {_people('', '{identity}_*')} with what follows"
    if depth == 0:
        return Unclear(
            f"The photos, such as {example!r}, lie in no folders of people, and {why}. Put them in one "
            f"folder per person; {names}; {_CSV}."
        )
    called = _quoted(folder[-1] for folder in folders if folder)
    return Unclear(
        f"Folders called {called} are hardly people, and {why} (such as {example!r}). If each is a person, "
        f"write {_people('*/' * (depth - 1), _PERSON)}; {names}; {_CSV}."
    )


def against(folders: Iterable[str], found: set[str], numbered: bool) -> str:
    """Why names of photos and names of folders can't be of the same people; "" if they can."""
    both = {normal(name) for name in folders} & found
    if numbered and both and all(name.isdigit() for name in both):
        return f"the numbers they begin with ({_quoted(both)}) may be of others than the folders so called"
    if not all(name.isdigit() for name in found) and 2 * len(both) < len(found):
        return f"what they seem to be called after ({_quoted(found)}) are not the people's folders"
    return ""


def _check_mixed(folders: Folders, start: str) -> None:
    """Raises Unclear where folders called train and test, which hold folders, stand beside people."""
    holders = {
        name for name, inner in folders.items() if words.kinds(name) and not all(map(words.kinds, inner))
    }
    inside = {name for holder in holders for name in folders[holder]}
    called_so = sorted(inside & (set(folders) - holders))
    qualities = {words.quality(name) for name in holders} - {""}
    both = len(qualities) > 1 or {words.split(name) for name in holders} >= {"train", "test"}
    counts = Counter(name for holder in holders for name in folders[holder] if not words.kinds(name))
    elsewhere = {name for beside in set(folders) - holders for name in folders[beside]}
    recurring = [name for name in counts if counts[name] > 1 and name not in elsewhere]
    if called_so or both or len(recurring) > 1:
        inner = f"folders that are beside, too ({_quoted(called_so)})" if called_so else "folders, too"
        raise Unclear(
            f"Folders called {_quoted(holders)} stand beside people and hold {inner}: they may be people, "
            f"or stand above people. If they are people, write {_people(start, _PERSON)}; else put all "
            f"people at one depth, {_CSV}."
        )


def _check_parts(folders: Folders, start: str) -> None:
    """Raises Unclear where most folders seem to be parts of a person's: `anna_high`, `anna_low`."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in folders:
        parts = re.split(r"[\s_.-]+", name)
        while len(parts) > 1:
            of_words = [n for n in (1, 2, 3) if n < len(parts) and words.kinds(" ".join(parts[-n:]))]
            if not of_words:
                break
            parts = parts[: -of_words[0]]
        found["_".join(parts)].append(name)
    twins = {stem: sorted(names) for stem, names in found.items() if len(names) > 1}
    if twins and 2 * sum(map(len, twins.values())) >= len(folders):
        stem, names = min(twins.items())
        ends = {re.sub(r"\d+", "#", name[len(one) :]) for one, parts in twins.items() for name in parts}
        if all(map(words.quality, ends)):
            ends = {"_{quality}"}
        pattern = f"; if parts, {_people(start, '{identity}' + ends.pop() + '/**')}" if len(ends) == 1 else ""
        raise Unclear(
            f"Folders such as {_quoted(names)} may be parts of one person, {stem!r}, or people. If people, "
            f"write {_people(start, _PERSON)}{pattern}; or put the parts into one folder per person, {_CSV}."
        )


def _check_shared(folders: Folders, start: str) -> list[str]:
    """A note where folders hold folders of the same names, maybe the people; raises Unclear if likely."""
    below: dict[str, set[str]] = defaultdict(set)
    for first, inner in folders.items():
        for name in inner:
            if not words.kinds(name):
                below[name].add(first)
    shared = [name for name in below if len(below[name]) > 1]
    if len(folders) < 2 or not 2 * len(shared) >= len(below) >= len(folders):
        return []
    same = f"{_quoted(folders)} hold folders of the same names ({_quoted(shared)})"
    lower = _people(start, "*/" + _PERSON)
    numbers = 2 * sum(name.isdigit() for name in below) >= len(below)
    many = len(below) >= max(MANY, 3 * len(folders)) and len(shared) >= 0.9 * len(below) and not numbers
    if many or (all(map(words.is_weak, folders)) and len(below) > 1):
        raise Unclear(
            f"The folders {same}: either may be the people. Write {_people(start, _PERSON)} for the upper "
            f"folders, {lower} for the lower ones, {_CSV}."
        )
    return [f"{same}: if those are the people, write {lower}."] if len(below) > len(folders) else []


def _check_photos(photos: Mapping[str, Sequence[str]], start: str) -> list[str]:
    """A note where photos seem to be called after people who are in several folders; Unclear if they likely
    are."""
    owners = [folder for folder, stems in photos.items() for _ in stems]
    stems = [stem for stems in photos.values() for stem in stems]
    found, why = filenames.people(stems)
    where: dict[str, set[str]] = defaultdict(set)
    for person, folder in zip(found, owners, strict=True):
        where[person].add(folder)
    several = sorted(person for person in where if person and len(where[person]) > 1)
    if why or 2 * len(several) <= len(where):
        return []
    weak = all(map(words.is_weak, photos))
    if not weak and len(several) < 2 * len(photos):
        return []
    said = f"as photos in {_quoted(photos)} are called after {_quoted(several)}"
    write = _people("", "{identity}_*")
    if weak:
        raise Unclear(
            f"The people may be the folders or, {said}, those. If the folders, write "
            f"{_people(start, _PERSON)}; if the names of the photos start with the person, {write} with what "
            f"follows, {_CSV}."
        )
    return [f"Perhaps other people, {said}: if they are the people, write {write} with what follows."]


def _grid(names: Iterable[str], start: str) -> list[str]:
    """A note on folders called `001_E`, `001_U`, `002_E`, `002_U`, which may be two people or four."""
    ends: dict[str, set[str]] = defaultdict(set)
    for name in names:
        begin, _, end = name.partition("_")
        ends[begin].add(end)
    common = set.intersection(*ends.values()) - {""} if len(ends) > 1 else set()
    if len(common) < 2:
        return []
    parts = f"{_quoted(ends)} with {_quoted(common)}"
    return [
        f"All folders are called {parts}: if the first part is the person, write "
        f"{_people(start, '{identity}_*/**')}."
    ]


def _group(name: str) -> str:
    """A folder of which one person is in one at most: men, class 2, the set of somebody; "" for others."""
    if "group" in words.kinds(name):
        return name
    bare = "".join(word for word in words.words_of(name) if not word.isdigit())
    return bare if "source" in words.kinds(name) else ""


def _quoted(names: Iterable[str]) -> str:
    return listed(map(repr, sorted(dict.fromkeys(names))))


def _people(start: str, pattern: str) -> str:
    return f'people = "{start}{pattern}"'
