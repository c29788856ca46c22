"""The one decoder of the project: from the bytes of a photo to upright RGB, to the last byte."""

import io
import re
import warnings
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

MAXIMUM_PIXELS = 100_000_000  # takes 300 MB once decoded; more is held for a decompression bomb
# Formats that photos come in. Pillow knows more, among them some that start other programs (EPS) or have no
# signature (TGA).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
THUMBNAIL_SIDE = 32  # px


class UnusableImage(ValueError):  # noqa: N818 - the name says what the caller holds
    """A file that gives no photo. `status` is a word for the table, `reason` a sentence for the reader."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status, self.reason = status, reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.status, self.reason)


def read_rgb(path: Path, maximum_pixels: int = MAXIMUM_PIXELS) -> np.ndarray:
    """Decodes a photo to uint8 `[H, W, 3]`, RGB, 0-255, upright: the one decoder of the project.

    Raises UnusableImage, a ValueError, with the reason; OSError where the file can't be read.
    """
    try:
        return decode(Path(path).read_bytes(), maximum_pixels)
    except UnusableImage as error:
        raise UnusableImage(error.status, f"{path}: {error.reason}") from error


def decode(data: bytes, maximum_pixels: int = MAXIMUM_PIXELS) -> np.ndarray:
    """Decodes an image file's bytes, to the last one, to uint8 `[H, W, 3]`, RGB, 0-255, upright.

    EXIF orientation is applied. Grey, palette and CMYK images become RGB. 16-bit images keep their upper
    eight bits. Transparent pixels show white. Of an animation the first frame counts.

    The strictest reading decides. What libjpeg warns of is an error here: OpenCV passes over it and hands
    back a half grey picture, as does Pillow where the end marker is in place. Wrong PNG checksums, and what
    OpenCV refuses, are errors too. The size is judged before anything is decoded.

    Raises UnusableImage with status "not an image", "truncated", "unreadable" or "too large".
    """
    pixels = _decode_jpeg(data, "RGB", maximum_pixels)
    return _decode_other(data, maximum_pixels) if pixels is None else pixels


def decode_luma(data: bytes, maximum_pixels: int = MAXIMUM_PIXELS) -> np.ndarray:
    """Decodes as `decode` does, as strictly, but to luma (ITU-R BT.601), uint8 `[H, W]`.

    A JPEG's luma is stored as such: its colours are read through, but not worked out, which saves a third
    of the time.
    """
    luma = _decode_jpeg(data, "GRAY", maximum_pixels)
    return cv2.cvtColor(_decode_other(data, maximum_pixels), cv2.COLOR_RGB2GRAY) if luma is None else luma


def thumbnail(luma: np.ndarray) -> np.ndarray:
    """Shrinks luma, uint8 `[H, W]`, to uint8 `[32, 32]`, by which photos are compared with each other."""
    return cv2.resize(luma, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)


def _decode_jpeg(data: bytes, colours: str, maximum_pixels: int) -> np.ndarray | None:
    """Decodes with libjpeg-turbo, strictly; None for what is no JPEG, or is one that only Pillow can read."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    try:
        height, width, coded, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        _check_size(width, height, maximum_pixels)
        if coded not in ("YCbCr", "RGB", "Gray"):
            return None
        pixels = simplejpeg.decode_jpeg(data, colours, strict=True)
    except UnusableImage:
        raise
    except KeyError:  # a sampling of colours that libjpeg-turbo's simple interface does not know
        return None
    except ValueError as error:
        if not _is_padding(data, str(error)):
            raise _jpeg_error(data, str(error)) from error
        pixels = simplejpeg.decode_jpeg(data, colours, strict=False)
    if colours == "GRAY":
        pixels = pixels[:, :, 0]
    orientation = _jpeg_orientation(data)
    return pixels if orientation == 1 else _upright(pixels, orientation)


def _jpeg_error(data: bytes, message: str) -> UnusableImage:
    ended_early = "premature end" in message.lower() or b"\xff\xd9" not in data
    return UnusableImage("truncated" if ended_early else "unreadable", message)


