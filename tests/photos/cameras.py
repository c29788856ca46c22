"""Frames of fixed cameras: all alike but for the drawn person in front of the camera."""

import cv2
import numpy as np

from src.demo import drawing, people, scene


def sitter(who: people.Person, rng: np.random.Generator, side: int = 192) -> tuple[np.ndarray, np.ndarray]:
    """A drawn head and where it is: RGB `[side, side, 3]` and 0-1 `[side, side, 1]`, float32."""
    look = people.view(rng)
    picture = drawing.draw(who, look, side)[0].astype(np.float32)
    wall = cv2.resize(scene.background(look, side * 5 // 4), (side, side), interpolation=cv2.INTER_AREA)
    differs = np.abs(picture - 255 * np.sqrt(wall.clip(0, 1))).max(axis=2) > 2
    head = cv2.ellipse(np.zeros((side, side), np.uint8), (side // 2, side // 2), (70, 94), 0, 0, 360, 1, -1)
    return picture, (differs & (head > 0))[..., None].astype(np.float32)


def room(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """What one camera always sees: walls, things and fine structure, RGB float32 `[height, width, 3]`."""
    wall = 255 * np.sqrt(scene.background(people.view(rng), max(height, width)).clip(0, 1))
    picture = np.ascontiguousarray(wall[:height, :width]).astype(np.float32)
    for _ in range(40):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        far = (x + int(rng.integers(5, width // 5)), y + int(rng.integers(5, height // 5)))
        colour = (picture[y, x] * rng.uniform(0.5, 1.5) + rng.normal(0, 12, 3)).tolist()
        cv2.rectangle(picture, (x, y), far, colour, -1 if rng.random() < 0.6 else 2, cv2.LINE_AA)
    grain = cv2.GaussianBlur(rng.normal(0, 10, (height, width)).astype(np.float32), (0, 0), 1.2)
    return cv2.GaussianBlur(picture, (0, 0), 0.7) + grain[..., None]


def frames(seed: int, one_spot: bool, size: tuple[int, int] = (480, 640)) -> dict[str, np.ndarray]:
    """Eight people with eight frames of one camera each, faces 5-15 % as wide as the frame.

    one_spot: everyone stands at the same place, far away, but for a few pixels.
    """
    rng = np.random.default_rng(seed)
    view = room(rng, *size)
    height, width = size
    usual = rng.uniform(0.05, 0.08)
    found = {}
    for number in range(8):
        who = people.person(7000 + 100 * seed + number)
        for frame in range(8):
            head, mask = sitter(who, rng)
            share = usual * rng.uniform(0.97, 1.03) if one_spot else rng.uniform(0.05, 0.15)
            side = round(share * width / 0.45)  # the face takes up 45 % of what `sitter` draws
            head = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)
            mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)[..., None]
            place = rng.normal(0.5, 0.01, 2) if one_spot else rng.uniform(0, 1, 2)
            top, left = (place.clip(0, 1) * (height - side, width - side)).astype(int)
            picture = view.copy()
            window = picture[top : top + side, left : left + side]
            window += (head - window) * mask
            light = rng.uniform(0.97, 1.03)
            noisy = picture * light + rng.normal(0, rng.uniform(1, 4), picture.shape)
            found[f"{number}/{frame}.jpg"] = noisy.clip(0, 255).astype(np.uint8)
    return found
