"""Where two readings are possible the message says both, and what to write for either."""

import re

import pytest

from src.photos import doubts, layouts, patterns
from src.photos.doubts import Unclear
from tests.photos.test_layouts import photos

ANNA_BEN = ["anna", "ben"]


@pytest.mark.parametrize(
    ("paths", "understood", "patterns_offered"),
    [
        (photos(["train", "test"]), "'test', 'train' are hardly people", {"{identity}/**", "{identity}_*"}),
        (photos(["hq"]), "'hq' are hardly people", {"{identity}/**", "{identity}_*"}),
        (photos(["2023", "2024"]), "'2023', '2024' are hardly people", {"{identity}/**", "{identity}_*"}),
        (photos(["data"], ["cam1", "cam2"]), "'cam1', 'cam2'", {"*/{identity}/**", "{identity}_*"}),
        (["1.jpg", "2.jpg"], "in no folders of people", {"{identity}_*"}),
        (
            photos(["train", "test"], ANNA_BEN) + photos(["extra"], ANNA_BEN),
            "'test', 'train' stand beside people and hold folders, too",
            {"{identity}/**"},
        ),
        (
            photos(["low_quality"], ANNA_BEN) + photos(ANNA_BEN),
            "'low_quality' stand beside people and hold folders that are beside, too ('anna', 'ben')",
            {"{identity}/**"},
        ),
        (
            photos(["cam1", "cam2"], ANNA_BEN) + photos(["overview"]),
            "'cam1', 'cam2' stand beside people and hold folders, too",
            {"{identity}/**"},
        ),
        (
            photos(["anna_high", "anna_low", "ben_high", "ben_low"]),
            "'anna_high', 'anna_low' may be parts of one person, 'anna'",
            {"{identity}/**", "{identity}_{quality}/**"},
        ),
        (
            photos(["Anna Meier-cam1", "Anna Meier-cam2", "Ben Lee-cam1", "Ben Lee-cam2"]),
            "may be parts of one person, 'Anna_Meier'",
            {"{identity}/**", "{identity}-cam#/**"},
        ),
        (
            photos(["S1", "S2"], ["anna", "ben", "carl"]),
            "'S1', 'S2' hold folders of the same names ('anna', 'ben', 'carl')",
            {"{identity}/**", "*/{identity}/**"},
        ),
        (
            photos(["House A", "House B"], [f"person {letter}x" for letter in "abcdefgh"]),
            "'House A', 'House B' hold folders of the same names",
            {"{identity}/**", "*/{identity}/**"},
        ),
        (photos(["men", "women"], ["001", "002"]), "'001', '002' are in 'men', 'women'", {"*/{identity}/**"}),
        (photos(["CASIA-WebFace", "LFW"], ["1", "2"]), "are in 'casiawebface', 'lfw'", {"*/{identity}/**"}),
        (
            [f"d{d}/{i:03d}_cam1_{d}.jpg" for i in (1, 2) for d in (1, 2, 3)],
            "photos in 'd1', 'd2', 'd3' are called after '001', '002'",
            {"{identity}/**", "{identity}_*"},
        ),
        (photos(["unknown"]), "called distractors or unknown", {"{identity}/**", "{identity}_*"}),
    ],
)
def test_what_is_not_clear_stops_with_both_readings(paths, understood, patterns_offered):
    with pytest.raises(Unclear) as caught:
        layouts.understand(paths)
    text = str(caught.value)
    assert understood in text and ".csv with the columns path and identity" in text
    offered = set(re.findall(r'people = "(.*?)"', text))
    assert offered == patterns_offered
    for pattern in offered - {"{identity}_*"}:  # every pattern that is offered can be written
        assert len(set(patterns.read(paths, pattern).identity)) > 1 or len(paths) == 2


def test_each_pattern_that_is_offered_gives_its_reading():
    paths = photos(["anna_high", "anna_meier_low"])
    layout = patterns.read(paths, "{identity}_{quality}/**")
    assert layout.identity == ["anna", "anna", "anna_meier", "anna_meier"]
    assert layout.quality == ["high", "high", "low", "low"]
    paths = photos(["Ben Lee-cam1", "Ben Lee-cam2"])
    assert set(patterns.read(paths, "{identity}-cam#/**").identity) == {"Ben Lee"}


def test_numbers_of_a_gallery_and_of_training_folders_may_be_of_others():
    """TinyFace numbers the people of its two halves; whether a number is one person can't be told."""
    test = [
        f"Testing_Set/{g}/{i}_{j}.jpg" for g in ("Gallery_Match", "Probe") for i in (1, 2) for j in (1, 2)
    ]
    with pytest.raises(Unclear, match=r"numbers they begin with \('2'\) may be of others"):
        layouts.understand([*test, "Training_Set/2/a.jpg", "Training_Set/9/a.jpg"])


def test_notes_on_what_else_folders_may_be():
    assert doubts.look({"anna": {"a", "b", "c"}, "ben": {"a", "b", "c"}}, {}, 1) == [
        "'anna', 'ben' hold folders of the same names ('a', 'b', 'c'): if those are the people, write "
        'people = "*/*/{identity}/**".'
    ]
    assert doubts.look({name: set() for name in ("001_E", "001_U", "002_E", "002_U")}, {}, 0) == [
        "All folders are called '001', '002' with 'E', 'U': if the first part is the person, write "
        'people = "{identity}_*/**".'
    ]
    names = [f"{who}_{i}" for who in ("ann", "bo", "cy", "di") for i in (1, 2)]
    called = {"Hof": names, "Diele": names}
    assert doubts.look({"Hof": set(), "Diele": set()}, called, 0) == [
        "Perhaps other people, as photos in 'Diele', 'Hof' are called after 'ann', 'bo', 'cy', 'di': if they "
        'are the people, write people = "{identity}_*" with what follows.'
    ]
    assert doubts.look({"Dev": set(), "anna": set()}, {}, 0) == [
        "'Dev' counts as a person, as other people stand beside."
    ]


def test_plain_folders_leave_no_doubt():
    assert (
        doubts.look({name: {"high_quality", "low", "cam 1"} for name in ("anna", "ben", "carl")}, {}, 0) == []
    )
    assert doubts.look({"anna": {"Rome"}, "ben": {"Paris"}, "carl": {"Rome"}}, {}, 0) == []
    assert doubts.look({f"s{i}": set() for i in range(1, 41)}, {}, 0) == []
