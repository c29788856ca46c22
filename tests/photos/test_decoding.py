"""The decoder: upright RGB to the last byte, or a reason."""

import io

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

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


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
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_photos_are_upright(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(), form, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_allclose(decoding.decode(data).astype(int), expected, atol=3)
    assert decoding.decode_luma(data).shape == expected.shape[:2]


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
    dark = decoding.decode(encoded(deep // 256, form))  # a dark photo stays dark
    assert dark.max() <= 1


def test_sixteen_bit_colour_keeps_the_upper_eight():
    deep = scene()[:, :, ::-1].astype(np.uint16) * 257
    np.testing.assert_array_equal(decoding.decode(cv2.imencode(".png", deep)[1].tobytes()), scene())


def test_transparent_pixels_are_white_and_opaque_ones_unchanged():
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:, :30] = 0
    pixels = decoding.decode(encoded(np.concatenate([scene(), alpha], axis=2), "PNG"))
    assert (pixels[:, :30] == 255).all()
    np.testing.assert_array_equal(pixels[:, 30:], scene()[:, 30:])


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(form):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    pixels = decoding.decode(data)
    assert pixels[..., 0].mean() > 240 and pixels[..., 2].mean() < 15


def test_luma_is_that_of_the_colours():
    for form in ("JPEG", "PNG"):
        data = encoded(scene(), form)
        expected = cv2.cvtColor(decoding.decode(data), cv2.COLOR_RGB2GRAY).astype(int)
        np.testing.assert_allclose(decoding.decode_luma(data), expected, atol=3)


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
