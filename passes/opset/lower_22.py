"""What opset 22 brought, said in opset 21: bfloat16 where it lacked, and pools whose last window is all padding."""

from __future__ import annotations

from collections.abc import Mapping

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
    end_pads = list(pads)
    differs = False
    for axis in range(spatial):
        size = step.dim(0, 2 + axis)
        if size is None:
            return None  # nobody knows; ONNX Runtime leaves the window out at every opset
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        room = size + pads[axis] + pads[axis + spatial] - reach
        count = -(-room // strides[axis]) + 1
        if (count - 1) * strides[axis] >= size + pads[axis]:
            differs = True
            count -= 1
        needed = (count - 1) * strides[axis] + reach - size - pads[axis]
        # Anything from here to a stride more rounds down to this many windows; better what was there.
        end_pads[axis + spatial] = min(max(pads[axis + spatial], needed), needed + strides[axis] - 1)
    if not differs:
        return None
    if any(pad < 0 for pad in end_pads) or (
        step.int_of("count_include_pad", 0) and any(new > old for new, old in zip(end_pads, pads, strict=True))
    ):
        step.fail("its last window starts in the padding, which opset 21 counts", "pool with ceil_mode=0")
    step.set("ceil_mode", 0)
    step.set("pads", end_pads)
    return None


STEPS_DOWN: Mapping[str, StepDown] = {"AveragePool": _pool, "MaxPool": _pool}
