"""Do the 95 % intervals of the report hold the truth 95 times in 100, and its tests reject 5 times in 100?

Pairs are scored in worlds whose truth is known. People differ in how hard they are to recognise and in how
much they look like others, photos in how bad they are. Two models see the same photos; they share most of
what makes a person or a photo hard. Worlds:

  gaussian     all effects of people are Gaussian
  heavy tails  those of people follow Student's t with 3 degrees of freedom
  look-alikes  of all pairs of people one in 20 looks alike, some of them very much
  rare         one person in 8 is of a much harder kind, to whom most errors are due. Of a few people often
               none is of that kind, and nothing about them shows what is missing

The truth is an AUC of .92, .975, .995, .999 or exactly 1. "single" is a model's AUC, "difference" that to a
model with half as much error, and "type I" how often two models of the same truth are said to differ. Half
of the cells have failures to enrol, unevenly over people, to which half of the error is due. An interval
that is not shown is not counted; "shown" says how many are.

    python -m benchmarks.coverage --out OUT            # half an hour, two thirds of it 60 people; resumes
    python -m benchmarks.coverage --out OUT --quick    # a tenth of the test sets, and none of 60 people
"""

import argparse
import itertools
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from tqdm.auto import tqdm

from src.evaluation import intervals

WORLDS = ("gaussian", "heavy tails", "look-alikes", "rare")
AUCS = (0.92, 0.975, 0.995, 0.999, 1.0)
PEOPLE = {3: 500, 5: 500, 8: 500, 20: 400, 60: 60}  # and how often each is drawn
SHARED = 0.7  # of the variance of each effect, what the two models have in common
PHOTO, PAIR = (0.45, 0.25), (0.6, 0.7)  # standard deviations of genuine and of impostor scores
ROUNDING = 1e-9


class Pairs(NamedTuple):
    """Pairs of a test set: who is in them, and which photos."""

    photos: np.ndarray  # int64 [N]: the person of each photo
    genuine: np.ndarray  # int64 [G, 2]: photos
    impostor: np.ndarray  # int64 [I, 2]


# ---------------------------------------------------------------- worlds


