"""Element types that an older opset does not have at all: weights of them are stored in a wider type that it has.

int4, uint4, int2 and uint2 become int8 and uint8, float4 and float8e8m0 become float16 and float: exact, only larger.
Values that a run computes or that callers hand in cannot change their type; they are obstacles.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from graphforge.ir.versions import admitted_types, onnx_type_name, versions_of
from graphforge.transform import Rewriter

__all__ = ["retire_types"]

_T = ir.DataType

_STORED_AS = {
    _T.INT4: _T.INT8,
    _T.UINT4: _T.UINT8,
    _T.INT2: _T.INT8,
    _T.UINT2: _T.UINT8,
    _T.FLOAT4E2M1: _T.FLOAT,
    _T.FLOAT8E8M0: _T.FLOAT,
    _T.FLOAT8E4M3FN: _T.FLOAT,
    _T.FLOAT8E4M3FNUZ: _T.FLOAT,
    _T.FLOAT8E5M2: _T.FLOAT,
    _T.FLOAT8E5M2FNUZ: _T.FLOAT,
}
# Operators that hand on elements as they are, so that their result can follow a weight into another type.
_CARRYING = frozenset("Identity Reshape Transpose Squeeze Unsqueeze Flatten".split())


def retire_types(rewriter: Rewriter, version: int) -> Iterator[tuple[ir.Node, str]]:
    """Store weights of types that came with ``version`` otherwise; yields the nodes that hinder it, with the reason."""
    gone = _types_gone(version)
    if not gone:
        return
    graph = rewriter.graph
    pending = [value for value in graph.initializers.values() if value.dtype in gone and value.dtype in _STORED_AS]
    retired: list[ir.Value] = []
    while pending:
        value = pending.pop()
        retired.append(value)
        for user, _ in value._uses:
            if user.op_type in _CARRYING and user.domain == "" and user.inputs[0] is value:
                pending.extend(user.outputs)
    for value in retired:
        if value.is_graph_output() or value.dtype not in gone:
            continue
        assert value.dtype is not None
        wide = _STORED_AS[value.dtype]
        if value.const_value is not None and value.is_initializer():
            array = value.const_value.numpy().astype(np.dtype(wide.numpy()))
            rewriter.set_constant(value, ir.Tensor(array, dtype=wide, name=value.name))
        else:
            rewriter.set_type(value, ir.TensorType(wide))
    for node in graph.all_nodes():
        for other in (*node.inputs, *node.outputs):
            if other is not None and isinstance(other.type, ir.TensorType) and other.type.dtype in gone:
                name = other.type.dtype.name.lower()
                yield node, f"{other.name!r} is of type {name}, which opset {version - 1} lacks"
                break


def _types_gone(version: int) -> frozenset[ir.DataType]:
    """The types that Cast admits at ``version`` and not before: what the older opset has no way to make or read."""
    history = versions_of("Cast")
    if version not in history:
        return frozenset()
    before = max(since for since in history if since < version)
    new = admitted_types("Cast", version)["T1"] - admitted_types("Cast", before)["T1"]
    return frozenset(kind for kind in ir.DataType if kind.name != "UNDEFINED" and _name(kind) in new)


def _name(kind: ir.DataType) -> str:
    return onnx_type_name(ir.TensorType(kind))
