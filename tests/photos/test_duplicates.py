"""Copies and near-duplicates are found, and different photos are not taken for them."""

from itertools import combinations

import cv2
import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src.photos import decoding, duplicates
from tests.photos.cameras import frames
from tests.photos.samples import fill, jpeg, photo


def test_hashes_are_those_of_imagehash():
    for seed in range(20):
        luma = cv2.cvtColor(photo(seed), cv2.COLOR_RGB2GRAY)
        ours = imagehash.hex_to_hash(f"{duplicates.phash(decoding.thumbnail(luma)[None])[0]:016x}")
        assert ours - imagehash.phash(Image.fromarray(luma)) <= 4


def changed(pixels: np.ndarray, how: str) -> np.ndarray:
    height, width = pixels.shape[:2]
    y, x = round(height * 0.03), round(width * 0.03)
    if how == "re-encoded":
        return decoding.decode(jpeg(pixels, 40))
    if how == "resized":
        return cv2.resize(pixels, (int(width * 0.7), int(height * 0.7)), interpolation=cv2.INTER_AREA)
    if how == "cropped":
        return pixels[y : height - y, x : width - x]
    if how == "cropped at a corner":
        return pixels[: height - y, x:]
    return cv2.convertScaleAbs(pixels, alpha=0.8, beta=20)


@pytest.mark.parametrize("how", ["re-encoded", "resized", "cropped", "cropped at a corner", "lighter"])
def test_near_duplicates_are_proposed_and_confirmed(how):
    seeds = range(60)
    lumas = [cv2.cvtColor(photo(seed), cv2.COLOR_RGB2GRAY) for seed in seeds]
    lumas += [cv2.cvtColor(changed(photo(seed), how), cv2.COLOR_RGB2GRAY) for seed in seeds]
    thumbs = np.stack([decoding.thumbnail(luma) for luma in lumas])
    images = pd.DataFrame({"status": "ok", "identity": "anna", "path": ""}, index=range(len(thumbs)))
    groups = duplicates.groups(images, thumbs, duplicates.candidates(images, thumbs))
    assert (groups[:60] == groups[60:]).all()
    assert len(set(groups)) == 60


def test_hashes_that_differ_in_six_bits_are_always_proposed(monkeypatch):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**63, 400, np.uint64)
    near = codes.copy()
    for index in range(len(near)):
        for bit in rng.choice(64, rng.integers(0, 7), replace=False):
            near[index] ^= np.uint64(1) << np.uint64(bit)
    monkeypatch.setattr(duplicates, "_CROPS", [(0, 0, 0, 0)])
    monkeypatch.setattr(duplicates, "phash", lambda *_: np.concatenate([codes, near]))
    images = pd.DataFrame({"status": "ok", "identity": "anna"}, index=range(800))
    pairs = duplicates.candidates(images, np.zeros((800, 32, 32), np.uint8))
    assert {(index, index + 400) for index in range(400)} <= {tuple(pair) for pair in pairs.tolist()}


def test_a_copy_under_another_person_is_proposed_among_photos_that_all_look_alike():
    rng = np.random.default_rng(0)
    wall = decoding.thumbnail(cv2.cvtColor(photo(0), cv2.COLOR_RGB2GRAY))
    shots = np.stack([wall] * 100)
    for shot, (y, x) in zip(shots, rng.integers(2, 28, (100, 2)), strict=True):
        shot[y : y + 2, x : x + 2] += rng.integers(60, 196, dtype=np.uint8)  # somebody, far away
    copies = (shots + rng.integers(-1, 2, shots.shape)).clip(0, 255).astype(np.uint8)
    images = pd.DataFrame({"status": "ok", "identity": ["anna", "ben"] * 50 + ["ben", "anna"] * 50})
    pairs = duplicates.candidates(images, np.concatenate([shots, copies]))
    people = images["identity"].to_numpy()[pairs]
    across = pairs[people[:, 0] != people[:, 1]]
    assert {(index, index + 100) for index in range(100)} <= {tuple(pair) for pair in across.tolist()}
    assert len(across) <= 200 * (duplicates._PAIRS_ACROSS + duplicates._PAIRS_PER_PHOTO)


def test_the_search_stays_linear_when_all_photos_look_alike(monkeypatch):
    compared = 0
    near = duplicates._near

    def counting(first, *rest):
        nonlocal compared
        compared += len(first)
        return near(first, *rest)

    monkeypatch.setattr(duplicates, "_near", counting)
    base = cv2.cvtColor(photo(0), cv2.COLOR_RGB2GRAY)
    noise = np.random.default_rng(0).integers(-3, 4, (1200, 32, 32))
    thumbs = (decoding.thumbnail(base) + noise).clip(0, 255).astype(np.uint8)
    images = pd.DataFrame({"status": "ok", "identity": "anna"}, index=range(len(thumbs)))
    pairs = duplicates.candidates(images, thumbs)
    assert len(pairs) <= duplicates._PAIRS_PER_PHOTO * len(thumbs)
    assert len(pairs) > 2 * duplicates._BATCH  # so that whole batches are linked already
    assert set(duplicates.groups(images, thumbs, pairs)) == {0}
    assert compared < 28 * duplicates._NEIGHBOURS * len(duplicates._CROPS) * len(thumbs)


