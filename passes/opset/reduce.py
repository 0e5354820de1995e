"""Reductions whose axes are an attribute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import onnx_ir as ir

from graphforge.passes.opset.step import Step, Values

__all__ = ["reduce_axes_to_attribute"]

# What reducing over no axis at all still does to each element.
_Alone: TypeAlias = Callable[[Any, ir.Value], ir.Value]
_OVER_NOTHING: Mapping[str, _Alone] = {
    "ReduceL1": lambda op, x: op.Abs(x),
    "ReduceL2": lambda op, x: op.Abs(x),
    "ReduceLogSum": lambda op, x: op.Log(x),
    "ReduceSumSquare": lambda op, x: op.Mul(x, x),
}


def reduce_axes_to_attribute(step: Step) -> Values | None:
    """Constant axes become an attribute; no axes with noop_with_empty_axes means element by element."""
    axes = step.constant_ints(1)
    none_given = step.input(1) is None or axes == []
    if none_given and step.int_of("noop_with_empty_axes", 0):
        alone = _OVER_NOTHING.get(step.node.op_type, _unchanged)
        return [alone(step.op, step.need(0))]
    if axes is None and step.input(1) is not None and step.int_of("noop_with_empty_axes", 0) == 0:
        every = _all_axes(step)
        if every:
            step.set("noop_with_empty_axes", None)
            step.trim(1)
            return None
    step.input_to_attribute(1, "axes")
    step.set("noop_with_empty_axes", None)
    return None


def _unchanged(op: Any, x: ir.Value) -> ir.Value:
    same = op.Identity(x)
    assert isinstance(same, ir.Value)
    return same


def _all_axes(step: Step) -> bool:
    """Whether the axes, though computed, are an empty list in any case."""
    value = step.input(1)
    return value is not None and value.shape is not None and list(value.shape) == [0]
