"""The verifier finds each kind of damage, and nothing in a sound graph."""

from __future__ import annotations

import onnx_ir
import pytest

from graphforge.errors import InternalError
from graphforge.ir import Level, Model, from_text, verify_graph
from graphforge.ir.verifier import find_problems

HEADER = '<ir_version: 10, opset_import: ["" : 26, "graphforge" : 1]>\n'


def parse(body: str) -> Model:
    return from_text(HEADER + body)


def problems(model: Model, level: Level | None = None) -> str:
    return "\n".join(map(str, find_problems(model, level)))


def test_a_sound_graph_with_bodies_passes() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
           n = Add(x, w)
           y = If(c) <then_branch = t () => (float[2] a) { a = Neg(n) },
                      else_branch = e () => (float[2] b) { b = Abs(w) }>
        }"""
    )
    verify_graph(model)


def test_order() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Neg(x) y = Neg(a) }")
    first, second = model.graph
    model.graph.insert_before(first, second)
    assert "Neg node 'y': input 0 ('a') is not defined before it" in problems(model)
    with pytest.raises(InternalError, match="not well formed") as caught:
        verify_graph(model)
    *_, line, carets, after = str(caught.value).splitlines()
    assert line[carets.index("^") :] == "a)"  # the operand that is read too early
    assert after.endswith("= Neg(x)")


def test_value_of_a_body_read_outside() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] z) {
           y = If(c) <then_branch = t () => (float[2] a) { a = Neg(x) },
                      else_branch = e () => (float[2] b) { b = Abs(x) }>
           z = Relu(y)
        }"""
    )
    body = model.graph[0].attributes["then_branch"].as_graph()
    model.graph[1].replace_input_with(0, body[0].outputs[0])
    assert "Relu node 'z': input 0 ('a') is not defined before it" in problems(model)


def test_names() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Neg(x) y = Neg(a) }")
    model.graph[0].outputs[0].name = "x"
    assert "the name 'x' is given to an output of (Neg node 'x') and to input 'x'" in problems(model)


def test_shadowed_name() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) {
           y = If(c) <then_branch = t () => (float[2] a) { a = Neg(x) },
                      else_branch = e () => (float[2] b) { b = Abs(x) }>
        }"""
    )
    model.graph[0].attributes["else_branch"].as_graph()[0].outputs[0].name = "x"
    assert "the name 'x' of an output of (Abs node 'x') hides input 'x' of an enclosing graph" in problems(model)


def test_lost_output_and_lost_data() -> None:
    model = parse("g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Add(x, w) y = Neg(a) }")
    model.graph.initializers["w"].const_value = None
    model.graph.remove(model.graph[1])
    text = problems(model)
    assert "initializer 'w' has no data" in text
    assert "output 0 ('y') is computed nowhere" in text


def test_use_that_is_not_listed() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    model.graph.inputs[0]._uses.clear()
    assert "input 0 ('x') does not list this use" in problems(model)


def test_operators() -> None:
    assert "ONNX has no operator Nog" in problems(parse("g (float[2] x) => (float[2] y) { y = Nog(x) }"))
    assert "has 1 inputs, Sub of opset 14 takes 2" in problems(parse("g (float[2] x) => (float[2] y) { y = Sub(x) }"))
    text = problems(parse("g (float[2] x) => (float[2] y) { y, z = Relu(x) }"))
    assert "has 2 outputs, Relu of opset 14 gives 1" in text
    later = parse("g (float[2] x) => (float[2] y) { y = Swish(x) }")
    later.graph.opset_imports[""] = 23
    assert "opset 23 has no operator Swish, it came with opset 24" in problems(later)


def test_attributes() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Relu<alpha=1.0>(x) }")
    assert "has attribute alpha, which Relu of opset 14 does not know" in problems(model)
    model = parse("g (float[2] x) => (float[2] y) { y = LeakyRelu<alpha=1>(x) }")
    assert "attribute alpha is of type INT, LeakyRelu of opset 16 expects FLOAT" in problems(model)
    model = parse("g (float[2] x, float[2] z) => (float[4] y) { y = Concat(x, z) }")
    assert "lacks attribute axis, which Concat of opset 13 requires" in problems(model)


def test_element_types() -> None:
    model = parse("g (float[2] x, int64[2] z) => (float[2] y) { y = Add(x, z) }")
    assert "A is tensor(float) but B is tensor(int64), Add of opset 14 wants one type" in problems(model)
    model = parse("g (bool[2] x) => (bool[2] y) { y = Neg(x) }")
    assert "X is tensor(bool), which Neg of opset 13 does not admit" in problems(model)
    model = parse("g (float[2] x) => (int64[2] y) { y = Abs(x) }")
    assert "X is tensor(float) but Y is tensor(int64)" in problems(model)


def test_what_a_weight_says_of_itself() -> None:
    model = parse("g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }")
    model.graph.initializers["w"].type = onnx_ir.TensorType(onnx_ir.DataType.INT64)
    assert "initializer 'w' says int64, its data are float" in problems(model)
    model.graph.initializers["w"].type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    model.graph.initializers["w"].shape = onnx_ir.Shape([3])
    assert "initializer 'w' says [3], its data are [2]" in problems(model)


def test_order_in_a_body() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) {
           y = If(c) <then_branch = t () => (float[2] a) { n = Neg(x) a = Neg(n) },
                      else_branch = e () => (float[2] b) { b = Abs(x) }>
        }"""
    )
    body = model.graph[0].attributes["then_branch"].as_graph()
    body.insert_before(body[0], body[1])
    assert "Neg node 'a': input 0 ('n') is not defined before it" in problems(model)


def test_levels() -> None:
    constant = parse("g (float[2] x) => (float[2] y) { c = Constant<value_float=1.0>() y = Add(x, c) }")
    verify_graph(constant)
    assert "constants are initializers" in problems(constant, Level.CANONICAL)
    semantic = parse("g (float[2] x) => (float[2] y) { y = graphforge.Thing(x) }")
    verify_graph(semantic, Level.CANONICAL)
    assert "must be lowered by now" in problems(semantic, Level.LEGAL)
    untyped = parse("g (float[2] x) => (float[2] y) { a = Neg(x) y = Neg(a) }")
    assert "the type of output 'a' is unknown" in problems(untyped, Level.CANONICAL)
    assert problems(untyped, Level.CAPTURED) == ""
    older = parse("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    older.graph.opset_imports[""] = 17
    assert "at opset 17, expected the home opset" in problems(older, Level.CAPTURED)
    assert problems(older, Level.LEGAL) == ""
    foreign = parse("g (float[2] x) => (float[2] y) { a = acme.Thing(x) y = acme.Thing(a) }")
    assert problems(foreign, Level.CANONICAL) == ""  # nobody says what Thing gives
    assert "does not say which version of the domain 'acme'" in problems(foreign, Level.LEGAL)
    foreign.graph.opset_imports["acme"] = 1
    assert problems(foreign, Level.LEGAL) == ""


def test_an_optional_output_that_is_not_asked_for_may_be_nameless() -> None:
    model = parse("g (float[4] x) => (float[2] y) <int64[1] k = {2}> { y, i = TopK(x, k) }")
    model.graph[0].outputs[1].name = ""
    verify_graph(model)
    assert isinstance(model, onnx_ir.Model)
