"""Splits: nothing leaks, nothing is lost, nothing depends on the order of rows."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.photos import splitting
from src.photos.splitting import SPLITS
from tests.photos.samples import cleaned_table


def plain(people, high=8, low=8):
    return cleaned_table({f"p{i:02}": {"high": [1] * high, "low": [1] * low} for i in range(people)})


def members(images, name):
    return set(images.loc[images["split"] == name, "identity"])


group_sizes = st.lists(st.integers(1, 9), max_size=7)
worlds = st.dictionaries(
    st.sampled_from([f"p{i:02}" for i in range(18)]),
    st.fixed_dictionaries({"high": group_sizes, "low": group_sizes}),
    min_size=2,
)


def try_split(images, **options):
    """The split, or None where the set is refused with a sentence."""
    try:
        return splitting.split(images, **options)
    except ValueError as error:
        assert str(error).endswith(".") and len(str(error)) > 40
        return None


@settings(max_examples=80, deadline=None)
@given(worlds, st.sampled_from([0, 0.2, 0.3, 0.6, 0.95]), st.integers(0, 99), st.data())
def test_no_leak_nothing_lost_whatever_the_set(world, share, seed, data):
    images = cleaned_table(world, set_aside=["p00", "nobody"])
    if data.draw(st.booleans(), "two people share a group"):
        used = images.index[images["status"] == "ok"]
        if len(used) > 1:
            images.loc[used[-1], "group"] = images.loc[used[0], "group"]
    result = try_split(images, unseen_share=share, seed=seed)
    if result is None:
        return
    ok = result["status"] == "ok"
    pd.testing.assert_frame_equal(result[images.columns], images)
    assert set(result.loc[ok, "split"]) <= set(SPLITS)
    assert (result.loc[~ok, "split"] == "").all() and (result.loc[~ok, "split_note"] == "").all()

    assert not result.loc[ok, ["group", "split"]].drop_duplicates()["group"].duplicated().any()
    unseen, train, val = (members(result, name) for name in ("test_unseen", "train", "val"))
    assert not unseen & (train | val | members(result, "test_seen"))
    assert members(result, "test_seen") <= train
    if val - train:  # of people in training, val then takes photos of those who have many
        groups = result[ok].groupby("identity")["group"].nunique()
        assert all(groups[name] >= splitting.FEW_PHOTOS for name in val & train)
    if not train:  # too few for anything but to test the pack as it is
        assert len(unseen) == len(set(result.loc[ok, "identity"]))
        assert result.loc[ok, "split_note"].str.startswith("nothing to train on").all()
        return
    assert len(train) >= 2
    assert (splitting.audit(result)["leak"] == "").all()

    for name in ("test_seen", "test_unseen"):
        test = result[result["split"] == name]
        if len(test):
            assert test["identity"].nunique() >= 2  # impostor pairs
            assert (
                test.groupby("identity")["group"].nunique().max() >= 2
            )  # a genuine pair that is no near-copy
        else:
            assert result["split_note"].str.contains(f"no {name}").any()
    if share == 0:
        assert not unseen and val <= train and train == set(result.loc[ok, "identity"])


@settings(max_examples=30, deadline=None)
@given(worlds, st.randoms(use_true_random=False), st.integers(0, 9))
def test_order_of_rows_numbering_of_groups_and_set_aside_files_change_nothing(world, random, seed):
    images = cleaned_table(world)
    result = try_split(images, seed=seed)
    order = list(images.index)
    random.shuffle(order)
    other = cleaned_table(world, set_aside=["p00", "p01", "somebody"])
    shuffled = images.loc[order].assign(group=1000 - images["group"])
    for variant in (shuffled, other):
        again = try_split(variant, seed=seed)
        assert (again is None) == (result is None)
        if result is not None and again is not None:
            columns = ["split", "split_note"]
            expected = result.set_index("path")[columns]
            pd.testing.assert_frame_equal(again.set_index("path")[columns].loc[expected.index], expected)


def test_the_split_is_the_same_on_every_machine_and_differs_by_seed():
    assert splitting._rank(0, "p01") == 3377133037318385923  # computed once, elsewhere
    seeds = [tuple(sorted(members(splitting.split(plain(20), seed=s), "test_unseen"))) for s in range(8)]
    assert len(set(seeds)) > 4


def test_unicode_spelling_of_a_name_does_not_matter():
    spelt = [
        plain(14).replace({"p03": name}).assign(path=lambda t: t["identity"] + t["path"].str[3:])
        for name in ("Ren\u00e9e", "Rene\u0301e")
    ]
    one, two = (splitting.split(images) for images in spelt)
    assert sorted(zip(one["path"].str[-8:], one["split"], strict=True)) == sorted(
        zip(two["path"].str[-8:], two["split"], strict=True)
    )


@pytest.mark.parametrize("people", [12, 20, 40, 100])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_shares_are_kept(people, share):
    images = splitting.split(plain(people, high=20, low=12), unseen_share=share)
    assert len(members(images, "test_unseen")) == max(2, round(share * people))
    val, train = members(images, "val"), members(images, "train")
    assert abs(len(val - train) - 0.15 * people) <= 1
    enough = len(train) >= splitting.FEW_WITH_MANY
    assert train <= val if enough else not train & val, "val asks of people in training, too"
    seen = images[images["identity"].isin(members(images, "train"))]
    for _, mine in seen.groupby(["identity", "quality"]):
        assert abs((mine["split"] == "test_seen").sum() - 0.25 * len(mine)) <= 1
        assert 2 * enough <= (mine["split"] == "val").sum() <= 0.2 * len(mine)
    assert (images["split_note"] == "").all()


def test_people_with_few_photos_keep_them_for_training_where_val_has_its_own():
    images = splitting.split(plain(20, high=6, low=3))
    assert members(images, "val") and not members(images, "val") & members(images, "train")


@pytest.mark.parametrize("people", [4, 6, 8, 11])
def test_few_people_still_give_an_unseen_test_and_validate_on_photos(people):
    images = splitting.split(plain(people))
    assert len(members(images, "test_unseen")) == max(2, round(0.3 * people))
    assert members(images, "val") == members(images, "train") == members(images, "test_seen")
    assert splitting.notes(images)["note"].tolist() == [
        "other photos of people in training: fewer than 12 people could be kept apart"
    ]
    for _, mine in images[images["split"] != "test_unseen"].groupby(["identity", "quality"]):
        counts = mine["split"].value_counts()
        assert (counts[["train", "val", "test_seen"]] >= 2).all()


@pytest.mark.parametrize("people", [2, 3])
def test_too_few_people_for_an_unseen_test_is_stated(people):
    images = splitting.split(plain(people))
    assert not members(images, "test_unseen") and len(members(images, "test_seen")) == people
    assert splitting.notes(images)["note"].str.contains("no test_unseen: it needs 4 people").any()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (plain(1), "one person, 'p00'"),
        (cleaned_table({f"p{i}": {"high": [1]} for i in range(9)}), "Nobody has two different photos"),
        (cleaned_table({f"p{i}": {"high": [30]} for i in range(9)}), "Nobody has two different photos"),
        (cleaned_table({}, set_aside=["a", "b"]), "No photo is usable"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_a_sentence(images, message):
    with pytest.raises(ValueError, match=message):
        splitting.split(images)


@pytest.mark.parametrize(
    "options", [{"unseen_share": 1}, {"unseen_share": -0.1}, {"seen_share": 0.6, "val_share": 0.5}]
)
def test_impossible_shares_are_refused(options):
    with pytest.raises(ValueError, match="share"):
        splitting.split(plain(8), **options)


@pytest.mark.parametrize(("option", "name"), [("seen_share", "test_seen"), ("val_share", "val")])
@pytest.mark.parametrize("people", [8, 20])
def test_a_share_of_zero_leaves_that_split_out_and_says_so(option, name, people):
    images = splitting.split(plain(people), **{option: 0})  # type: ignore[arg-type]
    assert not members(images, name)
    assert splitting.notes(images)["note"].str.contains(f"no {name}: {option} is 0").any()


def test_people_with_too_few_photos_are_trained_on_and_noted():
    images = splitting.split(
        cleaned_table(
            {f"p{i:02}": {"high": [1] * 8} for i in range(10)}
            | {
                "single": {"low": [1]},
                "burst": {"high": [40]},
            }
        )
    )
    for name in ("single", "burst"):
        mine = images[images["identity"] == name]
        assert set(mine["split"]) == {"train"}
        assert mine["split_note"].str.contains("too few different photos").all()


def test_a_group_under_two_people_is_never_tested():
    for seed in range(6):
        images = plain(12)
        linked = [images.index[images["identity"] == name][0] for name in ("p02", "p05")]
        images.loc[linked, "group"] = 10_000
        images = splitting.split(images, seed=seed)
        assert (images.loc[linked, "split"] == "train").all()
        assert images.loc[linked, "split_note"].str.contains("filed under another person").all()
        assert {"p02", "p05"} <= members(images, "test_seen")


def test_people_are_drawn_from_all_strata():
    """Bad photos, and people with many, are in both tests."""
    world = {f"p{i:02}": {"high": [1] * (40 if i < 10 else 6), "low": [1] * 6 * (i % 2)} for i in range(40)}
    for seed in range(5):
        images = splitting.split(cleaned_table(world), seed=seed)
        mine = images[images["split"] == "test_unseen"].groupby("identity")
        assert 5 <= (mine["quality"].nunique() == 2).sum() <= 7  # 6 would be exact
        assert 2 <= (mine.size() >= 40).sum() <= 4  # 3 would be exact


def test_scarce_bad_photos_reach_both_train_and_test():
    images = splitting.split(cleaned_table({f"p{i}": {"high": [1] * 28, "low": [1] * 5} for i in range(8)}))
    seen = images[images["split"] != "test_unseen"]
    counts = pd.crosstab(seen["identity"], [seen["quality"], seen["split"]])
    assert (counts["low", "test_seen"] == 2).all() and (counts["low", "train"] >= 2).all()
    assert (counts["high", "test_seen"] == 7).all()  # not held back by bad photos above their share


def test_one_huge_scene_is_trained_on_and_not_the_test():
    images = splitting.split(
        cleaned_table({f"p{i}": {"high": [300, 200, 20, 15, 10, 5, 5], "low": [1] * 20} for i in range(8)})
    )
    seen = images[images["split"] == "test_seen"]
    assert seen.groupby("group").size().max() <= 20
    assert seen.groupby("identity")["group"].nunique().min() >= 6


def test_summary_adds_up():
    images = splitting.split(
        cleaned_table({f"p{i:02}": {"high": [1] * 9, "low": [2] * 5} for i in range(15)}, ["p01"])
    )
    counts = splitting.summary(images)
    assert counts["all", "photos"].sum() == (images["status"] == "ok").sum()
    assert (counts["high", "photos"] + counts["low", "photos"] == counts["all", "photos"]).all()
    assert counts.loc["test_unseen", ("low", "people")] == len(members(images, "test_unseen"))


# ---------------------------------------------------------------- audit


def test_the_audit_sees_planted_leaks():
    images = splitting.split(plain(14))
    train, unseen = (images.index[images["split"] == name] for name in ("train", "test_unseen"))

    def leaks(changed):
        found = splitting.audit(changed).set_index("splits")["leak"]
        return found[found != ""].to_dict()

    assert leaks(images) == {}
    for column, name in (("identity", "people"), ("group", "groups"), ("sha256", "photos")):
        changed = images.copy()
        changed.loc[unseen[0], column] = changed.loc[train[0], column]
        expected = {"train - test_unseen": name}
        if column == "identity":  # the person has photos in test_seen and val as well
            expected |= {"test_seen - test_unseen": name, "val - test_unseen": name}
        assert leaks(changed) == expected


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SPLITS), st.integers(0, 2**64 - 1)), min_size=1, max_size=30))
def test_nearest_distance_is_exact(photos):
    images = pd.DataFrame(photos, columns=["split", "hash"])
    images["phash"] = images["hash"].map("{:016x}".format)
    images["path"] = images["identity"] = images["sha256"] = images.index.astype(str)
    images["group"] = images.index
    audit = splitting.audit(images).set_index("splits")
    for a, b in combinations(SPLITS, 2):
        distances = [int(x ^ y).bit_count() for s, x in photos for t, y in photos if s == a and t == b]
        row = audit.loc[a + " - " + b]
        if not distances:
            assert row["distance"] is pd.NA
            continue
        assert row["distance"] == min(distances)
        one, two = int(str(row["photo"])), int(str(row["other"]))
        assert photos[one][0] == a and photos[two][0] == b
        assert (photos[one][1] ^ photos[two][1]).bit_count() == min(distances)


def test_nearest_distance_of_many_photos_stays_small_in_memory():
    rng = np.random.default_rng(0)
    images = pd.DataFrame({"phash": [f"{x:016x}" for x in rng.integers(0, 2**63, 6000)], "path": ""})
    assert 0 < splitting._nearest(images[:3000], images[3000:])["distance"] < 16  # type: ignore[operator]
