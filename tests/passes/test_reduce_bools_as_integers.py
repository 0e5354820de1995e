"""reduce-bools-as-integers: the same answers, computed where a target has reductions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphforge.ir import HOME_OPSET, Builder
from graphforge.passes.reduce_bools_as_integers import ReduceBoolsAsIntegers
from graphforge.runners.session import new_session
from graphforge.transform import Pipeline


def _model(op_type: str, dtype: ir.DataType) -> ir.Model:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": HOME_OPSET}, name="main")
    graph.inputs.append(ir.Value(name="x", type=ir.TensorType(dtype), shape=ir.Shape([2, 3])))
    reduced = Builder(graph).node(op_type, [graph.inputs[0], np.array([1])], keepdims=0)
    reduced.name = "y"
    graph.outputs.append(reduced)
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("op_type", ["ReduceMax", "ReduceMin"])
def test_booleans_are_reduced_as_integers(op_type: str) -> None:
    model = _model(op_type, ir.DataType.BOOL)
    feeds = {"x": np.array([[True, False, True], [True, True, True]])}
    expected = new_session(ir.to_proto(model)).run(None, feeds)[0]
    first, second = Pipeline([ReduceBoolsAsIntegers(), ReduceBoolsAsIntegers()]).run(model)
    assert first.changes > 0
    assert second.changes == 0
    assert [node.op_type for node in model.graph] == ["Cast", op_type, "Cast"]
    np.testing.assert_array_equal(new_session(ir.to_proto(model)).run(None, feeds)[0], expected)


def test_numbers_are_left_alone() -> None:
    (record,) = Pipeline([ReduceBoolsAsIntegers()]).run(_model("ReduceMax", ir.DataType.FLOAT))
    assert record.changes == 0
