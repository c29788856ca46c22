"""Do the 95 % intervals of the report hold the truth 95 times in 100?

Photos are drawn from a known world: people differ in how hard they are (sheep and goats) and in how much they
look like others (lambs and wolves), have 4 to 24 photos each, some of low quality; a second model sees the
same photos a little better. Truth is the mean over large samples of that world. For every small sample the
report's intervals, and a bootstrap of pairs, either hold it or do not.

    python -m benchmarks.coverage --people 8 20 60 --repeats 400
    python -m benchmarks.coverage --people 8 20 60 --repeats 400 --world varied
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.evaluation import intervals, verification
from src.evaluation.pairs import Results

# dimensions; how far people who look like others stand out; how unlike people are in how hard they are; noise
# of good photos and of bad ones; the second model's noise relative to the first's, the part it does not share
WORLDS = {
    "usual": (64, 3.0, 0.35, 1.1, 1.9, 0.85, 0.5),
    "varied": (32, 1.5, 0.6, 1.0, 2.2, 0.8, 0.3),
    "uniform": (128, 5.0, 0.2, 1.6, 2.6, 1.1, 0.7),
}
MEASURES = ("auc", "eer", "tar_far_1e-1", "tar_far_1e-2")
STRATA = ("all", "high-low")


def sample(people: int, rng: np.random.Generator, world: str) -> Results:
    """Results of two models on a test set of so many people."""
    dimensions, standing_out, unlike, good, bad, relative, part_own = WORLDS[world]
    photos = rng.integers(4, 25, people)
    identity = np.repeat(np.arange(people), photos)
    n = len(identity)
    centres = rng.normal(size=(people, dimensions))
    centres[:, 0] += standing_out * np.abs(rng.normal(size=people))
    low = rng.random(n) < 0.5
    spread = np.exp(unlike * rng.normal(size=people))[identity] * np.where(low, bad, good)
    shared, own = rng.normal(size=(2, n, dimensions))
    embeddings = {}
    for name, scale, part in (("first", 1.0, 0.0), ("second", relative, part_own)):
        noise = scale * spread[:, None] * (np.sqrt(1 - part) * shared + np.sqrt(part) * own)
        vectors = centres[identity] + noise
        embeddings[name] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    test = verification.Trials(
        "test", np.arange(n), identity, (), low.astype(np.int8), np.full(n, -1, np.int64)
    )
    return verification.evaluate(embeddings, {"test": test})


def of_report(results: Results) -> dict[str, tuple[float, float, float]]:
    """Value, low and high end of every measure of the first model, and of the second's difference to it."""
    table = verification.report(results)
    found = {}
    for line in table[table["quality"].isin(STRATA)].to_dict("records"):
        for measure in MEASURES:
            name = measure if line["model"] == "first" else f"{measure}_difference"
            found[f"{line['quality']} {name}"] = (line[name], line[f"{name}_low"], line[f"{name}_high"])
    return found


def bootstrap_of_pairs(results: Results, rng: np.random.Generator, draws: int = 200) -> dict[str, np.ndarray]:
    """What most evaluations do: percentile intervals from pairs drawn as if they were independent."""
    bounds = {}
    for quality in STRATA:
        counts = results["test"]["first"][quality]
        drawn = [
            rng.poisson(intervals.on_coarse_grid(counts, part), (draws, len(counts.cluster_score)))
            for part in (counts.genuine, counts.impostor)
        ]
        curves = verification.far_and_tar(drawn[0], drawn[1])
        for name, values in verification.measures(*curves).items():
            bounds[f"{quality} {name}"] = np.percentile(values, (2.5, 97.5))
    return bounds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, nargs="+", default=[8, 20, 60])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--truth", type=int, nargs=2, default=[4, 1500], help="samples, people in each")
    parser.add_argument("--world", choices=WORLDS, default="usual")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="CSV file for the table")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)

    samples, many = arguments.truth
    large = [of_report(sample(many, rng, arguments.world)) for _ in tqdm(range(samples), "truth")]
    truth = {name: np.mean([one[name][0] for one in large]) for name in large[0]}
    rows = []
    for people in arguments.people:
        for _ in tqdm(range(arguments.repeats), f"{people} people"):
            results = sample(people, rng, arguments.world)
            pairs = bootstrap_of_pairs(results, rng)
            for name, (_, low, high) in of_report(results).items():
                if np.isfinite(low):  # else the pairs cannot support the FAR
                    rows.append((people, name, "people", low <= truth[name] <= high, high - low))
                    if name in pairs:
                        low, high = pairs[name]
                        rows.append((people, name, "pairs", low <= truth[name] <= high, high - low))
    table = pd.DataFrame(rows, columns=["people", "measure", "resampled", "held", "width"])
    by = ["measure", "people", "resampled"]
    table = table.groupby(by).agg(
        samples=("held", "size"), coverage=("held", "mean"), width=("width", "median")
    )
    if arguments.out:
        table.to_csv(arguments.out)
    for column, scale in (("coverage", 100), ("samples", 1)):
        wide = table.pivot_table(column, "measure", ["people", "resampled"])
        print(f"{column}\n{wide.mul(scale).round(1).to_string()}")


if __name__ == "__main__":
    main()
