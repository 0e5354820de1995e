"""torch's primitive operators, which some decompositions end in: the same meanings under other names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import onnx_ir as ir

from graphforge.frontend.aten.create import filled
from graphforge.frontend.aten.view import merged
from graphforge.frontend.emitter import Dim, Emitter
from graphforge.frontend.rules import lowers, means_the_same

__all__: list[str] = []

# prims take operands of one dtype and promote nothing, so the rules of their aten twins say all.
_TWINS: Final = {
    **{
        name: f"aten.{name}.default"
        for name in (
            "abs acos acosh asin asinh atan atanh atan2 bitwise_not ceil cos cosh erf erfc exp exp2 expm1 floor fmax "
            "fmin isfinite log log10 log1p log2 maximum minimum neg reciprocal round rsqrt sign sin sinh sqrt "
            "tan tanh trunc"
        ).split()
    },
    **{
        name: f"aten.{name}.Tensor"
        for name in "add bitwise_and bitwise_or bitwise_xor eq fmod ge gt le lt mul ne remainder sub".split()
    },
    "pow": "aten.pow.Tensor_Tensor",
    "where": "aten.where.self",
    "convert_element_type": "aten.to.dtype",
    "shift_left": "aten.bitwise_left_shift.Tensor",
    "shift_right_arithmetic": "aten.bitwise_right_shift.Tensor",
}

for _name, _twin in _TWINS.items():
    means_the_same(f"prims.{_name}.default", _twin)


@lowers("prims.div.default")
def div(op: Emitter, x: ir.Value, y: ir.Value) -> ir.Value:
    """x / y, which truncates on integers as ONNX's does."""
    return op.Div(x, y)


def _reduction(op_type: str, x: ir.Value, dims: Sequence[int] | None, op: Emitter) -> ir.Value:
    x = op.cast(x, op.dtype_of())
    if op.rank(x) == 0 or (dims is not None and not dims):
        return x  # here no axes are no axes
    return op.single(op_type, x, None if dims is None else list(dims), keepdims=0)


@lowers("prims.sum.default")
def sum_(op: Emitter, x: ir.Value, dims: Sequence[int] | None, **_: Any) -> ir.Value:
    """ReduceSum."""
    return _reduction("ReduceSum", x, dims, op)


@lowers("prims.prod.default")
def prod(op: Emitter, x: ir.Value, dims: Sequence[int] | None, **_: Any) -> ir.Value:
    """ReduceProd."""
    return _reduction("ReduceProd", x, dims, op)


@lowers("prims.amax.default")
def amax(op: Emitter, x: ir.Value, dims: Sequence[int] | None, **_: Any) -> ir.Value:
    """ReduceMax."""
    return _reduction("ReduceMax", x, dims, op)


@lowers("prims.amin.default")
def amin(op: Emitter, x: ir.Value, dims: Sequence[int] | None, **_: Any) -> ir.Value:
    """ReduceMin."""
    return _reduction("ReduceMin", x, dims, op)


@lowers("prims.broadcast_in_dim.default")
def broadcast_in_dim(op: Emitter, x: ir.Value, shape: Sequence[Dim], dimensions: Sequence[int]) -> ir.Value:
    """Axes put where told, new ones between them, and stretched."""
    new = [axis for axis in range(len(shape)) if axis not in dimensions]
    return op.expand(op.unsqueeze(x, new), list(shape))


@lowers("prims.transpose.default")
def transpose(op: Emitter, x: ir.Value, permutation: Sequence[int]) -> ir.Value:
    """Axes permuted."""
    return op.transpose(x, permutation)


@lowers("prims.squeeze.default")
def squeeze(op: Emitter, x: ir.Value, dimensions: Sequence[int]) -> ir.Value:
    """Axes of size 1 dropped."""
    return op.squeeze(x, list(dimensions))


@lowers("prims.reshape.default")
def reshape(op: Emitter, x: ir.Value, shape: Sequence[Dim]) -> ir.Value:
    """Another shape."""
    return op.reshape(x, list(shape), op.result_dims())


@lowers("prims.collapse_view.default")
def collapse_view(op: Emitter, x: ir.Value, start: int, end: int) -> ir.Value:
    """Axes start to end, both included, made one."""
    dims = op.dims(x)
    return op.reshape(x, [*dims[:start], -1, *dims[end + 1 :]], op.result_dims())


@lowers("prims.full.default")
def full(op: Emitter, shape: Sequence[Dim], fill_value: Any, **_: Any) -> ir.Value:
    """One number everywhere."""
    return filled(op, shape, fill_value)


@lowers("prims.iota.default")
def iota(op: Emitter, length: Dim, *, start: Dim, step: int, **_: Any) -> ir.Value:
    """``length`` integers from start in steps."""
    index = op.Range(0, op.scalar(length, ir.DataType.INT64), 1)
    if step != 1:
        index = op.Mul(index, step)
    if start != 0:
        index = op.Add(index, op.scalar(start, ir.DataType.INT64))
    return op.cast(index, op.dtype_of())


@lowers("prims.collapse.default")
def collapse(op: Emitter, x: ir.Value, start: int, end: int) -> ir.Value:
    """Axes from start to end, both of them included, merged into one."""
    dims = op.dims(x)
    return op.reshape(x, [*dims[:start], merged(dims[start : end + 1]), *dims[end + 1 :]], op.result_dims())


@lowers("prims.split_dim.default")
def split_dim(op: Emitter, x: ir.Value, dim: int, outer_length: Dim) -> ir.Value:
    """One axis cut into two."""
    dims = op.dims(x)
    return op.reshape(x, [*dims[:dim], outer_length, -1, *dims[dim + 1 :]], op.result_dims())


@lowers("prims.view_of.default")
def view_of(op: Emitter, x: ir.Value) -> ir.Value:
    """The same elements."""
    return x
