"""Activation functions, one ONNX node each where ONNX has one; softmax and its kin.

ONNX's attributes are single precision: on doubles, functions with a parameter are written out, which keeps its digits.
"""

from __future__ import annotations

import math
from typing import Any, Final

import onnx_ir as ir

from graphforge.frontend.aten.compare import clamp_to
from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowers
from graphforge.frontend.working import working_dtype
from graphforge.ir.dtypes import INTEGERS

__all__: list[str] = []

_DOUBLE = ir.DataType.DOUBLE
_FLOAT = ir.DataType.FLOAT
_SELU_ALPHA: Final = 1.6732632423543772848170429916717
_SELU_SCALE: Final = 1.0507009873554804934193349852946


def _working(op: Emitter, x: ir.Value) -> ir.Value:
    """x in the dtype that a rule of several nodes computes in."""
    return x if x.dtype is None else op.cast(x, working_dtype(x.dtype))


@lowers("aten.relu.default")
def relu(op: Emitter, x: ir.Value) -> ir.Value:
    """Relu; integers, for which few runtimes have it, by Max."""
    return op.Max(x, 0) if x.dtype in INTEGERS else op.Relu(x)


@lowers("aten.relu6.default")
def relu6(op: Emitter, x: ir.Value) -> ir.Value:
    """Clip to 0..6."""
    return clamp_to(op, x, 0, 6)


@lowers("aten.hardtanh.default")
def hardtanh(op: Emitter, x: ir.Value, min_val: float = -1.0, max_val: float = 1.0) -> ir.Value:
    """Clip."""
    return clamp_to(op, x, _whole(x, min_val), _whole(x, max_val))


def _whole(x: ir.Value, bound: float) -> float:
    return int(bound) if x.dtype in INTEGERS else bound


@lowers("aten.leaky_relu.default")
def leaky_relu(op: Emitter, x: ir.Value, negative_slope: float = 0.01) -> ir.Value:
    """x above 0, slope * x below."""
    if x.dtype == _DOUBLE:
        return op.Where(op.Greater(x, 0), x, op.Mul(x, negative_slope))
    return op.LeakyRelu(x, alpha=float(negative_slope))


@lowers("aten.rrelu.default")
def rrelu(
    op: Emitter, x: ir.Value, lower: float = 0.125, upper: float = 1 / 3, training: bool = False, generator: Any = None
) -> ir.Value:
    """In inference, a leaky relu of the mean slope.

    Raises:
        LoweringError: the model was captured in training mode.
    """
    if training:
        raise op.fail("draws random slopes in training mode", "call model.eval() before compiling")
    return leaky_relu(op, x, (lower + upper) / 2)


@lowers("aten.prelu.default", "aten._prelu_kernel.default")
def prelu(op: Emitter, x: ir.Value, weight: ir.Value) -> ir.Value:
    """x above 0, a learned slope for each channel (axis 1) below."""
    rank = op.rank(x)
    if op.target == "aten.prelu.default" and rank > 2 and op.rank(weight) == 1:
        weight = _channel_weight(op, weight, rank)
    elif op.target == "aten.prelu.default" and op.rank(weight) == 1 and rank < 2:
        weight = op.Reshape(weight, [1] * rank)
    return op.PRelu(x, weight)


def _channel_weight(op: Emitter, weight: ir.Value, rank: int) -> ir.Value:
    """A vector over channels, shaped to broadcast from axis 1; a view where the vector is a parameter."""
    tensor = op.weight(weight)
    if tensor is not None:
        return op.tensor(tensor.detach().reshape(-1, *[1] * (rank - 2)))
    shaped: ir.Value = op.Reshape(weight, [-1, *[1] * (rank - 2)])
    return shaped


@lowers("aten.silu.default")
def silu(op: Emitter, x: ir.Value) -> ir.Value:
    """x * sigmoid(x)."""
    x = _working(op, x)
    return op.Mul(x, op.Sigmoid(x))


@lowers("aten.gelu.default")
def gelu(op: Emitter, x: ir.Value, *, approximate: str = "none") -> ir.Value:
    """Gelu, exact or by tanh."""
    return op.Gelu(x, approximate=approximate)


@lowers("aten.hardswish.default")
def hardswish(op: Emitter, x: ir.Value) -> ir.Value:
    """x * clip(x + 3, 0, 6) / 6."""
    return op.HardSwish(x)


@lowers("aten.hardsigmoid.default")
def hardsigmoid(op: Emitter, x: ir.Value) -> ir.Value:
    """clip(x / 6 + 0.5, 0, 1)."""
    if x.dtype != _DOUBLE:
        return op.HardSigmoid(x, alpha=1 / 6, beta=0.5)
    return op.Div(clamp_to(op, op.Add(x, 3.0), 0.0, 6.0), 6.0)


@lowers("aten.mish.default")
def mish(op: Emitter, x: ir.Value) -> ir.Value:
    """x * tanh(softplus(x))."""
    return op.Mish(x)


