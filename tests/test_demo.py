"""The demo set is what a real collection is like, and the same on every run; the demo pack works on it."""

import cv2
import numpy as np
import pytest
from insightface.app import FaceAnalysis

from src import demo


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return demo.make(tmp_path_factory.mktemp("demo"), people=3, seed=5, high=3, low=4)


def readable(folder):
    return {file: cv2.imread(str(file)) for file in sorted(folder.rglob("*.*")) if file.stat().st_size}


def test_layout_and_counts(images):
    people = sorted(folder.name for folder in images.iterdir())
    assert people == ["person_001", "person_002", "person_003"]
    for person in people:
        for quality, count in (("high", 3), ("low", 4)):
            files = list((images / person / f"{quality}_quality").glob(f"{quality}_*"))
            assert len(files) == count
            assert all(cv2.imread(str(file)) is not None for file in files)


def test_same_seed_same_pictures_other_seed_others(images, tmp_path):
    again = demo.make(tmp_path / "again", people=3, seed=5, high=3, low=4)
    files = sorted(file.relative_to(images) for file in images.rglob("*.*"))
    assert files == sorted(file.relative_to(again) for file in again.rglob("*.*"))
    assert all((images / file).read_bytes() == (again / file).read_bytes() for file in files)
    other = demo.make(tmp_path / "other", people=1, seed=6, high=1, low=0)
    photo = next((other / "person_001" / "high_quality").glob("high_00.*"))
    assert photo.read_bytes() not in {file.read_bytes() for file in images.rglob("high_00.*")}


def test_fewer_people_are_the_first_of_more(images, tmp_path):
    """A demo set can be made larger without changing anyone: photos depend on the person, not on the set."""
    fewer = demo.make(tmp_path, people=2, seed=5, high=3, low=4)
    for file in (fewer / "person_002").rglob("high_*.*"):
        assert file.read_bytes() == (images / file.relative_to(fewer)).read_bytes()


def test_photos_differ(images):
    contents = [file.read_bytes() for file in images.rglob("*_[0-9][0-9].*")]
    assert len(set(contents)) == len(contents) == 21


def test_unreadable_files_and_copies_are_planted(images):
    unreadable = {file.name for file, picture in readable(images).items() if picture is None}
    assert {"notes.jpg", "header_only.jpg", "page.png"} <= unreadable
    assert [file.name for file in images.rglob("*.*") if file.stat().st_size == 0] == ["empty.jpg"]
    first = images / "person_001" / "high_quality"
    assert (first / "frame_0_copy.jpg").read_bytes() == (first / "frame_0.jpg").read_bytes()
    broken = (first / "broken_download.jpg").read_bytes()
    assert (first / "frame_0.jpg").read_bytes().startswith(broken)


def test_near_duplicates_are_nearer_than_other_photos(images):
    first = images / "person_001" / "high_quality"

    def small(name):
        picture = np.asarray(cv2.imread(str(first / name)))
        return cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA).astype(float)

    last = next(first.glob("high_02.*")).name
    others = next(first.glob("high_00.*")).name
    distance = np.abs(small(last) - small(others)).mean()
    assert np.abs(small(last) - small("again_reencoded.jpg")).mean() < 0.2 * distance
    assert np.abs(small(last) - small("again_smaller.jpg")).mean() < 0.2 * distance
    assert np.abs(small("frame_0.jpg") - small("frame_1.jpg")).mean() < 0.5 * distance


def test_a_finished_set_is_kept_and_foreign_files_are_never_touched(images, tmp_path):
    stamp = {file: file.stat().st_mtime_ns for file in images.rglob("*.*")}
    assert demo.make(images.parent, people=3, seed=5, high=3, low=4) == images
    assert {file: file.stat().st_mtime_ns for file in images.rglob("*.*")} == stamp
    mine = tmp_path / "images" / "someone" / "photo.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="not a demo set"):
        demo.make(tmp_path, people=1, high=1, low=1)
    assert mine.read_bytes() == b"mine"
    with pytest.raises(ValueError, match="people"):
        demo.make(tmp_path / "none", people=0)


