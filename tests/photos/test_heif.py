"""HEIC: read like any photo, upright once, and refused where a part is missing that the decoder makes up."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.photos import decoding, heif, jpeg
from src.photos.formats import UnusableImage
from tests.photos.samples import encoded, photo, scene


def heic(pixels: np.ndarray, orientation: int = 1, **options) -> bytes:
    """As phones write it: turned by the container and, for those who don't know it, by EXIF as well."""
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    return encoded(image, "HEIF", quality=90, **options)


WHOLE, TILED = heic(photo(3, 200)), heic(photo(3, 300), tile_size=128)
CODED = WHOLE.index(b"mdat") + 4  # where the picture begins


def refusal(data: bytes) -> UnusableImage:
    with pytest.raises(UnusableImage) as caught:
        decoding.decode(data)
    return caught.value


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_once(orientation):
    data = heic(scene(64, 48), orientation)
    if orientation > 1:
        assert b"irot" in data or b"imir" in data
    pixels, note = decoding._decode_other(data, 10**6)
    expected = jpeg.upright(scene(64, 48), orientation)
    assert pixels.shape == expected.shape and note == ""
    assert np.abs(pixels.astype(int) - expected).mean() < 5
    assert decoding.decode_luma(data)[0].shape == expected.shape[:2]


def test_tiles_transparency_and_grey_are_read():
    tiled = heic(photo(1, 300), tile_size=128)
    assert tiled.count(b"infe") > 9
    assert np.abs(decoding.decode(tiled).astype(int) - photo(1, 300)).mean() < 5
    grey = Image.fromarray(photo(1, 96)).convert("L")
    assert np.abs(decoding.decode(encoded(grey, "HEIF"))[:, :, 0].astype(int) - np.asarray(grey)).mean() < 5
    half = np.dstack([photo(1, 96), np.full((96, 96), 255, np.uint8)])
    half[:, :48, 3] = 0
    pixels = decoding.decode(encoded(half, "HEIF", quality=-1, chroma=444))
    assert pixels[:, :40].min() > 250 and np.abs(pixels[:, 56:].astype(int) - half[:, 56:, :3]).mean() < 5


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.02, 0.999))
def test_a_cut_file_is_never_decoded(share):
    assert refusal(WHOLE[: int(len(WHOLE) * share)]).status in ("truncated", "unreadable", "not an image")


def test_a_file_cut_in_the_picture_is_truncated():
    assert refusal(WHOLE[:-1]).status == refusal(WHOLE[: CODED + 9]).status == "truncated"


@pytest.mark.parametrize("kind", ["whole", "tiled"])
@settings(max_examples=40, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), length=st.sampled_from([8, 64, 512, 10**6]))
def test_zeros_in_place_of_the_picture_are_seen(kind, where, length):
    """A download or a copy that broke off, where room had been made for the whole file."""
    data = WHOLE if kind == "whole" else TILED
    first, last = data.index(b"mdat") + 4, data.rindex(b"\0\0\0\6Exif")
    start = first + int(where * (last - first - 8))
    end = min(start + length, len(data))
    assert refusal(data[:start] + bytes(end - start) + data[end:]).status == "unreadable"


def test_the_decoder_makes_up_what_is_missing():
    """Were it not so, `heif.check` could go."""
    half = CODED + (len(WHOLE) - CODED) // 2
    with Image.open(io.BytesIO(WHOLE[:half] + bytes(len(WHOLE) - half))) as image:
        made_up = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(made_up - decoding.decode(WHOLE)).mean() > 5


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, CODED - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_list_of_parts_is_a_reason_and_nothing_else(changes):
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    try:
        heif.check(bytes(data))
    except UnusableImage as error:
        assert error.status in ("truncated", "unreadable") and error.reason


@pytest.mark.parametrize("version", [0, 1, 2])
def test_all_kinds_of_lists_of_places_are_read(version):
    """ISO/IEC 14496-12, 8.11.3: encoders differ in them."""
    size = "H" if version < 2 else "I"
    within = b"\0\0" if version else b""
    index = b"" if version == 0 else b"\0\0\0\1"
    box = bytes([version, 0, 0, 0]) + (b"\x44\x40" if version == 0 else b"\x44\x44")
    box += struct.pack(f">{size}", 1) + struct.pack(f">{size}", 7) + within + b"\0\0" + struct.pack(">I", 100)
    box += struct.pack(">H", 2)
    box += index + struct.pack(">II", 5, 10) + index + struct.pack(">II", 50, 20)
    assert list(heif._extents(box, 0, len(box))) == [(7, slice(105, 115)), (7, slice(150, 170))]
