"""Comparisons, logic, and choices between values: eq, logical_and, where, clamp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import onnx_ir as ir

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers
from graphforge.frontend.working import single_step_dtype

__all__: list[str] = []

_BOOL = ir.DataType.BOOL
_INT64 = ir.DataType.INT64

_COMPARISONS: Final = {"lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "eq": "Equal"}
_SPELLINGS: Final = {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "",
    "ne": "not_equal",
}


def _compared(op: Emitter, x: Any, y: Any) -> tuple[ir.Value, ir.Value]:
    """Both operands in the dtype that torch compares in; a number too large for an integer dtype wraps there too."""
    dtype = single_step_dtype(op.compute_dtype(x, y), x, y)
    return op.operand(x, dtype), op.operand(y, dtype)


def _comparison(op_type: str) -> Callable[[Emitter, Any, Any], ir.Value]:
    def rule(op: Emitter, x: Any, y: Any) -> ir.Value:
        return op.single(op_type, *_compared(op, x, y))

    rule.__name__ = op_type.lower()
    rule.__doc__ = f"ONNX {op_type}."
    return rule


def _names(name: str) -> list[str]:
    spelled = [name] + ([_SPELLINGS[name]] if _SPELLINGS[name] else [])
    return [f"aten.{spelling}.{overload}" for spelling in spelled for overload in ("Tensor", "Scalar")]


for _name, _op_type in _COMPARISONS.items():
    lowers(*_names(_name))(_comparison(_op_type))


@lowers(*_names("ne"))
def not_equal(op: Emitter, x: Any, y: Any) -> ir.Value:
    """Not equal; NaN differs from everything."""
    a, b = _compared(op, x, y)
    if a.dtype == _BOOL:
        return op.Xor(a, b)
    return op.Not(op.Equal(a, b))


def truth(op: Emitter, value: Any) -> ir.Value:
    """Whether a value is not zero."""
    return op.operand(value, _BOOL)


def _logic(op_type: str) -> Callable[[Emitter, Any, Any], ir.Value]:
    def rule(op: Emitter, x: Any, y: Any) -> ir.Value:
        result: ir.Value = op.node(op_type, [truth(op, x), truth(op, y)])
        return result

    rule.__name__ = f"logical_{op_type.lower()}"
    rule.__doc__ = f"{op_type} of what is not zero."
    return rule


for _name in ("And", "Or", "Xor"):
    lowers(f"aten.logical_{_name.lower()}.default")(_logic(_name))


@lowers("aten.isin.Tensor_Tensor", "aten.isin.Tensor_Scalar", "aten.isin.Scalar_Tensor")
def isin(op: Emitter, elements: Any, test: Any, *, assume_unique: bool = False, invert: bool = False) -> ir.Value:
    """Whether each element is among the test elements: all pairs compared."""
    a, b = _compared(op, elements, test)
    pairs = op.Equal(op.Unsqueeze(a, [-1]), op.Reshape(b, [-1]))
    found = op.ReduceMax(pairs, [-1], keepdims=0)
    return op.Not(found) if invert else found


# -- choices -----------------------------------------------------------------------------------------------------------


@lowers("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar")
def where(op: Emitter, condition: ir.Value, x: Any, y: Any) -> ir.Value:
    """x where the condition holds, else y."""
    dtype = op.dtype_of()
    return choose(op, truth(op, condition), op.operand(x, dtype), op.operand(y, dtype))


def choose(op: Emitter, condition: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Where, by logic alone for bools of which one is a constant."""
    if x.dtype != _BOOL:
        return op.Where(condition, x, y)
    first, second = op.number(x), op.number(y)
    if second is False:
        return op.And(condition, x)
    if first is True:
        return op.Or(condition, y)
    if first is False:
        return op.And(op.Not(condition), y)
    if second is True:
        return op.Or(op.Not(condition), x)
    return op.Where(condition, x, y)


@lowers("aten.clamp.default", "aten.clip.default")
def clamp(op: Emitter, x: ir.Value, min: Any = None, max: Any = None) -> ir.Value:
    """Clip; where the bounds cross, the upper one wins."""
    dtype = op.dtype_of()
    x = op.cast(x, dtype)
    if dtype == _BOOL:
        return op.cast(clamp_to(op, op.cast(x, _INT64), min, max), _BOOL)
    return clamp_to(op, x, min, max)


def clamp_to(op: Emitter, x: ir.Value, low: Any, high: Any) -> ir.Value:
    """Clip to bounds that are numbers or None; an infinite float stays that on the side that has no bound.

    ONNX Runtime's Clip takes the largest number of the type for a bound that is not given.
    """
    if any(isinstance(bound, float) and bound != bound for bound in (low, high)):
        # a NaN bound makes everything NaN in torch, and nothing in ONNX Runtime's Clip
        return op.Max(x, float("nan"))
    dtype = x.dtype
    assert dtype is not None
    lowest, highest = (None if bound is None else op.operand(bound, dtype) for bound in (low, high))
    if not dtype.is_floating_point() or lowest is highest is None:
        return op.Clip(x, lowest, highest)
    if highest is None and op.number(lowest) == 0:
        return op.Relu(x)
    producer = x.producer()
    # ONNX Runtime merges a Relu and a Clip, and refuses a file in which they are doubles
    merged = dtype == ir.DataType.DOUBLE and producer is not None and producer.op_type == "Relu"
    if lowest is not None and highest is not None and not merged:
        return op.Clip(x, lowest, highest)
    x = x if lowest is None else op.Max(x, lowest)
    return x if highest is None else op.Min(x, highest)


@lowers("aten.clamp_min.default")
def clamp_min(op: Emitter, x: ir.Value, min: Any) -> ir.Value:
    """At least ``min``."""
    return clamp(op, x, min=min)


@lowers("aten.clamp_max.default")
def clamp_max(op: Emitter, x: ir.Value, max: Any) -> ir.Value:
    """At most ``max``."""
    return clamp(op, x, max=max)


@lowers("aten.clamp.Tensor", "aten.clip.Tensor")
def clamp_tensor(op: Emitter, x: ir.Value, min: ir.Value | None = None, max: ir.Value | None = None) -> ir.Value:
    """Bounds that are tensors: Max, then Min."""
    dtype = op.dtype_of()
    x = op.cast(x, dtype)
    if min is not None:
        x = _extreme(op, "Max", x, op.cast(min, dtype))
    if max is not None:
        x = _extreme(op, "Min", x, op.cast(max, dtype))
    return x


def _extreme(op: Emitter, op_type: str, x: ir.Value, bound: ir.Value) -> ir.Value:
    if x.dtype == _BOOL:
        return op.Or(x, bound) if op_type == "Max" else op.And(x, bound)
    return op.single(op_type, x, bound)


@lowers("aten.clamp_min.Tensor")
def clamp_min_tensor(op: Emitter, x: ir.Value, min: ir.Value) -> ir.Value:
    """At least the other tensor."""
    return clamp_tensor(op, x, min=min)


@lowers("aten.clamp_max.Tensor")
def clamp_max_tensor(op: Emitter, x: ir.Value, max: ir.Value) -> ir.Value:
    """At most the other tensor."""
    return clamp_tensor(op, x, max=max)
