"""Every pair is counted once, in the right stratum, at the right score."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from src import devices
from src.demo import album, mode
from src.evaluation import counting, curves, intervals, pairs, verification
from src.limits import NotPossible
from src.networks import embedding
from src.packs import faces as packs_faces
from src.packs.pack import load
from src.photos import cleaning, finding
from tests import fake_gpu
from tests.evaluation.examples import evaluated, make, materialised, unit_rows


def counted(vectors, faces, **options):
    test = pairs.trials(faces, "test_seen")
    return pairs.evaluate({"buffalo_l": vectors}, {"t": test}, **options)["t"]["buffalo_l"]


@pytest.mark.parametrize("exact", [0, 10**7])
@pytest.mark.parametrize("tile", [7, 2048])
@pytest.mark.parametrize("clusters", [3, 300])
def test_counts_are_those_of_all_pairs(monkeypatch, tile, clusters, exact):
    monkeypatch.setattr(counting, "_EXACT", exact)
    monkeypatch.setattr(pairs, "_TILE", tile)
    monkeypatch.setattr(pairs, "_CLUSTERS", clusters)
    vectors, faces = make()
    faces.loc[[1, 2, 5], "group"] = 0  # one group within a person,
    faces.loc[[3, len(faces) - 1], "group"] = 3  # one of two people
    scores, genuine, stratum = materialised(vectors, faces)
    strata = counted(vectors, faces)
    assert strata["all"].left_out == 7
    for name, counts in strata.items():
        of = (stratum == name) | (name == "all")
        for part, wanted in ((counts.genuine, genuine), (counts.impostor, ~genuine)):
            expected = np.sort(scores[of & wanted])
            lowest, highest = (np.repeat(ends, part) for ends in (counts.score, counts.top))
            assert (lowest - 3e-7 <= expected).all() and (expected <= highest + 3e-7).all()
            assert exact == 0 or (lowest == highest).all()


@pytest.mark.parametrize("exact", [0, 10**7])
@pytest.mark.parametrize("clusters", [3, 300])
def test_clusters_count_the_pairs_that_leave_with_their_people(monkeypatch, clusters, exact):
    monkeypatch.setattr(counting, "_EXACT", exact)
    monkeypatch.setattr(pairs, "_CLUSTERS", clusters)
    vectors, faces = make()
    test = pairs.trials(faces, "test_seen")
    counts = counted(vectors, faces)["all"]
    assert (counts.cluster_genuine.sum(0)).sum() == counts.genuine.sum()
    cluster = test.identity
    if clusters < 6:
        cluster = np.random.default_rng(0).permutation(6)[test.identity] % clusters
    for u in range(len(counts.cluster_genuine)):
        scores, genuine, _ = materialised(vectors[cluster != u], faces[cluster != u])
        assert counts.impostor.sum() - counts.cluster_impostor[u].sum() == (~genuine).sum()
        assert counts.genuine.sum() - counts.cluster_genuine[u].sum() == genuine.sum()
        left = np.append(0, np.cumsum(intervals.without_each(counts)[1][u]))
        below = [(scores[~genuine] < edge).sum() for edge in counts.cluster_score]
        np.testing.assert_allclose(left[:-1], below, atol=1)


def random_test(seed, vectors_of):
    """8 to 20 people in up to three qualities, with groups (some of two people) and failures."""
    rng = np.random.default_rng(seed)
    identity = np.repeat(np.arange(rng.integers(8, 21)), 5)[rng.permutation(40)]
    identity = np.unique(identity, return_inverse=True)[1]
    n = len(identity)
    group = np.where(rng.random(n) < 0.3, rng.integers(0, 8, n), -1)
    quality = rng.integers(0, rng.integers(1, 4), n).astype(np.int8)
    test = pairs.Trials("t", np.arange(n), identity, (), quality, group)
    vectors = vectors_of(rng, identity)
    vectors[rng.random(n) < 0.1] = np.nan
    return vectors, test


def on_both(monkeypatch, failures, vectors, test):
    """The counts of numpy and of torch by stratum, with many small tiles and clusters."""
    monkeypatch.setattr(pairs, "_TILE", 7)
    monkeypatch.setattr(pairs, "_CLUSTERS", 6)
    monkeypatch.setattr(counting, "_EXACT", 0)
    models = {"buffalo_l": vectors}
    found = [pairs.evaluate(models, {"t": test}, failures, device) for device in ("numpy", "cpu")]
    return [results["t"]["buffalo_l"] for results in found]


@pytest.mark.parametrize("failures", ["non_match", "exclude"])
@pytest.mark.parametrize("seed", range(6))
def test_torch_counts_what_numpy_counts(monkeypatch, seed, failures):
    """To the last pair: entries of +-1/16 have dot products that no order of summing rounds."""

    def exact(rng, identity):
        centres = rng.choice([-1, 1], (identity.max() + 1, 256))
        return (centres[identity] * rng.choice([1, 1, -1], (len(identity), 256)) / 16).astype(np.float32)

    first, second = on_both(monkeypatch, failures, *random_test(seed, exact))
    assert first.keys() == second.keys()
    for name in first:
        for field, values in vars(first[name]).items():
            other = getattr(second[name], field)
            if field == "cluster_people":
                assert values == other
            else:
                np.testing.assert_array_equal(values, other, f"{name} {field}")


@pytest.mark.parametrize("seed", range(6))
def test_torch_counts_any_scores_within_rounding(monkeypatch, seed):
    """Rounding moves a score by a few of float32's steps, so the k-th lowest scores agree to them."""

    def any_scores(rng, identity):
        centres = rng.normal(size=(identity.max() + 1, 32))
        return unit_rows(centres[identity] + 1.5 * rng.normal(size=(len(identity), 32)))

    first, second = on_both(monkeypatch, "non_match", *random_test(seed, any_scores))
    assert first.keys() == second.keys()
    for name in first:
        a, b = first[name], second[name]
        assert (a.people, a.photos, a.failed, a.left_out) == (b.people, b.photos, b.failed, b.left_out)
        for part in ("genuine", "impostor"):
            scores = [np.repeat(counts.score, getattr(counts, part)) for counts in (a, b)]
            lost = [np.isneginf(values).sum() for values in scores]
            assert len(scores[0]) == len(scores[1]) and lost[0] == lost[1]
            np.testing.assert_allclose(scores[0][lost[0] :], scores[1][lost[0] :], atol=5e-7)
            clusters = [getattr(counts, f"cluster_{part}").sum(1) for counts in (a, b)]
            np.testing.assert_array_equal(*clusters)


