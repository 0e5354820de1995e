"""How many sums of products stand one behind the other on the way to each output: what rounding grows with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphforge.ir import bodies_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["depths_of_outputs"]

_SUMS = frozenset("Conv ConvTranspose MatMul Gemm Attention LSTM GRU RNN Einsum".split())


def depths_of_outputs(model: ir.Model) -> dict[str, int]:
    """Output -> the longest row of them; bodies of loops count once."""
    known: dict[ir.Value, int] = {}

    def walk(graph: ir.Graph) -> None:
        for node in graph:
            before = max((known.get(value, 0) for value in node.inputs if value is not None), default=0)
            for body in bodies_of(node):
                walk(body)
                before = max([before, *(known.get(value, 0) for value in body.outputs)])
            depth = before + (node.op_type in _SUMS)
            known.update(dict.fromkeys(node.outputs, depth))

    walk(model.graph)
    return {value.name: known.get(value, 0) for value in model.graph.outputs if value.name is not None}
