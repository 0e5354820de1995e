"""Elementwise arithmetic of two or more tensors with torch's type promotion: sums, products, quotients, powers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import onnx_ir as ir

from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers
from graphforge.frontend.working import single_step_dtype, working_dtype
from graphforge.ir.dtypes import HALVES, is_float

__all__: list[str] = []

_BOOL = ir.DataType.BOOL
_INT64 = ir.DataType.INT64
_UNSIGNED: Final = frozenset({ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64})


def _pair(op: Emitter, x: Any, y: Any) -> tuple[ir.Value, ir.Value]:
    """Both operands in the dtype that one node computes in."""
    dtype = single_step_dtype(op.dtype_of(), x, y)
    return op.operand(x, dtype), op.operand(y, dtype)


def _working_pair(op: Emitter, x: Any, y: Any) -> tuple[ir.Value, ir.Value]:
    """Both operands in the dtype that a rule of several nodes computes in."""
    dtype = working_dtype(op.dtype_of(), x, y)
    return op.operand(x, dtype), op.operand(y, dtype)


def _scaled(op: Emitter, x: Any, alpha: Any, dtype: ir.DataType) -> Any:
    """alpha * x, nothing when alpha is 1."""
    if isinstance(alpha, int | float) and alpha == 1:
        return x
    if isinstance(x, int | float) and isinstance(alpha, int | float):
        return x * alpha
    dtype = working_dtype(dtype, alpha, x)
    return op.Mul(op.operand(x, dtype), op.operand(alpha, dtype))


# -- sums and products -------------------------------------------------------------------------------------------------


@lowers("aten.add.Tensor", "aten.add.Scalar")
def add(op: Emitter, x: Any, y: Any, alpha: Any = 1) -> ir.Value:
    """x + alpha * y; on bools, or."""
    dtype = op.dtype_of()
    y = _scaled(op, y, alpha, dtype)
    a, b = _pair(op, x, y)
    if dtype == _BOOL:
        return op.Or(a, b)
    return op.Add(a, b)


@lowers("aten.sub.Tensor", "aten.sub.Scalar", "aten.subtract.Tensor", "aten.subtract.Scalar")
def sub(op: Emitter, x: Any, y: Any, alpha: Any = 1) -> ir.Value:
    """x - alpha * y."""
    return op.Sub(*_pair(op, x, _scaled(op, y, alpha, op.dtype_of())))


@lowers("aten.rsub.Tensor", "aten.rsub.Scalar")
def rsub(op: Emitter, x: Any, y: Any, alpha: Any = 1) -> ir.Value:
    """y - alpha * x."""
    return op.Sub(*_pair(op, y, _scaled(op, x, alpha, op.dtype_of())))


@lowers("aten.mul.Tensor", "aten.mul.Scalar", "aten.multiply.Tensor", "aten.multiply.Scalar")
def mul(op: Emitter, x: Any, y: Any) -> ir.Value:
    """x * y; on bools, and."""
    a, b = _pair(op, x, y)
    if op.dtype_of() == _BOOL:
        return op.And(a, b)
    return op.Mul(a, b)


def _single(dtype: ir.DataType) -> ir.DataType:
    return ir.DataType.FLOAT if dtype in HALVES else dtype


@lowers("aten.addcmul.default")
def addcmul(op: Emitter, x: ir.Value, y: ir.Value, z: ir.Value, *, value: Any = 1) -> ir.Value:
    """x + value * y * z; halves in single precision, for the sum can cancel."""
    dtype = _single(op.dtype_of())
    product = op.Mul(_scaled(op, op.cast(y, dtype), value, dtype), op.cast(z, dtype))
    return op.Add(op.cast(x, dtype), product)


@lowers("aten.addcdiv.default")
def addcdiv(op: Emitter, x: ir.Value, y: ir.Value, z: ir.Value, *, value: Any = 1) -> ir.Value:
    """x + value * y / z; halves in single precision, for the sum can cancel."""
    dtype = _single(op.dtype_of())
    quotient = op.Div(_scaled(op, op.cast(y, dtype), value, dtype), op.cast(z, dtype))
    return op.Add(op.cast(x, dtype), quotient)


@lowers("aten.lerp.Scalar", "aten.lerp.Tensor")
def lerp(op: Emitter, start: ir.Value, end: ir.Value, weight: Any) -> ir.Value:
    """start + weight * (end - start), from the nearer end so that weight 1 gives ``end`` exactly."""
    dtype = _single(op.dtype_of())
    start, end = op.cast(start, dtype), op.cast(end, dtype)
    difference = op.Sub(end, start)
    number = op.number(weight)
    if number is not None and not isinstance(weight, ir.Value):
        if abs(number) < 0.5:
            return op.Add(start, op.Mul(difference, number))
        return op.Sub(end, op.Mul(difference, 1 - number))
    weight = op.operand(weight, dtype)
    low = op.Add(start, op.Mul(difference, weight))
    high = op.Sub(end, op.Mul(difference, op.Sub(1.0, weight)))
    return op.Where(op.Less(op.Abs(weight), 0.5), low, high)


# -- quotients ---------------------------------------------------------------------------------------------------------


@lowers(
    "aten.div.Tensor",
    "aten.div.Scalar",
    "aten.true_divide.Tensor",
    "aten.true_divide.Scalar",
    "aten.divide.Tensor",
    "aten.divide.Scalar",
)
def div(op: Emitter, x: Any, y: Any) -> ir.Value:
    """x / y, floating."""
    return op.Div(*_pair(op, x, y))


@lowers("aten.div.Tensor_mode", "aten.div.Scalar_mode", "aten.divide.Tensor_mode", "aten.divide.Scalar_mode")
def div_mode(op: Emitter, x: Any, y: Any, *, rounding_mode: str | None) -> ir.Value:
    """x / y, rounded as told."""
    if rounding_mode is None:
        return div(op, x, y)
    if rounding_mode == "floor":
        return floor_divide(op, x, y)
    a, b = _working_pair(op, x, y)
    quotient = op.Div(a, b)
    if not is_float(quotient.dtype):
        return quotient  # ONNX truncates
    return op.Mul(op.Sign(quotient), op.Floor(op.Abs(quotient)))


@lowers("aten.floor_divide.default", "aten.floor_divide.Scalar")
def floor_divide(op: Emitter, x: Any, y: Any) -> ir.Value:
    """x // y with Python's rules: the floor of the exact quotient, which the rounded quotient can miss by one."""
    a, b = _working_pair(op, x, y)
    number = op.number(b)
    if not is_float(a.dtype):
        if a.dtype in _UNSIGNED or a.dtype == _BOOL:
            return op.Div(a, b)
        # not the quotient of a - a % b, which the type need not hold: -128 - 1 is 127 in int8
        beyond = _on_other_side(op, op.Mod(a, b, fmod=1), b, number)
        return op.Sub(op.Div(a, b), op.Cast(beyond, to=a.dtype))
    if number is not None and number != 0 and math.frexp(abs(number))[0] == 0.5:
        return op.Floor(op.Div(a, b))  # dividing by a power of two is exact
    rest = op.Mod(a, b, fmod=1)
    quotient = op.Div(op.Sub(a, rest), b)
    assert quotient.dtype is not None
    beyond = op.Cast(_on_other_side(op, rest, b, number), to=quotient.dtype)
    floored = op.Round(op.Sub(quotient, beyond))
    if number is not None and number != 0:
        return floored
    return op.Where(op.Equal(b, 0.0), op.Div(a, b), floored)