@lowers("aten.elu.default")
def elu(op: Emitter, x: ir.Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> ir.Value:
    """scale * (x above 0, alpha * (exp(input_scale * x) - 1) below)."""
    x = _working(op, x)
    if input_scale == 1 and x.dtype != _DOUBLE:
        result = op.Elu(x, alpha=float(alpha))
    else:
        below = op.Min(x, 0.0)
        inner = below if input_scale == 1 else op.Mul(below, input_scale)
        curve = op.Mul(op.Sub(op.Exp(inner), 1.0), alpha)
        result = op.Where(op.Greater(x, 0.0), x, curve)
    return result if scale == 1 else op.Mul(result, scale)


@lowers("aten.celu.default")
def celu(op: Emitter, x: ir.Value, alpha: float = 1.0) -> ir.Value:
    """x above 0, alpha * (exp(x / alpha) - 1) below."""
    if x.dtype == _DOUBLE:
        return elu(op, x, alpha, 1.0, 1.0 / alpha)
    return op.Celu(x, alpha=float(alpha))


@lowers("aten.selu.default")
def selu(op: Emitter, x: ir.Value) -> ir.Value:
    """The self-normalising elu."""
    if x.dtype == _DOUBLE:
        return elu(op, x, _SELU_ALPHA, _SELU_SCALE)
    return op.Selu(x, alpha=_SELU_ALPHA, gamma=_SELU_SCALE)


@lowers("aten.softplus.default")
def softplus(op: Emitter, x: ir.Value, beta: Any = 1, threshold: Any = 20) -> ir.Value:
    """log(1 + exp(beta * x)) / beta, and x where beta * x exceeds the threshold."""
    x = _working(op, x)
    scaled = x if beta == 1 else op.Mul(x, float(beta))
    smooth = op.Softplus(scaled)
    if beta != 1:
        smooth = op.Div(smooth, float(beta))
    # log(1 + exp(15)) - 15 = 3.1e-7 is less than half a unit in the last place of 15 in float32, and so is
    # log(1 + exp(36)) - 36 = 2.3e-16 in float64: beyond that the two branches are one
    if threshold >= (36 if x.dtype == _DOUBLE else 15):
        return smooth
    return op.Where(op.Greater(scaled, float(threshold)), x, smooth)


@lowers("aten.log_sigmoid.default")
def log_sigmoid(op: Emitter, x: ir.Value) -> ir.Value:
    """-softplus(-x)."""
    x = _working(op, x)
    return op.Neg(op.Softplus(op.Neg(x)))


@lowers("aten.log_sigmoid_forward.default")
def log_sigmoid_forward(op: Emitter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """log_sigmoid, and the buffer that only its gradient reads."""
    result = log_sigmoid(op, x)
    return result, op.constant([], x.dtype)


@lowers("aten.hardshrink.default")
def hardshrink(op: Emitter, x: ir.Value, lambd: float = 0.5) -> ir.Value:
    """0 where |x| is at most lambda."""
    inside = op.LessOrEqual(op.Abs(x), lambd)
    return op.Where(inside, 0.0, x)


@lowers("aten.softshrink.default")
def softshrink(op: Emitter, x: ir.Value, lambd: float = 0.5) -> ir.Value:
    """x moved towards 0 by lambda: x - clip(x, -lambda, lambda)."""
    # at infinity the difference stays infinite; NaN stays NaN
    return op.Sub(x, clamp_to(op, x, -lambd, lambd))


@lowers("aten.threshold.default")
def threshold(op: Emitter, x: ir.Value, threshold: float, value: float) -> ir.Value:
    """x where it exceeds the threshold (or is NaN), else ``value``."""
    if x.dtype in INTEGERS:
        threshold = math.floor(threshold)
    replaced = op.LessOrEqual(x, threshold)
    assert x.dtype is not None
    return op.Where(replaced, op.scalar(value, x.dtype), x)


@lowers("aten.glu.default")
def glu(op: Emitter, x: ir.Value, dim: int = -1) -> ir.Value:
    """The first half of an axis, gated by the sigmoid of the second."""
    first, second = op.Split(_working(op, x), axis=dim % op.rank(x), num_outputs=2, _outputs=2)
    return op.Mul(first, op.Sigmoid(second))


# -- softmax -----------------------------------------------------------------------------------------------------------


def _over_axis(op: Emitter, op_type: str, x: ir.Value, dim: int, dtype: ir.DataType) -> ir.Value:
    """Softmax or LogSoftmax; a scalar is a vector of one."""
    x = op.cast(x, dtype)
    rank = op.rank(x)
    if rank == 0:
        return op.Squeeze(op.single(op_type, op.Unsqueeze(x, [0]), axis=0), [0])
    # the last axis is named from the end: the same text for every rank
    axis = dim % rank
    return op.single(op_type, x, axis=-1 if axis == rank - 1 else axis)


@lowers("aten.softmax.int", "aten._softmax.default")
def softmax(op: Emitter, x: ir.Value, dim: int, dtype: Any = None, *_: Any) -> ir.Value:
    """Softmax over one axis, in the result's dtype."""
    return _over_axis(op, "Softmax", x, dim, op.dtype_of())


@lowers("aten.log_softmax.int", "aten._log_softmax.default")
def log_softmax(op: Emitter, x: ir.Value, dim: int, dtype: Any = None, *_: Any) -> ir.Value:
    """LogSoftmax over one axis, in the result's dtype."""
    return _over_axis(op, "LogSoftmax", x, dim, op.dtype_of())


@lowers("aten._safe_softmax.default")
def safe_softmax(op: Emitter, x: ir.Value, dim: int, dtype: Any = None) -> ir.Value:
    """Softmax that makes rows of nothing but -inf 0 instead of NaN."""
    plain = _over_axis(op, "Softmax", x, dim, op.dtype_of())
    masked = op.Equal(x, -math.inf)
    if op.rank(x) == 0:
        return op.Where(masked, op.scalar(0.0, plain.dtype), plain)
    empty = op.ReduceMin(masked, [dim], keepdims=1)
    return op.Where(empty, op.scalar(0.0, plain.dtype), plain)
