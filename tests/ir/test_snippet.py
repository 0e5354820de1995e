"""Carets stand under what is wrong, between the lines around it."""

from __future__ import annotations

import pytest

from graphforge.ir import Model, from_text, snippet


@pytest.fixture
def model() -> Model:
    return from_text(
        """<ir_version: 10, opset_import: ["" : 26]>
main (float[4,4] x, bool c) => (float[4,4] z)
{
   a = Relu (x)
   b = Neg (a)
   d = Softmax <axis: int = 1> (b)
   e = Add (a, d)
   f = If (c) <then_branch: graph = t () => (float[4,4] p) { p = Abs (e) },
               else_branch: graph = o () => (float[4,4] q) { q = Exp (e) }>
   z = Tanh (f)
}"""
    )


def test_the_operator_is_the_culprit(model: Model) -> None:
    assert snippet(model.graph[2]) == (
        "    a  ? = Relu(x)\n"
        "    b  ? = Neg(a)\n"
        "    d  ? = Softmax(b, axis=1)\n"
        "           ^^^^^^^\n"
        "    e  ? = Add(a, d)\n"
        "    f  ? = If(c)"
    )


def _culprit(text: str) -> str:
    lines = text.splitlines()
    (marker,) = [line for line in lines if set(line.strip()) == {"^"}]
    start = marker.index("^")
    return lines[lines.index(marker) - 1][start : start + marker.count("^")]


def test_an_operand_or_attribute_is_the_culprit(model: Model) -> None:
    assert _culprit(snippet(model.graph[3], operand=1)) == "d"
    assert _culprit(snippet(model.graph[2], attribute="axis")) == "axis=1"
    assert _culprit(snippet(model.graph[0], operand=7)) == "Relu"  # what is not there is not pointed at


def test_an_attribute_at_its_default_is_shown_where_it_is_the_culprit(model: Model) -> None:
    text = snippet(from_text(_DEFAULT).graph[0], attribute="axis")
    assert _culprit(text) == "axis=-1"


_DEFAULT = """<ir_version: 10, opset_import: ["" : 26]>
main (float[4] x) => (float[4] y) { y = Softmax <axis: int = -1> (x) }"""


def test_inside_a_body(model: Model) -> None:
    body = model.graph[4].attributes["then_branch"].as_graph()
    assert _culprit(snippet(body[0])) == "Abs"
    assert len(snippet(body[0]).splitlines()) == 2


def test_the_culprit_is_shown_however_far_to_the_right(model: Model) -> None:
    names = [f"an_input_with_a_long_name_{index}" for index in range(9)]
    wide = from_text(
        '<ir_version: 10, opset_import: ["" : 26]>\n'
        f"main ({', '.join(f'float[4] {name}' for name in names)}) => (float[36] y)\n"
        f"{{ y = Concat <axis: int = 0> ({', '.join(names)}) }}"
    )
    assert _culprit(snippet(wide.graph[0], operand=8)) == names[8]


def test_no_longer_than_a_few_lines_of_limited_width(model: Model) -> None:
    text = snippet(model.graph[3], around=1, width=60)
    assert len(text.splitlines()) == 4
    assert max(map(len, text.splitlines())) <= 64
