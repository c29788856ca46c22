"""What a GPU is good for here: speed, precision, memory and shapes, in one table within a few minutes.

    python -m benchmarks.gpu --out OUT [--pack buffalo_l] [--quick]

Training in photos a second, of ResNet-50 and of an IResNet-50 (the architecture of buffalo_l's recogniser,
random weights): ours; the same network on one batch that is there already, the limit; and the loop that
everyone writes, `ImageFolder` and `DataLoader` in single precision. Embedding in half and in single
precision, and on the CPU. ONNX Runtime, where InsightFace is installed: what detection and recognition take
of the memory and give back, and in which shapes they are called. Peak memory is torch's own, or, for ONNX
Runtime, what the whole device has in use. With --quick all is small.
"""

import argparse
import copy
import importlib.util
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from tqdm.auto import tqdm

from src import devices
from src.networks import embedding, finetuning, loading, losses, network, recipes
from src.networks.network import FaceNetwork, Origin
from tests import iresnet

PACKAGES = ("torch", "torchvision", "onnxruntime-gpu", "onnxruntime", "insightface", "numpy")
PEOPLE = 20


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    photos: int = 2000
    seconds: float = 8.0  # of each loop
    batches: tuple[int, ...] = (32, 128)
    side: int | None = None  # of what ResNet-50 looks at
    widths: tuple[int, int, int, int] = iresnet.WIDTHS
    on_cpu: int = 64  # crops embedded on the CPU
    least: int = 3  # repetitions


