"""Hair: a second surface around the head, and what hangs down behind the neck."""

from functools import lru_cache

import cv2
import numpy as np

from src.demo.head import profiles
from src.demo.light import over
from src.demo.people import Person, View
from src.demo.texture import DETAIL, directions, noise

HANGING = {"bob": 1.0, "long": 1.65}  # how far down hair falls behind the neck, in half heads


@lru_cache(maxsize=8)
def surface(who: Person) -> tuple[np.ndarray, np.ndarray]:
    """The hair around the head: its radius, as a head's, and its colour and coverage (uint8 RGBA)."""
    _, _, longitude, latitude = directions()
    around = np.abs(longitude)
    line = who.hairline * 0.94
    fringe, sideburn, nape = {
        "bald": (-1.5, -0.2, 0.2),
        "cropped": (line, 0.02, 0.4),
        "short": (line + 0.02, 0.12, 0.5),
        "fringe": (-0.33, 0.15, 0.6),
        "swept": (line + 0.06, 0.12, 0.6),
        "bob": (line + 0.05, 0.55, 0.75),
        "long": (line + 0.02, 0.60, 0.80),
    }[who.hair_style]
    corners = np.array([0, 0.45, 0.8, 1.05, 1.15, 1.32, 1.42, 1.75, 1.95, np.pi])
    temple = min(fringe + 0.22, -0.25) if who.hair_style != "bald" else -0.7
    ear = sideburn if who.hair_style in HANGING else -0.16
    edge = np.interp(
        around,
        corners,
        [fringe, fringe + 0.02, fringe + 0.1, temple, sideburn, sideburn, ear, ear, nape, nape],
    )
    if who.hair_style == "swept" or who.hair_style in HANGING:
        edge += (
            0.28
            * np.clip(1 - around / 0.9, 0, 1)
            * np.tanh(3 * (longitude - 0.5 * who.parting) * np.sign(who.parting or 1))
        )
    strands = (1 - who.hair_curl) * noise("strands") + who.hair_curl * noise("curls")
    softness = 0.045 if who.hair_style in ("cropped", "bald") else 0.022
    density = 0.8 if who.hair_style in ("cropped", "bald") else 1.0
    coverage = density * np.clip(0.5 + (edge - latitude + 0.02 * strands) / (2 * softness), 0, 1)

    thickness = {
        "bald": 0.012,
        "cropped": 0.035,
        "short": 0.10,
        "fringe": 0.12,
        "swept": 0.15,
        "bob": 0.15,
        "long": 0.13,
    }
    depth = thickness[who.hair_style] * who.hair_volume
    front, side = profiles(who)
    bare = side + (np.minimum(front, 1.1) - side) * np.clip(np.cos(longitude), 0, 1) ** 2
    bulk = depth * np.clip(0.45 + (edge - latitude) * 2.5, 0.1, 1) * (1 + 0.5 * who.hair_curl)
    if who.hair_style not in HANGING:
        bulk = bulk * np.clip(1 - (latitude + 0.25) / 0.35, 0.12, 1)
    shell = bare + bulk
    shell = cv2.GaussianBlur(shell.astype(np.float32), (0, 0), 0.045 * DETAIL)
    shell += (0.004 + 0.02 * who.hair_curl) * depth / 0.12 * cv2.GaussianBlur(strands, (0, 0), 1.5)

    colour = np.array(who.hair_colour, np.float32) * (1 + (0.15 - 0.06 * who.hair_curl) * strands)[..., None]
    rgba = np.concatenate([np.clip(colour, 0, 255), 255 * coverage[..., None]], 2)
    return shell.astype(np.float32), rgba.astype(np.uint8)


def curtain(picture: np.ndarray, who: Person, look: View, x: np.ndarray, y: np.ndarray, edge: float) -> None:
    """Long hair behind the neck, in place.

    x, y: half heads from the middle of the neck, over the picture. edge: of an outline, its softness.
    """
    end = HANGING[who.hair_style]
    wave = 0.03 * who.hair_curl * np.sin(9 * y + 3 * x)
    half = 0.60 * who.width + 0.09 * who.hair_volume + 0.12 * np.clip(y, 0, 1) + wave
    ragged = np.sin(37 * x) * np.sin(23 * x + 1)
    grain = 1 + 0.12 * np.sin(60 * x + 4 * np.sin(5 * y)) + 0.08 * np.sin(31 * x + 2)
    colour = (
        (np.array(who.hair_colour, np.float32) / 255) ** 2 * look.exposure * np.array(look.tint, np.float32)
    )
    alpha = (
        np.clip((half - np.abs(x)) / edge, 0, 1)
        * np.clip((end + 0.05 * ragged - y) / 0.08, 0, 1)
        * (y > -0.2)
    )
    over(picture, colour * (0.5 * grain * (1 - 0.2 * np.abs(x)))[..., None], alpha)
