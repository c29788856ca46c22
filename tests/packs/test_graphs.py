"""Graphs of a fixed batch or size are freed for every tool that reads them; what differs is noticed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx2torch
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from src.packs import graphs
from tests.packs import tiny_packs
from tests.packs.tiny_packs import tensor

RNG = np.random.default_rng(0)


def reshaping(shape: list[int], as_constant: bool = False, allowzero: int = 0) -> onnx.ModelProto:
    """For one input [1, 2, 4, 6]: a Reshape, then rows of 48 times a matrix."""
    values = np.array(shape, np.int64)
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["shaped"], allowzero=allowzero),
        helper.make_node("Flatten", ["shaped"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["y"]),
    ]
    matrix = np.random.default_rng(1).standard_normal((48, 5)).astype(np.float32)
    weights = [numpy_helper.from_array(matrix, "matrix")]
    if as_constant:
        nodes.insert(0, helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(values)))
    else:
        weights.append(numpy_helper.from_array(values, "shape"))
    stale = [tensor("flat", 1, 48)]
    graph = helper.make_graph(
        nodes, "reshaping", [tensor("x", 1, 2, 4, 6)], [tensor("y", 1, 5)], weights, value_info=stale
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": images})[0]


SHAPES = [[1, 48], [-1, 48], [0, 48], [1, -1], [0, -1], [1, 4, 2, 6], [1, 4, -1, 6], [1, 8, 6], [-1, 4, 2, 6]]


@pytest.mark.parametrize("as_constant", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_freed_graph_gives_for_a_batch_what_it_gives_one_by_one(shape, as_constant):
    images = RNG.standard_normal((7, 2, 4, 6)).astype(np.float32)
    model = reshaping(shape, as_constant)
    expected = np.concatenate([run(model, image[None]) for image in images])
    freed = graphs.free_batch(model)
    onnx.checker.check_model(freed, full_check=True)
    assert not freed.graph.value_info  # what it said of a single row
    np.testing.assert_allclose(run(freed, images), expected, rtol=1e-5, atol=1e-5)
    found = onnx2torch.convert(freed)(torch.from_numpy(images))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_what_torch_writes_can_be_read_by_onnx2torch_and_written_by_torch_again(tmp_path):
    """torch's exporter sets `allowzero`, which onnx2torch refuses, and can't write onnx2torch's Reshape."""
    images = RNG.standard_normal((3, 2, 4, 6)).astype(np.float32)
    for shape in ([-1, 48], [1, 4, 2, 6]):
        model = reshaping(shape, allowzero=1)
        expected = np.concatenate([run(model, image[None]) for image in images])
        network = onnx2torch.convert(graphs.free_batch(model))
        np.testing.assert_allclose(network(torch.from_numpy(images)).numpy(), expected, rtol=1e-5, atol=1e-5)
    network = onnx2torch.convert(graphs.free_batch(reshaping([-1, 48], allowzero=1))).eval()
    batch = ({0: torch.export.Dim("batch")},)
    example = (torch.from_numpy(images),)
    torch.onnx.export(network, example, tmp_path / "y.onnx", dynamo=True, dynamic_shapes=batch, verbose=False)
    assert onnx.load(str(tmp_path / "y.onnx")).graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_one_shape_that_two_reshapes_share_is_freed_for_both():
    model = reshaping([1, 4, 2, 6])
    again = helper.make_node("Reshape", ["shaped", "shape"], ["again"])
    model.graph.node.insert(1, again)
    model.graph.node[2].input[0] = "again"
    images = RNG.standard_normal((3, 2, 4, 6)).astype(np.float32)
    expected = np.concatenate([run(model, image[None]) for image in images])
    np.testing.assert_allclose(run(graphs.free_batch(model), images), expected, rtol=1e-5, atol=1e-5)


def test_weights_listed_among_the_inputs_keep_their_shape():
    model = reshaping([1, 48])
    model.graph.input.append(tensor("matrix", 48, 5))
    graphs.free_batch(model)
    first, second = (value.type.tensor_type.shape.dim[0] for value in model.graph.input)
    assert first.dim_param == "batch" and second.dim_value == 48


