"""Formats told apart by their first bytes: what is read, and what is named with what to do instead."""

import io
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from src.photos import decoding, formats
from src.photos.formats import UnusableImage
from tests.photos.samples import encoded, photo, scene

FILLER = bytes(range(256)) * 4


def refusal(data: bytes) -> UnusableImage:
    with pytest.raises(UnusableImage) as caught:
        decoding.decode(data)
    return caught.value


def media(brand: bytes, *others: bytes) -> bytes:
    """The first box of an ISO media file, and something after it."""
    names = brand + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(names)) + b"ftyp" + names + FILLER


def tiff(preview: tuple[int, int] = (160, 120), second: tuple[int, int] | None = None, **tags) -> bytes:
    """A TIFF as raw converters see it; `sub` are the tags of the picture inside, `second` comes after it."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    numbers = {"kind": 254, "photometric": 262, "make": 271, "sub": 330, "dng": 50706}
    types = {"kind": 4, "photometric": 3, "make": 2, "sub": 4, "dng": 1}
    for name, value in tags.items():
        directory.tagtype[numbers[name]] = types[name]
        directory[numbers[name]] = value
    more = {"save_all": True, "append_images": [Image.fromarray(scene(*second))]} if second else {}
    return encoded(Image.fromarray(scene(*preview)), "TIFF", tiffinfo=directory, **more)


SENSOR = {254: 0, 256: 6000, 257: 4000, 262: 32803}


NAMED = {
    "video.mp4": (media(b"isom", b"iso2", b"mp41"), "a video (MP4)"),
    "iphone.mov": (media(b"qt  "), "a video (MOV)"),
    "old.mov": (struct.pack(">I", 1000) + b"moov" + FILLER, "a video (MOV)"),
    "video.3gp": (media(b"3gp4"), "a video (MP4)"),
    "video.avi": (b"RIFF" + struct.pack("<I", 1000) + b"AVI LIST" + FILLER, "a video (AVI)"),
    "video.mkv": (b"\x1aE\xdf\xa3" + FILLER, "a video (MKV or WebM)"),
    "video.mpg": (b"\0\0\1\xba" + FILLER, "a video (MPEG)"),
    "video.ts": ((b"G" + bytes(187)) * 4, "a video (MPEG transport stream)"),
    "video.wmv": (b"0&\xb2u\x8ef\xcf\x11" + FILLER, "a video (WMV)"),
    "photo.jxl": (b"\xff\x0a" + FILLER, "a JPEG XL picture"),
    "boxed.jxl": (b"\0\0\0\x0cJXL \r\n\x87\n" + FILLER, "a JPEG XL picture"),
    "work.psd": (b"8BPS\0\1" + FILLER, "a Photoshop document"),
    "work.xcf": (b"gimp xcf v011" + FILLER, "a GIMP document"),
    "scan.dcm": (bytes(128) + b"DICM" + FILLER, "a DICOM picture"),
    "photo.cr2": (b"II*\0\x10\0\0\0CR\2\0" + FILLER, "a raw photo (Canon CR2)"),
    "photo.cr3": (media(b"crx ", b"isom"), "a raw photo (Canon CR3)"),
    "photo.crw": (b"II\x1a\0\0\0HEAPCCDR" + FILLER, "a raw photo (Canon CRW)"),
    "photo.raf": (b"FUJIFILMCCD-RAW 0201" + FILLER, "a raw photo (Fujifilm RAF)"),
    "photo.orf": (b"IIRO\x08\0\0\0" + FILLER, "a raw photo (Olympus ORF)"),
    "photo.rw2": (b"IIU\0\x18\0\0\0" + FILLER, "a raw photo (Panasonic RW2)"),
    "preview.dng": (tiff(kind=1, dng=b"\1\4\0\0", sub=SENSOR, make="Google"), "a raw photo (DNG)"),
    "bare.dng": (tiff(dng=b"\1\4\0\0"), "a raw photo (DNG)"),
    "photo.nef": (tiff(kind=1, make="NIKON CORPORATION", sub=SENSOR), "a raw photo (Nikon NEF)"),
    "photo.arw": (tiff(kind=1, make="SONY", sub=SENSOR), "a raw photo (Sony ARW)"),
    "photo.pef": (tiff(make="PENTAX Corporation", sub=SENSOR), "a raw photo (Pentax PEF)"),
    "photo.raw": (tiff(kind=1, make="Unheard Of", sub=SENSOR), "a raw photo (TIFF/EP)"),
    "preview.tif": (tiff(kind=1, sub=SENSOR | {262: 2}), "a TIFF that begins with a small preview"),
    "thumbnail first.tif": (tiff(kind=1, second=(600, 400)), "a TIFF that begins with a small preview"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_not_read_is_named_with_what_to_do(name):
    data, named = NAMED[name]
    error = refusal(data)
    assert error.status == "not supported"
    assert error.reason.startswith(named)
    assert any(remedy in error.reason for remedy in ("save", "export"))


def test_the_preview_in_a_raw_photo_could_be_taken_for_it():
    """Pillow does, and so the tags must be looked at."""
    for name in ("preview.dng", "photo.nef", "photo.arw", "preview.tif"):
        with Image.open(io.BytesIO(NAMED[name][0])) as image:
            assert image.size == (160, 120)


def test_the_preview_in_a_damaged_raw_photo_is_not_taken_for_it():
    whole = NAMED["photo.nef"][0]
    for length in range(20, len(whole), 97):
        assert refusal(whole[:length]).status in ("not supported", "truncated", "unreadable", "not an image")
    elsewhere = tiff(kind=1, make="NIKON CORPORATION", sub=2**31)  # the picture it belongs to is cut off
    assert refusal(elsewhere).status == "not supported"


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_tags_give_a_picture_or_a_reason_and_nothing_else(changes):
    whole = NAMED["photo.nef"][0]
    data, header = bytearray(whole), len(whole) - 160 * 120 * 3
    for place, value in changes:
        data[place % header] = value
    try:
        formats.check_supported(bytes(data))
        decoding.decode(bytes(data), maximum_pixels=10**6)
    except UnusableImage as error:
        assert error.reason


def test_ordinary_tiffs_are_read():
    pages = encoded(Image.fromarray(scene()), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    alone = tiff((60, 40), kind=1)  # there is no other picture that it could be a preview of
    camera = tiff((60, 40), kind=0, make="NIKON CORPORATION")
    layered = tiff(
        (60, 40), kind=0, sub={254: 1, 256: 6, 257: 4, 262: 2}
    )  # a pyramid: the small ones are inside
    for data in (pages, alone, camera, layered):
        np.testing.assert_array_equal(decoding.decode(data), scene())


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "mp4v")])
def test_real_videos_are_named(tmp_path, suffix, codec):
    file = tmp_path / f"video.{suffix}"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), 5, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no such videos")
    for seed in range(3):
        writer.write(np.ascontiguousarray(photo(seed, 64)[:48]))
    writer.release()
    error = refusal(file.read_bytes())
    assert error.status == "not supported" and error.reason.startswith("a video (")


def test_photos_have_an_image_signature_and_other_things_have_none():
    for form in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF", "HEIF", "JPEG2000"):
        assert formats.has_image_signature(encoded(scene(), form)[:32]), form
    for data in (b"", b"hello", b"%PDF-1.7", NAMED["video.mp4"][0], NAMED["iphone.mov"][0]):
        assert not formats.has_image_signature(data[:32])


def test_avif_is_no_heic_whatever_brand_comes_first():
    avif = encoded(scene(), "AVIF")
    renamed = avif[:8] + b"mif1" + avif[12:]
    assert b"avif" in formats.brands(renamed) and not formats.is_heic(renamed)
    np.testing.assert_array_equal(decoding.decode(renamed), decoding.decode(avif))
    heic = encoded(scene(), "HEIF")
    renamed = heic[:8] + b"mif1" + heic[12:]
    assert formats.is_heic(heic) and formats.is_heic(renamed)
    np.testing.assert_array_equal(decoding.decode(renamed), decoding.decode(heic))
