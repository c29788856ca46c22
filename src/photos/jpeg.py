"""Decodes JPEG to its last byte: what libjpeg warns of is an error, unless it is proved to be harmless."""

import io
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from src.photos.formats import SAVE, UnusableImage, check_size, ended_early

# Markers, ITU-T T.81, table B.1. Those of the first kind have no length after them.
_BARE = {0x01, *range(0xD0, 0xD9)}
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # Huffman and arithmetic coding, in one go or, 2 and A, progressive
_SEQUENTIAL = {0xC0, 0xC1, 0xC9}
_START_OF_SCAN, _END = 0xDA, 0xD9
_APP0, _APP1, _APP2 = 0xE0, 0xE1, 0xE2
_NEXT = re.compile(rb"\xff+[^\0\xff]")
_NEXT_AFTER_SCAN = re.compile(rb"\xff+[^\0\xff\xd0-\xd7]")

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
ORIENTATION = 0x0112  # the tag of EXIF

_SAME = 3.0  # grey levels by which two decoders' pictures of one file differ at most


class Segment(NamedTuple):
    """A part of a JPEG, `data[start:end]`, from its marker on; `gap` is where the one before ended."""

    marker: int
    gap: int
    start: int
    content: int
    end: int


def decode(data: bytes, colours: str, maximum_pixels: int) -> tuple[np.ndarray, str]:
    """Decodes to uint8 `[H, W, 3]`, RGB, or with colours "GRAY" to luma, uint8 `[H, W]`, as EXIF turns it.

    The second value says what libjpeg warned of though nothing is missing; "" for nearly all photos. Such
    warnings are of bytes between segments, ICC profiles, JFIF revisions, scan headers that state what is
    known anyway, and padding before the end marker. They are harmless where the file, freed of the cause,
    decodes without any warning, and to the picture that OpenCV makes of the file as it is.

    Raises UnusableImage.
    """
    note = ""
    try:
        pixels = _decode_strictly(data, colours, maximum_pixels)
    except UnusableImage:
        raise
    except MemoryError as error:
        raise UnusableImage("too large", "there is not enough memory to decode it") from error
    except (ValueError, KeyError) as error:
        mended = _decode_mended(data, colours, maximum_pixels)
        if mended is None:
            raise _refused(data, str(error)) from error
        pixels = mended
        note = f"libjpeg warns of it ({error}), yet every pixel is there"
    return upright(pixels, _orientation(data)), note


def _decode_strictly(data: bytes, colours: str, maximum_pixels: int) -> np.ndarray:
    """Raises ValueError or KeyError for all that libjpeg-turbo warns of or can't decode."""
    height, width, coded, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    check_size(width, height, maximum_pixels)
    if coded in ("YCbCr", "RGB", "Gray"):
        pixels = simplejpeg.decode_jpeg(data, colours, strict=True)
        return pixels[:, :, 0] if colours == "GRAY" else pixels
    simplejpeg.decode_jpeg(data, "CMYK", strict=True)  # tells whether it is whole; Pillow knows its colours
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # there is no end to what Pillow raises of damaged segments
        raise ValueError(str(error)) from error
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if colours == "GRAY" else pixels


def _refused(data: bytes, message: str) -> UnusableImage:
    if message.startswith("Unsupported") or "subsampling" in message:
        kind = f"an unusual kind of JPEG, or a damaged one ({message})"
        return UnusableImage("not supported", f"{kind}, which can not be read here: {SAVE}")
    cut = ended_early(message) or b"\xff\xd9" not in data
    return UnusableImage("truncated" if cut else "unreadable", message)


# ---------------------------------------------------------------- warnings that are harmless


def _decode_mended(data: bytes, colours: str, maximum_pixels: int) -> np.ndarray | None:
    """The picture of a file that only looks damaged; None where it is, or nobody can tell."""
    tried = [data]
    for padded in (False, True):
        mended = _mended(data, padded)
        if mended is None or mended in tried:
            continue
        tried.append(mended)
        try:
            pixels = _decode_strictly(mended, colours, maximum_pixels)
        except (ValueError, KeyError):
            continue
        if _opencv_agrees(data, pixels):
            return pixels
    return None


