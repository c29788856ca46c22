"""What ties photos becomes one group, and what would leave a person untestable does not."""

import pandas as pd

from src.photos import grouping, splitting


def table(names: dict[str, list[str]]) -> pd.DataFrame:
    rows = [(f"{who}/{name}", who) for who, photos in names.items() for name in photos]
    images = pd.DataFrame(rows, columns=["path", "identity"])
    return images.assign(
        status="ok", quality="high", group=range(len(images)), sha256=images["path"], phash=""
    )


def ties(*pairs: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["path", "other"])


def plain(count: int) -> list[str]:
    return [f"x{chr(97 + i)}.jpg" for i in range(count)]


def test_pairs_of_ties_are_one_group_across_people_too_and_are_noted():
    images = table({"a": plain(4), "b": plain(4)})
    group, note = grouping.merged(images, ties(("a/xa.jpg", "a/xb.jpg"), ("a/xb.jpg", "b/xa.jpg")))
    assert group[0] == group[1] == group[4] and len(set(group)) == 6
    assert (note == grouping.BY_FACE).tolist() == [True, True, False, False, True, False, False, False]


def test_what_was_one_group_before_is_not_noted():
    images = table({"a": plain(4)}).assign(group=[0, 0, 1, 2])
    assert (grouping.merged(images, ties(("a/xa.jpg", "a/xb.jpg")))[1] == "").all()


def test_photos_that_are_set_aside_are_in_no_group_whatever_ties_them():
    images = table({"a": plain(4)}).assign(group=[-1, 0, 1, 2], status=["duplicate", "ok", "ok", "ok"])
    group, note = grouping.merged(images, ties(("a/xa.jpg", "a/xb.jpg")))
    assert group[0] == -1 and len(set(group[1:])) == 3 and (note == "").all()


def test_bursts_are_one_group_and_said_in_the_notes_of_the_split():
    burst = ["IMG_1001_1.jpg", "IMG_1001_2.jpg", "IMG_1001_3.jpg"]
    images = splitting.split(table(dict.fromkeys("abcdefgh", burst + plain(8))))
    for _, mine in images[images["path"].str.contains("1001")].groupby("identity"):
        assert len(set(mine["split"])) == len(set(mine["group"])) == 1
    said = splitting.notes(images)
    assert said.loc[said["note"].str.contains("one burst by the names"), "photos"].sum() == 24
    assert not splitting.audit(images)["leak"].any()


def test_names_that_would_leave_one_group_tie_nothing_and_that_is_said():
    names = [f"session1/{i}.jpg" for i in range(9)]
    images = splitting.split(table(dict.fromkeys("abcdefgh", names)))
    assert images["group"].nunique() == len(images)
    assert "test_seen" in set(images["split"])
    assert images["split_note"].str.contains("too few of them to train and to test").all()


def test_a_coarse_tie_that_is_dropped_leaves_a_finer_one():
    names = [f"session1/IMG_{shot}_{i}.jpg" for shot in range(1001, 1006) for i in (1, 2)]
    group, note = grouping.merged(table({"a": names}))
    assert len(set(group)) == 5 and note.str.contains("one burst").all()
