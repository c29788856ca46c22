"""Make the demo pack (src/demo/demo_pack) from seeds: a small SCRFD-like detector and a small recogniser.

Both learn from generated faces of people who are not in any demo set; the recogniser sees clean photos only.
The files are in InsightFace's own format, and are measured through FaceAnalysis on a demo set.

    python -m benchmarks.train_demo_pack --out src/demo/demo_pack

About a quarter of an hour on two cores. Threads and CPUs round differently: a pack made again is as good, not
the same to the last bit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from insightface.app import FaceAnalysis
from insightface.utils.face_align import norm_crop
from numpy.typing import NDArray
from pytorch_metric_learning.losses import CosFaceLoss
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from tqdm.auto import tqdm

from src.demo.album import make
from src.demo.drawing import draw, face_box
from src.demo.mode import PACK
from src.demo.people import SKINS, person, view
from src.packs import export, graphs

Array = NDArray[Any]
Shot = tuple[Array, Array, Array]  # a photo (RGB), its landmarks [5, 2] and face box [4], in pixels

STRIDES = (8, 16, 32)  # of the three outputs, in pixels of the picture
STRIDE = 4  # of the trunk, in pixels of the reduced picture it sees
SIZES = (20, 40)  # face sizes (square root of the area) that its two answers at every place are for
DETECTOR, RECOGNISER = "det_demo.onnx", "rec_demo.onnx"


# ---- generated photos with their truth ---------------------------------------------------------------------


def album(seed: int) -> list[Shot]:
    """Ten photos of one person, somewhat wilder than the demo's good ones."""
    who, rng = person(seed), np.random.default_rng([seed, 5])
    shots = []
    for _ in range(10):
        look = view(rng, wild=0.5 * rng.random())
        picture, landmarks = draw(who, look, 160)
        shots.append((picture, landmarks, face_box(who, look) * 160))
    return shots


def albums(people: int) -> list[list[Shot]]:
    seeds = range(10_000, 10_000 + people)  # no demo set has them
    with ThreadPoolExecutor() as pool:
        return list(tqdm(pool.map(album, seeds), total=people, desc="draw", unit="person"))


# ---- detector ----------------------------------------------------------------------------------------------


