"""The one decoder of the project: from the bytes of a photo to upright RGB, to the last byte."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from src.photos import heif, jpeg
from src.photos.formats import (
    JPEG,
    UnusableImage,
    check_size,
    check_supported,
    ended_early,
    has_image_signature,
    is_heic,
)

MAXIMUM_PIXELS = 220_000_000  # takes 660 MB once decoded; phones take photos of 201 million, bombs have more
# Formats that photos come in. Pillow knows more, among them some that start other programs (EPS) or have no
# signature (TGA).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
THUMBNAIL_SIDE = 32  # px

# Pillow refuses twice as many pixels as this, whatever is judged here.
Image.MAX_IMAGE_PIXELS = MAXIMUM_PIXELS
pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)

_CHECKED_WITH_OPENCV = ("PNG", "WEBP", "BMP", "TIFF", "GIF", *(["AVIF"] * cv2.haveImageWriter(".avif")))
_OF_ANY_DEPTH = ("PNG", "TIFF")  # formats whose 16 bits hold what a camera gave, often 10 or 12 of them
_DEPTHS = (8, 10, 12, 14, 16)  # bits
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF, and what Pillow passes over in deep grey
_UNSEEN = 12  # alpha, of 255: what is nowhere more opaque is not seen


def read_rgb(path: Path, maximum_pixels: int = MAXIMUM_PIXELS) -> np.ndarray:
    """Decodes a photo to uint8 `[H, W, 3]`, RGB, 0-255, upright: the one decoder of the project.

    Raises UnusableImage, a ValueError, with the reason; OSError where the file can't be read.
    """
    try:
        return decode(Path(path).read_bytes(), maximum_pixels)
    except UnusableImage as error:
        raise UnusableImage(error.status, f"{path}: {error.reason}") from error


@contextmanager
def named(path: str, photo: np.ndarray) -> Iterator[None]:
    """Around the detection of faces in a photo `[H, W, 3]`: an error becomes a ValueError that names it."""
    try:
        yield
    except Exception as error:  # OpenCV and ONNX Runtime have exceptions of their own
        size = f"{photo.shape[1]} x {photo.shape[0]} pixels"
        raise ValueError(
            f"Detection fails in {path}, a photo of {size}: take it out of the folder and run again "
            f"({' '.join(str(error).split())})."
        ) from error


def decode(data: bytes, maximum_pixels: int = MAXIMUM_PIXELS) -> np.ndarray:
    """Decodes an image file's bytes, to the last one, to uint8 `[H, W, 3]`, RGB, 0-255, upright.

    EXIF orientation is applied. Grey, palette and CMYK images become RGB. 16-bit images keep their upper
    eight bits; where they hold 8, 10, 12 or 14 bits only, the upper eight of those. Transparent pixels show
    white, but of a photo that nothing can be seen of its colours are shown. Of an animation the first frame
    counts.

    The strictest reading decides. What libjpeg warns of is an error here: OpenCV passes over it and hands
    back a half grey picture, as does Pillow where the end marker is in place. (Harmless warnings are told
    apart, see `jpeg.decode`.) Wrong PNG checksums, and what OpenCV refuses, are errors too. The size is
    judged before anything is decoded.

    Raises UnusableImage with status "not an image", "not supported", "truncated", "unreadable" or "too
    large".
    """
    if data.startswith(JPEG):
        return jpeg.decode(data, "RGB", maximum_pixels)[0]
    return _decode_other(data, maximum_pixels)[0]


def decode_luma(data: bytes, maximum_pixels: int = MAXIMUM_PIXELS) -> tuple[np.ndarray, str]:
    """Decodes as `decode` does, as strictly, but to luma (ITU-R BT.601), uint8 `[H, W]`.

    The second value says what is odd about the file and how it was read all the same; "" for most.

    A JPEG's luma is stored as such: its colours are read through, but not worked out, which saves a third
    of the time.
    """
    if data.startswith(JPEG):
        return jpeg.decode(data, "GRAY", maximum_pixels)
    pixels, note = _decode_other(data, maximum_pixels)
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), note


def thumbnail(luma: np.ndarray) -> np.ndarray:
    """Shrinks luma, uint8 `[H, W]`, to uint8 `[32, 32]`, by which photos are compared with each other."""
    small = halved(luma, 16 * THUMBNAIL_SIDE)
    return cv2.resize(small, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)


def halved(luma: np.ndarray, least: int) -> np.ndarray:
    """Luma, uint8 `[H, W]`, halved as long as its sides keep `least` pixels: 2 x 2 pixels become their mean.

    OpenCV shrinks a photo of 12 megapixels so in a tenth of the time that it takes by any other factor.
    """
    while min(luma.shape) >= 2 * least:
        height, width = (side // 2 for side in luma.shape)
        whole = luma[: 2 * height, : 2 * width]
        luma = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return luma


def _decode_other(data: bytes, maximum_pixels: int) -> tuple[np.ndarray, str]:
    if not data:
        raise UnusableImage("unreadable", "the file is empty")
    check_supported(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoders warn of what is raised or judged here
        try:
            if is_heic(data):
                heif.check(data)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_size(*image.size, maximum_pixels)
                _check_end(image, data)
                image.load()
                form, orientation = image.format, _orientation(image)
                pixels, note = _rgb(image)
            deep = _opencv(data) if form in _CHECKED_WITH_OPENCV else None
            if deep is not None and deep.dtype == np.uint16 and deep.ndim == 3 and form in _OF_ANY_DEPTH:
                pixels, note = _less_deep(deep) or (pixels, note)
            return jpeg.upright(pixels, orientation), note
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
            raise UnusableImage("truncated" if ended_early(reason) else "unreadable", reason) from error


def _check_end(image: Image.Image, data: bytes) -> None:
    """Finds what Pillow does not look at when it decodes: checksums of PNG, missing ends of GIF and WebP."""
    if image.format == "PNG":
        with Image.open(io.BytesIO(data), formats=("PNG",)) as second:
            second.verify()
    elif image.format == "GIF" and not data.rstrip(b"\x00").endswith(b";"):
        raise UnusableImage("truncated", "the GIF has no end marker")
    elif image.format == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise UnusableImage("truncated", "the file is shorter than its WebP header says")


def _opencv(data: bytes) -> np.ndarray:
    """Where two decoders disagree the file is not trusted: others will read it with OpenCV."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise UnusableImage("unreadable", "Pillow can decode it, OpenCV can not")
    return pixels


