"""Rewriter: names, types, outputs, origins and the count of changes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphforge.errors import InternalError
from graphforge.ir import Origin, origins_of, set_origins, to_text, verify_graph
from graphforge.transform import Rewriter
from tests.transform.toys import parse


def test_replacement_takes_the_output_name_and_the_origins() -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { a = Neg(x) y = Neg(a) }")
    first, second = model.graph
    set_origins(first, [Origin(module="one")])
    set_origins(second, [Origin(module="two")])
    rewriter = Rewriter(model, pass_name="test")
    new = rewriter.builder(second).Abs(first.inputs[0])
    rewriter.replace([second, first], new)
    verify_graph(model)
    assert [node.op_type for node in model.graph] == ["Abs"]
    assert model.graph.outputs[0].name == "y"
    assert [(origin.module, origin.made_by) for origin in origins_of(model.graph[0])] == [
        ("one", "test"),
        ("two", "test"),
    ]
    assert rewriter.changes > 0


def test_replacement_takes_the_name_inside_the_graph_too() -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { features = Neg(x) y = Relu(features) }")
    node = model.graph[0]
    rewriter = Rewriter(model)
    op = rewriter.builder(node)
    rewriter.replace(node, op.Mul(op.Abs(node.inputs[0]), -1.0))
    verify_graph(model)
    assert [value.name for node in model.graph for value in node.outputs] == ["features/Abs", "features", "y"]


def test_an_input_that_becomes_an_output_goes_through_identity_once() -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { y = Neg(x) }")
    rewriter = Rewriter(model)
    rewriter.replace(model.graph[0], model.graph.inputs[0])
    verify_graph(model)
    assert [node.op_type for node in model.graph] == ["Identity"]
    assert model.graph.outputs[0].name == "y"
    again = Rewriter(model)
    again.replace_value(model.graph.outputs[0], model.graph.inputs[0])
    assert again.changes == 0


def test_a_value_that_is_an_output_already_goes_through_identity() -> None:
    model = parse("g (float[2] x) => (float[2] y, float[2] z) { y = Neg(x) z = Neg(x) }")
    first, second = model.graph
    Rewriter(model).replace(second, first.outputs[0])
    verify_graph(model)
    assert [(node.op_type, node.outputs[0].name) for node in model.graph] == [("Neg", "y"), ("Identity", "z")]


def test_body_output_replaced_by_an_outer_value_goes_through_identity() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) {
           y = If(c) <then_branch = t () => (float[2] a) { a = Neg(x) },
                      else_branch = e () => (float[2] b) { b = Abs(x) }>
        }"""
    )
    body = model.graph[0].attributes["then_branch"].as_graph()
    rewriter = Rewriter(model)
    rewriter.replace(body[0], model.graph.inputs[1])
    verify_graph(model)
    assert [node.op_type for node in body] == ["Identity"]


def test_constants_of_a_body_go_to_the_main_graph() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) {
           y = If(c) <then_branch = t () => (float[2] a) { a = Neg(x) },
                      else_branch = e () => (float[2] b) { b = Abs(x) }>
        }"""
    )
    body = model.graph[0].attributes["then_branch"].as_graph()
    rewriter = Rewriter(model)
    rewriter.replace(body[0], rewriter.builder(body[0]).Mul(model.graph.inputs[1], -1.0))
    verify_graph(model)
    assert len(model.graph.initializers) == 1
    assert not body.initializers


def test_known_dims_survive_on_the_replacement() -> None:
    model = parse("g (float[N,3] x) => (float[2,3] y) { a = Neg(x) y = Relu(a) }")
    node = model.graph[1]
    rewriter = Rewriter(model)
    rewriter.replace(node, rewriter.builder(node).Abs(node.inputs[0]))
    shape = model.graph.outputs[0].shape
    assert shape is not None
    assert shape.dims == (2, 3)


def test_erasing_an_if_frees_what_its_bodies_read() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] z) {
           n = Neg(x)
           y = If(c) <then_branch = t () => (float[2] a) { a = Neg(n) },
                      else_branch = e () => (float[2] b) { b = Abs(n) }>
           z = Relu(x)
        }"""
    )
    negative, branch, _ = model.graph
    rewriter = Rewriter(model)
    rewriter.erase(branch)
    assert not negative.outputs[0].uses()
    rewriter.erase(negative)
    verify_graph(model)


def test_refuses_to_erase_what_is_read() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Neg(x) y = Neg(a) }")
    with pytest.raises(InternalError, match="'a' is still read"):
        Rewriter(model).erase(model.graph[0])
    verify_graph(model)


def test_setting_what_is_set_already_is_no_change() -> None:
    model = parse("g (float[2,3] x) => (float[3,2] y) { y = Transpose<perm=[1,0]>(x) }")
    rewriter = Rewriter(model)
    rewriter.set_attribute(model.graph[0], "perm", [1, 0])
    rewriter.set_input(model.graph[0], 0, model.graph.inputs[0])
    assert rewriter.changes == 0
    rewriter.set_attribute(model.graph[0], "perm", None)
    assert rewriter.changes == 1
    assert "perm" not in to_text(model)


def test_a_constant_that_was_given_other_data_is_not_taken_for_what_it_was() -> None:
    """Small equal constants are shared; one that became half, or another number, is no longer equal."""
    model = parse("g (float[2,3] x) => (float[2,3] y) { y = Neg(x) }")
    rewriter = Rewriter(model)
    op = rewriter.builder(model.graph[0])
    first = op.constant(0.25)
    assert op.constant(0.25) is first
    rewriter.set_constant(first, ir.tensor(np.float32(0.5)))
    second = op.constant(0.25)
    assert second is not first
    rewriter.set_constant(second, ir.tensor(np.array(0.25, np.float16)))
    assert op.constant(0.25).dtype == ir.DataType.FLOAT
