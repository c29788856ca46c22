"""Skin and features: the colour of a face, painted in face coordinates."""

from functools import lru_cache

import cv2
import numpy as np

from src.demo.people import Person, View
from src.demo.texture import DETAIL, HEIGHT, WIDTH, blob, directions, ellipse, noise, paint, stroke, turn


@lru_cache(maxsize=8)
def _skin(who: Person) -> np.ndarray:
    """Colour of the bare face, float32 RGB 0-255: what does not move with the expression."""
    x, y, _, _ = directions()
    skin = np.array(who.skin, np.float32)
    texture = np.broadcast_to(skin, (HEIGHT, WIDTH, 3)).copy()
    texture *= (1 + 0.012 * noise("skin") + 0.02 * noise("patches"))[..., None]
    blush = sum(blob(sign * 0.38, 0.3, 0.15, 0.12) for sign in (-1, 1)) + blob(
        0, who.nose_length - 0.04, 0.09, 0.07
    )
    blush = blush + sum(blob(sign * 1.34, 0.13, 0.1, 0.2) for sign in (-1, 1))
    texture *= 1 - 0.5 * np.asarray(blush)[..., None] * np.array([0.04, 0.2, 0.18], np.float32)
    for sign in (-1, 1):
        socket = blob(sign * who.eye_gap, who.eye_height - 0.05, 0.13, 0.07)
        bag = blob(sign * who.eye_gap * 0.95, who.eye_height + 0.10, 0.09, 0.03)
        texture *= 1 - (0.16 * socket + (0.06 + 0.1 * who.age) * bag)[..., None]
    if who.freckles:
        spots = (noise("skin") > 2.0) * np.exp(-0.5 * ((x / 0.36) ** 2 + ((y - 0.22) / 0.17) ** 2))
        texture *= 1 - 0.35 * min(who.freckles, 1.0) * spots[..., None] * np.array([0.5, 0.8, 1], np.float32)
    for mole_x, mole_y, radius in who.moles:
        paint(texture, ellipse(mole_x, mole_y, radius, radius), skin * 0.42, 0.9, 0.004)
    _wrinkles(texture, who)
    _beard(texture, who)
    return texture


def _wrinkles(texture: np.ndarray, who: Person) -> None:
    shade = np.array(who.skin, np.float32) * [0.62, 0.55, 0.52]
    reach = np.linspace(0, 1, 12)
    for sign in (-1, 1):
        fold_x = sign * (who.nose_width * 1.15 + reach * (who.mouth_width * 1.12 - who.nose_width * 1.15))
        fold = np.stack(
            [fold_x, who.nose_length - 0.05 + reach**0.8 * (who.mouth_height - who.nose_length + 0.03)], 1
        )
        paint(texture, stroke(fold, 0.022 * np.sin(np.pi * reach**0.7)), shade, 0.15 + 0.5 * who.age, 0.012)
    for line in range(3):
        x = np.linspace(-0.34, 0.34, 20)
        brow_line = np.stack([x, -0.34 - 0.085 * line + 0.03 * np.cos(4 * x + line)], 1)
        paint(texture, stroke(brow_line, 0.010), shade, 0.55 * max(0.0, who.age - 0.35), 0.008)


def _beard(texture: np.ndarray, who: Person) -> None:
    """Hair on the lower face, painted: denser along the jaw, none on the lips."""
    if who.beard == "none":
        return
    x, y, longitude, _ = directions()
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
    where = cv2.GaussianBlur((where * (1 + 0.07 * noise("skin"))).astype(np.float32), (0, 0), 0.014 * DETAIL)
    alpha = np.clip(where, 0, 0.95)[..., None]
    colour = np.array(who.hair_colour, np.float32) * 0.8
    texture += alpha * (colour * (1 + 0.10 * noise("skin"))[..., None] - texture)


def _eye(texture: np.ndarray, who: Person, look: View, sign: int) -> None:
    """One eye: sign -1 is the one on the left of the picture."""
    x, y = sign * who.eye_gap, who.eye_height
    opening = who.eye_opening * look.eyes_open * (1 - 0.25 * max(look.smile, 0))
    t = np.linspace(-1, 1, 17)
    upper = np.stack([x + t * who.eye_width, y - opening * 1.15 * (1 - t * t) ** 0.75], 1)
    lower = np.stack([x + t * who.eye_width, y + opening * 0.75 * (1 - t * t) ** 0.9], 1)
    tilt = -sign * who.eye_tilt
    upper, lower = turn(upper, (x, y), tilt), turn(lower, (x, y), tilt)
    almond = np.concatenate([upper, lower[::-1]])
    paint(texture, almond, (232, 224, 218))
    iris_x, iris_y, radius = x + 0.05 * look.gaze, y - 0.008, 0.062
    iris = np.array(who.iris)
    paint(texture, ellipse(iris_x, iris_y, radius, radius), iris * 0.55, 1.0, 0.003, almond)
    paint(
        texture,
        ellipse(iris_x, iris_y + 0.006, radius * 0.8, radius * 0.76),
        iris * 1.15,
        0.9,
        0.008,
        almond,
    )
    paint(texture, ellipse(iris_x, iris_y, radius * 0.42, radius * 0.42), (12, 10, 10), 1.0, 0.0, almond)
    paint(texture, ellipse(iris_x - 0.02, iris_y - 0.022, 0.013, 0.013), (255, 255, 255), 0.9, 0.0, almond)
    lash = np.array(who.hair_colour) * 0.25 + 8
    taper = 0.6 + 0.4 * sign * t
    paint(texture, stroke(upper, (0.016 + 0.010 * (1 - who.masculine)) * taper), lash, 0.92, 0.003)
    paint(texture, stroke(lower, 0.008), np.array(who.skin) * 0.5, 0.55, 0.004)
    paint(texture, stroke(upper + np.array([0, 0.012]), 0.03), (60, 45, 45), 0.30, 0.010)
    crease = np.stack(
        [x + t * who.eye_width * 1.02, y - who.eye_opening * 1.15 * (1 - t * t) ** 0.7 - 0.034], 1
    )
    paint(texture, stroke(turn(crease, (x, y), tilt), 0.010), np.array(who.skin) * 0.5, 0.5, 0.006)


