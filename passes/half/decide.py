"""Decide: which nodes stay in float32, each with its reason.

Nothing is decided by the names of layers or operators: a value that does not fit, a result that is off by more than the
bound, what numbers are chosen by, and sizes.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphforge.ir.bodies import bodies_of, nodes_of
from graphforge.passes.half.forms import HEAVY, Form, is_indifferent
from graphforge.passes.half.place import half_of
from graphforge.ranges import Measured, Ranges
from graphforge.ranges.difference import Difference
from graphforge.ranges.measure import LARGEST_HALF, STANDS_FOR_INFINITY

__all__ = ["Kept", "by_errors", "by_meaning", "by_name", "by_ranges", "in_front", "watched", "without_islands"]

# One number that is off by this share when rounded (an epsilon that becomes zero) is not the constant any more.
_CONSTANT = 0.01
# Results that are whole numbers, in floats: a step between them is a decision.
_QUANTISES = frozenset(("DynamicQuantizeLinear", "QuantizeLinear"))
_TO_WHOLE = frozenset(("Ceil", "Floor", "Round", "Sign"))


@dataclass(frozen=True, slots=True)
class Kept:
    """Why a node stays in float32.

    Attributes:
        kind: the kind of reason, in the words of the note.
        detail: the numbers behind it, "" where there are none.
    """

    kind: str
    detail: str = ""


def by_meaning(nodes: Sequence[ir.Node], forms: Mapping[ir.Node, Form]) -> dict[ir.Node, Kept]:
    """Sizes, and what decides: from the last sum of products in front of a comparison or a choice on."""
    kept: dict[ir.Node, Kept] = {}
    from_data = _from_data(nodes)
    for node in nodes:
        if node in forms and node not in from_data:
            kept[node] = Kept("computed of sizes alone")
    pending = [node for node in nodes if _decides(node)]
    seen = set(pending)
    while pending:
        node = pending.pop()
        if node in forms:
            kept.setdefault(node, Kept("a choice or a comparison hangs on it"))
        for value in node.inputs:
            producer = None if value is None or value.dtype != ir.DataType.FLOAT else value.producer()
            if producer is not None and producer not in seen and producer.op_type not in HEAVY:
                seen.add(producer)
                pending.append(producer)
    return kept


def by_name(nodes: Sequence[ir.Node], forms: Mapping[ir.Node, Form], asked: Container[ir.Node]) -> dict[ir.Node, Kept]:
    """What the user names, and what reads it: a value too large for halves is too large for its readers as well."""
    kept = {node: Kept("asked for") for node in nodes if node in asked and node in forms}
    for node in nodes:
        if node in asked:
            for reader in dict.fromkeys(user for value in node.outputs for user, _ in value.uses()):
                if reader in forms:
                    kept.setdefault(reader, Kept("reads what is asked for"))
    return kept


def watched(model: ir.Model, *, chosen_from: bool = False) -> list[str]:
    """The values that say whether a conversion holds: outputs, and what is chosen or compared in place of what follows.

    Behind a choice rows may stand in another order, and what they differ by says nothing.

    Args:
        model: in float32.
        chosen_from: also what is read from in front of a choice behind it: the boxes beside the scores.
    """
    found: dict[str, None] = {}
    behind: set[ir.Node] = set()
    for node in model.graph:
        read = [value for value in node.inputs if value is not None and value.producer() is not None]
        follows = any(value.producer() in behind for value in read)
        decides = not follows and _decides(node)
        if decides or (follows and chosen_from):
            found.update(
                {str(value.name): None for value in read if value.dtype in _FLOATS and value.producer() not in behind}
            )
        if decides or follows:
            behind.add(node)
    for value in model.graph.outputs:
        if value.dtype in _FLOATS and value.producer() is not None and value.producer() not in behind:
            found[str(value.name)] = None
    return list(found)


def by_ranges(
    nodes: Sequence[ir.Node],
    forms: Mapping[ir.Node, Form],
    ranges: Ranges,
    half: ir.DataType,
    headroom: float,
    scores: Mapping[ir.Node, float],
) -> dict[ir.Node, Kept]:
    """What does not fit: values, constants, and the sums inside an operator; ``scores`` are those of attention."""
    kept: dict[ir.Node, Kept] = {}
    constants: dict[ir.Value, str] = {}
    for node in nodes:
        form = forms.get(node)
        if form is None:
            continue
        operands = [node.inputs[position] for position in form.inputs]
        results = [node.outputs[position] for position in form.outputs]
        for value in (*operands, *results):
            if value is None:
                continue
            if value.const_value is not None and not value.is_graph_input():
                if value not in constants:
                    constants[value] = _misfit(value.const_value.numpy(), half)
                if constants[value]:
                    kept.setdefault(node, Kept("a constant does not fit", constants[value]))
                continue
            known = ranges.get(str(value.name))
            if half == ir.DataType.FLOAT16 and known is not None and known.ordinary * headroom > LARGEST_HALF:
                kept.setdefault(node, Kept("values too large for float16", f"{value.name}: {known.describe()}"))
        if half == ir.DataType.FLOAT16 and node not in kept:
            inside = scores[node] if node in scores else _inside(node, ranges)
            if inside * headroom > LARGEST_HALF:
                kept[node] = Kept("sums inside too large for float16", f"up to {inside:.3g}")
    return kept


def by_errors(errors: Mapping[ir.Node, Difference], bound: float) -> dict[ir.Node, Kept]:
    """What is off by more than the bound although its operands are right."""
    return {
        node: Kept(
            "its own rounding is too much",
            "overflows" if error.broken else f"off by {100 * error.relative:.2g} %",
        )
        for node, error in errors.items()
        if error.broken or error.relative > bound
    }


def in_front(
    seeds: Collection[ir.Node], forms: Mapping[ir.Node, Form], kept: Collection[ir.Node], steps: int
) -> dict[ir.Node, Kept]:
    """What makes the operands of these nodes, so many steps back.

    Where large numbers that lie close together are subtracted, in a distance, a variance or a norm, their rounding is
    most of what is left: computing the difference in float32 does not help if what it reads is halves.
    """
    found: dict[ir.Node, Kept] = {}
    front = list(seeds)
    for _ in range(steps):
        behind, front = front, []
        for node in behind:
            for value in node.inputs:
                producer = None if value is None or value.dtype != ir.DataType.FLOAT else value.producer()
                if producer is not None and producer not in found and producer not in seeds:
                    found[producer] = Kept("what is computed of it needs more digits")
                    front.append(producer)
    return {node: why for node, why in found.items() if node in forms and node not in kept}


def without_islands(nodes: Sequence[ir.Node], forms: Mapping[ir.Node, Form], kept: set[ir.Node]) -> set[ir.Node]:
    """Nodes between such that stay in float32, without a sum of products among them: not worth their casts."""
    left = [node for node in nodes if node in forms and node not in kept]
    groups: dict[ir.Node, list[ir.Node]] = {}
    for node in left:
        group = groups.setdefault(node, [node])
        for other in _neighbours(node):
            if other in groups and other in forms and other not in kept and groups[other] is not group:
                joined = groups[other]
                joined.extend(group)
                for one in group:
                    groups[one] = joined
                group = joined
    found: set[ir.Node] = set()
    for group in {id(group): group for group in groups.values()}.values():
        heavy = any(node.op_type in HEAVY for node in group)
        if not heavy and any(other in kept for node in group for other in _neighbours(node)):
            found.update(group)
    return found


def _neighbours(node: ir.Node) -> Iterator[ir.Node]:
    """Nodes that a float32 goes to or comes from."""
    for value in node.inputs:
        producer = None if value is None or value.dtype != ir.DataType.FLOAT else value.producer()
        if producer is not None:
            yield producer
    for value in node.outputs:
        if value.dtype == ir.DataType.FLOAT:
            yield from (user for user, _ in value.uses())


def _from_data(nodes: Sequence[ir.Node]) -> set[ir.Node]:
    """Nodes whose results hang on elements of the inputs, not on sizes and constants alone."""
    found: set[ir.Node] = set()
    for node in nodes:
        if is_indifferent(node):
            continue
        read = [
            *node.inputs,
            *(value for body in bodies_of(node) for inner in nodes_of(body) for value in inner.inputs),
        ]
        for value in read:
            if value is not None and (value.producer() in found if value.producer() else value.is_graph_input()):
                found.add(node)
                break
        else:
            if not node.inputs:  # draws numbers
                found.add(node)
    return found


def _decides(node: ir.Node) -> bool:
    """Whether it makes something else of floats than floats, or whole numbers; a step of quantised numbers is small."""
    if (
        is_indifferent(node)
        or node.op_type in _QUANTISES
        or not any(v is not None and v.dtype == ir.DataType.FLOAT for v in node.inputs)
    ):
        return False
    if node.op_type in _TO_WHOLE:
        return True
    return any(
        v.dtype is not None and v.dtype not in _FLOATS and (v.uses() or v.is_graph_output()) for v in node.outputs
    )


_FLOATS = frozenset((ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE))


def _misfit(array: np.ndarray, half: ir.DataType) -> str:
    """What half precision does to a constant, "" where that is rounding.

    One number guards against what samples need not show: an epsilon, where what it is added to is zero.  Where numbers
    differ they are weights, and what it costs that some become zero shows in the node's own error: a bias of 1e-8,
    as batch norms leave it behind, is nothing to sums of about 1.
    """
    if not array.size:
        return ""
    numbers = array.astype(np.float64)
    halved = half_of(array, half).astype(np.float64)
    ordinary = np.isfinite(numbers) & (np.abs(numbers) < STANDS_FOR_INFINITY)
    if not np.isfinite(halved[ordinary]).all():
        return f"{np.abs(numbers[ordinary]).max():.4g} is too large"
    signal = float(np.square(numbers[ordinary]).sum())
    error = float(np.square(halved[ordinary] - numbers[ordinary]).sum())
    if signal and error > _CONSTANT**2 * signal and np.ptp(numbers[ordinary]) == 0:
        return f"{np.abs(numbers[ordinary]).max():.4g} is too small"
    return ""


def _inside(node: ir.Node, ranges: Ranges) -> float:
    """The largest sum that the operator makes on its way to the result, as far as its result says so."""
    result = ranges.get(str(node.outputs[0].name)) if node.outputs else None
    if result is None:
        return 0.0
    if node.op_type == "ReduceL2":
        return result.ordinary**2
    if node.op_type == "ReduceMean":
        return result.ordinary * _terms(node, result, ranges)
    return 0.0


def _terms(node: ir.Node, result: Measured, ranges: Ranges) -> float:
    operand = ranges.get(str(node.inputs[0].name)) if node.inputs[0] is not None else None
    return 1.0 if operand is None or not result.count else operand.count / result.count
