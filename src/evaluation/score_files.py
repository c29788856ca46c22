"""The scores of a test set as files that other tools read: Bob (two, four and five columns) and pyeer.

So anybody can compute the report's figures with a program that is not ours.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from src import artifacts
from src.evaluation.pairs import Trials, checked

FORMATS = ("bob-2", "bob-4", "bob-5", "pyeer")
_BLOCK = 256  # photos whose pairs are in memory at once


def write(
    embeddings: np.ndarray, test: Trials, folder: Path, name: str, form: str = "bob-5", names: bool = False
) -> list[Path]:
    """Writes the score of every pair of a test set, as one of FORMATS; returns the files.

    embeddings: float32 [N, D], unit rows of all photos, as `verification.evaluate` takes them. "bob-2" writes
    `<name>-2col.txt` for `bob measure`, a line a pair: 1 or -1, score. "bob-4" writes `<name>-4col.txt` for
    `bob bio`: claimed identity, real identity, probe, score. "bob-5" writes `<name>-5col.txt`, with the
    model's (the first photo's) label second. "pyeer" writes `<name>-genuine.txt` and `<name>-impostor.txt`, a
    score a line. Pairs are those of the report: two photos
    of one group of near-duplicates make none. names: whether people go by their names, without blanks, rather
    than by numbers.

    A pair of which a photo has no embedding can't be written as a number that every tool reads, and counts
    half in our AUC. Raises ValueError, with how many photos lack one, where there are such; for another form;
    and where two people's names are the same without blanks. OSError where the disk is full.
    """
    if form not in FORMATS:
        raise ValueError(f"there is no form {form!r} of score files; give one of {', '.join(FORMATS)}")
    vectors = checked(embeddings, test.rows, name)
    if missing := int(np.isnan(vectors[:, 0]).sum()):
        raise ValueError(
            f"{name} gives no embedding of {missing} photos of {test.name}: their pairs have no score that "
            "other tools read"
        )
    people = _people(test, names)
    if form == "pyeer":
        return _two_files(vectors, test, folder, name)
    file = folder / f"{name}-{form[-1]}col.txt"
    with (
        artifacts.room_for(file.name, folder),
        artifacts.whole(file) as draft,
        draft.open("w", encoding="utf-8") as lines,
    ):
        for first, second, scores in _scored(vectors, test):
            for a, b, score in zip(first.tolist(), second.tolist(), scores.tolist(), strict=True):
                claimed, real = test.identity[a], test.identity[b]
                if form == "bob-2":
                    lines.write(f"{1 if claimed == real else -1} {score:.9g}\n")
                    continue
                model = people[claimed] + (f" photo_{test.rows[a]}" if form == "bob-5" else "")
                lines.write(f"{model} {people[real]} photo_{test.rows[b]} {score:.9g}\n")
    return [file]


def _two_files(vectors: np.ndarray, test: Trials, folder: Path, name: str) -> list[Path]:
    files = [folder / f"{name}-{kind}.txt" for kind in ("genuine", "impostor")]
    with (
        artifacts.room_for(name, folder),
        artifacts.whole(files[0]) as one,
        artifacts.whole(files[1]) as other,
        one.open("w", encoding="utf-8") as genuine,
        other.open("w", encoding="utf-8") as impostor,
    ):
        for first, second, scores in _scored(vectors, test):
            same = test.identity[first] == test.identity[second]
            for lines, part in ((genuine, scores[same]), (impostor, scores[~same])):
                lines.writelines(f"{score:.9g}\n" for score in part.tolist())
    return files


def _scored(vectors: np.ndarray, test: Trials) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Positions of the pairs' photos in the test set, [n] and [n], and their scores [n], piece by piece."""
    for start in range(0, len(vectors), _BLOCK):
        scores = vectors[start : start + _BLOCK] @ vectors.T
        first, second = np.nonzero(np.arange(len(vectors)) > np.arange(start, start + len(scores))[:, None])
        apart = (test.group[start + first] != test.group[second]) | (test.group[second] < 0)
        first, second = first[apart], second[apart]
        yield start + first, second, scores[first, second]


def _people(test: Trials, names: bool) -> list[str]:
    if not names:
        return [f"person_{number}" for number in range(len(test.people))]
    people = [re.sub(r"\s+", "_", person.strip()) or "_" for person in test.people]
    if len(set(people)) < len(people):
        raise ValueError("two people have the same name without blanks: write them by numbers (names=False)")
    return people
