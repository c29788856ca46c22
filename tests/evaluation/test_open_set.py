"""Strangers held against the people one knows, against what one would count by hand."""

import numpy as np
import pandas as pd
import pytest

from src.evaluation import open_set
from src.limits import NotPossible
from tests.evaluation.examples import unit_rows

KNOWN = ("ann", "bob", "cid", "dee")


def world(photos=60, own_val=True, seed=0):
    """Photos of four known people and of others, and probes of nobody, as far apart as chance has it."""
    rng = np.random.default_rng(seed)
    others = [f"other {i}" for i in range(30)]
    rows = [(name, split, i) for name in KNOWN for split in ("train", "val", "test_seen") for i in range(20)]
    splits = ("val", "test_unseen") if own_val else ("test_unseen",)
    rows += [
        (name, split, i) for k, split in enumerate(splits) for name in others[15 * k :][:15] for i in range(8)
    ]
    faces = pd.DataFrame(rows, columns=["identity", "split", "number"])
    faces["quality"] = np.where(faces["number"] % 2, "low", "high")
    centres = {name: rng.normal(size=32) for name in (*KNOWN, *others)}
    vectors = np.stack([centres[name] for name in faces["identity"]]) + rng.normal(size=(len(faces), 32))
    split = np.where(np.arange(2 * photos) % 2, "val", "test")
    probes = pd.DataFrame({"kind": "smears", "split": split, "identity": rng.choice(KNOWN, 2 * photos)})
    return unit_rows(vectors), faces, unit_rows(rng.normal(size=(2 * photos, 32))), probes


def by_hand(vectors, faces, rows):
    train = (faces["split"] == "train").to_numpy()
    names = faces["identity"].to_numpy()
    means = {name: vectors[train & (names == name)].astype(float).mean(0) for name in KNOWN}
    return pd.DataFrame({name: rows @ mean / np.linalg.norm(mean) for name, mean in means.items()})


def test_shares_are_those_of_a_count_by_hand():
    vectors, faces, others, probes = world()
    found = open_set.measure({"pack": vectors}, {"pack": others}, faces, probes, 0.05, 0.05)
    for row in found.to_dict("records"):
        rule, kind = str(row["rule"]), str(row["kind"])
        if kind == "smears":
            at = (probes["split"] == "test").to_numpy()
            taken = by_hand(vectors, faces, others[at]).max(axis=1) >= row["threshold"]
        else:
            quality = "high" if "good" in kind else "low"
            split = "test_seen" if kind.startswith("known") else "test_unseen"
            at = ((faces["split"] == split) & (faces["quality"] == quality)).to_numpy()
            scores = by_hand(vectors, faces, vectors[at])
            taken = scores.max(axis=1) >= row["threshold"]
            if split == "test_seen":
                taken &= scores.idxmax(axis=1) == faces["identity"].to_numpy()[at]
        assert row["photos"] == at.sum() and row["rate"] == pytest.approx(taken.mean()), (rule, kind)
        assert np.isnan(row["low"]) or row["low"] <= row["rate"] <= row["high"]
    assert (found["note"] == "").all()


def test_the_thresholds_keep_what_they_promise_on_val():
    vectors, faces, others, probes = world(photos=400)
    found = open_set.measure({"pack": vectors}, {"pack": others}, faces, probes, 0.01, 0.02)
    at = found.groupby("rule")["threshold"].first()
    val = (faces["split"] == "val").to_numpy()
    scores = by_hand(vectors, faces, vectors[val])
    own = np.array([[name == known for known in KNOWN] for name in faces["identity"][val]])
    assert (scores.to_numpy()[~own] >= at[open_set.PER_COMPARISON]).mean() <= 0.01
    stranger = ~own.any(1)
    smears = by_hand(vectors, faces, others[(probes["split"] == "val").to_numpy()]).max(axis=1)
    rates = [(part >= at[open_set.PER_PROBE]).mean() for part in (scores[stranger].max(axis=1), smears)]
    assert max(rates) <= 0.02 and max(rates) > 0  # neither above the target, nor far above all
    assert at[open_set.PER_PROBE] > at[open_set.PER_COMPARISON]


