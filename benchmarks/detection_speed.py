"""Throughput of the loop that everyone writes against ours, on the same photos, side by side in one run.

    python -m benchmarks.detection_speed --root FACE_TEST_DATA frmdb/images lfw3d/images [--large]

The loop is `app.get(cv2.imread(photo))` with `FaceAnalysis` as it comes. Ours is `faces.every_face` and
`pack.recognise`, that is detection with all retries, alignment, and an embedding of every face, as in the
loop. They take turns on slices of the photos, so that a busy computer slows both alike. Then the time of one
core for each photo and step, with one thread everywhere, to which other programs make little difference.

With --large the pack is brought to the cost of buffalo_l: its detector takes any size, so that as shipped it
runs at 128 and 640 pixels, and has convolutions beside it that cost what SCRFD-10G does and change nothing
that it gives; the recogniser is an IResNet-50 with random weights. buffalo_l's other three models, which the
loop runs on every face unless told otherwise, are left out.
"""

import argparse
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pandas as pd
from insightface.app import FaceAnalysis
from onnx import TensorProto, helper, numpy_helper

from src.packs import faces, graphs
from src.packs.pack import Pack, load
from src.photos import decoding, finding
from tests import iresnet

# Convolutions 3 x 3 beside the detector: stride, channels. At 640 x 480 they multiply 9.4 billion times, as
# SCRFD-10G does beyond SCRFD-500M.
BALLAST = [(2, 32), (2, 64), *[(1, 64)] * 4, (2, 128), *[(1, 128)] * 5, (2, 256), *[(1, 256)] * 3]


def enlarged(small: Path, folder: Path) -> Path:
    """Writes to `folder` the pack of the folder `small` at the cost of buffalo_l; returns `folder`."""
    for file in small.glob("*.onnx"):
        if graphs.task(file) == "detection":
            onnx.save(_with_ballast(onnx.load(file)), folder / "det_10g.onnx")
    iresnet.write(folder / "w600k_r50.onnx", iresnet.WIDTHS)
    return folder


def _with_ballast(model: onnx.ModelProto) -> onnx.ModelProto:
    """A detector that takes any size; zero times the mean of the ballast is added to all that it gives."""
    graph, rng, before = model.graph, np.random.default_rng(0), 3
    widths = [output.type.tensor_type.shape.dim[-1].dim_value for output in graph.output]
    graphs.free_size(model)
    value, zero = graph.input[0].name, numpy_helper.from_array(np.zeros(1, np.float32), "ballast zero")
    graph.initializer.append(zero)
    for i, (stride, channels) in enumerate(BALLAST):
        weights = rng.normal(0, (9 * before) ** -0.5, (channels, before, 3, 3)).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(weights, f"ballast weights {i}"))
        shape: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [1] * 4}
        inputs = [value, f"ballast weights {i}"]
        graph.node.append(helper.make_node("Conv", inputs, [f"ballast conv {i}"], **shape))
        graph.node.append(helper.make_node("Relu", [f"ballast conv {i}"], [f"ballast {i}"]))
        value, before = f"ballast {i}", channels
    graph.node.append(helper.make_node("ReduceMean", [value], ["ballast mean"], keepdims=0))
    graph.node.append(helper.make_node("Mul", ["ballast mean", zero.name], ["ballast nothing"]))
    for output, width in zip(list(graph.output), widths, strict=True):
        graph.node.append(helper.make_node("Add", [output.name, "ballast nothing"], [f"{output.name} too"]))
        graph.output.append(
            helper.make_tensor_value_info(f"{output.name} too", TensorProto.FLOAT, ["n", width])
        )
        graph.output.remove(output)
    return model


