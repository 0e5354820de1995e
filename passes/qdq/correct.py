"""Correct: what quantising does to the mean of each channel of a node's result, measured, for its bias to take back.

Each node runs on the samples as it is and beside itself with its operand and weights rounded.  Its bias takes back the
mean of the difference (Nagel et al., 2019): the part of the error that sums over the layers behind would add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphforge.passes.compute_where_kernels_are import runnable
from graphforge.passes.qdq.insert import Placement, channels_of, is_recurrent
from graphforge.passes.qdq.scales import Grid, weight_integers
from graphforge.ranges import Samples
from graphforge.ranges.values import in_pieces
from graphforge.transform import Rewriter

__all__ = ["corrected"]


def corrected(
    model: ir.Model, places: Sequence[int], grids: Mapping[str, Grid], placement: Placement, samples: Samples
) -> dict[str, np.ndarray]:
    """What is to be added to the bias of each node, a number for each channel, by the name of its result.

    Args:
        model: in float32.
        places: of the nodes in the main graph.
        grids: of their operands, by name.
        placement: how weights are written.
        samples: what to run it on.
    """
    copy = model.clone()
    rewriter = Rewriter(copy, pass_name="correct")
    nodes = list(copy.graph)
    rounded: dict[ir.Value, ir.Value] = {}
    pairs: dict[str, tuple[str, int]] = {}
    for place in places:
        node = nodes[place]
        if is_recurrent(node):
            continue
        operand, weight = node.inputs[0], node.inputs[1]
        assert operand is not None
        assert weight is not None
        assert weight.const_value is not None
        op = rewriter.builder(None)
        if operand not in rounded:
            grid = grids[str(operand.name)]
            scale, zero = (
                op.constant(np.asarray(grid.scale, np.float32)),
                op.constant(np.asarray(grid.zero, grid.dtype)),
            )
            rounded[operand] = op.DequantizeLinear(op.QuantizeLinear(operand, scale, zero), scale, zero)
        axis = channels_of(node) if rewriter.opset >= 13 else None
        array = weight.const_value.numpy().astype(np.float32)
        integers, scales = weight_integers(array, axis, "int8" if placement.weights == "uint8" else placement.weights)
        spread = scales if axis is None else scales.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        operands = [rounded[operand], op.constant(integers.astype(np.float32) * spread), *node.inputs[2:]]
        made = op.node(node.op_type, operands, **dict(node.attributes.items()))
        assert made.name is not None
        pairs[str(node.outputs[0].name)] = (made.name, 1 if node.op_type == "Conv" else -1)
        copy.graph.outputs.append(made)
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for values in in_pieces(runnable(copy), samples.feeds, [(name, shadow) for name, (shadow, _) in pairs.items()]):
        for name, (shadow, axis) in pairs.items():
            if name not in values or not values[name].size:
                continue
            apart = np.moveaxis(values[name].astype(np.float64) - values[shadow], axis, -1)
            apart = apart.reshape(-1, apart.shape[-1])
            sums[name] = sums.get(name, 0.0) + apart.sum(axis=0)
            counts[name] = counts.get(name, 0) + len(apart)
    return {name: found / counts[name] for name, found in sums.items() if np.isfinite(found).all()}
