"""What opset 26 brought, said in opset 25."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphforge.ir import Builder
from graphforge.passes.opset.step import Step, StepDown, Values

__all__ = ["STEPS_DOWN"]


def _cum_prod(step: Step) -> Values:
    """A Scan along the axis that carries the product so far."""
    axes = step.constant_ints(1)
    if axes is None:
        step.fail("its axis is computed at run time", "make the axis a constant of the model")
    x, axis, op = step.need(0), axes[0] % step.rank(0), step.op
    exclusive = step.int_of("exclusive", 0)
    one_slice = op.Squeeze(op.Slice(x, [0], [1], [axis]), [axis])
    ones = op.Expand(op.constant(1, step.dtype()), op.Shape(one_slice))
    kind = ir.TensorType(step.dtype())
    before, element = ir.Value(name=None, type=kind), ir.Value(name=None, type=kind)
    body = ir.Graph([before, element], [], nodes=[], name=f"{step.node.outputs[0].name}_product")
    inner = Builder(body, opset=step.opset, origins=op.origins, made_by=op.made_by)
    after = inner.Mul(before, element)
    body.outputs.extend([after, inner.Identity(before if exclusive else after)])
    direction = [step.int_of("reverse", 0)]
    _, y = op.Scan(
        ones,
        x,
        _outputs=2,
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_output_axes=[axis],
        scan_input_directions=direction,
        scan_output_directions=direction,
    )
    step.rewriter.set_type(y, kind)
    return [y]


def _bit_cast(step: Step) -> Values:
    """Between an integer and its other signedness, Cast keeps the bits of what fits and wraps the rest."""
    source, target = step.dtype(), ir.DataType(step.int_of("to", 0))
    if source == target:
        return [step.op.Identity(step.need(0))]
    pair = {source.name.removeprefix("U"), target.name.removeprefix("U")}
    if len(pair) != 1 or not next(iter(pair)).startswith("INT"):
        step.fail(f"no older operator reinterprets the bits of {source.name.lower()} as {target.name.lower()}")
    bits = source.bitwidth
    if bits == 64:
        return [step.op.Cast(step.need(0), to=target.value)]
    wide = step.op.Cast(step.need(0), to=ir.DataType.INT64.value)
    span = np.array(1 << bits, dtype=np.int64)
    if target.name.startswith("U"):
        shifted = step.op.Mod(wide, span)
    else:
        half = np.array(1 << (bits - 1), dtype=np.int64)
        shifted = step.op.Sub(step.op.Mod(step.op.Add(wide, half), span), half)
    return [step.op.Cast(shifted, to=target.value)]


STEPS_DOWN: Mapping[str, StepDown] = {"CumProd": _cum_prod, "BitCast": _bit_cast}
