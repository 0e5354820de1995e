"""Elementwise rules over pairs: making, taking apart, converting, arithmetic, functions, comparison."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from graphforge.frontend.complex.algebra import Algebra
from graphforge.frontend.complex.pair import (
    Pair,
    Stored,
    as_pair,
    component_dtype,
    is_complex,
    stacked,
    unstacked,
)
from graphforge.frontend.complex.parts import real_rule
from graphforge.frontend.complex.registry import lowers_pairs
from graphforge.frontend.emitter import Emitter, SymbolicScalar

__all__: list[str] = []


def _algebra(op: Emitter, *operands: Any) -> Algebra:
    return Algebra(op, component_dtype(op, *operands))


def _one(op: Emitter, value: Any) -> tuple[Algebra, Pair]:
    algebra = _algebra(op, value)
    return algebra, as_pair(op, value, algebra.dtype)


def _is_real(value: Any) -> bool:
    return not isinstance(value, Pair | complex)


# -- making and taking apart -------------------------------------------------------------------------------------------


@lowers_pairs("aten.complex.default")
def make(op: Emitter, real: ir.Value, imag: ir.Value) -> Pair:
    """From its parts, which broadcast."""
    dims = real_rule(op, "aten.add.Tensor", real, imag)
    shape = op.Shape(dims)
    return Pair(op.Expand(real, shape), op.Expand(imag, shape)) if op.rank(dims) else Pair(real, imag)


@lowers_pairs("aten.polar.default")
def polar(op: Emitter, size: ir.Value, angle: ir.Value) -> Pair:
    """From magnitude and angle."""
    return _algebra(op).polar(size, angle)


@lowers_pairs("aten.view_as_complex.default", "aten._view_as_complex.default", "aten.view_as_complex_copy.default")
def view_as_complex(op: Emitter, x: ir.Value) -> Pair:
    """The two elements of the last axis."""
    return unstacked(op, x)


@lowers_pairs("aten.view_as_real.default", "aten.view_as_real_copy.default")
def view_as_real(op: Emitter, z: Pair) -> ir.Value:
    """The parts along a new last axis."""
    return stacked(op, z)


@lowers_pairs("aten.real.default")
def real(op: Emitter, z: Pair) -> ir.Value:
    """The real part."""
    return z.real


@lowers_pairs("aten.imag.default")
def imag(op: Emitter, z: Pair) -> ir.Value:
    """The imaginary part."""
    return z.imag


@lowers_pairs("aten.conj.default", "aten._conj.default", "aten.conj_physical.default", "aten._conj_physical.default")
def conj(op: Emitter, z: Pair) -> Pair:
    """The conjugate."""
    return Pair(z.real, op.Neg(z.imag))


@lowers_pairs("aten.mH.default", "aten.matrix_H.default", "aten.adjoint.default")
def adjoint(op: Emitter, z: Pair) -> Pair:
    """The conjugate transpose of the last two axes."""
    order = [*range(op.rank(z.real) - 2), -1, -2]
    return Pair(op.transpose(z.real, order), op.Neg(op.transpose(z.imag, order)))


@lowers_pairs("aten.resolve_conj.default", "aten.resolve_neg.default")
def same(op: Emitter, z: Pair) -> Pair:
    """Itself: nothing is left to be resolved."""
    return z


@lowers_pairs("aten.view.dtype")
def view_dtype(op: Emitter, x: Any, dtype: Any) -> Stored:
    """A complex tensor read as its parts side by side, and back."""
    if isinstance(x, Pair) and not is_complex(op.result):
        flat = stacked(op, x)
        dims = op.dims(x.real)
        last = dims[-1]
        return op.reshape(flat, [*dims[:-1], 2 * last if isinstance(last, int) else -1])
    if isinstance(x, ir.Value) and is_complex(op.result):
        dims = op.dims(x)
        last = dims[-1]
        return unstacked(op, op.reshape(x, [*dims[:-1], last // 2 if isinstance(last, int) else -1, 2]))
    raise op.fail("complex numbers: their bits in another format")


@lowers_pairs(
    "aten.to.dtype",
    "aten.to.device",
    "aten.to.other",
    "aten.to.dtype_layout",
    "aten._to_copy.default",
    "aten.type_as.default",
)
def convert(op: Emitter, x: Any, *_: Any, **__: Any) -> Stored:
    """To what capture says it becomes; a real result loses the imaginary part."""
    if is_complex(op.result):
        return as_pair(op, x, component_dtype(op))
    if op.dtype_of() == ir.DataType.BOOL:
        return _not_zero(op, x)
    value: ir.Value = op.cast(x.real, op.dtype_of())
    return value


@lowers_pairs("aten.sym_size.int", "aten.sym_numel.default")
def size(op: Emitter, z: Pair, *arguments: Any) -> Any:
    """Of either part."""
    return real_rule(op, op.target, z.real, *arguments)


@lowers_pairs("aten.is_complex.default", "aten.is_floating_point.default")
def kind(op: Emitter, z: Pair) -> bool:
    """Known from the dtype."""
    return op.target.startswith("aten.is_complex")


# -- arithmetic --------------------------------------------------------------------------------------------------------


@lowers_pairs("aten.add.Tensor", "aten.add.Scalar", "prims.add.default")
def add(op: Emitter, a: Any, b: Any, alpha: Any = 1) -> Pair:
    """a + alpha b"""
    algebra = _algebra(op, a, b)
    return algebra.add(as_pair(op, a, algebra.dtype), _scaled(op, algebra, b, alpha))


@lowers_pairs("aten.sub.Tensor", "aten.sub.Scalar", "prims.sub.default")
def sub(op: Emitter, a: Any, b: Any, alpha: Any = 1) -> Pair:
    """a - alpha b"""
    algebra = _algebra(op, a, b)
    return algebra.sub(as_pair(op, a, algebra.dtype), _scaled(op, algebra, b, alpha))


@lowers_pairs("aten.rsub.Tensor", "aten.rsub.Scalar")
def rsub(op: Emitter, a: Any, b: Any, alpha: Any = 1) -> Pair:
    """b - alpha a"""
    return sub(op, b, a, alpha)


def _scaled(op: Emitter, algebra: Algebra, value: Any, alpha: Any) -> Pair:
    pair = as_pair(op, value, algebra.dtype)
    return pair if alpha == 1 else _product(op, algebra, pair, alpha)


def _product(op: Emitter, algebra: Algebra, a: Any, b: Any) -> Pair:
    if _is_real(b):
        a, b = b, a
    if _is_real(a) and isinstance(b, Pair | complex):  # one factor scales both parts
        return algebra.scale(as_pair(op, b, algebra.dtype), op.operand(a, algebra.dtype))
    return algebra.mul(as_pair(op, a, algebra.dtype), as_pair(op, b, algebra.dtype))


@lowers_pairs("aten.mul.Tensor", "aten.mul.Scalar", "aten.multiply.Tensor", "prims.mul.default")
def mul(op: Emitter, a: Any, b: Any) -> Pair:
    """a b"""
    return _product(op, _algebra(op, a, b), a, b)


@lowers_pairs(
    "aten.div.Tensor", "aten.div.Scalar", "aten.true_divide.Tensor", "aten.divide.Tensor", "prims.div.default"
)
def div(op: Emitter, a: Any, b: Any) -> Pair:
    """a / b"""
    algebra = _algebra(op, a, b)
    top = as_pair(op, a, algebra.dtype)
    if _is_real(b):
        return algebra.divide_real(top, op.operand(b, algebra.dtype))
    return algebra.divide(top, as_pair(op, b, algebra.dtype))


@lowers_pairs("aten.pow.Tensor_Scalar")
def power(op: Emitter, a: Any, exponent: Any) -> Pair:
    """A to a number."""
    algebra, base = _one(op, a)
    if isinstance(exponent, SymbolicScalar):
        return algebra.general_power(base, as_pair(op, exponent, algebra.dtype))
    return algebra.power(base, complex(exponent))


@lowers_pairs("aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def power_of_tensor(op: Emitter, a: Any, exponent: Any) -> Pair:
    """A to b, elementwise."""
    algebra = _algebra(op, a, exponent)
    return algebra.general_power(as_pair(op, a, algebra.dtype), as_pair(op, exponent, algebra.dtype))


@lowers_pairs("aten.lerp.Tensor", "aten.lerp.Scalar")
def lerp(op: Emitter, a: Any, b: Any, weight: Any) -> Pair:
    """A + weight (b - a)"""
    algebra = _algebra(op, a, b)
    start = as_pair(op, a, algebra.dtype)
    return algebra.add(start, _product(op, algebra, algebra.sub(as_pair(op, b, algebra.dtype), start), weight))


@lowers_pairs("aten.square.default")
def square(op: Emitter, a: Pair) -> Pair:
    """a a"""
    return _algebra(op, a).mul(a, a)


# -- functions ---------------------------------------------------------------------------------------------------------


def _function(name: str) -> Callable[[Emitter, Any], Pair]:
    def rule(op: Emitter, a: Any) -> Pair:
        algebra, pair = _one(op, a)
        result: Pair = getattr(algebra, name)(pair)
        return result

    return rule


for _name in "exp log sqrt sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh reciprocal sigmoid sgn".split():
    lowers_pairs(f"aten.{_name}.default")(_function(_name))
for _long, _short in (("arc" + name, "a" + name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")):
    lowers_pairs(f"aten.{_long}.default")(_function(_short))


@lowers_pairs("aten.rsqrt.default")
def rsqrt(op: Emitter, a: Any) -> Pair:
    """1 / sqrt(a)"""
    algebra, pair = _one(op, a)
    return algebra.reciprocal(algebra.sqrt(pair))


@lowers_pairs("aten.log2.default", "aten.log10.default")
def log_to_base(op: Emitter, a: Any) -> Pair:
    """Logarithms to 2 and 10."""
    algebra, pair = _one(op, a)
    return algebra.divide_real(algebra.log(pair), math.log(2 if "log2" in op.target else 10))


@lowers_pairs("aten.log1p.default")
def log1p(op: Emitter, a: Any) -> Pair:
    """log(1 + a): the square of |1 + a| is 1 + (2 x + x^2 + y^2)."""
    algebra, pair = _one(op, a)
    above = op.Add(op.Mul(pair.real, 2.0), algebra.square_abs(pair))
    size = op.Mul(real_rule(op, "aten.log1p.default", above), 0.5)
    return Pair(size, algebra.angle(Pair(op.Add(pair.real, 1.0), pair.imag)))


@lowers_pairs("aten.exp2.default")
def exp2(op: Emitter, a: Any) -> Pair:
    """2^a"""
    algebra, pair = _one(op, a)
    return algebra.exp(algebra.scale(pair, math.log(2)))


@lowers_pairs("aten.expm1.default")
def expm1(op: Emitter, a: Any) -> Pair:
    """e^x cos y - 1 = (e^x - 1) cos y - 2 sin(y / 2)^2"""
    _, pair = _one(op, a)
    less = real_rule(op, "aten.expm1.default", pair.real)
    half = op.Sin(op.Mul(pair.imag, 0.5))
    return Pair(
        op.Sub(op.Mul(less, op.Cos(pair.imag)), op.Mul(op.Mul(half, half), 2.0)),
        op.Mul(op.Exp(pair.real), op.Sin(pair.imag)),
    )


@lowers_pairs("aten.abs.default", "aten.absolute.default")
def absolute(op: Emitter, a: Pair) -> ir.Value:
    """|a|"""
    return _algebra(op, a).abs(a)


@lowers_pairs("aten.angle.default")
def angle(op: Emitter, a: Pair) -> ir.Value:
    """In (-pi, pi]."""
    return _algebra(op, a).angle(a)


# -- comparison --------------------------------------------------------------------------------------------------------


def _not_zero(op: Emitter, z: Pair) -> ir.Value:
    return op.Or(op.Not(op.Equal(z.real, 0.0)), op.Not(op.Equal(z.imag, 0.0)))


@lowers_pairs("aten.eq.Tensor", "aten.eq.Scalar")
def equal(op: Emitter, a: Any, b: Any) -> ir.Value:
    """Both parts are."""
    dtype = component_dtype(op, *(item for item in (a, b)))
    one, other = as_pair(op, a, dtype), as_pair(op, b, dtype)
    return op.And(op.Equal(one.real, other.real), op.Equal(one.imag, other.imag))


@lowers_pairs("aten.ne.Tensor", "aten.ne.Scalar")
def not_equal(op: Emitter, a: Any, b: Any) -> ir.Value:
    """Either part is not."""
    return op.Not(equal(op, a, b))


@lowers_pairs("aten.isnan.default", "aten.isinf.default")
def either(op: Emitter, z: Pair) -> ir.Value:
    """Either part is."""
    return op.Or(real_rule(op, op.target, z.real), real_rule(op, op.target, z.imag))


@lowers_pairs("aten.isfinite.default")
def finite(op: Emitter, z: Pair) -> ir.Value:
    """Both parts are."""
    return op.And(real_rule(op, op.target, z.real), real_rule(op, op.target, z.imag))


@lowers_pairs("aten.isreal.default")
def is_real(op: Emitter, z: Pair) -> ir.Value:
    """The imaginary part is 0."""
    return op.Equal(z.imag, 0.0)


@lowers_pairs("aten.logical_not.default")
def logical_not(op: Emitter, z: Pair) -> ir.Value:
    """It is 0."""
    return op.Not(_not_zero(op, z))


@lowers_pairs(
    "aten.nonzero.default",
    "aten.any.default",
    "aten.any.dim",
    "aten.any.dims",
    "aten.all.default",
    "aten.all.dim",
    "aten.all.dims",
    "aten.count_nonzero.default",
    "aten.count_nonzero.dim_IntList",
)
def of_truth(op: Emitter, z: Pair, *arguments: Any, **keywords: Any) -> Any:
    """What is asked of where it is not 0."""
    return real_rule(op, op.target, _not_zero(op, z), *arguments, **keywords)