def compare(folder: Path, paths: list[str], app: FaceAnalysis, pack: Pack, turns: int) -> dict:
    """Images per second and detection rate of both, each on all of `paths`."""
    table = pd.DataFrame({"path": paths, "status": "ok"})
    seconds = {"loop": 0.0, "ours": 0.0}
    found, every = {"loop": 0, "ours": 0}, 0
    for turn in range(turns):
        part = table.iloc[turn::turns]

        start = time.perf_counter()
        for path in part["path"]:
            found["loop"] += bool(app.get(cv2.imread(str(folder / path))))
        seconds["loop"] += time.perf_counter() - start

        start = time.perf_counter()
        rows, crops = faces.every_face(part, folder, pack)
        pack.recognise(crops)
        seconds["ours"] += time.perf_counter() - start
        found["ours"] += rows.loc[rows["found"] != faces.WHOLE, "path"].nunique()
        every += len(crops)
    return {
        "photos": len(table),
        "loop images/s": len(table) / seconds["loop"],
        "ours images/s": len(table) / seconds["ours"],
        "times as fast": seconds["loop"] / seconds["ours"],
        "loop finds": found["loop"] / len(table),
        "ours finds": found["ours"] / len(table),
        "faces a photo": every / len(table),
    }


def steps(
    folder: Path, paths: list[str], app: FaceAnalysis, pack: Pack, repeats: int = 3
) -> dict[str, float]:
    """Milliseconds of one core a photo, the best of `repeats` for each: the loop, and each step of ours."""
    spent: dict[str, np.ndarray] = {}

    def timed(step: str, number: int, function: Callable[..., Any], *args: Any) -> Any:
        start = time.process_time()
        result = function(*args)
        best = spent.setdefault(step, np.full(len(paths), np.inf))
        best[number] = min(best[number], (time.process_time() - start) * 1000)
        return result

    for _ in range(repeats):
        for number, path in enumerate(paths):
            timed("loop", number, lambda path=folder / path: app.get(cv2.imread(str(path))))
            photo = timed("decode", number, decoding.read_rgb, folder / path)
            found = timed("find and align", number, faces.find_faces, photo, pack)
            timed("recognise", number, pack.recognise, np.stack([crop for _, crop in found]))
    means = {step: float(values.mean()) for step, values in spent.items()}
    return means | {"times less": means["loop"] / (sum(means.values()) - means["loop"])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", help="folders of photos below --root")
    parser.add_argument("--root", type=Path, default=os.environ.get("FACE_TEST_DATA", "."))
    parser.add_argument("--pack", default="standin", help="a pack's name below --root/models, or its folder")
    parser.add_argument("--photos", type=int, default=400, help="how many of each folder, drawn at random")
    parser.add_argument("--turns", type=int, default=4, help="0: one core's own time only")
    parser.add_argument("--steps", type=int, default=100, help="how many photos are timed one at a time")
    parser.add_argument("--large", action="store_true", help="at the cost of buffalo_l")
    options = parser.parse_args()

    warnings.simplefilter("ignore", FutureWarning)  # of what InsightFace calls in scikit-image
    pack = load(options.pack, root=options.root)
    with tempfile.TemporaryDirectory() as folder:
        if options.large:
            pack = load(enlarged(pack.folder, Path(folder)))
        measure(options, pack)


def measure(options: argparse.Namespace, pack: Pack) -> None:
    """Prints both tables."""
    alone = onnxruntime.SessionOptions()
    alone.intra_op_num_threads = alone.inter_op_num_threads = 1
    given: list[dict[str, Any]] = [{}, {"sess_options": alone}]
    app, one_core = (FaceAnalysis(str(pack.folder), providers=list(pack.providers), **some) for some in given)
    for each in (app, one_core):
        each.prepare(ctx_id=0)
        each.get(np.zeros((64, 64, 3), np.uint8))  # sets up what is only set up once
    results, shares = {}, {}
    for name in options.folders:
        folder = Path(options.root) / name
        paths = finding.find(folder)["path"].tolist()
        paths = random.Random(0).sample(paths, min(options.photos, len(paths)))
        if options.turns:
            results[name] = compare(folder, paths, app, pack, options.turns)
        shares[name] = steps(folder, paths[: options.steps], one_core, pack)
    print(f"pack {pack.name} on {', '.join(pack.providers)}, {os.cpu_count()} cores")
    if results:
        print(pd.DataFrame(results).T.round(2).to_string())
    print("\nmilliseconds of one core a photo, one photo at a time")
    print(pd.DataFrame(shares).T.round(2).to_string())


if __name__ == "__main__":
    main()
