"""clamp-slice-bounds: 64-bit bounds of Slice become 32-bit ones."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphforge.ir import HOME_OPSET, Builder, constant_of
from graphforge.passes.clamp_slice_bounds import ClampSliceBounds
from graphforge.transform import Pipeline

_END = 2**63 - 1


def model_with(starts: list[int], ends: list[int], steps: list[int] | None = None) -> ir.Model:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": HOME_OPSET}, name="main")
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([5, 7]))
    graph.inputs.append(x)
    op = Builder(graph)
    axes = list(range(len(starts)))
    graph.outputs.append(op.Slice(x, starts, ends, axes, steps or [1] * len(starts)))
    return ir.Model(graph, ir_version=10)


def bounds(model: ir.Model, index: int) -> list[int]:
    node = next(node for node in model.graph if node.op_type == "Slice")
    found = constant_of(node.inputs[index])
    assert found is not None
    return [int(bound) for bound in found]


def test_end_beyond_int32_is_clamped() -> None:
    model = model_with([1, 0], [_END, 3])
    (record,) = Pipeline([ClampSliceBounds()]).run(model)
    assert record.changes == 2  # the constant and who reads it
    assert bounds(model, 1) == [1, 0]
    assert bounds(model, 2) == [2**31 - 1, 3]


def test_reversed_slice_is_clamped_on_both_sides_and_means_the_same() -> None:
    model = model_with([_END], [-_END - 1], [-1])
    Pipeline([ClampSliceBounds()]).run(model)
    assert (bounds(model, 1), bounds(model, 2)) == ([2**31 - 1], [-(2**31)])
    data = np.arange(5)
    assert np.array_equal(data[2**31 - 1 : -(2**31) : -1], data[_END : -_END - 1 : -1])


def test_bounds_that_fit_stay_as_they_are() -> None:
    model = model_with([0], [2**31 - 1])
    (record,) = Pipeline([ClampSliceBounds()]).run(model)
    assert record.changes == 0


def test_other_users_of_the_constant_keep_it() -> None:
    model = model_with([0], [_END])
    end = next(node for node in model.graph if node.op_type == "Slice").inputs[2]
    model.graph.outputs.append(Builder(model.graph).Identity(end))
    Pipeline([ClampSliceBounds()]).run(model)
    other = constant_of(next(node for node in model.graph if node.op_type == "Identity").inputs[0])
    assert other is not None
    assert int(other[0]) == _END


def test_running_twice_changes_nothing_more() -> None:
    model = model_with([0], [_END])
    first, second = Pipeline([ClampSliceBounds(), ClampSliceBounds()]).run(model)
    assert (first.changes, second.changes) == (2, 0)
