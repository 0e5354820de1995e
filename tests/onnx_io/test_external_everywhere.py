"""Tensors in external data, of any size and wherever a file may keep them: what is compiled needs that data no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphforge


class _Outside:
    """Gathers tensors' elements for one file of external data."""

    def __init__(self) -> None:
        self.content = b""

    def tensor(self, name: str, array: np.ndarray) -> TensorProto:
        tensor = numpy_helper.from_array(array, name)
        entries = {"location": "weights.bin", "offset": len(self.content), "length": len(tensor.raw_data)}
        self.content += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor


def _file(folder: Path) -> Path:
    """A weight, a large weight, a shape, the weight of a body, a Constant and a fill value: all of them outside."""
    outside = _Outside()
    ones = np.ones((3, 3), np.float32)
    float_info = helper.make_tensor_value_info
    then = helper.make_graph(
        [helper.make_node("Add", ["y", "inner"], ["a"])],
        "then",
        [],
        [float_info("a", TensorProto.FLOAT, None)],
        [outside.tensor("inner", np.full(3, 3, np.float32))],
    )
    constant = outside.tensor("value", np.full(3, 2, np.float32))
    otherwise = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=constant), helper.make_node("Mul", ["y", "c"], ["b"])],
        "otherwise",
        [],
        [float_info("b", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["z"], then_branch=then, else_branch=otherwise),
        helper.make_node("MatMul", ["z", "large"], ["wide"]),
        helper.make_node("Shape", ["wide"], ["sizes"]),
        helper.make_node("ConstantOfShape", ["sizes"], ["fill"], value=outside.tensor("fill", np.ones(1, np.float32))),
        helper.make_node("Add", ["wide", "fill"], ["sum"]),
        helper.make_node("Reshape", ["sum", "shape"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [float_info("x", TensorProto.FLOAT, ["n", 3])],
        [float_info("out", TensorProto.FLOAT, None)],
        [
            outside.tensor("w", ones),
            outside.tensor("large", np.ones((3, 2000), np.float32)),
            outside.tensor("shape", np.array([-1], np.int64)),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
        ],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    (folder / "weights.bin").write_bytes(outside.content)
    return path


@pytest.mark.parametrize("opset", [11, 17, None])
def test_a_bundle_stands_alone(tmp_path: Path, opset: int | None) -> None:
    (tmp_path / "given").mkdir()
    source = _file(tmp_path / "given")
    bundle = graphforge.compile(source, "x:2x3", dynamic_shapes="x:0=1..4", opset=opset, output=tmp_path / "out")
    assert bundle.manifest["verification"]["passed"]
    for file in (tmp_path / "given").iterdir():
        file.unlink()
    (out,) = bundle.run(np.ones((2, 3), np.float32)).values()
    np.testing.assert_allclose(out, np.full(4000, 19.0))


def test_an_optimized_file_stands_alone(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    source = _file(tmp_path / "given")
    done = graphforge.optimize(source, tmp_path / "new.onnx", inputs="x:2x3")
    assert done.verification["passed"]
    assert not any(tensor.external_data for tensor in onnx.load(tmp_path / "new.onnx").graph.initializer)
