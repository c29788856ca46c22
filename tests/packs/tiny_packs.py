"""Packs of a few kB in InsightFace's own format, for tests."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save(model_nodes, inputs, outputs, weights: dict[str, np.ndarray], path: Path) -> Path:
    """Writes a graph of float tensors as an ONNX file."""
    initialisers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(model_nodes, "tiny", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def tensor(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    """Describes an input or output of a graph."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def recogniser(path: Path, batch: int | str = 1, mixing: bool = False) -> Path:
    """Colours of an 8 x 8 grid, times a matrix; `mixing` lets the crops of a batch influence each other."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["pooled"], kernel_shape=[14, 14], strides=[14, 14]),
        helper.make_node("Reshape", ["pooled", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["product" if mixing else "y"]),
    ]
    if mixing:  # a crop alone has something added too
        nodes.append(helper.make_node("ReduceMax", ["product"], ["most"], axes=[0], keepdims=1))
        nodes.append(helper.make_node("Add", ["product", "most"], ["y"]))
    weights: dict[str, np.ndarray] = {
        "shape": np.array([1, 192] if batch == 1 else [-1, 192], np.int64),
        "matrix": np.random.default_rng(1).standard_normal((192, 16)).astype(np.float32),
    }
    return save(nodes, [tensor("x", batch, 3, 112, 112)], [tensor("y", batch, 16)], weights, path)


def detector(path: Path, landmarks: bool = True) -> Path:
    """SCRFD's outputs at a fixed 64 x 64: one face wherever the picture is bright."""
    nodes, outputs = [], []
    weights: dict[str, np.ndarray] = {}
    for part, width in (("score", 1), ("box", 4), ("points", 10)):
        for stride in (8, 16, 32):
            count = (64 // stride) ** 2 * 2
            name = f"{part}{stride}"
            weights[name] = np.zeros((count, width), np.float32)
            if part == "score" and stride == 32:
                weights[name][0] = 0.9
            if part == "box":
                weights[name] += 0.5
            if part == "points":
                weights[name] += np.array([0.1, 0.2, 0.4, 0.2, 0.25, 0.3, 0.1, 0.4, 0.4, 0.4], np.float32)
            nodes.append(helper.make_node("ReduceMean", ["x"], [f"m_{name}"], axes=[0, 1, 2, 3], keepdims=0))
            nodes.append(helper.make_node("Mul", [f"m_{name}", "nothing"], [f"n_{name}"]))
            nodes.append(helper.make_node("Add", [name, f"n_{name}"], [f"y_{name}"]))
            outputs.append(tensor(f"y_{name}", count, width))
    weights["nothing"] = np.array(0, np.float32)
    if not landmarks:
        outputs = outputs[:6]
    return save(nodes, [tensor("x", 1, 3, 64, 64)], outputs, weights, path)