def _brow(texture: np.ndarray, who: Person, look: View, sign: int) -> None:
    t = np.linspace(-1, 1, 15)
    y = who.eye_height - who.brow_height - 0.02 * look.brows_up - who.brow_arch * (1 - (t - 0.25) ** 2)
    middle = np.stack([sign * (who.eye_gap + 0.01 + t * who.eye_width * 1.3), y + 0.03], 1)
    middle = turn(middle, (sign * who.eye_gap, who.eye_height), -sign * who.brow_tilt)
    thickness = (
        1.6 * who.brow_thickness * (1 - 0.75 * np.clip((t + 0.2) / 1.2, 0, 1)) * np.clip((t + 1.35) * 2, 0, 1)
    )
    colour = np.array(who.hair_colour) * 0.6 + np.array(who.skin) * 0.06
    paint(texture, stroke(middle, thickness), colour, 0.85, 0.011)


def _mouth(texture: np.ndarray, who: Person, look: View) -> None:
    left, right = mouth_corners(who, look)
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
    paint(texture, np.concatenate([top, upper_edge[::-1]]), lips * 0.86, 0.9, 0.008)
    paint(texture, np.concatenate([lower_edge, bottom[::-1]]), lips, 0.9, 0.009)
    shine = np.stack([x * 0.5, line + gap * 0.7 + who.lower_lip * 0.5], 1)
    paint(texture, stroke(shine, 0.018), (255, 235, 230), 0.16, 0.012)
    if look.mouth_open > 0.08:
        inside = np.concatenate([upper_edge, lower_edge[::-1]])
        paint(texture, inside, (58, 22, 24), 0.95, 0.002)
        teeth = np.concatenate([upper_edge * [0.8, 1], (upper_edge * [0.8, 1] + [0, 0.034])[::-1]])
        paint(texture, teeth, (226, 220, 210), 0.95, 0.003, inside)
    paint(texture, stroke(upper_edge, 0.012), lips * 0.42, 0.8, 0.005)
    for corner in (left, right):
        paint(texture, ellipse(corner[0], corner[1], 0.018, 0.014), lips * 0.5, 0.5, 0.010)
    paint(texture, ellipse(0, y + who.lower_lip + 0.07, 0.11, 0.02), np.array(who.skin) * 0.6, 0.35, 0.02)


def mouth_corners(who: Person, look: View) -> np.ndarray:
    """The corner on the picture's left and the one on its right, in face coordinates [2, 2]."""
    half = who.mouth_width * (1 + 0.16 * look.smile)
    y = who.mouth_height - 0.035 * look.smile
    return np.array([[-half, y], [half, y]])


def _nostrils(texture: np.ndarray, who: Person) -> None:
    dark = np.array(who.skin) * [0.34, 0.26, 0.24]
    for sign in (-1, 1):
        hole = ellipse(sign * who.nose_width * 0.46, who.nose_length + 0.008, who.nose_width * 0.22, 0.016)
        paint(texture, hole, dark, 0.85, 0.008)
        wing = np.linspace(-0.9, 1.3, 10)
        edge_x = sign * who.nose_width * (0.86 + 0.22 * np.cos(wing))
        edge = np.stack([edge_x, who.nose_length - 0.02 + 0.036 * np.sin(wing)], 1)
        paint(texture, stroke(edge, 0.012), np.array(who.skin) * 0.5, 0.45, 0.008)
    paint(
        texture,
        ellipse(0, who.nose_length + 0.03, who.nose_width * 0.8, 0.014),
        np.array(who.skin) * 0.5,
        0.35,
        0.016,
    )


def _glasses(texture: np.ndarray, who: Person) -> None:
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
        paint(texture, rim, (235, 240, 245), 0.06)
        temple = np.array(
            [[sign * (who.eye_gap + wide), who.eye_height - 0.02], [sign * 1.45, who.eye_height - 0.02]]
        )
        for bar in (rim, temple):
            paint(texture, stroke(bar + np.array([0, 0.03]), 0.03), np.array(who.skin) * 0.5, 0.35, 0.02)
            paint(texture, stroke(bar, 0.026), who.glasses_colour, 0.97, 0.003)
    t = np.linspace(-1, 1, 9)
    bridge = np.stack([t * (who.eye_gap - wide + 0.02), who.eye_height - 0.02 * (1 - t * t)], 1)
    paint(texture, stroke(bridge, 0.026), who.glasses_colour, 0.97, 0.003)


def face(who: Person, look: View) -> np.ndarray:
    """Colour of the face with this photo's expression, uint8 RGB [HEIGHT, WIDTH, 3]."""
    texture = _skin(who).copy()
    _nostrils(texture, who)
    _mouth(texture, who, look)
    for sign in (-1, 1):
        _eye(texture, who, look, sign)
        _brow(texture, who, look, sign)
    if who.glasses != "none" and look.with_glasses:
        _glasses(texture, who)
    return np.clip(texture, 0, 255).astype(np.uint8)
