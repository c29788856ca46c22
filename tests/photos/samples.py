"""Pictures, files and tables that the tests of this room share."""

import hashlib
import io
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image


def scene(width: int = 60, height: int = 40, seed: int = 0) -> np.ndarray:
    """A picture without symmetry, uint8 RGB `[height, width, 3]`."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def photo(seed: int, side: int = 160) -> np.ndarray:
    """A picture of soft shapes, unlike that of any other seed, uint8 RGB `[side, side, 3]`."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def encoded(image: Image.Image | np.ndarray, form: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, form, **options)
    return file.getvalue()


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    return encoded(pixels, "JPEG", quality=quality)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()


def write(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        write(folder / name, data)
    return folder


def cleaned_table(people, set_aside=()) -> pd.DataFrame:
    """A cleaned table from {identity: {quality: sizes of its groups}}; every photo has its own hashes."""
    rows = []
    for identity, qualities in people.items():
        for quality, sizes in qualities.items():
            for i, size in enumerate(sizes):
                for j in range(size):
                    path = f"{identity}/{quality}/{i}-{j}.jpg"
                    rows.append((path, identity, quality, "ok", f"{identity}{quality}{i}"))
    rows += [
        (f"{identity}/bad{i}.jpg", identity, "low", "unreadable", "") for i, identity in enumerate(set_aside)
    ]
    images = pd.DataFrame(rows, columns=["path", "identity", "quality", "status", "group"])
    images = images.sort_values("path", ignore_index=True)
    images["group"] = pd.factorize(images["group"])[0]
    images.loc[images["status"] != "ok", "group"] = -1
    digests = [hashlib.blake2b(path.encode(), digest_size=6).hexdigest() for path in images["path"]]
    images["sha256"] = digests
    images["phash"] = [digest.rjust(16, "0") for digest in digests]
    return images
