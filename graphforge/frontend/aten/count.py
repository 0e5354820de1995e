"""Counts of whole numbers: bincount."""

from __future__ import annotations

import onnx_ir as ir

from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_INT64 = ir.DataType.INT64
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


@lowers("aten.bincount.default")
def bincount(op: Emitter, x: ir.Value, weights: ir.Value | None = None, minlength: Dim = 0) -> ir.Value:
    """How often each number from 0 on occurs, or what the weights of its occurrences sum up to."""
    numbers = op.cast(x, _INT64)
    least = op.Sub(op.constant(op.vector([minlength])), op.constant([1], _INT64))  # the last number of the shortest
    last = op.ReduceMax(op.Concat(numbers, least, axis=0), None, keepdims=1)  # of no numbers, too
    dtype = _INT64 if weights is None else weights.dtype if weights.dtype in _FLOATS else ir.DataType.DOUBLE
    assert dtype is not None
    one = op.constant(1, dtype)
    each = op.expand(one, op.dims(x)) if weights is None else op.cast(weights, dtype)
    none = op.Expand(op.constant(0, dtype), op.Add(last, op.constant([1], _INT64)))
    return op.ScatterElements(none, numbers, each, axis=0, reduction="add")
