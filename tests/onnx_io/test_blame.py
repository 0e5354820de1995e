"""Whose fault a failure is: the file's where ONNX has something against it, and never for want of memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.onnx_io.blame import blaming


def _file(tmp_path: Path, operator: str) -> Path:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node(operator, ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), path)
    return path


def test_a_failure_over_an_invalid_file_is_the_files(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match=r"net\.onnx is not valid ONNX"), blaming(_file(tmp_path, "Relux")):
        raise IndexError("list index out of range")


def test_a_failure_over_a_valid_file_stays_ours(tmp_path: Path) -> None:
    with pytest.raises(IndexError, match="out of range"), blaming(_file(tmp_path, "Relu")):
        raise IndexError("list index out of range")


def test_want_of_memory_is_no_fault_of_an_invalid_file(tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match="64 GB"), blaming(_file(tmp_path, "Relux")):
        raise MemoryError("64 GB for a table")


def _loop(tmp_path: Path, element: int, output: onnx.ValueInfoProto) -> Path:
    """Three rounds that carry a tensor whose shape the body does not say."""
    i, go, on = (
        onnx.helper.make_tensor_value_info(name, kind, [])
        for name, kind in (("i", onnx.TensorProto.INT64), ("go", onnx.TensorProto.BOOL), ("on", onnx.TensorProto.BOOL))
    )
    a, b = (onnx.helper.make_tensor_value_info(name, element, None) for name in "ab")
    pairs = [onnx.helper.make_node("Identity", ["go"], ["on"]), onnx.helper.make_node("Identity", ["a"], ["b"])]
    body = onnx.helper.make_graph(pairs, "body", [i, go, a], [on, b])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Loop", ["three", "yes", "x"], ["y"], body=body)],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3])],
        [output],
        [
            onnx.helper.make_tensor("three", onnx.TensorProto.INT64, [], [3]),
            onnx.helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True]),
        ],
    )
    path = tmp_path / "loop.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_output_that_states_no_shape_is_delivered_as_the_file_has_it(tmp_path: Path) -> None:
    path = _loop(tmp_path, onnx.TensorProto.FLOAT, onnx.helper.make_empty_tensor_value_info("y"))
    bundle = graphforge.compile(path, output=tmp_path / "out")
    assert bundle.manifest["verification"]["passed"]
    assert bundle.manifest["outputs"] == [{"name": "y", "shape": None, "dtype": "float32"}]
    report = graphforge.run(bundle, np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(report.outputs["y"], np.ones((2, 3)))


@pytest.mark.parametrize(("inside", "outside"), [("FLOAT", "INT64"), ("INT64", "FLOAT")])
def test_a_file_whose_types_contradict_each_other_is_refused_and_not_called_a_bug_of_ours(
    tmp_path: Path, inside: str, outside: str
) -> None:
    kinds = onnx.TensorProto.DataType
    y = onnx.helper.make_tensor_value_info("y", kinds.Value(outside), [2, 3])
    with pytest.raises(GraphForgeError, match=r"loop\.onnx is not valid ONNX: .*differs from existing elem type"):
        graphforge.compile(_loop(tmp_path, kinds.Value(inside), y), output=tmp_path / "out")