def effects(world: str, people: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """How hard people are to recognise, and how much they look like others: [people], [people]."""
    if world == "heavy tails":
        return 0.4 * rng.standard_t(3, people), 0.25 * rng.standard_t(3, people)
    if world == "rare":
        harder = 1 + 2 * rng.exponential(size=people)
        hard = 0.25 * rng.standard_normal(people) + np.where(rng.random(people) < 1 / 8, harder, 0)
        return hard, 0.2 * rng.standard_normal(people)
    scales = (0.3, 0.2) if world == "look-alikes" else (0.6, 0.35)
    return scales[0] * rng.standard_normal(people), scales[1] * rng.standard_normal(people)


def likeness(world: str, pairs: int, rng: np.random.Generator) -> np.ndarray:
    """How much two people look alike [pairs], beyond what is due to each."""
    alike = 0.3 * rng.standard_normal(pairs)
    if world == "look-alikes":
        alike += np.where(rng.random(pairs) < 0.05, 0.5 + 1.5 * rng.exponential(size=pairs), 0)
    return alike


def share_failed(auc: float) -> float:
    """Mean share of photos without an embedding, at exponential rates, that costs half the error."""
    if auc == 1:
        return 0.0
    return float(brentq(lambda mean: _failed_error(mean, 0.0) - (1 - auc) / 2, 0, 0.2))


def _failed_error(mean: float, error: float) -> float:
    """The error of all pairs, if that of pairs without failures is `error`; failures have half credit."""
    genuine, impostor = 1 - 2 * mean + 2 * mean**2, (1 - mean) ** 2  # E (1 - m)^2 of exponential m
    lost = (1 - genuine) * (impostor + (1 - impostor) / 2)
    return float(lost + genuine * impostor * error)


@cache
def _errors(world: str, draws: int = 1_000_000) -> tuple[np.ndarray, np.ndarray]:
    """How far genuine scores lie above impostor scores, and the error that leaves, without failures."""
    rng = np.random.default_rng(12345)
    hard, _ = effects(world, draws, rng)
    genuine = -hard + np.hypot(PHOTO[0] * 2**0.5, PAIR[0]) * rng.standard_normal(draws)
    impostor = effects(world, draws, rng)[1] + effects(world, draws, rng)[1] + likeness(world, draws, rng)
    impostor += np.hypot(PHOTO[1] * 2**0.5, PAIR[1]) * rng.standard_normal(draws)
    genuine.sort()
    impostor = np.sort(impostor)[::5]
    above = np.arange(0, 40, 0.1)
    return above, np.array([np.searchsorted(genuine, impostor - by).mean() / draws for by in above])


def shifts(world: str, failures: bool) -> dict[tuple[float, float], float]:
    """By AUC and share of the error: how far genuine scores must lie above impostor scores."""
    above, errors = _errors(world)
    log = np.log(np.maximum(errors, 1e-12))[::-1]
    found = {(1.0, 1.0): 1e6, (1.0, 0.5): 1e6}
    for auc, part in itertools.product(AUCS[:-1], (1.0, 0.5)):
        wanted = (1 - auc) * part
        mean = share_failed(1 - wanted) if failures else 0.0
        lost, kept = _failed_error(mean, 0.0), _failed_error(mean, 1.0)
        found[auc, part] = float(np.interp(np.log((wanted - lost) / (kept - lost)), log, above[::-1]))
    return found


# ---------------------------------------------------------------- one test set


def draw(world: str, people: int, rng: np.random.Generator) -> tuple[Pairs, list[np.ndarray], np.ndarray]:
    """A test set, each model's scores (genuine then impostor) and what decides on failures [2, photos]."""
    photos = np.repeat(np.arange(people), rng.integers(4, 13, people))
    n = len(photos)
    i, j = np.triu_indices(n, 1)
    same = photos[i] == photos[j]
    at = np.column_stack([i, j])
    pairs = Pairs(photos, at[same], at[~same])

    def of_models(make) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
        """Gaussian effects of two models, with what they share."""
        common = make()
        return [np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * make() for _ in range(2)]

    common_people, common_pairs = effects(world, people, rng), likeness(world, people**2, rng)
    of_photos = of_models(lambda: rng.standard_normal((2, n)))
    of_pairs = of_models(lambda: rng.standard_normal(len(at)))
    models = []
    for photo, pair in zip(of_photos, of_pairs, strict=True):
        own = rng.random(people) > SHARED  # people and pairs of people whom this model sees in its own way
        hard, alike = (
            np.where(own, *both) for both in zip(effects(world, people, rng), common_people, strict=True)
        )
        own_pairs = rng.random(people**2) > SHARED
        close = np.where(own_pairs, likeness(world, people**2, rng), common_pairs).reshape(people, people)
        genuine, impostor = pairs.genuine, pairs.impostor
        who = photos[impostor]
        models.append(
            np.concatenate(
                [
                    PAIR[0] * pair[same] - hard[photos[genuine[:, 0]]] - PHOTO[0] * photo[0][genuine].sum(1),
                    PAIR[1] * pair[~same]
                    + alike[who].sum(1)
                    + close[who[:, 0], who[:, 1]]
                    + PHOTO[1] * photo[1][impostor].sum(1),
                ]
            )
        )
    return pairs, models, np.stack([rng.exponential(size=people)[photos], rng.random(n)])


def aucs(pairs: Pairs, genuine: np.ndarray, impostor: np.ndarray) -> tuple[float, np.ndarray]:
    """The AUC of scores [G], [I] and, exactly, that without each person in turn [people]."""
    people = int(pairs.photos[-1]) + 1
    whose, who = pairs.photos[pairs.genuine[:, 0]], pairs.photos[pairs.impostor]
    of_genuine = np.bincount(whose, minlength=people).astype(float)
    of_impostor = np.bincount(who.ravel(), minlength=people).astype(float)
    order = np.argsort(impostor)
    ascending, who = impostor[order], who[order]
    below = np.searchsorted(ascending, genuine)  # impostor pairs with a lower score,
    until = np.searchsorted(ascending, genuine, "right")  # and not higher
    n = len(ascending)
    wrong = n - (below + until) / 2  # per genuine pair, ties as half
    ranks = [np.cumsum(np.bincount(at, minlength=n + 1))[:n] for at in (below, until)]
    lost = (ranks[0] + ranks[1]) / 2  # per impostor pair
    as_genuine = np.bincount(whose, wrong, people)
    as_impostor = np.bincount(who[:, 0], lost, people) + np.bincount(who[:, 1], lost, people)
    # of each person's genuine pairs with the same person's impostor pairs
    of_person = np.sort((who * (n + 1) + np.arange(n)[:, None]).ravel())
    start = np.searchsorted(of_person, np.arange(people + 1) * (n + 1))
    inside = sum(np.searchsorted(of_person, whose * (n + 1) + at) for at in (below, until)) / 2
    both = np.bincount(whose, start[whose + 1] - inside, people)
    left = wrong.sum() - as_genuine - as_impostor + both
    total = (len(genuine) - of_genuine) * (len(impostor) - of_impostor)
    return 1 - wrong.sum() / (len(genuine) * len(impostor)), 1 - left / total


def rows(
    world: str, people: int, failures: bool, rng: np.random.Generator, moved: dict[tuple[float, float], float]
) -> list[dict[str, object]]:
    """What the intervals of one test set hold, a row per AUC and question."""
    pairs, models, failing = draw(world, people, rng)
    split = len(pairs.genuine)
    weights = np.bincount(pairs.photos[pairs.genuine[:, 0]], minlength=people)
    found: list[dict[str, object]] = []
    for auc in AUCS:
        measured = []
        for model, part in ((0, 1.0), (1, 1.0), (1, 0.5)):
            genuine, impostor = models[model][:split] + moved[auc, part], models[model][split:]
            if failures:
                failed = failing[1] < failing[0] * share_failed(1 - (1 - auc) * part)
                genuine = np.where(failed[pairs.genuine].any(1), -np.inf, genuine)
                impostor = np.where(failed[pairs.impostor].any(1), -np.inf, impostor)
            measured.append(aucs(pairs, genuine, impostor))
        low, high = intervals.interval(*measured[0], weights)
        ends = {"single": (low, high, auc)}
        for name, other, truth in (("type I", 1, 0.0), ("difference", 2, (1 - auc) / 2)):
            (old, old_without), (new, new_without) = measured[0], measured[other]
            low, high, p = intervals.difference(old, new, old_without, new_without, weights)
            ends[name] = (low, high, truth) if name == "difference" else (p - 0.05, p - 0.05, 0.0)
        for name, (low, high, truth) in ends.items():
            shown = bool(np.isfinite(low))
            held = low < truth if name == "type I" else low - ROUNDING <= truth <= high + ROUNDING
            found.append({"auc": auc, "question": name, "shown": shown, "held": shown and bool(held)})
    return found


# ---------------------------------------------------------------- all of them


def cell(world: str, people: int, failures: bool, repeats: int, seed: int) -> pd.DataFrame:
    """Columns world, people, failures, auc, question, repeats, shown and held (counts)."""
    rng = np.random.default_rng([seed, WORLDS.index(world), people, failures])
    moved = shifts(world, failures)
    what = f"{world}, {people} people{', failures' if failures else ''}"
    found = [
        row
        for _ in tqdm(range(repeats), what, leave=False)
        for row in rows(world, people, failures, rng, moved)
    ]
    table = pd.DataFrame(found).groupby(["auc", "question"], as_index=False).sum()
    return table.assign(world=world, people=people, failures=failures, repeats=repeats)


def summary(table: pd.DataFrame, question: str, least: int) -> pd.DataFrame:
    """Per cent held of those shown, by world and people; "-" where fewer than `least` are shown."""
    of = table[table["question"] == question]
    of = of.groupby(["world", "people", "failures", "auc"], sort=False)[["held", "shown", "repeats"]].sum()
    percent = (100 * of["held"] / of["shown"].where(of["shown"] >= least)).map("{:.1f}".format)
    percent = percent.replace("nan", "-") + (100 * of["shown"] / of["repeats"]).map(" ({:.0f})".format)
    return percent.reset_index(name="percent").pivot_table(
        "percent", ["world", "people", "failures"], "auc", aggfunc="first", sort=False
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the cells that are done")
    parser.add_argument("--quick", action="store_true", help="a tenth of the test sets, none of 60 people")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=WORLDS)
    parser.add_argument("--people", type=int, nargs="+", choices=PEOPLE, default=list(PEOPLE))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tables = []
    for people, world, failures in itertools.product(arguments.people, arguments.worlds, (False, True)):
        if arguments.quick and people > 20:
            continue
        repeats = PEOPLE[people] // (10 if arguments.quick else 1)
        file = arguments.out / f"{world}-{people}-{failures}-{repeats}-{arguments.seed}.csv"
        if not file.exists():
            done = cell(world, people, failures, repeats, arguments.seed)
            done.to_csv(file.with_suffix(".part"), index=False)
            file.with_suffix(".part").rename(file)
        tables.append(pd.read_csv(file))
    table = pd.concat(tables)
    for question, text in (
        ("single", "coverage of an AUC"),
        ("difference", "coverage of a difference of AUC"),
        ("type I", "two equal models said to differ"),
    ):
        print(f"\n{text}, % of those shown (% shown)\n{summary(table, question, 30).to_string()}")


if __name__ == "__main__":
    main()
