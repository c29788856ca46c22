"""Names tie photos that belong together, and never those that are merely numbered."""

import numpy as np
import pandas as pd
import pytest

from src.photos import series

PEOPLE = "ann", "bob", "cem"


def read(names: list[str], people=PEOPLE) -> dict[str, list[set[str]]]:
    """What is tied among photos so called, of the first person; everybody has the same names."""
    rows = [(f"{who}/{name}", who) for who in people for name in names]
    images = pd.DataFrame(rows, columns=["path", "identity"])
    found = {}
    for reading in series.readings(images):
        mine = images.assign(key=reading.key)[images["identity"] == people[0]]
        tied = mine[mine["key"] != ""].groupby("key")["path"].agg(lambda paths: {p[4:] for p in paths})
        if len(tied):
            found[reading.what] = sorted(tied, key=sorted)
    return found


NUMBERED = {
    "lfw": [f"Aaron_Eckhart_{i:04d}.jpg" for i in range(1, 11)],
    "frmdb": [f"high_quality/Img_{x}{y}.jpg" for x in range(7) for y in range(1, 5)],
    "cfp": [f"frontal_{i:02d}.jpg" for i in range(1, 11)] + [f"profile_{i:02d}.jpg" for i in range(1, 5)],
    "study6": [f"low_quality/Deepika_Padukone.{i}.jpg" for i in (69, 72, 729, 73, 74, 76, 78, 801, 80)],
    "digests": ["05aecc2317.jpg", "18da34e183.jpg", "25eb08fba4.jpg", "31fa048b9e.jpg"],
    "numbers": [f"{i:06d}.jpg" for i in range(1, 20)],
    "celeba": [f"{i:06d}.jpg" for i in (2881, 10321, 10322, 99811, 151002)],
    "the person's number first": [f"0012_{i:02d}.jpg" for i in range(1, 20)],
    "a camera's photos": [f"IMG_{i}.jpg" for i in range(1201, 1240)],
    "multi-pie": [f"001_01_0{r}_{c:02d}1_0{i}.png" for r in (1, 2) for c in (4, 5) for i in range(4)],
    "years": ["2019/a.jpg", "2019/b.jpg", "2020/a.jpg", "2020/b.jpg"],
    "cameras": [f"cam{c}/{i:03d}.jpg" for c in (1, 2, 3) for i in range(5)],
    "poses": ["left/1.jpg", "left/2.jpg", "right/1.jpg", "right/2.jpg"],
}


@pytest.mark.parametrize("names", NUMBERED.values(), ids=NUMBERED)
def test_names_that_merely_count_tie_nothing(names):
    assert read(names) == {}


@pytest.mark.parametrize("name", ["lfw3d", "frmdb", "cfp300", "study6"])
def test_real_sets_whose_names_tie_nothing(real, name):
    folder = real / name / "images"
    paths = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.*"))
    images = pd.DataFrame({"path": paths, "identity": [path.split("/")[0] for path in paths]})
    for reading in series.readings(images):
        assert (reading.key == "").all(), (reading.what, images["path"][reading.key != ""].head().tolist())


def test_a_burst_is_one_shot_and_its_numbers():
    names = ["IMG_1234_1.jpg", "IMG_1234_2.jpg", "IMG_1235.jpg", "IMG_1301_1.jpg", "IMG_1301_2.jpg"]
    assert read(names) == {"one burst": [set(names[:2]), set(names[3:])]}
    names = ["IMG_20200131_101500.jpg", "IMG_20200131_101501.jpg", "IMG_20200131_101622.jpg"]
    assert read(names) == {"one burst": [set(names[:2])]}
    names = ["00000IMG_00000_BURST20200131101500123_COVER.jpg", "00001IMG_00001_BURST20200131101500123.jpg"]
    assert read([*names, "IMG_20200301_101500.jpg"]) == {"one burst": [set(names)]}


def test_a_video_is_the_clip_that_is_named():
    clips = [[f"clip{c}_{i:06d}.jpg" for i in range(0, 50, 10)] for c in (1, 2, 3)]
    assert read([name for clip in clips for name in clip]) == {"one video": [set(clip) for clip in clips]}


def test_frames_of_clips_without_names_are_told_apart_by_gaps_in_their_numbers():
    clips = [[f"clip_{i:06d}.jpg" for i in range(start, start + 20)] for start in (123, 4000, 9155)]
    assert read([name for clip in clips for name in clip]) == {"one video": [set(clip) for clip in clips]}


def test_frames_of_several_prefixes_are_clips_where_the_numbers_are_frames():
    clips = [[f"{word}_{i:06d}.jpg" for i in range(123, 143)] for word in ("lobby_a", "walk", "zoo")]
    assert read([name for clip in clips for name in clip]) == {"one video": [set(clip) for clip in clips]}


def test_a_session_folder_holds_one_session():
    names = [f"high_quality/session{s}/{i}.jpg" for s in (1, 2, 3) for i in range(3)]
    assert read(names) == {"one session folder": [set(names[i : i + 3]) for i in (0, 3, 6)]}
    days = [f"2020-01-{day}/{i}.jpg" for day in (10, 11) for i in range(3)]
    assert read(days) == {"one session folder": [set(days[:3]), set(days[3:])]}


def test_faces_cut_from_one_picture_share_its_number():
    names = ["0014_01.jpg", "0014_02.jpg", "0231_01.jpg", "0402_01.jpg", "0402_02.jpg"]
    assert read(names) == {"one source picture": [set(names[:2]), set(names[3:])]}


def test_keys_hold_for_one_person():
    images = pd.DataFrame({"path": ["a/IMG_1234_1.jpg", "b/IMG_1234_2.jpg"], "identity": ["a", "b"]})
    assert all((np.asarray(reading.key) == "").all() for reading in series.readings(images))
