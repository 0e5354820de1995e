"""What convolution, pooling, unfolding and resizing share: arguments for all axes at once, results without elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphforge.frontend.emitter import Emitter

__all__ = ["empty_result", "per_axis"]


def per_axis(values: int | Sequence[int], axes: int) -> list[int]:
    """One number for each spatial axis; torch lets a single one stand for all."""
    if isinstance(values, int):
        return [values] * axes
    listed = list(values)
    return listed * axes if len(listed) == 1 else listed


def empty_result(op: Emitter, index: int | None = None) -> ir.Value | None:
    """The (index-th) result of the operator when it has no elements whatever the input: a constant; else None."""
    dims = op.result_dims(index)
    if 0 not in dims or not all(isinstance(dim, int) for dim in dims):
        return None
    fake = op.result if index is None else op.result[index]
    return op.constant(np.zeros([int(dim) for dim in dims]), op.dtype_of(fake))
