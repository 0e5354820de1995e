"""Tensors put together: cat, stack and their kin."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphforge.frontend.aten.view import grown
from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers

__all__ = ["joined"]


def joined(op: Emitter, tensors: Sequence[ir.Value], axis: int) -> ir.Value:
    """Concat on one axis, in the result's dtype; one tensor alone stays as it is."""
    dtype = op.dtype_of()
    values = [op.cast(value, dtype) for value in tensors]
    if len(values) == 1:
        return values[0]
    return op.Concat(*values, axis=axis % op.rank(values[0]))


@lowers("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def cat(op: Emitter, tensors: Sequence[ir.Value], dim: int = 0) -> ir.Value:
    """Concat; torch lets an empty vector stand beside tensors of any rank."""
    rank = max(op.rank(value) for value in tensors)
    full = [value for value in tensors if op.rank(value) == rank and not (rank == 1 and op.size(value, 0) == 0)]
    return joined(op, full or tensors[:1], dim)


@lowers("aten.stack.default")
def stack(op: Emitter, tensors: Sequence[ir.Value], dim: int = 0) -> ir.Value:
    """Concat on the axis after the new one, then a Reshape that cuts it; where there is none, an Unsqueeze each."""
    first = tensors[0]
    rank = op.rank(first)
    axis = dim % (rank + 1)
    dims = op.dims(first)
    open_sizes = sum(not isinstance(size, int) for size in dims[axis:])
    if axis == rank or len(tensors) < 3 or open_sizes > 1:
        return joined(op, [op.Unsqueeze(value, [axis]) for value in tensors], axis)
    target: list[Dim] = [*dims[:axis], len(tensors), *dims[axis:]]
    return op.reshape(joined(op, tensors, axis), target, op.result_dims())


@lowers("aten.hstack.default")
def hstack(op: Emitter, tensors: Sequence[ir.Value]) -> ir.Value:
    """Side by side."""
    values = [grown(op, value, 1) for value in tensors]
    return joined(op, values, 0 if op.rank(values[0]) == 1 else 1)


@lowers("aten.vstack.default", "aten.row_stack.default")
def vstack(op: Emitter, tensors: Sequence[ir.Value]) -> ir.Value:
    """One below the other."""
    return joined(op, [grown(op, value, 2) for value in tensors], 0)


@lowers("aten.dstack.default")
def dstack(op: Emitter, tensors: Sequence[ir.Value]) -> ir.Value:
    """One behind the other."""
    return joined(op, [grown(op, value, 3) for value in tensors], 2)


@lowers("aten.column_stack.default")
def column_stack(op: Emitter, tensors: Sequence[ir.Value]) -> ir.Value:
    """Vectors as columns, matrices side by side."""
    values = [value if op.rank(value) > 1 else op.unsqueeze(value, [[0, 1], [1]][op.rank(value)]) for value in tensors]
    return joined(op, values, 1)
