"""Damages thousands of image files in many ways and sends them through cleaning: nothing may come out but a
table.

    python benchmarks/cleaning_fuzz.py --files 24000

Also decodes what was called "ok" with Pillow and OpenCV: a file that either refuses should not have been.
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

from src.photos import cleaning, finding

Mutation = Callable[[bytearray, np.random.Generator], bytearray]
OPTIONS: dict[str, list[dict[str, object]]] = {
    "JPEG": [{"quality": 90}, {"progressive": True}, {"optimize": True, "subsampling": 0}],
    "PNG": [{}, {"compress_level": 0}],
    "WEBP": [{}, {"lossless": True}],
    "BMP": [{}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "jpeg"}],
    "GIF": [{}, {"save_all": True}],
}
MODES = {
    "JPEG": ["RGB", "L", "CMYK"],
    "PNG": ["RGB", "L", "P", "RGBA", "I;16", "1"],
    "WEBP": ["RGB", "RGBA"],
    "BMP": ["RGB", "L", "P"],
    "TIFF": ["RGB", "L", "CMYK"],
    "GIF": ["P", "L"],
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
    place = rng.integers(0, min(len(data) - 4, 400))
    number = int(rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
    data[place : place + 4] = number.to_bytes(4, "big" if rng.random() < 0.5 else "little")
    return data


MUTATIONS: list[Mutation] = [
    flip_bits, damage_header, cut, take_out, put_in, overwrite, repeat, claim_a_size,
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=24_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="copy files that a decoder refuses though they are ok here")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(options.files):
            form = list(OPTIONS)[number % len(OPTIONS)]
            data = original(form, rng)
            for _ in range(rng.integers(1, 3)):
                data = MUTATIONS[rng.integers(len(MUTATIONS))](data, rng) or bytearray(b"\0")
            place = folder / f"{number // 100:04d}" / f"{number}.{form.lower()}"
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(data)
        start = time.perf_counter()
        images = cleaning.clean(finding.find(folder), folder)
        wall = time.perf_counter() - start
        disagreements: Counter[str] = Counter()
        for path in images.loc[images["status"] == "ok", "path"]:
            data = (folder / path).read_bytes()
            for decoder in refused_by(data):
                disagreements[f"{path.rsplit('.')[-1]} refused by {decoder}"] += 1
                if options.keep:
                    options.keep.mkdir(exist_ok=True)
                    (options.keep / f"{decoder} {Path(path).name}").write_bytes(data)
    reasons = images["reason"]
    report = {
        "files": len(images),
        "seconds": round(wall, 1),
        "statuses": dict(Counter(images["status"])),
        "crashed a worker": int(reasons.str.contains("crashed").sum()),
        "took too long": int(reasons.str.contains("seconds").sum()),
        "ok here": dict(disagreements),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
