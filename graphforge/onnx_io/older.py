"""What changed in ONNX's operators from opset 6 to the home opset, as steps that bring one node over one change.

A step (`Raise`) is for one operator and the version that brought the change.  It edits the node in place and returns
None, or builds something else in the home opset and returns the values that replace the node's outputs.  Changes that
only admitted more types need no step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir import Builder, constant_of, schema_of
from graphforge.ir.describe import describe
from graphforge.onnx_io.scan_8 import scan_9_from_8

__all__ = ["RAISES", "Raise"]

Values: TypeAlias = list[ir.Value | None]
Raise: TypeAlias = Callable[[ir.Node, Builder], Values | None]


def _ints(node: ir.Node, name: str) -> list[int] | None:
    attribute = node.attributes.get(name)
    return None if attribute is None else [int(item) for item in attribute.as_ints()]


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _float(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def _drop(node: ir.Node, *names: str) -> None:
    for name in names:
        node.attributes.pop(name, None)


def _set_input(node: ir.Node, position: int, value: ir.Value | None) -> None:
    if value is None:
        return
    if len(node.inputs) <= position:
        node.resize_inputs(position + 1)
    node.replace_input_with(position, value)


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _need_rank(node: ir.Node, position: int) -> int:
    rank = _rank(node.inputs[position])
    if rank is None:
        raise GraphForgeError(
            f"{describe(node)}: its old form depends on the rank of input {position}, which is not known",
            "give the model's inputs shapes, or export it at a newer opset",
        )
    return rank


def _is_read(value: ir.Value) -> bool:
    return bool(value._uses) or value.is_graph_output()


def _attributes_to_inputs(*moves: tuple[str, int]) -> Raise:
    """Attributes that became inputs: (attribute, position) each; an absent one stays absent."""

    def raised(node: ir.Node, op: Builder) -> None:
        for name, position in moves:
            attribute = node.attributes.get(name)
            if attribute is None:
                continue
            items = attribute.value
            if isinstance(items, float):
                kind = node.inputs[0].dtype if node.inputs[0] is not None else None
                _set_input(node, position, op.constant(items, kind or ir.DataType.FLOAT))
            elif isinstance(items, int):
                _set_input(node, position, op.constant([items]))
            elif len(items) > 0:
                _set_input(node, position, op.constant([int(item) for item in items]))
            _drop(node, name)

    return raised


def _dropped(*names: str) -> Raise:
    """Attributes that are gone and said nothing that still matters."""

    def raised(node: ir.Node, op: Builder) -> None:
        _drop(node, *names)

    return raised


def _with_default(name: str, value: str | int) -> Raise:
    """The default changed: spell out the old one."""

    def raised(node: ir.Node, op: Builder) -> None:
        if name not in node.attributes:
            node.attributes[name] = ir.convenience.convert_attribute(name, value)

    return raised


def _numpy_broadcast(node: ir.Node, op: Builder) -> None:
    """Before 7, broadcasting was asked for and ``axis`` said where the second operand's dims stand."""
    axis = node.attributes.get("axis")
    if _int(node, "broadcast", 0) and axis is not None:
        left, right = _need_rank(node, 0), _need_rank(node, 1)
        first = axis.as_int() % left
        trailing = left - first - right
        if trailing > 0:
            _set_input(node, 1, op.Unsqueeze(node.inputs[1], list(range(right, right + trailing))))
    _drop(node, "broadcast", "axis", "consumed_inputs")


def _slope_of_channels(node: ir.Node, op: Builder) -> None:
    """Before 7, a slope with one element per channel stood for axis 1."""
    left, right = _need_rank(node, 0), _need_rank(node, 1)
    slope = node.inputs[1]
    if right == 1 and left > 2 and slope is not None and slope.shape is not None and slope.shape[0] != 1:
        _set_input(node, 1, op.Unsqueeze(slope, list(range(1, left - 1))))
    _drop(node, "consumed_inputs")


def _coerced_axis(node: ir.Node, op: Builder) -> Values | None:
    """Before 13, all dims from ``axis`` (default 1) on were taken together."""
    axis = _int(node, "axis", 1)
    rank = _rank(node.inputs[0])
    if axis == -1 or (rank is not None and axis % max(rank, 1) == rank - 1):
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
        return None
    x = node.inputs[0]
    flat = op.node(node.op_type, [op.Flatten(x, axis=axis)], axis=-1)
    return [op.Reshape(flat, op.Shape(x), allowzero=1)]


