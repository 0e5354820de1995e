"""Lists that operators of a file take as tensors (shapes, axes, bounds): they have one axis, and belong together.

ONNX's own check lets others through, a runtime refuses them, and a pass would take their rows for numbers.
Attributes are of the type that the operator has, and text is UTF-8: not every file that is read was checked by ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir.describe import describe
from graphforge.ir.infer import schema_of

__all__ = ["check_attributes", "check_operands"]

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


def check_attributes(model: ir.Model) -> None:
    """Refuse attributes of another type than ONNX's operator has, and text that is not UTF-8.

    Raises:
        GraphForgeError: names the node and the attribute.
    """
    opset = model.graph.opset_imports.get("", 1)
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        version = graph.opset_imports.get("", opset)
        for node in graph.all_nodes():
            if node.domain not in ("", "ai.onnx"):
                continue
            types = _types_of(node.op_type, version)
            for name, attribute in node.attributes.items():
                wanted = types.get(name, attribute.type.name)
                if attribute.type.name != wanted:
                    raise GraphForgeError(
                        f"{describe(node)}: attribute {name!r} is of type {attribute.type.name}, expected {wanted}"
                    )
                if isinstance(attribute.value, bytes) and attribute.type == ir.AttributeType.STRING:
                    raise GraphForgeError(f"{describe(node)}: attribute {name!r} is not UTF-8 text")


@lru_cache(maxsize=1024)
def _types_of(op_type: str, opset: int) -> Mapping[str, str]:
    """Attribute -> the type that ONNX's schema gives it."""
    schema = schema_of(op_type, "", opset)
    return {} if schema is None else {name: str(one.type).rpartition(".")[2] for name, one in schema.attributes.items()}


def check_operands(graph: ir.Graph) -> None:
    """Refuse lists that are none in the graph and its bodies.

    Raises:
        GraphForgeError: names the node and the operand.
    """
    for node in graph.all_nodes():
        if node.domain not in ("", "ai.onnx") or node.op_type not in _LISTS:
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
