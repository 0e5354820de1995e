"""Reductions: sums, means, extremes and where they are, variances, norms, truth of all and any, running sums."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from graphforge.frontend.aten._steps import over_steps
from graphforge.frontend.aten.compare import truth
from graphforge.frontend.emitter import Dim, Emitter, SymbolicScalar
from graphforge.frontend.rules import lowers
from graphforge.ir.dtypes import HALVES, is_float

__all__: list[str] = []

_BOOL = ir.DataType.BOOL
_FLOAT = ir.DataType.FLOAT
_DOUBLE = ir.DataType.DOUBLE
_INT64 = ir.DataType.INT64
# Sums of so many numbers are taken in several.
_LONG = 1 << 16

# Sizes that depend on data (torch calls them u0, u1, ...) may be 0.
_FROM_DATA = re.compile(r"\bu\d+\b")

Axes = int | Sequence[int] | None


def _axes(op: Emitter, x: ir.Value, dim: Axes) -> list[int] | None:
    """Axes from 0, None for all of them (also said by an empty list, and all a scalar has)."""
    rank = op.rank(x)
    if dim is None or rank == 0:
        return None
    axes = [dim] if isinstance(dim, int) else list(dim)
    if not axes:
        return None
    return sorted(axis % rank for axis in axes)


def _reduce(op: Emitter, op_type: str, x: ir.Value, axes: list[int] | None, keepdim: bool) -> ir.Value:
    if op.rank(x) == 0 and op_type in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"):
        return x
    if op_type in ("ReduceSum", "ReduceMean") and x.dtype == _FLOAT:
        x = _begun(op, op_type, x, list(range(op.rank(x))) if axes is None else axes)
    return op.single(op_type, x, axes, keepdims=int(keepdim))


def _begun(op: Emitter, op_type: str, x: ir.Value, axes: list[int]) -> ir.Value:
    """A very long sum taken in several: what is left has size 1 along the axes that are done.

    ONNX Runtime adds one after the other; the mean of millions of numbers far from zero was off in the fourth digit.
    """
    sizes = {axis: size for axis in axes if isinstance(size := op.size(x, axis), int)}
    for axis, size in sorted(sizes.items(), reverse=True):
        if math.prod(sizes.values()) < _LONG or (len(axes) == 1 and size < _LONG):
            break
        if size >= _LONG:
            x = _halved(op, op_type, x, axis, size)
        if len(axes) > 1:
            x = op.single(op_type, x, [axis], keepdims=1)
        sizes[axis] = 1
    return x


def _halved(op: Emitter, op_type: str, x: ir.Value, axis: int, size: int) -> ir.Value:
    """One long axis, the last: as many sums of so many, where its size has such parts."""
    part = next((part for part in range(math.isqrt(size), 1, -1) if size % part == 0), 1)
    if axis != op.rank(x) - 1 or size // part >= _LONG:
        return x
    parts = op.Reshape(x, op.constant([0] * axis + [part, size // part], _INT64))
    return op.Reshape(op.single(op_type, parts, [axis + 1], keepdims=1), op.constant([0] * axis + [part], _INT64))


def _count(op: Emitter, x: ir.Value, axes: list[int] | None, dtype: ir.DataType) -> float | ir.Value:
    """How many elements a reduction takes together."""
    sizes = [op.size(x, axis) for axis in (range(op.rank(x)) if axes is None else axes)]
    fixed = math.prod(size for size in sizes if isinstance(size, int))
    varying = [size for size in sizes if isinstance(size, SymbolicScalar)]
    if not varying:
        return float(fixed)
    total = varying[0].scalar(op)
    for size in varying[1:]:
        total = op.Mul(total, size.scalar(op))
    if fixed != 1:
        total = op.Mul(total, fixed)
    return op.cast(total, dtype)


def _perhaps_empty(op: Emitter, x: ir.Value, axes: list[int] | None) -> bool:
    """Whether there may be nothing to reduce: a size that is 0, is promised down to 0, or depends on data."""
    fake = op.inputs[0] if op.inputs else None
    for axis in range(op.rank(x)) if axes is None else axes:
        size = op.size(x, axis)
        if not isinstance(size, SymbolicScalar):
            if size == 0:
                return True
            continue
        known = fake.shape[axis] if isinstance(fake, torch.Tensor) and fake.ndim == op.rank(x) else None
        if isinstance(known, torch.SymInt):
            # what capture knows of a size is above 1, whatever is promised
            promised = (op.symbol_names.get(symbol) for symbol in known.node.expr.free_symbols)
            if any(symbol is not None and not symbol.is_positive for symbol in promised):
                return True
            if known.node.shape_env.bound_sympy(known.node.expr).lower <= 0:
                return True
        elif _FROM_DATA.search(size.label):
            return True
    return False


# -- sums and products -------------------------------------------------------------------------------------------------


@lowers("aten.sum.default", "aten.sum.dim_IntList")
def sum_(op: Emitter, x: ir.Value, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> ir.Value:
    """ReduceSum in the result's dtype."""
    x = op.cast(x, op.dtype_of())
    if x.dtype == _BOOL:
        return _reduce(op, "ReduceMax", x, _axes(op, x, dim), keepdim)
    return _reduce(op, "ReduceSum", x, _axes(op, x, dim), keepdim)