def _even_split(node: ir.Node, op: Builder) -> None:
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _dropout_mask(node: ir.Node, op: Builder) -> Values | None:
    """Before 7, training was the default; before 10, the mask was a float."""
    training = "is_test" in node.attributes and _int(node, "is_test", 0) == 0
    ratio = _float(node, "ratio", 0.5)
    if len(node.outputs) < 2 or not _is_read(node.outputs[1]):
        if not training:
            _drop(node, "is_test", "consumed_inputs")
            return None
        return [op.Dropout(node.inputs[0], ratio, True), None][: len(node.outputs)]
    y, mask = op.Dropout(node.inputs[0], ratio, training, _outputs=2)
    return [y, op.CastLike(mask, node.inputs[0])]


def _dropout_6(node: ir.Node, op: Builder) -> Values | None:
    if "is_test" not in node.attributes:
        node.attributes["is_test"] = ir.AttrInt64("is_test", 0)
    return _dropout_mask(node, op)


def _batch_norm_6(node: ir.Node, op: Builder) -> Values | None:
    """Training was the default; now more outputs than one say it."""
    if _int(node, "is_test", 0) == 0 and len(node.outputs) == 1:
        node.attributes["training_mode"] = ir.AttrInt64("training_mode", 1)
    _drop(node, "is_test", "consumed_inputs")
    return None


def _batch_norm_7(node: ir.Node, op: Builder) -> Values | None:
    """Statistics for every element instead of every channel (spatial=0) are gone: plain arithmetic says it."""
    if _int(node, "spatial", 1):
        _drop(node, "spatial")
        return None
    if any(_is_read(value) for value in node.outputs[1:]):
        raise GraphForgeError(f"{describe(node)} trains with spatial=0, which later opsets cannot say")
    x, scale, bias, mean, variance = node.inputs
    deviation = op.Sqrt(op.Add(variance, _float(node, "epsilon", 1e-5)))
    y = op.Add(op.Mul(op.Div(op.Sub(x, mean), deviation), scale), bias)
    return [y, *[None for _ in node.outputs[1:]]]


def _batch_norm_9(node: ir.Node, op: Builder) -> Values | None:
    if any(_is_read(value) for value in node.outputs[3:]):
        raise GraphForgeError(f"{describe(node)}: saved_mean and saved_var exist before opset 14 only")
    if any(_is_read(value) for value in node.outputs[1:]):
        node.attributes["training_mode"] = ir.AttrInt64("training_mode", 1)
    if len(node.outputs) > 3:
        node.resize_outputs(3)
    return None


def _upsample(node: ir.Node, op: Builder) -> Values:
    """Upsample became Resize; it never shifted coordinates and took the element to the left."""
    scales: ir.Value | list[float] | None
    if "scales" in node.attributes:
        scales = [float(item) for item in node.attributes["scales"].as_floats()]
    elif "height_scale" in node.attributes:
        scales = [1.0, 1.0, _float(node, "height_scale", 1.0), _float(node, "width_scale", 1.0)]
    else:
        scales = node.inputs[1]
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "nearest"
    return [_asymmetric_resize(op, node.inputs[0], scales, mode, "floor")]


def _asymmetric_resize(
    op: Builder, x: ir.Value | None, scales: ir.Value | list[float] | None, mode: str, rounding: str
) -> ir.Value:
    resized = op.Resize(
        x,
        None,
        np.array(scales, dtype=np.float32) if isinstance(scales, list) else scales,
        mode="linear" if mode in ("linear", "bilinear") else mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode=rounding if mode == "nearest" else None,
    )
    assert isinstance(resized, ir.Value)
    return resized


def _resize_10(node: ir.Node, op: Builder) -> Values:
    """Resize of opset 10 is asymmetric; nearest takes the left element, and rounds up on axes that shrink.

    The specification leaves the rounding open; this is what ONNX Runtime computes (NearestMode::SIMPLE).
    """
    x, scales = node.inputs[0], node.inputs[1]
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "nearest"
    known = constant_of(scales)
    if mode != "nearest" or known is None or (known >= 1).all():
        return [_asymmetric_resize(op, x, scales, mode, "floor")]
    growing = [float(max(scale, 1.0)) for scale in known]
    shrinking = [float(min(scale, 1.0)) for scale in known]
    if any(scale > 1 for scale in growing):
        x = _asymmetric_resize(op, x, growing, mode, "floor")
    return [_asymmetric_resize(op, x, shrinking, mode, "ceil")]


