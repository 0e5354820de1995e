"""QuantizeLinear and DequantizeLinear: the older forms where they say it, plain arithmetic where they do not.

quantize:    saturate(round(x / scale) + zero_point)         dequantize:  (x - zero_point) * scale
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.step import HALF_FLOATS, Step, Values

__all__ = [
    "dequantize_13",
    "dequantize_19",
    "dequantize_21",
    "dequantize_23",
    "quantize_13",
    "quantize_19",
    "quantize_21",
    "quantize_23",
]

_T = ir.DataType
_BYTES = (_T.INT8, _T.UINT8)


def quantize_23(step: Step) -> Values | None:
    """Before 23, input and scale had one type, in which the division ran."""
    precision, kind, scale = step.int_of("precision", 0), step.dtype(0), step.dtype(1)
    wanted = ir.DataType(precision) if precision else scale
    step.set("precision", None)
    if kind == scale == wanted:
        return None
    x, by = step.op.Cast(step.need(0), to=wanted.value), step.op.Cast(step.need(1), to=wanted.value)
    return [step.same(x, by, step.input(2))]


def dequantize_23(step: Step) -> Values | None:
    """Before 23, the output had the type of the scale."""
    wanted, scale = step.int_of("output_dtype", 0), step.dtype(1)
    if wanted in (0, scale.value):
        step.set("output_dtype", None)
        return None
    y = step.same(step.need(0), step.need(1), step.input(2), output_dtype=None)
    return [step.op.Cast(y, to=wanted)]


def quantize_21(step: Step) -> Values | None:
    """Before 21, no blocks, no 16-bit results, and the zero point alone told the type."""
    target = _target(step)
    if _has_blocks(step) or target not in (*_BYTES, *_FLOAT8):
        return _quantized(step)
    step.set("block_size", None)
    if "output_dtype" in step.node.attributes:
        step.set("output_dtype", None)
        if step.input(2) is None and target != _T.UINT8:
            return [step.same(step.need(0), step.need(1), _zero_like_scale(step, target))]
    return None


def dequantize_21(step: Step) -> Values | None:
    """Before 21, no blocks and no 16-bit inputs."""
    if _has_blocks(step) or step.dtype() not in (*_BYTES, _T.INT32, *_FLOAT8):
        return _dequantized(step)
    step.set("block_size", None)
    return None


_FLOAT8 = (_T.FLOAT8E4M3FN, _T.FLOAT8E4M3FNUZ, _T.FLOAT8E5M2, _T.FLOAT8E5M2FNUZ)


def quantize_19(step: Step) -> Values | None:
    """Before 19, inputs were float or int32, scales float."""
    step.set("saturate", None)
    if _target(step) not in _BYTES:
        step.fail("results are 8-bit floats, which opset 18 lacks")
    if step.dtype(0) not in HALF_FLOATS and step.dtype(1) == _T.FLOAT:
        return None
    return _quantized(step)


def dequantize_19(step: Step) -> Values | None:
    """Before 19, scales and results were float."""
    if step.dtype(0) not in (*_BYTES, _T.INT32):
        return _dequantized(step)
    scale = step.dtype(1)
    if scale == _T.FLOAT:
        return None
    wide = step.same(step.need(0), step.op.Cast(step.need(1), to=_T.FLOAT.value), step.input(2))
    return [step.op.Cast(wide, to=scale.value)]


def quantize_13(step: Step) -> Values | None:
    """Before 13, one scale for the whole tensor."""
    if not _one_scale(step):
        return _quantized(step)
    step.set("axis", None)
    return None


def dequantize_13(step: Step) -> Values | None:
    """Before 13, one scale for the whole tensor."""
    if not _one_scale(step):
        return _dequantized(step)
    step.set("axis", None)
    return None


def _one_scale(step: Step) -> bool:
    return step.rank(1) == 0


def _has_blocks(step: Step) -> bool:
    return step.int_of("block_size", 0) != 0


def _target(step: Step) -> ir.DataType:
    if step.input(2) is not None:
        return step.dtype(2)
    named = step.int_of("output_dtype", 0)
    return ir.DataType(named) if named else _T.UINT8


def _zero_like_scale(step: Step, target: ir.DataType) -> ir.Value:
    scale = step.need(1)
    zero = step.op.constant(0, target)
    if step.rank(1) == 0:
        return zero
    spread = step.op.Expand(zero, step.op.Shape(scale))
    assert isinstance(spread, ir.Value)
    return spread


def _spread(step: Step, value: ir.Value) -> ir.Value:
    """A scale or zero point in a shape that broadcasts against the input."""
    op = step.op
    rank, own = step.rank(0), len(value.shape) if value.shape is not None else step.rank(1)
    axis = step.int_of("axis", 1) % max(rank, 1)
    if _has_blocks(step):
        # Every element ``block_size`` times along the axis, cut to the input's size.
        size = step.int_of("block_size", 0)
        wide = op.Unsqueeze(value, [axis + 1])
        repeats = np.ones(rank + 1, dtype=np.int64)
        repeats[axis + 1] = size
        shape = op.Shape(value)
        merged = op.Concat(*[_piece(step, shape, axis, other) for other in range(rank)], axis=0)
        full = op.Reshape(op.Tile(wide, repeats), merged)
        end = op.Slice(op.Shape(step.need(0)), [axis], [axis + 1])
        cut = op.Slice(full, [0], end, [axis])
        assert isinstance(cut, ir.Value)
        return cut
    if own == 0 or rank == 1:
        return value
    spread = op.Unsqueeze(value, [other for other in range(rank) if other != axis])
    assert isinstance(spread, ir.Value)
    return spread


def _piece(step: Step, shape: ir.Value, axis: int, other: int) -> ir.Value | np.ndarray:
    if other == axis:
        return np.array([-1], dtype=np.int64)
    piece = step.op.Slice(shape, [other], [other + 1])
    assert isinstance(piece, ir.Value)
    return piece


def _quantized(step: Step) -> Values:
    target = _target(step)
    if not target.is_integer() and target != _T.UINT8:
        step.fail(f"results are {target.name.lower()}, which opset {step.opset} cannot round to")
    if target.bitwidth > 16:
        step.fail(f"results are {target.name.lower()}, which quantisation does not make")
    op = step.op
    inside = _T.FLOAT
    x = op.Cast(step.need(0), to=inside.value) if step.dtype(0) != inside else step.need(0)
    scale = _spread(step, step.need(1))
    scale = op.Cast(scale, to=inside.value) if step.dtype(1) != inside else scale
    rounded = op.Round(op.Div(x, scale))
    zero = step.input(2)
    if zero is not None:
        rounded = op.Add(rounded, op.Cast(_spread(step, zero), to=inside.value))
    unsigned = target.name.startswith("U")
    low = 0.0 if unsigned else float(-(1 << (target.bitwidth - 1)))
    high = float((1 << (target.bitwidth - (0 if unsigned else 1))) - 1)
    return [op.Cast(op.Clip(rounded, low, high), to=target.value)]


def _dequantized(step: Step) -> Values:
    op = step.op
    kind = step.dtype(1)
    inside = _T.FLOAT if kind in HALF_FLOATS else kind
    scale = _spread(step, step.need(1))
    scale = op.Cast(scale, to=inside.value) if kind != inside else scale
    x = step.need(0) if step.dtype(0) == inside else op.Cast(step.need(0), to=inside.value)
    zero = step.input(2)
    if zero is not None:
        spread = _spread(step, zero)
        x = op.Sub(x, spread if zero.dtype == inside else op.Cast(spread, to=inside.value))
    y = op.Mul(x, scale)
    return [op.Cast(y, to=kind.value) if kind != inside else y]