def test_a_model_that_sees_its_people_everywhere_is_found_out():
    vectors, faces, others, probes = world()
    blind = np.where((faces["split"] == "test_unseen").to_numpy()[:, None], vectors[:1], vectors)
    smears = np.where((probes["split"] == "test").to_numpy()[:, None], vectors[:1], others)
    models = {"pack": vectors, "blind": blind}
    found = open_set.measure(models, {"pack": others, "blind": smears}, faces, probes)
    taken = found[found["rule"] == open_set.PER_PROBE].set_index(["model", "kind"])["rate"]
    assert taken["blind", "smears"] == 1 and taken["blind", "strangers, bad photos"] == 1
    assert taken["pack", "smears"] < 0.1 and taken["pack", "strangers, bad photos"] < 0.1
    table = open_set.in_columns(found)
    assert str(table.loc["blind", "smears"]).startswith("100%") and list(table.index) == ["pack", "blind"]
    assert table.index.name == "model"


def test_a_longer_embedding_counts_for_more_in_a_template_and_for_nothing_else():
    vectors, faces, others, probes = world()
    lengths = np.random.default_rng(1).uniform(0.2, 3, len(vectors)).astype(np.float32)
    train = (faces["split"] == "train").to_numpy()
    longer = vectors * np.where(train, 1, lengths)[:, None]
    plain = open_set.measure({"pack": vectors}, {"pack": others}, faces, probes)
    found = open_set.measure({"pack": longer}, {"pack": 3 * others}, faces, probes)
    pd.testing.assert_frame_equal(found, plain, rtol=1e-5)
    weighed = open_set.enrolled(vectors * lengths[:, None], faces)
    ann = train & (faces["identity"] == "ann").to_numpy()
    mean = (vectors[ann] * lengths[ann, None]).sum(0)
    np.testing.assert_allclose(weighed.means[0], mean / np.linalg.norm(mean), rtol=1e-4)


def test_without_strangers_in_val_its_own_people_stand_in_and_it_is_said():
    vectors, faces, others, probes = world(own_val=False)
    found = open_set.measure({"pack": vectors}, {"pack": others}, faces, probes)
    assert (found["note"] == open_set.SIMULATED).all()
    assert found["threshold"].between(-1, 1).all()


def test_equal_scores_are_all_refused_where_together_they_are_too_many():
    vectors, faces, others, probes = world()
    same = np.repeat(others[:1], len(others), axis=0)
    found = open_set.measure({"pack": vectors}, {"pack": same}, faces, probes)
    assert found[(found["kind"] == "smears") & (found["rule"] == open_set.PER_PROBE)]["rate"].item() == 0


def test_in_words_the_worst_photos_of_strangers_are_named():
    vectors, faces, others, probes = world()
    blind = np.where((faces["split"] == "test_unseen").to_numpy()[:, None], vectors[:1], vectors)
    found = open_set.measure(
        {"pack": vectors, "blind": blind}, {"pack": others, "blind": others}, faces, probes
    )
    text = open_set.in_words(found, "blind", "pack")
    assert "Of 100 strangers, bad photos" in text and "blind 100" in text
    kept = found.assign(note=np.nan)  # as a .csv gives it back
    assert open_set.in_words(kept, "blind", "pack") == text and "an." not in text[-5:]
    assert "too few" in open_set.in_words(NotPossible("too few people"), "blind", "pack")
    without = found[~found["kind"].str.startswith("strangers")]
    assert "Of 100 probes, smears" in open_set.in_words(without, "blind", "pack")


def test_what_is_lacking_is_said():
    vectors, faces, others, probes = world()
    with pytest.raises(NotPossible, match="nobody is in training"):
        open_set.measure({"pack": vectors}, {"pack": others}, faces.assign(split="val"), probes)
    no_val = faces.assign(split=faces["split"].replace("val", "train"))
    with pytest.raises(NotPossible, match="val is empty"):
        open_set.measure({"pack": vectors}, {"pack": others}, no_val, probes)
    with pytest.raises(NotPossible, match="no model"):
        open_set.measure({"pack": NotPossible("too few")}, {}, faces, probes)
