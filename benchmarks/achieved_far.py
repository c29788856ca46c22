"""Does the interval of the FAR and TAR at a threshold from `val` hold what such thresholds reach?

Embeddings of people of a world whose truth is known: people differ in how unlike their photos are, and in how
near they are to everybody. `val` and the test are drawn anew each time, "apart", of other people, or
"shared", of the same people with other photos. The threshold is chosen on `val`, and the interval should
hold the FAR that was aimed at and the TAR that the world has there, 95 times in 100. "as given" is the
interval that takes the threshold for exact.

    python -m benchmarks.achieved_far            # 3 minutes of one core
"""

import argparse

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from src.evaluation import operating_point, pairs

DIMENSIONS = 24
FARS = (0.1, 0.01)
CASES = (
    ((8, 8), False),
    ((8, 20), False),
    ((20, 20), True),
    ((20, 30), False),
    ((30, 30), True),
)  # people, shared
NEAR = 0.45  # how far people lie towards what all have in common, at least; that of each is larger


def photos(people: int, each: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What is common to each person's photos [people, DIMENSIONS], and how unlike they are [people]."""
    common = np.zeros(DIMENSIONS)
    common[0] = 1
    near = NEAR + 0.25 * rng.exponential(size=(people, 1))
    centres = rng.normal(size=(people, DIMENSIONS)) / DIMENSIONS**0.5 + near * common
    return centres, 0.55 * np.exp(0.35 * rng.normal(size=people))


def taken(world: tuple[np.ndarray, np.ndarray], identity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A photo of each of these people [n]: unit rows float32 [n, DIMENSIONS]."""
    centres, spread = world
    rows = centres[identity] + spread[identity, None] * rng.normal(size=(len(identity), DIMENSIONS)) / (
        DIMENSIONS**0.5
    )
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def truth(seed: int = 1, people: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the world, ascending: of impostor and of genuine pairs."""
    rng = np.random.default_rng(seed)
    world = photos(people, 2, rng)
    first, second = (taken(world, np.arange(people), rng) for _ in range(2))
    impostor = (first @ second.T)[~np.eye(people, dtype=bool)]
    genuine = np.einsum("id,id->i", first, second)
    return np.sort(impostor)[::50], np.sort(genuine)


def above(scores: np.ndarray, threshold: float) -> float:
    """The share of ascending scores that reach a threshold."""
    return 1 - float(np.searchsorted(scores, threshold)) / len(scores)


def once(
    people: tuple[int, int],
    shared: bool,
    world_scores: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> list[dict[str, object]]:
    """What the intervals of one val and one test hold."""
    of_val, of_test = people
    world = photos(of_val + of_test, 8, rng)
    who = {"val": np.arange(of_val), "test": np.arange(of_test) + (0 if shared else of_val)}
    results = {}
    for name, persons in who.items():
        identity = np.repeat(persons, rng.integers(4, 13, len(persons)))
        vectors = taken(world, identity, rng)
        codes = np.searchsorted(persons, identity)
        n = len(identity)
        trials = pairs.Trials(
            name,
            np.arange(n),
            codes,
            tuple(f"{one:04d}" for one in persons),
            np.full(n, 2, np.int8),
            np.full(n, -1),
        )
        results[name] = pairs.evaluate({"model": vectors}, {name: trials})[name]
    rows = []
    for far in FARS:
        chosen = operating_point.thresholds({operating_point.ALL: results["val"]}, far)
        of = {"all": results["val"]}
        (row,) = operating_point.at_thresholds({"test": results["test"]}, chosen, of).to_dict("records")
        counts, at = results["test"]["model"]["all"], row["threshold"]
        for rate, aim in zip(
            ("far", "tar"), (far, above(world_scores[1], np.quantile(world_scores[0], 1 - far))), strict=True
        ):
            low, high = row[f"{rate}_low"], row[f"{rate}_high"]
            part, clusters = (
                (counts.impostor, counts.cluster_impostor)
                if rate == "far"
                else (counts.genuine, counts.cluster_genuine)
            )
            without = operating_point._share_accepted_without_each(counts, part, clusters, at)
            fixed = operating_point.interval(row[rate], without, clusters.sum(1))
            rows.append(
                {
                    "val": of_val, "test": of_test, "shared": shared, "far": far, "rate": rate,
                    "shown": np.isfinite(low), "held": low <= aim <= high,
                    "as given": fixed[0] <= aim <= fixed[1] if np.isfinite(low) else False,
                    "in use": low <= above(world_scores[rate == "tar"], at) <= high,
                    "ratio": row[rate] / aim, "width": np.log(high / low) if low > 0 else np.nan,
                    "below": high < aim, "above": low > aim,
                }
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    world_scores = truth()
    rng = np.random.default_rng(arguments.seed)
    rows = []
    for people, shared in CASES:
        for _ in tqdm(range(arguments.repeats), f"{people}", leave=False, disable=None):
            rows += once(people, shared, world_scores, rng)
    table = pd.DataFrame(rows)
    keys = ["shared", "val", "test", "rate", "far"]
    shown = (
        table[table["shown"]]
        .groupby(keys, sort=False)[["held", "as given", "in use", "below", "above"]]
        .mean()
        * 100
    )
    shown["shown"] = table.groupby(keys, sort=False)["shown"].mean() * 100
    shown["ratio"] = table.groupby(keys, sort=False)["ratio"].median()
    shown["width"] = table.groupby(keys, sort=False)["width"].median()
    print(shown.round(1).to_string())


if __name__ == "__main__":
    main()
