"""Bad cameras, and the files that cameras write."""

import cv2
import numpy as np


def spoil(photo: np.ndarray, face_width: float, rng: np.random.Generator) -> np.ndarray:
    """What a cheap camera far away makes of a photo: uint8 RGB in, a worse uint8 RGB out.

    face_width: that of the face in `photo`, in pixels; it ends up 14-40 pixels wide on the sensor.
    """
    scale = rng.uniform(14, 40) / face_width
    picture: np.ndarray = photo.astype(np.float32)
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


def _shake(picture: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Motion blur along a line of `length` pixels."""
    reach = int(np.ceil(length)) | 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    offset = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    ends = [tuple(int(v) for v in np.round((reach + sign * offset) * 16)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_8, 4)
    return cv2.filter2D(picture, -1, kernel / kernel.sum())


def _jpeg_round_trip(picture: np.ndarray, quality: int) -> np.ndarray:
    data = np.frombuffer(encoded(_bytes(picture), ".jpg", quality), np.uint8)
    return cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def encoded(picture: np.ndarray, suffix: str, quality: int = 90) -> bytes:
    """The bytes of a file that holds a picture (uint8 RGB); quality: of a ".jpg", 0-100."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    return cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), parameters)[1].tobytes()