def _mended(data: bytes, padded: bool) -> bytes | None:
    """The file without what libjpeg warns of in vain; None where something of it may count.

    padded: whether equal bytes before the end marker, with which some cameras fill their files up, go too.
    """
    found = list(segments(data))
    frame = next((each for each in found if each.marker in _FRAMES), None)
    if frame is None or found[-1].marker != _END or not _all_scans(data, frame, found):
        return None
    parts, after_scan = [data[:2]], False
    for marker, gap, start, content, end in found:
        between, segment = data[gap:start], bytearray(data[start:end])
        if after_scan:  # what stands between is the picture itself
            filled = padded and marker == _END and between[-2:-1] == between[-1:]
            parts.append(between.rstrip(between[-1:]) if filled else between)
        elif any(name in between for name in (b"Exif", b"Adobe")):
            return None  # the marker of a segment that turns the photo or gives it its colours is damaged
        inside = content - start
        name = data[content : content + 12]
        if marker == _APP0 and name.startswith(b"JFIF\0"):
            segment[inside + 5 : inside + 6] = b"\1"  # the revision that is known
        elif marker == _APP2 and name == b"ICC_PROFILE\0":
            segment.clear()
        elif marker == _START_OF_SCAN and frame.marker in _SEQUENTIAL:
            segment[-3:] = b"\0\x3f\0"  # all coefficients in one go: there is no other way
        parts.append(bytes(segment))
        after_scan = marker == _START_OF_SCAN
    return b"".join(parts)


def _all_scans(data: bytes, frame: Segment, found: list[Segment]) -> bool:
    """Whether the scans of a progressive JPEG tell all coefficients to the last bit: none is lost unseen."""
    if frame.marker in _SEQUENTIAL:
        return True
    channels = data[frame.content + 6 : frame.end : 3]
    missing = {(channel, place) for channel in channels for place in range(64)}
    for marker, _, _, content, end in found:
        if marker == _START_OF_SCAN and end <= len(data):
            first, last, bits = data[end - 3 : end]
            told = data[content + 1 : end - 3 : 2]
            if bits & 15 == 0:
                missing -= {(channel, place) for channel in told for place in range(first, last + 1)}
    return not missing


def segments(data: bytes) -> Iterator[Segment]:
    """The segments of a JPEG up to its end marker, found as libjpeg does: what is in between is skipped."""
    gap, pattern = 2, _NEXT
    while found := pattern.search(data, gap):
        marker, start, content = found[0][-1], found.end() - 2, found.end()
        if marker in _BARE or marker == _END:
            end = content
        else:
            end = content + int.from_bytes(data[content : content + 2], "big")
            content += 2
        yield Segment(marker, gap, start, content, end)
        if marker == _END:
            return
        gap, pattern = end, _NEXT_AFTER_SCAN if marker == _START_OF_SCAN else _NEXT


def _opencv_agrees(data: bytes, pixels: np.ndarray) -> bool:
    flag = cv2.IMREAD_GRAYSCALE if pixels.ndim == 2 else cv2.IMREAD_COLOR_RGB
    try:
        other = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return False
    if other is None or other.shape != pixels.shape:
        return False
    return cv2.norm(other, pixels, cv2.NORM_INF) <= _SAME


# ---------------------------------------------------------------- orientation


def _orientation(data: bytes) -> int:
    """EXIF's orientation, wherever in the header it stands; 1 where there is none, or no sense in it."""
    if _EXIF not in data:  # soon said, and so of most photos from the web
        return 1
    exif = xmp = b""
    for marker, _, _, content, end in segments(data):
        if marker == _START_OF_SCAN:
            break
        if marker == _APP1 and not exif and data.startswith(_EXIF, content):
            exif = data[content:end]
        elif marker == _APP1 and not xmp and data.startswith(_XMP, content):
            xmp = data[content:end]
    if not exif:
        return 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tags = Image.Exif()
            tags.load(exif)
            stated = tags.get(ORIENTATION)
        except Exception:  # damaged EXIF data says nothing about the picture
            return 1
    if stated is None and (found := _XMP_ORIENTATION.search(xmp)):
        return int(found[1])
    return stated if isinstance(stated, int) else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors as the EXIF orientation 1-8 says; other values change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = cv2.transpose(pixels)
    axes = {
        2: 1,
        6: 1,
        4: 0,
        8: 0,
        3: -1,
        7: -1,
    }  # 1: left and right change places, 0: top and bottom, -1: both
    return cv2.flip(pixels, axes[orientation]) if orientation in axes else pixels
