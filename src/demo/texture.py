"""Painting in face coordinates.

A head's radius in every direction is a picture, and so is its colour. Both are laid out in *face
coordinates*, the stereographic projection of the direction as seen from the front: near the middle of the
face they are the head's own x and y, and small shapes keep their form everywhere. Lengths are in half heights
of a head.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

DETAIL = 112  # texture pixels per half height of a head
ORIGIN = np.array([1.9, 2.25])  # where the middle of the face lies in the texture, from its corner
WIDTH, HEIGHT = int(2 * ORIGIN[0] * DETAIL), int((ORIGIN[1] + 2.1) * DETAIL)
AXES = np.array([0.67, 1.0, 0.85], np.float32)  # half width, height and depth of the mean head


@lru_cache(maxsize=1)
def directions() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Face coordinates x, y of every texture pixel, and its longitude and latitude in radians.

    Each float32 [HEIGHT, WIDTH].
    """
    x = (np.arange(WIDTH, dtype=np.float32) / DETAIL - np.float32(ORIGIN[0]))[None, :].repeat(HEIGHT, 0)
    y = (np.arange(HEIGHT, dtype=np.float32) / DETAIL - np.float32(ORIGIN[1]))[:, None].repeat(WIDTH, 1)
    right, down, forward = ray(x, y)
    return x, y, np.arctan2(right, forward), np.arcsin(np.clip(down, -1, 1))


def ray(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Directions [3, ...] of length 1, as shares of AXES, that face coordinates stand for."""
    u, v = np.asarray(x) / (2 * AXES[0]), np.asarray(y) / 2
    square = u * u + v * v
    return np.stack([2 * u, 2 * v, 1 - square]) / (1 + square)


def blob(x: float, y: float, width: float, height: float) -> np.ndarray:
    """A Gaussian hill of height 1 over the texture, float32 [HEIGHT, WIDTH]."""
    u, v, _, _ = directions()
    return np.exp(-0.5 * (((u - x) / width) ** 2 + ((v - y) / height) ** 2))


@lru_cache(maxsize=8)
def noise(kind: str) -> np.ndarray:
    """Noise of mean 0 and deviation 1: "skin" pores, "strands" of hair running down, "curls" or "patches"."""
    grain: np.ndarray = np.random.default_rng(7).normal(size=(HEIGHT, WIDTH)).astype(np.float32)
    sigma = {"skin": (1.2, 1.2), "strands": (1.3, 18.0), "curls": (3.5, 3.5), "patches": (16.0, 16.0)}[kind]
    grain = cv2.GaussianBlur(grain, (0, 0), sigmaX=sigma[0], sigmaY=sigma[1])
    return grain / grain.std()


def paint(
    texture: np.ndarray,
    outline: np.ndarray,
    colour: Sequence[float] | np.ndarray,
    opacity: float = 1.0,
    softness: float = 0.0,
    within: np.ndarray | None = None,
) -> None:
    """Fills a closed outline [points, 2] with a colour, in place.

    softness: the sigma of a blurred edge. within: an outline to stay inside of.
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


def _filled(outline: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How much (0-1) an outline covers the texture's pixels from `low` to `high` (column, row)."""
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    fixed = np.round(((outline + ORIGIN) * DETAIL - low) * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, lineType=cv2.LINE_AA, shift=4)
    return mask.astype(np.float32) / 255


def stroke(middle: np.ndarray, thickness: np.ndarray | float) -> np.ndarray:
    """The outline of a brush stroke along a polyline [points, 2]; thickness may change along it."""
    along = np.gradient(middle, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9)
    half = across * np.broadcast_to(thickness, len(middle))[:, None] / 2
    return np.concatenate([middle + half, (middle - half)[::-1]])


def ellipse(x: float, y: float, width: float, height: float) -> np.ndarray:
    """The outline [24, 2] of an ellipse around x, y with these half axes."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], 1)


def turn(points: np.ndarray, centre: tuple[float, float], angle: float) -> np.ndarray:
    """Points [n, 2] turned around a centre by an angle in radians, clockwise as seen in the picture."""
    cos, sin = math.cos(angle), math.sin(angle)
    return (points - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre
