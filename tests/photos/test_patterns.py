"""A pattern of the user's says who is who, or says what is wrong with it."""

import pytest

from src.photos import patterns


@pytest.mark.parametrize(
    ("people", "path", "person"),
    [
        ("{identity}/*", "anna/1.jpg", "anna"),
        ("{identity}/*", "anna/hq/1.jpg", "anna"),
        ("{identity}/**", "anna/hq/1.jpg", "anna"),
        ("*/{identity}/**", "train/anna/1.jpg", "anna"),
        ("**/{identity}/frontal/*", "a/b/001/frontal/1.jpg", "001"),
        ("**/{identity}/frontal/*", "001/frontal/1.jpg", "001"),
        ("{identity}_*", "001_cam1_1.jpg", "001"),
        ("{identity}_*", "cam1/d2/001_cam1_1.jpg", "001"),
        ("{identity}_#.*", "Aaron_Eckhart_0001.jpg", "Aaron_Eckhart"),
        ("img-{identity}-#.jpg", "x/IMG-anna meier-12.JPG", "anna meier"),
        ("./Images\\{identity}/*", "images/Rene\u0301/1.jpg", "Ren\u00e9"),
        ("{identity}_*/**", "001_E_1/frame 1.jpg", "001"),
        ("({identity})/*", "(anna)/1.jpg", "anna"),
    ],
)
def test_the_person_is_what_the_pattern_says(people, path, person):
    assert patterns.read([path], people).identity == [person]


def test_quality_split_and_group_are_kept():
    paths = ["train/low/anna/s1_1.jpg", "test/HQ/anna/s2_1.jpg", "test/unknown/ben/s1_1.jpg"]
    layout = patterns.read(paths, "{split}/{quality}/{identity}/{group}_*")
    assert layout.identity == ["anna", "anna", "ben"]
    assert layout.quality == ["low", "high", "unknown"]
    assert layout.split == ["train", "test_seen", "test_unseen"]
    assert layout.group == ["s1", "s2", "s1"]
    assert layout.lines == [
        'people = "{split}/{quality}/{identity}/{group}_*": 2 people found, as '
        "'train/low/anna/s1_1.jpg' is 'anna'."
    ]


def test_a_quality_does_not_take_what_is_the_persons():
    paths = ["anna_meier_low_quality/1.jpg", "anna_hq/1.jpg", "low quality (CCTV)/1.jpg"]
    layout = patterns.read(paths, "{identity}_{quality}/**")
    assert layout.identity == ["anna_meier", "anna", ""]
    assert layout.quality == ["low", "high", "low"]
    assert patterns.read(["low quality (CCTV)/anna/1.jpg"], "{quality}/{identity}/*").quality == ["low"]


def test_quality_is_that_of_the_folders_where_the_pattern_has_none():
    layout = patterns.read(["train/anna/hq/1.jpg", "lq/hq/2.jpg"], "*/{identity}/**")
    assert layout.quality == ["high", "low"]


def test_photos_that_do_not_fit_are_of_nobody_and_counted():
    layout = patterns.read(["anna_1.jpg", "overview.jpg", "list.txt"], "{identity}_*")
    assert layout.identity == ["anna", "", ""] and layout.split == [""] * 3
    assert layout.lines[1] == "1 file is in no person's folder, such as 'overview.jpg', and not used."


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ("{id}/*", r"\{id\} is not known; there are \{identity\}, \{quality\}, \{split\}, \{group\}"),
        ("anna/*", r"must say \{identity\}"),
        ("{identity}/{identity}_*", "each such name once only"),
        ("{identity}*", "a character that tells where it ends"),
        ("{identity}{quality}/*", "a character that tells where it ends"),
        ("*/{identity}", r'whole name for the person: write "\*/\{identity\}/\*\*"'),
        ("{identity}/x/*", "fits none of the 2 photos, such as 'train/anna/1.jpg'"),
        ("{quality}/{identity}/*", "finds the quality 'train', but there is only high or low"),
        ("*/{split}/{identity}", "whole name"),
        ("{identity}/{split}/*", "finds the split 'anna', but there is only train, val, test"),
    ],
)
def test_a_pattern_that_can_not_be_is_one_sentence(people, message):
    with pytest.raises(ValueError, match=message) as caught:
        patterns.read(["train/anna/1.jpg", "train/ben/1.jpg"], people)
    assert "\n" not in str(caught.value)
