"""The notebook again with other seeds: how far the report of one split and one training can be trusted.

An interval over people says what other people of the same kind would give, with this split and this training.
Another seed deals the photos anew and trains anew; what that changes, these functions tell.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FOLDER, FILE = "repeats", "repeats.csv"
_SAME = ("clean.parquet", "set_aside.csv", "same_pictures.parquet")  # what no seed changes
_KEYS = ["model", "test", "quality"]
_WIDTH = 2 * 1.96  # standard errors from end to end of a 95 % interval


def run(execute: Callable[[dict[str, Any]], object], parameters: Mapping[str, Any], times: int) -> str:
    """Runs the notebook with so many seeds, from the parameters' own on; returns what they say together.

    execute: runs the notebook with such parameters. The first run is that of `processed` itself, the others
    are kept below `processed`/repeats; what no seed changes, cleaning and the search for faces, is taken from
    the first. What is complete is not computed again, and what was interrupted goes on. The table of
    `combined` is kept in `processed` as FILE. What is returned compares the primary model with the baseline.
    Raises ValueError where `times` is not 2 or more.
    """
    if times < 2:
        raise ValueError(f"repeats={times} compares nothing: give 2 or more")
    first = Path(parameters["processed"])
    reports = {}
    for number in range(times):
        seed = parameters["seed"] + number
        folder = first if number == 0 else first / FOLDER / f"seed-{seed}"
        if number:
            share(first, folder)
        print(f"run {number + 1} of {times}: seed {seed}, in {folder}")
        execute({**parameters, "seed": seed, "processed": str(folder)})
        reports[seed] = pd.read_csv(folder / "report.csv")
    table = combined(reports)
    file = first / FILE
    table.to_csv(file, index=False)
    report = next(iter(reports.values()))
    primary = report.loc[report["primary"].astype(bool), "model"]
    if primary.empty:
        return f"\n{times} splits and trainings: {file}"
    words = in_words(table, primary.iloc[0], report["baseline"].iloc[0])
    return f"\n{words}\nAll models and strata: {file}"


def share(first: Path, folder: Path) -> None:
    """Links what no seed changes from the first run's folder to another's, where it is not there yet."""
    names = [name for stem in _SAME for name in (stem, f"{stem}.inputs.json")]
    files = [first / name for name in names] + [
        file for file in _below(first / "candidates") if file.is_file()
    ]
    for file in files:
        there = folder / file.relative_to(first)
        if file.is_file() and not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, there)
            except OSError:  # another drive, or a file system without links
                shutil.copy2(file, there)


def _below(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()


def combined(reports: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """One row per model, test set and stratum of reports by seed: median and range over splits and trainings.

    Columns: model, test, quality, runs, auc_median, auc_min, auc_max, difference_median, _min and _max (of
    the AUC to the baseline's), above (runs in which its interval lies above 0), below (below 0), and the
    standard deviations of the AUC: of_people, the median over runs of what the intervals say, and of_runs,
    between splits and trainings. The second holds a part of the first where runs test different people.
    """
    every = pd.concat([report.assign(seed=seed) for seed, report in reports.items()], ignore_index=True)
    every = every[every["auc"].notna()]
    every = every.assign(
        above=every["auc_difference_low"] > 0,
        below=every["auc_difference_high"] < 0,
        of_people=(every["auc_high"] - every["auc_low"]) / _WIDTH,
    )
    found = every.groupby(_KEYS, sort=False).agg(
        runs=("seed", "size"),
        auc_median=("auc", "median"),
        auc_min=("auc", "min"),
        auc_max=("auc", "max"),
        difference_median=("auc_difference", "median"),
        difference_min=("auc_difference", "min"),
        difference_max=("auc_difference", "max"),
        above=("above", "sum"),
        below=("below", "sum"),
        of_people=("of_people", "median"),
        of_runs=("auc", "std"),
    )
    return found.reset_index()


def in_words(table: pd.DataFrame, model: str, baseline: str, quality: str = "all") -> str:
    """What the runs say of one model against the baseline, a line per test set."""
    lines = []
    for row in table[(table["model"] == model) & (table["quality"] == quality)].to_dict("records"):
        middle, least, most = (row[f"difference_{what}"] for what in ("median", "min", "max"))
        text = f"{model} against {baseline}, {row['test']}, {quality} pairs, {row['runs']} splits and "
        text += f"trainings: difference of AUC {middle:+.3f} in the middle, {least:+.3f} to {most:+.3f}; "
        text += f"its interval over people lies above 0 in {row['above']}, below 0 in {row['below']}."
        if np.isfinite(row["of_people"] + row["of_runs"]):
            text += f" Standard deviation of the AUC: {row['of_people']:.3f} over people, as the intervals "
            text += f"say, {row['of_runs']:.3f} between runs, which no interval covers."
        lines.append(text)
    return "\n".join(lines)
