"""Identification and published pairs, against what one would count by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from src.evaluation import protocols, verification
from tests.evaluation.examples import make, unit_rows


def search(people=20, photos=12, noise=1.5):
    vectors, faces = make(people, photos, noise=noise)
    strangers = faces["identity"].isin([f"person {i}" for i in range(people // 2, people)])
    faces["split"] = np.where(strangers, "test_unseen", "test_seen")
    return vectors, faces, *(verification.trials(faces, name) for name in ("test_seen", "test_unseen"))


def test_ranks_are_those_of_a_search_by_hand():
    vectors, faces, seen, unseen = search()
    found = protocols.identify({"buffalo_l": vectors}, seen, unseen)
    names, high = faces["identity"].to_numpy(), (faces["quality"] == "high").to_numpy()
    enrolled = high & (faces["split"] == "test_seen").to_numpy()
    for probe in found.to_dict("records"):
        scores = vectors[enrolled] @ vectors[probe["row"]]
        best = pd.Series(scores).groupby(names[enrolled]).max()
        assert not high[probe["row"]] and names[probe["row"]] == probe["identity"]
        assert probe["best"] == pytest.approx(best.max(), abs=1e-6)
        if probe["mated"]:
            assert probe["mate"] == pytest.approx(best[probe["identity"]], abs=1e-6)
            assert probe["rank"] == 1 + (best.drop(probe["identity"]) > probe["mate"]).sum()
    assert set(found[~found["mated"]]["identity"]) <= set(unseen.people)


def test_templates_are_the_means_of_a_person_and_leave_near_duplicates_out():
    vectors, faces, seen, unseen = search()
    names, high = faces["identity"].to_numpy(), (faces["quality"] == "high").to_numpy()
    enrolled = high & (faces["split"] == "test_seen").to_numpy()
    single = protocols.identify({"pack": vectors}, seen, unseen)
    first = single[single["mated"]].iloc[0]
    twin = np.flatnonzero(enrolled & (names == first["identity"]))[0]
    faces.loc[twin, "group"] = faces.loc[first["row"], "group"]
    seen = verification.trials(faces, "test_seen")
    found = protocols.identify({"pack": vectors}, seen, unseen, pooled=True)
    for probe in found.to_dict("records"):
        apart = enrolled & (faces["group"] != faces["group"][probe["row"]]).to_numpy()
        means = {name: vectors[apart & (names == name)].mean(0) for name in set(names[apart])}
        scores = pd.Series(
            {n: vectors[probe["row"]] @ mean / np.linalg.norm(mean) for n, mean in means.items()}
        )
        assert probe["best"] == pytest.approx(scores.max(), abs=1e-5)
        if probe["mated"]:
            assert probe["rank"] == 1 + (scores.drop(probe["identity"]) > probe["mate"] + 1e-9).sum()
    pair = (protocols.identification(table)["rank_1"].iloc[0] for table in (single, found))
    assert next(pair) < next(pair)  # several noisy photos together show more


def test_one_to_one_templates_have_the_auc_of_their_scores():
    vectors, faces, seen, _ = search()
    found = protocols.templates({"pack": vectors, "blind": np.full_like(vectors, np.nan)}, seen).set_index(
        "model"
    )
    names, high = faces["identity"].to_numpy(), (faces["quality"] == "high").to_numpy()
    here = (faces["split"] == "test_seen").to_numpy()
    people = np.unique(names[here & high])
    means = np.stack([vectors[here & high & (names == name)].mean(0) for name in people])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    probes = np.flatnonzero(here & ~high & np.isin(names, people))
    own = names[probes][:, None] == people
    expected = roc_auc_score(own.ravel(), (vectors[probes] @ means.T).ravel())
    row = found.loc["pack"].to_dict()
    assert row["template"] == pytest.approx(expected, abs=1e-6) and row["genuine"] == len(probes)
    assert row["template_low"] < row["template"] < row["template_high"]
    assert row["single"] < row["template"]
    assert found.loc["blind", "template"] == 0.5


def test_identification_rates():
    vectors, _, seen, unseen = search(people=80)
    found = protocols.identify(
        {"buffalo_l": vectors, "chance": np.random.default_rng(0).permutation(vectors)}, seen, unseen
    )
    table = protocols.identification(found).set_index("model")
    curve = protocols.cmc(found)
    good, bad = (table.loc[name].to_dict() for name in ("buffalo_l", "chance"))
    mated = found[found["mated"] & (found["model"] == "buffalo_l")]
    assert good["rank_1"] == (mated["rank"] == 1).mean() and curve["rank"].max() == 20
    assert good["rank_1_low"] < good["rank_1"] < good["rank_1_high"]
    assert good["rank_1"] <= good["rank_5"] <= good["rank_10"] and bad["rank_1"] < 0.3 < good["rank_1"]
    strangers = found[~found["mated"] & (found["model"] == "buffalo_l")]
    threshold = np.sort(strangers["best"])[::-1][int(0.1 * len(strangers))]
    assert (strangers["best"] > threshold).mean() <= 0.1
    assert good["fnir_fpir_1e-1"] == (mated["mate"] <= threshold).mean()
    assert len(strangers) < 3000 and np.isnan(good["fnir_fpir_1e-2"])
    for _, part in curve.groupby("model"):
        assert part["rate"].is_monotonic_increasing


def test_a_failure_to_enrol_is_never_found_and_a_tie_is_no_find():
    vectors, _, seen, unseen = search()
    found = protocols.identify({"buffalo_l": np.full_like(vectors, np.nan)}, seen, unseen)
    assert found["rank"].isna().all() and protocols.cmc(found)["rate"].eq(0).all()
    same = np.broadcast_to(np.eye(1, vectors.shape[1], dtype=np.float32), vectors.shape)
    found = protocols.identify({"buffalo_l": same}, seen)
    assert (found["rank"] == found["gallery"]).all() and found["mated"].all()


def test_without_qualities_the_first_photo_is_enrolled():
    vectors, faces = make()
    test = verification.trials(faces.assign(quality="unknown"), "test_seen")
    found = protocols.identify({"buffalo_l": vectors}, test)
    first = ~faces["identity"].duplicated()
    assert sorted(found["row"]) == sorted(faces.index[~first])


def test_near_duplicates_are_not_found_by_each_other():
    vectors, faces = make()
    low = np.flatnonzero(faces["quality"] == "low")
    high = [
        faces.index[(faces["identity"] == faces["identity"][i]) & (faces["quality"] == "high")] for i in low
    ]
    probe = next(i for i, mates in zip(low, high, strict=True) if len(mates) == 1)
    mate = faces.index[(faces["identity"] == faces["identity"][probe]) & (faces["quality"] == "high")][0]
    faces.loc[probe, "group"] = faces.loc[mate, "group"]
    test = verification.trials(faces, "test_seen")
    found = protocols.identify({"buffalo_l": vectors}, test).set_index("row")
    assert np.isnan(found.loc[probe].to_dict()["rank"])


def test_strangers_must_be_strangers():
    vectors, _, seen, _ = search()
    with pytest.raises(ValueError, match="people who are in the gallery"):
        protocols.identify({"buffalo_l": vectors}, seen, seen)
    with pytest.raises(ValueError, match=r"one person only|nobody"):
        alone, faces = make(people=6)
        protocols.identify({"buffalo_l": alone}, verification.trials(faces[:1], "test_seen"))


LFW = "2\t2\nAnn\t1\t2\nBob B\t3\t14\nAnn\t1\tBob B\t3\nCy\t1\tAnn\t2\n"
LFW += "Cy\t1\t2\nDi\t1\t2\nCy\t1\tDi\t2\nDi\t1\tAnn\t1\n"


def test_pairs_files_are_read(tmp_path):
    file = tmp_path / "pairs.txt"
    file.write_text(LFW, encoding="utf-8")
    pairs = protocols.read_pairs(file)
    assert list(pairs["fold"]) == [0] * 4 + [1] * 4
    assert list(pairs["same"]) == [True, True, False, False] * 2
    assert pairs["a"][1] == "Bob B/Bob B_0003.jpg" and pairs["b"][1] == "Bob B/Bob B_0014.jpg"
    assert pairs["b"][3] == "Ann/Ann_0002.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line"),
        ("Ann\t1\t2\n", "first line"),
        ("2\t2\nAnn\t1\t2\n", "8 pairs announced, but 1"),
        (LFW.replace("Cy\t1\t2", "Cy\tone\t2"), r"pair 5.*no pair"),
    ],
)
def test_broken_pairs_files_are_refused(tmp_path, text, message):
    file = tmp_path / "pairs.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        protocols.read_pairs(file)


def test_ten_folds_choose_the_threshold_on_the_others():
    rng = np.random.default_rng(0)
    n, folds = 600, 10
    same = np.arange(n) % 2 == 0
    cosine = np.where(same, 0.6, 0.1) + 0.2 * rng.normal(size=n)
    cosine = np.clip(cosine, -1, 1)
    vectors = np.zeros((2 * n, 2), np.float32)
    vectors[:n, 0] = 1
    vectors[n:] = np.stack([cosine, np.sqrt(1 - cosine**2)], 1)
    paths = pd.Series([f"{i}.jpg" for i in range(2 * n)])
    pairs = pd.DataFrame(
        {"fold": np.arange(n) * folds // n, "a": paths[:n], "b": paths[n:].to_numpy(), "same": same}
    )
    table = protocols.ten_fold({"buffalo_l": vectors, "buffalo_l again": unit_rows(vectors)}, paths, pairs)
    accuracy = []
    for fold in range(folds):
        grid = np.linspace(-1, 1, 4001)
        train = pairs["fold"].to_numpy() != fold
        right = ((cosine[train, None] >= grid) == same[train, None]).mean(0)
        best = grid[np.argmax(right)]
        accuracy.append(((cosine[~train] >= best) == same[~train]).mean())
    assert table["accuracy"][0] == pytest.approx(np.mean(accuracy), abs=0.005)
    assert table["standard_error"][0] == pytest.approx(np.std(accuracy, ddof=1) / np.sqrt(10), abs=0.003)
    vectors[n:][same] = np.nan  # whoever has no embedding is rejected: half of the pairs
    assert protocols.ten_fold({"buffalo_l": vectors}, paths, pairs)["accuracy"][0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"3 of the pairs' 1200 photos are missing, the first: 0\.jpg"):
        protocols.ten_fold({"buffalo_l": vectors[3:]}, paths[3:], pairs)
    with pytest.raises(ValueError, match="one fold only"):
        protocols.ten_fold({"buffalo_l": vectors}, paths, pairs.assign(fold=0))
