"""Looks into HEIC files for the damage that their decoder conceals."""

import re
import struct
from collections.abc import Iterator

from src.photos.formats import UnusableImage

# What never occurs inside a unit of HEVC, ITU-T H.265, 7.3.1.1: there a 3 stands after two zeros.
_FORBIDDEN = re.compile(rb"\0\0[\0-\2]")


def check(data: bytes) -> None:
    """Raises UnusableImage where a HEIC file's pictures are cut off or have been overwritten with zeros.

    That is what broken copies and downloads look like, and libde265 makes up a picture for what is missing.
    The parts of a picture must lie in the file, be filled by their units to the last byte, and hold no bytes
    that can not occur in them.
    """
    try:
        boxes = {kind: (start, end) for kind, start, end in _boxes(data, 0, len(data))}
        start, end = boxes[b"meta"]
        meta = {kind: (start, end) for kind, start, end in _boxes(data, start + 4, end)}
        wanted = _hevc_items(data, *meta[b"iinf"])
        items: dict[int, list[slice]] = {}
        for item, place in _extents(data, *meta[b"iloc"]):
            items.setdefault(item, []).append(place)
        size = _length_size(data, *meta[b"iprp"])
    except (KeyError, IndexError, ValueError, struct.error) as error:
        raise UnusableImage("unreadable", "the list of the parts of this HEIC file is damaged") from error
    if any(place.stop > len(data) for places in items.values() for place in places):
        raise UnusableImage("truncated", "the HEIC file is shorter than its list of parts says")
    for item in wanted & items.keys():
        if not _is_whole(b"".join(data[place] for place in items[item]), size):
            raise UnusableImage("unreadable", "parts of the HEIC picture have been overwritten")


def _is_whole(item: bytes, size: int) -> bool:
    """Whether an item consists of units, each after its length in `size` bytes, as an encoder wrote them."""
    start = 0
    while start < len(item):
        length = int.from_bytes(item[start : start + size], "big")
        start += size + length
        if length == 0 or start > len(item) or _FORBIDDEN.search(item, start - length, start):
            return False
    return True


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and start and end of the content, of the boxes between two places (ISO/IEC 14496-12)."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            header = 16
        elif size == 0:
            size = end - start
        if size < header:
            raise struct.error("a box that is smaller than its header")
        yield kind, start + header, start + size
        start += size


def _hevc_items(data: bytes, start: int, end: int) -> set[int]:
    """Numbers of the items that are coded with HEVC, from the box `iinf`."""
    items = set()
    for kind, place, _ in _boxes(data, start + (6 if data[start] == 0 else 8), end):
        if kind == b"infe" and data[place] >= 2:
            item, _, coding = struct.unpack_from(">HH4s" if data[place] == 2 else ">IH4s", data, place + 4)
            if coding == b"hvc1":
                items.add(item)
    return items


def _extents(data: bytes, start: int, end: int) -> Iterator[tuple[int, slice]]:
    """Items and the places of their parts in the file, from the box `iloc`."""
    version = data[start]
    place = start + 4

    def number(size: int) -> int:
        nonlocal place
        place += size
        if place > end:
            raise struct.error("a list that goes on beyond its box")
        return int.from_bytes(data[place - size : place], "big")

    sizes = number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(number(2 if version < 2 else 4)):
        item = number(2 if version < 2 else 4)
        within = number(2) & 15 if version else 0  # 0: the file; else another part of it
        number(2)
        base = number(base_size)
        for _ in range(number(2)):
            number(index_size if version else 0)
            offset, length = number(offset_size), number(length_size)
            if within == 0:
                yield item, slice(base + offset, base + offset + length)


def _length_size(data: bytes, start: int, end: int) -> int:
    """Of how many bytes the lengths before the units are, from the first box `hvcC`."""
    ((_, start, end), *_) = (box for box in _boxes(data, start, end) if box[0] == b"ipco")
    ((_, start, end), *_) = (box for box in _boxes(data, start, end) if box[0] == b"hvcC")
    return (data[start + 21] & 3) + 1