def test_a_gpu_is_used_where_there_is_one_and_many_photos(monkeypatch):
    vectors, faces = make()
    used = []
    on_device = counting._on_device

    def on_cpu(photos, grid, device):
        used.append(device)
        return on_device(photos, grid, "cpu")

    monkeypatch.setattr(counting, "_on_device", on_cpu)
    monkeypatch.setattr(counting, "_sees_cuda", lambda: True)
    monkeypatch.setattr(counting, "_EXACT", 0)
    counted(vectors, faces)
    assert not used
    monkeypatch.setattr(counting, "_MANY", len(faces))
    counted(vectors, faces)
    assert used == ["cuda"]
    counted(vectors, faces, device="numpy")
    assert used == ["cuda"]


def test_a_forced_device_holds_for_counting_too(monkeypatch):
    fake_gpu.pretend(monkeypatch)
    monkeypatch.delenv(devices.FORCED, raising=False)
    assert counting._sees_cuda()
    monkeypatch.setenv(devices.FORCED, "cpu")
    assert not counting._sees_cuda()


@pytest.mark.parametrize("exact", ["0", "1000"])
def test_pairs_are_counted_where_torch_is_missing(exact):
    script = """
import sys
sys.modules["torch"] = None  # to import it fails
import numpy as np
from src.evaluation import counting, pairs
counting._MANY = 0
counting._EXACT = int(sys.argv[1])
test = pairs.Trials("t", np.arange(4), np.array([0, 0, 1, 1]), (), np.zeros(4, np.int8), np.full(4, -1))
counts = pairs.evaluate({"buffalo_l": np.eye(4, dtype=np.float32)}, {"t": test})["t"]["buffalo_l"]["all"]
assert (counts.genuine.sum(), counts.impostor.sum()) == (2, 4)
"""
    subprocess.run([sys.executable, "-c", script, exact], check=True, cwd=Path(__file__).parents[2])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_order_and_rotation_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    vectors, faces = make(seed=seed)
    rotation = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    order = rng.permutation(len(faces))
    turned = unit_rows(vectors[order].astype(np.float64) @ rotation)
    first, second = (
        verification.report({"t": {"buffalo_l": counted(*args)}})
        for args in ((vectors, faces), (turned, faces.iloc[order]))
    )
    numbers = first.select_dtypes("number").columns
    pd.testing.assert_frame_equal(first[numbers], second[numbers], atol=1e-4, rtol=1e-3)


