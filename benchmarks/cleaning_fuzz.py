"""Damages thousands of image files in many ways and sends them through cleaning: nothing may come out but a
table.

    python benchmarks/cleaning_fuzz.py --files 24000

Also decodes what was called "ok" with Pillow and OpenCV: a file that either refuses should not have been. Two
things are allowed: OpenCV reads no HEIC, and Pillow stops at some bytes between the segments of a JPEG and at
short ICC markers, though no pixel is missing. What was called "ok" although libjpeg warns of it is compared
with the picture it was before: the largest difference tells whether the warning was harmless.
"""

import argparse
import io
import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from src.photos import cleaning, decoding, finding, jpeg

Mutation = Callable[[bytearray, np.random.Generator], bytearray]
OPTIONS: dict[str, list[dict[str, object]]] = {
    "JPEG": [{"quality": 90}, {"progressive": True}, {"optimize": True, "subsampling": 0}],
    "PNG": [{}, {"compress_level": 0}],
    "WEBP": [{}, {"lossless": True}],
    "BMP": [{}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "jpeg"}],
    "GIF": [{}, {"save_all": True}],
    "AVIF": [{"speed": 10}],
    "HEIF": [{}],
}
MODES = {
    "JPEG": ["RGB", "L", "CMYK"],
    "PNG": ["RGB", "L", "P", "RGBA", "I;16", "1"],
    "WEBP": ["RGB", "RGBA"],
    "BMP": ["RGB", "L", "P"],
    "TIFF": ["RGB", "L", "CMYK"],
    "GIF": ["P", "L"],
    "AVIF": ["RGB", "RGBA"],
    "HEIF": ["RGB", "RGBA"],
}


def flip_bits(data: bytearray, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, len(data), rng.integers(1, 20)):
        data[place] ^= 1 << rng.integers(8)
    return data


def damage_header(data: bytearray, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, min(len(data), 200), rng.integers(1, 6)):
        data[place] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
    return data


def cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: rng.integers(1, len(data))]


def take_out(data: bytearray, rng: np.random.Generator) -> bytearray:
    start = rng.integers(0, len(data))
    return data[:start] + data[start + rng.integers(1, 400) :]


def put_in(data: bytearray, rng: np.random.Generator) -> bytearray:
    start = rng.integers(0, len(data))
    return data[:start] + bytearray(rng.bytes(int(rng.integers(1, 400)))) + data[start:]


