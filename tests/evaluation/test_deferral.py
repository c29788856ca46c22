"""The third answer, and the measure that gives it, against what one would count by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from src.evaluation import deferral, open_set, verification
from src.limits import NotPossible
from tests.evaluation.examples import make, unit_rows
from tests.evaluation.test_open_set import by_hand, world


def test_answers_add_up_and_are_those_of_a_count_by_hand():
    vectors, faces, others, probes = world()
    rng = np.random.default_rng(3)
    poor, others_poor = rng.random(len(vectors)) < 0.2, rng.random(len(others)) < 0.6
    found = deferral.answers(vectors, others, faces, probes, 0.4, poor, others_poor).set_index("kind")
    assert np.allclose(found[["known", "wrong", "unknown", "too_poor"]].sum(axis=1), 1)
    assert found.index.tolist()[:2] == ["known people, good photos", "known people, bad photos"]
    for kind, row in found.iterrows():
        if kind == "smears":
            at = np.flatnonzero(probes["split"] == "test")
            scores, unclear = by_hand(vectors, faces, others[at]), others_poor[at]
            right = np.zeros(len(at), bool)
        else:
            split = "test_seen" if "known" in str(kind) else "test_unseen"
            quality = "high" if "good" in str(kind) else "low"
            at = np.flatnonzero((faces["split"] == split) & (faces["quality"] == quality))
            scores, unclear = by_hand(vectors, faces, vectors[at]), poor[at]
            right = (scores.idxmax(axis=1) == faces["identity"].to_numpy()[at]).to_numpy()
        taken = (scores.max(axis=1) >= 0.4).to_numpy() & ~unclear
        assert row["photos"] == len(at) and row["too_poor"] == pytest.approx(unclear.mean())
        assert row["known"] == pytest.approx((taken & right).mean())
        assert row["wrong"] == pytest.approx((taken & ~right).mean())
    assert found.loc["smears", "known"] == 0
    assert float(found["known"][f"{open_set.KNOWN}, bad photos"]) > 0.3


def test_poor_photos_in_a_gallery_take_poor_probes_for_their_people():
    vectors, faces, others, probes = world()
    rng = np.random.default_rng(5)
    training = (faces["split"] == "train").to_numpy()
    poor = training & (faces["identity"] == "ann").to_numpy() & (rng.random(len(faces)) < 0.7)
    smear = rng.normal(size=32)
    near = unit_rows(smear + 0.3 * rng.normal(size=vectors.shape))
    vectors = np.where(poor[:, None], near, vectors)
    others = unit_rows(smear + 0.3 * rng.normal(size=others.shape))
    found = deferral.enrolment(vectors, others, faces, probes, 0.5, poor).set_index("kind")
    assert found["wrong"]["smears"] > 0.9 > 0.1 > found["wrong_without"]["smears"]
    with pytest.raises(NotPossible, match="no photo of train"):
        deferral.enrolment(vectors, others, faces, probes, 0.5, np.zeros(len(faces), bool))
    all_of_ann = training & (faces["identity"] == "ann").to_numpy()  # who then keeps them
    with pytest.raises(NotPossible, match="no photo of train"):
        deferral.enrolment(vectors, others, faces, probes, 0.5, all_of_ann)


def test_the_measure_that_knows_the_noise_leaves_less_error_than_chance():
    vectors, faces = make(people=10, photos=14, noise=1.0)
    rng = np.random.default_rng(1)
    spoilt = rng.random(len(vectors)) < 0.2
    vectors = unit_rows(vectors + 0.5 * spoilt[:, None] * rng.normal(size=vectors.shape))
    test = verification.trials(faces, "test_seen")
    counts = verification.evaluate({"pack": vectors}, {"test_seen": test})["test_seen"]
    chosen = verification.thresholds({"all": counts}, 0.01)
    measures: Any = {"noise": 1.0 - spoilt, "chance": rng.random(len(vectors))}
    found = deferral.compared({"pack": vectors}, test, measures, chosen).set_index("measure")
    assert found.index[0] == "noise" and found["left"]["noise"] < 0.8 * found["left"]["chance"]
    assert np.ptp(found["frr"]) == 0 and found["frr_at"]["noise"] < found["frr"]["noise"]
    single = verification.discard({"pack": vectors}, test, measures["noise"], chosen, 20)
    part = single[single["discarded"] <= 0.3 + 1e-9]
    area = np.trapezoid(part["frr"], part["discarded"]) / 0.3
    assert found["left"]["noise"] == pytest.approx(area)


def test_without_a_threshold_nothing_is_compared():
    vectors, faces = make(people=4)
    test = verification.trials(faces, "test_seen")
    none = pd.DataFrame({"model": ["pack"], "threshold": [np.nan]})
    with pytest.raises(NotPossible, match="no threshold"):
        vectors, faces, others, probes = world()
        none_poor = np.zeros(len(vectors), bool), np.zeros(len(others), bool)
        deferral.answers(vectors, others, faces, probes, float("nan"), *none_poor)
    with pytest.raises(NotPossible, match="threshold"):
        deferral.compared({"pack": vectors}, test, {"size": np.ones(len(vectors))}, none)
