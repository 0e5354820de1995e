"""A node in words: operator with its domain, name or that of its output, and the origin that says most."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from graphforge.ir import Origin, describe, node_name, operator_name, origin_text, set_origins


def node(*, domain: str = "", name: str | None = None, output: str | None = "y") -> ir.Node:
    return ir.Node(domain, "Sort", [], outputs=[ir.Value(name=output)], name=name)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (node(name="head/Sort"), "head/Sort"),
        (node(), "y"),
        (node(output=None), "?"),
        (node(name="node_Sort_3"), "y"),
        (node(name="node_Sort_3", output=None), "node_Sort_3"),
    ],
)
def test_the_name_is_the_node_s_else_its_output_s(made: ir.Node, name: str) -> None:
    assert node_name(made) == name
    assert describe(made) == f"Sort node {name!r}"


@pytest.mark.parametrize(("domain", "operator"), [("", "Sort"), ("ai.onnx", "Sort"), ("acme", "acme::Sort")])
def test_the_operator_has_a_domain_where_it_is_not_onnx_s(domain: str, operator: str) -> None:
    assert operator_name(node(domain=domain)) == operator


@pytest.mark.parametrize(
    ("origins", "text"),
    [
        ([], ""),
        ([Origin(target="Sort")], ""),
        ([Origin(target="aten.sort.default")], "aten.sort.default"),
        ([Origin(target="aten.sort.default"), Origin(module="head", file="m.py", line=4)], "head, m.py:4"),
        ([Origin(module="head", module_class="net.Head", target="Sort")], "head (Head), Sort"),
    ],
)
def test_the_origin_that_says_most_is_told(origins: list[Origin], text: str) -> None:
    made = node()
    set_origins(made, origins)
    assert origin_text(made) == text
    assert describe(made) == ("Sort node 'y'" + (f" ({text})" if text else ""))
