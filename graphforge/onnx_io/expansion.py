"""What a file comes to, counted before any of it is made.

Thirty functions of which each calls the next one twice are two kilobytes and a billion nodes; one ConstantOfShape is a
hundred bytes and as much memory as its shape says.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir import HOME_OPSET, bodies_of, constant_of, infer_node
from graphforge.ir.describe import describe
from graphforge.limiting import check_limit

__all__ = ["called_by", "count_expansion", "count_work", "makes_more"]

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


# These repeat or fill to a size that is written down, whatever they are given: by the inputs from this one on.
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
_REPEATING = {"Expand": 1, "Tile": 1, "Pad": 1, "Resize": 2, "Upsample": 1, "OneHot": 1, "CenterCropPad": 1}


def count_work(graph: ir.Graph, label: str) -> None:
    """Hold what running the graph will come to, as far as it is written down, against the limits.

    That is the bytes of what it makes out of constants alone, or repeats of its inputs (whoever loads the file computes
    the first at once: our folding within its own bounds, a runtime without any), and the rounds of loops whose number
    is a constant and which nothing ends before.

    Raises:
        GraphForgeError: one of them is beyond it, or has no shape at all.
    """
    rounds = _count(graph, label, set())
    check_limit("rounds", rounds, f"{label}: rounds of its loops")


def makes_more(graph: onnx.GraphProto) -> bool:
    """Whether a graph, as it stands in its file, has anything that ``count_work`` would count."""
    constant = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        if node.op_type == "Constant":
            constant.update(node.output)
            continue
        has_bodies = any(attribute.type in _GRAPHS for attribute in node.attribute)
        if has_bodies or node.op_type in _REPEATING or constant.issuperset(node.input):
            return True
    return False


def _count(graph: ir.Graph, label: str, constant: set[ir.Value]) -> int:
    """The rounds of the graph's loops; ``constant`` are the values around it that depend on no input."""
    constant.update(graph.initializers.values())
    rounds = 0
    for node in graph:
        if node.domain not in ("", "ai.onnx"):
            continue
        bodies = bodies_of(node)
        if bodies:
            within = sum(_count(body, label, constant) for body in bodies)
            times = _times(node)
            rounds = min(rounds + (times * (1 + within) if times else within), _ENDLESS)
            continue
        given = [value for value in node.inputs if value is not None]
        alone = all(value in constant for value in given)
        if not (alone or _repeats(node)):
            continue
        infer_node(node, HOME_OPSET)
        for value in node.outputs:
            size = _static_bytes(value)
            if size is not None:
                made = "out of constants" if alone else "by repeating"
                check_limit("constant_bytes", size, f"{label}: bytes that {describe(node)} makes {made}")
        if alone:
            constant.update(node.outputs)
    return rounds


def _repeats(node: ir.Node) -> bool:
    first = _REPEATING.get(node.op_type)
    return first is not None and any(constant_of(value) is not None for value in node.inputs[first:])


def _times(node: ir.Node) -> int:
    """How often the body of a Loop or Scan runs; 0 where that is not written down."""
    if node.op_type == "Scan" and "num_scan_inputs" in node.attributes:
        scanned = [one for one in node.inputs[-node.attributes["num_scan_inputs"].as_int() :] if one is not None]
        axes = node.attributes["scan_input_axes"].as_ints() if "scan_input_axes" in node.attributes else (0,)
        dims = scanned[0].shape.dims if scanned and scanned[0].shape is not None else ()
        size = dims[axes[0]] if axes and -len(dims) <= axes[0] < len(dims) else 0
        return size if isinstance(size, int) else 0
    count = constant_of(node.inputs[0]) if node.op_type == "Loop" and node.inputs else None
    if count is None or count.size != 1 or not _runs_to_its_end(node):
        return 0
    return max(int(count.reshape(-1)[0]), 0)


def _runs_to_its_end(node: ir.Node) -> bool:
    """Whether a Loop's condition is never computed: left out or true at first, and handed on as it is."""
    first = node.inputs[1] if len(node.inputs) > 1 else None
    known = constant_of(first)
    if first is not None and (known is None or not known.all()):
        return False
    body = next(iter(bodies_of(node)), None)
    if body is None or len(body.inputs) < 2 or not body.outputs:
        return False
    kept: ir.Value | None = body.outputs[0]
    while kept is not None and kept is not body.inputs[1]:
        known = constant_of(kept)
        if known is not None:
            return bool(known.all())
        producer = kept.producer()
        if producer is None or producer.op_type not in ("Identity", "Cast"):
            return False
        kept = producer.inputs[0]
    return kept is not None


def _static_bytes(value: ir.Value) -> int | None:
    if value.dtype is None or value.dtype == ir.DataType.STRING or value.shape is None:
        return None
    if not all(isinstance(dim, int) for dim in value.shape):
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
