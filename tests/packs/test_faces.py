"""One face of every photo, found even where it fills the frame or is tiny, aligned as InsightFace aligns."""

import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from src import artifacts
from src.demo import mode
from src.packs import faces
from src.packs import pack as packs
from src.packs.alignment import TEMPLATE
from src.packs.as_shipped import as_shipped
from src.packs.faces import (
    AS_SHIPPED,
    ATTEMPTS,
    MOST_FACES,
    WHOLE,
    Attempt,
    every_face,
    extract,
    find_faces,
)
from src.photos import decoding

RNG = np.random.default_rng(0)


class FakePack:
    """Finds what it is told to: faces, by detection size, as (centre x, centre y, side, score)."""

    fingerprint = "fake"

    def __init__(self, found: dict):
        self.found = found
        self.asked: list[tuple] = []  # size, threshold and shape of every call

    def detect(self, photo, size=None, threshold=0.5):
        self.asked.append((size, threshold, photo.shape))
        finds = [find for find in self.found.get(size, []) if find[3] >= threshold]
        boxes = [[x - s / 2, y - s / 2, x + s / 2, y + s / 2, score] for x, y, s, score in finds]
        landmarks = [(TEMPLATE - 56) / 112 * s + (x, y) for x, y, s, _ in finds]
        return (
            np.array(boxes, np.float32).reshape(-1, 5),
            np.array(landmarks, np.float32).reshape(-1, 5, 2),
        )

    def map(self, function, items):
        return map(function, items)


def find_face(photo, pack, attempts=faces.ATTEMPTS):
    """The likeliest face alone."""
    return find_faces(photo, pack, attempts)[0]


def photo(height=240, width=320) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def write_photos(folder: Path, count: int) -> pd.DataFrame:
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), photo(64, 48))
    paths = [f"{i}.png" for i in range(count)]
    return pd.DataFrame({"path": paths, "sha256": paths, "status": "ok", "quality": "low"})


def shrunk(file: Path) -> np.ndarray:
    """The crop of a photo in which no face is found."""
    return cv2.resize(decoding.read_rgb(file), (112, 112), interpolation=cv2.INTER_AREA)


# -------------------------------------------------------------------------------------- looking for faces


def test_the_first_attempt_that_finds_a_face_is_the_last_one_made():
    pack = FakePack({160: [(160, 120, 80, 0.9)]})
    row, crop = find_face(photo(), pack)
    assert row["found"] == ATTEMPTS[0].name and len(pack.asked) == 1
    assert crop.shape == (112, 112, 3) and crop.dtype == np.uint8
    assert row["eye_distance"] == pytest.approx(80 * (73.5318 - 38.2946) / 112, rel=1e-3)


def test_detection_as_shipped_has_the_last_word_where_pixels_are_left_or_a_sign_of_a_face():
    small, large = photo(), photo(480, 640)
    assert find_face(large, FakePack({None: [(60, 60, 40, 0.51)]}))[0]["found"] == "as shipped"
    assert find_face(small, FakePack({None: [(60, 60, 40, 0.51)]}))[0]["found"] == WHOLE
    for sign, found in ((0.3, WHOLE), (0.45, "as shipped")):
        pack = FakePack({None: [(60, 60, 40, 0.51)], 128: [(200, 150, 60, sign)]})
        assert find_face(small, pack)[0]["found"] == found