def test_failures_match_nothing_or_are_dropped_for_all_models():
    vectors, faces = make(noise=1.0)
    broken = vectors.copy()
    broken[::5] = np.nan
    test = {"t": pairs.trials(faces, "test_seen")}
    models = {"buffalo_l": vectors, "buffalo_l as shipped": broken}
    found = pairs.evaluate(models, test)["t"]
    every, kept = found["buffalo_l"]["all"], found["buffalo_l as shipped"]["all"]
    lost = np.isneginf(kept.score)
    assert kept.genuine.sum() == every.genuine.sum() and kept.impostor.sum() == every.impostor.sum()
    assert kept.failed == len(vectors[::5]) and lost.sum() == 1 and kept.genuine[lost] > 0
    without = pairs.evaluate(models, test, failures="exclude")["t"]
    expected = counted(np.delete(vectors, np.s_[::5], 0), faces.drop(index=faces.index[::5]))["all"]
    for name in models:
        assert (without[name]["all"].genuine == expected.genuine).all()
        assert without[name]["all"].excluded == kept.failed
    assert without["buffalo_l as shipped"]["all"].failed == kept.failed and kept.excluded == 0
    table = verification.report({"t": {"buffalo_l as shipped": {"all": kept}}})
    assert table["fte"][0] == pytest.approx(kept.failed / len(faces))


def test_a_model_that_fails_on_everything_is_no_better_than_chance():
    vectors, faces = make()
    with pytest.raises(ValueError, match="t: no photo is left"):
        counted(np.full_like(vectors, np.nan), faces, failures="exclude")
    models = {"buffalo_l": vectors, "none": np.full_like(vectors, np.nan)}
    test = {"t": pairs.trials(faces, "test_seen")}
    table = verification.report(pairs.evaluate(models, test))
    table = table[table["model"] == "none"]
    assert (table["auc"] == 0.5).all() and (table["fte"] == 1).all() and table["d_prime"].isna().all()
    assert (table[["pauc", "tar_far_1e-1"]].fillna(0) == 0).all(axis=None)
    ends = [name for name in table.columns if name.endswith(("_low", "_high", "_p"))]
    assert ends and table[ends].isna().all(axis=None), "what has no embedding has no interval"
    assert table["note"].str.contains("EER not reached").all() and table["eer"].isna().all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: np.put(v[3], 2, np.nan), "row 3 .* NaN or infinity"),
        (lambda v: np.put(v[3], 2, np.inf), "row 3 .* NaN or infinity"),
        (lambda v: v[4].fill(0), "row 4 .* is zero"),
        (lambda v: np.multiply(v[5], 2, out=v[5]), "row 5 .* not of unit length"),
    ],
)
def test_bad_embeddings_are_named(spoil, message):
    vectors, faces = make()
    spoil(vectors)
    with pytest.raises(ValueError, match=message):
        counted(vectors, faces)


def test_models_of_different_lengths_are_refused():
    vectors, faces = make()
    test = {"t": pairs.trials(faces, "test_seen")}
    with pytest.raises(ValueError, match="different numbers of rows"):
        pairs.evaluate({"a": vectors, "b": vectors[1:]}, test)
    with pytest.raises(ValueError, match="asks for row"):
        pairs.evaluate({"a": vectors[:5]}, test)
    with pytest.raises(ValueError, match="failures"):
        pairs.evaluate({"a": vectors}, test, failures="forget")
    with pytest.raises(ValueError, match="no models"):
        pairs.evaluate({}, test)
    with pytest.raises(ValueError, match="no test sets"):
        pairs.evaluate({"a": vectors}, {})
    with pytest.raises(ValueError, match=r"a: embeddings must be \[N, D\], not \[3\]"):
        pairs.evaluate({"a": np.ones(3)}, test)