def test_a_detector_of_one_size_is_freed(tmp_path):
    model = onnx.load(str(tiny_packs.detector(tmp_path / "det.onnx")))
    expected = run(model, np.zeros((1, 3, 64, 64), np.float32))
    freed = graphs.free_size(model)
    for size in (64, 96):  # the tiny detector's answer does not depend on its input
        np.testing.assert_array_equal(run(freed, np.zeros((1, 3, size, 64), np.float32)), expected)


def test_tidy_leaves_no_notes_and_no_names_that_insightface_reads(tmp_path):
    model = reshaping([1, 48])
    model.doc_string = model.graph.node[0].doc_string = "made in /home/me"
    model.graph.node[0].metadata_props.add(key="file", value="/home/me/net.py")
    model.graph.node[0].name, model.graph.node[1].name = "Sub_0", "Mul_1"
    onnx.save(model, tmp_path / "y.onnx")
    images = RNG.standard_normal((1, 2, 4, 6)).astype(np.float32)
    graphs.tidy(tmp_path / "y.onnx")
    tidied = onnx.load(str(tmp_path / "y.onnx"))
    assert [node.name for node in tidied.graph.node] == ["node_0", "node_1", "node_2"]
    assert b"/home" not in (tmp_path / "y.onnx").read_bytes()
    np.testing.assert_array_equal(run(tidied, images), run(model, images))


def test_task_is_what_insightface_takes_a_file_for(tmp_path):
    assert graphs.task(tiny_packs.detector(tmp_path / "det.onnx")) == "detection"
    assert graphs.task(tiny_packs.recogniser(tmp_path / "rec.onnx")) == "recognition"
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    for side in (96, 192):  # of InsightFace's attribute and landmark models
        shape = (1, 3, side, side)
        file = tmp_path / f"{side}.onnx"
        tiny_packs.save(nodes, [tensor("x", *shape)], [tensor("y", *shape)], {}, file)
        assert graphs.task(file) == "other"


def test_probes_are_images_and_always_the_same():
    images = graphs.probes()
    assert images.shape == (5, 3, 112, 112) and images.dtype == np.float32 and images.flags.c_contiguous
    assert -1 <= images.min() < -0.9 and 0.9 < images.max() <= 1
    np.testing.assert_array_equal(images, graphs.probes())


def test_least_cosine_is_that_of_the_worst_row_and_minus_one_where_nothing_compares():
    rows = RNG.standard_normal((4, 8)).astype(np.float32)
    assert graphs.least_cosine(rows * 3, rows) == pytest.approx(1)
    turned = rows.copy()
    turned[2] *= -0.5
    assert graphs.least_cosine(turned, rows) == pytest.approx(-1)
    ruined, nothing = rows.copy(), rows.copy()
    ruined[1, 3], nothing[3] = np.nan, 0
    for other in (rows[:2], rows[:, :4], rows[:, :, None], ruined, nothing):
        assert graphs.least_cosine(other, rows) == -1


def test_the_module_costs_no_onnx_runtime():
    heavy = "{'onnxruntime', 'insightface', 'torch'}"
    code = f"import sys, src.packs.graphs; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def run_on(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def test_an_input_takes_another_name_and_another_order_of_colours(tmp_path):
    file = tiny_packs.recogniser(tmp_path / "rec.onnx", batch="n")
    images = graphs.probes()
    expected = run_on(onnx.load(file), images)
    named = graphs.renamed_input(onnx.load(file), "data")
    assert [value.name for value in named.graph.input] == ["data"]
    np.testing.assert_array_equal(run_on(named, images), expected)
    turned = graphs.from_bgr(named)
    assert [value.name for value in turned.graph.input] == ["data"]
    np.testing.assert_array_equal(run_on(turned, np.ascontiguousarray(images[:, ::-1])), expected)
    onnx.checker.check_model(turned)


def test_rows_are_padded_with_zeros(tmp_path):
    file = tiny_packs.recogniser(tmp_path / "rec.onnx", batch="n")
    images = graphs.probes()
    expected = run_on(onnx.load(file), images)
    padded = graphs.padded(onnx.load(file), 24)
    found = run_on(padded, images)
    np.testing.assert_array_equal(found[:, :16], expected)
    assert found.shape == (5, 24) and not found[:, 16:].any()
    assert padded.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 24
    onnx.checker.check_model(padded)
    assert graphs.padded(onnx.load(file), 16) == onnx.load(file)
