"""Who is who from the folders of well-known sets and of people's own, on small trees of paths."""

import itertools
import random

import pytest

from src.photos import layouts

PEOPLE = ["anna", "ben", "carl"]


def photos(*folders):
    """Two photos in each folder of a tree: every combination of the names of each level."""
    return ["/".join(parts) for parts in itertools.product(*folders, ["1.jpg", "2.jpg"])]


def people_of(paths):
    """{identity: set of its paths}, nobody aside."""
    found: dict[str, set[str]] = {}
    for path, person in zip(paths, layouts.understand(paths).identity, strict=True):
        if person:
            found.setdefault(person, set()).add(path)
    return found


def by_part(paths, place):
    """What `people_of` gives where one part of the paths is the person."""
    found: dict[str, set[str]] = {}
    for path in paths:
        found.setdefault(path.split("/")[place], set()).add(path)
    return found


@pytest.mark.parametrize(
    ("paths", "place"),
    [
        (photos(PEOPLE), 0),
        (photos(PEOPLE, ["high_quality", "Low Quality"]), 0),
        (photos(PEOPLE, ["hq"], ["cam 1", "cam 2"]), 0),
        (photos(PEOPLE, ["2023", "2024"]), 0),
        (photos(["lfw"], ["Aaron_Eckhart", "George_W_Bush"]), 1),
        (photos(["lfw-deepfunneled"], ["lfw-deepfunneled"], ["Aaron_Eckhart", "George_W_Bush"]), 2),
        (photos(["VGGFace2"], ["train", "test"], ["n000001", "n000002"]), 2),
        (photos(["train", "test"], ["n000001", "n000002"]), 1),
        (photos(["CASIA-WebFace"], ["0000045", "0000099"]), 1),
        (photos(["0000045", "0000099"]), 0),
        (photos(["Images"], ["001", "002"], ["frontal", "profile"]), 1),
        (photos(["cfp-dataset"], ["Data"], ["Images"], ["001", "002"], ["frontal", "profile"]), 3),
        (photos(["P1E_S1_C1", "P1L_S2_C2", "P2E_S1_C1.1"], ["0001", "0002"]), 1),
        (photos(["P1E_S1"], ["P1E_S1_C1", "P1E_S1_C2"], ["0001", "0002"]), 2),
        (photos(["colorferet"], ["dvd1", "dvd2"], ["data"], ["images"], ["00001", "00002"]), 4),
        (photos(["YouTubeFaces"], ["frame_images_DB"], ["Aaron", "Bea"], ["0", "1"]), 2),
        (photos(["s1", "s2", "s40"]), 0),  # ORL
        (photos(["s1", "s2"], ["smile", "neutral"]), 0),
        (photos(["train", "test", "val"], PEOPLE), 1),
        (photos(["train", "val", "test_seen", "test_unseen"], PEOPLE), 1),
        (photos(["images"], ["train", "test"], PEOPLE, ["hq", "lq"]), 2),
        (photos(["high_quality", "low_quality"], PEOPLE), 1),
        (photos(["HQ"], PEOPLE), 1),
        (photos(["session1", "session 2"], PEOPLE), 1),
        (photos(["cam1", "cam2"], ["001", "002"]), 1),
        (photos(["2024-01-31", "2024-02-01"], PEOPLE), 1),
        (photos(["2023", "2024"], ["January", "March"], PEOPLE), 2),
        (photos(["2M", "5M", "10M"], ["1", "2"]), 1),
        (photos(["men"], ["Bob", "Al"]), 1),
        (photos(["images"], PEOPLE), 1),
        (photos(["face1", "face2", "face10"]), 0),
        (photos([str(year) for year in range(2001, 2041)]), 0),
    ],
)
def test_one_level_of_folders_is_the_people(paths, place):
    assert people_of(paths) == by_part(paths, place)


SCFACE = [f"{i:03d}_cam{c}_{d}.jpg" for i in (1, 2, 130) for c in (1, 5) for d in (1, 2, 3)]


@pytest.mark.parametrize(
    ("paths", "people"),
    [
        ([*SCFACE, "001_frontal.jpg", "002_cam8.jpg", "130_L4.jpg"], {"001", "002", "130"}),
        (
            [f"surveillance_cameras_distance_{name[-5]}/cam_{name[7]}/{name}" for name in SCFACE]
            + [f"mugshot_frontal_cropped_all/{i}_frontal.JPG" for i in ("001", "002", "130")],
            {"001", "002", "130"},
        ),
        ([f"Gallery_Match/{i}_{j}.jpg" for i in (4, 17) for j in (1, 2)] + ["Probe/4_3.jpg"], {"4", "17"}),
        (
            [f"training_set/{i}/{i}_cam1_{j}.jpg" for i in (1, 2) for j in (1, 2)]
            + [f"Face_Identification_Test_Set/gallery/{i}_cam1_1.jpg" for i in (7, 8)]
            + [f"Face_Identification_Test_Set/mated_probe/{i}_cam2_1.jpg" for i in (7, 8)]
            + ["Face_Identification_Test_Set/unmated_probe/distractors_1.jpg"],
            {"1", "2", "7", "8"},
        ),
        (["00001_930831_fa_a.ppm", "00001_930831_fb.ppm", "00002_940928_hl.ppm", "00002_1.txt",
          "00002_930831_fa.ppm"], {"00001", "00002"}),
        ([f"{s}/{p}_{i}.jpg" for s in ("train", "test") for p in PEOPLE for i in (1, 2)], set(PEOPLE)),
    ],
)  # fmt: skip
def test_names_of_photos_say_who_is_who(paths, people):
    found = people_of(paths)
    assert set(found) == people
    for person, mine in found.items():
        assert all(path.split("/")[-1].startswith(person) or f"/{person}/" in path for path in mine)


