"""The card counts people and names none, says how sure it is, and what is in the file."""

import json

import numpy as np
import pandas as pd
import pytest
from torch import nn

from src import artifacts, model_card
from src.evaluation import open_set
from src.limits import NotPossible
from src.models import Model
from src.networks import maps
from tests.networks.small import small_network

FACES = pd.DataFrame(
    {
        "identity": ["Ann Lee", "Ann Lee", "Bob Ray", "Bob Ray", "Bob Ray"],
        "quality": ["high", "low", "low", "high", "low"],
        "split": ["train", "train", "train", "val", "test_seen"],
    }
)
PARITY = pd.DataFrame(
    [("test_seen", 40, 0.999_999_4, 0.9123, 0.9124)],
    columns=["test", "crops", "cosine", "auc", "auc_before"],
)


def results(held=None, threshold=0.4321, too_poor=None) -> model_card.Results:
    measures = {"genuine_people": 8.0, "fte": 0.0, "note": ""}
    numbers = {
        "auc": 0.951,
        "auc_low": 0.902,
        "auc_high": 0.977,
        "eer": 0.1,
        "eer_low": np.nan,
        "eer_high": np.nan,
    }
    low = {key: value - 0.1 for key, value in numbers.items()}
    rows = [
        {"model": "mine", "test": "test_seen", "quality": "high-low"} | numbers | measures,
        {"model": "base", "test": "test_seen", "quality": "high-low"} | low | measures,
    ]
    far = {"far": 0.02, "far_low": 0.01, "far_high": 0.05, "tar": 0.8, "tar_low": 0.7, "tar_high": 0.9}
    rates = {"test": "test_seen", "quality": "all", "threshold": threshold, "target_far": 0.01} | far
    return model_card.Results(
        report=pd.DataFrame(rows),
        rates=pd.DataFrame([rates]),
        held=NotPossible("val is empty") if held is None else held,
        target_fpir=0.01,
        too_poor=NotPossible("no smears") if too_poor is None else too_poor,
    )


def strangers() -> pd.DataFrame:
    shared = {"model": "mine", "kind": "strangers, bad photos", "photos": 300, "people": 60, "note": np.nan}
    rate = {"rate": 0.031, "low": 0.012, "high": 0.07}
    rules = ((open_set.PER_COMPARISON, 0.51), (open_set.PER_PROBE, 0.66))
    return pd.DataFrame([{"rule": rule, "threshold": value} | shared | rate for rule, value in rules])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rec_finetuned.onnx").write_bytes(b"weights")
    return tmp_path


def card(folder, given, fitted: nn.Module | None = None) -> str:
    network = small_network()
    network.record = {"settings": {"epochs": 3}, "trained_on": {"people": ["Ann Lee", "Bob Ray"]}}
    model = Model("mine", {"mine": network}, fitted)
    file = model_card.write(folder, model, "mine", "base", FACES, given, PARITY)
    return file.read_text(encoding="utf-8")


def test_a_card_tells_what_the_report_tells(folder):
    text = card(folder, results(strangers()))
    for expected in (
        "# mine",
        "3 photos (1 high, 2 low) of 2 people",
        "| test_seen | high-low | 8 | 0.951 [0.902, 0.977] | 0.851 [0.802, 0.877] | 0.100 | 0.0% |",
        "from a cosine of **0.4321** on",
        "test_seen, from 0.4321 on, FAR 2.00% [1.00, 5.00], TAR 80.00% [70.00, 90.00]",
        "somebody from **0.6600** on",
        f"| 0.6600 ({open_set.PER_PROBE}) | strangers, bad photos | 300 | 3.1% [1.2, 7.0] |",
        "least cosine 0.999999, AUC of all their pairs 0.9123 (before the export 0.9124)",
        "epochs 3",
        "torch ",
        "Python ",
        "non-commercial research only",
        "must not be used for",
        artifacts.sha256(folder / "rec_finetuned.onnx"),
        artifacts.sha256(folder / "thresholds.json"),
    ):
        assert expected in text, expected


def test_nobody_is_named(folder):
    text = card(folder, results(strangers()))
    kept = (folder / "thresholds.json").read_text(encoding="utf-8")
    assert not any(name in text + kept for name in ("Ann", "Lee", "Bob", "Ray"))


def test_templates_are_owned_up_to(folder):
    assert "No template of anybody" in card(folder, results())
    linear = maps.LinearMap(shift=np.zeros(8), matrix=np.eye(8))
    assert "No template of anybody" in card(folder, results(), linear)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 8)).astype(np.float32)
    asked = maps.fit_posterior(vectors, FACES)
    assert "holds biometric templates of the people in training" in card(folder, results(), asked)


def test_what_could_not_be_measured_is_said(folder):
    given = results(threshold=np.nan)
    none = model_card.Results(given.report.iloc[:0], given.rates, given.held, 0.01, given.too_poor)
    text = card(folder, none)
    assert "nothing was measured" in text
    assert "val has too few pairs to choose a threshold on" in text
    assert "Not tested: not possible: val is empty." in text
    kept = json.loads((folder / "thresholds.json").read_text(encoding="utf-8"))
    assert kept == {
        "model": "mine",
        "numbers": 8,
        "known": 2,
        "pairs": None,
        "people": None,
        "too_poor": None,
    }
    assert "Too poor to tell: not possible: no smears. The length of an embedding says nothing." in text


def test_how_much_a_photo_shows_is_a_length(folder):
    text = card(folder, results(strangers(), too_poor="Of 20 bad photos, 5 % are."))
    assert "an embedding shorter than **1** (`face.embedding_norm`), as 95% of val's smears are" in text
    assert "Of 20 bad photos, 5 % are." in text and "photos weigh as much as they show" in text
    kept = json.loads((folder / "thresholds.json").read_text(encoding="utf-8"))
    assert kept["too_poor"] == {"length": 1.0, "smears_below": 0.95}