QUICK = Size(48, 0.2, (4,), 32, iresnet.QUARTER, 8, 1)
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("processed_dataset"), help="gpu.csv goes here")
    parser.add_argument(
        "--pack", default="", help="a pack's name or folder; by default one of random weights"
    )
    parser.add_argument("--quick", action="store_true", help="small, as for a CPU")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else Size()
    started = time.perf_counter()
    rows = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        crops = photos(size.photos)
        for name, start in networks(size).items():
            for batch in size.batches:
                rows += training(name, start, crops, batch, size, Path(folder))
            rows += embeddings(name, start, crops, size)
        rows += onnx_runtime(crops, size, Path(folder), options.pack)
    table = pd.DataFrame(rows)
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "gpu.csv", index=False)
    about = {**machine(), "minutes": round((time.perf_counter() - started) / 60, 1)}
    (options.out / "gpu.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    print(json.dumps(about, indent=1))
    print(table.to_string(index=False, na_rep="", float_format="{:.4g}".format))
    return table


def machine() -> dict[str, str]:
    """The device and the versions."""
    there = {d.metadata["Name"].lower() for d in metadata.distributions() if d.metadata["Name"]}
    versions = {name: metadata.version(name) for name in PACKAGES if name in there}
    return {
        "device": devices.name(devices.device()),
        "training": str(devices.training_precision(devices.device())),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "python": platform.python_version(),
        **versions,
    }


def photos(count: int) -> np.ndarray:
    """Smooth pictures, uint8 [N, 112, 112, 3], each of a person by its colours."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((count, 3, 6, 6), np.float32))
    coarse[:, :, :3] += torch.from_numpy(rng.random((PEOPLE, 3, 1, 1), np.float32))[np.arange(count) % PEOPLE]
    smooth = nn.functional.interpolate(coarse / 2, size=(112, 112), mode="bicubic")
    return (smooth.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def networks(size: Size) -> dict[str, FaceNetwork]:
    """ResNet-50 as at its start, and the architecture of buffalo_l's recogniser; random weights."""
    origin = Origin("pack", "random", True, True, True, 512, 112)
    return {
        "ResNet-50": network.resnet50("none", input_size=size.side),
        "IResNet-50": FaceNetwork(iresnet.build(size.widths), nn.Identity(), origin),
    }


# ---------------------------------------------------------------- training


def training(
    name: str, start: FaceNetwork, crops: np.ndarray, batch: int, size: Size, folder: Path
) -> list[Row]:
    """Photos a second of three loops."""
    settings = replace(recipes.recipe(start.origin), batch_size=batch, imprinting=False)
    labels = np.arange(len(crops)) % PEOPLE
    names = [f"{i:02d}" for i in range(PEOPLE)]
    data = loading.TrainingData(
        crops, np.arange(len(crops)), labels, names, None, pd.DataFrame({"identity": [], "split": []})
    )
    side = f"{name}, {start.origin.input_size} px"
    learner = finetuning.Learner(start, data, settings, losses.cosface)
    rows: list[Row] = []
    with measured(side, f"training, batch {batch}: ours", rows) as row:
        row["photos/s"] = batch * speed(epochs(learner, data), size.seconds, size.least)
        row["precision"] = str(learner.stepper.precision).removeprefix("torch.")
    with measured(side, f"training, batch {batch}: a batch that is there", rows) as row:
        images = torch.rand(batch, 3, 112, 112, device=learner.device)
        images = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
        still = torch.zeros(batch, 6, device=learner.device)  # no hints: nobody asks how photos were moved
        there = torch.from_numpy(labels[:batch] % PEOPLE).to(learner.device)
        row["photos/s"] = batch * speed(
            partial(learner.step, images, there, None, np.arange(batch), still), size.seconds, size.least
        )
    del learner, images
    with measured(side, f"training, batch {batch}: the loop that everyone writes", rows) as row:
        row["photos/s"] = batch * speed(
            everyones(start, crops, labels, batch, folder), size.seconds, size.least
        )
    for row in rows[1:]:
        row["ours, times"] = rows[0]["photos/s"] / row["photos/s"]
    return rows


def epochs(learner: finetuning.Learner, data: loading.TrainingData) -> Callable[[], Any]:
    """Steps of our loop, four at a time, as between two averages of the weights."""
    batches, done = loading.batches_of(data, learner.settings), iter(range(10**9))

    def four() -> int:
        finetuning._epoch(learner, data, batches, next(done), 4, tqdm(disable=True))
        return 4

    return four


def everyones(
    start: FaceNetwork, crops: np.ndarray, labels: np.ndarray, batch: int, folder: Path
) -> Callable[[], Any]:
    """A step of the loop in tutorials: ImageFolder, DataLoader, cross-entropy, single precision."""
    if not (place := folder / "images").exists():
        for i, (crop, label) in enumerate(zip(crops, labels, strict=True)):
            file = place / f"{label:02d}" / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(crop).save(file, quality=95)
    side = start.origin.input_size
    steps = [transforms.RandomResizedCrop(side, (0.8, 1)), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    loader = DataLoader(
        ImageFolder(str(place), transforms.Compose(steps)), batch, shuffle=True, drop_last=True,
        num_workers=min(8, torch.get_num_threads()) if devices.device().type != "cpu" else 0,
        pin_memory=devices.device().type == "cuda",
    )  # fmt: skip
    where = devices.device()
    model = nn.Sequential(copy.deepcopy(start), nn.LazyLinear(PEOPLE)).to(where).train()
    model(torch.zeros(2, 3, side, side, device=where))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    batches = forever()

    def step() -> None:
        images, wanted = next(batches)
        loss = nn.functional.cross_entropy(model(images.to(where)), wanted.to(where))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


# ---------------------------------------------------------------- embedding


def embeddings(name: str, start: FaceNetwork, crops: np.ndarray, size: Size) -> list[Row]:
    """Crops a second in half and in single precision and on the CPU, and the least cosine between them."""
    rows: list[Row] = []
    where, start = devices.device(), start.eval()
    found = {}
    kinds = {torch.float32, devices.embedding_precision(where)}
    for kind in sorted(kinds, key=str):
        precision = str(kind).removeprefix("torch.")
        start.to(where)
        look = embedding._Look(start, where)
        look.precision = kind
        with measured(name, f"embedding, {where.type}", rows) as row:
            part = crops[:256]
            row["photos/s"] = len(part) * speed(partial(look, part), size.seconds, size.least)
            row["precision"] = precision
            found[kind] = embedding.unit_rows(look(crops[: size.on_cpu]))
    start.cpu()
    with measured(name, "embedding, cpu", rows) as row:
        look, part = embedding._Look(start, torch.device("cpu")), crops[: size.on_cpu]
        row["photos/s"] = len(part) * speed(partial(look, part), size.seconds, 1)
        row["precision"] = "float32"
        exact = embedding.unit_rows(look(part))
    for row, kind in zip(rows, [*sorted(kinds, key=str)], strict=False):
        row["least cosine to the CPU"] = float((found[kind] * exact).sum(1).min())
        row["ours, times"] = row["photos/s"] / rows[-1]["photos/s"]
    with measured(name, "embedding, as it is done", rows) as row:
        began = time.perf_counter()
        done = embedding.embed(crops, start, mirrored=True)
        row["photos/s"] = len(crops) / (time.perf_counter() - began)
        row["least cosine to the CPU"] = float((embedding.embed(part, start) * exact).sum(1).min())
        assert np.isfinite(done).all()
    return rows


# ---------------------------------------------------------------- ONNX Runtime


def onnx_runtime(crops: np.ndarray, size: Size, folder: Path, name: str) -> list[Row]:
    """Detection and recognition: photos a second, memory in use, shapes; and what comes back on release."""
    lacking = [p for p in ("insightface", "onnxruntime", "onnx") if importlib.util.find_spec(p) is None]
    if lacking:
        return [{"what": "ONNX Runtime", "how": f"not measured: {', '.join(lacking)} not installed"}]
    from src.packs import faces, sessions
    from src.packs import pack as packs

    shapes: dict[str, set[tuple[int, ...]]] = {"detection": set(), "recognition": set()}
    rows: list[Row] = []
    pack = packs.load(name or random_pack(folder / "random", size))
    with noting(sessions, shapes), measured(pack.name, "detection, all attempts", rows) as row:
        pictures = [np.pad(crop, ((80, 80), (80, 80), (0, 0)), mode="edge") for crop in crops[:200]]
        began = time.perf_counter()
        for _ in pack.map(lambda picture: faces.find_faces(picture, pack), pictures):
            pass
        row["photos/s"] = len(pictures) / (time.perf_counter() - began)
    with noting(sessions, shapes), measured(pack.name, "recognition", rows) as row:
        part = crops[:256]
        row["photos/s"] = len(part) * speed(partial(pack.recognise, part), size.seconds, size.least)
        for count in (1, 5, 31, 40):
            pack.recognise(crops[:count])
    for row, kind in zip(rows, shapes.values(), strict=True):
        row["shapes"] = "; ".join(" x ".join(map(str, shape)) for shape in sorted(kind))
        row["provider"] = pack.providers[0]
    with measured(pack.name, "after release", rows):
        pack.release()
    return rows


def random_pack(folder: Path, size: Size) -> Path:
    """The demo's detector, and a recogniser of buffalo_l's architecture with random weights."""
    from src.demo import mode

    folder.mkdir()
    shutil.copy(mode.PACK / "det_demo.onnx", folder)
    iresnet.write(folder / "w600k_r50.onnx", size.widths)
    return folder


@contextmanager
def noting(sessions: Any, shapes: dict[str, set[tuple[int, ...]]]) -> Iterator[None]:
    """Notes the shapes in which ONNX Runtime is called."""
    run = sessions.onnxruntime.InferenceSession.run

    def noted(self: Any, names: Any, given: dict[str, np.ndarray], options: Any = None) -> Any:
        for value in given.values():
            kind = "recognition" if value.shape[2:] == (112, 112) else "detection"
            shapes[kind].add(value.shape)
        return run(self, names, given, options)

    sessions.onnxruntime.InferenceSession.run = noted
    try:
        yield
    finally:
        sessions.onnxruntime.InferenceSession.run = run


# ---------------------------------------------------------------- measuring


@contextmanager
def measured(what: str, how: str, rows: list[Row]) -> Iterator[Row]:
    """A row of the table, with the peak of the memory meanwhile."""
    row: Row = {"what": what, "how": how}
    rows.append(row)
    on_cuda = devices.device().type == "cuda"
    if on_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    tqdm.write(f"{what}: {how}")
    yield row
    if on_cuda:
        row["peak of torch, MB"] = torch.cuda.max_memory_allocated() / 2**20
        free, total = torch.cuda.mem_get_info()
        row["device in use, MB"] = (total - free) / 2**20


def speed(function: Callable[[], Any], seconds: float, least: int) -> float:
    """Calls a second, or what the function counts of them, after one to warm up."""
    for _ in range(2 if least > 1 else 1):
        function()
    wait()
    began, count = time.perf_counter(), 0
    while count < least or time.perf_counter() - began < seconds:
        steps = function()
        count += steps if isinstance(steps, int) else 1
    wait()
    return count / (time.perf_counter() - began)


def wait() -> None:
    """Until the GPU has done what it was asked for."""
    if devices.device().type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