def _on_other_side(op: Emitter, rest: ir.Value, divisor: ir.Value, number: float | None) -> ir.Value:
    """Where a remainder has the sign that its divisor has not."""
    if number is None:
        return op.Less(op.Mul(op.Sign(rest), divisor), 0)
    return op.single("Less" if number > 0 else "Greater", rest, 0)


@lowers("aten.remainder.Tensor", "aten.remainder.Scalar", "aten.remainder.Scalar_Tensor")
def remainder(op: Emitter, x: Any, y: Any) -> ir.Value:
    """x % y with the sign of y."""
    a, b = _working_pair(op, x, y)
    if not is_float(a.dtype):
        return op.Mod(a, b)
    rest = op.Mod(a, b, fmod=1)
    return op.Where(_on_other_side(op, rest, b, op.number(b)), op.Add(rest, b), rest)


@lowers("aten.fmod.Tensor", "aten.fmod.Scalar")
def fmod(op: Emitter, x: Any, y: Any) -> ir.Value:
    """x % y with the sign of x."""
    return op.Mod(*_pair(op, x, y), fmod=1)


# -- powers ------------------------------------------------------------------------------------------------------------


@lowers("aten.pow.Tensor_Tensor", "aten.pow.Tensor_Scalar", "aten.pow.Scalar")
def pow_(op: Emitter, x: Any, y: Any) -> ir.Value:
    """x ** y; small whole exponents become products, as in eager torch."""
    dtype = working_dtype(op.dtype_of())
    if isinstance(x, ir.Value) and isinstance(y, int | float):
        simple = _simple_power(op, op.cast(x, dtype), y)
        if simple is not None:
            return simple
    a, b = op.operand(x, dtype), op.operand(y, dtype)
    if is_float(dtype):
        return op.Pow(a, b)
    return _integer_power(op, a, b)


