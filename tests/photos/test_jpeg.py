"""JPEG: warnings that are harmless and told apart from those that are not; orientation; unusual kinds."""

import io

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from src.photos import jpeg
from src.photos.formats import UnusableImage
from tests.photos.samples import encoded, scene

PLENTY = 10**8


def rgb(data: bytes) -> tuple[np.ndarray, str]:
    return jpeg.decode(data, "RGB", PLENTY)


def refusal(data: bytes) -> UnusableImage:
    with pytest.raises(UnusableImage) as caught:
        rgb(data)
    return caught.value


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def after_start(data: bytes, added: bytes) -> bytes:
    return data[:2] + added + data[2:]


def zeroed_scan_header(data: bytes) -> bytes:
    """As Samsung's cameras write it."""
    place = data.index(b"\xff\xda")
    end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data[: end - 3] + bytes(3) + data[end:]


def between(data: bytes, junk: bytes = b"\0\x17\0") -> bytes:
    place = data.index(b"\xff\xdb")
    return data[:place] + junk + data[place:]


def padded(data: bytes, padding: bytes = bytes(12)) -> bytes:
    return data[:-2] + padding + data[-2:]


HARMLESS = {
    "bytes between segments": between,
    "a bad ICC marker": lambda data: after_start(data, segment(0xE2, b"ICC_PROFILE\0\x05\x02" + bytes(40))),
    "an ICC profile of which parts are missing": lambda data: after_start(
        data, segment(0xE2, b"ICC_PROFILE\0\x01\x02" + bytes(40))
    ),
    "zeroed bytes in the scan header": zeroed_scan_header,
    "JFIF revision 2.01": lambda data: data.replace(b"JFIF\0\1", b"JFIF\0\2"),
    "padding before the end": padded,
    "several of them": lambda data: (
        padded(zeroed_scan_header(between(data))) + b"a trailer, \xff\xd9 in it, as Samsung's"
    ),
}
WHOLE = encoded(scene(90, 70), quality=90)


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_harmless_warning_costs_nothing_and_is_told(kind, mode):
    whole = encoded(Image.fromarray(scene(90, 70)).convert(mode), quality=90)
    odd = HARMLESS[kind](whole)
    if odd == whole:
        pytest.skip("Pillow writes no JFIF segment to CMYK files")
    with pytest.raises(ValueError) as warned:
        simplejpeg.decode_jpeg(odd, "CMYK" if mode == "CMYK" else "RGB", strict=True)
    for colours in ("RGB", "GRAY"):
        pixels, note = jpeg.decode(odd, colours, PLENTY)
        expected, silence = jpeg.decode(whole, colours, PLENTY)
        np.testing.assert_array_equal(pixels, expected)
        assert str(warned.value) in note and "every pixel" in note and silence == ""


