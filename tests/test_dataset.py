"""The inventory, the decoder and the ways in for data."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from src import dataset
from src.dataset import UnusableImage

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def scene(width: int = 60, height: int = 40, seed: int = 0) -> np.ndarray:
    """A picture without symmetry."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image: Image.Image | np.ndarray, form: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, form, **options)
    return file.getvalue()


def write(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# ---- find


def test_every_file_has_a_row_sorted_by_path(tmp_path):
    names = [
        "b/1.jpg",
        "a/x/y/z/deep.png",
        "a/Thumbs.db",
        "a/.hidden",
        "loose.txt",
        "ç é/ü  ñ.jpg",
        "a/" + "n" * 200,
    ]
    for name in names:
        write(tmp_path / name, b"12345")
    images = dataset.find(tmp_path)
    assert list(images["path"]) == sorted(names)
    assert (images["bytes"] == 5).all()
    assert (images["modified_ns"] == [(tmp_path / name).stat().st_mtime_ns for name in images["path"]]).all()
    assert images.set_index("path")["identity"].to_dict() == {
        name: name.split("/")[0] if "/" in name else "" for name in names
    }


@pytest.mark.parametrize(
    ("folders", "quality"),
    [
        ("High_Quality", "high"),
        ("low quality", "low"),
        ("LOW-QUALITY", "low"),
        ("hq", "high"),
        ("LQ", "low"),
        ("high_quality/cam 1", "high"),
        ("low_quality/high_quality", "high"),
        ("highland", "unknown"),
        ("session", "unknown"),
    ],
)
def test_quality_comes_from_the_nearest_folder_that_names_one(tmp_path, folders, quality):
    write(tmp_path / "anna" / folders / "1.jpg")
    assert list(dataset.find(tmp_path)["quality"]) == [quality]


def test_a_person_called_like_a_quality_is_a_person(tmp_path):
    write(tmp_path / "hq" / "1.jpg")
    row = dataset.find(tmp_path).iloc[0]
    assert (row["identity"], row["quality"]) == ("hq", "unknown")


def test_composed_and_decomposed_names_are_one_person(tmp_path):
    write(tmp_path / "Ren\u00e9" / "1.jpg")
    write(tmp_path / "Rene\u0301" / "2.jpg")
    assert set(dataset.find(tmp_path)["identity"]) == {"Ren\u00e9"}


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_followed_and_loops_are_rows(tmp_path):
    photos = tmp_path / "photos"
    write(photos / "anna" / "1.jpg")
    write(tmp_path / "elsewhere" / "2.jpg")
    (photos / "ben").symlink_to(tmp_path / "elsewhere")
    (photos / "anna" / "up").symlink_to(photos)
    (photos / "anna" / "itself").symlink_to("itself")
    (photos / "anna" / "nowhere").symlink_to("gone.jpg")
    images = dataset.find(photos)
    assert list(images["path"]) == ["anna/1.jpg", "anna/itself", "anna/nowhere", "anna/up", "ben/2.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="file names are always Unicode on Windows")
def test_a_name_that_is_no_unicode_can_be_stored(tmp_path):
    try:
        write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/anna/caf\xe9.jpg")))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    images = dataset.find(tmp_path)
    images.to_parquet(tmp_path / "table.parquet")
    assert len(images) == 1


def test_missing_empty_and_wrong_folders_are_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset folder"):
        dataset.find(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no files"):
        dataset.find(tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file"):
        dataset.find(write(tmp_path / "file"))


# ---- the decoder


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_files_give_their_pixels(form):
    options = {"lossless": True} if form == "WEBP" else {}
    pixels = dataset.decode(encoded(scene(), form, **options))
    np.testing.assert_array_equal(pixels, scene())


def test_jpeg_agrees_with_pillow():
    data = encoded(scene(), quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_allclose(dataset.decode(data).astype(int), expected, atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_photos_are_upright(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(), form, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_allclose(dataset.decode(data).astype(int), expected, atol=3)
    assert dataset.decode_luma(data).shape == expected.shape[:2]


def test_grey_palette_and_one_bit_images_become_rgb():
    grey = Image.fromarray(scene()).convert("L")
    for image in (grey, grey.convert("P"), grey.convert("1")):
        pixels = dataset.decode(encoded(image, "PNG"))
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
    np.testing.assert_allclose(dataset.decode(encoded(grey))[:, :, 1].astype(int), np.asarray(grey), atol=8)


def test_cmyk_is_neither_inverted_nor_left_in_four_channels():
    cmyk = Image.fromarray(scene()).convert("CMYK")
    for form in ("JPEG", "TIFF"):
        np.testing.assert_allclose(dataset.decode(encoded(cmyk, form)).astype(int), scene(), atol=30)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_keep_the_upper_eight(form):
    deep = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    pixels = dataset.decode(encoded(deep, form))
    np.testing.assert_allclose(pixels[:, :, 0], deep / 257, atol=1)
    dark = dataset.decode(encoded(deep // 256, form))  # a dark photo stays dark
    assert dark.max() <= 1


def test_sixteen_bit_colour_keeps_the_upper_eight():
    deep = scene()[:, :, ::-1].astype(np.uint16) * 257
    np.testing.assert_array_equal(dataset.decode(cv2.imencode(".png", deep)[1].tobytes()), scene())


def test_transparent_pixels_are_white_and_opaque_ones_unchanged():
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:, :30] = 0
    pixels = dataset.decode(encoded(np.concatenate([scene(), alpha], axis=2), "PNG"))
    assert (pixels[:, :30] == 255).all()
    np.testing.assert_array_equal(pixels[:, 30:], scene()[:, 30:])


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(form):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    pixels = dataset.decode(data)
    assert pixels[..., 0].mean() > 240 and pixels[..., 2].mean() < 15


def test_luma_is_that_of_the_colours():
    for form in ("JPEG", "PNG"):
        data = encoded(scene(), form)
        expected = cv2.cvtColor(dataset.decode(data), cv2.COLOR_RGB2GRAY).astype(int)
        np.testing.assert_allclose(dataset.decode_luma(data), expected, atol=3)


def test_the_suffix_does_not_matter(tmp_path):
    place = write(tmp_path / "really_a_png.jpg", encoded(scene(), "PNG"))
    np.testing.assert_array_equal(dataset.read_rgb(place), scene())


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.02, 0.98))
def test_a_cut_file_is_never_decoded(form, share):
    data = encoded(scene(seed=3), form)
    data = data[: min(int(len(data) * share), len(data) - 3)]
    with pytest.raises(UnusableImage) as caught:
        dataset.decode(data)
    assert caught.value.status in ("truncated", "unreadable", "not an image")


def test_what_opencv_passes_over_is_truncated():
    data = encoded(scene(200, 200), quality=95)
    cut = data[: len(data) // 2] + b"\xff\xd9"  # with an end marker even Pillow is content
    assert cv2.imdecode(np.frombuffer(cut, np.uint8), cv2.IMREAD_COLOR) is not None
    for damaged in (cut, data[: len(data) // 2], data[:-2]):
        with pytest.raises(UnusableImage) as caught:
            dataset.decode(damaged)
        assert caught.value.status == "truncated"


def test_padding_before_the_end_marker_is_no_damage():
    data = encoded(scene())
    padded = data[:-2] + bytes(7) + b"\xff\xd9"
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(padded, strict=True)
    np.testing.assert_array_equal(dataset.decode(padded), dataset.decode(data))


def test_a_wrong_png_checksum_is_an_error():
    data = bytearray(encoded(scene(), "PNG"))
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(UnusableImage):
        dataset.decode(bytes(data))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_size_is_judged_before_decoding(form, monkeypatch):
    data = encoded(scene(), form)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(UnusableImage, match="60 x 40 pixels") as caught:
        dataset.decode(data, maximum_pixels=1000)
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
        dataset.decode(data)
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
        pixels = dataset.decode(bytes(data), maximum_pixels=10**6)
    except UnusableImage as error:
        assert error.reason
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


# ---- fetch


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as pack:
        for name, data in files.items():
            pack.writestr(name, data)
    return path


PEOPLE = {
    f"{person}/{quality}/1.jpg": encoded(scene(), "JPEG")
    for person in "ab"
    for quality in ("HQ", "low quality")
}


@pytest.mark.parametrize("above", ["", "study/data/images/"])
def test_archives_are_laid_out_by_person(tmp_path, above):
    extra = {"__MACOSX/._1.jpg": b"\x00\x05\x16\x07"}
    place = zipped(tmp_path / "a.zip", {above + name: data for name, data in PEOPLE.items()} | extra)
    folder = dataset.fetch(place, tmp_path / "dataset" / "images")
    assert {name for name in dataset.find(folder)["path"] if not dataset.is_system_file(name)} == set(PEOPLE)
    assert [entry.name for entry in folder.parent.iterdir()] == ["images"]  # nothing half-made is left


def test_tar_archives_of_one_person_keep_the_person(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tape:
        for name, data in PEOPLE.items():
            if name.startswith("a"):
                info = tarfile.TarInfo(f"images/{name}")
                info.size = len(data)
                tape.addfile(info, io.BytesIO(data))
    folder = dataset.fetch(tmp_path / "a.tar.gz", tmp_path / "images")
    assert set(dataset.find(folder)["identity"]) == {"a"}


def test_folders_are_copied_and_left_alone(tmp_path):
    for name, data in PEOPLE.items():
        write(tmp_path / "mine" / "photos" / name, data)
    folder = dataset.fetch(tmp_path / "mine", tmp_path / "images")
    assert list(dataset.find(folder)["path"]) == sorted(PEOPLE)
    assert list(dataset.find(tmp_path / "mine" / "photos")["path"]) == sorted(PEOPLE)


@pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "/out.jpg", "..\\out.jpg", "C:\\out.jpg"])
def test_no_member_leads_out_of_the_folder(tmp_path, name):
    place = zipped(tmp_path / "a.zip", {**PEOPLE, name: b"x"})
    with pytest.raises(ValueError, match="leads out"):
        dataset.fetch(place, tmp_path / "below" / "images")
    assert not (tmp_path / "below" / "images").exists()
    assert not list(tmp_path.rglob("out.jpg"))


def test_links_in_archives_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tape:
        info = tarfile.TarInfo("a/passwd.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tape.addfile(info)
    link = zipfile.ZipInfo("a/passwd.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as pack:
        pack.writestr(link, "/etc/passwd")
    for name in ("a.tar", "a.zip"):
        with pytest.raises(ValueError, match="link or a device"):
            dataset.fetch(tmp_path / name, tmp_path / "images")


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "MAXIMUM_UNPACKED", 10**6)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("a/1.bmp", bytes(5 * 10**6))
    with pytest.raises(ValueError, match="photos do not"):
        dataset.fetch(tmp_path / "a.zip", tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_damaged_and_foreign_archives_are_said_so(tmp_path):
    whole = zipped(tmp_path / "a.zip", PEOPLE).read_bytes()
    damaged = bytearray(whole)
    damaged[200] ^= 0xFF
    for data, message in [
        (bytes(damaged), "damaged"),
        (whole[: len(whole) // 2], "neither a zip nor a tar"),
        (b"<!DOCTYPE html><html>quota exceeded", "web page"),
        (b"Rar!\x1a\x07", "neither a zip nor a tar"),
    ]:
        with pytest.raises(ValueError, match=message):
            dataset.fetch(write(tmp_path / "b", data), tmp_path / "images")
    with pytest.raises(ValueError, match="no images"):
        dataset.fetch(zipped(tmp_path / "c.zip", {"a/readme.txt": b"x"}), tmp_path / "images")
    with pytest.raises(ValueError, match="not the expected archive"):
        dataset.fetch(tmp_path / "a.zip", tmp_path / "images", sha256="0" * 64)


def test_nothing_is_overwritten(tmp_path):
    write(tmp_path / "images" / "a" / "1.jpg")
    with pytest.raises(FileExistsError, match="not empty"):
        dataset.fetch(zipped(tmp_path / "a.zip", PEOPLE), tmp_path / "images")


def test_drive_links_are_downloaded_by_their_id(tmp_path, monkeypatch):
    import gdown

    asked = []

    def download(output: str, resume: bool, **where) -> None:
        asked.append((where, resume))
        zipped(Path(output), PEOPLE)

    monkeypatch.setattr(gdown, "download", download)
    dataset.fetch("https://drive.google.com/file/d/1AbC-d_e/view?usp=sharing", tmp_path / "one")
    dataset.fetch("https://drive.google.com/uc?export=download&id=1AbC-d_e", tmp_path / "two")
    dataset.fetch("https://example.org/photos.zip", tmp_path / "three")
    assert asked == [({"id": "1AbC-d_e"}, True)] * 2 + [({"url": "https://example.org/photos.zip"}, True)]


def test_without_network_the_manual_way_is_given(tmp_path, monkeypatch):
    import gdown

    def download(**_):
        raise OSError("Name or service not known")

    monkeypatch.setattr(gdown, "download", download)
    with pytest.raises(ConnectionError, match="browser") as caught:
        dataset.fetch("https://drive.google.com/file/d/1AbC/view", tmp_path / "images")
    assert "\n" not in str(caught.value)