def separable(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Trunk(nn.Module):
    """Looks for faces of 14 to 57 pixels.

    forward: float [B, 3, h, w], RGB as (x - 127.5) / 128 -> [B, h / 4, w / 4, 2, 15]: for every place and
    either size a score logit, log distances to the box's sides, and offsets of the landmarks; lengths in half
    sizes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), separable(16, 32, 2)
        )
        self.widen = separable(32, 64, kernel=5)
        self.body = nn.ModuleList(separable(64, 64, kernel=5) for _ in range(5))
        self.head = nn.Conv2d(64, 2 * 15, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        self.head.bias = nn.Parameter(torch.tensor(([-4.0] + [0.0] * 14) * 2))  # most places hold no face

    def forward(self, images: Tensor) -> Tensor:
        x = self.widen(self.stem(images))
        for block in self.body:
            x = x + block(x)
        return self.head(x).permute(0, 2, 3, 1).unflatten(-1, (2, 15))


class Detector(nn.Module):
    """One trunk on the picture reduced 2, 4 and 8 times: what it learns about one face size holds for all.

    forward: float [1, 3, H, W], sides divisible by 32 -> scores [n, 1], boxes [n, 4] (distances to the sides)
    and landmarks [n, 10], each for strides 8, 16, 32 and in units of the stride, as SCRFD's exports give
    them.
    """

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.register_buffer("scale", torch.tensor(SIZES).float()[:, None] / 2 / STRIDE)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        scores, boxes, points = [], [], []
        for stride in STRIDES:
            reduction = stride // STRIDE
            answer = self.trunk(F.avg_pool2d(images, reduction))[0]
            shift = (reduction - 1) / 2 / stride  # of a reduced pixel's middle against the picture's grid
            sides = answer[..., 1:5].exp() * self.scale + shift * torch.tensor([-1.0, -1.0, 1.0, 1.0])
            scores.append(answer[..., :1].sigmoid().reshape(-1, 1))
            boxes.append(sides.reshape(-1, 4))
            points.append((answer[..., 5:] * self.scale + shift).reshape(-1, 10))
        return (*scores, *boxes, *points)


def compose(photos: list[Shot], side: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """A picture [side, side, 3] of one scene or of four; its faces [n, 14]: box and landmarks in pixels."""
    cells = 1 if rng.random() < 0.6 else 2
    size = side // cells
    picture: Array = np.zeros((side, side, 3), np.uint8)
    faces = []
    for row in range(cells):
        for column in range(cells):
            corner = np.array([column * size, row * size])
            cell, face = (_clutter(size, rng), None) if rng.random() < 0.15 else _scene(photos, size, rng)
            picture[corner[1] : corner[1] + size, corner[0] : corner[0] + size] = cell
            if face is not None:
                faces.append((face + corner).ravel())
    if rng.random() < 0.3:  # a blurred or noisy picture
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 0.006 * side))
        noise = rng.normal(0, rng.uniform(0, 8), picture.shape)
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    return picture, np.array(faces, np.float32).reshape(-1, 14)


def _scene(photos: list[Shot], size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """A photo moved, scaled, mirrored and turned; its face's corners and landmarks [7, 2]."""
    photo, points, box = photos[rng.integers(len(photos))]
    points = np.concatenate([box.reshape(2, 2), points])
    if rng.random() < 0.5:
        photo = photo[:, ::-1]
        points = np.array([len(photo) - 1, 0]) + points * [-1, 1]
        points = points[[0, 1, 3, 2, 4, 6, 5]]
        points[:2, 0] = points[1::-1, 0]
    height = np.exp(rng.uniform(np.log(9), np.log(1.2 * size)))
    scale = height / (points[1, 1] - points[0, 1])
    middle = points[:2].mean(0)
    room = np.maximum(size - height * np.array([0.6, 0.8]), 0.1 * size) / 2
    target = size / 2 + rng.uniform(-1, 1, 2) * room
    warp = cv2.getRotationMatrix2D(middle.tolist(), rng.normal(0, 6), scale)
    warp[:, 2] += target - middle
    border = cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    small = cv2.GaussianBlur(photo, (0, 0), 0.35 / scale) if scale < 0.7 else photo
    cell = cv2.warpAffine(small, warp, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    return cell, points @ warp[:, :2].T + warp[:, 2]


def _clutter(size: int, rng: np.random.Generator) -> Array:
    """A picture without a face: patches, discs and bars, some of the colour of skin."""
    patches = rng.integers(20, 220, (rng.integers(1, 8), rng.integers(1, 8), 3), np.uint8)
    picture = cv2.resize(patches, (size, size))
    for _ in range(rng.integers(0, 12)):
        skin = SKINS[rng.integers(5)] * rng.uniform(0.6, 1.05)
        colour = skin if rng.random() < 0.5 else rng.uniform(0, 255, 3)
        centre, axes = rng.integers(0, size, 2), rng.integers(2, size // 2, 2)
        line = -1 if rng.random() < 0.6 else 3
        cv2.ellipse(
            picture, centre.tolist(), axes.tolist(), rng.uniform(0, 180), 0, 360, colour.tolist(), line
        )
    return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 4))


def targets(faces: list[Array], side: int) -> tuple[Tensor, Tensor]:
    """What places should say [B, h, w, 2, 14], and if they hold a face [B, h, w, 2]: 1, 0, -1 (not asked)."""
    cells = side // STRIDE
    place = np.moveaxis(np.mgrid[:cells, :cells][::-1], 0, -1) * STRIDE
    answer = np.zeros((len(faces), cells, cells, 2, 14), np.float32)
    label = np.zeros((len(faces), cells, cells, 2), np.float32)
    for image, present in enumerate(faces):
        for face in present:
            box, points = face[:4], face[4:]
            extent = box[2:] - box[:2]
            offset = np.abs(place - (box[:2] + box[2:]) / 2)
            inside = (offset < 0.45 * extent).all(-1)
            middle = (offset <= np.maximum(0.15 * extent, 0.5 * STRIDE)).all(-1)
            for which, size in enumerate(SIZES):
                octaves = abs(np.log2(np.sqrt(extent.prod()) / size))
                if octaves < 0.9:
                    label[image, ..., which][inside & (label[image, ..., which] < 1)] = -1
                if octaves < 0.55:
                    sides = np.concatenate([place - box[:2], box[2:] - place], -1)
                    offsets = points - np.tile(place, 5)
                    answer[image, ..., which, :][middle] = (
                        np.concatenate([sides, offsets], -1)[middle] * 2 / size
                    )
                    label[image, ..., which][middle] = 1
    return torch.from_numpy(answer), torch.from_numpy(label)


def detection_loss(found: Tensor, wanted: Tensor, label: Tensor) -> Tensor:
    """Focal loss for scores (Lin et al. 2017), 1 - IoU for boxes, smooth L1 for landmarks."""
    asked, face = label >= 0, label > 0
    count = face.sum() + 1
    logit, truth = found[..., 0][asked], label[asked]
    crossed = F.binary_cross_entropy_with_logits(logit, truth, reduction="none")
    score = ((logit.sigmoid() - truth).abs() ** 2 * crossed).sum() / count
    box, true_box = found[..., 1:5][face].exp(), wanted[..., :4][face].clamp(min=0.02)
    least, most = torch.minimum(box, true_box), torch.maximum(box, true_box)
    overlap = (least[:, 0] + least[:, 2]) * (least[:, 1] + least[:, 3])
    hull = (most[:, 0] + most[:, 2]) * (most[:, 1] + most[:, 3])
    boxes = (1 - overlap / hull).sum() / count
    landmarks = (
        F.smooth_l1_loss(found[..., 5:][face], wanted[..., 4:][face], beta=0.02, reduction="sum") / count
    )
    return score + boxes + landmarks


def train_detector(path: Path, drawn: list[list[Shot]], steps: int, side: int = 96, batch: int = 24) -> None:
    photos = [shot for shots in drawn for shot in shots]
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    trunk = Trunk().to(memory_format=torch.channels_last)
    print(f"detector: {sum(p.numel() for p in trunk.parameters()):,} parameters, {len(photos)} photos")
    optimiser = torch.optim.AdamW(trunk.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps, pct_start=0.15)
    losses = []
    for step in tqdm(range(steps), desc="detector"):
        made = [compose(photos, side, rng) for _ in range(batch)]
        images = (torch.from_numpy(np.stack([m[0] for m in made])).permute(0, 3, 1, 2).float() - 127.5) / 128
        loss = detection_loss(trunk(images), *targets([m[1] for m in made], side))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trunk.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % 100 == 99:
            print(f"step {step + 1}: loss {np.mean(losses[-100:]):.3f}")
    network = Detector(trunk).eval().to(memory_format=torch.contiguous_format)
    names = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in STRIDES]
    sides = {2: 32 * torch.export.Dim("rows", max=64), 3: 32 * torch.export.Dim("columns", max=64)}
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, 128, 160),),
        path,
        dynamo=True,
        opset_version=export.OPSET,
        input_names=["input"],
        output_names=names,
        dynamic_shapes=(sides,),
        external_data=False,
        verbose=False,
    )
    graphs.tidy(path)


