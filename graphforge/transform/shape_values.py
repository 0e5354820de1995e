"""What integers small tensors hold, with symbols for dims that are not numbers: the algebra of shape computations.

A tensor of integers with rank 0 or 1 is known here as a tuple of elements; an element is a number or a ``Term``, a
product of a number and dims.  That is enough to follow ``Shape -> Gather -> Mul -> Concat -> Reshape`` through any
reshaping code, and cheap enough to run on every node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from graphforge.ir.infer import constant_of
from graphforge.transform.facts import int_attribute

__all__ = ["Element", "ShapeValues", "Term"]

# Longer tensors are data, not shapes.
_LONGEST = 64
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Term:
    """``factor`` times the dims in ``symbols``; a dim is at least 0."""

    factor: int
    symbols: tuple[str, ...]


Element: TypeAlias = int | Term
Elements: TypeAlias = tuple[Element, ...]


class ShapeValues:
    """Follows shape computations; ``visit`` every node in order, then ask for the elements of any value."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, Elements] = {}
        self._anonymous: dict[ir.Value, int] = {}

    def elements(self, value: ir.Value | None) -> Elements | None:
        """The elements of a tensor of integers or booleans of rank 0 or 1, None when unknown."""
        if value is None:
            return None
        found = self._known.get(value)
        if found is not None:
            return found
        if value.const_value is None or value.dtype not in _INTEGERS or len(value.const_value.shape) > 1:
            return None
        constant = constant_of(value, limit=_LONGEST)
        if constant is None:
            return None
        elements: Elements = tuple(int(item) for item in constant.reshape(-1))
        self._known[value] = elements
        return elements

    def dims(self, value: ir.Value | None) -> Elements | None:
        """The dims of a value as elements; None when the rank is unknown.  Unknown dims are symbols of their own."""
        if value is None or value.shape is None:
            return None
        return tuple(self._dim(value, axis, dim) for axis, dim in enumerate(value.shape.dims))

    def visit(self, node: ir.Node) -> bool:
        """Work out what the node's outputs hold; returns whether something came of it."""
        if node.domain != "":
            return False
        trace = _TRACED.get(node.op_type)
        if trace is None:
            return False
        output = node.outputs[0]
        if output.dtype is not None and output.dtype not in _INTEGERS:
            return False
        found = trace(self, node)
        if found is None or len(found) > _LONGEST:
            return False
        if output.shape is not None:
            rank = len(output.shape)
            # A rank above one is not followed; a length that contradicts what is declared is not trusted.
            if rank > 1 or (rank == 0 and len(found) != 1):
                return False
            if rank == 1 and isinstance(output.shape[0], int) and output.shape[0] != len(found):
                return False
        self._known[output] = found
        return True

    def _dim(self, value: ir.Value, axis: int, dim: int | ir.SymbolicDim) -> Element:
        if isinstance(dim, int):
            return dim
        if dim.value is not None:
            return Term(1, (dim.value,))
        number = self._anonymous.setdefault(value, len(self._anonymous))
        return Term(1, (f"?{number}.{axis}",))


_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


def times(left: Element, right: Element) -> Element:
    """The product."""
    if isinstance(left, int) and isinstance(right, int):
        return left * right
    one = Term(left, ()) if isinstance(left, int) else left
    other = Term(right, ()) if isinstance(right, int) else right
    factor = one.factor * other.factor
    return Term(factor, tuple(sorted(one.symbols + other.symbols))) if factor else 0


def divided(left: Element, right: Element) -> Element | None:
    """The quotient where it is exact or both are numbers (rounded towards zero, as ONNX divides integers)."""
    if isinstance(left, int) and isinstance(right, int):
        if right == 0:
            return None
        quotient = abs(left) // abs(right)
        return quotient if (left < 0) == (right < 0) else -quotient
    if isinstance(left, int):
        return None
    divisor = Term(right, ()) if isinstance(right, int) else right
    if divisor.factor == 0 or left.factor % divisor.factor:
        return None
    rest = list(left.symbols)
    for symbol in divisor.symbols:
        # x * y / x is y unless x is 0, and dividing by a dim of 0 fails anyway.
        if symbol not in rest:
            return None
        rest.remove(symbol)
    factor = left.factor // divisor.factor
    return Term(factor, tuple(rest)) if rest else factor


