"""Who is on a photo: somebody known, nobody known, nobody at all, or several; each has its own answer."""

import json
import shutil
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src import __main__ as runner
from src import identify
from src.demo import drawing, people
from src.demo.mode import PACK
from src.limits import NotPossible
from src.packs import export
from src.packs import pack as packs


def portrait(seed, shot=0, side=224):
    """A generated person's photo, uint8 [side, side, 3] RGB."""
    view = people.view(np.random.default_rng([seed, shot]))
    return drawing.draw(people.person(seed), view, side)[0]


def save(photo, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(file)
    return file


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three people known, two photos each, and a folder of somebody whose photo shows no face."""
    place = tmp_path_factory.mktemp("place")
    for seed in (1, 2, 3):
        for shot in (0, 1):
            save(portrait(seed, shot), place / "known" / f"Person {seed}" / f"{shot}.png")
    rng = np.random.default_rng(0)
    noise = rng.integers(90, 160, (224, 224, 3), np.uint8)
    save(noise, place / "known" / "Nobody Seen" / "0.png")
    return place


@pytest.fixture(scope="module")
def tool():
    """The demo pack, with a threshold that the portraits of the gallery reach and other people's do not."""
    return identify.Tool(packs.load(PACK), 0.9, "a test", 0)


@pytest.fixture(scope="module")
def known(place, tool):
    return identify.gallery(place / "known", tool, place / "kept")


def test_a_gallery_is_the_mean_of_each_persons_unit_embeddings(place, tool, capsys):
    known = identify.gallery(place / "known", tool, place / "kept")
    assert known.people == ("Person 1", "Person 2", "Person 3")
    np.testing.assert_allclose(np.linalg.norm(known.templates, axis=1), 1, rtol=1e-5)
    capsys.readouterr()
    again = identify.gallery(place / "known", tool, place / "kept")
    said = capsys.readouterr().out
    assert np.array_equal(again.templates, known.templates) and "computed" not in said
    assert "no face in any photo of 1 people: Nobody Seen" in said


def test_somebody_known(place, tool, known):
    file = save(portrait(2), place / "two.png")
    (face,) = identify.ask(file, tool._replace(threshold=0.7), known)
    assert face.known and face.closest[0][0] == "Person 2" and len(face.closest) == 3
    assert face.closest[0][1] == max(score for _, score in face.closest)
    said = identify.in_words([face], tool._replace(threshold=0.7), known)
    assert "**Person 2** (" in said and "threshold 0.700" in said and "Person 1" in said
    left, top, right, bottom = face.box
    assert 0 < right - left < 224 and 0 < bottom - top < 224


def test_a_stranger(place, tool, known):
    file = save(portrait(77), place / "stranger.png")
    (face,) = identify.ask(file, tool._replace(threshold=0.999), known, most=1)
    assert face.known is False and len(face.closest) == 1
    assert "**nobody known**: the closest, Person" in identify.in_words([face], tool, known)


def test_too_poor_to_tell(place, tool, known):
    """Where lengths carry how much a face shows, the limit comes before everything else."""
    file = save(portrait(2), place / "two.png")
    (face,) = identify.ask(file, tool._replace(threshold=0.7), known)
    assert not face.poor and face.length > 0
    above, below = (tool._replace(threshold=0.7, limit=face.length * by) for by in (1.01, 0.99))
    (poor,) = identify.ask(file, above, known)
    (clear,) = identify.ask(file, below, known)
    assert poor.poor and not clear.poor and clear.known
    said = identify.in_words([poor], above, known)
    assert "**too poor to tell**" in said and f"{above.limit:g} is needed" in said and "Person" not in said
    assert "**Person 2** (" in identify.in_words([clear], below, known)
    image = np.asarray(identify.drawn(np.full((600, 600, 3), 255, np.uint8), [poor]))
    assert (image == (110, 110, 110)).all(2).any() and not (image == (30, 140, 60)).all(2).any()


def test_where_lengths_are_scores_templates_weigh_by_them(place, tool, known):
    weighed = identify.gallery(place / "known", tool._replace(limit=1.0), place / "weighed")
    assert weighed.people == known.people
    given = []
    for shot in (0, 1):
        (face,) = identify.ask(place / "known" / "Person 1" / f"{shot}.png", tool, known)
        given.append(face.length)
    assert given[0] != pytest.approx(given[1], rel=1e-3)
    cosines = (weighed.templates * known.templates).sum(1)
    assert cosines.min() > 0.9 and cosines[0] < 0.9999999
    vectors = np.array([[1, 0], [0, 3]], np.float32)
    faces = pd.DataFrame({"identity": ["a", "a"], "split": "train"})
    np.testing.assert_allclose(
        identify.gallery_of(vectors, faces).templates, [[0.1**0.5, 0.9**0.5]], rtol=1e-5
    )


def test_no_face(place, tool, known):
    file = save(np.full((100, 120, 3), 128, np.uint8), place / "wall.png")
    assert identify.ask(file, tool, known) == []
    assert "No face was found" in identify.in_words([], tool, known)
    image = identify.shown(file, [])
    assert isinstance(image, Image.Image) and image.size == (480, 400)


def test_several_faces(place, tool, known):
    both = np.concatenate([portrait(1), portrait(3)], axis=1)
    file = save(both, place / "both.png")
    faces = identify.ask(file, tool._replace(threshold=0.5), known)
    assert len(faces) == 2
    assert {face.closest[0][0] for face in faces} == {"Person 1", "Person 3"}
    said = identify.in_words(faces, tool, known)
    assert "2 faces were found" in said and "Face 1: " in said and "Face 2: " in said


def test_without_a_threshold_nothing_is_decided(place, tool, known):
    file = save(portrait(2), place / "two.png")
    plain = identify.load(PACK)
    assert plain.threshold is None
    (face,) = identify.ask(file, plain, known)
    assert face.known is None
    assert "no calibrated threshold" in identify.in_words([face], plain, known)


def test_what_is_not_possible_is_handed_on(place, tool, known):
    reason = NotPossible("too few")
    assert identify.in_words([], reason, known) == "not possible: too few"
    assert identify.shown(place / "two.png", reason) is reason
    faces = pd.DataFrame({"identity": ["a", "a"], "split": ["val", "val"]})
    with pytest.raises(NotPossible, match="nobody is known"):
        identify.gallery_of(np.eye(2, dtype=np.float32), faces)


def test_bad_photos_and_galleries_are_one_sentence(place, tool, known):
    with pytest.raises(FileNotFoundError, match=r"there is no photo .*gone"):
        identify.ask(place / "gone.jpg", tool, known)
    (place / "text.jpg").write_text("hello", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text\.jpg can't be read as a photo: the content"):
        identify.ask(place / "text.jpg", tool, known)
    other = identify.Gallery(("x",), np.ones((1, 3), np.float32))
    with pytest.raises(ValueError, match="embeddings of 3 numbers"):
        identify.ask(save(portrait(2), place / "two.png"), tool, other)


def test_boxes_are_drawn_in_the_colour_of_the_answer(place):
    photo = np.full((600, 600, 3), 255, np.uint8)
    for known, colour in ((True, (30, 140, 60)), (False, (200, 40, 40)), (None, (60, 90, 200))):
        face = identify.Face((200.0, 300.0, 400.0, 500.0), (("Zoë", 0.5),), known)
        image = np.asarray(identify.drawn(photo, [face]))
        assert tuple(image[400, 200]) == colour and tuple(image[400, 300]) == (255, 255, 255)
    corner = identify.Face((-5.0, -5.0, 605.0, 605.0), (("a long name " * 9, 0.5),), True)
    assert identify.drawn(photo, [corner]).size == (600, 600)


def test_the_threshold_is_that_of_the_card(tmp_path):
    folder = tmp_path / "pack"
    folder.mkdir()
    for file in PACK.glob("*.onnx"):
        (folder / file.name).write_bytes(file.read_bytes())
    people = {"threshold": 0.61, "target_fpir": 0.01}
    pairs = {"threshold": 0.42, "target_far": 0.001}
    for given, expected in (((people, pairs), 0.61), ((None, pairs), 0.42), ((None, None), None)):
        kept = {"people": given[0], "pairs": given[1], "known": 4}
        (folder / export.THRESHOLDS).write_text(json.dumps(kept), encoding="utf-8")
        tool = identify.load(folder)
        assert tool.threshold == expected
        assert tool.limit is None
    kept = {"people": people, "known": 4, "too_poor": {"length": 1.0, "smears_below": 0.95}}
    (folder / export.THRESHOLDS).write_text(json.dumps(kept), encoding="utf-8")
    assert identify.load(folder).limit == 1.0
    known = identify.Gallery(tuple(f"p{i}" for i in range(9)), np.eye(9, dtype=np.float32))
    face = identify.Face((0, 0, 1, 1), (("p0", 0.9),), True)
    (folder / export.THRESHOLDS).write_text(json.dumps({"people": people, "known": 4}), encoding="utf-8")
    assert "With 9 people known, more strangers are taken for somebody than with 4." in identify.in_words(
        [face], identify.load(folder), known
    )


def test_a_photo_against_ten_thousand_people_is_quick(place, tool):
    rng = np.random.default_rng(0)
    size = tool.pack.recognise(np.zeros((1, 112, 112, 3), np.uint8)).shape[1]
    templates = rng.normal(size=(10_000, size)).astype(np.float32)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    known = identify.Gallery(tuple(f"person {i}" for i in range(10_000)), templates)
    file = save(portrait(2, side=640), place / "large.png")
    identify.ask(file, tool, known)
    start = time.perf_counter()
    (face,) = identify.ask(file, tool, known)
    assert time.perf_counter() - start < 0.5 and len(face.closest) == identify.MOST


def test_an_example_is_a_test_photo(tmp_path):
    faces = pd.DataFrame(
        {
            "path": ["a/1.png", "a/2.png", "b/1.png"],
            "split": ["train", "test_seen", "test_seen"],
            "found": ["160", "160", "whole photo"],
            "eye_distance": [50.0, 20.0, np.nan],
        }
    )
    assert identify.example(faces, tmp_path) == tmp_path / "a/2.png"
    assert identify.example(faces.assign(split="train"), tmp_path) == tmp_path / "a/1.png"
    assert identify.example(faces, tmp_path, "/some/photo.jpg").as_posix() == "/some/photo.jpg"


def test_from_a_shell(place, tmp_path, capsys, monkeypatch):
    pack = shutil.copytree(PACK, tmp_path / "packs" / "mine")
    file = save(portrait(2), place / "two.png")
    out = tmp_path / "answer.jpg"
    words = ["src", "identify", str(file), "--pack", str(pack), "--gallery", str(place / "known")]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(out)])
    assert runner.main() == 0
    said = capsys.readouterr().out
    assert "closest is Person 2" in said and f"Drawn: {out}" in said and "computed" in said
    assert max(Image.open(out).size) == 480
    monkeypatch.setattr(sys, "argv", words)
    assert runner.main() == 0
    assert "computed" not in capsys.readouterr().out
    assert (tmp_path / "packs" / "identified" / "two.png").is_file()
    monkeypatch.setattr(sys, "argv", ["src", "identify", "gone.jpg"])
    assert runner.main() == 1
    assert capsys.readouterr().err == "\nthere is no photo gone.jpg\n"


def test_a_pack_for_another_program_from_a_shell(tmp_path, capsys, monkeypatch):
    words = ["src", "convert", "frigate", "--pack", str(PACK), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    assert runner.main() == 0
    assert (tmp_path / "facedet" / "arcface.onnx").is_file()
    assert "Written: " in capsys.readouterr().out