def _orientation(image: Image.Image) -> int:
    try:
        stated = image.getexif().get(jpeg.ORIENTATION)
    except Exception:  # damaged EXIF data says nothing about the picture
        return 1
    return stated if isinstance(stated, int) else 1


# ---------------------------------------------------------------- to eight bits, without transparency


def _rgb(image: Image.Image) -> tuple[np.ndarray, str]:
    """uint8 `[H, W, 3]`, and a note where it was not done in the usual way."""
    if image.mode.startswith("I") or image.mode == "F":
        grey, note = _grey8(image)
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), note
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB")), ""
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    if np.max(np.asarray(alpha)) <= _UNSEEN:
        return np.asarray(image.convert("RGB")), "all of it is transparent: read without its transparency"
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return np.asarray(white), ""


def _grey8(image: Image.Image) -> tuple[np.ndarray, str]:
    """Deep grey values to uint8, from 0 to the largest value of the depth they have, and a note on it."""
    values = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values)
    values = np.maximum(values.astype(values.dtype.newbyteorder("=")), 0)
    largest = values.max(initial=0)
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    usual, whites = 65535, [2**bits - 1 for bits in _DEPTHS]
    if image.mode == "F":
        usual, whites = 1, [1, *whites, 2**32 - 1]
    elif image.format not in _OF_ANY_DEPTH:  # decoded to 16 bits, whatever depth the file says it has
        whites = [usual]
    elif tags.get(_BITS) == (12,):
        usual, whites = 4095, [4095]
    elif image.mode == "I":
        whites = [*whites, 2**32 - 1]
    white = next((white for white in whites if largest <= white), whites[-1])
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = white - values
    return cv2.convertScaleAbs(values, alpha=255 / white), _stretched(largest, white, usual)


def _less_deep(deep: np.ndarray) -> tuple[np.ndarray, str] | None:
    """Colours of fewer than 16 bits in 16 (OpenCV's order, perhaps alpha) as `_rgb` gives them; or None."""
    largest = int(deep[:, :, :3].max())
    white = next(2**bits - 1 for bits in _DEPTHS if largest < 2**bits)
    if white == 65535 or not largest:
        return None
    note = _stretched(largest, white, 65535)
    pixels = cv2.convertScaleAbs(deep, alpha=255 / white)
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), note
    pixels[:, :, 3] = deep[:, :, 3] >> 8
    pixels, other = _rgb(Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)))
    return pixels, f"{note}; {other}" if other else note


def _stretched(largest: float, white: float, usual: float) -> str:
    if white == usual or not largest:
        return ""
    return f"its values end at {largest:,.7g}: white is taken to be {white:,.7g}, not {usual:,.7g}"
