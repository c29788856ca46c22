"""Formats that photos come in, told by a file's first bytes: those that are read, and those that are not."""

import contextlib
import io
import re
import warnings

from PIL.TiffImagePlugin import ImageFileDirectory_v2

JPEG = b"\xff\xd8\xff"

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # with + the 64-bit kind
_SIGNATURES = (
    *(JPEG, b"\x89PNG", b"BM", b"GIF8", *_TIFF),
    *(b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51"),  # JPEG 2000, boxed and bare
)
# Brands of the ISO base media file format, ISO/IEC 14496-12. `mif1` and `msf1` hold pictures of any coding.
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF, _ANY = {b"avif", b"avis"}, {b"mif1", b"msf1", b"miaf"}
_PICTURES = _HEIC | _AVIF | _ANY

SAVE = "save it as JPEG or PNG"
_EXPORT = "export it as JPEG with a raw converter"
_FRAMES = "save frames of it as JPEG or PNG"
# What begins so: (name, what to do).
_OTHERS = {
    b"\xff\x0a": ("a JPEG XL picture", SAVE),
    b"\0\0\0\x0cJXL ": ("a JPEG XL picture", SAVE),
    b"8BPS": ("a Photoshop document", SAVE),
    b"gimp xcf": ("a GIMP document", SAVE),
    b"II\xbc\x01": ("a JPEG XR picture", SAVE),
    b"v/1\x01": ("an OpenEXR picture", SAVE),
    b"#?RADIANCE": ("a Radiance HDR picture", SAVE),
    b"qoif": ("a QOI picture", SAVE),
    b"\0\0\x01\0": ("a Windows icon", SAVE),
    b"%!PS-Adobe": ("a PostScript document", SAVE),
    b"FUJIFILMCCD-RAW": ("a raw photo (Fujifilm RAF)", _EXPORT),
    b"IIRO": ("a raw photo (Olympus ORF)", _EXPORT),
    b"IIRS": ("a raw photo (Olympus ORF)", _EXPORT),
    b"MMOR": ("a raw photo (Olympus ORF)", _EXPORT),
    b"IIU\0": ("a raw photo (Panasonic RW2)", _EXPORT),
    b"FOVb": ("a raw photo (Sigma X3F)", _EXPORT),
    b"\0MRM": ("a raw photo (Minolta MRW)", _EXPORT),
    b"\x1aE\xdf\xa3": ("a video (MKV or WebM)", _FRAMES),
    b"\0\0\x01\xba": ("a video (MPEG)", _FRAMES),
    b"\0\0\x01\xb3": ("a video (MPEG)", _FRAMES),
    b"0&\xb2u\x8ef\xcf\x11": ("a video (WMV)", _FRAMES),
    b"FLV\x01": ("a video (FLV)", _FRAMES),
    b"OggS": ("a video (OGG)", _FRAMES),
}
_RAW_MAKES = {
    "nikon": "Nikon NEF",
    "sony": "Sony ARW",
    "pentax": "Pentax PEF",
    "ricoh": "Pentax PEF",
    "samsung": "Samsung SRW",
    "hasselblad": "Hasselblad 3FR",
    "epson": "Epson ERF",
    "kodak": "Kodak DCR",
    "phase one": "Phase One IIQ",
    "leaf": "Leaf MOS",
}
# Tags and values of TIFF, TIFF/EP and DNG.
_READ = _SUBFILE_TYPE, _PHOTOMETRIC, _MAKE, _SUB_IFDS, _DNG_VERSION = 254, 262, 271, 330, 50706
_NEXT = -1
_REDUCED = 1  # the bit of `_SUBFILE_TYPE` that says: a smaller copy of another picture in this file
_FROM_SENSOR = {32803, 34892}  # colour filter array, linear raw


class UnusableImage(ValueError):  # noqa: N818 - the name says what the caller holds
    """A file that gives no photo. `status` is a word for the table, `reason` a sentence for the reader."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status, self.reason = status, reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.status, self.reason)


def check_size(width: int, height: int, maximum_pixels: int) -> None:
    """Raises UnusableImage, "too large", for a picture of more pixels than that."""
    if width * height > maximum_pixels:
        reason = f"{width} x {height} pixels; at most {maximum_pixels:,} are decoded"
        raise UnusableImage("too large", reason)


def has_image_signature(data: bytes) -> bool:
    """Whether the first 32 bytes of a file, or more, are those of an image in a format that is read."""
    return data.startswith(_SIGNATURES) or data[8:12] == b"WEBP" or bool(brands(data) & _PICTURES)


def is_heic(data: bytes) -> bool:
    """Whether a file of these first bytes is a HEIC photo: HEVC in a HEIF container, and no AVIF."""
    own = brands(data)
    return bool(own & _HEIC or (own & _ANY and not own & _AVIF))


def brands(data: bytes) -> set[bytes]:
    """The brands, major and compatible, that an ISO media file (HEIC, AVIF, MP4, MOV) gives itself."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), len(data), 1024)
    return {data[8:12], *(data[start : start + 4] for start in range(16, end - 3, 4))}


def check_supported(data: bytes) -> None:
    """Raises UnusableImage, "not supported", for what is known but not read, with its name and what to do.

    Videos, pictures of formats that few programs write, and raw photos: of these the small preview inside
    must not be taken for the photo.
    """
    found = _known_by_first_bytes(data)
    if found is None and data.startswith(_TIFF):
        found = _known_by_tags(data)
    if found:
        name, remedy = found
        raise UnusableImage("not supported", f"{name}, which can not be read here: {remedy}")


def _known_by_first_bytes(data: bytes) -> tuple[str, str] | None:
    for start, found in _OTHERS.items():
        if data.startswith(start):
            return found
    if data[:4] == b"RIFF" and data[8:11] == b"AVI":
        return "a video (AVI)", _FRAMES
    if data[6:14] == b"HEAPCCDR":
        return "a raw photo (Canon CRW)", _EXPORT
    if data[128:132] == b"DICM":
        return "a DICOM picture", SAVE
    if all(data[place : place + 1] == b"G" for place in (0, 188, 376)):
        return "a video (MPEG transport stream)", _FRAMES
    if data[:1] == b"\0" and data[4:8] in (b"moov", b"mdat", b"wide", b"pnot", b"skip", b"free"):
        return "a video (MOV)", _FRAMES
    own = brands(data)
    if b"crx " in own:
        return "a raw photo (Canon CR3)", _EXPORT
    if own and not own & _PICTURES:
        return f"a video ({'MOV' if b'qt  ' in own else 'MP4'})", _FRAMES
    return None


def _known_by_tags(data: bytes) -> tuple[str, str] | None:
    """A raw photo that is a TIFF to all who do not look closer, or a TIFF that begins with a preview."""
    if data[8:10] == b"CR":
        return "a raw photo (Canon CR2)", _EXPORT
    first = _tags(data)
    if _DNG_VERSION in first:
        return "a raw photo (DNG)", _EXPORT
    inner = [_tags(data, offset) for offset in first.get(_SUB_IFDS, ())[:16]]
    if any(_FROM_SENSOR.intersection(tags.get(_PHOTOMETRIC, ())) for tags in (first, *inner)):
        make = str(first.get(_MAKE)).lower()
        name = next((name for maker, name in _RAW_MAKES.items() if maker in make), "TIFF/EP")
        return f"a raw photo ({name})", _EXPORT
    alone = not first.get(_NEXT) and _SUB_IFDS not in first
    if any(isinstance(kind, int) and kind & _REDUCED for kind in first.get(_SUBFILE_TYPE, ())) and not alone:
        return "a TIFF that begins with a small preview of its photo", "save the photo itself as JPEG or PNG"
    return None


def _tags(data: bytes, offset: int | None = None) -> dict[int, tuple]:
    """Values of a picture in a TIFF, the first or that at an offset; what is damaged is left out.

    `_NEXT` is the offset of the picture after it.
    """
    file = io.BytesIO(data)
    values: dict[int, tuple] = {}
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # decoding the file will tell of damage
        warnings.simplefilter("ignore")
        directory = ImageFileDirectory_v2(data[:16] if 43 in data[2:4] else data[:8])
        file.seek(directory.next if offset is None else offset)
        directory.load(file)
        values[_NEXT] = (directory.next,) if directory.next else ()
        for tag in _READ:
            if tag in directory:
                value = directory[tag]
                values[tag] = value if isinstance(value, tuple) else (value,)
    return values


def ended_early(message: str) -> bool:
    """Whether a decoder's complaint is that the file is shorter than it should be."""
    pattern = r"truncat|unexpected end|end of file|premature|not enough|outside of file"
    return re.search(pattern, message, re.IGNORECASE) is not None