def _simple_power(op: Emitter, x: ir.Value, exponent: float) -> ir.Value | None:
    if exponent == 1:
        return x
    if exponent == 2:
        return op.Mul(x, x)
    if not is_float(x.dtype):
        if exponent == int(exponent) and 2 < exponent <= 8:
            return _by_squaring(op, x, int(exponent))
        return None
    if exponent == 0.5:
        return op.Sqrt(x)
    if exponent == -0.5:
        return op.Reciprocal(op.Sqrt(x))
    if exponent == -1:
        return op.Reciprocal(x)
    return None


def _by_squaring(op: Emitter, x: ir.Value, exponent: int) -> ir.Value:
    result: ir.Value | None = None
    square = x
    while True:
        if exponent & 1:
            result = square if result is None else op.Mul(result, square)
        exponent >>= 1
        if not exponent:
            assert result is not None
            return result
        square = op.Mul(square, square)


def _integer_power(op: Emitter, x: ir.Value, y: ir.Value) -> ir.Value:
    """Exact powers of integers that wrap as torch's do (ONNX Runtime's Pow goes through doubles), by squaring."""
    dtype = x.dtype
    assert dtype is not None
    if dtype == _BOOL:
        return op.Or(x, op.Not(y))
    x, y = op.cast(x, _INT64), op.cast(y, _INT64)
    result: ir.Value | None = None
    square = x
    for bit in range(6):  # 2 ** 63 is the largest power that is not 0, 1 or -1 before it wraps to 0
        chosen = op.Equal(op.BitwiseAnd(y, 1 << bit), 1 << bit)
        factor = op.Where(chosen, square, 1)
        result = factor if result is None else op.Mul(result, factor)
        square = op.Mul(square, square)
    assert result is not None
    unit = op.Equal(op.Abs(x), 1)
    large = op.Not(op.Or(unit, op.Less(y, 64)))
    negative = op.Not(op.Or(unit, op.GreaterOrEqual(y, 0)))
    vanishes = op.Or(negative, op.And(large, op.Equal(op.BitwiseAnd(x, 1), 0)))
    return op.cast(op.Where(vanishes, 0, result), dtype)


@lowers("aten.float_power.Tensor_Tensor", "aten.float_power.Tensor_Scalar", "aten.float_power.Scalar")
def float_power(op: Emitter, x: Any, y: Any) -> ir.Value:
    """x ** y in double precision."""
    return op.Pow(*_pair(op, x, y))


# -- extremes ----------------------------------------------------------------------------------------------------------


def _extreme(op: Emitter, op_type: str, x: Any, y: Any) -> ir.Value:
    a, b = _pair(op, x, y)
    if a.dtype == _BOOL:
        return op.Or(a, b) if op_type == "Max" else op.And(a, b)
    return op.single(op_type, a, b)


@lowers("aten.maximum.default", "aten.max.other")
def maximum(op: Emitter, x: Any, y: Any) -> ir.Value:
    """The larger; NaN wins."""
    return _extreme(op, "Max", x, y)


@lowers("aten.minimum.default", "aten.min.other")
def minimum(op: Emitter, x: Any, y: Any) -> ir.Value:
    """The smaller; NaN wins."""
    return _extreme(op, "Min", x, y)


