"""Inverses of the error function and of the normal distribution.

By Wichura's algorithm AS 241 (Applied Statistics 37, 1988) in double precision: three quotients of polynomials, one for
the middle and two for the tails, right to 1e-15 of the value.
"""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_DOUBLE = ir.DataType.DOUBLE
_MIDDLE = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
_TAIL = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
_FAR_TAIL = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


def _quotient(op: Emitter, x: ir.Value, above_below: tuple[Sequence[float], Sequence[float]]) -> ir.Value:
    sides = []
    for factors in above_below:
        total = op.constant(factors[-1], _DOUBLE)
        for factor in reversed(factors[:-1]):
            total = op.Add(op.Mul(total, x), op.constant(factor, _DOUBLE))
        sides.append(total)
    return op.Div(*sides)


def _quantile(op: Emitter, off: ir.Value, tail: ir.Value) -> ir.Value:
    """The quantile of the normal distribution; ``off``: the probability less a half, ``tail``: its way to 0 or 1."""

    def number(value: float) -> ir.Value:
        return op.constant(value, _DOUBLE)

    middle = op.Mul(off, _quotient(op, op.Sub(number(0.180625), op.Mul(off, off)), _MIDDLE))
    depth = op.Sqrt(op.Neg(op.Log(tail)))
    near = _quotient(op, op.Sub(depth, number(1.6)), _TAIL)
    far = _quotient(op, op.Sub(depth, number(5.0)), _FAR_TAIL)
    out = op.Where(op.LessOrEqual(depth, number(5.0)), near, far)
    out = op.Where(op.Equal(tail, number(0.0)), number(math.inf), out)  # infinite by infinite
    out = op.Mul(op.Sign(off), out)
    return op.Where(op.LessOrEqual(op.Abs(off), number(0.425)), middle, out)


@lowers("aten.erfinv.default", "aten.special_erfinv.default", "prims.erf_inv.default")
def erfinv(op: Emitter, x: ir.Value) -> ir.Value:
    """erfinv(x) is the quantile of (x + 1) / 2, over the root of two."""
    wide = op.cast(x, _DOUBLE)
    half = op.constant(0.5, _DOUBLE)
    tail = op.Mul(op.Sub(op.constant(1.0, _DOUBLE), op.Abs(wide)), half)
    quantile = _quantile(op, op.Mul(wide, half), tail)
    return op.cast(op.Mul(quantile, op.constant(math.sqrt(0.5), _DOUBLE)), op.dtype_of())


@lowers("aten.special_ndtri.default", "prims.ndtri.default")
def ndtri(op: Emitter, x: ir.Value) -> ir.Value:
    """The quantile of the normal distribution."""
    wide = op.cast(x, _DOUBLE)
    tail = op.Min(wide, op.Sub(op.constant(1.0, _DOUBLE), wide))
    return op.cast(_quantile(op, op.Sub(wide, op.constant(0.5, _DOUBLE)), tail), op.dtype_of())
