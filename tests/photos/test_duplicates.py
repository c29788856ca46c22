"""Copies and near-duplicates are found, and different photos are not taken for them."""

import cv2
import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src.photos import decoding, duplicates
from tests.photos.samples import jpeg, photo


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
    images = pd.DataFrame({"status": "ok"}, index=range(800))
    pairs = duplicates.candidates(images, np.zeros((800, 32, 32), np.uint8))
    assert {(index, index + 400) for index in range(400)} <= {tuple(pair) for pair in pairs.tolist()}


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
