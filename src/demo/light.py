"""Light on a surface, and layers over one another, in linear RGB."""

import math

import cv2
import numpy as np

from src.demo.people import View


def shade(
    colours: np.ndarray, depth: np.ndarray, hit: np.ndarray, look: View, scale: float, gloss: float
) -> np.ndarray:
    """Lights a surface: colours uint8 RGB and depth in half heads to linear RGB, float32 [h, w, 3].

    hit: where there is a surface, bool. scale: pixels per half height of a head. gloss: how much it shines.
    """
    depth = np.where(hit, depth, 0).astype(np.float32)
    slope = cv2.GaussianBlur(depth, (0, 0), 0.012 * scale) * scale
    gx, gy = cv2.Sobel(slope, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(slope, cv2.CV_32F, 0, 1, scale=1 / 8)
    norm = 1 / np.sqrt(gx * gx + gy * gy + 1)
    azimuth, elevation = np.radians(look.light)
    to_light = (
        math.sin(azimuth) * math.cos(elevation),
        math.sin(elevation),
        math.cos(azimuth) * math.cos(elevation),
    )
    facing = (-gx * to_light[0] - gy * to_light[1] + to_light[2]) * norm
    hollow = np.clip((soften(depth, 0.07 * scale) - depth) * 5, 0, 0.5)
    ambient = (1 - look.contrast) * (0.85 + 0.25 * gy * norm) * (1 - hollow)
    light = np.empty((*depth.shape, 3), np.float32)
    for channel, wrap in enumerate((0.45, 0.30, 0.25)):  # red light travels further under the skin
        direct = np.maximum(facing + wrap, 0) / (1 + wrap)
        lit = ambient + 1.25 * look.contrast * direct * (1 - 0.6 * hollow)
        light[..., channel] = lit * look.tint[channel]
    half = np.array(to_light) + np.array([0, 0, 1])
    half_x, half_y, half_z = (half / np.linalg.norm(half)).tolist()
    glint = np.maximum((-gx * half_x - gy * half_y + half_z) * norm, 0) ** 24
    colour = colours.astype(np.float32) / 255
    return (colour * colour * light + (gloss * look.contrast * glint)[..., None]) * look.exposure


def soften(values: np.ndarray, sigma: float) -> np.ndarray:
    """About a Gaussian blur, at a cost that does not grow with sigma: two box filters."""
    width = int(sigma * 2.4) | 1
    return cv2.blur(cv2.blur(values, (width, width)), (width, width))


def over(picture: np.ndarray, layer: np.ndarray, alpha: np.ndarray) -> None:
    """Lays a layer [h, w, 3] over a picture [h, w, 3], in place; alpha [h, w] 0-1."""
    picture += alpha[..., None].astype(np.float32) * (layer - picture)
