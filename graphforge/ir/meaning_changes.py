"""Versions that changed what an operator means under the same signature: which nodes are touched, and who carries it.

The schemas tell what an opset admits, not what it means.  Each change that they do not show is entered here once.
``opsets/audit.py`` asks its question, ``passes/opset/lower_*.py`` have the step down over it, ``onnx_io/older.py`` has
the step up.  Where a step is not needed, the entry says why; a test holds the three against this table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from graphforge.ir.infer import constant_of, schema_of

__all__ = ["MEANING_CHANGES", "MeaningChange", "spoken_defaults", "why_it_differs"]

Question: TypeAlias = Callable[[ir.Node], str]


@dataclass(frozen=True, slots=True)
class MeaningChange:
    """A change of meaning that the signature does not show.

    Attributes:
        operator: the operator.
        version: the opset that brought it.
        question: why a node of this version means something else below it; "" when it means the same.
        spoken: attributes whose default changed: stating them is what makes a node readable below.
        no_lowering: why no step leads down over it, "" when one does.
        no_raising: why no step leads up over it, "" when one does.
    """

    operator: str
    version: int
    question: Question
    spoken: tuple[str, ...] = ()
    no_lowering: str = ""
    no_raising: str = ""


def why_it_differs(node: ir.Node, version: int) -> str:
    """Why the node means something else below ``version``; "" when it means the same."""
    change = _BY_VERSION.get((node.op_type, version))
    return "" if change is None else change.question(node)


def spoken_defaults(operator: str) -> frozenset[str]:
    """Attributes of the operator whose default differs from version to version."""
    return frozenset(name for change in MEANING_CHANGES if change.operator == operator for name in change.spoken)


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _last_axis_only(node: ir.Node) -> str:
    """Softmax-13 works along one axis; before, all axes from there on were flattened, and the axis was 1 by default."""
    axis, rank = node.attributes.get("axis"), _rank(node.inputs[0])
    if rank is None:
        return "works along one axis only since opset 13, and the rank here is unknown"
    given = -1 if axis is None else axis.as_int()
    if given % rank != rank - 1:
        return f"works along axis {given} alone since opset 13, before it flattened all axes from there on"
    if axis is None and rank != 2:
        return "leaves out the axis, which is the last one since opset 13 and was 1 before"
    return ""


def _negative_axis(node: ir.Node) -> str:
    axis = node.attributes.get("axis")
    axes = node.attributes.get("axes")
    given = [axis.as_int()] if axis is not None else list(axes.as_ints()) if axes is not None else []
    if axis is None and axes is None:
        schema = schema_of(node.op_type, "", 11)
        known = schema.attributes.get("axis") if schema is not None else None
        if known is not None and known.default_value.name:
            given = [known.default_value.i]
    return "counts an axis from the end, which opset 11 brought" if any(number < 0 for number in given) else ""


def _negative_indices(node: ir.Node) -> str:
    found = _negative_axis(node)
    if found:
        return found
    indices = constant_of(node.inputs[1])
    return "has negative indices, which opset 11 brought" if indices is not None and (indices < 0).any() else ""


def _negative_slice_axes(node: ir.Node) -> str:
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return ""
    axes = constant_of(node.inputs[3])
    if axes is None:
        return "has axes that are not constant, and negative ones came with opset 11"
    return "counts an axis from the end, which opset 11 brought" if (axes < 0).any() else ""


def _value_of(name: str, *values: str, since: int) -> Question:
    """The attribute has one of the values that the version brought."""

    def ask(node: ir.Node) -> str:
        attribute = node.attributes.get(name)
        if attribute is None or attribute.as_string() not in values:
            return ""
        return f"sets {name} to {attribute.as_string()}, which opset {since} brought"

    return ask


def _volumetric_or_renamed(node: ir.Node) -> str:
    """GridSample-20: bilinear and bicubic became linear and cubic, and volumes came in."""
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() in ("linear", "cubic"):
        return f"calls its mode {mode.as_string()}, which was bi{mode.as_string()} before opset 20"
    rank = _rank(node.inputs[0])
    return "" if rank == 4 else "samples something else than 4-D images, which opset 20 brought"


def _per_channel(node: ir.Node) -> str:
    rank = _rank(node.inputs[1])
    return "" if rank == 0 else "has a scale for each channel, which opset 13 brought"


def _broadcasts(node: ir.Node) -> str:
    shapes = [None if value is None or value.shape is None else tuple(value.shape) for value in node.inputs]
    if None not in shapes and len(set(shapes)) <= 1:
        return ""
    return "broadcasts its inputs, which opset 8 brought"


def _floors_floats(node: ir.Node) -> str:
    """Mod-28: fmod=0 takes floats too; before it was for integers alone, and floats had to say fmod=1."""
    fmod, dividend = node.attributes.get("fmod"), node.inputs[0]
    of_integers = dividend is not None and dividend.dtype is not None and dividend.dtype.is_integer()
    if of_integers or (fmod is not None and fmod.as_int() == 1):
        return ""
    return "has fmod=0, which is for integers alone before opset 28"


def _always(text: str) -> Question:
    return lambda node: text


_BELOW_11 = "no opset below 11 is written"
_ONLY_MORE = "what an older file can say means the same since"
_AXIS_FROM_THE_END = (
    "ArgMax ArgMin Concat Flatten GatherElements OneHot ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax "
    "ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Split Squeeze TopK Unsqueeze Softmax LogSoftmax Hardmax"
).split()
_COORDINATES = "coordinate_transformation_mode"
_SYMMETRIC = _value_of(_COORDINATES, "half_pixel_symmetric", since=19)
_EXTREMES = _value_of("reduction", "max", "min", since=18)
_PER_CHANNEL_NORM = _always("has scale and bias per channel since opset 21, before it had them per group")
_PIXEL_CENTRES = _always("takes pixels by their centre or states that it does not, which opset 16 brought")
_FORMULA = _always("maps coordinates by the formula that opset 11 brought")
_AFTER_HOME = "newer than the opset that graphs are compiled at; onnx_io/newer.py reads it"

MEANING_CHANGES: tuple[MeaningChange, ...] = (
    *(
        MeaningChange(operator, 8, _broadcasts, no_lowering=_BELOW_11, no_raising=_ONLY_MORE)
        for operator in ("Max", "Min", "Mean", "Sum")
    ),
    *(
        MeaningChange(operator, 11, _negative_axis, no_lowering=_BELOW_11, no_raising=_ONLY_MORE)
        for operator in _AXIS_FROM_THE_END
    ),
    MeaningChange("Gather", 11, _negative_indices, no_lowering=_BELOW_11, no_raising=_ONLY_MORE),
    MeaningChange("Slice", 11, _negative_slice_axes, no_lowering=_BELOW_11, no_raising=_ONLY_MORE),
    MeaningChange("Resize", 11, _FORMULA, no_lowering=_BELOW_11),
    *(
        MeaningChange(operator, 13, _last_axis_only, spoken=("axis",))
        for operator in ("Softmax", "LogSoftmax", "Hardmax")
    ),
    MeaningChange("DequantizeLinear", 13, _per_channel, no_raising=_ONLY_MORE),
    MeaningChange("QuantizeLinear", 13, _per_channel, no_raising=_ONLY_MORE),
    MeaningChange("Resize", 13, _SYMMETRIC, no_raising=_ONLY_MORE),
    MeaningChange("RoiAlign", 16, _PIXEL_CENTRES, spoken=(_COORDINATES,)),
    MeaningChange("ScatterElements", 18, _EXTREMES, no_raising=_ONLY_MORE),
    MeaningChange("ScatterND", 18, _EXTREMES, no_raising=_ONLY_MORE),
    MeaningChange("Pad", 19, _value_of("mode", "wrap", since=19), no_raising=_ONLY_MORE),
    MeaningChange("Resize", 19, _SYMMETRIC, no_raising=_ONLY_MORE),
    MeaningChange("GridSample", 20, _volumetric_or_renamed, spoken=("mode",)),
    MeaningChange("GroupNormalization", 21, _PER_CHANNEL_NORM),
    MeaningChange("Mod", 28, _floors_floats, no_lowering=_AFTER_HOME, no_raising=_AFTER_HOME),
)
_BY_VERSION = {(change.operator, change.version): change for change in MEANING_CHANGES}