# ---- recogniser --------------------------------------------------------------------------------------------


class Bottleneck(nn.Module):
    """Inverted residual (Sandler et al. 2018), as in MobileFaceNet (Chen et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        wide = 2 * inputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skip else self.body(x)


def recogniser(size: int = 128) -> nn.Sequential:
    """Float [B, 3, 112, 112], RGB in [-1, 1] -> [B, size]."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, 4, 2, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        Bottleneck(32, 32),
        Bottleneck(32, 64, 2),
        Bottleneck(64, 64),
        Bottleneck(64, 64),
        Bottleneck(64, 96, 2),
        Bottleneck(96, 96),
        nn.Conv2d(96, 192, 1, bias=False),
        nn.BatchNorm2d(192),
        nn.ReLU(),
        nn.Conv2d(192, 192, 7, groups=192, bias=False),
        nn.BatchNorm2d(192),
        nn.Flatten(),
        nn.Linear(192, size, bias=False),
        nn.BatchNorm1d(size),
    )


def jittered(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror some crops and vary their light: uint8 [B, 3, 112, 112] -> float in [-1, 1]."""
    batch = crops.float() / 127.5 - 1
    mirror = torch.rand(len(batch), generator=generator) < 0.5
    batch[mirror] = batch[mirror].flip(-1)
    gain = 1 + 0.20 * torch.randn(len(batch), 1, 1, 1, generator=generator)
    tint = 1 + 0.06 * torch.randn(len(batch), 3, 1, 1, generator=generator)
    offset = 0.10 * torch.randn(len(batch), 1, 1, 1, generator=generator)
    return (batch * gain * tint + offset).clamp(-1, 1)


def train_recogniser(path: Path, drawn: list[list[Shot]], epochs: int, batch: int = 80) -> None:
    rng = np.random.default_rng(2)
    crops, labels = [], []
    for number, shots in enumerate(drawn):
        for picture, points, box in shots:
            shaken = points + rng.normal(0, 0.015, (5, 2)) * (box[3] - box[1])  # no detector's are exact
            crops.append(norm_crop(picture, shaken.astype(np.float32)))
            labels.append(number)
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
    identity = torch.tensor(labels)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = recogniser().to(memory_format=torch.channels_last)
    head = CosFaceLoss(len(drawn), 128, margin=0.15, scale=24)
    parameters = [*network.parameters(), *head.parameters()]
    print(f"recogniser: {sum(p.numel() for p in network.parameters()):,} parameters, {len(images)} crops")
    steps = len(images) // batch
    optimiser = torch.optim.AdamW(parameters, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * steps, pct_start=0.2)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)[: steps * batch].split(batch)
        losses = []
        for chosen in tqdm(order, desc=f"recogniser {epoch + 1}/{epochs}", leave=False):
            loss = head(network(jittered(images[chosen], generator)), identity[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")
    export.onnx(network.to(memory_format=torch.contiguous_format), path)


# ---- measuring ---------------------------------------------------------------------------------------------


def measure(folder: Path, people: int) -> None:
    """Detection and verification through FaceAnalysis on a demo set; landmarks on faces of known truth."""
    app = FaceAnalysis(name=str(folder), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1)
    size = sum(file.stat().st_size for file in folder.glob("*.onnx"))
    print(f"pack: {size / 1e6:.2f} MB")
    errors = []
    for seed in range(30_000, 30_040):
        who, look = person(seed), view(np.random.default_rng(seed))
        picture, landmarks = draw(who, look, 224)
        found = app.get(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        if found:
            eyes = np.linalg.norm(landmarks[0] - landmarks[1])
            errors.append(np.linalg.norm(found[0].kps - landmarks, axis=1).mean() / eyes)
    print(f"landmarks: found {len(errors)}/40, mean error {np.mean(errors):.3f} of the eye distance")

    with tempfile.TemporaryDirectory() as scratch:
        images = make(Path(scratch), people=people)
        rows, several, begun = [], 0, time.perf_counter()
        for file in sorted(images.glob("*/*/*_[0-9][0-9].*")):
            found = app.get(cv2.imread(str(file)))
            several += len(found) > 1
            best = max(found, key=lambda face: face.det_score, default=None)
            embedding = np.full(128, np.nan) if best is None else best.normed_embedding
            rows.append((file.parts[-3], file.parts[-2] == "high_quality", embedding))
        spent = time.perf_counter() - begun
    names = np.array([row[0] for row in rows])
    high = np.array([row[1] for row in rows])
    embeddings = np.stack([row[2] for row in rows])
    missed = np.isnan(embeddings[:, 0])
    print(f"{len(rows)} photos, {1000 * spent / len(rows):.0f} ms each; more than one face in {several}")
    print(f"found: high {1 - missed[high].mean():.3f}, low {1 - missed[~high].mean():.3f}")
    scores = np.nan_to_num(embeddings @ embeddings.T, nan=-1.0)
    first, second = np.triu_indices(len(rows), 1)
    same = names[first] == names[second]
    for name, wanted in (("high-high", 2), ("high-low", 1), ("low-low", 0)):
        for note, keep in (("as shipped", True), ("found only", ~(missed[first] | missed[second]))):
            pairs = (high[first].astype(int) + high[second] == wanted) & keep
            auc = roc_auc_score(same[pairs], scores[first, second][pairs])
            print(f"AUC {name} {note}: {auc:.4f} ({pairs.sum()} pairs)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=PACK, help="folder of the pack")
    parser.add_argument(
        "--only", choices=("detector", "recogniser", "measure"), help="one part instead of all"
    )
    parser.add_argument("--steps", type=int, default=1200, help="training steps of the detector")
    parser.add_argument("--epochs", type=int, default=10, help="passes of the recogniser over its crops")
    parser.add_argument("--people", type=int, default=400, help="generated people to learn from")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    drawn = albums(options.people) if options.only != "measure" else []
    if options.only in (None, "detector"):
        train_detector(options.out / DETECTOR, drawn, options.steps)
        print(f"detector trained after {time.perf_counter() - begun:.0f} s")
    if options.only in (None, "recogniser"):
        train_recogniser(options.out / RECOGNISER, drawn, options.epochs)
        print(f"recogniser trained after {time.perf_counter() - begun:.0f} s")
    if options.only in (None, "measure"):
        measure(options.out, people=24)
    print(f"{time.perf_counter() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
