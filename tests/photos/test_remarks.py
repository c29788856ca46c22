"""What is said of photos without a person, of names hardly different, of qualities not understood."""

from src.photos import remarks


def test_the_nearest_folder_that_names_a_quality_counts_and_the_person_never():
    paths = ["hq/anna/1.jpg", "hq/anna/low res/2.jpg", "anna/1.jpg", "hq/1.jpg"]
    assert remarks.qualities(paths, [1, 1, 0, 0])[0] == ["high", "low", "unknown", "unknown"]


def test_near_misses_are_named_with_their_photos():
    paths = ["anna/medium_quality/1.jpg", "ben/medium_quality/2.jpg", "ben/good/3.jpg", "ben/session/4.jpg"]
    quality, said = remarks.qualities(paths, [0] * 4)
    assert quality == ["unknown"] * 4
    assert said == [
        "Ignored, as it is not clear which quality they name: 'medium_quality' (2 photos), 'good' (1 photo)."
    ]
    assert remarks.qualities(["anna/medium_quality/hq/1.jpg"], [0]) == (["high"], [])


def test_photos_of_nobody_are_counted_other_files_are_not():
    assert remarks.remarks(["1.jpg", "labels.csv", "anna/1.jpg"], ["", "", "anna"]) == [
        "1 file is in no person's folder, such as '1.jpg', and not used."
    ]


def test_names_that_differ_in_case_or_spaces_only():
    people = ["Anna", "anna ", "Anna_Meier", "anna meier", "ben", "1_1", "11"]
    (line,) = remarks.remarks([f"{name}/1.jpg" for name in people], people)
    assert line == (
        "Names that differ only in case or spaces are different people: 'Anna' and 'anna ', "
        "'Anna_Meier' and 'anna meier'."
    )


def test_a_person_called_unknown_is_pointed_out():
    (line,) = remarks.remarks(["anna/1.jpg", "unknown/1.jpg"], ["anna", "unknown"])
    assert "'unknown' counts as one person" in line
    assert not remarks.remarks(["unknown_2/1.jpg"], ["unknown_2"])


def test_counts_in_words():
    assert remarks.counted("a", "person") == "1 person"
    assert remarks.counted("ab", "person") == "2 people"
    assert remarks.counted("", "photo") == "0 photos"
    assert remarks.listed("abcdef") == "a, b, c, d and 2 more"