@pytest.mark.parametrize("kind", HARMLESS)
def test_a_harmless_warning_hides_no_other(kind):
    """libjpeg tells the first only."""
    cut = WHOLE[: len(WHOLE) * 2 // 3] + b"\xff\xd9"
    assert refusal(cut).status == "truncated"
    assert refusal(HARMLESS[kind](cut)).status in ("truncated", "unreadable")


def test_two_decoders_must_agree_on_a_file_that_libjpeg_warns_of(monkeypatch):
    odd, imdecode = between(WHOLE), cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *given: np.asarray(imdecode(*given)) // 2)
    assert refusal(odd).status == "unreadable"
    monkeypatch.setattr(cv2, "imdecode", lambda data, flag: None)
    assert refusal(odd).status == "unreadable"
    assert rgb(WHOLE)[1] == ""


def test_progressive_photos_with_bytes_between_segments_are_whole_or_refused():
    whole = encoded(scene(90, 70), quality=90, progressive=True)
    for odd in (between(whole), padded(whole)):
        np.testing.assert_array_equal(rgb(odd)[0], rgb(whole)[0])
        assert rgb(odd)[1]
    scans = [each for each in jpeg.segments(whole) if each.marker == 0xDA]
    for scan in scans[-3:]:  # without its marker a scan is but bytes between segments
        assert refusal(whole[: scan.start] + b"\0" + whole[scan.start + 1 :]).status == "unreadable"


@settings(max_examples=60, deadline=None)
@given(where=st.integers(0, 8), junk=st.binary(min_size=1, max_size=60))
def test_bytes_between_any_two_segments_change_nothing(where, junk):
    junk = junk.replace(b"\xff", b"\xfe")  # no marker
    places = [each.start for each in jpeg.segments(WHOLE)][1:-1]
    place = places[where % len(places)]
    np.testing.assert_array_equal(rgb(WHOLE[:place] + junk + WHOLE[place:])[0], rgb(WHOLE)[0])


def test_a_segment_that_counts_is_no_junk():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(scene(90, 70), exif=exif)
    assert rgb(turned)[0].shape == (90, 70, 3)
    assert refusal(turned.replace(b"\xff\xe1", b"\0\xe1", 1)).status == "unreadable"


@pytest.mark.parametrize("byte", [0, 0x55])
@pytest.mark.parametrize("options", [{"optimize": True}, {"progressive": True}])
def test_a_lost_end_filled_with_equal_bytes_is_no_padding(options, byte):
    for seed in range(8):
        whole = encoded(scene(120, 80, seed), quality=60, **options)
        lost = len(whole) // 4
        damaged = whole[: len(whole) - 2 - lost] + bytes([byte]) * lost + whole[-2:]
        assert refusal(damaged).status in ("truncated", "unreadable")


def test_a_single_byte_before_the_end_is_no_padding():
    """It is as likely what a damaged picture left over."""
    odd = padded(WHOLE, b"\x17")
    assert jpeg._mended(odd, True) == odd
    assert jpeg._mended(padded(WHOLE, b"\x17\x17"), True) == WHOLE


def test_a_cmyk_photo_that_ends_short_is_refused():
    whole = encoded(Image.fromarray(scene(90, 70)).convert("CMYK"), quality=90)
    cut = whole[: len(whole) // 2] + b"\xff\xd9"
    Image.open(io.BytesIO(cut)).load()  # Pillow is content
    assert refusal(cut).status == "truncated"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_found_behind_any_number_of_other_segments(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    whole = encoded(scene(), exif=exif)
    many = b"".join(segment(0xE2, b"MPF\0" + bytes(60_000)) for _ in range(3))
    photo = after_start(whole, many)
    assert photo.index(b"Exif") > 150_000
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(whole)))
    for data in (photo, between(photo)):
        np.testing.assert_allclose(rgb(data)[0].astype(int), np.asarray(expected), atol=3)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense"])
def test_damaged_exif_costs_the_orientation_only(exif):
    data = after_start(WHOLE, segment(0xE1, exif))
    np.testing.assert_array_equal(rgb(data)[0], rgb(WHOLE)[0])


def test_the_thumbnail_in_the_exif_is_not_taken_for_the_photo():
    exif = Image.Exif()
    exif[0x0112] = 6
    inner = encoded(scene(30, 20, seed=5), exif=exif)
    data = after_start(WHOLE, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + inner))
    np.testing.assert_array_equal(rgb(data)[0], rgb(WHOLE)[0])


@pytest.mark.parametrize(
    ("place", "value"), [(11, 0x41), (4, 12), (1, 0xC3)], ids=["sampling 4:1", "12 bits", "lossless"]
)
def test_unusual_kinds_are_named_and_not_called_damaged(place, value):
    whole = encoded(scene(128, 128), subsampling=0)
    frame = whole.index(b"\xff\xc0")
    odd = bytearray(whole)
    odd[frame + place] = value
    if place == 11:
        odd[frame + 14] = 0x21
    error = refusal(bytes(odd))
    assert error.status == "not supported" and "save it as JPEG" in error.reason


def test_turning_and_mirroring_follow_exif():
    picture = scene()
    expected = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, 3),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture),
        9: picture,
    }
    for orientation, turned in expected.items():
        np.testing.assert_array_equal(jpeg.upright(picture, orientation), turned)
        np.testing.assert_array_equal(jpeg.upright(picture[:, :, 0], orientation), turned[:, :, 0])
    assert cv2.cvtColor(jpeg.upright(picture, 6), cv2.COLOR_RGB2GRAY).flags.c_contiguous
