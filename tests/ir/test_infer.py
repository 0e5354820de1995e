"""Node-wise inference: our short rules say what ONNX's own inference says, and know more where sizes are symbolic."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from graphforge.ir import HOME_OPSET, Builder, infer_node
from graphforge.ir import infer as module

FLOAT, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL


def _value(*dims: int | str, dtype: ir.DataType = FLOAT, name: str = "x") -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(list(dims)))


def _shape(value: ir.Value) -> list[int | str | None] | None:
    if value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    (
        "Conv",
        [_value(2, 3, 17, 19), _value(8, 3, 3, 5)],
        {"strides": [2, 3], "pads": [1, 2, 0, 1], "dilations": [2, 1]},
    ),
    ("Conv", [_value(2, 4, 9), _value(6, 2, 3)], {"group": 2}),
    (
        "MaxPool",
        [_value(1, 2, 7, 8)],
        {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 0, 1, 1]},
    ),
    ("AveragePool", [_value(1, 2, 6, 6)], {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1}),
    ("GlobalAveragePool", [_value(2, 3, 4, 5)], {}),
    ("Gemm", [_value(4, 5), _value(6, 5)], {"transB": 1}),
    ("Gemm", [_value(5, 4), _value(5, 6)], {"transA": 1}),
    ("MatMul", [_value(2, 1, 4, 5), _value(3, 5, 6)], {}),
    ("MatMul", [_value(5), _value(3, 5, 6)], {}),
    ("MatMul", [_value(3, 4, 5), _value(5)], {}),
    ("Add", [_value(2, 1, 4), _value(3, 1)], {}),
    ("Less", [_value(2, 1), _value(1, 3)], {}),
    ("Where", [_value(2, 1, dtype=BOOL), _value(1, 3), _value(1)], {}),
    ("Transpose", [_value(2, 3, 4)], {"perm": [2, 0, 1]}),
    ("Transpose", [_value(2, 3, 4)], {}),
    ("Concat", [_value(2, 3), _value(2, 5)], {"axis": -1}),
    ("Unsqueeze", [_value(2, 3), [0, -1]], {}),
    ("Squeeze", [_value(1, 2, 1), [0, -1]], {}),
    ("Reshape", [_value(2, 3, 4), [0, -1]], {}),
    ("Reshape", [_value(2, 3, 4), [4, 6]], {}),
    ("Expand", [_value(2, 1), [3, 1, 5]], {}),
    ("Gather", [_value(4, 5, 6), _value(2, 3, dtype=INT64)], {"axis": 1}),
    ("ReduceMean", [_value(2, 3, 4), [1, -1]], {"keepdims": 0}),
    ("ReduceMax", [_value(2, 3, 4)], {}),
    ("ReduceSum", [_value(2, 3, 4)], {"noop_with_empty_axes": 1}),
    ("Shape", [_value(2, 3, 4)], {"start": 1}),
    ("Shape", [_value(2, 3, 4)], {"start": -5, "end": -1}),
    ("Cast", [_value(2, 3)], {"to": int(INT64)}),
    ("BatchNormalization", [_value(2, 3, 4), _value(3), _value(3), _value(3), _value(3)], {}),
    ("LayerNormalization", [_value(2, 3, 4), _value(4), _value(4)], {"axis": -1}),
    ("Softmax", [_value(2, 3)], {"axis": 0}),
]


@pytest.mark.parametrize(("op_type", "operands", "attributes"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_our_rules_agree_with_onnx(op_type: str, operands: list[Any], attributes: dict[str, Any]) -> None:
    op = Builder(ir.Graph([], [], nodes=[], opset_imports={"": HOME_OPSET}))
    ours = op.node(op_type, operands, **attributes)
    node = ours.producer()
    found = _shape(ours), ours.dtype
    ours.shape, ours.type = None, None
    module._infer_by_onnx(node, HOME_OPSET)
    assert found == (_shape(ours), ours.dtype)
    assert found[0] is not None


@pytest.mark.parametrize(
    ("op_type", "operands", "attributes", "expected"),
    [
        ("Add", [_value("n", 1), _value("n", 3)], {}, ["n", 3]),
        ("Add", [_value("n"), _value("m")], {}, [None]),
        ("Add", [_value("n"), _value(4)], {}, [4]),
        ("Reshape", [_value("n", 3, 4), [0, -1]], {}, ["n", 12]),
        ("Reshape", [_value("n", 3, 4), [-1, 12]], {}, ["n", 12]),
        ("Reshape", [_value("n", "m"), [-1]], {}, [None]),
        ("Conv", [_value("n", 3, 8, "w"), _value(4, 3, 3, 3)], {}, ["n", 4, 6, None]),
        ("Concat", [_value("n", 2), _value("n", 3)], {"axis": 1}, ["n", 5]),
        ("Concat", [_value("n", 2), _value("m", 2)], {"axis": 0}, [None, 2]),
    ],
)
def test_symbolic_sizes_are_kept_and_never_guessed(
    op_type: str, operands: list[Any], attributes: dict[str, Any], expected: list[int | str | None]
) -> None:
    op = Builder(ir.Graph([], [], nodes=[], opset_imports={"": HOME_OPSET}))
    assert _shape(op.node(op_type, operands, **attributes)) == expected


def test_what_is_known_is_left_alone() -> None:
    node = ir.Node("", "Relu", [_value(2, 3)])
    node.outputs[0].type = ir.TensorType(FLOAT)
    node.outputs[0].shape = ir.Shape(["batch", 3])
    infer_node(node, HOME_OPSET)
    assert _shape(node.outputs[0]) == ["batch", 3]


@pytest.mark.parametrize(
    ("op_type", "dims", "axes", "expected"),
    [
        ("ReduceMean", (2, 3, 4), [1, -1], [2, 1, 1]),
        ("Squeeze", (1, 2, 1), [0, -1], [2]),
        ("Unsqueeze", (2, 3), [0, 3], [1, 2, 3, 1]),
    ],
)
def test_axes_may_be_an_attribute_in_older_opsets(
    op_type: str, dims: tuple[int, ...], axes: list[int], expected: list[int]
) -> None:
    op = Builder(ir.Graph([], [], nodes=[], opset_imports={"": 11}), opset=11)
    assert _shape(op.node(op_type, [_value(*dims)], axes=axes)) == expected


def test_a_transpose_of_other_axes_than_there_are_is_left_to_onnx() -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": HOME_OPSET})
    node = Builder(graph).node("Transpose", [_value(2, 3)], perm=[0, 3])
    assert node.shape is None
