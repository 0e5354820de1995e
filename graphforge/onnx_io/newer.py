"""Forms that are newer than the home opset: said with what the home opset has, where that means the same."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir import HOME_OPSET, Builder, schema_of
from graphforge.ir.describe import describe
from graphforge.ir.versions import conflict_of, expand_function

__all__ = ["lower_to_home"]

# Operators that move elements, or compute in float inside anyway, so that bfloat16 may go through float.
_EXACT_IN_FLOAT = frozenset({"Compress", "OneHot", "ReverseSequence", "Unique", "Einsum"})
_UNSIGNED = {
    ir.DataType.INT8: ir.DataType.UINT8,
    ir.DataType.INT16: ir.DataType.UINT16,
    ir.DataType.INT32: ir.DataType.UINT32,
    ir.DataType.INT64: ir.DataType.UINT64,
}
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def lower_to_home(node: ir.Node, op: Builder, version: int) -> list[ir.Value | None] | None:
    """Values that stand for the node at the home opset; None when the node, perhaps trimmed, is legal there as it is.

    Raises:
        GraphForgeError: the home opset cannot say it.
    """
    if node.op_type == "Mod":
        values = _floor_mod(node, op)
        if values is not None:
            return values
    _drop_defaults(node, version)
    problem = conflict_of(node, HOME_OPSET)
    if problem is None:
        return None
    if node.op_type == "SpaceToDepth":
        return _space_to_depth(node, op)
    if node.op_type == "BitShift":
        return _signed_shift(node, op)
    if node.op_type in _EXACT_IN_FLOAT:
        return _in_float(node, op)
    home, op.opset = op.opset, version
    try:
        values = expand_function(node, op, version)
    finally:
        op.opset = home
    if values is None:
        raise GraphForgeError(
            f"{describe(node)} needs opset {version}: {problem.text}",
            f"graphs are compiled at opset {HOME_OPSET}; export the model at that opset or below",
        )
    for made in list(op.created):
        _settle(made, version)
    return values


def _settle(made: ir.Node, version: int) -> None:
    """Check that a node of an expanded function means the same at the home opset."""
    schema = schema_of(made.op_type, made.domain, version)
    if schema is None or schema.since_version <= HOME_OPSET:
        return
    _drop_defaults(made, version)
    problem = conflict_of(made, HOME_OPSET)
    if problem is not None:
        raise GraphForgeError(f"{describe(made)} needs opset {version}: {problem.text}")


def _drop_defaults(node: ir.Node, version: int) -> None:
    """Remove attributes that the home opset does not know and that say what it does anyway."""
    here, there = schema_of(node.op_type, "", HOME_OPSET), schema_of(node.op_type, "", version)
    if here is None or there is None:
        return
    for name in list(node.attributes):
        if name in here.attributes or name not in there.attributes:
            continue
        default = there.attributes[name].default_value
        if default.name and ir.serde.deserialize_attribute(default).value == node.attributes[name].value:
            del node.attributes[name]
    # The accumulation type of Range matters for half floats only, and those do not exist before.
    if node.op_type == "Range" and node.outputs[0].dtype not in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        node.attributes.pop("stash_type", None)


def _floor_mod(node: ir.Node, op: Builder) -> list[ir.Value | None] | None:
    """Mod of floats with the divisor's sign, new at 28:  r = fmod(a, b);  r + b where r and b differ in sign."""
    a, b = node.inputs
    attribute = node.attributes.get("fmod")
    if a is None or a.dtype not in _FLOATS or (attribute is not None and attribute.as_int() == 1):
        return None
    rest = op.Mod(a, b, fmod=1)
    zero = op.CastLike(0.0, a)
    differ = op.And(op.Not(op.Equal(rest, zero)), op.Xor(op.Less(rest, zero), op.Less(b, zero)))
    return [op.Where(differ, op.Add(rest, b), rest)]


def _in_float(node: ir.Node, op: Builder) -> list[ir.Value | None]:
    """bfloat16, new at 28:  cast to float, compute, cast back."""
    half, wide = ir.DataType.BFLOAT16, ir.DataType.FLOAT.value
    inputs = [op.Cast(v, to=wide) if v is not None and v.dtype == half else v for v in node.inputs]
    attributes: dict[str, Any] = dict(node.attributes.items())
    made = op.node(node.op_type, inputs, _outputs=len(node.outputs), **attributes)
    values = made if isinstance(made, tuple) else (made,)
    return [op.Cast(new, to=half.value) if new.dtype == ir.DataType.FLOAT else new for new in values]


def _signed_shift(node: ir.Node, op: Builder) -> list[ir.Value | None]:
    """Signed integers, new at 28: shift the bits; a negative number shifts right by way of its complement."""
    x, amount = node.inputs
    assert x is not None
    assert x.dtype is not None
    unsigned = _UNSIGNED[x.dtype]
    bits, by = op.BitCast(x, to=unsigned.value), op.BitCast(amount, to=unsigned.value)
    in_range = op.Less(by, x.dtype.bitwidth)
    by = op.Where(in_range, by, op.constant(0, unsigned))
    zero = op.constant(0, unsigned)
    if node.attributes["direction"].as_string() == "LEFT":
        shifted = op.Where(in_range, op.BitShift(bits, by, direction="LEFT"), zero)
        return [op.BitCast(shifted, to=x.dtype.value)]
    negative = op.Less(x, 0)
    magnitude = op.Where(negative, op.BitwiseNot(bits), bits)
    shifted = op.Where(in_range, op.BitShift(magnitude, by, direction="RIGHT"), zero)
    return [op.BitCast(op.Where(negative, op.BitwiseNot(shifted), shifted), to=x.dtype.value)]


def _space_to_depth(node: ir.Node, op: Builder) -> list[ir.Value | None]:
    """Mode CRD, new at 28: the channel comes first and the block's row and column after it."""
    x = node.inputs[0]
    size = node.attributes["blocksize"].as_int()
    shape = op.Shape(x)
    parts = op.Split(shape, axis=0, num_outputs=4, _outputs=4)
    rows, columns = op.Div(parts[2], [size]), op.Div(parts[3], [size])
    blocks = op.Concat(parts[0], parts[1], rows, [size], columns, [size], axis=0)
    cut = op.Transpose(op.Reshape(x, blocks), perm=[0, 1, 3, 5, 2, 4])
    return [op.Reshape(cut, op.Concat(parts[0], op.Mul(parts[1], [size * size]), rows, columns, axis=0))]