def test_truth_follows_the_head():
    who = demo.person(3)
    rng = np.random.default_rng(0)
    looks = [demo.view(rng) for _ in range(20)]
    for look in looks:
        eye, other_eye, nose, mouth, other_mouth = demo.landmarks(who, look)
        assert eye[0] < other_eye[0]
        assert mouth[0] < other_mouth[0]
        assert eye[1] < nose[1] < mouth[1]
        left, top, right, bottom = demo.face_box(who, look)
        assert left < eye[0] < other_eye[0] < right
        assert top < eye[1] < mouth[1] < bottom
    turned = max(looks, key=lambda look: look.yaw)
    away = min(looks, key=lambda look: look.yaw)

    def nose_offset(look):
        points = demo.landmarks(who, look)
        return points[2, 0] - points[:2, 0].mean()

    assert nose_offset(turned) > nose_offset(away)


def test_low_quality_is_worse():
    who = demo.person(3)
    sizes, contrasts = [], []
    for quality in ("high", "low"):
        photos = [demo.photo(who, quality, np.random.default_rng(k)) for k in range(6)]
        sizes.append(np.median([len(photo) for photo in photos]))
        contrasts.append(np.median([np.percentile(photo, 98) - np.percentile(photo, 2) for photo in photos]))
    assert sizes[1] < 0.7 * sizes[0]
    assert contrasts[1] < contrasts[0]


@pytest.fixture(scope="module")
def analysis():
    app = FaceAnalysis(name=str(demo.PACK), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1)
    return app


def shots(count, quality_view=0.0):
    for seed in range(40_000, 40_000 + count):
        who, look = demo.person(seed), demo.view(np.random.default_rng(seed), wild=quality_view)
        yield demo.draw(who, look, 208)


def test_pack_is_small_and_complete(analysis):
    assert sum(file.stat().st_size for file in demo.PACK.iterdir()) <= 2_000_000
    assert set(analysis.models) == {"detection", "recognition"}


def test_pack_finds_faces_and_their_landmarks(analysis):
    errors = []
    for photo, points in shots(20):
        faces = analysis.get(cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))
        if len(faces) == 1:
            eyes = np.linalg.norm(points[1] - points[0])
            errors.append(np.linalg.norm(faces[0].kps - points, axis=1).mean() / eyes)
    assert len(errors) >= 18
    assert np.median(errors) < 0.08


def test_pack_sees_no_face_where_there_is_none(analysis):
    rng = np.random.default_rng(0)
    for _ in range(5):
        wall = cv2.resize(
            rng.integers(0, 256, (6, 6, 3), np.uint8), (224, 224), interpolation=cv2.INTER_CUBIC
        )
        assert not analysis.get(wall)


def test_pack_tells_people_apart_and_takes_batches(analysis):
    rng = np.random.default_rng(0)
    people = [demo.person(seed) for seed in range(50_000, 50_006)]
    crops = []
    for who in people:
        for _ in range(2):
            photo, points = demo.draw(who, demo.view(rng), 208)
            crops.append(aligned(photo, points))
    recogniser = analysis.models["recognition"]
    together = recogniser.get_feat(crops)
    alone = np.concatenate([recogniser.get_feat(crop) for crop in crops])
    np.testing.assert_allclose(together, alone, atol=1e-3)
    unit = together / np.linalg.norm(together, axis=1, keepdims=True)
    score = unit @ unit.T
    genuine = score[np.arange(0, 12, 2), np.arange(1, 12, 2)]
    impostor = score[np.triu_indices(12, 2)]
    assert np.median(genuine) > np.quantile(impostor, 0.9)


def aligned(photo, points):
    from insightface.utils.face_align import norm_crop

    return norm_crop(cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), points)


def test_only_an_empty_dataset_of_the_project_becomes_a_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "src" / "demo.py"))
    own = tmp_path / "dataset" / "images"
    given = ("buffalo_l", "imagenet", 80, 4)
    folder, *rest = demo.unless_photos(str(own), *given, tmp_path / "out", people=1)
    assert folder == tmp_path / "out" / "demo" / "images"
    assert rest == [str(demo.PACK), "none", demo.EPOCHS[0], 4, "demo · "]
    assert "DEMO" in capsys.readouterr().out
    elsewhere = tmp_path / "elsewhere"
    assert demo.unless_photos(str(elsewhere), *given, tmp_path / "out") == (elsewhere, *given, "")
    (own / "ann").mkdir(parents=True)
    assert demo.unless_photos(str(own), *given, tmp_path / "out") == (own, *given, "")
