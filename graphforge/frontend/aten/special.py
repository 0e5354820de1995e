"""Functions of mathematical physics that eager PyTorch has: digamma, trigamma, the modified Bessel functions, erfcx.

All are computed in double precision, by series in which nothing is lost to cancellation.
"""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_DOUBLE = ir.DataType.DOUBLE
# Bernoulli's numbers B2, B4, ...
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
# By so much an argument is raised before its asymptotic series is taken: the first term left out is below 1e-17 there.
_RAISED = 12
# From here on the asymptotic series of the Bessel functions is exact to 1e-16; below, their power series is.
_FAR = 20.0
_POWERS = 50


def _number(op: Emitter, value: float) -> ir.Value:
    return op.constant(float(value), _DOUBLE)


def _polynomial(op: Emitter, x: ir.Value, factors: Sequence[float]) -> ir.Value:
    """By Horner's rule; the constant term comes first."""
    total = _number(op, factors[-1])
    for factor in reversed(factors[:-1]):
        total = op.Add(op.Mul(total, x), _number(op, factor))
    return total


def _reflected(op: Emitter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Whether the functions of a number are told by those of one minus it; and the larger of the two."""
    low = op.Less(x, _number(op, 0.5))
    return low, op.Where(low, op.Sub(_number(op, 1.0), x), x)


def _sine_and_cosine_of_pi(op: Emitter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Of pi times what x is off the nearest whole number; exactly 0 and 1 where x is one."""
    off = op.Sub(x, op.Round(x))
    quarter = op.Sub(_number(op, 0.5), op.Abs(off))
    return op.Sin(op.Mul(off, _number(op, math.pi))), op.Sin(op.Mul(quarter, _number(op, math.pi)))


@lowers("aten.digamma.default", "aten.special_psi.default", "aten.special_digamma.default", "prims.digamma.default")
def digamma(op: Emitter, x: ir.Value) -> ir.Value:
    """The derivative of lgamma; an infinity at zero, of the sign that is not the zero's, NaN at other poles."""
    dtype = op.dtype_of()
    return op.cast(_digamma(op, op.cast(x, _DOUBLE)), dtype)


def _digamma(op: Emitter, x: ir.Value) -> ir.Value:
    low, y = _reflected(op, x)
    raised = op.Add(y, _number(op, _RAISED))
    inverse = op.Reciprocal(raised)
    series = _polynomial(op, op.Mul(inverse, inverse), [0.0, *(b / (2 * k) for k, b in enumerate(_BERNOULLI, start=1))])
    upper = op.Sub(op.Sub(op.Log(raised), op.Mul(inverse, _number(op, 0.5))), series)
    for step in range(_RAISED):
        upper = op.Sub(upper, op.Reciprocal(op.Add(y, _number(op, step))))
    sine, cosine = _sine_and_cosine_of_pi(op, x)
    lower = op.Sub(upper, op.Div(op.Mul(cosine, _number(op, math.pi)), sine))
    at_pole = op.And(op.Equal(sine, _number(op, 0.0)), low)
    of_zero = op.Neg(op.Reciprocal(x))
    nothing = op.Where(op.Equal(x, _number(op, 0.0)), of_zero, _number(op, math.nan))
    result = op.Where(low, op.Where(at_pole, nothing, lower), upper)
    return op.Where(op.And(op.IsInf(x), op.Not(low)), x, result)


@lowers("aten.polygamma.default", "aten.special_polygamma.default")
def polygamma(op: Emitter, n: int, x: ir.Value) -> ir.Value:
    """digamma and its derivative."""
    if n not in (0, 1):
        raise op.fail(f"polygamma of order {n} is not written in ONNX; orders 0 and 1 are")
    dtype = op.dtype_of()
    wide = op.cast(x, _DOUBLE)
    return op.cast(_trigamma(op, wide) if n else _digamma(op, wide), dtype)


def _trigamma(op: Emitter, x: ir.Value) -> ir.Value:
    low, y = _reflected(op, x)
    raised = op.Add(y, _number(op, _RAISED))
    inverse = op.Reciprocal(raised)
    series = _polynomial(op, op.Mul(inverse, inverse), [1.0, *_BERNOULLI])
    total = op.Mul(inverse, op.Add(series, op.Mul(inverse, _number(op, 0.5))))
    for step in reversed(range(_RAISED)):
        term = op.Reciprocal(op.Add(y, _number(op, step)))
        total = op.Add(total, op.Mul(term, term))
    sine, _ = _sine_and_cosine_of_pi(op, x)
    ratio = op.Div(_number(op, math.pi), sine)
    return op.Where(low, op.Sub(op.Mul(ratio, ratio), total), total)


def _near(order: int) -> list[float]:
    """Of the power series in x^2 / 4, as a share of the largest.

    The factors grow with it: ONNX Runtime leaves out what adds a float64 that is zero in float32.
    """
    most = _FAR**2 / 4
    return [most**k / (math.factorial(k) * math.factorial(k + order)) for k in range(_POWERS)]


def _distant(order: int) -> list[float]:
    """Of the asymptotic series in 1 / x."""
    factors = [1.0]
    for k in range(1, 30):
        factors.append(-factors[-1] * (4 * order**2 - (2 * k - 1) ** 2) / (8 * k))
    return factors


def _bessel(op: Emitter, x: ir.Value, order: int, *, scaled: bool) -> ir.Value:
    """I0 or I1, or that times exp(-|x|)."""
    dtype = op.dtype_of()
    wide = op.cast(x, _DOUBLE)
    size = op.Abs(wide)
    close, far = op.Min(size, _number(op, _FAR)), op.Max(size, _number(op, _FAR))
    share = op.Mul(close, _number(op, 1 / _FAR))
    near = _polynomial(op, op.Mul(share, share), _near(order))
    near = op.Mul(near, op.Mul(close, _number(op, 0.5))) if order else near
    distant = _polynomial(op, op.Reciprocal(far), _distant(order))
    distant = op.Div(distant, op.Sqrt(op.Mul(far, _number(op, 2 * math.pi))))
    if scaled:
        near = op.Mul(near, op.Exp(op.Neg(close)))
    else:
        distant = op.Mul(distant, op.Exp(far))
    result = op.Where(op.Less(size, _number(op, _FAR)), near, distant)
    result = op.Where(op.IsNaN(wide), wide, result)
    return op.cast(op.Mul(result, op.Sign(wide)) if order else result, dtype)


@lowers("aten.i0.default", "aten.special_i0.default", "prims.bessel_i0.default")
def bessel_i0(op: Emitter, x: ir.Value) -> ir.Value:
    """The modified Bessel function of order 0."""
    return _bessel(op, x, 0, scaled=False)


@lowers("aten.special_i0e.default", "prims.bessel_i0e.default")
def bessel_i0e(op: Emitter, x: ir.Value) -> ir.Value:
    """The same times exp(-|x|)."""
    return _bessel(op, x, 0, scaled=True)


@lowers("aten.special_i1.default", "prims.bessel_i1.default")
def bessel_i1(op: Emitter, x: ir.Value) -> ir.Value:
    """The modified Bessel function of order 1."""
    return _bessel(op, x, 1, scaled=False)


@lowers("aten.special_i1e.default", "prims.bessel_i1e.default")
def bessel_i1e(op: Emitter, x: ir.Value) -> ir.Value:
    """The same times exp(-|x|)."""
    return _bessel(op, x, 1, scaled=True)


def _weideman(count: int) -> tuple[float, list[float]]:
    """A length, and the factors of Weideman's series of the scaled complementary error function.

    J. A. C. Weideman, Computation of the Complex Error Function, SIAM J. Numer. Anal. 31 (1994).
    """
    length = math.sqrt(count / math.sqrt(2))
    steps = np.arange(1 - 2 * count, 2 * count)
    places = length * np.tan(steps * np.pi / (4 * count))
    samples = np.concatenate([[0.0], np.exp(-(places**2)) * (length**2 + places**2)])
    factors = np.real(np.fft.fft(np.fft.fftshift(samples))) / (4 * count)
    return length, [float(one) for one in factors[1 : count + 1]]


@lowers("aten.special_erfcx.default", "prims.erfcx.default")
def erfcx(op: Emitter, x: ir.Value) -> ir.Value:
    """exp(x^2) erfc(x), whose product has no digits left from 4 on; exact to 1e-13."""
    dtype = op.dtype_of()
    wide = op.cast(x, _DOUBLE)
    length, factors = _weideman(32)
    size = op.Abs(wide)
    below = op.Reciprocal(op.Add(size, _number(op, length)))
    series = _polynomial(op, op.Mul(op.Sub(_number(op, length), size), below), factors)
    series = op.Add(op.Mul(op.Mul(series, below), _number(op, 2.0)), _number(op, 1 / math.sqrt(math.pi)))
    above = op.Mul(series, below)
    mirrored = op.Sub(op.Mul(op.Exp(op.Mul(wide, wide)), _number(op, 2.0)), above)
    low = op.Less(wide, _number(op, 0.0))
    infinite = op.Where(low, size, op.Reciprocal(size))
    return op.cast(op.Where(op.IsInf(wide), infinite, op.Where(low, mirrored, above)), dtype)