def product(elements: Sequence[Element]) -> Element:
    """The product of all."""
    result: Element = 1
    for element in elements:
        result = times(result, element)
    return result


def _elementwise(
    values: ShapeValues, node: ir.Node, operation: Callable[[Element, Element], Element | None]
) -> Elements | None:
    left, right = values.elements(node.inputs[0]), values.elements(node.inputs[1])
    if left is None or right is None:
        return None
    if len(left) != len(right):
        if len(left) == 1:
            left = left * len(right)
        elif len(right) == 1:
            right = right * len(left)
        else:
            return None
    result: list[Element] = []
    for one, other in zip(left, right, strict=True):
        found = operation(one, other)
        if found is None:
            return None
        result.append(found)
    return tuple(result)


def _add(left: Element, right: Element) -> Element | None:
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    if left == 0:
        return right
    if right == 0:
        return left
    if isinstance(left, Term) and isinstance(right, Term) and left.symbols == right.symbols:
        factor = left.factor + right.factor
        return Term(factor, left.symbols) if factor else 0
    return None


def _subtract(left: Element, right: Element) -> Element | None:
    return _add(left, times(right, -1))


def _modulo(left: Element, right: Element) -> Element | None:
    if isinstance(right, int) and right > 0:
        if isinstance(left, int):
            return left % right
        if left.factor % right == 0:
            return 0
    return None


def _equal(left: Element, right: Element) -> Element | None:
    if left == right:
        return 1
    if isinstance(left, int) and isinstance(right, int):
        return 0
    term, other = (left, right) if isinstance(left, Term) else (right, left)
    # A dim is never negative.
    if isinstance(term, Term) and isinstance(other, int) and term.factor > 0 > other:
        return 0
    return None


def _less(left: Element, right: Element) -> Element | None:
    if isinstance(left, int) and isinstance(right, int):
        return int(left < right)
    return None


def _maximum(left: Element, right: Element) -> Element | None:
    if isinstance(left, int) and isinstance(right, int):
        return max(left, right)
    if left == right:
        return left
    term, other = (left, right) if isinstance(left, Term) else (right, left)
    return term if isinstance(term, Term) and isinstance(other, int) and term.factor > 0 >= other else None


def _minimum(left: Element, right: Element) -> Element | None:
    if isinstance(left, int) and isinstance(right, int):
        return min(left, right)
    if left == right:
        return left
    term, other = (left, right) if isinstance(left, Term) else (right, left)
    return term if isinstance(term, Term) and isinstance(other, int) and other >= _INT64_MAX // 2 else None


def _shape(values: ShapeValues, node: ir.Node) -> Elements | None:
    dims = values.dims(node.inputs[0])
    if dims is None:
        return None
    rank = len(dims)
    start, end = int_attribute(node, "start", 0), int_attribute(node, "end", rank)
    start = min(max(start + rank if start < 0 else start, 0), rank)
    end = min(max(end + rank if end < 0 else end, 0), rank)
    return dims[start:end]


def _size(values: ShapeValues, node: ir.Node) -> Elements | None:
    dims = values.dims(node.inputs[0])
    return None if dims is None else (product(dims),)


def _gather(values: ShapeValues, node: ir.Node) -> Elements | None:
    data, indices = values.elements(node.inputs[0]), values.elements(node.inputs[1])
    if data is None or indices is None or node.inputs[0] is None or _rank(node.inputs[0]) != 1:
        return None
    result = []
    for index in indices:
        if not isinstance(index, int) or not -len(data) <= index < len(data):
            return None
        result.append(data[index])
    return tuple(result)


def _slice(values: ShapeValues, node: ir.Node) -> Elements | None:
    data = values.elements(node.inputs[0])
    if data is None or _rank(node.inputs[0]) != 1:
        return None
    bounds: list[int] = []
    for position, default in ((1, 0), (2, len(data)), (3, 0), (4, 1)):
        given = node.inputs[position] if position < len(node.inputs) else None
        if given is None:
            bounds.append(default)
            continue
        elements = values.elements(given)
        if elements is None or len(elements) != 1 or not isinstance(elements[0], int):
            return None
        bounds.append(elements[0])
    start, end, axis, step = bounds
    if axis not in (0, -1) or step == 0:
        return None
    if step < 0 and end < -len(data):
        return data[start::step]  # Python reads such an end from behind
    return data[start:end:step]


