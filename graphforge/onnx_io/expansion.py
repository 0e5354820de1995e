"""What a file comes to, counted before any of it is made.

Thirty functions of which each calls the next one twice are two kilobytes and a billion nodes; one ConstantOfShape is a
hundred bytes and as much memory as its shape says.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir import HOME_OPSET, bodies_of, constant_of, infer_node
from graphforge.ir.describe import describe
from graphforge.limiting import check_limit

__all__ = ["called_by", "count_constants", "count_expansion"]

# Once a count is beyond every limit its exact value says nothing; numbers of a thousand digits are slow.
_ENDLESS = 1 << 200


@dataclass(frozen=True, slots=True)
class _Size:
    nodes: int
    constant_bytes: int
    nesting: int


def count_expansion(model: ir.Model, label: str) -> Collection[ir.OperatorIdentifier]:
    """Hold the model's size with all functions inlined against the limits; the functions that the graph reaches.

    Raises:
        GraphForgeError: it is beyond a limit, or functions call each other in a circle.
    """
    sizes: dict[ir.OperatorIdentifier, _Size] = {}
    for identifier in _callees_first(model, label):
        sizes[identifier] = _size(model.functions[identifier], sizes)
    whole = _size(model.graph, sizes)
    check_limit("nesting", whole.nesting, f"{label}: bodies and functions inside each other")
    check_limit("nodes", whole.nodes, f"{label}: nodes, with its functions inlined")
    check_limit("constant_bytes", whole.constant_bytes, f"{label}: bytes of constants in its functions, inlined")
    return sizes.keys()


# These repeat or fill to a size that is written down, whatever they are given.
_REPEATING = frozenset(("Expand", "Tile"))


def count_constants(graph: ir.Graph, label: str) -> None:
    """Hold the bytes of what the graph makes out of constants alone, or repeats of its inputs, against the limit.

    Whoever loads the file computes these at once: our folding within its own bounds, a runtime without any.

    Raises:
        GraphForgeError: one of them is beyond it, or has no shape at all.
    """
    constant: set[ir.Value] = set(graph.initializers.values())
    for node in graph:
        given = [value for value in node.inputs if value is not None]
        alone = all(value in constant for value in given) and not any(bodies_of(node))
        repeats = node.op_type in _REPEATING and len(given) > 1 and constant_of(given[1]) is not None
        if not (alone or repeats) or node.domain not in ("", "ai.onnx"):
            continue
        infer_node(node, HOME_OPSET)
        for value in node.outputs:
            size = _static_bytes(value)
            if size is not None:
                made = "out of constants" if alone else "by repeating"
                check_limit("constant_bytes", size, f"{label}: bytes that {describe(node)} makes {made}")
        if alone:
            constant.update(node.outputs)


def _static_bytes(value: ir.Value) -> int | None:
    if value.shape is None or value.dtype is None or not all(isinstance(dim, int) for dim in value.shape):
        return None
    return math.prod(int(str(dim)) for dim in value.shape) * value.dtype.bitwidth // 8


def called_by(
    container: ir.Graph | ir.Function, functions: Mapping[ir.OperatorIdentifier, ir.Function]
) -> Iterator[ir.OperatorIdentifier]:
    """The functions that a graph or function calls, bodies included, as often as it does."""
    for node in container.all_nodes():
        identifier = node.op_identifier()
        if identifier in functions:
            yield identifier


def _callees_first(model: ir.Model, label: str) -> Iterator[ir.OperatorIdentifier]:
    """The functions that the graph reaches, each after all that it calls; no recursion, for chains may be long."""
    done: set[ir.OperatorIdentifier] = set()
    open_: dict[ir.OperatorIdentifier, None] = {}
    pending = list(dict.fromkeys(called_by(model.graph, model.functions)))
    while pending:
        identifier = pending[-1]
        if identifier in done:
            pending.pop()
            continue
        missing = [
            one for one in dict.fromkeys(called_by(model.functions[identifier], model.functions)) if one not in done
        ]
        if not missing:
            pending.pop()
            open_.pop(identifier, None)
            done.add(identifier)
            yield identifier
            continue
        open_[identifier] = None
        circle = next((one for one in missing if one in open_), None)
        if circle is not None:
            raise GraphForgeError(f"{label}: function {circle[1]!r} calls itself, directly or by others")
        pending.extend(missing)


def _size(container: ir.Graph | ir.Function, sizes: Mapping[ir.OperatorIdentifier, _Size]) -> _Size:
    is_function = isinstance(container, ir.Function)
    nodes = constant_bytes = nesting = 0
    pending: list[tuple[ir.Graph | ir.Function, int]] = [(container, 0)]
    while pending:
        graph, depth = pending.pop()
        nesting = max(nesting, depth)
        for node in graph:
            called = sizes.get(node.op_identifier())
            if called is not None:
                nodes += called.nodes
                constant_bytes += called.constant_bytes
                nesting = max(nesting, depth + 1 + called.nesting)
                continue
            nodes += 1
            if is_function:
                constant_bytes += _constant_bytes(node)
            pending.extend((body, depth + 1) for body in bodies_of(node))
    return _Size(min(nodes, _ENDLESS), min(constant_bytes, _ENDLESS), nesting)


def _constant_bytes(node: ir.Node) -> int:
    return sum(
        attribute.value.nbytes
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.TENSOR
        and attribute.value is not None  # None: a parameter of the function
    )