def test_with_no_face_the_whole_photo_is_the_crop():
    picture = photo()
    row, crop = find_face(picture, FakePack({}))
    assert row["found"] == WHOLE and row["n_faces"] == 0 and np.isnan(row["eye_distance"])
    assert [row[side] for side in ("left", "top", "right", "bottom")] == [0, 0, 320, 240]
    np.testing.assert_array_equal(crop, cv2.resize(picture, (112, 112), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize(
    ("other", "why"),
    [((60, 60, 30, 0.9), "smaller"), ((300, 20, 60, 0.9), "in a corner"), ((105, 120, 60, 0.5), "unsure")],
)
def test_of_several_faces_the_most_plausible_is_taken_and_all_are_counted(other, why):
    subject = (165, 125, 60, 0.9)
    for finds in ([subject, other], [other, subject]):
        row, _ = find_face(photo(), FakePack({160: finds}))
        assert row["n_faces"] == 2, why
        assert (row["left"] + row["right"]) / 2 == pytest.approx(165, abs=0.01), why


def test_padding_leaves_coordinates_those_of_the_photo():
    padded = next(attempt for attempt in ATTEMPTS if attempt.margin)
    border = round(padded.margin * 320)
    pack = FakePack({padded.size: [(160 + border, 120 + border, 100, 0.9)]})
    row, _ = find_face(photo(), pack, [padded])
    assert pack.asked[0][2] == (240 + 2 * border, 320 + 2 * border, 3)
    assert row["left"] == pytest.approx(110, abs=0.01) and row["top"] == pytest.approx(70, abs=0.01)


def test_a_weak_find_counts_once_another_attempt_confirms_it():
    weak, same, elsewhere = (160, 120, 100, 0.4), (165, 118, 90, 0.35), (40, 40, 60, 0.45)
    alone = FakePack({160: [weak]})
    assert find_face(photo(), alone)[0]["found"] == WHOLE
    assert find_face(photo(), FakePack({160: [weak], 320: [elsewhere]}))[0]["found"] == WHOLE
    row, _ = find_face(photo(), FakePack({160: [weak], 320: [same, elsewhere]}))
    assert row["found"] == "320, weak" and row["n_faces"] == 1
    assert row["left"] == pytest.approx(120, abs=0.01)


@pytest.mark.parametrize("flaw", ["upside down", "lying", "outside", "tiny"])
def test_weak_finds_that_no_face_could_be_do_not_count(flaw):
    class Flawed(FakePack):
        def detect(self, photo, size=None, threshold=0.5):
            boxes, landmarks = super().detect(photo, size, threshold)
            middle = landmarks.mean(1, keepdims=True)
            if flaw == "upside down":
                landmarks = 2 * middle - landmarks
            if flaw == "lying":
                landmarks = middle + (landmarks - middle)[..., ::-1] * (1, -1)
            return boxes, landmarks

    find = {"outside": (-10, 120, 100, 0.4), "tiny": (160, 120, 20, 0.4)}.get(flaw, (160, 120, 100, 0.4))
    finds = {attempt.size: [find] for attempt in ATTEMPTS}
    assert find_face(photo(), Flawed(finds), [a for a in ATTEMPTS if not a.margin])[0]["found"] == WHOLE
    if flaw in ("upside down", "lying"):
        assert find_face(photo(), FakePack(finds))[0]["found"] != WHOLE


def test_as_shipped_takes_no_weak_finds():
    pack = FakePack({None: [(160, 120, 100, 0.49)]})
    assert find_face(photo(), pack, AS_SHIPPED)[0]["found"] == WHOLE


# ---------------------------------------------------------------------------------------- several faces


def test_all_faces_of_a_photo_are_kept_the_likeliest_first():
    friend, subject, weak = (90, 120, 80, 0.9), (230, 120, 60, 0.9), (30, 200, 40, 0.35)
    found = find_faces(photo(), FakePack({160: [subject, weak, friend]}))
    assert [round(float(row["left"] + row["right"]) / 2) for row, _ in found] == [90, 230]
    assert all(row["n_faces"] == 2 and row["found"] == "160" for row, _ in found)
    assert all(crop.shape == (112, 112, 3) for _, crop in found)


def test_a_face_that_is_detected_twice_is_kept_once():
    found = find_faces(photo(), FakePack({160: [(160, 120, 100, 0.9), (165, 130, 60, 0.55)]}))
    assert len(found) == 1 and found[0][0]["n_faces"] == 1


def test_of_a_crowd_the_likeliest_are_kept_and_all_are_counted():
    crowd = [(8 + 16 * i, 8 + 16 * j, 15, 0.6) for i in range(6) for j in range(6)]
    found = find_faces(photo(), FakePack({160: crowd}))
    assert len(found) == MOST_FACES and found[0][0]["n_faces"] == 36


def test_beside_a_small_face_others_are_looked_for_more_closely():
    friend, subject = (500, 400, 200, 0.9), (900, 500, 90, 0.8)
    finds = {160: [friend], 320: [friend, subject]}
    found = find_faces(photo(1200, 1600), FakePack(finds))
    assert [row["found"] for row, _ in found] == ["160", "beside, 320"] and found[0][0]["n_faces"] == 2
    assert (found[1][0]["left"] + found[1][0]["right"]) / 2 == pytest.approx(900, abs=0.01)
    large = FakePack({**finds, 160: [(500, 400, 500, 0.9)]})
    assert len(find_faces(photo(1200, 1600), large)) == 1 and len(large.asked) == 1


# ---------------------------------------------------------------------------------------- turned photos


class PaintedPack(FakePack):
    """Finds a square, red above and blue below, and says how surely by how it is turned.

    What hangs or lies is found less surely. `seen` says as what: "standing", as detectors often do, "turned"
    as it is, or not at all, "missed".
    """

    def __init__(self, seen: str, upright: float = 0.9, turned: float = 0.6):
        super().__init__({})
        self.seen, self.scores = seen, (upright, turned)

    def detect(self, photo, size=None, threshold=0.5):
        self.asked.append((size, threshold, photo.shape))
        red, blue = ((photo[..., a].astype(int) - photo[..., b]) > 128 for a, b in ((0, 2), (2, 0)))
        count, labels = cv2.connectedComponents((red | blue).astype(np.uint8))
        finds = [self.look(red & (labels == i), blue & (labels == i), threshold) for i in range(1, count)]
        finds = [find for find in finds if find is not None]
        if not finds:
            return np.empty((0, 5), np.float32), np.empty((0, 5, 2), np.float32)
        boxes, landmarks = zip(*finds, strict=True)
        return np.array(boxes, np.float32), np.array(landmarks, np.float32)

    def look(self, red, blue, threshold):
        """A square's box with its score, and its landmarks; None where it isn't seen."""
        ys, xs = np.nonzero(red | blue)
        if len(xs) < 16 or not red.any() or not blue.any():
            return None
        box = np.array([xs.min(), ys.min(), xs.max(), ys.max()], np.float32)
        side, middle = max(box[2:] - box[:2]) + 1, (box[:2] + box[2:]) / 2
        right, down = np.argwhere(blue).mean(0)[::-1] - np.argwhere(red).mean(0)[::-1]
        degrees = [0, 90, 180, 270][int(np.argmax([down, -right, -down, right]))]
        score = self.scores[int(degrees != 0)]
        if score < threshold or (degrees and self.seen == "missed"):
            return None
        points = (TEMPLATE - 56) / 112 * side
        for _ in range(degrees // 90 if self.seen == "turned" else 0):
            points = np.stack([-points[:, 1], points[:, 0]], axis=1)
        return np.append(box, score), points + middle


def painted(degrees: int) -> np.ndarray:
    """A photo 320 x 240 of a face that is not in its middle, then turned clockwise."""
    picture = np.full((240, 320, 3), 90, np.uint8)
    picture[60:110, 180:280] = (250, 20, 20)
    picture[110:160, 180:280] = (20, 20, 250)
    return np.ascontiguousarray(np.rot90(picture, -degrees // 90))


@pytest.mark.parametrize("seen", ["standing", "turned", "missed"])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turned_photos_are_found_to_be_so_and_cropped_upright(degrees, seen):
    picture = painted(degrees)
    (row, crop), *others = find_faces(picture, PaintedPack(seen))
    assert row["turned"] == (360 - degrees) % 360 and row["found"] == "160" and not others
    ys, xs = np.nonzero(np.ptp(picture.astype(int), axis=2) > 50)  # the box is that of the photo as it is
    box = [row[side] for side in ("left", "top", "right", "bottom")]
    np.testing.assert_allclose(box, [xs.min(), ys.min(), xs.max(), ys.max()], atol=0.01)
    upright = find_face(painted(0), PaintedPack(seen))[1]
    assert np.abs(crop.astype(int) - upright).mean() < 3
    assert crop[20, 56, 0] > 200 and crop[92, 56, 2] > 200  # red above, blue below


def test_as_shipped_turns_nothing():
    row, _ = find_face(painted(180), PaintedPack("standing"), AS_SHIPPED)
    assert row["turned"] == 0 and row["found"] == "as shipped"


def test_what_surely_stands_is_looked_at_once():
    pack = PaintedPack("standing", upright=0.85)
    assert find_face(painted(0), pack)[0]["turned"] == 0 and len(pack.asked) == 1


@pytest.mark.parametrize(("size", "turns"), [(160, 1), (320, 3)])
def test_what_only_a_late_attempt_finds_is_looked_at_lying_too_where_it_is_not_surer(size, turns):
    """Below 0.8 all that may be upside down is; the turned photos are looked at side by side, 64 px each."""
    pack = FakePack({size: [(160, 120, 100, 0.68)]})
    assert find_face(photo(), pack)[0]["turned"] == 0
    assert pack.asked[-1][::2] == (64 * turns, (64, 64 * turns, 3))


@pytest.mark.parametrize("turned", [0.55, 0.7, 0.74])
def test_an_unsure_face_stays_as_it_is_unless_it_is_surer_turned(turned):
    pack = PaintedPack("standing", upright=0.7, turned=turned)  # in a photo that is not turned
    assert find_face(painted(0), pack)[0]["turned"] == 0
    assert find_face(painted(180), pack)[0]["turned"] == (180 if turned < 0.65 else 0)


# --------------------------------------------------------------------------------------------- the stage


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_photo_in_which_detection_fails_is_named(tmp_path):
    """A strip of 6000 x 4 pixels has no height left at the size at which faces are looked for."""
    pack = packs.load(mode.PACK)
    images = write_photos(tmp_path, 1)
    cv2.imwrite(str(tmp_path / "strip.png"), photo(4, 6000))
    images = pd.concat([images, images.assign(path="strip.png", sha256="s")], ignore_index=True)
    for look in (every_face, as_shipped):
        with pytest.raises(ValueError, match=r"fails in strip\.png, a photo of 6000 x 4 pixels: take it out"):
            look(images, tmp_path, pack)


def test_rows_are_those_of_the_usable_images_in_order(tmp_path):
    images = write_photos(tmp_path, 5)
    images.loc[2, "status"] = "duplicate"
    found, crops = extract(images, tmp_path, FakePack({}))
    assert found.columns.tolist() == ["path", *faces.COLUMNS]
    assert found["path"].tolist() == ["0.png", "1.png", "3.png", "4.png"]
    assert found.index.tolist() == [0, 1, 2, 3]
    for path, crop in zip(found["path"], crops, strict=True):
        np.testing.assert_array_equal(crop, shrunk(tmp_path / path))
    assert all(found[name].dtype == np.float32 for name in ("left", "score", "eye_distance"))


def test_table_joins_what_was_found_to_the_usable_images(tmp_path):
    images = write_photos(tmp_path, 5).assign(split=list("abcde"))
    images.loc[2, "status"] = "duplicate"
    found, _ = extract(images, tmp_path, FakePack({160: [(24, 30, 31.7, 0.9)]}))
    table = faces.table(images, found)
    assert table.columns.tolist() == [*images.columns, *faces.COLUMNS]
    assert table["split"].tolist() == list("abde") and table.index.tolist() == [0, 1, 2, 3]
    pd.testing.assert_frame_equal(table[found.columns], found)
    for other in (images.assign(status="ok"), images.iloc[::-1], images.iloc[:3]):
        with pytest.raises(ValueError, match="paths differ"):
            faces.table(other, found)


def test_every_face_has_its_crop_and_extract_gives_the_first_of_each_photo(tmp_path):
    images = write_photos(tmp_path, 3)
    finds = {160: [(24, 20, 31.7, 0.9), (24, 52, 20, 0.8)]}
    candidates, cuts = every_face(images, tmp_path, FakePack(finds))
    assert candidates["path"].tolist() == ["0.png", "0.png", "1.png", "1.png", "2.png", "2.png"]
    assert candidates.columns.tolist() == ["path", *faces.COLUMNS] and cuts.shape == (6, 112, 112, 3)
    for i, (path, points) in enumerate(zip(candidates["path"], landmarks(candidates), strict=True)):
        np.testing.assert_array_equal(cuts[i], faces.align(decoding.read_rgb(tmp_path / path), points))
    found, crops = extract(images, tmp_path, FakePack(finds))
    pd.testing.assert_frame_equal(found, candidates[::2].reset_index(drop=True))
    np.testing.assert_array_equal(crops, cuts[::2])


def landmarks(table: pd.DataFrame) -> np.ndarray:
    return table[list(faces.COLUMNS[4:14])].to_numpy().reshape(-1, 5, 2)


def test_a_photo_whose_faces_were_half_written_is_looked_at_again(tmp_path):
    images, place = write_photos(tmp_path, 3), tmp_path / "workspace"
    finds = {160: [(24, 20, 31.7, 0.9), (24, 52, 20, 0.8)]}
    fresh, expected = every_face(images, tmp_path, FakePack(finds), workspace=place)
    expected = np.array(expected)
    log = place / "found.csv"
    for rows, left in ((4, 2), (5, 1)):  # a head and six rows: in the middle of the second photo, at its end
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:rows]) + b"7,7")
        pack = FakePack(finds)
        again, crops = every_face(images, tmp_path, pack, workspace=place)
        assert len(pack.asked) == left
        pd.testing.assert_frame_equal(again, fresh)
        np.testing.assert_array_equal(crops, expected)


def test_only_a_change_of_photos_is_a_reason_to_look_again(tmp_path, capsys):
    images = write_photos(tmp_path, 3)
    paths = (tmp_path / "out" / "found.parquet", tmp_path / "out" / "crops.npy")

    def look(images: pd.DataFrame) -> str:
        found, crops = artifacts.cached(paths, extract, images, tmp_path, FakePack({}))
        assert len(found) == len(crops) == (images["status"] == "ok").sum()
        return capsys.readouterr().out

    assert "computed" in look(images)
    assert "loaded" in look(images.assign(split="train", quality="high"))
    assert "computed" in look(images.assign(sha256=["0.png", "other", "2.png"]))
    assert "computed" in look(images.assign(status=["ok", "ok", "duplicate"]))


def test_found_is_text_even_where_every_name_is_a_number(tmp_path):
    found, _ = extract(write_photos(tmp_path, 3), tmp_path, FakePack({160: [(24, 30, 31.7, 0.9)]}))
    assert found["found"].tolist() == ["160"] * 3


def test_nothing_usable_and_undecodable_photos_are_one_sentence(tmp_path):
    images = write_photos(tmp_path, 2)
    with pytest.raises(ValueError, match="no usable images"):
        extract(images.assign(status="unreadable"), tmp_path, FakePack({}))
    (tmp_path / "1.png").write_bytes(b"no photo")
    with pytest.raises(ValueError, match=r"1\.png"):
        extract(images, tmp_path, FakePack({}))


def test_an_interrupted_extraction_goes_on_where_it_was(tmp_path):
    images = write_photos(tmp_path, 20)
    fresh, expected = extract(images, tmp_path, FakePack({160: [(24, 30, 31.7, 0.9)]}))

    class Breaks(FakePack):
        def map(self, function, items):
            for i, item in enumerate(items):
                if i == 7:
                    raise KeyboardInterrupt
                yield function(item)

    workspace = tmp_path / "workspace"
    workspace.mkdir()
    with pytest.raises(KeyboardInterrupt):
        extract(images, tmp_path, Breaks({160: [(24, 30, 31.7, 0.9)]}), workspace=workspace)
    with (workspace / "found.csv").open("a") as file:
        file.write("12.5,13")  # a row that was being written
    pack = FakePack({160: [(24, 30, 31.7, 0.9)]})
    again, crops = extract(images, tmp_path, pack, workspace=workspace)
    assert len(pack.asked) == 13
    pd.testing.assert_frame_equal(again, fresh)
    np.testing.assert_array_equal(crops, expected)
    assert isinstance(crops, np.memmap) and crops.filename == (workspace / "crops.npy").resolve()


SLOW = """
import sys, time
from pathlib import Path
import pandas as pd
from src.packs import faces
from tests.packs.test_faces import FakePack

class Slow(FakePack):
    def map(self, function, items):
        for item in items:
            time.sleep(0.02)
            yield function(item)

folder = Path(sys.argv[1])
images = pd.DataFrame({"path": [f"{i}.png" for i in range(500)], "status": "ok"})
faces.extract(images, folder, Slow({}), workspace=folder / "workspace")
"""


def test_killed_outright_it_loses_next_to_nothing(tmp_path):
    images = write_photos(tmp_path, 500)
    (tmp_path / "workspace").mkdir()
    log = tmp_path / "workspace" / "found.csv"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not log.exists() or log.read_bytes().count(b"\n") < 40):
        time.sleep(0.05)
    process.kill()
    process.wait()
    done = log.read_bytes().count(b"\n") - 1
    assert 38 <= done < 500
    pack = FakePack({})
    _, crops = extract(images, tmp_path, pack, workspace=tmp_path / "workspace")
    looks = sum(not attempt.beyond for attempt in ATTEMPTS) + 1  # and a quick one in the other orientations
    assert len(pack.asked) == (500 - done) * looks
    for i in (0, done - 1, done, 499):
        np.testing.assert_array_equal(crops[i], shrunk(tmp_path / f"{i}.png"))


def test_detection_rate_counts_each_photo_once_per_quality():
    table = pd.DataFrame(
        {"quality": ["high", "high", "low", "low", "low"], "found": ["160", "160", "320", WHOLE, WHOLE]}
    )
    shipped = np.ones((5, 4), np.float32)
    shipped[[1, 2, 3, 4]] = np.nan
    rates = faces.detection_rate(table, shipped).set_index("quality")
    assert rates["photos"].to_dict() == {"all": 5, "high": 2, "low": 3}
    assert rates["as shipped"].to_dict() == pytest.approx({"all": 0.2, "high": 0.5, "low": 0})
    assert rates["ours"].to_dict() == pytest.approx({"all": 0.6, "high": 1, "low": 1 / 3})


# ---------------------------------------------------------------------------------------- on real photos


@pytest.mark.parametrize(
    ("pattern", "step", "least"),
    [("frmdb/images/*/low_quality/*", 5, 0.7), ("frmdb/images/*/high_quality/Img_3[34].*", 4, 0.9)],
)
def test_more_faces_are_found_than_as_shipped_and_none_is_lost(real, standin, pattern, step, least):
    paths = [file.relative_to(real).as_posix() for file in sorted(real.glob(pattern))[::step]]
    images = pd.DataFrame({"path": paths, "status": "ok", "quality": "unknown"})
    found, _ = extract(images, real, standin)
    shipped = np.isfinite(as_shipped(found, real, standin)).all(axis=1)
    ours = (found["found"] != WHOLE).to_numpy()
    assert not (shipped & ~ours).any()
    assert ours.mean() >= max(least, shipped.mean() + 0.2)


@pytest.mark.parametrize(
    ("pattern", "least"), [("lfw3d/images/*/*_0003.jpg", 0.95), ("cfp300/images/0[01]*/frontal_01.jpg", 0.95)]
)
def test_turned_photos_of_people_give_the_crop_of_the_upright_ones(real, standin, pattern, least):
    photos = [decoding.read_rgb(file) for file in sorted(real.glob(pattern))[:24]]
    upright = [find_face(picture, standin) for picture in photos]
    assert all(row["turned"] == 0 for row, _ in upright)
    right = []
    for degrees in (90, 180, 270):
        for picture, (_, expected) in zip(photos, upright, strict=True):
            row, crop = find_face(np.ascontiguousarray(np.rot90(picture, -degrees // 90)), standin)
            alike = float(np.prod(unit(standin.recognise(np.stack([crop, expected]))), axis=0).sum())
            right.append(row["turned"] == 360 - degrees and alike > 0.8)
    assert np.mean(right) >= least


def unit(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def test_no_face_is_found_where_there_is_none(standin):
    for seed in range(40):
        assert find_face(picture_of_nothing(seed), standin)[0]["found"] == WHOLE, seed


def picture_of_nothing(seed: int) -> np.ndarray:
    """Noise, clouds, ellipses, a horizon or a chessboard, in any size."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(60, 700, 2).tolist()
    colours = rng.integers(0, 256, (16, 3)).tolist()
    picture = np.full((height, width, 3), colours[0], np.uint8)
    match seed % 5:
        case 0:
            picture = rng.integers(0, 256, picture.shape, np.uint8)
        case 1:
            coarse = rng.integers(0, 256, (*rng.integers(3, 14, 2), 3), np.uint8)
            picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        case 2:
            for colour in colours:
                centre, axes = rng.integers(0, (width, height)).tolist(), rng.integers(3, 90, 2).tolist()
                cv2.ellipse(picture, centre, axes, int(rng.integers(180)), 0, 360, colour, -1)
        case 3:
            picture[height // 2 :] = colours[1]
            picture = (picture + rng.normal(0, 12, picture.shape)).clip(0, 255).astype(np.uint8)
        case 4:
            picture[np.indices((height, width)).sum(0) // 24 % 2 == 0] = colours[1]
    return picture


# ------------------------------------------------------------------------ a detector that takes any size


def test_at_every_size_of_ours_a_detector_that_takes_any_is_the_one_that_was_freed(sample, standin, dynamic):
    assert dynamic.detector.input_sizes == [(128, 128), (640, 640)] and len(standin.detector.input_sizes) == 1
    for file in sample[::2]:
        picture = decoding.read_rgb(file)
        for size in (64, 128, 160, 320, 512):
            for one, other in zip(
                *(pack.detect(picture, size, 0.3) for pack in (standin, dynamic)), strict=True
            ):
                np.testing.assert_allclose(one, other, atol=0.01)
        one, other = ([row for row, _ in find_faces(picture, pack)] for pack in (standin, dynamic))
        if "as shipped" not in (one[0]["found"], other[0]["found"]):
            pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other), atol=0.01)


def test_at_two_sizes_as_shipped_no_face_of_ours_is_there_twice(sample, dynamic):
    for file in sample:
        found = find_faces(decoding.read_rgb(file), dynamic, [Attempt("as shipped", None), *ATTEMPTS])
        boxes = np.array([[row[side] for side in ("left", "top", "right", "bottom")] for row, _ in found])
        again = np.tril(faces._overlap(boxes, boxes, of_smaller=True) >= 0.5, -1)
        assert not again.any() and found[0][0]["n_faces"] in (0, len(found))


def test_retries_off_boxes_and_landmarks_are_those_of_face_analysis(real, standin):
    from insightface.app import FaceAnalysis

    files = (
        sorted((real / "lfw3d/images").glob("*/*"))[::40]
        + sorted((real / "frmdb/images").glob("*/low*/*"))[::20]
    )
    app = FaceAnalysis(name="standin", root=str(real), allowed_modules=["detection"])
    app.prepare(ctx_id=0)
    for file in files:
        theirs = app.get(cv2.imread(str(file)))
        row, _ = find_face(decoding.read_rgb(file), standin, AS_SHIPPED)
        assert row["n_faces"] == len(theirs)
        if theirs:
            box = [row[side] for side in ("left", "top", "right", "bottom")]
            points = np.array([row[name] for name in faces.COLUMNS[4:14]]).reshape(5, 2)
            differences = [np.abs(f.bbox - box).max() + np.abs(f.kps - points).max() for f in theirs]
            assert min(differences) < 0.5


def test_the_module_costs_no_onnx_runtime():
    heavy = "{'onnx', 'onnxruntime', 'insightface', 'torch'}"
    code = f"import sys, src.packs.faces; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