def _concat(values: ShapeValues, node: ir.Node) -> Elements | None:
    result: list[Element] = []
    for value in node.inputs:
        elements = values.elements(value)
        if elements is None or _rank(value) == 0:
            return None
        result.extend(elements)
    return tuple(result)


def _same(values: ShapeValues, node: ir.Node) -> Elements | None:
    return values.elements(node.inputs[0])


def _cast(values: ShapeValues, node: ir.Node) -> Elements | None:
    if ir.DataType(int_attribute(node, "to", 0)) not in (ir.DataType.INT64, ir.DataType.INT32):
        return None
    elements = values.elements(node.inputs[0])
    if elements is not None and any(isinstance(item, int) and abs(item) >= 2**31 for item in elements):
        return None
    return elements


def _reshape(values: ShapeValues, node: ir.Node) -> Elements | None:
    # Whatever the target, the elements stay; a rank above one is refused by the caller, who knows the output's shape.
    return values.elements(node.inputs[0]) if _rank(node.outputs[0]) in (0, 1) else None


def _reduce_prod(values: ShapeValues, node: ir.Node) -> Elements | None:
    elements = values.elements(node.inputs[0])
    if elements is None or int_attribute(node, "noop_with_empty_axes", 0) or _rank(node.inputs[0]) != 1:
        return None
    return (product(elements),)


def _where(values: ShapeValues, node: ir.Node) -> Elements | None:
    condition = values.elements(node.inputs[0])
    left, right = values.elements(node.inputs[1]), values.elements(node.inputs[2])
    if condition is None or left is None or right is None:
        return None
    length = max(len(condition), len(left), len(right))
    parts = [part * length if len(part) == 1 else part for part in (condition, left, right)]
    if any(len(part) != length for part in parts):
        return None
    return tuple(one if chosen else other for chosen, one, other in zip(*parts, strict=True))


def _constant_of_shape(values: ShapeValues, node: ir.Node) -> Elements | None:
    shape = values.elements(node.inputs[0])
    if shape is None or len(shape) > 1 or any(not isinstance(size, int) or size > _LONGEST for size in shape):
        return None
    attribute = node.attributes.get("value")
    if attribute is None:
        return None  # zeros of type float
    item = int(attribute.as_tensor().numpy().reshape(-1)[0])
    return (item,) * math.prod(size for size in shape if isinstance(size, int))


def _expand(values: ShapeValues, node: ir.Node) -> Elements | None:
    data, shape = values.elements(node.inputs[0]), values.elements(node.inputs[1])
    if data is None or shape is None or len(shape) > 1:
        return None
    size = shape[0] if shape else 1
    if not isinstance(size, int) or (len(data) != 1 and size not in (1, len(data))) or size > _LONGEST:
        return None
    return data * size if len(data) == 1 else data


def _negative(values: ShapeValues, node: ir.Node) -> Elements | None:
    elements = values.elements(node.inputs[0])
    return None if elements is None else tuple(times(item, -1) for item in elements)


def _rank(value: ir.Value | None) -> int | None:
    if value is None:
        return None
    if value.shape is not None:
        return len(value.shape)
    return None if value.const_value is None else len(value.const_value.shape)


Trace: TypeAlias = Callable[[ShapeValues, ir.Node], Elements | None]


def _binary(operation: Callable[[Element, Element], Element | None]) -> Trace:
    return lambda values, node: _elementwise(values, node, operation) if len(node.inputs) == 2 else None


_TRACED: dict[str, Trace] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Identity": _same,
    "Unsqueeze": _reshape,
    "Squeeze": _reshape,
    "Reshape": _reshape,
    "Cast": _cast,
    "Add": _binary(_add),
    "Sub": _binary(_subtract),
    "Mul": _binary(times),
    "Div": _binary(divided),
    "Mod": _binary(_modulo),
    "Equal": _binary(_equal),
    "Less": _binary(_less),
    "Max": _binary(_maximum),
    "Min": _binary(_minimum),
    "Neg": _negative,
    "ReduceProd": _reduce_prod,
    "Where": _where,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
}
