"""Operators that few models have, each in a few nodes: distances of all pairs, log-determinants, lgamma, conv_tbc."""
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
# Lanczos' approximation with g = 7: exact to 1e-15 for x >= 0.5.
_LANCZOS = (
    0.99999999999980993,
    676.5203681218851,
    -1259.1392167224028,
    771.32342877765313,
    -176.61502916214059,
    12.507343278686905,
    -0.13857109526572012,
    9.9843695780195716e-6,
    1.5056327351493116e-7,
)


@lowers("aten._pdist_forward.default", "aten.pdist.default")
def pdist(op: Emitter, x: ir.Value, p: float = 2.0) -> ir.Value:
    """The distance of every row from every later one."""
    rows = op.static_size(x, 0)
    first, second = np.triu_indices(rows, 1)
    apart = op.Abs(op.Sub(op.Gather(x, first.astype(np.int64), axis=0), op.Gather(x, second.astype(np.int64), axis=0)))
    if p == 0:
        return op.ReduceSum(op.cast(op.Greater(apart, op.constant(0, x.dtype)), x.dtype or _DOUBLE), [1], keepdims=0)
    if p == 1:
        return op.ReduceSum(apart, [1], keepdims=0)
    if p == 2:
        return op.ReduceL2(apart, [1], keepdims=0)
    if math.isinf(p):
        return op.ReduceMax(apart, [1], keepdims=0)
    total = op.ReduceSum(op.Pow(apart, op.constant(p, x.dtype)), [1], keepdims=0)
    return op.Pow(total, op.constant(1.0 / p, x.dtype))


@lowers("aten.linalg_slogdet.default", "aten.slogdet.default", "aten._linalg_slogdet.default")
def slogdet(op: Emitter, x: ir.Value) -> list[ir.Value | None]:
    """Sign and logarithm of the determinant; the factors that come with them are not handed out."""
    if any(op.wants(index) for index in range(2, len(op.result))):
        raise op.fail("the factors of the matrix are not computed", "use the sign and the logarithm alone")
    determinant = op.Det(x)
    return [op.Sign(determinant), op.Log(op.Abs(determinant)), *[None] * (len(op.result) - 2)]


@lowers("aten.logdet.default")
def logdet(op: Emitter, x: ir.Value) -> ir.Value:
    """The logarithm of the determinant."""
    return op.Log(op.Det(x))


@lowers("aten.lgamma.default", "aten.special_gammaln.default", "prims.lgamma.default")
def lgamma(op: Emitter, x: ir.Value) -> ir.Value:
    """Lanczos' approximation in double precision, reflected below 0.5; infinite where the gamma function is."""
    wide = op.cast(x, _DOUBLE)

    def number(value: float) -> ir.Value:
        return op.constant(value, _DOUBLE)

    low = op.Less(wide, number(0.5))
    z = op.Sub(op.Where(low, op.Sub(number(1.0), wide), wide), number(1.0))
    series = number(_LANCZOS[0])
    for step, factor in enumerate(_LANCZOS[1:], start=1):
        series = op.Add(series, op.Div(number(factor), op.Add(z, number(float(step)))))
    t = op.Add(z, number(7.5))
    upper = op.Add(
        op.Sub(op.Mul(op.Add(z, number(0.5)), op.Log(t)), t),
        op.Add(op.Log(series), number(0.5 * math.log(2 * math.pi))),
    )
    fraction = op.Sub(wide, op.Floor(wide))  # a sine of whole multiples of pi is zero only when it is taken of 0
    sine = op.Sin(op.Mul(fraction, number(math.pi)))
    lower = op.Sub(op.Log(op.Div(number(math.pi), op.Abs(sine))), upper)
    result = op.Where(low, lower, upper)
    result = op.Where(op.IsInf(wide), number(math.inf), result)
    return op.cast(result, op.dtype_of())


@lowers("aten.conv_tbc.default")
def conv_tbc(op: Emitter, x: ir.Value, weight: ir.Value, bias: ir.Value, pad: int = 0) -> ir.Value:
    """A convolution over time, of [time, batch, channels]."""
    made = op.Conv(
        op.transpose(x, [1, 2, 0]), op.transpose(weight, [2, 1, 0]), bias, pads=[pad, pad], kernel_shape=None
    )
    return op.transpose(made, [2, 0, 1])


@lowers("aten._trilinear.default")
def trilinear(
    op: Emitter,
    first: ir.Value,
    second: ir.Value,
    third: ir.Value,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> ir.Value:
    """The product of three tensors of the same rank once axes of size 1 are put in, summed over some axes."""
    factors = []
    for value, axes in ((first, expand1), (second, expand2), (third, expand3)):
        for axis in axes:
            value = op.unsqueeze(value, [axis])
        factors.append(value)
    product = op.Mul(op.Mul(factors[0], factors[1]), factors[2])
    return op.ReduceSum(product, sorted(sumdim), keepdims=0) if sumdim else product
