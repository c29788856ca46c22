"""A photo of a generated person, and where its landmarks and its face truly are."""

import cv2
import numpy as np

from src.demo import features, hair, head, light, scene
from src.demo.people import Person, View


def draw(who: Person, look: View, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Takes a photo of `who` as `look` says.

    Returns uint8 RGB [side, side, 3] and the true landmarks, float32 [5, 2] in pixels, in InsightFace's
    order: the eye on the picture's left, the one on its right, nose tip, mouth corner on the left, on the
    right.
    """
    large = side * 5 // 4  # drawn larger and reduced: smooth edges
    scale = look.size * large  # pixels per half height of a head
    picture = scene.background(look, large)
    axes, rotation = head.half_axes(who), head.rotation(look)

    reach = 1.5
    left, top = (max(0, int(c * large - reach * scale)) for c in look.centre)
    right, bottom = (min(large, int(c * large + reach * scale)) for c in look.centre)
    window = picture[top:bottom, left:right]
    x = ((np.arange(left, right, dtype=np.float32) + 0.5) / scale - look.centre[0] / look.size)[None, :]
    y = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / scale - look.centre[1] / look.size)[:, None]
    x, y = np.broadcast_to(x, window.shape[:2]), np.broadcast_to(y, window.shape[:2])

    shell, colours = hair.surface(who)
    hair_hit, hair_depth, hair_x, hair_y = head.cast(shell, axes, rotation, x, y)
    strands = cv2.remap(colours, hair_x, hair_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lit_hair = light.shade(strands[..., :3], hair_depth, hair_hit, look, scale, gloss=0.06)
    scene.body(picture, who, look)

    hit, depth, map_x, map_y = head.cast(head.relief(who), axes, rotation, x, y)
    skin = cv2.remap(
        features.face(who, look), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    coverage = strands[..., 3] / 255 * (hair_hit & (hair_depth > depth - 0.02))
    shadow = 1 - 0.35 * light.soften(coverage.astype(np.float32), 0.04 * scale)
    light.over(window, light.shade(skin, depth, hit, look, scale, gloss=0.035) * shadow[..., None], hit * 1.0)
    light.over(window, lit_hair, coverage)

    picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    photo = np.sqrt(np.clip(picture, 0, 1)) * 255
    return np.round(photo).astype(np.uint8), landmarks(who, look) * side - 0.5


def landmarks(who: Person, look: View) -> np.ndarray:
    """The true landmarks as shares of the photo's side, float32 [5, 2], in the order that `draw` gives."""
    eyes = [[-who.eye_gap, who.eye_height], [who.eye_gap, who.eye_height]]
    nose = [0, who.nose_length - 0.05]
    return head.place(np.array([*eyes, nose, *features.mouth_corners(who, look)]), who, look)


def face_box(who: Person, look: View) -> np.ndarray:
    """The true face box, hairline to chin, cheek to cheek.

    Left, top, right, bottom as shares of the photo's side, float32 [4].
    """
    sides = [
        [sign * x, y] for sign in (-1, 1) for x, y in ((0.9, -0.3), (1.0, 0.1), (0.85, 0.5), (0.5, 0.85))
    ]
    outline = head.place(np.array([[0, -0.55], [0, 1.12], *sides]), who, look)
    return np.concatenate([outline.min(0), outline.max(0)])