def test_distractors_are_of_nobody_and_said_so():
    paths = [f"Testing_Set/Gallery_Match/{i}_{j}.jpg" for i in (4, 17) for j in (1, 2)]
    layout = layouts.understand([*paths, "Testing_Set/Gallery_Distractor/5.jpg"])
    assert layout.identity == ["4", "4", "17", "17", ""]
    assert "1 file is in no person's folder" in layout.lines[1]


def test_photos_without_a_person_beside_folders_of_people_are_left_out_and_said_so():
    """Kaggle's layout: people in train, loose photos in test."""
    paths = photos(["train"], PEOPLE)
    layout = layouts.understand([*paths, "test/0001.jpg", "test/0002.jpg"])
    assert layout.identity == [path.split("/")[1] for path in paths] + ["", ""]
    assert any(line.startswith("Photos in test are not used: ") for line in layout.lines)


def test_quality_comes_from_the_nearest_folder_above_or_below_the_person():
    paths = ["hq/anna/1.jpg", "hq/anna/low_res/2.jpg", "lq/ben/1.jpg", "lq/anna/3.jpg"]
    assert layouts.understand(paths).quality == ["high", "low", "low", "low"]
    mixed = ["hq/1.jpg", "anna/HR/1.jpg", "anna/HR/cam 1/2.jpg"]
    assert layouts.understand(mixed).quality == ["unknown", "high", "high"]


@pytest.mark.parametrize("odd", ["hq", "train", "Dev", "april", "cam1", "2024", "unknown", "images"])
def test_a_person_called_like_something_else_is_a_person_among_people(odd):
    layout = layouts.understand(photos([odd, "anna", "ben"]))
    assert set(layout.identity) == {odd, "anna", "ben"}
    assert any(repr(odd) in line and "counts as" in line for line in layout.lines[1:])


def test_a_person_of_such_a_name_in_every_split():
    paths = photos(["train"], ["anna", "Dev"]) + photos(["test"], ["Dev"])
    assert people_of(paths) == by_part(paths, 1)


def test_one_person_with_folders_of_their_own_is_one_person():
    for paths in (
        photos(["anna"]),
        photos(["anna"], ["hq", "lq"], ["cam 1"]),
        [*photos(["anna"], PEOPLE), "anna/x"],
    ):
        assert set(layouts.understand(paths).identity) - {""} == {"anna"}


def test_folders_of_any_depth_are_read_at_once():
    deep = "/".join(["x"] * 1500)
    assert layouts.understand([f"{deep}/1.jpg", "anna/1.jpg"]).identity == ["x", "anna"]
    assert layouts.understand([f"{deep}/anna/1.jpg", f"{deep}/ben/1.jpg"]).identity == ["anna", "ben"]


def test_photos_called_alike_in_each_persons_folder_change_nothing():
    paths = [f"{who}/{what}_{i}.jpg" for who in PEOPLE for what in ("beach", "party") for i in (1, 2)]
    layout = layouts.understand(paths)
    assert set(layout.identity) == set(PEOPLE) and len(layout.lines) == 1


def test_other_files_say_nothing_of_who_is_who():
    beside = ["cfp/Protocol/pairs.txt", "cfp/Data/Fiducials/001/frontal/01.txt", "cfp/README.md", "list.csv"]
    paths = photos(["cfp"], ["Data"], ["Images"], ["001", "002"], ["frontal"])
    layout = layouts.understand([*paths, *beside])
    assert layout.identity == [path.split("/")[3] for path in paths] + [""] * 4
    assert not any("no person's folder" in line for line in layout.lines)


def test_case_and_spaces_keep_people_apart_composed_and_decomposed_names_do_not():
    paths = photos(["train"], ["Anna", "Ren\u00e9"]) + photos(["test"], ["anna", "Rene\u0301"])
    layout = layouts.understand(paths)
    assert set(layout.identity) == {"Anna", "anna", "Ren\u00e9"}
    assert "Names that differ only in case or spaces are different people: 'Anna' and 'anna'." in layout.lines


@pytest.mark.parametrize(
    ("paths", "line"),
    [
        (photos(PEOPLE), "Each folder is a person: 3 people found."),
        (
            photos(["train", "test"], PEOPLE),
            "2 folders above the people (train, test) are not people: 3 people found, 3 of them, by the same "
            'name, in several of these folders. The photos are split anew; people = "{split}/{identity}/**" '
            "keeps their split.",
        ),
        (photos(["lfw"], PEOPLE), "1 folder above the people (lfw) is not a person: 3 people found."),
        (SCFACE, "The names of the photos say who is who, as '001_cam1_1.jpg' is '001': 3 people found."),
    ],
)
def test_what_was_understood_is_said(paths, line):
    assert layouts.understand(paths).lines == [line]


ODD = ["anna", "1", "0001", "ç é", "..x", "a.b", "$x$", "all", "nan", "Mr. O'Neil", "李明", "(x)", "%41",
       "s1", "n000001", "Anna May", "_", "-", "photo 1", "Rome", "none", "{identity}", "*", "#1", "x" * 200,
       "train", "High", "cam1", "2024-01-01", "test_1", "Dev", "🙂", "face1", "front"]  # fmt: skip


@pytest.mark.parametrize("seed", range(200))
def test_plain_folders_are_people_however_odd_their_names(seed):
    draw = random.Random(seed)
    people = ["zoe", *draw.sample(ODD, draw.randint(1, 12))]
    below = ["", "high_quality/", "Low Quality/", "hq/cam 1/", "2024/", f"{seed}/"]
    paths = [f"{person}/{draw.choice(below)}{i}.jpg" for person in people for i in range(4)]
    assert people_of(paths) == by_part(paths, 0)
