"""The demo set: folders of generated photos with the flaws that a real collection has."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from src.artifacts import room_for, whole
from src.demo.camera import encoded, spoil
from src.demo.drawing import draw
from src.demo.people import Person, person, view


def photo(who: Person, quality: str, rng: np.random.Generator) -> np.ndarray:
    """One photo of a person, uint8 RGB; quality is "high" or "low"."""
    if quality == "high":
        return draw(who, view(rng), int(rng.integers(192, 241)))[0]
    look = view(rng, wild=0.7)
    return spoil(draw(who, look, 144)[0], face_width=1.34 * look.size * 144, rng=rng)


def make(folder: Path, people: int = 48, seed: int = 0, high: int = 10, low: int = 14) -> Path:
    """Writes a demo set, folder/images/<person>/{high_quality,low_quality}/, and returns folder/images.

    Each person has `high` good and `low` bad photos. As in a real collection, some have near-duplicates too
    (a photo re-encoded or reduced, a burst of neighbouring frames); there is one exact copy, and five files
    are unreadable. The same arguments give the same pictures; a set already made with them is kept as it is.

    Raises FileExistsError where folder/images holds something else, and OSError in one sentence where the
    disk is full.
    """
    if people < 1 or high < 1 or low < 0:
        raise ValueError(
            f"A demo set needs people and good photos, not {people} people with {high} good photos."
        )
    images, note = Path(folder) / "images", Path(folder) / "demo.json"
    recipe = {"people": people, "seed": seed, "high": high, "low": low, "drawing": 1}
    if images.exists() and any(images.iterdir()):
        if note.exists() and json.loads(note.read_text(encoding="utf-8")) == recipe:
            return images
        if not note.exists():
            raise FileExistsError(f"{images} holds files that are not a demo set; give an empty folder.")
    with room_for("the demo set", Path(folder)):
        _write_note(note, {})  # the folder is ours, and its set is not finished
        draft = Path(folder) / "images.part"
        shutil.rmtree(draft, ignore_errors=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            numbers = range(people)
            jobs = [pool.submit(_album, draft / f"person_{n + 1:03d}", seed, n, high, low) for n in numbers]
            for job in tqdm(jobs, desc="demo faces", unit="person"):
                job.result()
        _plant_unreadable(draft)
        if images.exists():
            shutil.rmtree(images)
        draft.replace(images)
        _write_note(note, recipe)
    return images


def _write_note(file: Path, recipe: dict[str, int]) -> None:
    with whole(file) as partial:
        partial.write_text(json.dumps(recipe), encoding="utf-8")


def _album(folder: Path, seed: int, number: int, high: int, low: int) -> None:
    """Writes one person's photos."""
    who = person(_identity_seed(seed, number))
    for quality, count in (("high", high), ("low", low)):
        place = folder / f"{quality}_quality"
        place.mkdir(parents=True)
        for index in range(count):
            rng = np.random.default_rng([seed, number, quality == "high", index])
            picture = photo(who, quality, rng)
            suffix = ".png" if rng.random() < 0.08 else ".jpg"
            (place / f"{quality}_{index:02d}{suffix}").write_bytes(encoded(picture, suffix))
        if number % 4 == 0:
            _plant_duplicates(place, picture)
    if number % 6 == 0:
        _burst(folder / "high_quality", who, np.random.default_rng([seed, number, 2]))


def _identity_seed(seed: int, number: int) -> int:
    return 1_000_000 + 1000 * seed + number


def _plant_duplicates(place: Path, picture: np.ndarray) -> None:
    """The last photo again: re-encoded, and reduced."""
    smaller = cv2.resize(picture, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    (place / "again_reencoded.jpg").write_bytes(encoded(picture, ".jpg", 75))
    (place / "again_smaller.jpg").write_bytes(encoded(smaller, ".jpg"))


def _burst(place: Path, who: Person, rng: np.random.Generator) -> None:
    """Three neighbouring video frames: the head has hardly moved."""
    look = view(rng)
    for frame in range(3):
        moved = replace(
            look, yaw=look.yaw + 0.8 * frame, roll=look.roll + 0.4 * frame, smile=look.smile + 0.02 * frame
        )
        (place / f"frame_{frame}.jpg").write_bytes(encoded(draw(who, moved, 208)[0], ".jpg"))


def _plant_unreadable(images: Path) -> None:
    """Five files that no decoder accepts, and one exact copy under another name."""
    folders = sorted(images.iterdir())
    first, last = folders[0], folders[-1]
    intact = (first / "high_quality" / "frame_0.jpg").read_bytes()
    (first / "high_quality" / "broken_download.jpg").write_bytes(intact[: len(intact) // 3])
    (first / "low_quality" / "empty.jpg").write_bytes(b"")
    (first / "low_quality" / "notes.jpg").write_text("Camera 2 was offline on Tuesday.\n", encoding="utf-8")
    (last / "high_quality" / "header_only.jpg").write_bytes(intact[:20])
    (last / "low_quality" / "page.png").write_text(
        "<html><body>404 Not Found</body></html>", encoding="utf-8"
    )
    (first / "high_quality" / "frame_0_copy.jpg").write_bytes(intact)
