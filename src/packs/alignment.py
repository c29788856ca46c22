"""The crop that face recognition networks are made for: its size, its template, alignment to it."""

import cv2
import numpy as np

SIDE = 112  # pixels; a crop is this wide and high

LANDMARKS = ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth")  # the person's right, not ours

# Where ArcFace models expect these landmarks in a crop, x and y in pixels (insightface.utils.face_align).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)
CENTRED = TEMPLATE - TEMPLATE.mean(axis=0)  # around its middle, so that it does not matter where a face lies


def align(photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The crop, uint8 `[112, 112, 3]`, in which the landmarks lie closest to the template.

    photo: uint8 `[H, W, 3]`, 0-255, in any order of colours, which the crop keeps. landmarks: `[5, 2]`, x and
    y in pixels of the photo, in the order of LANDMARKS. What lies outside the photo is black.

    The crop is that of `insightface.utils.face_align.norm_crop`: rotated, scaled and shifted.
    """
    return cv2.warpAffine(photo, similarity(landmarks), (SIDE, SIDE), borderValue=0.0)


def similarity(landmarks: np.ndarray) -> np.ndarray:
    """The similarity transform, float64 `[2, 3]`, from landmarks `[5, 2]` (x, y) to the template.

    It rotates, scales and shifts, without a reflection, and leaves the least squared distance (Umeyama,
    TPAMI 1991).
    """
    source, target = landmarks.astype(np.float64), TEMPLATE.astype(np.float64)
    source_centre, target_centre = source.mean(0), target.mean(0)
    x, y = (source - source_centre).T
    u, v = (target - target_centre).T
    spread = (x**2 + y**2).sum()
    a, b = (x * u + y * v).sum() / spread, (x * v - y * u).sum() / spread
    turn = np.array([[a, -b], [b, a]])
    return np.column_stack([turn, target_centre - turn @ source_centre])
