"""The head's geometry: its shape, its pose, and what the camera sees of it.

A head is a surface around the origin: x to the right, y down, z towards the camera; lengths are in half
heights of a head. To take a photo, every pixel is followed to the surface, so that turning a head moves its
features as they would move in front of a camera.
"""

from functools import lru_cache

import cv2
import numpy as np

from src.demo.people import Person, View
from src.demo.texture import AXES, DETAIL, ORIGIN, blob, directions, ray


def profiles(who: Person) -> tuple[np.ndarray, np.ndarray]:
    """Radius of the bare head along the front and the side meridian, each float32 [HEIGHT, WIDTH]."""
    _, _, _, latitude = directions()
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


def _nose(who: Person) -> np.ndarray:
    x, y, _, _ = directions()
    tip = who.nose_length - 0.05
    along = np.clip((y + 0.06) / (tip + 0.06), 0, 1)
    ridge = np.where(y < tip, along**1.4, np.exp(-0.5 * ((y - tip) / 0.05) ** 2)) * who.nose_height
    half = who.nose_width * (0.36 + 0.22 * along)
    nose = ridge * np.exp(-0.5 * (x / half) ** 2)
    for sign in (-1, 1):
        nose += 0.075 * blob(sign * who.nose_width * 0.78, who.nose_length - 0.015, 0.036, 0.040)
    return nose


@lru_cache(maxsize=8)
def relief(who: Person) -> np.ndarray:
    """Radius of the head in every direction of the texture, as shares of AXES, float32 [HEIGHT, WIDTH]."""
    _, _, longitude, _ = directions()
    front, side = profiles(who)
    facing = np.clip(np.cos(longitude), 0, 1)
    radius = (
        side + (front - side) * facing ** (2.2 / who.chin) + 0.025 * np.sin(2 * longitude) ** 2 * (facing > 0)
    )
    radius = cv2.GaussianBlur(radius.astype(np.float32), (0, 0), 0.06 * DETAIL)
    for sign in (-1, 1):
        eye = sign * who.eye_gap
        radius -= 0.060 * blob(eye * 0.92, who.eye_height - 0.01, 0.12, 0.075)
        radius += 0.034 * blob(eye, who.eye_height, 0.075, 0.048)
        radius += (0.012 + 0.022 * who.masculine) * blob(
            eye, who.eye_height - who.brow_height * 0.9, 0.14, 0.045
        )
        radius += 0.030 * who.cheekbones * blob(sign * 0.42, 0.22, 0.15, 0.12)
        radius += 0.20 * who.ears * blob(sign * 1.34, 0.13, 0.075, 0.15)
    radius += 0.030 * blob(0, who.mouth_height - 0.03, 0.14, 0.030)
    radius += 0.036 * blob(0, who.mouth_height + 0.045, 0.12, 0.034)
    radius += 0.020 * who.chin * blob(0, 0.88, 0.11 * who.chin, 0.07)
    radius += _nose(who)
    return cv2.GaussianBlur(radius.astype(np.float32), (0, 0), 0.012 * DETAIL)


def half_axes(who: Person) -> np.ndarray:
    """Half width, height and depth of a person's head, float32 [3]."""
    return AXES * np.array([who.width, 1, 1], np.float32)


def rotation(look: View) -> np.ndarray:
    """How a view turns the head, float32 [3, 3]."""
    yaw, pitch, roll = np.radians([look.yaw, look.pitch, look.roll])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return (tilt @ nod @ turn).astype(np.float32)


def cast(
    relief: np.ndarray, axes: np.ndarray, rotation: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Follows a ray through every pixel to the surface.

    x, y: pixel positions, float32. Returns the hit mask, the depth, and the texture column and row. The
    distance to the surface depends on its radius there, and that on the distance: a few substitutions settle
    it.
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


def place(points: np.ndarray, who: Person, look: View) -> np.ndarray:
    """Where face coordinates [points, 2] lie in the photo, as shares of its side, float32 [points, 2]."""
    column, row = ((points + ORIGIN) * DETAIL).astype(np.float32).T
    radius = cv2.remap(relief(who), column[None], row[None], cv2.INTER_LINEAR)[0]
    head = ray(points[:, 0], points[:, 1]) * radius * half_axes(who)[:, None]
    return (rotation(look) @ head)[:2].T * look.size + np.array(look.centre, np.float32)
