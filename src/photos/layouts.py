"""Who is who, from the paths of the photos alone: which folders are people, and what the others are.

Folders are read level by level. One whose children are all called like splits, qualities, cameras, days and
so on stands above the people; the first other level is that of the people. Photos below no such level may
carry the person in their names. Where two readings are possible, `doubts` says so.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from src.photos import doubts, filenames, words
from src.photos.doubts import Unclear
from src.photos.remarks import counted, is_photo, listed, normal, qualities, remarks

_SUFFIX = re.compile(
    r"\.(jpe?g|jpe|jfif|png|bmp|gif|tiff?|webp|p[pgbn]m|jp2|avif|hei[cf]|dng|cr2|nef|jxl)$", re.IGNORECASE
)
_DISTRACTOR = re.compile(r"(distractor|unknown|imposter|impostor)s?[_ -]?\d", re.IGNORECASE)
_YEARS = 20  # more folders called like years are numbers of people
_LOOKED_AT = 50  # folders, and photos in each, whose names are held against each other

NAMES, PEOPLE, ABOVE = "photos by name", "people", "folders above people"

Prefix = tuple[str, ...]  # a folder: the names that lead to it


class Layout(NamedTuple):
    """One value per path, as in `finding.find`'s table, and what was understood, for the reader."""

    identity: list[str]
    quality: list[str]
    group: list[str]
    split: list[str]
    lines: list[str]


@dataclass
class _Node:
    """A folder: its folders by name, and the names of the photos that lie directly in it."""

    children: dict[str, "_Node"] = field(default_factory=dict)
    photos: list[str] = field(default_factory=list)

    def below(self) -> Iterator["_Node"]:
        """The folder itself and all below it."""
        nodes = [self]
        while nodes:
            node = nodes.pop()
            yield node
            nodes += node.children.values()

    def total(self) -> int:
        return sum(len(node.photos) for node in self.below())

    def some(self, at_most: int) -> list[str]:
        """Names, without suffixes, of some of the photos."""
        names = (name for node in self.below() for name in node.photos)
        return [_SUFFIX.sub("", name) for name in itertools.islice(names, at_most)]

    def at(self, below: Prefix) -> "_Node":
        node = self
        for name in below:
            node = node.children[name]
        return node


class _Reading(NamedTuple):
    """What each folder down to the people's holds, the people named by photos, and what is to be said."""

    decisions: dict[Prefix, str]
    named: dict[tuple[Prefix, str], str]
    notes: list[str]

    def people(self) -> list[Prefix]:
        return [prefix for prefix, decision in self.decisions.items() if decision == PEOPLE]


def understand(paths: Sequence[str]) -> Layout:
    """Says of every path, posix and relative to the dataset's folder, who is shown and in which quality.

    The quality is that of the nearest folder, other than the person's, whose name gives one.

    Raises Unclear where it is not clear who is who.
    """
    tree = _tree([path for path in paths if is_photo(path)] or list(paths))
    reading = _Reading({}, {}, [])
    _decide([((), tree)], reading)
    _read_names(tree, reading)
    places, identity = [], []
    for path in paths:
        place, person = _whose(path, reading)
        places.append(place)
        identity.append(person)
    doubts.check_numbers(paths, places, identity)
    quality, ignored = qualities(paths, places)
    said = [_sentence(reading, paths, places, identity), *reading.notes]
    nothing = [""] * len(paths)
    return Layout(identity, quality, nothing, nothing, [*said, *remarks(paths, identity), *ignored])


# ---------------------------------------------------------------- folders, level by level


def _tree(photos: list[str]) -> _Node:
    folders: dict[str, list[str]] = defaultdict(list)
    for path in photos:
        folder, _, name = path.rpartition("/")
        folders[folder].append(name)
    top = _Node()
    for folder, names in folders.items():
        node = top
        for part in folder.split("/") if folder else ():
            node = node.children.setdefault(part, _Node())
        node.photos = names
    return top


def _are_above(names: Iterable[str]) -> bool:
    """Whether folders of these names, all of them, are surely no people."""
    names = list(names)
    years = sum(name.isdigit() and len(name) == 4 for name in names)
    return all(words.kinds(name) for name in names) and years <= _YEARS


def _decide(level: list[tuple[Prefix, _Node]], reading: _Reading) -> None:
    """Decides for folders side by side, none of them a person's, what they hold."""
    below: list[tuple[Prefix, _Node]] = []
    plain = {prefix for prefix, node in level if node.children and not _are_above(node.children)}
    people = {name for prefix, node in level if prefix in plain for name in node.children}
    for prefix, node in level:
        if not node.children:
            reading.decisions[prefix] = NAMES
        elif people >= set(node.children):
            whole = _whole_set(prefix, node) if len(level) == 1 else ()
            reading.decisions[prefix] = ABOVE if whole else PEOPLE
            if whole:
                reading.decisions.update((whole[:depth], ABOVE) for depth in range(len(prefix), len(whole)))
                below.append((whole, node.at(whole[len(prefix) :])))
        else:
            reading.decisions[prefix] = ABOVE
            below += [((*prefix, name), child) for name, child in node.children.items()]
    children = [
        pair
        for prefix, node in level
        if reading.decisions[prefix] == PEOPLE
        for pair in node.children.items()
    ]
    if children:
        reading.notes.extend(_doubts(children, len(level[0][0])))
    if below:
        _decide(below, reading)


def _doubts(children: list[tuple[str, _Node]], depth: int) -> list[str]:
    """What `doubts` says of the folders taken for people; those of one name count as one."""
    folders: dict[str, set[str]] = defaultdict(set)
    photos: dict[str, list[str]] = defaultdict(list)
    for name, child in children:
        folders[name] |= set(child.children)
        if len(photos) < _LOOKED_AT or name in photos:
            photos[name] += child.some(_LOOKED_AT)
    return doubts.look(folders, photos, depth)


def _whole_set(prefix: Prefix, node: _Node) -> Prefix:
    """The folder in which the whole set lies, several people; () if the one folder of `node` is a person."""
    start = prefix
    if len(node.children) != 1 or 2 * len(node.photos) > node.total():
        return ()
    while len(node.children) == 1 and (prefix == start or not node.photos):
        ((name, node),) = node.children.items()
        prefix = (*prefix, name)
    if len(node.children) < 2 or node.photos:
        return ()
    trial = _Reading({}, {}, [])
    try:
        _decide([(prefix, node)], trial)
    except Unclear:
        return ()
    people = {person for p in trial.people() for person in node.at(p[len(prefix) :]).children}
    return prefix if len(people) > 1 else ()


# ---------------------------------------------------------------- photos that name the person


def _read_names(tree: _Node, reading: _Reading) -> None:
    """Reads the people from the names of photos that lie in no person's folder, or raises Unclear."""
    nodes = {prefix: tree.at(prefix) for prefix in reading.decisions}
    leaves = {
        prefix: nodes[prefix].photos
        for prefix, decision in reading.decisions.items()
        # photos beside folders are strays, unless they are the most
        if decision == NAMES or (decision == ABOVE and 2 * len(nodes[prefix].photos) > nodes[prefix].total())
    }
    folders = {name for prefix in reading.people() for name in nodes[prefix].children}
    keys = [
        (prefix, name)
        for prefix, names in leaves.items()
        if not any("nobody" in words.kinds(folder) for folder in prefix)
        for name in names
        if not _DISTRACTOR.match(name)
    ]
    if not keys and (folders or not leaves):
        return
    gallery = any({"gallery", "probe"} & set(words.words_of(name)) for prefix in leaves for name in prefix)
    found, why = filenames.people([_SUFFIX.sub("", name) for _, name in keys], gallery)
    if not keys:
        why = "they are called distractors or unknown"
    if folders and not why:
        why = doubts.against(folders, set(found) - {""}, gallery)
    if why:
        if not folders or gallery or 2 * len(keys) >= tree.total():
            prefix, name = next((prefix, names[0]) for prefix, names in leaves.items())
            raise doubts.no_names(list(leaves), "/".join([*prefix, name]), why)
        where = listed("/".join(prefix) for prefix in leaves)
        reading.notes.append(f"Photos in {where} are not used: {why}.")
        return
    reading.named.update((key, normal(person)) for key, person in zip(keys, found, strict=True) if person)


def _whose(path: str, reading: _Reading) -> tuple[int, str]:
    """Which part of the path names the person, and the person; -1 and "" where none does."""
    *folders, name = path.split("/")
    prefix: Prefix = ()
    for depth, folder in enumerate(folders):
        decision = reading.decisions.get(prefix)
        if decision == PEOPLE:
            return depth, normal(folder)
        if decision != ABOVE:
            return -1, ""
        prefix = (*prefix, folder)
    person = reading.named.get((prefix, name), "")
    return (len(folders) if person else -1), person


# ---------------------------------------------------------------- what was understood


def _sentence(reading: _Reading, paths: Sequence[str], places: Sequence[int], identity: Sequence[str]) -> str:
    people = f"{counted(set(identity) - {''}, 'person')} found"
    if reading.named:
        (_, name), person = next(iter(reading.named.items()))
        folders = "Folders and the" if reading.people() else "The"
        return f"{folders} names of the photos say who is who, as {name!r} is {person!r}: {people}."
    above = [prefix for prefix in reading.decisions if prefix]
    if not above:
        return f"Each folder is a person: {people}."
    names = listed(dict.fromkeys(prefix[-1] for prefix in above))
    one = len(above) == 1
    line = f"{counted(above, 'folder')} above the people ({names}) "
    line += f"{'is not a person' if one else 'are not people'}: {people}."
    where = defaultdict(set)
    for path, place, person in zip(paths, places, identity, strict=True):
        where[person].add("/".join(path.split("/")[: max(place, 0)]))
    shared = sum(len(folders) > 1 for person, folders in where.items() if person)
    if shared:
        line = f"{line[:-1]}, {shared} of them, by the same name, in several of these folders."
    depths = {len(prefix) for prefix in reading.people()}
    split = next((len(prefix) - 1 for prefix in above if words.split(prefix[-1])), None)
    if split is not None and len(depths) == 1:
        pattern = "/".join("{split}" if i == split else "*" for i in range(depths.pop()))
        line += f' The photos are split anew; people = "{pattern}/{{identity}}/**" keeps their split.'
    return line
