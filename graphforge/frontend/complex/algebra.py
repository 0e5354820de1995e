"""Arithmetic and functions of pairs, as formulas over their real and imaginary parts."""

from __future__ import annotations

import math

import onnx_ir as ir

from graphforge.frontend.aten.binary import atan2, copysign
from graphforge.frontend.complex.pair import Pair, real_facts, zeros_like
from graphforge.frontend.emitter import Emitter

__all__ = ["Algebra"]


class Algebra:
    """Formulas on pairs of one dtype.

    Args:
        op: where to emit.
        dtype: of the parts.
    """

    def __init__(self, op: Emitter, dtype: ir.DataType) -> None:
        self.op = op
        self.dtype = dtype

    def number(self, value: complex) -> Pair:
        """A constant."""
        return Pair(self.op.constant(value.real, self.dtype), self.op.constant(value.imag, self.dtype))

    def add(self, a: Pair, b: Pair) -> Pair:
        """a + b"""
        return Pair(self.op.Add(a.real, b.real), self.op.Add(a.imag, b.imag))

    def sub(self, a: Pair, b: Pair) -> Pair:
        """a - b"""
        return Pair(self.op.Sub(a.real, b.real), self.op.Sub(a.imag, b.imag))

    def mul(self, a: Pair, b: Pair) -> Pair:
        """a b"""
        op = self.op
        return Pair(
            op.Sub(op.Mul(a.real, b.real), op.Mul(a.imag, b.imag)),
            op.Add(op.Mul(a.real, b.imag), op.Mul(a.imag, b.real)),
        )

    def scale(self, a: Pair, factor: ir.Value | float) -> Pair:
        """A times a real factor."""
        return Pair(self.op.Mul(a.real, factor), self.op.Mul(a.imag, factor))

    def turn(self, a: Pair) -> Pair:
        """i a"""
        return Pair(self.op.Neg(a.imag), a.real)

    def neg(self, a: Pair) -> Pair:
        """-a"""
        return Pair(self.op.Neg(a.real), self.op.Neg(a.imag))

    def conj(self, a: Pair) -> Pair:
        """The conjugate."""
        return Pair(a.real, self.op.Neg(a.imag))

    def square_abs(self, a: Pair) -> ir.Value:
        """|a|^2"""
        return self.op.Add(self.op.Mul(a.real, a.real), self.op.Mul(a.imag, a.imag))

    def abs(self, a: Pair) -> ir.Value:
        """|a|, whose squares neither overflow nor vanish: the larger part is taken out first."""
        op = self.op
        x, y = op.Abs(a.real), op.Abs(a.imag)
        large = op.Max(x, y)
        safe = op.Where(op.Equal(large, 0.0), op.constant(1.0, self.dtype), large)
        ratio = op.Div(op.Min(x, y), safe)
        return op.Mul(large, op.Sqrt(op.Add(op.Mul(ratio, ratio), 1.0)))

    def angle(self, a: Pair) -> ir.Value:
        """The angle of the point, in (-pi, pi]."""
        with real_facts(self.op):
            return atan2(self.op, a.imag, a.real)

    def divide(self, a: Pair, b: Pair) -> Pair:
        """A / b, with b brought to a magnitude near 1 first."""
        op = self.op
        size = op.Max(op.Abs(b.real), op.Abs(b.imag))
        c, d = op.Div(b.real, size), op.Div(b.imag, size)
        below = op.Mul(op.Add(op.Mul(c, c), op.Mul(d, d)), size)
        return Pair(
            op.Div(op.Add(op.Mul(a.real, c), op.Mul(a.imag, d)), below),
            op.Div(op.Sub(op.Mul(a.imag, c), op.Mul(a.real, d)), below),
        )

    def exp(self, a: Pair) -> Pair:
        """e^a"""
        return self.polar(self.op.Exp(a.real), a.imag)

    def polar(self, size: ir.Value, angle: ir.Value) -> Pair:
        """The point of this magnitude and angle."""
        op = self.op
        return Pair(op.Mul(size, op.Cos(angle)), op.Mul(size, op.Sin(angle)))

    def log(self, a: Pair) -> Pair:
        """The logarithm, its imaginary part in (-pi, pi]."""
        return Pair(self.op.Log(self.abs(a)), self.angle(a))

    def sqrt(self, a: Pair) -> Pair:
        """The root in the right half plane."""
        op = self.op
        half = op.Sqrt(op.Mul(op.Add(self.abs(a), op.Abs(a.real)), 0.5))
        other = op.Div(op.Abs(a.imag), op.Mul(op.Where(op.Equal(half, 0.0), op.constant(1.0, self.dtype), half), 2.0))
        right = op.GreaterOrEqual(a.real, 0.0)
        with real_facts(op):
            imag = copysign(op, op.Where(right, other, half), a.imag)
        return Pair(op.Where(right, half, other), imag)

    def power(self, a: Pair, exponent: complex) -> Pair:
        """A to a number; whole ones by multiplication."""
        if exponent == 0:
            one = self.op.Add(zeros_like(self.op, a.real), 1.0)
            return Pair(one, zeros_like(self.op, a.real))
        if exponent == 0.5:
            return self.sqrt(a)
        if exponent.imag == 0 and exponent.real.is_integer() and abs(exponent.real) <= 16:
            whole = self._whole_power(a, int(abs(exponent.real)))
            return whole if exponent.real > 0 else self.divide(self.number(1), whole)
        return self.general_power(a, self.number(exponent))

    def _whole_power(self, a: Pair, exponent: int) -> Pair:
        if exponent == 1:
            return a
        half = self._whole_power(a, exponent // 2)
        square = self.mul(half, half)
        return self.mul(square, a) if exponent % 2 else square

    def general_power(self, a: Pair, exponent: Pair) -> Pair:
        """e^(b log a), and 0 where the base is 0."""
        op = self.op
        zero = op.Equal(self.square_abs(a), 0.0)
        base = Pair(op.Where(zero, op.constant(1.0, self.dtype), a.real), a.imag)
        raised = self.exp(self.mul(exponent, self.log(base)))
        none = op.And(op.Equal(exponent.real, 0.0), op.Equal(exponent.imag, 0.0))
        at_zero = op.Cast(none, to=self.dtype)
        return Pair(op.Where(zero, at_zero, raised.real), op.Where(zero, op.constant(0.0, self.dtype), raised.imag))

    def cosh_sinh(self, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Both of a real value."""
        return self.op.Cosh(x), self.op.Sinh(x)

    def sin(self, a: Pair) -> Pair:
        """Sine."""
        op = self.op
        cosh, sinh = self.cosh_sinh(a.imag)
        return Pair(op.Mul(op.Sin(a.real), cosh), op.Mul(op.Cos(a.real), sinh))

    def cos(self, a: Pair) -> Pair:
        """Cosine."""
        op = self.op
        cosh, sinh = self.cosh_sinh(a.imag)
        return Pair(op.Mul(op.Cos(a.real), cosh), op.Neg(op.Mul(op.Sin(a.real), sinh)))

    def sinh(self, a: Pair) -> Pair:
        """Hyperbolic sine."""
        op = self.op
        cosh, sinh = self.cosh_sinh(a.real)
        return Pair(op.Mul(sinh, op.Cos(a.imag)), op.Mul(cosh, op.Sin(a.imag)))

    def cosh(self, a: Pair) -> Pair:
        """Hyperbolic cosine."""
        op = self.op
        cosh, sinh = self.cosh_sinh(a.real)
        return Pair(op.Mul(cosh, op.Cos(a.imag)), op.Mul(sinh, op.Sin(a.imag)))

    def tanh(self, a: Pair) -> Pair:
        """Hyperbolic tangent, in a form that stays finite for large real parts."""
        op = self.op
        slope = op.Tan(a.imag)
        flat = op.Tanh(a.real)
        return self.divide(Pair(flat, slope), Pair(op.constant(1.0, self.dtype), op.Mul(flat, slope)))

    def tan(self, a: Pair) -> Pair:
        """Tangent: tan a = -i tanh(i a)"""
        turned = self.tanh(self.turn(a))
        return Pair(turned.imag, self.op.Neg(turned.real))

    def reciprocal(self, a: Pair) -> Pair:
        """1 / a"""
        return self.divide(self.number(1), a)

    def sigmoid(self, a: Pair) -> Pair:
        """1 / (1 + e^-a)"""
        return self.reciprocal(self.add(self.number(1), self.exp(self.neg(a))))

    def asinh(self, a: Pair) -> Pair:
        """log(a + sqrt(a^2 + 1))"""
        return self.log(self.add(a, self.sqrt(self.add(self.mul(a, a), self.number(1)))))

    def asin(self, a: Pair) -> Pair:
        """-i asinh(i a)"""
        turned = self.asinh(self.turn(a))
        return Pair(turned.imag, self.op.Neg(turned.real))

    def acos(self, a: Pair) -> Pair:
        """pi / 2 - asin a"""
        return self.sub(self.number(math.pi / 2), self.asin(a))

    def acosh(self, a: Pair) -> Pair:
        """log(a + sqrt(a + 1) sqrt(a - 1))"""
        root = self.mul(self.sqrt(self.add(a, self.number(1))), self.sqrt(self.sub(a, self.number(1))))
        return self.log(self.add(a, root))

    def atanh(self, a: Pair) -> Pair:
        """(log(1 + a) - log(1 - a)) / 2"""
        one = self.number(1)
        return self.scale(self.sub(self.log(self.add(one, a)), self.log(self.sub(one, a))), 0.5)

    def atan(self, a: Pair) -> Pair:
        """-i atanh(i a)"""
        turned = self.atanh(self.turn(a))
        return Pair(turned.imag, self.op.Neg(turned.real))

    def sgn(self, a: Pair) -> Pair:
        """a / |a|, and 0 where a is 0."""
        op = self.op
        size = self.abs(a)
        return self.divide_real(a, op.Where(op.Equal(size, 0.0), op.constant(1.0, self.dtype), size))

    def divide_real(self, a: Pair, b: ir.Value | float) -> Pair:
        """A over a real value."""
        return Pair(self.op.Div(a.real, b), self.op.Div(a.imag, b))