def _scatter(node: ir.Node, op: Builder) -> Values:
    return [op.ScatterElements(*node.inputs, axis=_int(node, "axis", 0))]


def _group_norm_18(node: ir.Node, op: Builder) -> None:
    """Scale and bias were one per group, now one per channel."""
    x = node.inputs[0]
    groups = _int(node, "num_groups", 1)
    channels = op.Shape(x, start=1, end=2)
    size = op.Concat([groups], op.Div(channels, [groups]), axis=0)
    for position in (1, 2):
        wide = op.Expand(op.Unsqueeze(node.inputs[position], [1]), size)
        _set_input(node, position, op.Reshape(wide, [-1]))


_GRID_MODES = {"bilinear": "linear", "bicubic": "cubic"}


def _grid_sample_16(node: ir.Node, op: Builder) -> None:
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "bilinear"
    node.attributes["mode"] = ir.AttrString("mode", _GRID_MODES.get(mode, mode))


def _dft_17(node: ir.Node, op: Builder) -> None:
    _set_input(node, 2, op.constant(_int(node, "axis", 1)))
    _drop(node, "axis")


def _erf_9(node: ir.Node, op: Builder) -> Values | None:
    """Integers were admitted before 13."""
    x = node.inputs[0]
    schema = schema_of("Erf", "", 13)
    assert schema is not None
    if x is None or x.dtype is None or x.dtype.is_floating_point():
        return None
    return [op.CastLike(op.Erf(op.Cast(x, to=ir.DataType.FLOAT.value)), x)]


_BROADCAST_7 = dict.fromkeys("Add Sub Mul Div Pow And Or Xor Equal Greater Less Gemm".split(), ((7, _numpy_broadcast),))
_AXES_18 = (18, _attributes_to_inputs(("axes", 1)))
_REDUCTIONS = dict.fromkeys(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare".split(),
    (_AXES_18,),
)
_COERCED = dict.fromkeys("Softmax LogSoftmax Hardmax".split(), ((13, _coerced_axis),))
_RECURRENT = dict.fromkeys("RNN LSTM GRU".split(), ((7, _dropped("output_sequence")),))

# Operator -> (version that brought the change, step), rising.
RAISES: dict[str, tuple[tuple[int, Raise], ...]] = {
    **_BROADCAST_7,
    **_REDUCTIONS,
    **_COERCED,
    **_RECURRENT,
    "PRelu": ((7, _slope_of_channels),),
    "BatchNormalization": ((7, _batch_norm_6), (9, _batch_norm_7), (14, _batch_norm_9)),
    "Dropout": ((7, _dropout_6), (10, _dropout_mask), (12, _attributes_to_inputs(("ratio", 1)))),
    "Upsample": ((10, _upsample),),
    "Scan": ((9, scan_9_from_8),),
    "Slice": ((10, _attributes_to_inputs(("starts", 1), ("ends", 2), ("axes", 3))),),
    "TopK": ((10, _attributes_to_inputs(("k", 1))),),
    "Resize": ((11, _resize_10),),
    "Scatter": ((11, _scatter),),
    "Clip": ((11, _attributes_to_inputs(("min", 1), ("max", 2))),),
    "Pad": ((11, _attributes_to_inputs(("pads", 1), ("value", 2))),),
    "Erf": ((13, _erf_9),),
    "Squeeze": ((13, _attributes_to_inputs(("axes", 1))),),
    "Unsqueeze": ((13, _attributes_to_inputs(("axes", 1))),),
    "ReduceSum": ((13, _attributes_to_inputs(("axes", 1))),),
    "Split": ((13, _attributes_to_inputs(("split", 1))), (18, _even_split)),
    "RoiAlign": ((16, _with_default("coordinate_transformation_mode", "output_half_pixel")),),
    "GridSample": ((20, _grid_sample_16),),
    "DFT": ((20, _dft_17),),
    "GroupNormalization": ((21, _group_norm_18),),
}