def test_different_real_photos_are_not_merged_and_crops_are_found(real):
    files = sorted((real / "lfw3d" / "images").rglob("*.*"))[::3]
    pictures = [decoding.read_rgb(file) for file in files]
    lumas = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pictures]
    lumas += [cv2.cvtColor(changed(p, "cropped"), cv2.COLOR_RGB2GRAY) for p in pictures]
    thumbs = np.stack([decoding.thumbnail(luma) for luma in lumas])
    images = pd.DataFrame({"status": "ok", "identity": "all", "path": ""}, index=range(len(thumbs)))
    groups = duplicates.groups(images, thumbs, duplicates.candidates(images, thumbs))
    assert (groups[: len(files)] == groups[len(files) :]).all()
    assert len(set(groups)) == len(files)


def test_one_copy_of_a_person_stays_and_copies_under_two_people_all_go():
    images = pd.DataFrame({"path": list("abcdef"), "identity": ["x", "x", "x", "y", "y", "y"]})
    images["status"], images["reason"], images["duplicate_of"] = "ok", "", ""
    images.loc[5, "status"] = "unreadable"
    duplicates.set_aside_copies(images, pd.Series(["1", "1", "2", "2", "", ""]), "file")
    conflict = "label conflict"
    assert images["status"].tolist() == ["ok", "duplicate", conflict, conflict, "ok", "unreadable"]
    assert images["duplicate_of"].tolist() == ["", "a", "", "", "", ""]
    assert images.loc[1, "reason"] == "the same file as a"
    assert images.loc[2, "reason"] == "the same file under x, y"


# ---------------------------------------------------------------- across people


@pytest.fixture(scope="module")
def camera() -> list[list[np.ndarray]]:
    """Luma of eight frames each of eight people, one after the other at one spot before one camera."""
    lumas = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames(0, one_spot=True).values()]
    return [lumas[start : start + 8] for start in range(0, 64, 8)]


def copied(luma: np.ndarray, quality: int, factor: float, crop: str) -> np.ndarray:
    height, width = luma.shape
    y, x = round(height * 0.03), round(width * 0.03)
    top, left, bottom, right = {"": (0, 0, 0, 0), "all round": (y, x, y, x), "corner": (0, x, y, 0)}[crop]
    luma = luma[top : height - bottom, left : width - right]
    size = (round(luma.shape[1] * factor), round(luma.shape[0] * factor))
    luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    return decoding.decode_luma(jpeg(luma, quality))[0]


@pytest.mark.parametrize("quality", [30, 60, 95])
@pytest.mark.parametrize("factor", [0.3, 0.7, 1, 2])
@pytest.mark.parametrize("crop", ["", "all round", "corner"])
def test_a_copy_shows_the_same_picture(camera, quality, factor, crop):
    soft = [cv2.cvtColor(photo(seed), cv2.COLOR_RGB2GRAY) for seed in range(4)]
    for luma in [*soft, camera[0][0], camera[1][1]]:
        copy = copied(luma, quality, factor, crop)
        assert duplicates.same_picture(luma, copy)
        assert duplicates.same_picture(cv2.convertScaleAbs(copy, alpha=0.8, beta=20), luma)


def test_two_frames_of_one_camera_do_not_show_the_same_picture(camera):
    pairs = [(a, b) for one, two in combinations(camera, 2) for a, b in zip(one, two, strict=True)]
    thumbs = np.array([[decoding.thumbnail(luma) for luma in pair] for pair in pairs])
    alike = duplicates.agreement(thumbs[:, 0], thumbs[:, 1]) >= duplicates.THUMBNAIL_CORRELATION
    assert alike.sum() > 50  # of 224
    assert not any(duplicates.same_picture(*pairs[index]) for index in np.flatnonzero(alike))


def test_pictures_that_show_next_to_nothing_are_never_the_same():
    y, x = np.mgrid[:120, :160] / 120
    vignette = (6 + 9 * np.exp(-((x - 0.6) ** 2 + (y - 0.5) ** 2))).astype(np.uint8)
    assert not duplicates.same_picture(vignette, vignette)
    assert not duplicates.same_picture(np.zeros((90, 90), np.uint8), np.zeros((90, 90), np.uint8))
    strip = np.random.default_rng(0).integers(0, 256, (3, 200), np.uint8)
    assert not duplicates.same_picture(strip, strip)


def test_a_photo_that_has_gone_is_no_conflict(tmp_path):
    fill(tmp_path, {"anna/1.jpg": jpeg(photo(0)), "ben/1.jpg": jpeg(photo(0), 60)})
    luma = cv2.cvtColor(photo(0), cv2.COLOR_RGB2GRAY)
    thumbs = np.stack([decoding.thumbnail(luma)] * 2)
    images = pd.DataFrame({"path": ["anna/1.jpg", "ben/1.jpg"], "identity": ["anna", "ben"]})
    images["status"], images["reason"] = "ok", ""
    gone = images.copy()
    duplicates.set_aside_conflicts(images, tmp_path, thumbs, np.array([[0, 1]]))
    assert images["reason"].tolist() == ["the same picture under anna, ben"] * 2
    (tmp_path / "ben" / "1.jpg").unlink()
    duplicates.set_aside_conflicts(gone, tmp_path, thumbs, np.array([[0, 1]]))
    assert gone["status"].tolist() == ["ok", "ok"]


def test_one_shade_all_over_is_blank_and_a_dark_photo_is_not():
    luma = cv2.cvtColor(photo(0), cv2.COLOR_RGB2GRAY)
    noise = np.random.default_rng(0).normal(20, 4, (160, 160)).clip(0, 255).astype(np.uint8)
    shown = [np.zeros_like(luma), np.full_like(luma, 255), noise, luma // 16, luma, luma // 64]
    thumbs = np.stack([decoding.thumbnail(picture) for picture in shown])
    assert duplicates.blank(thumbs).tolist() == [True, True, True, False, False, True]
