"""Declaring an operator: its schema, its inference, its checks, its survival to the file."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir
import pytest

import graphforge
from graphforge.errors import GraphForgeError, UsageError, UserCodeError
from graphforge.ir import Builder, from_text, infer_node
from graphforge.ops.custom_op import Parameter, TensorFact, custom_op, declared_ops, find_op, withdraw
from tests.ops.acme import declare

HEADER = '<ir_version: 10, opset_import: ["" : 26, "acme" : 1]>\n'


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    for op in declared_ops():
        if op.domain == "acme":
            withdraw(op)


def test_onnx_knows_the_schema() -> None:
    declare(doc="sorts")
    schema = onnx.defs.get_schema("ScaledSort", 1, "acme")
    assert [(one.name, one.type_str) for one in schema.inputs] == [
        ("x", "T"),
        ("scale", "tensor(float)"),
        ("mask", "tensor(bool)"),
    ]
    assert (schema.min_input, schema.max_input, schema.doc) == (2, 3, "sorts")
    assert schema.attributes["mode"].required
    assert not schema.attributes["axis"].required


def test_builder_makes_typed_nodes_with_constants_of_the_declared_type() -> None:
    declare()
    model = from_text(HEADER + "g (float16[N,4] x) => (float16[N,4] y) { y = Relu(x) }")
    op = Builder(model.graph)
    first, order = op.node("ScaledSort", [model.graph.inputs[0], 2], _domain="acme", _outputs=2, mode="up")
    assert (str(first.shape), first.dtype) == ("[N,4]", onnx_ir.DataType.FLOAT16)
    assert (str(order.shape), order.dtype) == ("[N,4]", onnx_ir.DataType.INT64)
    scale = model.graph[-1].inputs[1]
    assert scale is not None
    assert scale.dtype == onnx_ir.DataType.FLOAT


def test_onnx_checks_and_infers_the_file() -> None:
    declare()
    proto = onnx.parser.parse_model(
        HEADER + 'g (float[3,4] x, float s) => (float[A,B] y, int64[C,D] o) { y, o = acme.ScaledSort<mode="up">(x, s) }'
    )
    onnx.checker.check_model(proto)
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    assert [dim.dim_value for dim in inferred.graph.output[1].type.tensor_type.shape.dim] == [3, 4]
    bad = onnx.parser.parse_model(
        HEADER + "g (float[3,4] x, float s) => (float[A,B] y) { y, o = acme.ScaledSort(x, s) }"
    )
    with pytest.raises(onnx.checker.ValidationError, match="mode"):
        onnx.checker.check_model(bad)


def test_without_a_rule_shapes_stay_unknown() -> None:
    declare(shapes=None)
    model = from_text(
        HEADER + 'g (float[3] x, float s) => (float y) { a, b = acme.ScaledSort<mode="up">(x, s) y = Neg(a) }'
    )
    infer_node(model.graph[0], 26)
    assert model.graph[0].outputs[0].shape is None


def test_declaring_again_replaces_whatever_it_says() -> None:
    declare()
    second = declare(function=len)
    assert find_op("acme", "ScaledSort") is second
    third = declare(outputs=["sorted"], version=2)
    assert find_op("acme", "ScaledSort") is third
    assert onnx.defs.get_schema("ScaledSort", 2, "acme").max_output == 1
    graphforge.withdraw("acme::ScaledSort")
    assert find_op("acme", "ScaledSort") is None
    with pytest.raises(UsageError, match="'acme::ScaledSort' is not declared here"):
        graphforge.withdraw("acme::ScaledSort")


def test_an_operator_of_a_scope_is_known_in_it_and_nowhere_else() -> None:
    text = HEADER + "g (float[3] x) => (float y) { a = acme.Twice(x) y = Neg(a) }"
    rules: dict[str, Any] = {"twice": lambda i, a: [i[0]], "flat": lambda i, a: [TensorFact("float", (9,))]}
    twice, flat = (
        custom_op("acme::Twice", inputs=["x"], outputs=["y"], shapes=rule, declare=False) for rule in rules.values()
    )
    shapes: dict[str, str] = {}
    inside = threading.Barrier(2)

    def infer(name: str, op: Any) -> None:
        with graphforge.custom_ops(op):
            inside.wait()
            model = from_text(text)
            infer_node(model.graph[0], 26)
            shapes[name] = str(model.graph[0].outputs[0].shape)
            assert find_op("acme", "Twice") is op
            inside.wait()

    threads = [threading.Thread(target=infer, args=args) for args in (("twice", twice), ("flat", flat))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shapes == {"twice": "[3]", "flat": "[9]"}
    assert find_op("acme", "Twice") is None
    model = from_text(text)
    infer_node(model.graph[0], 26)
    assert model.graph[0].outputs[0].shape is None


def test_a_shape_rule_that_raises_is_told_with_its_line() -> None:
    declare(shapes=lambda inputs, attributes: [inputs[7]])
    model = from_text(
        HEADER + 'g (float[3] x, float s) => (float y) { a, b = acme.ScaledSort<mode="up">(x, s) y = Neg(a) }'
    )
    with pytest.raises(UserCodeError, match=r"the shape rule of acme::ScaledSort failed: IndexError") as caught:
        infer_node(model.graph[0], 26)
    assert re.match(r"raised at .*test_custom_op.py:\d+, in <lambda>: declare\(shapes=", caught.value.notes[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"qualified_name": "Sort", "inputs": [], "outputs": []}, "write it as domain::Name"),
        ({"qualified_name": "ai.onnx::Sort", "inputs": [], "outputs": []}, "the domain ai.onnx is taken"),
        ({"qualified_name": "acme::Sort", "inputs": ["x y"], "outputs": []}, "cannot read parameter 'x y'"),
        ({"qualified_name": "acme::Sort", "inputs": ["x: reel"], "outputs": []}, "unknown type 'reel'"),
        (
            {"qualified_name": "acme::Sort", "inputs": [], "outputs": [], "attributes": {"a": dict}},
            "dict is not an attribute type",
        ),
    ],
)
def test_declarations_that_are_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((GraphForgeError, UsageError)) as caught:
        custom_op(**arguments)
    assert message in str(caught.value)


def test_parameters() -> None:
    assert Parameter.parse("x") == Parameter("x", "T")
    assert Parameter.parse("mask : bool?") == Parameter("mask", "bool", optional=True)
    assert Parameter.parse("rest: T*") == Parameter("rest", "T", variadic=True)
