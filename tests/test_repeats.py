"""Repeated runs: what no seed changes is shared, and the table says what the reports say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src import repeats


def report(auc: float, difference: float, half: float = 0.02) -> pd.DataFrame:
    row: dict = {"auc": auc, "auc_low": auc - half, "auc_high": auc + half, "auc_difference": difference}
    row |= {"primary": True, "baseline": "pack"}
    row |= {"auc_difference_low": difference - half, "auc_difference_high": difference + half}
    labels = {"model": "tuned", "test": "test_seen", "quality": "all"}
    lacking = {"model": "lost", "test": "test_seen", "quality": "all", "auc": np.nan, "primary": False}
    return pd.DataFrame([labels | row, lacking])


def test_median_range_and_spread_are_those_of_the_runs():
    values = {0: (0.90, 0.05), 1: (0.94, 0.09), 2: (0.91, -0.03), 3: (0.93, 0.01)}
    found = repeats.combined({seed: report(*value) for seed, value in values.items()})
    assert found["model"].tolist() == ["tuned"]
    row = found.iloc[0]
    aucs = [auc for auc, _ in values.values()]
    assert row["runs"] == 4 and row["auc_median"] == pytest.approx(np.median(aucs))
    assert (row["auc_min"], row["auc_max"]) == (0.90, 0.94)
    assert row["difference_median"] == pytest.approx(0.03) and row["difference_min"] == -0.03
    assert (row["above"], row["below"]) == (2, 1)
    assert row["of_people"] == pytest.approx(0.04 / 3.92) and row["of_runs"] == pytest.approx(
        np.std(aucs, ddof=1)
    )
    words = repeats.in_words(found, "tuned", "pack")
    assert "+0.030 in the middle, -0.030 to +0.090" in words and "above 0 in 2, below 0 in 1" in words


def test_every_seed_runs_once_and_shares_what_no_seed_changes(tmp_path):
    calls = []

    def execute(parameters):
        folder = Path(parameters["processed"])
        calls.append((parameters["seed"], folder, (folder / "clean.parquet").exists()))
        (folder / "candidates").mkdir(parents=True, exist_ok=True)
        for name in ("clean.parquet", "clean.parquet.inputs.json", "candidates/crops.npy", "images.parquet"):
            if not (folder / name).exists():
                (folder / name).write_text(f"seed {parameters['seed']}")
        report(0.9 + 0.01 * parameters["seed"], 0.01).to_csv(folder / "report.csv", index=False)

    said = repeats.run(execute, {"processed": str(tmp_path), "seed": 3, "epochs": 1}, 3)
    assert [seed for seed, _, _ in calls] == [3, 4, 5]
    assert [there for _, _, there in calls] == [False, True, True]
    second = tmp_path / "repeats" / "seed-4"
    assert (second / "clean.parquet").read_text() == "seed 3"
    assert (second / "candidates" / "crops.npy").read_text() == "seed 3"
    assert (second / "images.parquet").read_text() == "seed 4"  # the split is each run's own
    assert pd.read_csv(tmp_path / repeats.FILE)["runs"].tolist() == [3]
    assert "tuned against pack, test_seen, all pairs, 3 splits and trainings" in said
    with pytest.raises(ValueError, match="2 or more"):
        repeats.run(execute, {"processed": str(tmp_path), "seed": 0}, 1)