def test_test_sets_without_pairs_are_refused():
    _, faces = make()
    with pytest.raises(ValueError, match=r"no photos are in the split 'val'.*test_seen"):
        pairs.trials(faces, "val")
    with pytest.raises(ValueError, match="one person only"):
        pairs.trials(faces.assign(identity="a"), "test_seen")
    with pytest.raises(ValueError, match="nobody has two different photos"):
        pairs.trials(faces.drop_duplicates("identity"), "test_seen")
    faces.loc[[2, 5], "identity"] = None
    with pytest.raises(ValueError, match=r"row 2 of the split 'test_seen' has no identity \(2 in all\)"):
        pairs.trials(faces, "test_seen")


def test_photos_without_labels_are_read_by_measured_quality(tmp_path):
    """From the folder to the strata: no folder says high or low, so size and sharpness do."""
    labelled = album.make(tmp_path / "labelled", people=2, high=3, low=3)
    folder = tmp_path / "plain"
    for file in sorted(labelled.glob("*/*_quality/*_0[0-9].*")):
        person, _, name = file.relative_to(labelled).parts
        (folder / person).mkdir(parents=True, exist_ok=True)
        (folder / person / name).write_bytes(file.read_bytes())
    files = finding.find(folder)
    assert set(files["quality"]) == {"unknown"}
    pack = load(str(mode.PACK))
    images = cleaning.clean(files, folder)
    found, crops = packs_faces.extract(images, folder, pack)
    faces = packs_faces.table(images, found)
    test = pairs.trials(faces.assign(split="test_seen"), "test_seen")
    bad = (faces[["width", "height"]].min(axis=1) < 112) | (faces["sharpness"] < 200)
    assert 0 < bad.sum() < len(faces) == 12
    assert [pairs.QUALITIES[code] for code in test.quality] == np.where(bad, "low", "high").tolist()
    vectors = embedding.embed(crops, pack)
    table = verification.report(verification.evaluate({"buffalo_l": vectors}, {"test_seen": test}))
    assert list(table["quality"]) == ["all", "high-high", "high-low", "low-low"]


def test_near_duplicates_alone_make_no_genuine_pair():
    _, faces = make()
    bursts = faces.assign(group=faces["identity"].factorize()[0])
    with pytest.raises(NotPossible, match="nobody has two different photos"):
        pairs.trials(bursts, "test_seen")
    assert pairs.trials(faces, "test_seen")


def test_photos_too_small_for_a_face_are_failures_of_every_model():
    vectors, faces = make()
    small = faces.iloc[:3].assign(status="too small", group=[900, 901, 902], split="test_seen")
    other = faces.iloc[:2].assign(status="too small", group=[903, 904], split="")
    images = pd.concat([faces.assign(status="ok"), small, other], ignore_index=True)
    test = pairs.trials(faces, "test_seen", images)
    assert len(test.rows) == len(faces) + 3 and (test.rows[-3:] == pairs.NO_ROW).all()
    counts = pairs.evaluate({"a": vectors}, {"t": test})["t"]["a"]["all"]
    assert (counts.photos, counts.failed) == (len(faces) + 3, 3)
    without = evaluated(faces, {"a": vectors})["test_seen"]["a"]["all"]
    more = counts.genuine.sum() - without.genuine.sum()
    assert more > 0 and counts.genuine[np.isneginf(counts.score)].sum() == more, "they match at no threshold"


def test_a_model_that_is_not_possible_is_left_out():
    vectors, faces = make()
    results = evaluated(faces, {"a": vectors, "b": NotPossible("too few")})
    assert list(results["test_seen"]) == ["a"]


