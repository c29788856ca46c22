"""Generated people: a person is a vector of shape, colour and hair; a view adds pose and light."""

from dataclasses import dataclass

import cv2
import numpy as np

# Colours, RGB, 0-255.
SKINS = np.array(
    [[246, 214, 190], [232, 188, 156], [208, 158, 122], [168, 116, 82], [112, 74, 52]], np.float32
)
HAIRS = np.array(
    [[24, 20, 20], [46, 32, 26], [82, 54, 36], [120, 80, 48], [176, 136, 84], [138, 62, 34]], np.float32
)
IRISES = np.array([[58, 38, 26], [92, 60, 34], [104, 110, 68], [92, 124, 148], [112, 128, 134]], np.float32)
FRAMES = np.array([[24, 24, 28], [88, 52, 30], [118, 112, 104], [60, 22, 30]], np.float32)
HAIR_STYLES = ("bald", "cropped", "short", "fringe", "swept", "bob", "long")

BEARDS = ("none", "stubble", "moustache", "goatee", "full")


@dataclass(frozen=True)
class Person:
    """One identity. Lengths are in half heights of a head, colours RGB 0-255, all else 0-1 or around 1."""

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


def _colour(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = np.clip(values, 4, 251).tolist()
    return red, green, blue


def person(seed: int) -> Person:
    """Draws an identity; the same seed always gives the same person."""
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
    """Draws a photo's circumstances; `wild` from 0 (a willing sitter) to 1 (any pose and light)."""
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


def _hsv(rng: np.random.Generator) -> np.ndarray:
    return np.array([[[rng.integers(180), rng.integers(20, 150), rng.integers(40, 215)]]], np.uint8)
