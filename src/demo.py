"""Generated faces for the demo: a person is a vector of shape, colour and hair; a photo adds pose and light.

A head is a surface around the origin: x to the right, y down, z towards the camera, one unit is half the
height of a head. Its radius in every direction is a picture (the relief), and so is its colour. Both are laid
out in *face coordinates*, the stereographic projection of the direction as seen from the front: near the
middle of the face they are the head's own x and y, and small shapes keep their form everywhere. To take a
photo, every pixel is followed to the surface, so that turning a head moves its features as they would move in
front of a camera.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

Array = NDArray[Any]

PACK = Path(__file__).parent / "demo_pack"
"""The committed detector and recogniser in InsightFace's format; made by benchmarks/train_demo_pack.py."""

EPOCHS = (22, 10)  # of the ResNet-50 and of the pack's recogniser, at most: a demo takes minutes

DETAIL = 112  # texture pixels per face unit
ORIGIN = np.array(
    [1.9, 2.25]
)  # where the middle of the face lies in the texture, in face units from its corner
WIDTH, HEIGHT = int(2 * ORIGIN[0] * DETAIL), int((ORIGIN[1] + 2.1) * DETAIL)
AXES = np.array([0.67, 1.0, 0.85], np.float32)  # half width, height and depth of the mean head

SKINS = np.array(
    [[246, 214, 190], [232, 188, 156], [208, 158, 122], [168, 116, 82], [112, 74, 52]], np.float32
)
HAIRS = np.array(
    [[24, 20, 20], [46, 32, 26], [82, 54, 36], [120, 80, 48], [176, 136, 84], [138, 62, 34]], np.float32
)
IRISES = np.array([[58, 38, 26], [92, 60, 34], [104, 110, 68], [92, 124, 148], [112, 128, 134]], np.float32)
FRAMES = np.array([[24, 24, 28], [88, 52, 30], [118, 112, 104], [60, 22, 30]], np.float32)
HAIR_STYLES = ("bald", "cropped", "short", "fringe", "swept", "bob", "long")
HANGING = {"bob": 1.0, "long": 1.65}  # how far down hair falls behind the neck, in head units
BEARDS = ("none", "stubble", "moustache", "goatee", "full")


@dataclass(frozen=True)
class Person:
    """One identity. Lengths are in face units, colours 0-255 RGB, everything else 0-1 or around 1."""

    seed: int
    masculine: float
    age: float
    width: float
    jaw: float
    chin: float
    chin_length: float
    cheekbones: float
    forehead: float
    skin: tuple[float, float, float]
    freckles: float
    moles: tuple[tuple[float, float, float], ...]
    eye_gap: float
    eye_height: float
    eye_width: float
    eye_opening: float
    eye_tilt: float
    iris: tuple[float, float, float]
    brow_height: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    nose_length: float
    nose_width: float
    nose_height: float
    mouth_height: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    lip_colour: tuple[float, float, float]
    ears: float
    hair_style: str
    hair_colour: tuple[float, float, float]
    hair_volume: float
    hair_curl: float
    hairline: float
    parting: float
    beard: str
    glasses: str
    glasses_size: float
    glasses_colour: tuple[float, float, float]


@dataclass(frozen=True)
class View:
    """What one photo adds to a person. Angles in degrees; positions and lengths as shares of its side."""

    yaw: float
    pitch: float
    roll: float
    size: float
    centre: tuple[float, float]
    smile: float
    mouth_open: float
    eyes_open: float
    gaze: float
    brows_up: float
    light: tuple[float, float]
    contrast: float
    exposure: float
    tint: tuple[float, float, float]
    with_glasses: bool
    clothes: tuple[float, float, float]
    scene: int


def _colour(values: Array) -> tuple[float, float, float]:
    red, green, blue = np.clip(values, 4, 251).tolist()
    return red, green, blue


def person(seed: int) -> Person:
    """Draw an identity; the same seed always gives the same person."""
    rng = np.random.default_rng([1701, seed])

    def around(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.normal(), -2, 2))

    masculine, age = rng.beta(0.7, 0.7), rng.beta(1.3, 2.2)
    tone = rng.beta(1.0, 1.4) * (len(SKINS) - 1.001)
    skin = SKINS[int(tone)] * (1 - tone % 1) + SKINS[int(tone) + 1] * (tone % 1) + rng.normal(0, 3, 3)
    dark = tone / len(SKINS)
    hair = HAIRS[
        rng.choice(6, p=[0.3, 0.25, 0.2, 0.1, 0.1, 0.05] if dark < 0.5 else [0.7, 0.25, 0.05, 0, 0, 0])
    ]
    grey = float(np.clip((age - 0.5) * 2.2 + rng.normal(0, 0.15), 0, 0.85))
    hair = hair * (1 - grey) + np.array([168, 166, 164]) * grey + rng.normal(0, 6) + rng.normal(0, 1.5, 3)
    iris = IRISES[rng.choice(5, p=[0.35, 0.25, 0.15, 0.15, 0.1] if dark < 0.4 else [0.8, 0.2, 0, 0, 0])]
    styles = [0.1, 0.26, 0.3, 0.12, 0.22, 0, 0] if masculine > 0.5 else [0, 0.02, 0.12, 0.14, 0.16, 0.26, 0.3]
    beards = [0.45, 0.2, 0.1, 0.1, 0.15] if masculine > 0.5 else [1.0, 0, 0, 0, 0]
    lips = skin * np.array([0.86, 0.62, 0.62]) * (1 - 0.25 * rng.random() * (1 - masculine))
    return Person(
        seed=seed,
        masculine=float(masculine),
        age=float(age),
        width=around(1.0, 0.05),
        jaw=around(0.97 + 0.07 * masculine, 0.05),
        chin=around(0.92 + 0.2 * masculine, 0.12),
        chin_length=around(0.98 + 0.04 * masculine, 0.04),
        cheekbones=around(1.0, 0.4),
        forehead=around(1.0, 0.02),
        skin=_colour(skin),
        freckles=float(max(0.0, rng.normal(-0.4, 0.6)) * (dark < 0.4)),
        moles=tuple(
            (
                float(rng.uniform(-0.42, 0.42)),
                float(rng.uniform(-0.4, 0.85)),
                float(rng.uniform(0.012, 0.024)),
            )
            for _ in range(rng.choice(4, p=[0.5, 0.28, 0.14, 0.08]))
        ),
        eye_gap=around(0.285, 0.017),
        eye_height=around(0.0, 0.025),
        eye_width=around(0.138, 0.011),
        eye_opening=around(0.060, 0.009),
        eye_tilt=around(0.05, 0.07),
        iris=_colour(iris + rng.normal(0, 8, 3)),
        brow_height=around(0.185 - 0.02 * masculine, 0.022),
        brow_thickness=around(0.026 + 0.014 * masculine, 0.007),
        brow_arch=around(0.05 - 0.02 * masculine, 0.02),
        brow_tilt=around(-0.02, 0.07),
        nose_length=around(0.385, 0.03),
        nose_width=around(0.125 + 0.035 * dark + 0.01 * masculine, 0.014),
        nose_height=around(0.20 - 0.04 * dark, 0.03),
        mouth_height=around(0.59, 0.025),
        mouth_width=around(0.215, 0.022),
        upper_lip=around(0.040 + 0.015 * dark - 0.008 * masculine, 0.010),
        lower_lip=around(0.056 + 0.018 * dark - 0.006 * masculine, 0.011),
        lip_colour=_colour(lips),
        ears=around(1.0, 0.3),
        hair_style=str(rng.choice(HAIR_STYLES, p=styles)),
        hair_colour=_colour(hair),
        hair_volume=around(1.0, 0.3),
        hair_curl=float(rng.beta(0.6, 1.0) if dark < 0.6 else rng.beta(2, 0.8)),
        hairline=around(-0.62 - 0.06 * masculine * age, 0.035),
        parting=around(0.0, 0.5),
        beard=str(rng.choice(BEARDS, p=beards)),
        glasses=str(rng.choice(("none", "round", "square"), p=[0.76, 0.12, 0.12])),
        glasses_size=around(1.0, 0.08),
        glasses_colour=_colour(FRAMES[rng.integers(len(FRAMES))]),
    )