def _but_nan(op: Emitter, op_type: str, x: Any, y: Any) -> ir.Value:
    result = _extreme(op, op_type, x, y)
    if not is_float(result.dtype):
        return result
    a, b = _working_pair(op, x, y)
    result = op.Where(op.IsNaN(a), b, result)
    return op.Where(op.IsNaN(b), a, result)


@lowers("aten.fmax.default")
def fmax(op: Emitter, x: Any, y: Any) -> ir.Value:
    """The larger; NaN loses."""
    return _but_nan(op, "Max", x, y)


@lowers("aten.fmin.default")
def fmin(op: Emitter, x: Any, y: Any) -> ir.Value:
    """The smaller; NaN loses."""
    return _but_nan(op, "Min", x, y)


# -- special functions of two ------------------------------------------------------------------------------------------


@lowers("aten.atan2.default", "aten.arctan2.default")
def atan2(op: Emitter, y: Any, x: Any) -> ir.Value:
    """The angle of the point (x, y), by the arctangent of the ratio that is at most 1, then by octants."""
    b, a = _working_pair(op, y, x)
    dtype = a.dtype
    height, width = op.Abs(b), op.Abs(a)
    steep = op.Greater(height, width)
    low, high = op.Min(height, width), op.Max(height, width)
    # 0 / 0 is the angle 0, inf / inf that of the diagonal
    ratio = op.Div(low, high)
    ratio = op.Where(op.Equal(high, 0.0), high, ratio)
    ratio = op.Where(op.Equal(low, math.inf), op.scalar(1.0, dtype), ratio)
    base = op.Atan(ratio)
    base = op.Where(steep, op.Sub(math.pi / 2, base), base)
    base = op.Where(_sign_bit(op, a), op.Sub(math.pi, base), base)
    return op.Where(_sign_bit(op, b), op.Neg(base), base)


def _sign_bit(op: Emitter, x: ir.Value) -> ir.Value:
    """Whether the sign bit is set, that of -0 too."""
    if not is_float(x.dtype):
        return op.Less(x, 0)
    return op.Or(op.Less(x, 0.0), op.Less(op.Reciprocal(x), 0.0))


@lowers("aten.copysign.Tensor", "aten.copysign.Scalar")
def copysign(op: Emitter, x: Any, y: Any) -> ir.Value:
    """|x| with the sign of y."""
    a, _ = _working_pair(op, x, 1)
    size = op.Abs(a)
    if isinstance(y, int | float):
        return op.Neg(size) if math.copysign(1, y) < 0 else size
    return op.Where(_sign_bit(op, op.cast(y, op.dtype_of())), op.Neg(size), size)


@lowers("aten.hypot.default")
def hypot(op: Emitter, x: Any, y: Any) -> ir.Value:
    """sqrt(x² + y²), scaled by the larger so that no square overflows."""
    a, b = (op.Abs(value) for value in _working_pair(op, x, y))
    low, high = op.Min(a, b), op.Max(a, b)
    ratio = op.Div(low, op.Where(op.Equal(high, 0.0), 1.0, high))
    length = op.Mul(high, op.Sqrt(op.Add(op.Mul(ratio, ratio), 1.0)))
    infinite = op.Or(op.IsInf(a), op.IsInf(b))  # even beside NaN
    return op.Where(infinite, math.inf, length)


@lowers("aten.heaviside.default")
def heaviside(op: Emitter, x: Any, values: Any) -> ir.Value:
    """0 below 0, 1 above, ``values`` at 0."""
    a, b = _working_pair(op, x, values)
    dtype = a.dtype
    assert dtype is not None
    if dtype == _BOOL:
        return op.Or(a, b)
    return op.Where(op.Equal(a, 0), b, op.Cast(op.Greater(a, 0), to=dtype))


@lowers("aten.xlogy.Tensor", "aten.xlogy.Scalar_Self", "aten.xlogy.Scalar_Other")
def xlogy(op: Emitter, x: Any, y: Any) -> ir.Value:
    """x * log(y), and 0 where x is 0 whatever y but NaN."""
    a, b = _working_pair(op, x, y)
    product = op.Mul(a, op.Log(b))
    vanishes = op.And(op.Equal(a, 0.0), op.Not(op.IsNaN(b)))
    return op.Where(vanishes, 0.0, product)


