"""The decoder: upright RGB to the last byte, or a reason."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from src.photos import decoding
from src.photos.decoding import UnusableImage
from tests.photos.samples import encoded, scene, write

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "HEIF", "JPEG2000")


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_files_give_their_pixels(form):
    options = {"lossless": True} if form == "WEBP" else {}
    pixels = decoding.decode(encoded(scene(), form, **options))
    np.testing.assert_array_equal(pixels, scene())


def test_jpeg_agrees_with_pillow():
    data = encoded(scene(), quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_allclose(decoding.decode(data).astype(int), expected, atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_photos_are_upright(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(), form, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert expected.shape[0] == (40 if orientation < 5 else 60)
    np.testing.assert_allclose(decoding.decode(data).astype(int), expected, atol=3)
    assert decoding.decode_luma(data)[0].shape == expected.shape[:2]


def test_grey_palette_and_one_bit_images_become_rgb():
    grey = Image.fromarray(scene()).convert("L")
    for image in (grey, grey.convert("P"), grey.convert("1")):
        pixels = decoding.decode(encoded(image, "PNG"))
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
    np.testing.assert_allclose(decoding.decode(encoded(grey))[:, :, 1].astype(int), np.asarray(grey), atol=8)


def test_cmyk_is_neither_inverted_nor_left_in_four_channels():
    cmyk = Image.fromarray(scene()).convert("CMYK")
    for form in ("JPEG", "TIFF"):
        np.testing.assert_allclose(decoding.decode(encoded(cmyk, form)).astype(int), scene(), atol=30)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_keep_the_upper_eight(form):
    deep = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    pixels = decoding.decode(encoded(deep, form))
    np.testing.assert_allclose(pixels[:, :, 0], deep / 257, atol=1)
    assert decoding.decode_luma(encoded(deep, form))[1] == ""
    dark = decoding.decode(encoded(deep // 3, form))  # a dark photo stays dark
    np.testing.assert_allclose(dark[:, :, 0], deep / 3 / 257, atol=1)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_fewer_bits_in_sixteen_are_stretched_to_their_range_and_it_is_said(bits, form):
    white = 2**bits - 1
    deep = np.linspace(0, white * 0.97, 40 * 60).reshape(40, 60).astype(np.uint16)
    luma, note = decoding.decode_luma(encoded(deep, form))
    np.testing.assert_allclose(luma, deep / white * 255, atol=0.51)
    assert f"white is taken to be {white:,}" in note


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bit_colour_keeps_the_upper_eight(suffix):
    deep = scene()[:, :, ::-1].astype(np.uint16) * 257
    data = cv2.imencode(suffix, deep)[1].tobytes()
    np.testing.assert_array_equal(decoding.decode(data), scene())
    assert decoding.decode_luma(data)[1] == ""
    few = cv2.imencode(suffix, deep // 16)[1].tobytes()  # 12 bits
    np.testing.assert_allclose(decoding.decode(few).astype(int), scene(), atol=1)
    assert "white is taken to be 4,095" in decoding.decode_luma(few)[1]


def test_few_bits_of_colour_keep_their_transparency():
    deep = np.dstack([scene()[:, :, ::-1].astype(np.uint16) * 16, np.full((40, 60), 65535, np.uint16)])
    deep[:, :30, 3] = 0
    deep[:, 30:40, 3] = 32768
    pixels = decoding.decode(cv2.imencode(".png", deep)[1].tobytes()).astype(int)
    assert (pixels[:, :30] == 255).all()
    np.testing.assert_allclose(pixels[:, 30:40], (scene()[:, 30:40].astype(int) + 255) / 2, atol=1)
    np.testing.assert_allclose(pixels[:, 40:], scene()[:, 40:], atol=1)


@pytest.mark.parametrize("declared", [9, 12])
def test_a_depth_that_the_file_states_is_not_guessed(declared):
    """A dark photo of 12 bits, stated as such, is dark."""
    values = np.linspace(0, 2**declared // 5, 40 * 60).reshape(40, 60).astype(np.uint16)
    if declared == 12:
        bits = "".join(f"{value:012b}" for value in values.ravel())
        data = _tiff(int(bits, 2).to_bytes(len(bits) // 8, "big"), bits=12)
    else:
        data = b"P5 60 40 511\n" + values.astype(">u2").tobytes()
    luma, note = decoding.decode_luma(data)
    np.testing.assert_allclose(luma, values / (2**declared - 1) * 255, atol=1)
    assert note == ""


def test_white_may_be_zero_in_deep_grey():
    values = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    luma, _ = decoding.decode_luma(_tiff(values.tobytes(), bits=16, white_is_zero=True))
    np.testing.assert_allclose(luma, 255 - values / 257, atol=1)


def _tiff(pixels: bytes, bits: int, white_is_zero: bool = False) -> bytes:
    """A grey TIFF of 60 x 40 pixels of so many bits."""
    tags = [(256, 3, 60), (257, 3, 40), (258, 3, bits), (259, 3, 1), (262, 3, int(not white_is_zero))]
    tags += [(273, 4, 8 + 2 + 12 * 9 + 4), (277, 3, 1), (278, 3, 40), (279, 4, len(pixels))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + pixels


def test_transparent_pixels_are_white_and_opaque_ones_unchanged():
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:, :30] = 0
    pixels = decoding.decode(encoded(np.concatenate([scene(), alpha], axis=2), "PNG"))
    assert (pixels[:, :30] == 255).all()
    np.testing.assert_array_equal(pixels[:, 30:], scene()[:, 30:])


@pytest.mark.parametrize("alpha", [0, 5])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_a_photo_that_its_transparency_hides_is_shown_and_it_is_said(form, alpha):
    hidden = np.dstack([scene(), np.full((40, 60), alpha, np.uint8)])
    data = encoded(hidden, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(decoding.decode(data), scene())
    assert "transparent" in decoding.decode_luma(data)[1]


def test_a_transparent_palette_hides_nothing():
    palette = Image.fromarray(scene()).convert("P")
    data = encoded(palette, "PNG", transparency=bytes(256))
    np.testing.assert_array_equal(decoding.decode(data), np.asarray(palette.convert("RGB")))
    assert "transparent" in decoding.decode_luma(data)[1]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "AVIF"])
def test_of_an_animation_the_first_frame_counts(form):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    pixels = decoding.decode(data)
    assert pixels[..., 0].mean() > 240 and pixels[..., 2].mean() < 15


def test_luma_is_that_of_the_colours():
    for form in ("JPEG", "PNG"):
        data = encoded(scene(), form)
        expected = cv2.cvtColor(decoding.decode(data), cv2.COLOR_RGB2GRAY).astype(int)
        np.testing.assert_allclose(decoding.decode_luma(data)[0], expected, atol=3)


def test_the_suffix_does_not_matter(tmp_path):
    place = write(tmp_path / "really_a_png.jpg", encoded(scene(), "PNG"))
    np.testing.assert_array_equal(decoding.read_rgb(place), scene())


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.02, 0.98))
def test_a_cut_file_is_never_decoded(form, share):
    data = encoded(scene(seed=3), form)
    data = data[: min(int(len(data) * share), len(data) - 3)]
    with pytest.raises(UnusableImage) as caught:
        decoding.decode(data)
    assert caught.value.status in ("truncated", "unreadable", "not an image")


def test_what_opencv_passes_over_is_truncated():
    data = encoded(scene(200, 200), quality=95)
    cut = data[: len(data) // 2] + b"\xff\xd9"  # with an end marker even Pillow is content
    assert cv2.imdecode(np.frombuffer(cut, np.uint8), cv2.IMREAD_COLOR) is not None
    for damaged in (cut, data[: len(data) // 2], data[:-2]):
        with pytest.raises(UnusableImage) as caught:
            decoding.decode(damaged)
        assert caught.value.status == "truncated"


def test_padding_before_the_end_marker_is_no_damage():
    data = encoded(scene())
    padded = data[:-2] + bytes(7) + b"\xff\xd9"
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(padded, strict=True)
    np.testing.assert_array_equal(decoding.decode(padded), decoding.decode(data))


def test_damage_in_an_avif_is_seen_by_the_other_decoder():
    """Of damaged ones Pillow takes three in ten."""
    if not cv2.haveImageWriter(".avif"):
        pytest.skip("this OpenCV reads no AVIF")
    whole = encoded(scene(200, 150), "AVIF")
    first, passed = whole.index(b"mdat") + 20, 0
    for place in range(first, len(whole) - 20, max(1, (len(whole) - first) // 40)):
        damaged = whole[:place] + bytes(20) + whole[place + 20 :]
        try:
            Image.open(io.BytesIO(damaged)).load()
            passed += 1
        except Exception:
            continue
        with pytest.raises(UnusableImage):
            decoding.decode(damaged)
    assert passed


def test_damaged_exif_costs_the_orientation_only():
    data = encoded(scene(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(decoding.decode(data), scene())


def test_a_wrong_png_checksum_is_an_error():
    data = bytearray(encoded(scene(), "PNG"))
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(UnusableImage):
        decoding.decode(bytes(data))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_size_is_judged_before_decoding(form, monkeypatch):
    data = encoded(scene(), form)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(UnusableImage, match="60 x 40 pixels") as caught:
        decoding.decode(data, maximum_pixels=1000)
    assert caught.value.status == "too large"


@pytest.mark.parametrize(("width", "height"), [(12_000, 9_000), (16_320, 12_240), (16_384, 12_288)])
def test_photos_of_the_largest_phone_sensors_are_not_too_large(width, height):
    """108 and 200 million pixels. These files only say they have them, so that the test is quick."""
    png, jpeg = bytearray(encoded(scene(), "PNG")), bytearray(encoded(scene()))
    png[16:24] = struct.pack(">II", width, height)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    for data in (png, jpeg) if width == 16_384 else (jpeg,):
        with pytest.raises(UnusableImage) as caught:
            decoding.decode(bytes(data))
        assert caught.value.status == "truncated"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", "unreadable"),
        (b"hello", "not an image"),
        (b"\x00" * 5000, "not an image"),
        (b"%PDF-1.7", "not an image"),
    ],
)
def test_what_is_no_image_is_said_so(data, status):
    with pytest.raises(UnusableImage) as caught:
        decoding.decode(data)
    assert caught.value.status == status


def test_an_error_in_a_photo_names_it():
    with pytest.raises(ValueError, match=r"a/b\.png, a photo of 700 x 2 pixels.*\(list index"):  # noqa: SIM117
        with decoding.named("a/b.png", np.zeros((2, 700, 3), np.uint8)):
            [][0]


@settings(max_examples=300, deadline=None)
@given(
    form=st.sampled_from(FORMATS),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8
    ),
)
def test_damage_gives_a_picture_or_a_reason_and_nothing_else(form, changes):
    data = bytearray(encoded(scene(seed=1), form))
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        pixels = decoding.decode(bytes(data), maximum_pixels=10**6)
    except UnusableImage as error:
        assert error.reason
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


@pytest.mark.parametrize(
    ("shape", "halved"), [((400, 300), (100, 75)), ((401, 119), (401, 119)), ((161, 123), (80, 61))]
)
def test_halving_keeps_the_means_and_the_least_side(shape, halved):
    luma = np.full(shape, 60, np.uint8)
    luma[: shape[0] // 2] = 200
    small = decoding.halved(luma, 60)
    assert small.shape == halved and abs(float(small.mean()) - float(luma.mean())) < 1


def test_a_large_photo_has_the_thumbnail_of_its_pixels_means():
    coarse = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)
    luma = cv2.resize(coarse, (2048, 1536), interpolation=cv2.INTER_CUBIC)
    at_once = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(decoding.thumbnail(luma) - at_once).max() <= 1
