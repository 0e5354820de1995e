"""Estimate: each node computed in half precision on operands that are right, beside itself in float32, on the samples.

What it is off by is its own error: operands that are off already would blur whose it is.

All is run with casts around each node (``runners/halves.py``): ONNX Runtime on the CPU would round nothing otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from graphforge.passes.compute_where_kernels_are import runnable
from graphforge.passes.half.forms import Form
from graphforge.passes.half.place import half_of
from graphforge.ranges import Samples
from graphforge.ranges.difference import Difference
from graphforge.ranges.values import in_pieces
from graphforge.runners.halves import rounded_throughout
from graphforge.transform import Rewriter

__all__ = ["differences", "own_errors"]


def own_errors(
    model: ir.Model, forms: Mapping[int, Form], half: ir.DataType, samples: Samples
) -> dict[int, Difference]:
    """What each node is off by on its own.

    Args:
        model: runs in ONNX Runtime.
        forms: place of a node in the main graph -> what would change in it.
        half: FLOAT16 or BFLOAT16.
        samples: what to run it on.
    """
    copy = model.clone()
    rewriter = Rewriter(copy, pass_name="estimate")
    nodes = list(copy.graph)
    halves: dict[ir.Value, ir.Value] = {}

    def as_half(value: ir.Value) -> ir.Value:
        if value not in halves:
            if value.const_value is not None and not value.is_graph_input():
                halves[value] = rewriter.constant(ir.Tensor(half_of(value.const_value.numpy(), half), dtype=half))
            else:
                halves[value] = rewriter.builder(None).Cast(value, to=int(half))
        return halves[value]

    pairs: dict[tuple[str, str], int] = {}
    shadows = []
    for place, form in forms.items():
        node = nodes[place]
        if not form.outputs:
            continue
        operands = [
            as_half(value) if value is not None and position in form.inputs else value
            for position, value in enumerate(node.inputs)
        ]
        attributes = dict(node.attributes.items())
        if node.op_type == "Cast":
            attributes["to"] = ir.AttrInt64("to", int(half))
        made = rewriter.builder(None).node(node.op_type, operands, _outputs=len(node.outputs), **attributes)
        results = [made] if len(node.outputs) == 1 else list(made)
        for position in form.outputs:
            name, shadow = node.outputs[position].name, results[position]
            assert name is not None
            assert shadow.name is not None
            pairs[name, shadow.name] = place
            shadows.append(shadow)
    copy.graph.outputs.extend(shadows)
    rounded_throughout(copy)
    errors: dict[int, Difference] = {}
    for values in in_pieces(runnable(copy), samples.feeds, pairs):
        for (name, shadow), place in pairs.items():
            if shadow in values:
                errors.setdefault(place, Difference()).add(values[name], values[shadow])
    return errors


def differences(reference: ir.Model, other: ir.Model, samples: Samples, names: Sequence[str]) -> dict[str, Difference]:
    """How far the values of these names lie apart in two models, on the samples."""
    found = {name: Difference() for name in names}
    if names:
        one = in_pieces(reference, samples.feeds, [names])
        two = in_pieces(runnable(other), samples.feeds, [names])
        for right, made in zip(one, two, strict=True):
            for name in names:
                found[name].add(right[name], made[name])
    return found