def view(rng: np.random.Generator, wild: float = 0.0) -> View:
    """Draw a photo's circumstances; `wild` from 0 (a willing sitter) to 1 (any pose and light)."""
    warm = rng.normal(0, 0.05 + 0.05 * wild)
    return View(
        yaw=float(np.clip(rng.normal(0, 13 + 9 * wild), -45, 45)),
        pitch=float(np.clip(rng.normal(2 * wild, 5 + 5 * wild), -22, 24)),
        roll=float(np.clip(rng.normal(0, 4 + 3 * wild), -16, 16)),
        size=float(rng.uniform(0.29, 0.38)),
        centre=(float(rng.normal(0.5, 0.025)), float(rng.normal(0.49, 0.02))),
        smile=float(np.clip(rng.normal(0.35, 0.4), -0.3, 1)),
        mouth_open=float(max(0, rng.normal(-0.5, 0.6))),
        eyes_open=float(np.clip(rng.normal(1, 0.12 + 0.1 * wild), 0.3, 1.25)),
        gaze=float(np.clip(rng.normal(0, 0.3), -0.8, 0.8)),
        brows_up=float(rng.normal(0, 0.5)),
        light=(float(rng.normal(0, 35 + 15 * wild)), float(rng.normal(-30, 14))),
        contrast=float(rng.uniform(0.35, 0.65 + 0.2 * wild)),
        exposure=float(np.exp(rng.normal(0.02 - 0.15 * wild, 0.09 + 0.16 * wild))),
        tint=(1 + warm, 1.0, 1 - warm),
        with_glasses=bool(rng.random() < 0.9),
        clothes=_colour(cv2.cvtColor(_hsv(rng), cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)),
        scene=int(rng.integers(2**31)),
    )


def _hsv(rng: np.random.Generator) -> Array:
    return np.array([[[rng.integers(180), rng.integers(20, 150), rng.integers(40, 215)]]], np.uint8)


# ---- painting in face coordinates ------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _directions() -> tuple[Array, Array, Array, Array]:
    """Face coordinates x, y of every texture pixel, and its longitude and latitude in radians."""
    x = (np.arange(WIDTH, dtype=np.float32) / DETAIL - np.float32(ORIGIN[0]))[None, :].repeat(HEIGHT, 0)
    y = (np.arange(HEIGHT, dtype=np.float32) / DETAIL - np.float32(ORIGIN[1]))[:, None].repeat(WIDTH, 1)
    ray = _ray(x, y)
    return x, y, np.arctan2(ray[0], ray[2]), np.arcsin(np.clip(ray[1], -1, 1))


def _ray(x: Array, y: Array) -> Array:
    """Unit directions [3, ...] (in units of AXES) that face coordinates stand for."""
    u, v = np.asarray(x) / (2 * AXES[0]), np.asarray(y) / 2
    square = u * u + v * v
    return np.stack([2 * u, 2 * v, 1 - square]) / (1 + square)


def _blob(x: float, y: float, width: float, height: float) -> Array:
    """A Gaussian hill of height 1 over the texture."""
    u, v, _, _ = _directions()
    return np.exp(-0.5 * (((u - x) / width) ** 2 + ((v - y) / height) ** 2))


@lru_cache(maxsize=8)
def _noise(kind: str) -> Array:
    """Texture of zero mean and unit deviation: "skin" pores, "strands" of hair running down, or "curls"."""
    grain: Array = np.random.default_rng(7).normal(size=(HEIGHT, WIDTH)).astype(np.float32)
    sigma = {"skin": (1.2, 1.2), "strands": (1.3, 18.0), "curls": (3.5, 3.5), "patches": (16.0, 16.0)}[kind]
    grain = cv2.GaussianBlur(grain, (0, 0), sigmaX=sigma[0], sigmaY=sigma[1])
    return grain / grain.std()