@pytest.mark.parametrize("exact", [True, False])
def test_known_people_against_strangers_is_one_photo_of_each(monkeypatch, exact):
    """Genuine pairs are of known people, impostor pairs of a known person and a stranger."""
    if not exact:
        monkeypatch.setattr(counting, "_EXACT", 0)
    vectors, faces = make(people=9, photos=10)
    person = faces["identity"].str[7:].astype(int)
    groups = np.where(np.arange(len(faces)) % 5 == 0, person, 100 + np.arange(len(faces)))  # near-duplicates
    faces = faces.assign(split=np.where(person < 5, "test_seen", "test_unseen"), group=groups)
    tests = pairs.with_strangers(pairs.test_sets(faces))
    assert list(tests) == ["test_seen", "test_unseen", "seen_x_strangers"]
    with pytest.raises(ValueError, match="both have photos of person 0"):
        pairs.across(tests["test_seen"], tests["test_seen"])
    spoiled = vectors.copy()
    spoiled[::17] = np.nan
    counted = pairs.evaluate({"a": spoiled}, {"x": tests["seen_x_strangers"]})["x"]["a"]
    i, j = np.triu_indices(len(vectors), 1)
    scores = np.einsum("id,id->i", spoiled[i].astype(float), spoiled[j].astype(float))
    scores = np.where(np.isnan(scores), -np.inf, scores)
    names, seen = person.to_numpy(), (person < 5).to_numpy()
    genuine = (names[i] == names[j]) & seen[i] & (groups[i] != groups[j])
    impostor = seen[i] != seen[j]
    low = (faces["quality"] == "low").to_numpy().astype(int)
    for quality, both in (("all", None), ("high-high", 0), ("high-low", 1), ("low-low", 2)):
        of = np.ones(len(i), bool) if both is None else low[i] + low[j] == both
        counts = counted[quality]
        assert (counts.genuine.sum(), counts.impostor.sum()) == ((genuine & of).sum(), (impostor & of).sum())
        wanted = roc_auc_score(
            genuine[of & (genuine | impostor)], np.nan_to_num(scores[of & (genuine | impostor)], neginf=-9)
        )
        assert curves.auc_of(counts) == pytest.approx(wanted, abs=1e-6)
        people = [name for (name,) in counts.cluster_people]
        for k, name in enumerate(people):
            mine = (names[i] == int(name[7:])) | (names[j] == int(name[7:]))
            assert counts.cluster_impostor[k].sum() == (impostor & of & mine).sum()
            assert counts.cluster_genuine[k].sum() == (genuine & of & mine).sum()
        same = (names[i] == names[j]) & seen[i] & of
        assert counts.left_out == (same & ~genuine).sum()


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_of_too_many_pairs_impostors_are_a_sample_and_the_report_says_so(monkeypatch, device):
    rng = np.random.default_rng(0)
    identity = np.arange(800) // 8
    vectors = (rng.normal(size=(100, 16))[identity] + 2 * rng.normal(size=(800, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    group = np.where(rng.random(800) < 0.1, identity, -1)
    test = pairs.Trials("test", np.arange(800), identity, (), (np.arange(800) % 2).astype(np.int8), group)
    everyone = np.ones(800, bool)
    monkeypatch.setattr(pairs, "_TILE", 16)
    monkeypatch.setattr(counting, "_EXACT", 0)
    every = pairs.count_pairs(vectors, test, everyone, ~everyone, device)
    monkeypatch.setattr(pairs, "_MOST", 800 * 800 // 8)
    some = pairs.count_pairs(vectors, test, everyone, ~everyone, device)
    assert every.keys() == some.keys() == set(pairs.STRATA)
    for name, counts in some.items():
        of_all = every[name]
        assert counts.genuine.sum() == of_all.genuine.sum()
        assert counts.cluster_genuine.sum() == of_all.cluster_genuine.sum()
        assert counts.left_out == of_all.left_out and of_all.impostors == 0
        assert counts.impostors == of_all.impostor.sum()
        assert 0.15 < counts.impostor.sum() / counts.impostors < 0.35
        assert curves.auc_of(counts) == pytest.approx(curves.auc_of(of_all), abs=0.02)
    row = verification.report({"test": {"model": some}}).iloc[0]
    assert (
        row["note"].startswith("impostor pairs: a sample, ") and row["auc_low"] < row["auc"] < row["auc_high"]
    )