@lowers("aten.mean.default", "aten.mean.dim")
def mean(op: Emitter, x: ir.Value, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> ir.Value:
    """ReduceMean in the result's dtype; NaN of nothing."""
    x = op.cast(x, op.dtype_of())
    return _average(op, x, _axes(op, x, dim), keepdim)


def _average(op: Emitter, x: ir.Value, axes: list[int] | None, keepdim: bool) -> ir.Value:
    if _perhaps_empty(op, x, axes):  # of nothing, ONNX Runtime's ReduceMean says 0
        count = _count(op, x, axes, x.dtype or _FLOAT)
        return op.Div(_reduce(op, "ReduceSum", x, axes, keepdim), count)
    return _reduce(op, "ReduceMean", x, axes, keepdim)


@lowers("aten.nansum.default")
def nansum(op: Emitter, x: ir.Value, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> ir.Value:
    """The sum of what is not NaN."""
    return sum_(op, _without_nan(op, x), dim, keepdim)


@lowers("aten.nanmean.default")
def nanmean(op: Emitter, x: ir.Value, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> ir.Value:
    """The mean of what is not NaN."""
    x = op.cast(x, op.dtype_of())
    axes = _axes(op, x, dim)
    numbers = op.Cast(op.Not(op.IsNaN(x)), to=x.dtype)
    total = _reduce(op, "ReduceSum", _without_nan(op, x), axes, keepdim)
    return op.Div(total, _reduce(op, "ReduceSum", numbers, axes, keepdim))


def _without_nan(op: Emitter, x: ir.Value) -> ir.Value:
    return op.Where(op.IsNaN(x), 0.0, x) if is_float(x.dtype) else x


@lowers("aten.prod.default")
def prod(op: Emitter, x: ir.Value, *, dtype: Any = None) -> ir.Value:
    """ReduceProd over everything, in the result's dtype."""
    return prod_dim(op, x)


@lowers("aten.prod.dim_int")
def prod_dim(op: Emitter, x: ir.Value, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> ir.Value:
    """ReduceProd over an axis, in the result's dtype."""
    x = op.cast(x, op.dtype_of())
    if x.dtype == _BOOL:
        return _reduce(op, "ReduceMin", x, _axes(op, x, dim), keepdim)
    return _reduce(op, "ReduceProd", x, _axes(op, x, dim), keepdim)


@lowers("aten.cumsum.default")
def cumsum(op: Emitter, x: ir.Value, dim: int, *, dtype: Any = None) -> ir.Value:
    """CumSum in the result's dtype."""
    x = op.cast(x, op.dtype_of())
    if op.rank(x) == 0:
        return x
    return op.CumSum(x, op.constant(dim % op.rank(x), _INT64))


@lowers("aten.cumprod.default")
def cumprod(op: Emitter, x: ir.Value, dim: int, *, dtype: Any = None) -> ir.Value:
    """CumProd in the result's dtype."""
    x = op.cast(x, op.dtype_of())
    if op.rank(x) == 0:
        return x
    return op.CumProd(x, op.constant(dim % op.rank(x), _INT64))


@lowers("aten.cummax.default", "aten.cummin.default")
def cummax(op: Emitter, x: ir.Value, dim: int) -> tuple[ir.Value, ir.Value]:
    """The extreme so far and where it stands: the last of equal ones, and NaN from the first one on."""
    if op.rank(x) == 0:
        return x, op.constant(0)
    axis, own = dim % op.rank(x), x.dtype
    if own is None or not is_float(own):
        x = op.cast(x, _INT64)  # exact, and narrow integers have few kernels
    low = "cummin" in op.target
    x, steps = _in_steps(op, x, axis)
    dims = op.dims(x)[1:]
    if own is not None and is_float(own):
        worst: float = math.inf if low else -math.inf
    else:
        worst = 2**63 - 1 if low else -(2**63)
    start = [op.expand(op.constant(worst, x.dtype), dims), op.expand(op.constant(0, _INT64), dims)]
    places = op.Range(op.constant(0), op.scalar(op.size(x, 0), _INT64), op.constant(1))

    def step(inner: Emitter, states: list[ir.Value], here: list[ir.Value]) -> tuple[list[ir.Value], list[ir.Value]]:
        (best, where), (value, place) = states, here
        better = (inner.LessOrEqual if low else inner.GreaterOrEqual)(value, best)
        if own is not None and is_float(own):
            better = inner.Or(inner.IsNaN(value), better)  # a NaN so far compares as false
        kept = inner.Where(better, value, best), inner.Where(better, place, where)
        for one, like in zip(kept, (value, where), strict=True):
            one.shape = like.shape
        return list(kept), list(kept)

    _, results = over_steps(op, start, [x, places], step)
    values, indices = (_laid_along(op, one, axis, steps) for one in results)
    return op.cast(values, own or _INT64), indices


def _in_steps(op: Emitter, x: ir.Value, axis: int) -> tuple[ir.Value, Dim | None]:
    """The axis in front, one longer where it may have no elements; and its own size where it is longer now."""
    steps, label = op.size(x, axis), str(op.result_dims(0 if isinstance(op.result, list | tuple) else None)[axis])
    rank = op.rank(x)
    x = op.transpose(x, [axis, *(other for other in range(rank) if other != axis)])
    if label != "0" and (label.isdigit() or label.isidentifier()) and not op.may_be_zero(label):
        return x, None
    return op.Pad(x, [0] * rank + [1] + [0] * (rank - 1)), steps


def _laid_along(op: Emitter, x: ir.Value, axis: int, steps: Dim | None) -> ir.Value:
    if steps is not None:
        x = op.Slice(x, [0], op.vector([steps]), [0])
    return op.transpose(x, [*range(1, axis + 1), 0, *range(axis + 1, op.rank(x))])


@lowers("aten.count_nonzero.default", "aten.count_nonzero.dim_IntList")
def count_nonzero(op: Emitter, x: ir.Value, dim: Axes = None) -> ir.Value:
    """The sum of the truths."""
    return _reduce(op, "ReduceSum", op.cast(truth(op, x), _INT64), _axes(op, x, dim), False)


# -- extremes ----------------------------------------------------------------------------------------------------------


def _extreme(op: Emitter, op_type: str, x: ir.Value, dim: Axes, keepdim: bool) -> ir.Value:
    """ReduceMax or ReduceMin.  torch hands NaN on; ONNX leaves it open, and ONNX Runtime passes over it."""
    return _reduce(op, op_type, x, _axes(op, x, dim), keepdim)


@lowers("aten.amax.default")
def amax(op: Emitter, x: ir.Value, dim: Axes = (), keepdim: bool = False) -> ir.Value:
    """ReduceMax."""
    return _extreme(op, "ReduceMax", x, dim, keepdim)


@lowers("aten.amin.default")
def amin(op: Emitter, x: ir.Value, dim: Axes = (), keepdim: bool = False) -> ir.Value:
    """ReduceMin."""
    return _extreme(op, "ReduceMin", x, dim, keepdim)


@lowers("aten.max.default")
def max_(op: Emitter, x: ir.Value) -> ir.Value:
    """The largest of all."""
    return _extreme(op, "ReduceMax", x, None, False)


@lowers("aten.min.default")
def min_(op: Emitter, x: ir.Value) -> ir.Value:
    """The smallest of all."""
    return _extreme(op, "ReduceMin", x, None, False)


@lowers("aten.aminmax.default")
def aminmax(op: Emitter, x: ir.Value, *, dim: int | None = None, keepdim: bool = False) -> tuple[ir.Value, ir.Value]:
    """Both extremes."""
    return _extreme(op, "ReduceMin", x, dim, keepdim), _extreme(op, "ReduceMax", x, dim, keepdim)


def _argument(op: Emitter, op_type: str, x: ir.Value, dim: int | None, keepdim: bool) -> ir.Value:
    rank = op.rank(x)
    if rank == 0:
        return op.constant(0, _INT64)
    if x.dtype == _BOOL:
        x = op.cast(x, ir.DataType.UINT8)
    if dim is not None:
        return op.single(op_type, x, axis=dim % rank, keepdims=int(keepdim))
    flat = x if rank == 1 else op.Reshape(x, [-1])
    found = op.single(op_type, flat, axis=0, keepdims=int(keepdim))
    return op.Reshape(found, [1] * rank) if keepdim and rank > 1 else found


@lowers("aten.argmax.default")
def argmax(op: Emitter, x: ir.Value, dim: int | None = None, keepdim: bool = False) -> ir.Value:
    """ArgMax: the first of equals."""
    return _argument(op, "ArgMax", x, dim, keepdim)


@lowers("aten.argmin.default")
def argmin(op: Emitter, x: ir.Value, dim: int | None = None, keepdim: bool = False) -> ir.Value:
    """ArgMin: the first of equals."""
    return _argument(op, "ArgMin", x, dim, keepdim)


def _extreme_and_place(which: str) -> Callable[..., Any]:
    def rule(op: Emitter, x: ir.Value, dim: int, keepdim: bool = False) -> tuple[ir.Value | None, ir.Value | None]:
        extreme = _extreme(op, f"Reduce{which}", x, dim, keepdim) if op.wants(0) else None
        place = _argument(op, f"Arg{which}", x, dim, keepdim) if op.wants(1) else None
        return extreme, place

    rule.__name__ = f"{which.lower()}_dim"
    rule.__doc__ = (
        f"The extreme along an axis and its first place: Reduce{which} and Arg{which}, each where it is used."
    )
    return rule


lowers("aten.max.dim")(_extreme_and_place("Max"))
lowers("aten.min.dim")(_extreme_and_place("Min"))


# -- truth -------------------------------------------------------------------------------------------------------------


@lowers("aten.all.default", "aten.all.dim", "aten.all.dims", "aten._is_all_true.default")
def all_(op: Emitter, x: ir.Value, dim: Axes = None, keepdim: bool = False) -> ir.Value:
    """Whether none is zero."""
    return _truth(op, "ReduceMin", x, dim, keepdim)


@lowers("aten.any.default", "aten.any.dim", "aten.any.dims")
def any_(op: Emitter, x: ir.Value, dim: Axes = None, keepdim: bool = False) -> ir.Value:
    """Whether one is not zero."""
    return _truth(op, "ReduceMax", x, dim, keepdim)


def _truth(op: Emitter, op_type: str, x: ir.Value, dim: Axes, keepdim: bool) -> ir.Value:
    flags = truth(op, x)
    if isinstance(dim, list | tuple) and not dim and op.target.endswith(".dims"):
        return flags  # the only reductions of torch for which no axes are no axes
    axes = _axes(op, x, dim)
    if _perhaps_empty(op, x, axes):
        # of no bools, ONNX Runtime refuses to say anything: count instead
        wanted = flags if op_type == "ReduceMax" else op.Not(flags)
        found = op.cast(_reduce(op, "ReduceSum", op.cast(wanted, _INT64), axes, keepdim), _BOOL)
        return found if op_type == "ReduceMax" else op.Not(found)
    return _reduce(op, op_type, flags, axes, keepdim)


# -- spread ------------------------------------------------------------------------------------------------------------


def _variance(
    op: Emitter, x: ir.Value, dim: Axes, correction: float, keepdim: bool, dtype: ir.DataType
) -> tuple[ir.Value, ir.Value]:
    """Variance and mean over axes; halves are computed in single precision.

    The mean of numbers far from zero is rounded, and its error enters squared, so the distances are centred once more:
    they are small, and their mean is exact enough.
    """
    x = op.cast(x, _FLOAT if dtype in HALVES else dtype)
    axes = _axes(op, x, dim)
    center = _average(op, x, axes, True)
    distance = op.Sub(x, center)
    distance = op.Sub(distance, _average(op, distance, axes, True))
    count = _count(op, x, axes, x.dtype or _FLOAT)
    if correction == 0 and not _perhaps_empty(op, x, axes):
        spread = op.ReduceMean(op.Mul(distance, distance), axes, keepdims=int(keepdim))
    else:
        # not ReduceSumSquare, which adds up one after the other in ONNX Runtime: ten times the error of ReduceSum
        total = op.ReduceSum(op.Mul(distance, distance), axes, keepdims=int(keepdim))
        if isinstance(count, ir.Value):
            freedom: float | ir.Value = op.Max(op.Sub(count, float(correction)), 0.0)
        else:
            freedom = max(count - correction, 0.0)
        spread = op.Div(total, freedom)
    if keepdim or op.rank(x) == 0:
        average = center
    elif axes is None:
        average = op.Reshape(center, op.constant([], _INT64))
    else:
        average = op.squeeze(center, axes)
    return spread, average


def _unbiased(unbiased: bool) -> float:
    return 1.0 if unbiased else 0.0


def _spread(op: Emitter, arguments: Sequence[Any], keywords: dict[str, Any]) -> tuple[ir.Value, ir.Value]:
    """Variance and mean for the three spellings: ``default``, ``dim`` and ``correction``."""
    x, *rest = arguments
    overload = op.target.rsplit(".", 1)[1]
    dtype = op.dtype_of()
    if overload == "default":
        unbiased = rest[0] if rest else keywords.get("unbiased", True)
        return _variance(op, x, None, _unbiased(unbiased), False, dtype)
    if overload == "dim":
        names = ("dim", "unbiased", "keepdim")
        given = {**dict(zip(names, rest, strict=False)), **keywords}
        unbiased, keepdim = given.get("unbiased", True), given.get("keepdim", False)
        return _variance(op, x, given.get("dim"), _unbiased(unbiased), keepdim, dtype)
    dim = rest[0] if rest else keywords.get("dim")
    correction = keywords.get("correction")
    return _variance(op, x, dim, 1.0 if correction is None else correction, keywords.get("keepdim", False), dtype)


@lowers("aten.var.default", "aten.var.dim", "aten.var.correction")
def var(op: Emitter, *arguments: Any, **keywords: Any) -> ir.Value:
    """Mean squared distance from the mean."""
    return _spread(op, arguments, keywords)[0]


@lowers("aten.std.default", "aten.std.dim", "aten.std.correction")
def std(op: Emitter, *arguments: Any, **keywords: Any) -> ir.Value:
    """Root of the variance."""
    return op.Sqrt(_spread(op, arguments, keywords)[0])


@lowers("aten.var_mean.default", "aten.var_mean.dim", "aten.var_mean.correction")
def var_mean(op: Emitter, *arguments: Any, **keywords: Any) -> tuple[ir.Value, ir.Value]:
    """Variance and mean."""
    return _spread(op, arguments, keywords)


@lowers("aten.std_mean.default", "aten.std_mean.dim", "aten.std_mean.correction")
def std_mean(op: Emitter, *arguments: Any, **keywords: Any) -> tuple[ir.Value, ir.Value]:
    """Standard deviation and mean."""
    spread, average = _spread(op, arguments, keywords)
    return op.Sqrt(spread), average


# -- norms and exponentials --------------------------------------------------------------------------------------------


def _norm(op: Emitter, x: ir.Value, order: float, dim: Axes, keepdim: bool) -> ir.Value:
    """The vector norm of an order; halves are computed in single precision."""
    result = op.dtype_of()
    x = op.cast(x, _FLOAT if result in HALVES else result)
    axes = _axes(op, x, dim)
    keep = int(keepdim)
    if order == 2:
        return op.ReduceL2(x, axes, keepdims=keep)
    if order == 1:
        return op.ReduceL1(x, axes, keepdims=keep)
    size = op.Abs(x)
    if math.isinf(order):
        return op.single("ReduceMax" if order > 0 else "ReduceMin", size, axes, keepdims=keep)
    if order == 0:
        present = op.cast(op.Not(op.Equal(x, 0.0)), x.dtype or result)
        return op.ReduceSum(present, axes, keepdims=keep)
    total = op.ReduceSum(op.Pow(size, op.scalar(float(order), x.dtype)), axes, keepdims=keep)
    return op.Pow(total, op.scalar(1.0 / order, x.dtype))


@lowers("aten.linalg_vector_norm.default")
def linalg_vector_norm(
    op: Emitter, x: ir.Value, ord: float = 2, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None
) -> ir.Value:
    """A vector norm over axes."""
    return _norm(op, x, ord, dim, keepdim)


@lowers("aten.norm.Scalar", "aten.norm.ScalarOpt_dtype")
def norm(op: Emitter, x: ir.Value, p: float | None = 2, *, dtype: Any = None) -> ir.Value:
    """A vector norm of everything."""
    return _norm(op, x, 2 if p is None else p, None, False)


@lowers("aten.norm.ScalarOpt_dim", "aten.norm.ScalarOpt_dim_dtype")
def norm_dim(
    op: Emitter, x: ir.Value, p: float | None, dim: Axes, keepdim: bool = False, *, dtype: Any = None
) -> ir.Value:
    """A vector norm over axes."""
    return _norm(op, x, 2 if p is None else p, dim, keepdim)


@lowers("aten.dist.default")
def dist(op: Emitter, x: ir.Value, y: ir.Value, p: float = 2) -> ir.Value:
    """The norm of the difference."""
    dtype = op.dtype_of()
    return _norm(op, op.Sub(op.cast(x, dtype), op.cast(y, dtype)), p, None, False)


@lowers("aten.logsumexp.default", "aten.special_logsumexp.default")
def logsumexp(op: Emitter, x: ir.Value, dim: Axes, keepdim: bool = False) -> ir.Value:
    """The largest, and what the others add to it.

    Not ReduceLogSumExp: behind a first element of -inf, ONNX Runtime takes exponentials of the numbers as they are, and
    of -200 nothing is left.
    """
    result = op.dtype_of()
    x = op.cast(x, _FLOAT if result in HALVES else result)
    if op.rank(x) == 0:
        return op.cast(x, result)
    axes = _axes(op, x, dim)
    assert x.dtype is not None
    most = float(np.finfo(x.dtype.numpy()).max)
    peak = op.Clip(op.single("ReduceMax", x, axes, keepdims=1), op.scalar(-most, x.dtype), op.scalar(most, x.dtype))
    total = op.Log(op.ReduceSum(op.Exp(op.Sub(x, peak)), axes, keepdims=1))
    whole = op.Add(total, peak)
    if keepdim:
        return op.cast(whole, result)
    if axes is None:
        return op.cast(op.Reshape(whole, op.constant([], _INT64)), result)
    return op.cast(op.squeeze(whole, axes), result)


@lowers("aten.logcumsumexp.default")
def logcumsumexp(op: Emitter, x: ir.Value, dim: int) -> ir.Value:
    """The same of everything so far."""
    result = op.dtype_of()
    x = op.cast(x, _FLOAT if result in HALVES else result)
    if op.rank(x) == 0:
        return op.cast(x, result)
    axis = dim % op.rank(x)
    x, steps = _in_steps(op, x, axis)
    start = op.expand(op.constant(-math.inf, x.dtype), op.dims(x)[1:])

    def step(inner: Emitter, states: list[ir.Value], here: list[ir.Value]) -> tuple[list[ir.Value], list[ir.Value]]:
        (so_far,), (value,) = states, here
        more = inner.Softplus(inner.Neg(inner.Abs(inner.Sub(so_far, value))))
        same = inner.And(inner.Equal(so_far, value), inner.IsInf(value))
        total = inner.Where(same, value, inner.Add(inner.Max(so_far, value), more))
        total.shape = value.shape
        return [total], [total]

    _, (sums,) = over_steps(op, [start], [x], step)
    return op.cast(_laid_along(op, sums, axis, steps), result)
