"""An element type that the older operator does not admit: cast to a wider one and back, where that is exact."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphforge.ir import schema_of
from graphforge.ir.versions import Conflict, admitted_types, formal_parameters, onnx_type_name
from graphforge.passes.opset.step import Step, Values

__all__ = ["widened"]

_T = ir.DataType

# Wider types in which every element of the type keeps its value, the cheapest first.
_WIDER: dict[ir.DataType, tuple[ir.DataType, ...]] = {
    _T.BFLOAT16: (_T.FLOAT, _T.DOUBLE),
    _T.FLOAT16: (_T.FLOAT, _T.DOUBLE),
    _T.FLOAT: (_T.DOUBLE,),
    _T.INT8: (_T.INT32, _T.INT64, _T.FLOAT, _T.DOUBLE),
    _T.UINT8: (_T.INT32, _T.INT64, _T.FLOAT, _T.DOUBLE),
    _T.INT16: (_T.INT32, _T.INT64, _T.FLOAT, _T.DOUBLE),
    _T.UINT16: (_T.INT32, _T.INT64, _T.FLOAT, _T.DOUBLE),
    _T.INT32: (_T.INT64, _T.DOUBLE),
    _T.UINT32: (_T.INT64, _T.DOUBLE),
    _T.BOOL: (_T.UINT8, _T.INT32, _T.INT64, _T.FLOAT),
    _T.FLOAT8E4M3FN: (_T.FLOAT16, _T.FLOAT),
    _T.FLOAT8E4M3FNUZ: (_T.FLOAT16, _T.FLOAT),
    _T.FLOAT8E5M2: (_T.FLOAT16, _T.FLOAT),
    _T.FLOAT8E5M2FNUZ: (_T.FLOAT16, _T.FLOAT),
}

# Their results are elements of their inputs, so the way through any wider type is exact.
_SELECTING = frozenset(
    "Abs ArgMax ArgMin Clip Compress Concat DepthToSpace Dropout Expand Flatten Gather GatherElements GatherND Greater "
    "GreaterOrEqual Equal Identity IsInf IsNaN Less LessOrEqual Max MaxPool Min Neg NonZero OneHot Pad ReduceMax "
    "ReduceMin Relu Reshape ReverseSequence ScatterElements ScatterND Shape Sign Size Slice SpaceToDepth Split Squeeze "
    "Tile TopK Transpose Trilu Unique Unsqueeze Where".split()
)

# Results that do not fit wrap around on the way back, as they would have in the narrow type.
_WRAPPING = frozenset("Add Sub Mul Div Mod CumSum Sum".split())

# The element type is the meaning here.
_NEVER = frozenset(
    "BitCast BitShift Cast CastLike Constant ConstantOfShape DequantizeLinear DynamicQuantizeLinear EyeLike "
    "If Loop Multinomial Optional OptionalGetElement OptionalHasElement QLinearConv QuantizeLinear RandomNormal "
    "RandomNormalLike RandomUniform RandomUniformLike Scan SequenceMap SplitToSequence".split()
)
_INTEGERS = frozenset((_T.INT8, _T.UINT8, _T.INT16, _T.UINT16, _T.INT32, _T.UINT32, _T.BOOL))


def widened(step: Step, conflict: Conflict) -> Values | None:
    """The node between casts; None when no wider type is exact or the operator's meaning depends on the type."""
    node = step.node
    schema = schema_of(node.op_type, "", step.opset)
    if schema is None or node.op_type in _NEVER or not conflict.name:
        return None
    inputs = [(value, formal.type_str) for value, formal in formal_parameters(node.inputs, schema.inputs)]
    outputs = [(value, formal.type_str) for value, formal in formal_parameters(node.outputs, schema.outputs)]
    bound_types = [value.type for value, name in (*inputs, *outputs) if name == conflict.name]
    if not bound_types or not all(isinstance(kind, ir.TensorType) for kind in bound_types):
        return None  # sequences and optional values cannot be cast
    narrow = bound_types[0].dtype if bound_types[0] is not None else None
    if narrow is None:
        return None
    # Where the schema names a type instead of a variable, that type is all it admits.
    allowed = admitted_types(node.op_type, schema.since_version).get(conflict.name, frozenset((conflict.name,)))
    wide = _choose(node.op_type, narrow, allowed, step.opset)
    if wide is None:
        return None
    bound = {value for value, name in inputs if name == conflict.name and value.dtype == narrow}
    given = [step.op.Cast(value, to=wide.value) if value in bound else value for value in node.inputs]
    attributes: dict[str, Any] = dict(node.attributes.items())
    made = step.op.node(node.op_type, given, _outputs=len(node.outputs), **attributes)
    results = made if isinstance(made, tuple) else (made,)
    names = dict(outputs)
    values: list[ir.Value | None] = []
    for old, new in zip(node.outputs, results, strict=True):
        if names.get(old) != conflict.name:
            values.append(new)
            continue
        step.rewriter.set_type(new, ir.TensorType(wide))
        values.append(step.op.Cast(new, to=narrow.value))
    return values


def _choose(op_type: str, narrow: ir.DataType, allowed: frozenset[str], opset: int) -> ir.DataType | None:
    cast = admitted_types("Cast", _since("Cast", opset))["T1"]
    if onnx_type_name(ir.TensorType(narrow)) not in cast:
        return None  # the type itself does not exist there
    for wide in _WIDER.get(narrow, ()):
        if onnx_type_name(ir.TensorType(wide)) not in allowed:
            continue
        if narrow in _INTEGERS and op_type not in _SELECTING:
            exact = op_type in _WRAPPING and wide in (_T.INT32, _T.INT64) and narrow != _T.BOOL
            if not exact:
                continue
        if narrow.name.startswith("FLOAT8") and op_type not in _SELECTING:
            continue
        if narrow == _T.FLOAT and op_type not in _SELECTING:
            continue
        return wide
    return None


def _since(op_type: str, opset: int) -> int:
    schema = schema_of(op_type, "", opset)
    assert schema is not None
    return int(schema.since_version)
