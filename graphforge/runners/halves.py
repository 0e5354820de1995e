"""A graph in float16 or bfloat16 run as it is written.    Sqrt(x: f16)  ==>  Cast(Sqrt(Cast(x to f32)) to f16)

ONNX Runtime on the CPU has float32 kernels in place of most of float16: it casts in front of them and behind them,
takes the casts between one node and the next for nothing, and so rounds nothing, and nothing overflows.  An Identity
in between changes nothing about that.  Casts that the graph itself has stay: by them every runtime means the same.
"""

from __future__ import annotations

import onnx_ir as ir

from graphforge.ir.bodies import bodies_of

__all__ = ["rounded_throughout"]

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
# What computes nothing in halves, or says its element type in an attribute.
_AS_IT_IS = frozenset(
    "Bernoulli Cast CastLike Constant ConstantOfShape DequantizeLinear EyeLike QuantizeLinear RandomNormal "
    "RandomNormalLike RandomUniform RandomUniformLike".split()
)


def rounded_throughout(model: ir.Model) -> None:
    """Let no runtime leave out that a result is rounded: the main graph's nodes compute in float32, between casts."""
    graph = model.graph
    full: dict[ir.Value, ir.Value] = {}
    outputs = {value: position for position, value in enumerate(graph.outputs)}
    for node in list(graph):
        halves = [value for value in node.outputs if _is_half(value)]
        if not halves or node.op_type in _AS_IT_IS or next(iter(bodies_of(node)), None) is not None:
            continue
        for position, value in enumerate(node.inputs):
            if value is None or not _is_half(value):
                continue
            if value not in full:
                cast = _cast(value, ir.DataType.FLOAT, f"{value.name}/in_full")
                graph.insert_before(node, cast)
                full[value] = cast.outputs[0]
            node.replace_input_with(position, full[value])
        for value in halves:
            name, kind = value.name, value.dtype
            assert kind is not None
            users = list(value.uses())
            value.name = f"{name}/unrounded"
            value.type = ir.TensorType(ir.DataType.FLOAT)
            cast = _cast(value, kind, str(name))
            graph.insert_after(node, cast)
            for user, position in users:
                user.replace_input_with(position, cast.outputs[0])
            if value in outputs:
                graph.outputs[outputs[value]] = cast.outputs[0]


def _is_half(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType) and value.dtype in _HALVES


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    made = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], outputs=[made])