def _log_sum(op: Emitter, x: Any, y: Any, unit: float) -> ir.Value:
    """max + log1p(exp(-|difference|)), in the base whose logarithm is ``unit``."""
    a, b = _working_pair(op, x, y)
    largest = op.Max(a, b)
    distance = op.Neg(op.Abs(op.Sub(a, b)))
    if unit != 1:
        distance = op.Mul(distance, unit)
    # softplus(-d) = log(1 + exp(-d)) keeps its digits where exp(-d) is small
    more = op.Softplus(distance)
    if unit != 1:
        more = op.Div(more, unit)
    total = op.Add(largest, more)
    same_infinity = op.And(op.Equal(a, b), op.IsInf(a))
    return op.Where(same_infinity, a, total)


@lowers("aten.logaddexp.default")
def logaddexp(op: Emitter, x: Any, y: Any) -> ir.Value:
    """log(exp(x) + exp(y))."""
    return _log_sum(op, x, y, 1.0)


@lowers("aten.logaddexp2.default")
def logaddexp2(op: Emitter, x: Any, y: Any) -> ir.Value:
    """log2(2^x + 2^y)."""
    return _log_sum(op, x, y, math.log(2))


# -- bits --------------------------------------------------------------------------------------------------------------


def _bits(logic: str, bitwise: str) -> Callable[[Emitter, Any, Any], ir.Value]:
    def rule(op: Emitter, x: Any, y: Any) -> ir.Value:
        a, b = _pair(op, x, y)
        result: ir.Value = op.node(logic if a.dtype == _BOOL else bitwise, [a, b])
        return result

    rule.__name__ = bitwise.lower()
    rule.__doc__ = f"{logic} of bools, {bitwise} of integers."
    return rule


for _name in ("and", "or", "xor"):
    lowers(
        *(
            f"aten.{spelling}.{overload}"
            for spelling in (f"bitwise_{_name}", f"__{_name}__")
            for overload in ("Tensor", "Scalar", "Scalar_Tensor")
            if not (spelling.startswith("_") and overload == "Scalar_Tensor")
        )
    )(_bits(_name.capitalize(), f"Bitwise{_name.capitalize()}"))


@lowers(
    "aten.bitwise_left_shift.Tensor",
    "aten.bitwise_left_shift.Tensor_Scalar",
    "aten.bitwise_left_shift.Scalar_Tensor",
    "aten.__lshift__.Tensor",
    "aten.__lshift__.Scalar",
)
def left_shift(op: Emitter, x: Any, y: Any) -> ir.Value:
    """x << y: a product with a power of two, which wraps as the shift does."""
    a, b = _pair(op, x, y)
    dtype = a.dtype
    assert dtype is not None
    number = op.number(b)
    if number is not None and 0 <= number < dtype.itemsize * 8 - 1:
        return op.Mul(a, 1 << int(number))
    return _shifted(op, "LEFT", a, b, dtype)


@lowers(
    "aten.bitwise_right_shift.Tensor",
    "aten.bitwise_right_shift.Tensor_Scalar",
    "aten.bitwise_right_shift.Scalar_Tensor",
    "aten.__rshift__.Tensor",
    "aten.__rshift__.Scalar",
)
def right_shift(op: Emitter, x: Any, y: Any) -> ir.Value:
    """x >> y, keeping the sign: the complement of a negative number is shifted."""
    a, b = _pair(op, x, y)
    dtype = a.dtype
    assert dtype is not None
    if dtype in _UNSIGNED:
        return _shifted(op, "RIGHT", a, b, dtype)
    below = op.Less(a, 0)
    shifted = _shifted(op, "RIGHT", op.Where(below, op.BitwiseNot(a), a), b, dtype)
    return op.Where(below, op.BitwiseNot(shifted), shifted)


def _shifted(op: Emitter, direction: str, x: ir.Value, y: ir.Value, dtype: ir.DataType) -> ir.Value:
    """A shift of bit patterns; by all bits or more, or by a negative count, nothing is left."""
    wide = ir.DataType.UINT64
    shifted = op.cast(op.BitShift(op.cast(x, wide), op.cast(y, wide), direction=direction), dtype)
    inside = op.And(op.GreaterOrEqual(y, 0), op.Less(y, dtype.itemsize * 8))
    return op.Where(inside, shifted, op.scalar(0, dtype))
