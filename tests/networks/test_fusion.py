import numpy as np
import pandas as pd
import pytest

from src.evaluation import verification
from src.networks import fusion, maps

PEOPLE, PHOTOS = 16, 60


def seen_by(rng: np.random.Generator, faces: pd.DataFrame, noise: dict[str, float]) -> np.ndarray:
    """Embeddings of a network that sees each kind of photo through so much noise."""
    means = rng.normal(size=(PEOPLE, 16))
    spread = faces["sees"].map(noise).to_numpy()
    rows = means[faces["who"]] + rng.normal(size=(len(faces), 16)) * spread[:, None]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def faces():
    """Eight people in training, five of val's own, three unseen; every second photo is bad."""
    who = np.repeat(np.arange(PEOPLE), PHOTOS)
    split = np.tile(["train"] * 30 + ["val"] * 12 + ["test_seen"] * 18, PEOPLE)
    split = np.where(who < 8, split, np.where(who < 13, "val", "test_unseen"))
    quality = np.where(np.arange(len(who)) % 2, "low", "high")
    table = pd.DataFrame({"identity": [f"person {i}" for i in who], "split": split, "quality": quality})
    return table.assign(who=who, sees=np.where(who < 8, quality, "others"))


def auc(rows, faces, split, quality=None):
    chosen = (faces["split"] == split).to_numpy()
    if quality:
        chosen &= (faces["quality"] == quality).to_numpy()
    return verification.auc(rows[chosen], faces["identity"].to_numpy()[chosen])


GOOD, WEAK, BLIND = (dict.fromkeys(("high", "low", "others"), noise) for noise in (0.8, 2.0, 100.0))


@pytest.mark.parametrize(
    "first, second",
    [
        (GOOD, BLIND),
        (WEAK, GOOD),
        (GOOD, WEAK),
        ({"high": 0.5, "low": 5.0, "others": 0.8}, {"high": 2.0, "low": 0.8, "others": 2.0}),
        ({"high": 2.0, "low": 2.0, "others": 5.0}, {"high": 1.0, "low": 1.0, "others": 0.8}),
    ],
    ids=["a blind second", "a weak first", "a weak second", "one for each quality", "a second for others"],
)
def test_two_networks_are_hardly_worse_than_the_better_of_them(faces, first, second):
    rng = np.random.default_rng(0)
    one, other = seen_by(rng, faces, first), seen_by(rng, faces, second)
    alone = [
        maps.apply(maps.fit_plda(one, faces), one),
        maps.apply(maps.fit_posterior(other, faces), other),
    ]
    fused = maps.apply(fusion.fit_fusion(one, other, faces), one, other)
    np.testing.assert_allclose(np.linalg.norm(fused, axis=1), 1, rtol=1e-5)
    for split in ("test_seen", "test_unseen"):
        best = max(auc(rows, faces, split) for rows in alone)
        assert auc(fused, faces, split) > best - 0.015, split


def test_each_has_its_say_where_it_is_good(faces):
    rng = np.random.default_rng(1)
    one = seen_by(rng, faces, {"high": 0.9, "low": 3.0, "others": 0.8})
    other = seen_by(rng, faces, {"high": 3.0, "low": 0.9, "others": 2.0})
    fitted = fusion.fit_fusion(one, other, faces)
    assert len(fitted.second.weight) == 2
    fused = maps.apply(fitted, one, other)
    alone = maps.apply(maps.fit_plda(one, faces), one), maps.apply(maps.fit_posterior(other, faces), other)
    assert auc(fused, faces, "test_seen") > max(auc(rows, faces, "test_seen") for rows in alone) + 0.02


def test_without_val_the_first_of_each_list_stays(faces):
    rng = np.random.default_rng(2)
    one = seen_by(rng, faces, GOOD)
    unchosen = faces.assign(split=faces["split"].replace("val", "test_seen"))
    second = fusion.fit_fusion(one, one, unchosen).second
    assert second.temper == fusion.TEMPERS[0] and second.share == fusion.SHARES[0]
    assert (second.weight == fusion.WEIGHTS[0]).all()


def test_who_it_is_is_not_chosen_on_people_whom_nobody_knows(faces):
    """A second that is good for strangers alone must not decide who of the known people a photo shows."""
    rng = np.random.default_rng(7)
    one = seen_by(rng, faces, GOOD)
    other = seen_by(rng, faces, {"high": 100.0, "low": 100.0, "others": 0.5})
    trained = faces["identity"].isin(faces.loc[faces["split"] == "train", "identity"])
    only_others = faces.assign(split=faces["split"].where(~((faces["split"] == "val") & trained), ""))
    fitted = fusion.fit_fusion(one, other, only_others)
    assert fitted.second.temper == fusion.TEMPERS[0] and (fitted.second.weight == fusion.WEIGHTS[0]).all()
    assert fitted.second.share > 0
    alone, fused = maps.apply(maps.fit_plda(one, faces), one), maps.apply(fitted, one, other)
    assert auc(fused, faces, "test_seen") > auc(alone, faces, "test_seen") - 0.05
    assert auc(fused, faces, "test_unseen") > auc(alone, faces, "test_unseen")


def test_a_few_people_in_val_choose_nothing(faces):
    rng = np.random.default_rng(8)
    one, other = seen_by(rng, faces, WEAK), seen_by(rng, faces, GOOD)
    few = (faces["split"] == "val") & ~faces["who"].isin([0, 1, 8, 9])
    second = fusion.fit_fusion(one, other, faces.assign(split=faces["split"].where(~few, ""))).second
    assert second.temper == fusion.TEMPERS[0] and (second.weight == fusion.WEIGHTS[0]).all()
    assert second.share == fusion.SHARES[0]


def test_tests_have_no_say(faces):
    one, other = (seen_by(np.random.default_rng(seed), faces, GOOD) for seed in (3, 4))
    relabelled = faces["identity"].where(~faces["split"].str.startswith("test"), "x")
    fitted = [fusion.fit_fusion(one, other, table) for table in (faces, faces.assign(identity=relabelled))]
    states = [part.state_dict() for part in fitted]
    assert all((states[0][name] == states[1][name]).all() for name in states[0])


def test_it_comes_back_from_its_tensors_and_works_in_single_precision(faces):
    one, other = (seen_by(np.random.default_rng(seed), faces, WEAK) for seed in (5, 6))
    fitted = fusion.fit_fusion(one, other, faces)
    mapped = maps.apply(fitted, one, other)
    again = fusion.rebuild("PosteriorFusion", fitted.state_dict())
    assert np.array_equal(maps.apply(again, one, other), mapped)
    single = maps.apply(fitted.float(), one, other)
    assert (mapped * single).sum(1).min() > 0.9999