def _is_padding(data: bytes, message: str) -> bool:
    """Some cameras pad the picture's data with equal bytes before the end marker: nothing is missing then."""
    found = re.search(r"(\d+) extraneous bytes before marker 0xd9", message)
    end = data.rfind(b"\xff\xd9")
    return found is not None and len(set(data[end - int(found[1]) : end])) == 1


def _jpeg_orientation(data: bytes) -> int:
    # Only a file that has EXIF data pays for having it parsed.
    if data.find(b"Exif\x00\x00", 0, 65536) < 0:
        return 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return image.getexif().get(0x0112, 1)
        except Exception:  # damaged EXIF data says nothing about the picture
            return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors as the EXIF orientation 1-8 says; other values change nothing."""
    if orientation in (2, 5, 7, 4):
        pixels = pixels[:, ::-1]
    turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(pixels, turns))


def _decode_other(data: bytes, maximum_pixels: int) -> np.ndarray:
    if not data:
        raise UnusableImage("unreadable", "the file is empty")
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        raise UnusableImage("unreadable", "a HEIC photo, which is not supported: convert it to JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders warn of what is raised or judged here
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(*image.size, maximum_pixels)
                _check_end(image, data)
                pixels = np.asarray(_rgb(ImageOps.exif_transpose(image)))
                _check_opencv(image, data)
                return pixels
        except UnusableImage:
            raise
        except Image.UnidentifiedImageError as error:
            if has_image_signature(data):
                raise UnusableImage(
                    "unreadable", "the file begins as an image, but its header is damaged"
                ) from error
            raise UnusableImage("not an image", "the content is not that of an image") from error
        except Image.DecompressionBombError as error:
            raise UnusableImage("too large", str(error)) from error
        except MemoryError as error:
            raise UnusableImage("too large", "there is not enough memory to decode it") from error
        except Exception as error:  # decoders fail in every way there is on damaged data
            reason = f"{error}" or type(error).__name__
            ended_early = re.search(r"truncat|unexpected end|end of file|premature|not enough", reason, re.I)
            raise UnusableImage("truncated" if ended_early else "unreadable", reason) from error


def _check_size(width: int, height: int, maximum_pixels: int) -> None:
    if width * height > maximum_pixels:
        reason = f"{width} x {height} pixels; at most {maximum_pixels:,} are decoded"
        raise UnusableImage("too large", reason)


def _check_end(image: Image.Image, data: bytes) -> None:
    """Finds what Pillow does not look at when it decodes: checksums of PNG, missing ends of GIF and WebP."""
    if image.format == "PNG":
        with Image.open(io.BytesIO(data), formats=("PNG",)) as second:
            second.verify()
    elif image.format == "GIF" and not data.rstrip(b"\x00").endswith(b";"):
        raise UnusableImage("truncated", "the GIF has no end marker")
    elif image.format == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise UnusableImage("truncated", "the file is shorter than its WebP header says")


def _check_opencv(image: Image.Image, data: bytes) -> None:
    """Where two decoders disagree the file is not trusted: others will read it with OpenCV."""
    if image.format in ("PNG", "WEBP", "BMP", "TIFF", "GIF"):
        try:
            agreed = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is not None
        except cv2.error:
            agreed = False
        if not agreed:
            raise UnusableImage("unreadable", "Pillow can decode it, OpenCV can not")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey8(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _grey8(values: np.ndarray, mode: str) -> np.ndarray:
    """Deep grey values to uint8: 16 bits by their whole range, others by the usual range they fit in."""
    values = np.nan_to_num(values.astype(np.float64))
    ranges = (65535.0,) if mode.startswith("I;16") else (255.0, 65535.0, 2**32 - 1)
    if mode == "F":
        ranges = (1.0, *ranges)
    largest = values.max(initial=0)
    white = next((end for end in ranges if largest <= end), ranges[-1])
    return (values / white * 255).clip(0, 255).round().astype(np.uint8)


def has_image_signature(data: bytes) -> bool:
    """Whether the first 32 bytes of a file, or more, are those of an image in one of `FORMATS`."""
    starts = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"II*\x00", b"MM\x00*", b"\x00\x00\x00\x0cjP")
    return data.startswith(starts) or data[8:12] == b"WEBP" or data[4:8] == b"ftyp"
