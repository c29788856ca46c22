"""ONNX graphs: freed of a fixed batch or image size, tidied, told apart, and compared with what they replace.

ONNX Runtime is not needed here: whoever runs a graph brings its own session.
"""

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import helper, numpy_helper

from src.packs.alignment import SIDE

PARITY = 0.9999  # least cosine between two embeddings of one crop that count as the same


# ---------------------------------------------------------------- surgery


def free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Makes a graph for one crop take any number of them; changes `model` and returns it.

    The first axis of inputs and outputs is freed. A Reshape to rows (`[1, D]`, `[0, D]` or `[-1, D]`) becomes
    a Flatten, and one to `[1, C, H, W]` takes any number of rows. `allowzero` goes where the shape has no
    zero. ONNX Runtime, onnx2torch (which knows no `allowzero`) and torch's exporter (which can't write
    onnx2torch's Reshape to rows) take the result.

    Nothing tells whether a graph means a batch by its first axis: compare the results (`least_cosine`).
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for value in [*graph.input, *graph.output]:
        if value.name not in constants:  # old files list their weights among the inputs
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).copy()
        if 0 not in shape:
            del node.attribute[:]  # allowzero, the only one
        if len(shape) == 2 and shape[0] in (1, 0, -1):
            node.op_type = "Flatten"
            del node.input[1], node.attribute[:]
        elif len(shape) > 2 and shape[0] == 1:
            shape[0] = 0 if -1 in shape else -1  # 0 copies the side of the input
            free_shape = numpy_helper.from_array(shape, f"{node.output[0]}/free_shape")
            graph.initializer.append(free_shape)
            node.input[1] = free_shape.name
    return model


def free_size(model: onnx.ModelProto) -> onnx.ModelProto:
    """Makes a detector for one image size take any; changes `model` and returns it.

    The sides of the input `[n, 3, H, W]` and the shapes of the outputs are freed. A graph that holds its size
    in a constant then fails, or gives something else: compare the results.
    """
    _, _, rows, columns = model.graph.input[0].type.tensor_type.shape.dim
    rows.dim_param, columns.dim_param = "height", "width"
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model


def renamed_input(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Calls a graph's only input `name`; changes `model` and returns it."""
    given = model.graph.input[0].name
    for node in model.graph.node:
        for place, value in enumerate(node.input):
            if value == given:
                node.input[place] = name
    model.graph.input[0].name = name
    return model


def from_bgr(model: onnx.ModelProto) -> onnx.ModelProto:
    """Makes a graph for RGB, [B, 3, H, W], take BGR instead; changes `model` and returns it."""
    graph, given = model.graph, model.graph.input[0].name
    renamed_input(model, "rgb")
    graph.input[0].name = given
    graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "bgr"))
    graph.node.insert(0, helper.make_node("Gather", [given, "bgr"], ["rgb"], name="colours", axis=1))
    return model


def padded(model: onnx.ModelProto, numbers: int) -> onnx.ModelProto:
    """Appends zeros to a graph's rows [B, D] until they have so many numbers; changes `model`, returns it.

    No cosine changes. Rows that have as many, or more, stay as they are.
    """
    graph, given = model.graph, model.graph.output[0]
    width = given.type.tensor_type.shape.dim[1]
    if width.dim_value >= numbers:
        return model
    for node in graph.node:
        for place, value in enumerate(node.output):
            if value == given.name:
                node.output[place] = "unpadded"
    pads = np.array([0, 0, 0, numbers - width.dim_value])
    graph.initializer.append(numpy_helper.from_array(pads, "pads"))
    graph.node.append(helper.make_node("Pad", ["unpadded", "pads"], [given.name], name="padding"))
    width.dim_value = numbers
    return model


def tidy(file: Path) -> None:
    """Takes the exporter's notes (such as paths of this machine) out of an ONNX file and numbers its nodes.

    InsightFace reads from the names of the first nodes whether an image is still to be brought to [-1, 1]. A
    network that begins with a `Sub` and a `Mul` of its own would be misread.
    """
    model = onnx.load(str(file))
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (model, graph, *graph.node, *values):
        del part.metadata_props[:]
        part.doc_string = ""
    for number, node in enumerate(graph.node):
        node.name = f"node_{number}"
    onnx.save(model, str(file))


def task(file: Path) -> str:
    """What InsightFace takes an ONNX file for: "detection", "recognition" or "other".

    It goes by the inputs and outputs (`insightface.model_zoo.model_zoo.ModelRouter`).
    """
    graph = onnx.load(str(file), load_external_data=False).graph
    height, width = (axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim[2:4])
    if len(graph.output) >= 5:
        return "detection"
    square = height == width >= SIDE and height % 16 == 0
    return "recognition" if square and height != 192 and len(graph.input) == 1 else "other"


# ---------------------------------------------------------------- parity


def probes() -> np.ndarray:
    """Images to compare two recognisers on: float32 `[5, 3, 112, 112]`, RGB in [-1, 1], always the same.

    Three are smooth, as photos are, and two are noise.
    """
    rng = np.random.default_rng(0)
    smooth = [cv2.resize(coarse, (SIDE, SIDE)) for coarse in rng.random((3, 7, 7, 3), np.float32)]
    noise = rng.random((2, SIDE, SIDE, 3), np.float32)
    images = np.concatenate([np.stack(smooth), noise]) * 2 - 1
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def least_cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """The least cosine between row i of one float array `[n, D]` and row i of another.

    It is -1 where the shapes differ, or where a row holds a NaN or nothing but zeros.
    """
    if found.shape != expected.shape:
        return -1.0
    with np.errstate(invalid="ignore", divide="ignore"):
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        least = float(((found * expected).sum(1) / norms).min())
    return -1.0 if np.isnan(least) else least
