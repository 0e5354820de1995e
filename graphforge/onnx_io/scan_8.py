"""Scan of opset 8 ran over a batch, that of 9 does not.   Scan_8(states, inputs)  ==>  Scan over the batch of Scan"""

from __future__ import annotations

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir import Builder
from graphforge.ir.describe import describe

__all__ = ["scan_9_from_8"]


def scan_9_from_8(node: ir.Node, op: Builder) -> list[ir.Value | None]:
    """An outer Scan steps through the batch; its body is the Scan of opset 9 over one batch element."""
    if node.inputs[0] is not None:
        raise GraphForgeError(
            f"{describe(node)} gives sequence lengths, which exist in opset 8 only",
            "export the model at opset 9 or newer",
        )
    given = list(node.inputs[1:])
    scanned = node.attributes["num_scan_inputs"].as_int()
    states = len(given) - scanned
    body = node.attributes["body"].as_graph()
    directions = node.attributes.get("directions")
    inner_inputs = []
    for value, formal in zip(given, body.inputs, strict=True):
        element = ir.Value(name=None, type=formal.type if formal.type is not None else value.type if value else None)
        inner_inputs.append(element)
    node.attributes.clear()
    inner = ir.Node(
        "",
        "Scan",
        inner_inputs,
        ir.convenience.convert_attributes(
            {
                "body": body,
                "num_scan_inputs": scanned,
                **({"scan_input_directions": list(directions.as_ints())} if directions is not None else {}),
            }
        ),
        num_outputs=len(node.outputs),
    )
    for value, result in zip(inner.outputs, body.outputs, strict=True):
        value.type = result.type
    base = node.name or node.outputs[0].name or "scan"
    outer = ir.Graph(inner_inputs, list(inner.outputs), nodes=[inner], name=f"{base}_batch")
    for position, value in enumerate([*inner_inputs, *inner.outputs]):
        value.name = f"{base}_element_{position}"
    made = op.node("Scan", given, _outputs=len(node.outputs), body=outer, num_scan_inputs=states + scanned)
    values: tuple[ir.Value, ...] = made if isinstance(made, tuple) else (made,)
    for value, result in zip(values, body.outputs, strict=True):
        value.type = result.type
    return list(values)
