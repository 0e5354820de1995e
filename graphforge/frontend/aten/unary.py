"""Elementwise operators of one tensor: roots, exponentials, trigonometry, rounding, signs, tests of special values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import onnx_ir as ir

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers
from graphforge.frontend.working import working_dtype
from graphforge.ir.dtypes import HALVES, is_float

__all__: list[str] = []

_BOOL = ir.DataType.BOOL
_FLOAT = ir.DataType.FLOAT

# One ONNX node on floats; integers and bools are cast to the result's dtype first.
_DIRECT: Final = {
    "acos": "Acos",
    "acosh": "Acosh",
    "asin": "Asin",
    "asinh": "Asinh",
    "atan": "Atan",
    "atanh": "Atanh",
    "cos": "Cos",
    "cosh": "Cosh",
    "erf": "Erf",
    "exp": "Exp",
    "log": "Log",
    "reciprocal": "Reciprocal",
    "sigmoid": "Sigmoid",
    "sin": "Sin",
    "sinh": "Sinh",
    "sqrt": "Sqrt",
    "tan": "Tan",
    "tanh": "Tanh",
}


def _direct(op_type: str) -> Callable[[Emitter, ir.Value], ir.Value]:
    def rule(op: Emitter, x: ir.Value) -> ir.Value:
        return op.single(op_type, op.cast(x, op.dtype_of()))

    rule.__name__ = op_type.lower()
    rule.__doc__ = f"ONNX {op_type}."
    return rule


for _name, _op_type in _DIRECT.items():
    lowers(f"aten.{_name}.default")(_direct(_op_type))


def _floating(op: Emitter, x: ir.Value) -> ir.Value:
    return op.cast(x, working_dtype(op.dtype_of()))


@lowers("aten.abs.default", "aten.absolute.default")
def absolute(op: Emitter, x: ir.Value) -> ir.Value:
    """Abs; bools and unsigned integers have nothing to lose."""
    if x.dtype == _BOOL:
        return x
    return op.Abs(x)


@lowers("aten.neg.default", "aten.negative.default")
def negative(op: Emitter, x: ir.Value) -> ir.Value:
    """Neg; unsigned integers wrap."""
    return op.Neg(x)


@lowers("aten.sign.default", "aten.sgn.default")
def sign(op: Emitter, x: ir.Value) -> ir.Value:
    """Sign.  Of NaN, torch says 0 and ONNX does not say."""
    return x if x.dtype == _BOOL else op.Sign(x)


@lowers("aten.rsqrt.default")
def rsqrt(op: Emitter, x: ir.Value) -> ir.Value:
    """1 / sqrt(x)."""
    return op.Reciprocal(op.Sqrt(_floating(op, x)))


@lowers("aten.square.default")
def square(op: Emitter, x: ir.Value) -> ir.Value:
    """x * x."""
    x = _floating(op, x)
    return op.Mul(x, x)


@lowers("aten.exp2.default", "aten.special_exp2.default")
def exp2(op: Emitter, x: ir.Value) -> ir.Value:
    """2 ** x."""
    x = _floating(op, x)
    return op.Pow(op.scalar(2.0, x.dtype), x)


@lowers("aten.expm1.default", "aten.special_expm1.default")
def expm1(op: Emitter, x: ir.Value) -> ir.Value:
    """exp(x) - 1 = tanh(x / 2) * (exp(x) + 1), which keeps its digits near 0."""
    x = _floating(op, x)
    half = op.Tanh(op.Mul(x, 0.5))
    return op.Mul(half, op.Add(op.Exp(x), 1.0))


@lowers("aten.log2.default")
def log2(op: Emitter, x: ir.Value) -> ir.Value:
    """log(x) / log(2)."""
    return op.Div(op.Log(_floating(op, x)), math.log(2))


@lowers("aten.log10.default")
def log10(op: Emitter, x: ir.Value) -> ir.Value:
    """log(x) / log(10)."""
    return op.Div(op.Log(_floating(op, x)), math.log(10))


@lowers("aten.log1p.default", "aten.special_log1p.default")
def log1p(op: Emitter, x: ir.Value) -> ir.Value:
    """log(1 + x) that keeps its digits near 0: x * log(u) / (u - 1) with u = 1 + x as rounded.

    Source: W. Kahan's trick, D. Goldberg, What Every Computer Scientist Should Know About Floating-Point Arithmetic,
    theorem 4.
    """
    x = _floating(op, x)
    u = op.Add(x, 1.0)
    log = op.Log(u)
    ratio = op.Div(x, op.Sub(u, 1.0))
    # where u rounds to 1 (0 / 0) or is infinite (inf / inf) the ratio means nothing
    small = op.Equal(u, 1.0)
    large = op.Equal(u, x)
    precise = op.Mul(log, ratio)
    return op.Where(small, x, op.Where(large, log, precise))


@lowers("aten.erfc.default", "aten.special_erfc.default")
def erfc(op: Emitter, x: ir.Value) -> ir.Value:
    """1 - erf(x)."""
    return op.Sub(1.0, op.Erf(_floating(op, x)))


@lowers("aten.sinc.default", "aten.special_sinc.default")
def sinc(op: Emitter, x: ir.Value) -> ir.Value:
    """sin(pi x) / (pi x), and 1 at 0."""
    x = _floating(op, x)
    angle = op.Mul(x, math.pi)
    ratio = op.Div(op.Sin(angle), angle)
    return op.Where(op.Equal(x, 0.0), 1.0, ratio)


@lowers("aten.logit.default", "aten.special_logit.default")
def logit(op: Emitter, x: ir.Value, eps: float | None = None) -> ir.Value:
    """log(x / (1 - x)) of x kept ``eps`` away from 0 and 1."""
    x = _floating(op, x)
    if eps is not None and eps >= 0:
        x = op.Min(op.Max(x, eps), 1 - eps)
    return op.Log(op.Div(x, op.Sub(1.0, x)))


@lowers("aten.deg2rad.default")
def deg2rad(op: Emitter, x: ir.Value) -> ir.Value:
    """x * pi / 180."""
    return op.Mul(_floating(op, x), math.pi / 180)


@lowers("aten.rad2deg.default")
def rad2deg(op: Emitter, x: ir.Value) -> ir.Value:
    """x * 180 / pi."""
    return op.Mul(_floating(op, x), 180 / math.pi)


# -- rounding ----------------------------------------------------------------------------------------------------------


def _rounding(op_type: str) -> Callable[[Emitter, ir.Value], ir.Value]:
    def rule(op: Emitter, x: ir.Value) -> ir.Value:
        return op.single(op_type, x) if is_float(x.dtype) else x

    rule.__name__ = op_type.lower()
    rule.__doc__ = f"ONNX {op_type}; integers are round already."
    return rule


for _name in ("floor", "ceil", "round"):
    lowers(f"aten.{_name}.default")(_rounding(_name.capitalize()))


@lowers("aten.round.decimals")
def round_decimals(op: Emitter, x: ir.Value, *, decimals: int) -> ir.Value:
    """Round half to even at a decimal place."""
    if not is_float(x.dtype):
        return x
    if decimals == 0:
        return op.Round(x)
    scale = 10.0 ** abs(decimals)
    inward, outward = ("Mul", "Div") if decimals > 0 else ("Div", "Mul")
    dtype = _FLOAT if x.dtype in HALVES and scale > 1000 else x.dtype
    assert dtype is not None
    return op.single(outward, op.Round(op.single(inward, op.cast(x, dtype), scale)), scale)


@lowers("aten.trunc.default", "aten.fix.default")
def trunc(op: Emitter, x: ir.Value) -> ir.Value:
    """Round towards zero: sign(x) * floor(|x|)."""
    if not is_float(x.dtype):
        return x
    x = _floating(op, x)
    return op.Mul(op.Sign(x), op.Floor(op.Abs(x)))


@lowers("aten.frac.default")
def frac(op: Emitter, x: ir.Value) -> ir.Value:
    """x - trunc(x)."""
    return op.Mod(x, 1.0, fmod=1)


# -- special values ----------------------------------------------------------------------------------------------------


def never(op: Emitter, x: ir.Value) -> ir.Value:
    """False in the shape of ``x``, which contains no NaN."""
    return op.Xor(x, x) if x.dtype == _BOOL else op.Less(x, x)


@lowers("aten.isnan.default")
def isnan(op: Emitter, x: ir.Value) -> ir.Value:
    """IsNaN; no integer is."""
    return op.IsNaN(x) if is_float(x.dtype) else never(op, x)


@lowers("aten.isinf.default")
def isinf(op: Emitter, x: ir.Value) -> ir.Value:
    """IsInf; no integer is."""
    return op.IsInf(x) if is_float(x.dtype) else never(op, x)


@lowers("aten.isposinf.default")
def isposinf(op: Emitter, x: ir.Value) -> ir.Value:
    """Positive infinity only."""
    return op.IsInf(x, detect_negative=0) if is_float(x.dtype) else never(op, x)


@lowers("aten.isneginf.default")
def isneginf(op: Emitter, x: ir.Value) -> ir.Value:
    """Negative infinity only."""
    return op.IsInf(x, detect_positive=0) if is_float(x.dtype) else never(op, x)


@lowers("aten.isfinite.default")
def isfinite(op: Emitter, x: ir.Value) -> ir.Value:
    """|x| < inf, which NaN is not."""
    if is_float(x.dtype):
        return op.Less(op.Abs(x), math.inf)
    return op.Not(never(op, x))


@lowers("aten.nan_to_num.default")
def nan_to_num(
    op: Emitter, x: ir.Value, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> ir.Value:
    """NaN and infinities replaced, by 0 and the dtype's extremes unless told."""
    if not is_float(x.dtype):
        return x
    replaced = op.Where(op.IsNaN(x), 0.0 if nan is None else nan, x)
    if posinf is None and neginf is None:
        largest = _largest(x.dtype)
        return op.Clip(replaced, -largest, largest)
    upper = _largest(x.dtype) if posinf is None else posinf
    lower = -_largest(x.dtype) if neginf is None else neginf
    replaced = op.Where(op.IsInf(x, detect_negative=0), upper, replaced)
    return op.Where(op.IsInf(x, detect_positive=0), lower, replaced)


