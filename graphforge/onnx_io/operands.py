"""Lists that operators of a file take as tensors (shapes, axes, bounds): they have one axis, and belong together.

ONNX's own check lets others through, a runtime refuses them, and a pass would take their rows for numbers.
So it is with text of attributes that is not UTF-8.
"""

from __future__ import annotations

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir.describe import describe

__all__ = ["check_operands"]

# Operator -> the inputs that are lists.
_LISTS = {
    "ConstantOfShape": {0: "shape"},
    "Expand": {1: "shape"},
    "Reshape": {1: "shape"},
    "Resize": {2: "scales", 3: "sizes"},
    "Slice": {1: "starts", 2: "ends", 3: "axes", 4: "steps"},
    "Split": {1: "split"},
    "Tile": {1: "repeats"},
}
# Those of one length.
_TOGETHER = frozenset(("Slice",))


def check_operands(graph: ir.Graph) -> None:
    """Refuse lists that are none, and text that is none, in the graph and its bodies.

    Raises:
        GraphForgeError: names the node and the operand or attribute.
    """
    for node in graph.all_nodes():
        if node.domain not in ("", "ai.onnx"):
            continue
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.STRING and isinstance(attribute.value, bytes):
                raise GraphForgeError(f"{describe(node)}: attribute {attribute.name!r} is not UTF-8 text")
        if node.op_type not in _LISTS:
            continue
        if node.op_type == "Tile" and len(node.inputs) > 2:  # opset 1, with another signature
            continue
        lengths = {}
        for position, name in _LISTS[node.op_type].items():
            value = node.inputs[position] if position < len(node.inputs) else None
            if value is None or value.shape is None or value.name == "":
                continue
            if len(value.shape) != 1:
                shape = "x".join(map(str, value.shape)) or "()"
                raise GraphForgeError(f"{describe(node)}: {name!r} has the shape {shape}, expected one axis")
            if isinstance(value.shape[0], int):
                lengths[name] = value.shape[0]
        if node.op_type in _TOGETHER and len(set(lengths.values())) > 1:
            told = ", ".join(f"{length} {name}" for name, length in lengths.items())
            raise GraphForgeError(f"{describe(node)}: it has {told}, expected as many of each")