def _paint(
    texture: Array,
    outline: Array,
    colour: Sequence[float] | Array,
    opacity: float = 1.0,
    softness: float = 0.0,
    within: Array | None = None,
) -> None:
    """Fill a closed outline [points, 2] with a colour, in place.

    Lengths are in face units; `softness` is the sigma of a blurred edge; `within` is an outline to stay
    inside of.
    """
    margin = 2 + int(3 * softness * DETAIL)
    points = (outline + ORIGIN) * DETAIL
    low = np.maximum(np.floor(points.min(0)).astype(int) - margin, 0)
    high = np.minimum(np.ceil(points.max(0)).astype(int) + margin, [WIDTH, HEIGHT])
    mask = _filled(outline, low, high)
    if softness:
        mask = cv2.GaussianBlur(mask, (0, 0), softness * DETAIL)
    if within is not None:
        mask = mask * _filled(within, low, high)
    region = texture[low[1] : high[1], low[0] : high[0]]
    region += opacity * mask[..., None] * (np.asarray(colour, np.float32) - region)


def _filled(outline: Array, low: Array, high: Array) -> Array:
    """How much (0-1) an outline covers the texture's pixels from `low` to `high` (column, row)."""
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    fixed = np.round(((outline + ORIGIN) * DETAIL - low) * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, lineType=cv2.LINE_AA, shift=4)
    return mask.astype(np.float32) / 255


def _stroke(middle: Array, thickness: Array | float) -> Array:
    """The outline of a brush stroke along a polyline [points, 2]; thickness may change along it."""
    along = np.gradient(middle, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9)
    half = across * np.broadcast_to(thickness, len(middle))[:, None] / 2
    return np.concatenate([middle + half, (middle - half)[::-1]])


def _ellipse(x: float, y: float, width: float, height: float) -> Array:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], 1)


