"""Who fails and how, against a count of every pair."""

import numpy as np
import pytest

from src.evaluation import pairs, people
from src.limits import NotPossible
from tests.evaluation.examples import make


def by_hand(vectors, faces, threshold):
    """Shares of genuine pairs rejected by person, and of impostor pairs accepted by two people."""
    names, group = faces["identity"].to_numpy(), faces["group"].to_numpy()
    rejected: dict[str, list[bool]] = {}
    taken: dict[tuple[str, str], list[bool]] = {}
    for i in range(len(vectors)):
        for j in range(i):
            if group[i] == group[j]:
                continue
            hit = float(vectors[i] @ vectors[j]) >= threshold
            if names[i] == names[j]:
                rejected.setdefault(names[i], []).append(not hit)
            else:
                for key in ((names[i], names[j]), (names[j], names[i])):
                    taken.setdefault(key, []).append(hit)
    return {k: np.mean(v) for k, v in rejected.items()}, {k: np.mean(v) for k, v in taken.items()}


def test_shares_are_those_of_a_count_by_hand():
    vectors, faces = make(people=8, photos=8)
    test = pairs.trials(faces, "test_seen")
    found = people.failing(vectors, test, 0.35).set_index("person")
    rejected, taken = by_hand(vectors, faces, 0.35)
    assert set(found.index) == set(faces["identity"])
    for person, row in found.iterrows():
        assert row["rejected"] == pytest.approx(rejected[person])
        most = max(share for (one, _), share in taken.items() if one == person)
        assert row["taken"] == pytest.approx(most)
        assert taken[person, row["taken_for"]] == pytest.approx(most) if most else row["taken_for"] == ""
        assert row["rejected_low"] <= row["rejected"] <= row["rejected_high"]
        assert row["photos"] == (faces["identity"] == person).sum()
    assert found["rejected"].is_monotonic_decreasing


def test_more_photos_make_it_surer_and_failures_to_enrol_are_rejected():
    vectors, faces = make(people=8, photos=8)
    test = pairs.trials(faces, "test_seen")
    assert (people.failing(vectors, test, -1.0)["rejected"] == 0).all()
    blind = vectors.copy()
    blind[(faces["identity"] == "person 0").to_numpy()] = np.nan
    first = people.failing(blind, test, -1.0).iloc[0]
    assert first["person"] == "person 0" and first["rejected"] == 1 and first["taken_for"] == ""
    few, many = (people._wilson(0.5, count) for count in (4, 400))
    assert few[0] < many[0] < 0.5 < many[1] < few[1]


def test_without_a_threshold_nobody_fails():
    vectors, faces = make(people=4)
    with pytest.raises(NotPossible, match="no threshold"):
        people.failing(vectors, pairs.trials(faces, "test_seen"), float("nan"))