def _largest(dtype: ir.DataType | None) -> float:
    assert dtype is not None
    return {
        ir.DataType.FLOAT16: 65504.0,
        ir.DataType.BFLOAT16: 3.3895313892515355e38,
        ir.DataType.FLOAT: 3.4028234663852886e38,
        ir.DataType.DOUBLE: 1.7976931348623157e308,
    }[dtype]


@lowers("aten.signbit.default")
def signbit(op: Emitter, x: ir.Value) -> ir.Value:
    """Whether the sign bit is set; 1/x tells -0 from 0."""
    if x.dtype == _BOOL:
        return never(op, x)
    below = op.Less(x, 0)
    if not is_float(x.dtype):
        return below
    return op.Or(below, op.Less(op.Reciprocal(x), 0.0))


@lowers("aten.angle.default")
def angle(op: Emitter, x: ir.Value) -> ir.Value:
    """pi where a real number is negative, 0 elsewhere, NaN where it is NaN."""
    x = _floating(op, x)
    below = op.Where(op.Less(x, 0.0), math.pi, op.scalar(0.0, x.dtype))
    return op.Where(op.IsNaN(x), x, below)


# -- bits and logic ----------------------------------------------------------------------------------------------------


@lowers("aten.bitwise_not.default")
def bitwise_not(op: Emitter, x: ir.Value) -> ir.Value:
    """Not of bools, BitwiseNot of integers."""
    result: ir.Value = op.Not(x) if x.dtype == _BOOL else op.BitwiseNot(x)
    return result


@lowers("aten.logical_not.default")
def logical_not(op: Emitter, x: ir.Value) -> ir.Value:
    """Whether x is zero."""
    if x.dtype == _BOOL:
        return op.Not(x)
    return op.Equal(x, 0)
