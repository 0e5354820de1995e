"""The lines of a graph around one node, with carets under what is wrong: the last part of an error message.

val_6   f32[1,8] = Relu(val_5)
val_7   f32[1,8] = Add(val_6, val_4)
                       ^^^
"""

from __future__ import annotations

import onnx_ir as ir

from graphforge.ir.builder import HOME_OPSET
from graphforge.ir.printer import Columns, Row, row_of

__all__ = ["here", "snippet"]

_WIDTH = 120


def snippet(
    node: ir.Node, *, operand: int | None = None, attribute: str | None = None, around: int = 2, width: int = _WIDTH
) -> str:
    """The node's line between its neighbours, with carets under the culprit.

    Args:
        node: a node in a graph; a graph that is broken there is shown as it is.
        operand: position of the operand that is wrong.
        attribute: name of the attribute that is wrong; with neither, the operator is.
        around: lines before and after.
        width: letters to a line.
    """
    graph = node.graph
    neighbours = [node] if graph is None else _neighbours(graph, node, around)
    opset = HOME_OPSET if graph is None else _opset(graph)
    rows = [row_of(one, opset=opset, wanted=attribute if one is node else None) for one in neighbours]
    columns = Columns.fitting(rows, width)
    lines: list[str] = []
    for one, row in zip(neighbours, rows, strict=True):
        if one is not node:
            lines.append(str(columns.line(row)))
            continue
        before, letters = _place(row, operand, attribute)
        start = columns.start_of_expression(row) + before
        # what the carets point at is shown, however long the line
        whole = columns if start + letters <= width - 4 else Columns.fitting(rows)
        start = whole.start_of_expression(row) + before
        lines += [str(whole.line(row)), " " * start + "^" * letters]
    return "\n".join(f"    {line}" for line in lines)


def here(node: ir.Node, *, operand: int | None = None, attribute: str | None = None) -> str:
    """The snippet as a note of an error."""
    return f"here:\n{snippet(node, operand=operand, attribute=attribute)}"


def _neighbours(graph: ir.Graph | ir.Function, node: ir.Node, around: int) -> list[ir.Node]:
    before: list[ir.Node] = []
    after: list[ir.Node] = []
    nodes = iter(graph)
    for one in nodes:
        if one is node:
            break
        before = [*before, one][-around:] if around else []
    for one, _ in zip(nodes, range(around), strict=False):
        after.append(one)
    return [*before, node, *after]


def _opset(graph: ir.Graph | ir.Function) -> int:
    return graph.opset_imports.get("", HOME_OPSET)


def _place(row: Row, operand: int | None, attribute: str | None) -> tuple[int, int]:
    """Where in the expression the culprit begins, and its letters."""
    index = 0
    if operand is not None and operand in row.operands:
        index = row.operands[operand]
    elif attribute is not None and attribute in row.attributes:
        index = row.attributes[attribute]
    before = sum(len(span.text) for span in row.expression[:index])
    return before, max(len(row.expression[index].text), 1)
