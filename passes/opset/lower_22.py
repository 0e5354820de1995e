"""What opset 22 brought, said in opset 21: bfloat16 where it lacked, and pools whose last window is all padding."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.step import Step, StepDown, Values

__all__ = ["STEPS_DOWN"]


def _pool(step: Step) -> Values | None:
    """A size rounded up no longer counts a window that starts in the padding at the end; the older form does.

    Where that matters, the size is rounded down instead, with just the padding at the end that gives the right size.
    """
    if not step.int_of("ceil_mode", 0) or step.text_of("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    kernel = step.ints_of("kernel_shape") or []
    spatial = len(kernel)
    strides = step.ints_of("strides") or [1] * spatial
    dilations = step.ints_of("dilations") or [1] * spatial
    pads = step.ints_of("pads") or [0] * (2 * spatial)
    if step.need(0).shape is None:
        return None
    sizes = [step.dim(0, 2 + axis) for axis in range(spatial)]
    known = None not in sizes
    end_pads = list(pads)
    differs = False
    for axis, size in enumerate(sizes):
        if size is None:
            continue  # nobody knows; ONNX Runtime leaves the window out at every opset
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        room = size + pads[axis] + pads[axis + spatial] - reach
        count = -(-room // strides[axis]) + 1
        dropped = (count - 1) * strides[axis] >= size + pads[axis]
        if dropped:
            differs = True
            count -= 1
        needed = (count - 1) * strides[axis] + reach - size - pads[axis]
        if known:
            # Anything from here to a stride more rounds down to this many windows; better what was there.
            end_pads[axis + spatial] = min(max(pads[axis + spatial], needed), needed + strides[axis] - 1)
        elif dropped:
            end_pads[axis + spatial] = needed  # which leaves nothing to round
    if not differs:
        return None
    ends = end_pads[spatial:]
    if step.int_of("count_include_pad", 0) and any(new > old for new, old in zip(end_pads, pads, strict=True)):
        step.fail("its last window starts in the padding, which opset 21 counts", "pool with ceil_mode=0")
    takes = [0 <= pad < size for pad, size in zip(ends, kernel, strict=True)]
    if not all(takes):
        if len(step.node.outputs) > 1 or (step.node.op_type != "MaxPool" and any(pad > 0 for pad in ends)):
            step.fail("its last window starts in the padding, which opset 21 counts", "pool with ceil_mode=0")
        # Beside the pool: with dilation the padding can be as wide as the kernel, which runtimes refuse.
        beside = [0 if taken else pad for pad, taken in zip(ends, takes, strict=True)]
        end_pads[spatial:] = [pad if taken else 0 for pad, taken in zip(ends, takes, strict=True)]
        step.rewriter.set_input(step.node, 0, _extended(step, beside))
    step.set("ceil_mode", int(not known))
    step.set("pads", end_pads)
    return None


def _extended(step: Step, ends: list[int]) -> ir.Value:
    """The input with so many elements more at the end of each spatial axis, none of them a maximum; or fewer."""
    kind = step.dtype()
    least = np.iinfo(kind.numpy()).min if kind.is_integer() else -np.inf
    padded = step.op.Pad(step.need(0), [0, 0] * 2 + [0] * len(ends) + list(ends), step.op.constant(least, kind))
    assert isinstance(padded, ir.Value)
    return padded


STEPS_DOWN: Mapping[str, StepDown] = {"AveragePool": _pool, "MaxPool": _pool}
