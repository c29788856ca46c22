"""Probes that show nobody known, made of drawn faces."""

from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import simplejpeg

from src.limits import NotPossible
from src.networks import probes
from src.packs.alignment import SIDE


def photos(folder, count=24, side=160, room=True):
    """Grey photos with a white face in a corner, and the table and crops that stages before would give."""
    rng = np.random.default_rng(0)
    rows, crops = [], []
    for i in range(count):
        picture = rng.integers(60, 120, (side, side, 3), dtype=np.uint8)
        left, top = (int(v) for v in rng.integers(0, side - 56, 2)) if room else (0, 0)
        right, bottom = (left + 56, top + 56) if room else (side, side)
        picture[top:bottom, left:right] = 255
        path = f"{'abcd'[i % 4]}/{i}.jpg"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(simplejpeg.encode_jpeg(picture, quality=95))
        split = ("train", "val", "test_seen")[i % 3]
        box = {"left": left, "top": top, "right": right, "bottom": bottom}
        quality = "low" if i % 2 else "high"
        row = {"path": path, "identity": path[0], "split": split, "found": "160", "n_faces": 1}
        rows.append(row | box | {"quality": quality, "eye_distance": 12.0})
        crops.append(cv2.resize(rng.integers(0, 255, (28, 28, 3), dtype=np.uint8), (SIDE, SIDE)))
    return pd.DataFrame(rows), np.stack(crops)


def test_patches_lie_beside_the_face(tmp_path, monkeypatch):
    monkeypatch.setattr(probes, "MOST", {"train": 8, "val": 8, "test": 8})
    faces, crops = photos(tmp_path)
    table, made = probes.nobody(faces, crops, tmp_path)
    patches = made[(table["kind"] == probes.NO_FACE).to_numpy()]
    assert len(patches) >= 10 and patches.max() < 200  # nowhere is the white of the face


def test_where_photos_leave_no_room_crops_are_scrambled(tmp_path):
    faces, crops = photos(tmp_path, room=False)
    table, made = probes.nobody(faces, crops, tmp_path)
    scrambles = table["kind"] == probes.NO_FACE
    assert scrambles.sum() == sum(probes.MOST.values()) // 2
    for i in np.flatnonzero(scrambles):
        source = crops[faces.index[faces["path"] == table["path"][i]][0]]
        assert np.array_equal(np.sort(made[i], axis=None), np.sort(source, axis=None))
        assert not np.array_equal(made[i], source)


def test_no_photo_makes_probes_of_two_splits(tmp_path):
    faces, crops = photos(tmp_path)
    table, made = probes.nobody(faces, crops, tmp_path)
    split = faces.set_index("path")["split"].loc[table["path"]].str.replace("test_seen", "test")
    assert (split.to_numpy() == table["split"].to_numpy()).all()
    assert made.shape == (len(table), SIDE, SIDE, 3) and made.dtype == np.uint8
    again = probes.nobody(faces, crops, tmp_path)[1]
    assert np.array_equal(made, again)
    table, _ = probes.nobody(faces.assign(split=faces["split"].replace("val", "train")), crops, tmp_path)
    assert set(table["split"]) == {"train", "val", "test"}
    assert table.groupby("path")["split"].nunique().eq(1).all()


def test_in_a_smear_a_dozen_pixels_are_left():
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    spectrum = np.abs(np.fft.fft2(probes.smeared(crop, rng).astype(float).mean(2)))
    low = np.abs(np.fft.fftfreq(SIDE, 1 / SIDE)) <= 12
    assert spectrum[np.ix_(low, low)].sum() > 0.5 * spectrum.sum()
    assert spectrum[~low][:, ~low].mean() < 0.05 * spectrum[np.ix_(low, low)].mean()


def test_photos_made_as_bad_have_the_detail_of_the_bad_ones(tmp_path):
    faces, crops = photos(tmp_path)
    rng = np.random.default_rng(1)
    sharp = rng.integers(0, 255, (12, 28, 28, 3), dtype=np.uint8)
    good = np.stack([cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) for crop in sharp])
    low = (faces["quality"] == "low").to_numpy()
    crops[low] = [cv2.GaussianBlur(crop, (0, 0), 4) for crop in crops[low]]
    worse = probes.as_bad_as(good, crops, faces)
    usable = low & faces["split"].isin(["train", "val"]).to_numpy()
    models = np.array([probes.detail(crop) for crop in crops[usable]])
    reached = np.array([probes.detail(crop) for crop in worse])
    assert np.median(reached) == pytest.approx(np.median(models), rel=0.4)
    assert np.median([probes.detail(crop) for crop in good]) > 5 * np.median(models)
    with pytest.raises(NotPossible, match="no face was found"):
        probes.as_bad_as(good, crops, faces.assign(eye_distance=np.nan))


def test_somebody_who_is_in_both_sets_is_left_out():
    rng = np.random.default_rng(0)
    strangers = [f"stranger {i}" for i in range(30)]
    centres = {name: rng.normal(size=32) for name in (*"abcd", *strangers)}
    own = pd.DataFrame({"identity": list("abcd") * 8, "split": "train", "quality": "high"})
    theirs = pd.Series([*strangers, "b"] * 3)

    def vectors(names):
        return np.stack([centres[name] for name in names]) + 0.5 * rng.normal(size=(len(names), 32))

    alike = probes.resembling(vectors(theirs), theirs, vectors(own["identity"]), own)
    assert alike == ["b"]


def test_strangers_without_a_face_are_one_sentence_and_not_the_end(tmp_path, capsys):
    class Blind:
        """A pack that finds no face."""

        fingerprint = "blind"

        def detect(self, photo, size=None, threshold=0.5):
            return np.empty((0, 5), np.float32), np.empty((0, 5, 2), np.float32)

        def map(self, function, items):
            return map(function, items)

    faces, crops = photos(tmp_path / "own")
    photos(tmp_path / "others" / "somebody", count=3)
    known = np.eye(len(faces), 8, dtype=np.float32)
    arguments: Any = (str(tmp_path / "others"), Blind(), known, tmp_path / "out")
    table, _ = probes.gather(faces, crops, tmp_path / "own", *arguments)
    assert not table["kind"].str.startswith("others").any()
    assert "in none of the 3 photos tried" in capsys.readouterr().out
