"""What surrounds a head: the background, the neck, the shoulders and the clothes."""

import math

import cv2
import numpy as np

from src.demo.hair import HANGING, curtain
from src.demo.light import over
from src.demo.people import Person, View


def background(look: View, side: int) -> np.ndarray:
    """A wall, a room or a street out of focus: linear RGB [side, side, 3]."""
    rng = np.random.default_rng(look.scene)
    base = rng.uniform(0.08, 0.6) * (1 + rng.normal(0, 0.06, 3))
    small = (
        np.full((24, 24, 3), base, np.float32) * np.linspace(1 + rng.normal(0, 0.25), 1, 24)[:, None, None]
    )
    for _ in range(rng.integers(0, 14)):
        x, y = rng.integers(-4, 24), rng.integers(-6, 24)
        width, height = rng.integers(2, 12), rng.integers(2, 16)
        colour = base * rng.uniform(0.4, 1.5) * (1 + rng.normal(0, 0.08, 3))
        cv2.rectangle(small, (int(x), int(y)), (int(x + width), int(y + height)), colour.tolist(), -1)
    room = cv2.GaussianBlur(cv2.resize(small, (96, 96)), (0, 0), rng.uniform(0.8, 4.0))
    scene = cv2.resize(room.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(scene, 0.01, 1) * look.exposure * np.array(look.tint, np.float32)


def body(picture: np.ndarray, who: Person, look: View) -> None:
    """Neck, shoulders and clothes, painted behind the head, in place."""
    side = len(picture)
    scale = look.size * side  # pixels per half head
    x = (np.arange(side, dtype=np.float32) - look.centre[0] * side) / scale
    y = (np.arange(side, dtype=np.float32)[:, None] - look.centre[1] * side) / scale
    roll = math.radians(look.roll)
    turn = math.sin(math.radians(look.yaw))
    x = x - 0.1 * turn + math.sin(roll) * np.clip(1.2 - y, 0, 1.2) * 0.8
    wide = 1.35 + 0.25 * who.masculine
    neck = (0.36 + 0.07 * who.masculine) * who.width + 0.30 * np.clip(y - 1.15, 0, 1) ** 2
    edge = 1.5 / scale
    if who.hair_style in HANGING:
        curtain(picture, who, look, x + 0.5 * turn, y, edge)
    sun = 1 + 0.5 * look.contrast * math.sin(math.radians(look.light[0])) * np.clip(x / wide, -1, 1)
    round_neck = np.sqrt(np.clip(1 - (x / (neck + 0.05)) ** 2, 0.15, 1)) * (
        0.45 + 0.45 * np.clip((y - 0.75) / 0.6, 0, 1)
    )
    skin = (np.array(who.skin, np.float32) / 255) ** 2 * look.exposure * np.array(look.tint, np.float32)
    over(picture, skin * (round_neck * sun)[..., None], np.clip((neck - np.abs(x)) / edge, 0, 1) * (y > 0.3))
    shoulder = 1.38 + 0.30 * (np.abs(x) / wide) ** 2.2 + 0.9 * np.clip(np.abs(x) - wide, 0, None)
    collar = 1.62 - 2.2 * np.maximum(x, -x) ** 1.6
    top = np.maximum(shoulder - 0.12, collar)
    cloth = (np.array(look.clothes, np.float32) / 255) ** 2 * look.exposure * np.array(look.tint, np.float32)
    shape = (
        np.sqrt(np.clip(1 - (x / (wide + 0.5)) ** 2, 0.1, 1))
        * (0.75 + 0.25 * np.clip((y - top) * 4, 0, 1))
        * 0.8
    )
    over(picture, cloth * (shape * sun)[..., None], np.clip((y - top) / edge, 0, 1))