def overwrite(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, length = int(rng.integers(0, len(data))), int(rng.integers(1, 400))
    content = rng.bytes(length) if rng.random() < 0.5 else bytes([int(rng.choice([0, 255]))]) * length
    return data[:start] + content + data[start + length :]


def repeat(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, length = rng.integers(0, len(data)), rng.integers(1, 2000)
    return data[: start + length] + data[start:]


def claim_a_size(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Writes large numbers, of either byte order, where headers keep sizes and offsets."""
    place = rng.integers(0, max(1, min(len(data) - 4, 400)))
    number = int(rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
    data[place : place + 4] = number.to_bytes(4, "big" if rng.random() < 0.5 else "little")
    return data


def make_libjpeg_warn(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Does to a JPEG what cameras and editors do to theirs: harmless, unless something else is done too."""
    if not data.startswith(b"\xff\xd8\xff"):
        return data
    kind = rng.integers(5)
    if kind == 0:
        starts = [segment.start for segment in jpeg.segments(bytes(data))]
        place = starts[rng.integers(len(starts))] if starts else 2
        return data[:place] + bytearray(rng.integers(0, 128, rng.integers(1, 40), np.uint8)) + data[place:]
    if kind == 1:
        return data.replace(b"JFIF\0\1", b"JFIF\0\2", 1)
    if kind == 2:
        profile = b"ICC_PROFILE\0" + rng.bytes(int(rng.integers(0, 40)))
        return data[:2] + b"\xff\xe2" + (len(profile) + 2).to_bytes(2, "big") + profile + data[2:]
    end = data.rfind(b"\xff\xd9")
    scan = data.find(b"\xff\xda")
    if kind == 3 and scan > 0:
        length = int.from_bytes(data[scan + 2 : scan + 4], "big")
        data[scan + length - 1 : scan + length + 2] = bytes(3)
        return data
    return data[:end] + bytes(int(rng.integers(1, 600))) + data[end:]


MUTATIONS: list[Mutation] = [
    flip_bits, damage_header, cut, take_out, put_in, overwrite, repeat, claim_a_size, make_libjpeg_warn,
]  # fmt: skip


def original(form: str, rng: np.random.Generator) -> bytearray:
    width, height = rng.integers(17, 160, 2)
    coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
    image = Image.fromarray(cv2.resize(coarse, (int(width), int(height)), interpolation=cv2.INTER_CUBIC))
    mode = str(rng.choice(MODES[form]))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    options = OPTIONS[form][rng.integers(len(OPTIONS[form]))]
    file = io.BytesIO()
    extra = {"append_images": [image.rotate(90)]} if "save_all" in options else {}
    image.save(file, form, **options, **extra)
    return bytearray(file.getvalue())


def refused_by(data: bytes) -> list[str]:
    refused = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(data)).load()
    except Exception:
        refused.append("Pillow")
    try:
        if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is None:
            refused.append("OpenCV")
    except cv2.error:
        refused.append("OpenCV")
    return refused


def change(before: bytes, after: Path) -> float:
    """Mean absolute difference, in grey levels, between a JPEG before and after."""
    old, new = decoding.decode(before).astype(int), decoding.read_rgb(after)
    return float(np.abs(old - new).mean()) if old.shape == new.shape else 255.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=24_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="copy files that a decoder refuses though they are ok here")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        before: dict[str, bytes] = {}  # the JPEGs as they were
        for number in range(options.files):
            form = list(OPTIONS)[number % len(OPTIONS)]
            data = original(form, rng)
            undamaged = bytes(data)
            for _ in range(rng.integers(1, 3)):
                data = MUTATIONS[rng.integers(len(MUTATIONS))](data, rng) or bytearray(b"\0")
            place = folder / f"{number // 100:04d}" / f"{number}.{form.lower()}"
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(data)
            if form == "JPEG":
                before[place.relative_to(folder).as_posix()] = undamaged
        start = time.perf_counter()
        images = cleaning.clean(finding.find(folder), folder)
        wall = time.perf_counter() - start
        disagreements: Counter[str] = Counter()
        for path in images.loc[images["status"] == "ok", "path"]:
            data = (folder / path).read_bytes()
            for decoder in refused_by(data):
                if decoder == "OpenCV" and path.endswith("heif"):
                    continue
                disagreements[f"{path.rsplit('.')[-1]} refused by {decoder}"] += 1
                if options.keep:
                    options.keep.mkdir(exist_ok=True)
                    (options.keep / f"{decoder} {Path(path).name}").write_bytes(data)
        noted = images[
            (images["status"] == "ok") & images["path"].isin(list(before)) & (images["reason"] != "")
        ]
        changes = [change(before[path], folder / path) for path in noted["path"]]
    reasons = images["reason"]
    report = {
        "files": len(images),
        "seconds": round(wall, 1),
        "statuses": dict(Counter(images["status"])),
        "crashed a worker": int(reasons.str.contains("crashed").sum()),
        "took too long": int(reasons.str.contains("seconds").sum()),
        "ok here": dict(disagreements),
        "JPEGs ok that libjpeg warns of": len(noted),
        "of these changed by more than 2 grey levels in the mean": sum(each > 2 for each in changes),
        "the largest change": round(max(changes, default=0.0), 2),
        "ok by format": dict(
            Counter(Path(path).suffix for path in images.loc[images["status"] == "ok", "path"])
        ),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