def _turn(points: Array, centre: tuple[float, float], angle: float) -> Array:
    cos, sin = math.cos(angle), math.sin(angle)
    return (points - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre


# ---- head geometry ---------------------------------------------------------------------------------------


def _profiles(who: Person) -> tuple[Array, Array]:
    """Radius of the bare head along the front and the side meridian, over the whole texture."""
    _, _, _, latitude = _directions()
    chin = who.chin_length
    front = [(-1.57, 1.08), (-1.0, 1.08), (-0.6, 1.1 * who.forehead), (-0.2, 1.05), (0.0, 1.0), (0.37, 1.06)]
    front += [(0.56, 1.13), (0.72, 1.15), (0.92, 1.24 * chin), (1.08, 1.12 * chin), (1.3, 0.95), (1.57, 0.85)]
    jaw = who.jaw
    side = [
        (-1.57, 1.08),
        (-0.8, 1.1),
        (-0.3, 1.05),
        (0.1, 1.0),
        (0.4, 1.0 + 0.3 * (jaw - 1)),
        (0.67, 0.97 * jaw),
    ]
    side += [(0.95, 0.83 * jaw), (1.25, 0.78), (1.57, 0.75)]
    front_radius = np.interp(latitude, *np.array(front).T)
    side_radius = np.interp(latitude, *np.array(side).T)
    return front_radius.astype(np.float32), side_radius.astype(np.float32)


def _nose(who: Person) -> Array:
    x, y, _, _ = _directions()
    tip = who.nose_length - 0.05
    along = np.clip((y + 0.06) / (tip + 0.06), 0, 1)
    ridge = np.where(y < tip, along**1.4, np.exp(-0.5 * ((y - tip) / 0.05) ** 2)) * who.nose_height
    half = who.nose_width * (0.36 + 0.22 * along)
    nose = ridge * np.exp(-0.5 * (x / half) ** 2)
    for sign in (-1, 1):
        nose += 0.075 * _blob(sign * who.nose_width * 0.78, who.nose_length - 0.015, 0.036, 0.040)
    return nose


@lru_cache(maxsize=8)
def _relief(who: Person) -> Array:
    """Radius of the head in every direction of the texture, float32 in units of AXES."""
    _, _, longitude, _ = _directions()
    front, side = _profiles(who)
    facing = np.clip(np.cos(longitude), 0, 1)
    relief = (
        side + (front - side) * facing ** (2.2 / who.chin) + 0.025 * np.sin(2 * longitude) ** 2 * (facing > 0)
    )
    relief = cv2.GaussianBlur(relief.astype(np.float32), (0, 0), 0.06 * DETAIL)
    for sign in (-1, 1):
        eye = sign * who.eye_gap
        relief -= 0.060 * _blob(eye * 0.92, who.eye_height - 0.01, 0.12, 0.075)
        relief += 0.034 * _blob(eye, who.eye_height, 0.075, 0.048)
        relief += (0.012 + 0.022 * who.masculine) * _blob(
            eye, who.eye_height - who.brow_height * 0.9, 0.14, 0.045
        )
        relief += 0.030 * who.cheekbones * _blob(sign * 0.42, 0.22, 0.15, 0.12)
        relief += 0.20 * who.ears * _blob(sign * 1.34, 0.13, 0.075, 0.15)
    relief += 0.030 * _blob(0, who.mouth_height - 0.03, 0.14, 0.030)
    relief += 0.036 * _blob(0, who.mouth_height + 0.045, 0.12, 0.034)
    relief += 0.020 * who.chin * _blob(0, 0.88, 0.11 * who.chin, 0.07)
    relief += _nose(who)
    return cv2.GaussianBlur(relief.astype(np.float32), (0, 0), 0.012 * DETAIL)


def _axes(who: Person) -> Array:
    return AXES * np.array([who.width, 1, 1], np.float32)


def _rotation(look: View) -> Array:
    yaw, pitch, roll = np.radians([look.yaw, look.pitch, look.roll])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return (tilt @ nod @ turn).astype(np.float32)


def _cast(
    relief: Array, axes: Array, rotation: Array, x: Array, y: Array
) -> tuple[Array, Array, Array, Array]:
    """Follow a ray through every pixel to the surface.

    x, y: pixel positions in head units, float32. Returns the hit mask, the depth, and the texture column and
    row. The distance to the surface depends on its radius there, and that on the distance: a few
    substitutions settle it.
    """
    inverse = rotation.T / axes[:, None]
    start = [inverse[k, 0] * x + inverse[k, 1] * y for k in range(3)]
    step = inverse[:, 2]
    a = float(step @ step)
    b = start[0] * step[0] + start[1] * step[1] + start[2] * step[2]
    c = start[0] ** 2 + start[1] ** 2 + start[2] ** 2
    depth = np.sqrt(np.maximum(b * b - a * (c - 1.1), 0)) / a - b / a
    for _ in range(5):
        point = [start[k] + depth * step[k] for k in range(3)]
        length = np.sqrt(point[0] ** 2 + point[1] ** 2 + point[2] ** 2)
        scale = np.float32(2 * DETAIL) / np.maximum(length + point[2], 1e-3)
        map_x = point[0] * (scale * AXES[0]) + np.float32(ORIGIN[0] * DETAIL)
        map_y = point[1] * scale + np.float32(ORIGIN[1] * DETAIL)
        radius = cv2.remap(relief, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        inside = b * b - a * (c - radius * radius)
        depth = (np.sqrt(np.maximum(inside, 0)) - b) / a
    return inside > 0, depth, map_x, map_y


def _place(points: Array, who: Person, look: View) -> Array:
    """Where face coordinates [points, 2] lie in the photo, as shares of its side, float32 [points, 2]."""
    column, row = ((points + ORIGIN) * DETAIL).astype(np.float32).T
    radius = cv2.remap(_relief(who), column[None], row[None], cv2.INTER_LINEAR)[0]
    head = _ray(points[:, 0], points[:, 1]) * radius * _axes(who)[:, None]
    return (_rotation(look) @ head)[:2].T * look.size + np.array(look.centre, np.float32)


# ---- skin and features -----------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _skin(who: Person) -> Array:
    """Colour of the bare face, float32 RGB 0-255: what does not move with the expression."""
    x, y, _, _ = _directions()
    skin = np.array(who.skin, np.float32)
    texture = np.broadcast_to(skin, (HEIGHT, WIDTH, 3)).copy()
    texture *= (1 + 0.012 * _noise("skin") + 0.02 * _noise("patches"))[..., None]
    blush = sum(_blob(sign * 0.38, 0.3, 0.15, 0.12) for sign in (-1, 1)) + _blob(
        0, who.nose_length - 0.04, 0.09, 0.07
    )
    blush = blush + sum(_blob(sign * 1.34, 0.13, 0.1, 0.2) for sign in (-1, 1))
    texture *= 1 - 0.5 * np.asarray(blush)[..., None] * np.array([0.04, 0.2, 0.18], np.float32)
    for sign in (-1, 1):
        socket = _blob(sign * who.eye_gap, who.eye_height - 0.05, 0.13, 0.07)
        bag = _blob(sign * who.eye_gap * 0.95, who.eye_height + 0.10, 0.09, 0.03)
        texture *= 1 - (0.16 * socket + (0.06 + 0.1 * who.age) * bag)[..., None]
    if who.freckles:
        spots = (_noise("skin") > 2.0) * np.exp(-0.5 * ((x / 0.36) ** 2 + ((y - 0.22) / 0.17) ** 2))
        texture *= 1 - 0.35 * min(who.freckles, 1.0) * spots[..., None] * np.array([0.5, 0.8, 1], np.float32)
    for mole_x, mole_y, radius in who.moles:
        _paint(texture, _ellipse(mole_x, mole_y, radius, radius), skin * 0.42, 0.9, 0.004)
    _wrinkles(texture, who)
    _beard(texture, who)
    return texture


def _wrinkles(texture: Array, who: Person) -> None:
    shade = np.array(who.skin, np.float32) * [0.62, 0.55, 0.52]
    reach = np.linspace(0, 1, 12)
    for sign in (-1, 1):
        fold_x = sign * (who.nose_width * 1.15 + reach * (who.mouth_width * 1.12 - who.nose_width * 1.15))
        fold = np.stack(
            [fold_x, who.nose_length - 0.05 + reach**0.8 * (who.mouth_height - who.nose_length + 0.03)], 1
        )
        _paint(texture, _stroke(fold, 0.022 * np.sin(np.pi * reach**0.7)), shade, 0.15 + 0.5 * who.age, 0.012)
    for line in range(3):
        x = np.linspace(-0.34, 0.34, 20)
        brow_line = np.stack([x, -0.34 - 0.085 * line + 0.03 * np.cos(4 * x + line)], 1)
        _paint(texture, _stroke(brow_line, 0.010), shade, 0.55 * max(0.0, who.age - 0.35), 0.008)


def _beard(texture: Array, who: Person) -> None:
    """Hair on the lower face, painted: denser along the jaw, none on the lips."""
    if who.beard == "none":
        return
    x, y, longitude, _ = _directions()
    jaw = np.clip((y - 0.42 - 0.35 * np.clip(0.75 - np.abs(longitude), 0, 1)) / 0.10, 0, 1) * (
        np.abs(longitude) < 1.45
    )
    middle = who.mouth_height - 0.11 + 0.9 * x * x
    lip = np.exp(-(((x / (who.mouth_width * 1.1)) ** 4) + ((y - middle) / 0.045) ** 4))
    goatee = np.exp(-(((x / 0.17) ** 4) + ((y - 0.86) / 0.15) ** 4))
    where = {
        "stubble": np.maximum(jaw, lip) * 0.32,
        "moustache": lip * 0.85,
        "goatee": np.maximum(lip * 0.75, goatee * 0.85),
        "full": np.maximum(jaw, lip) * 0.88,
    }[who.beard]
    where = cv2.GaussianBlur((where * (1 + 0.07 * _noise("skin"))).astype(np.float32), (0, 0), 0.014 * DETAIL)
    alpha = np.clip(where, 0, 0.95)[..., None]
    colour = np.array(who.hair_colour, np.float32) * 0.8
    texture += alpha * (colour * (1 + 0.10 * _noise("skin"))[..., None] - texture)


def _eye(texture: Array, who: Person, look: View, sign: int) -> None:
    """One eye: sign -1 is the one on the left of the picture."""
    x, y = sign * who.eye_gap, who.eye_height
    opening = who.eye_opening * look.eyes_open * (1 - 0.25 * max(look.smile, 0))
    t = np.linspace(-1, 1, 17)
    upper = np.stack([x + t * who.eye_width, y - opening * 1.15 * (1 - t * t) ** 0.75], 1)
    lower = np.stack([x + t * who.eye_width, y + opening * 0.75 * (1 - t * t) ** 0.9], 1)
    tilt = -sign * who.eye_tilt
    upper, lower = _turn(upper, (x, y), tilt), _turn(lower, (x, y), tilt)
    almond = np.concatenate([upper, lower[::-1]])
    _paint(texture, almond, (232, 224, 218))
    iris_x, iris_y, radius = x + 0.05 * look.gaze, y - 0.008, 0.062
    iris = np.array(who.iris)
    _paint(texture, _ellipse(iris_x, iris_y, radius, radius), iris * 0.55, 1.0, 0.003, almond)
    _paint(
        texture,
        _ellipse(iris_x, iris_y + 0.006, radius * 0.8, radius * 0.76),
        iris * 1.15,
        0.9,
        0.008,
        almond,
    )
    _paint(texture, _ellipse(iris_x, iris_y, radius * 0.42, radius * 0.42), (12, 10, 10), 1.0, 0.0, almond)
    _paint(texture, _ellipse(iris_x - 0.02, iris_y - 0.022, 0.013, 0.013), (255, 255, 255), 0.9, 0.0, almond)
    lash = np.array(who.hair_colour) * 0.25 + 8
    taper = 0.6 + 0.4 * sign * t
    _paint(texture, _stroke(upper, (0.016 + 0.010 * (1 - who.masculine)) * taper), lash, 0.92, 0.003)
    _paint(texture, _stroke(lower, 0.008), np.array(who.skin) * 0.5, 0.55, 0.004)
    _paint(texture, _stroke(upper + np.array([0, 0.012]), 0.03), (60, 45, 45), 0.30, 0.010)
    crease = np.stack(
        [x + t * who.eye_width * 1.02, y - who.eye_opening * 1.15 * (1 - t * t) ** 0.7 - 0.034], 1
    )
    _paint(texture, _stroke(_turn(crease, (x, y), tilt), 0.010), np.array(who.skin) * 0.5, 0.5, 0.006)


def _brow(texture: Array, who: Person, look: View, sign: int) -> None:
    t = np.linspace(-1, 1, 15)
    y = who.eye_height - who.brow_height - 0.02 * look.brows_up - who.brow_arch * (1 - (t - 0.25) ** 2)
    middle = np.stack([sign * (who.eye_gap + 0.01 + t * who.eye_width * 1.3), y + 0.03], 1)
    middle = _turn(middle, (sign * who.eye_gap, who.eye_height), -sign * who.brow_tilt)
    thickness = (
        1.6 * who.brow_thickness * (1 - 0.75 * np.clip((t + 0.2) / 1.2, 0, 1)) * np.clip((t + 1.35) * 2, 0, 1)
    )
    colour = np.array(who.hair_colour) * 0.6 + np.array(who.skin) * 0.06
    _paint(texture, _stroke(middle, thickness), colour, 0.85, 0.011)


def _mouth(texture: Array, who: Person, look: View) -> None:
    left, right = _mouth_corners(who, look)
    y, half = who.mouth_height, right[0]
    t = np.linspace(-1, 1, 25)
    line = y + (left[1] - y) * t * t
    gap = 0.075 * look.mouth_open * (1 - t * t)
    stretch = 1 - 0.18 * max(look.smile, 0)
    bow = (1 - np.abs(t) ** 1.8) * (1 - 0.22 * np.exp(-((t / 0.16) ** 2)))
    x = t * half
    top = np.stack([x, line - gap * 0.3 - who.upper_lip * stretch * bow], 1)
    bottom = np.stack([x, line + gap * 0.7 + who.lower_lip * stretch * 1.1 * (1 - np.abs(t) ** 2.4)], 1)
    upper_edge = np.stack([x, line - gap * 0.3], 1)
    lower_edge = np.stack([x, line + gap * 0.7], 1)
    lips = np.array(who.lip_colour)
    _paint(texture, np.concatenate([top, upper_edge[::-1]]), lips * 0.86, 0.9, 0.008)
    _paint(texture, np.concatenate([lower_edge, bottom[::-1]]), lips, 0.9, 0.009)
    shine = np.stack([x * 0.5, line + gap * 0.7 + who.lower_lip * 0.5], 1)
    _paint(texture, _stroke(shine, 0.018), (255, 235, 230), 0.16, 0.012)
    if look.mouth_open > 0.08:
        inside = np.concatenate([upper_edge, lower_edge[::-1]])
        _paint(texture, inside, (58, 22, 24), 0.95, 0.002)
        teeth = np.concatenate([upper_edge * [0.8, 1], (upper_edge * [0.8, 1] + [0, 0.034])[::-1]])
        _paint(texture, teeth, (226, 220, 210), 0.95, 0.003, inside)
    _paint(texture, _stroke(upper_edge, 0.012), lips * 0.42, 0.8, 0.005)
    for corner in (left, right):
        _paint(texture, _ellipse(corner[0], corner[1], 0.018, 0.014), lips * 0.5, 0.5, 0.010)
    _paint(texture, _ellipse(0, y + who.lower_lip + 0.07, 0.11, 0.02), np.array(who.skin) * 0.6, 0.35, 0.02)


def _mouth_corners(who: Person, look: View) -> Array:
    half = who.mouth_width * (1 + 0.16 * look.smile)
    y = who.mouth_height - 0.035 * look.smile
    return np.array([[-half, y], [half, y]])


def _nostrils(texture: Array, who: Person) -> None:
    dark = np.array(who.skin) * [0.34, 0.26, 0.24]
    for sign in (-1, 1):
        hole = _ellipse(sign * who.nose_width * 0.46, who.nose_length + 0.008, who.nose_width * 0.22, 0.016)
        _paint(texture, hole, dark, 0.85, 0.008)
        wing = np.linspace(-0.9, 1.3, 10)
        edge_x = sign * who.nose_width * (0.86 + 0.22 * np.cos(wing))
        edge = np.stack([edge_x, who.nose_length - 0.02 + 0.036 * np.sin(wing)], 1)
        _paint(texture, _stroke(edge, 0.012), np.array(who.skin) * 0.5, 0.45, 0.008)
    _paint(
        texture,
        _ellipse(0, who.nose_length + 0.03, who.nose_width * 0.8, 0.014),
        np.array(who.skin) * 0.5,
        0.35,
        0.016,
    )


def _glasses(texture: Array, who: Person) -> None:
    angle = np.linspace(0, 2 * np.pi, 33)
    power = 1.0 if who.glasses == "round" else 0.45
    wide = 0.215 * who.glasses_size
    high = wide * (0.92 if who.glasses == "round" else 0.72)
    for sign in (-1, 1):
        rim = np.stack(
            [np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power * wide, np.zeros_like(angle)], 1
        )
        rim[:, 1] = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power * high
        rim += [sign * (who.eye_gap + 0.005), who.eye_height + 0.02]
        _paint(texture, rim, (235, 240, 245), 0.06)
        temple = np.array(
            [[sign * (who.eye_gap + wide), who.eye_height - 0.02], [sign * 1.45, who.eye_height - 0.02]]
        )
        for bar in (rim, temple):
            _paint(texture, _stroke(bar + np.array([0, 0.03]), 0.03), np.array(who.skin) * 0.5, 0.35, 0.02)
            _paint(texture, _stroke(bar, 0.026), who.glasses_colour, 0.97, 0.003)
    t = np.linspace(-1, 1, 9)
    bridge = np.stack([t * (who.eye_gap - wide + 0.02), who.eye_height - 0.02 * (1 - t * t)], 1)
    _paint(texture, _stroke(bridge, 0.026), who.glasses_colour, 0.97, 0.003)


def _face(who: Person, look: View) -> Array:
    """Colour of the face with this photo's expression, uint8 RGB."""
    texture = _skin(who).copy()
    _nostrils(texture, who)
    _mouth(texture, who, look)
    for sign in (-1, 1):
        _eye(texture, who, look, sign)
        _brow(texture, who, look, sign)
    if who.glasses != "none" and look.with_glasses:
        _glasses(texture, who)
    return np.clip(texture, 0, 255).astype(np.uint8)


# ---- hair ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _hair(who: Person) -> tuple[Array, Array]:
    """A shell around the head: its relief, and its colour with coverage as fourth channel (uint8 RGBA)."""
    _, _, longitude, latitude = _directions()
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
    strands = (1 - who.hair_curl) * _noise("strands") + who.hair_curl * _noise("curls")
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
    front, side = _profiles(who)
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


# ---- light and camera ------------------------------------------------------------------------------------


def _shade(colours: Array, depth: Array, hit: Array, look: View, unit: float, gloss: float) -> Array:
    """Light a surface: colours uint8 RGB, depth in head units of `unit` pixels. Returns linear RGB."""
    depth = np.where(hit, depth, 0).astype(np.float32)
    slope = cv2.GaussianBlur(depth, (0, 0), 0.012 * unit) * unit
    gx, gy = cv2.Sobel(slope, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(slope, cv2.CV_32F, 0, 1, scale=1 / 8)
    norm = 1 / np.sqrt(gx * gx + gy * gy + 1)
    azimuth, elevation = np.radians(look.light)
    to_light = (
        math.sin(azimuth) * math.cos(elevation),
        math.sin(elevation),
        math.cos(azimuth) * math.cos(elevation),
    )
    facing = (-gx * to_light[0] - gy * to_light[1] + to_light[2]) * norm
    hollow = np.clip((_soften(depth, 0.07 * unit) - depth) * 5, 0, 0.5)
    ambient = (1 - look.contrast) * (0.85 + 0.25 * gy * norm) * (1 - hollow)
    light = np.empty((*depth.shape, 3), np.float32)
    for channel, wrap in enumerate((0.45, 0.30, 0.25)):  # red light travels further under the skin
        direct = np.maximum(facing + wrap, 0) / (1 + wrap)
        light[..., channel] = (ambient + 1.25 * look.contrast * direct * (1 - 0.6 * hollow)) * look.tint[
            channel
        ]
    half = np.array(to_light) + np.array([0, 0, 1])
    half_x, half_y, half_z = (half / np.linalg.norm(half)).tolist()
    glint = np.maximum((-gx * half_x - gy * half_y + half_z) * norm, 0) ** 24
    colour = colours.astype(np.float32) / 255
    return (colour * colour * light + (gloss * look.contrast * glint)[..., None]) * look.exposure


def _soften(values: Array, sigma: float) -> Array:
    """About a Gaussian blur, at a cost that does not grow with sigma: two box filters."""
    width = int(sigma * 2.4) | 1
    return cv2.blur(cv2.blur(values, (width, width)), (width, width))


def _background(look: View, side: int) -> Array:
    """A wall, a room or a street out of focus: linear RGB [side, side, 3]."""
    rng = np.random.default_rng(look.scene)
    base = rng.uniform(0.08, 0.6) * (1 + rng.normal(0, 0.06, 3))
    small = (
        np.full((24, 24, 3), base, np.float32) * np.linspace(1 + rng.normal(0, 0.25), 1, 24)[:, None, None]
    )
    for _ in range(rng.integers(0, 14)):
        x, y, width, height = (
            rng.integers(-4, 24),
            rng.integers(-6, 24),
            rng.integers(2, 12),
            rng.integers(2, 16),
        )
        colour = base * rng.uniform(0.4, 1.5) * (1 + rng.normal(0, 0.08, 3))
        cv2.rectangle(small, (int(x), int(y)), (int(x + width), int(y + height)), colour.tolist(), -1)
    room = cv2.GaussianBlur(cv2.resize(small, (96, 96)), (0, 0), rng.uniform(0.8, 4.0))
    scene = cv2.resize(room.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(scene, 0.01, 1) * look.exposure * np.array(look.tint, np.float32)


def _body(picture: Array, who: Person, look: View) -> None:
    """Neck, shoulders and clothes, painted behind the head, in place."""
    side = len(picture)
    unit = look.size * side
    x = (np.arange(side, dtype=np.float32) - look.centre[0] * side) / unit
    y = (np.arange(side, dtype=np.float32)[:, None] - look.centre[1] * side) / unit
    roll = math.radians(look.roll)
    turn = math.sin(math.radians(look.yaw))
    x = x - 0.1 * turn + math.sin(roll) * np.clip(1.2 - y, 0, 1.2) * 0.8
    wide = 1.35 + 0.25 * who.masculine
    neck = (0.36 + 0.07 * who.masculine) * who.width + 0.30 * np.clip(y - 1.15, 0, 1) ** 2
    edge = 1.5 / unit
    if who.hair_style in HANGING:
        _curtain(picture, who, look, x + 0.5 * turn, y, edge)
    sun = 1 + 0.5 * look.contrast * math.sin(math.radians(look.light[0])) * np.clip(x / wide, -1, 1)
    round_neck = np.sqrt(np.clip(1 - (x / (neck + 0.05)) ** 2, 0.15, 1)) * (
        0.45 + 0.45 * np.clip((y - 0.75) / 0.6, 0, 1)
    )
    skin = (np.array(who.skin, np.float32) / 255) ** 2 * look.exposure * np.array(look.tint, np.float32)
    _over(picture, skin * (round_neck * sun)[..., None], np.clip((neck - np.abs(x)) / edge, 0, 1) * (y > 0.3))
    shoulder = 1.38 + 0.30 * (np.abs(x) / wide) ** 2.2 + 0.9 * np.clip(np.abs(x) - wide, 0, None)
    collar = 1.62 - 2.2 * np.maximum(x, -x) ** 1.6
    top = np.maximum(shoulder - 0.12, collar)
    cloth = (np.array(look.clothes, np.float32) / 255) ** 2 * look.exposure * np.array(look.tint, np.float32)
    shape = (
        np.sqrt(np.clip(1 - (x / (wide + 0.5)) ** 2, 0.1, 1))
        * (0.75 + 0.25 * np.clip((y - top) * 4, 0, 1))
        * 0.8
    )
    _over(picture, cloth * (shape * sun)[..., None], np.clip((y - top) / edge, 0, 1))


def _curtain(picture: Array, who: Person, look: View, x: Array, y: Array, edge: float) -> None:
    """Long hair behind the neck, in place; x, y: head units from the middle of the neck."""
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
    _over(picture, colour * (0.5 * grain * (1 - 0.2 * np.abs(x)))[..., None], alpha)


def _over(picture: Array, layer: Array, alpha: Array) -> None:
    picture += alpha[..., None].astype(np.float32) * (layer - picture)


def draw(who: Person, look: View, side: int) -> tuple[Array, Array]:
    """Take a photo.

    Returns uint8 RGB [side, side, 3] and the true landmarks, float32 [5, 2] in pixels, in InsightFace's
    order: the eye on the picture's left, the one on its right, nose tip, mouth corner on the left, on the
    right.
    """
    large = side * 5 // 4  # drawn larger and reduced: smooth edges
    unit = look.size * large
    picture = _background(look, large)
    shell, hair = _hair(who)
    axes, rotation = _axes(who), _rotation(look)

    reach = 1.5
    left, top = (max(0, int(c * large - reach * unit)) for c in look.centre)
    right, bottom = (min(large, int(c * large + reach * unit)) for c in look.centre)
    window = picture[top:bottom, left:right]
    x = ((np.arange(left, right, dtype=np.float32) + 0.5) / unit - look.centre[0] / look.size)[None, :]
    y = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / unit - look.centre[1] / look.size)[:, None]
    x, y = np.broadcast_to(x, window.shape[:2]), np.broadcast_to(y, window.shape[:2])

    hair_hit, hair_depth, hair_x, hair_y = _cast(shell, axes, rotation, x, y)
    strands = cv2.remap(hair, hair_x, hair_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lit_hair = _shade(strands[..., :3], hair_depth, hair_hit, look, unit, gloss=0.06)
    _body(picture, who, look)

    hit, depth, map_x, map_y = _cast(_relief(who), axes, rotation, x, y)
    skin = cv2.remap(_face(who, look), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    coverage = strands[..., 3] / 255 * (hair_hit & (hair_depth > depth - 0.02))
    shadow = 1 - 0.35 * _soften(coverage.astype(np.float32), 0.04 * unit)
    _over(window, _shade(skin, depth, hit, look, unit, gloss=0.035) * shadow[..., None], hit * 1.0)
    _over(window, lit_hair, coverage)

    picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    photo = np.sqrt(np.clip(picture, 0, 1)) * 255
    return np.round(photo).astype(np.uint8), landmarks(who, look) * side - 0.5


def landmarks(who: Person, look: View) -> Array:
    """The true landmarks [5, 2] as shares of the photo's side."""
    eyes = [[-who.eye_gap, who.eye_height], [who.eye_gap, who.eye_height]]
    return _place(np.array([*eyes, [0, who.nose_length - 0.05], *_mouth_corners(who, look)]), who, look)


def face_box(who: Person, look: View) -> Array:
    """The true face box, hairline to chin, cheek to cheek: left, top, right, bottom as shares of the side."""
    sides = [
        [sign * x, y] for sign in (-1, 1) for x, y in ((0.9, -0.3), (1.0, 0.1), (0.85, 0.5), (0.5, 0.85))
    ]
    outline = _place(np.array([[0, -0.55], [0, 1.12], *sides]), who, look)
    return np.concatenate([outline.min(0), outline.max(0)])


# ---- bad cameras -----------------------------------------------------------------------------------------


def spoil(photo: Array, face_width: float, rng: np.random.Generator) -> Array:
    """What a cheap camera far away makes of a photo: uint8 RGB in, a smaller and worse uint8 RGB out.

    face_width: that of the face in `photo`, in pixels; it ends up 14-40 pixels wide on the sensor.
    """
    scale = rng.uniform(14, 40) / face_width
    picture: Array = photo.astype(np.float32)
    if rng.random() < 0.5:
        picture = _shake(picture, rng.uniform(0.3, 2.0) / scale, rng.uniform(0, np.pi))
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.25, 0.9) / scale)
    side = round(len(photo) * scale)
    picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    gloom = rng.uniform(0.35, 1.0)
    picture = picture * gloom + rng.uniform(0, 30) * (1 - gloom)
    grain = rng.normal(0, 1, (side, side, 1)) + 0.5 * rng.normal(0, 1, (side, side, 3))
    picture += grain * rng.uniform(1, 7) * np.sqrt(0.3 + picture / 128)
    picture = picture * rng.uniform(1, 1 / gloom**0.7)
    picture = _jpeg_round_trip(picture, int(rng.integers(30, 75)))
    if rng.random() < 0.6:  # the recorder's digital zoom
        side = round(side * rng.uniform(1.5, 3.0))
        zoom = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[rng.choice(3, p=[0.45, 0.45, 0.1])]
        picture = cv2.resize(picture, (side, side), interpolation=zoom)
    return picture


def _shake(picture: Array, length: float, angle: float) -> Array:
    """Motion blur along a line of `length` pixels."""
    reach = int(np.ceil(length)) | 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    offset = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    ends = [tuple(int(v) for v in np.round((reach + sign * offset) * 16)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_8, 4)
    return cv2.filter2D(picture, -1, kernel / kernel.sum())


def _jpeg_round_trip(picture: Array, quality: int) -> Array:
    data = np.frombuffer(_encoded(_bytes(picture), ".jpg", quality), np.uint8)
    return cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)


def _bytes(picture: Array) -> Array:
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def _encoded(picture: Array, suffix: str, quality: int = 90) -> bytes:
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    return cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), parameters)[1].tobytes()


# ---- the demo set ----------------------------------------------------------------------------------------


def photo(who: Person, quality: str, rng: np.random.Generator) -> Array:
    """One photo of a person, uint8 RGB; quality is "high" or "low"."""
    if quality == "high":
        return draw(who, view(rng), int(rng.integers(192, 241)))[0]
    look = view(rng, wild=0.7)
    return spoil(draw(who, look, 144)[0], face_width=1.34 * look.size * 144, rng=rng)


def make(folder: Path, people: int = 48, seed: int = 0, high: int = 10, low: int = 14) -> Path:
    """Write a demo set: folder/images/<person>/{high_quality,low_quality}/, and return folder/images.

    Each person has `high` good and `low` bad photos. As in a real collection, some have near-duplicates too
    (a photo re-encoded or reduced, a burst of neighbouring frames); there is one exact copy, and five files
    are unreadable. The same arguments give the same pictures; a set already made with them is kept as it is.

    Raises FileExistsError where folder/images holds something else.
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
    draft = Path(folder) / "images.part"
    shutil.rmtree(draft, ignore_errors=True)
    note.unlink(missing_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(_album, draft / f"person_{n + 1:03d}", seed, n, high, low) for n in range(people)]
        for job in tqdm(jobs, desc="demo faces", unit="person"):
            job.result()
    _plant_unreadable(draft)
    if images.exists():
        shutil.rmtree(images)
    draft.replace(images)
    note.write_text(json.dumps(recipe), encoding="utf-8")
    return images


def _album(folder: Path, seed: int, number: int, high: int, low: int) -> None:
    """Write one person's photos."""
    who = person(_identity_seed(seed, number))
    for quality, count in (("high", high), ("low", low)):
        place = folder / f"{quality}_quality"
        place.mkdir(parents=True)
        for index in range(count):
            rng = np.random.default_rng([seed, number, quality == "high", index])
            picture = photo(who, quality, rng)
            suffix = ".png" if rng.random() < 0.08 else ".jpg"
            (place / f"{quality}_{index:02d}{suffix}").write_bytes(_encoded(picture, suffix))
        if number % 4 == 0:
            _plant_duplicates(place, picture)
    if number % 6 == 0:
        _burst(folder / "high_quality", who, np.random.default_rng([seed, number, 2]))


def _identity_seed(seed: int, number: int) -> int:
    return 1_000_000 + 1000 * seed + number


def _plant_duplicates(place: Path, picture: Array) -> None:
    """The last photo again: re-encoded, and reduced."""
    smaller = cv2.resize(picture, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    (place / "again_reencoded.jpg").write_bytes(_encoded(picture, ".jpg", 75))
    (place / "again_smaller.jpg").write_bytes(_encoded(smaller, ".jpg"))


def _burst(place: Path, who: Person, rng: np.random.Generator) -> None:
    """Three neighbouring video frames: the head has hardly moved."""
    look = view(rng)
    for frame in range(3):
        moved = replace(
            look, yaw=look.yaw + 0.8 * frame, roll=look.roll + 0.4 * frame, smile=look.smile + 0.02 * frame
        )
        (place / f"frame_{frame}.jpg").write_bytes(_encoded(draw(who, moved, 208)[0], ".jpg"))


def _plant_unreadable(images: Path) -> None:
    """Five files that no decoder accepts, and one exact copy under another name."""
    folders = sorted(images.iterdir())
    first, last = folders[0], folders[-1]
    whole = (first / "high_quality" / "frame_0.jpg").read_bytes()
    (first / "high_quality" / "broken_download.jpg").write_bytes(whole[: len(whole) // 3])
    (first / "low_quality" / "empty.jpg").write_bytes(b"")
    (first / "low_quality" / "notes.jpg").write_text("Camera 2 was offline on Tuesday.\n", encoding="utf-8")
    (last / "high_quality" / "header_only.jpg").write_bytes(whole[:20])
    (last / "low_quality" / "page.png").write_text(
        "<html><body>404 Not Found</body></html>", encoding="utf-8"
    )
    (first / "high_quality" / "frame_0_copy.jpg").write_bytes(whole)


def unless_photos(
    dataset: str, pack: str, weights: str, epochs: int, adapted_epochs: int, processed: Path, people: int = 48
) -> tuple[Path, str, str, int, int, str]:
    """What the notebook runs on: folder, pack, weights and epochs as given, and "" before the models' names.

    Only where `dataset` is the project's own dataset/images and holds no photos, generated faces of `people`
    people, made below `processed`, the demo pack, random weights, at most `EPOCHS` and the label "demo · "
    instead; a banner says so. A dataset folder of the user's own is never replaced.
    """
    folder, own = Path(dataset), Path(__file__).parents[1] / "dataset" / "images"
    if folder.resolve() != own.resolve() or (own.is_dir() and any(own.iterdir())):
        return folder, pack, weights, epochs, adapted_epochs, ""
    epochs, adapted_epochs = min(epochs, EPOCHS[0]), min(adapted_epochs, EPOCHS[1])
    print(f"DEMO: {dataset} holds no photos, so this run shows {people} generated people, with a small pack")
    print(f"trained on such faces and a ResNet-50 from random weights, tuned for {epochs} epochs. Put your")
    print("photos there, or set `dataset`.")
    photos = make(Path(processed) / "demo", people)
    return photos, str(PACK), "none", epochs, adapted_epochs, "demo · "
