"""What opset 18 brought, said in opset 17."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphforge.passes.opset.bits import bitwise, bitwise_not
from graphforge.passes.opset.pool import pool_by_convolution
from graphforge.passes.opset.reduce import reduce_axes_to_attribute
from graphforge.passes.opset.resize import resize_18
from graphforge.passes.opset.scatter import scatter_reducing
from graphforge.passes.opset.step import HALF_FLOATS, Step, StepDown, Values

__all__ = ["STEPS_DOWN"]


def _mish(step: Step) -> Values:
    """x * tanh(log(1 + exp(x)))."""
    x, op = step.need(0), step.op
    return [op.Mul(x, op.Tanh(op.Softplus(x)))]


def _pad(step: Step) -> Values | None:
    """Pads of some axes become pads of all."""
    if step.input(3) is None:
        step.trim(3)
        return None
    axes = step.constant_ints(3)
    if axes is None:
        step.fail("its axes are computed at run time", "make the axes constants of the model")
    rank, count = step.rank(0), len(axes)
    axes = [axis % rank for axis in axes]
    pads = step.constant_ints(1)
    full: ir.Value | np.ndarray
    order = [axes.index(a) if a in axes else 2 * count for a in range(rank)]
    order += [count + axes.index(a) if a in axes else 2 * count for a in range(rank)]
    if pads is not None:
        full = np.array([*pads, 0], dtype=np.int64)[order]
    else:
        full = step.op.Gather(step.op.Concat(step.need(1), [0], axis=0), order, axis=0)
    return [step.same(step.need(0), full if isinstance(full, ir.Value) else step.op.constant(full), step.input(2))]


def _split(step: Step) -> Values | None:
    """A number of parts becomes their sizes where the last part is smaller."""
    count = step.int_of("num_outputs", 0)
    if not count:
        return None
    axis = step.int_of("axis", 0)
    size = step.dim(0, axis)
    if size is not None and size % count == 0:
        step.set("num_outputs", None)
        return None
    op = step.op
    sizes: ir.Value | np.ndarray
    if size is not None:
        part = -(-size // count)
        sizes = np.array([part] * (count - 1) + [size - part * (count - 1)], dtype=np.int64)
    else:
        axis %= step.rank(0)
        whole = op.Slice(op.Shape(step.need(0)), [axis], [axis + 1])
        each = op.Div(op.Add(whole, [count - 1]), [count])
        last = op.Sub(whole, op.Mul(each, [count - 1]))
        sizes = op.Concat(*[each] * (count - 1), last, axis=0)
    parts = op.Split(step.need(0), sizes, axis=axis, _outputs=count)
    return parts if isinstance(parts, tuple) else [parts]


def _scatter(step: Step) -> Values | None:
    return scatter_reducing(step) if step.text_of("reduction", "none") in ("max", "min") else None


def _lp_pool(step: Step) -> Values | None:
    if any(dilation != 1 for dilation in step.ints_of("dilations") or []) or step.int_of("ceil_mode", 0):
        return pool_by_convolution(step)
    step.set("dilations", None)
    step.set("ceil_mode", None)
    return None


def _optional_has_element(step: Step) -> Values | None:
    """Before 18, only optional values could be asked."""
    value = step.input(0)
    if value is None:
        return [step.op.Identity(step.op.constant(False))]
    if isinstance(value.type, ir.OptionalType) or value.type is None:
        return None
    return [step.op.Identity(step.op.constant(True))]


def _optional_get_element(step: Step) -> Values | None:
    """Before 18, only optional values could be opened."""
    value = step.need(0)
    return None if isinstance(value.type, ir.OptionalType) or value.type is None else [step.op.Identity(value)]


def _col2im(step: Step) -> Values:
    """A transposed convolution whose kernels put each element of a block in its place."""
    image, block = step.constant_ints(1), step.constant_ints(2)
    if image is None or block is None:
        step.fail("its sizes are computed at run time", "make the sizes constants of the model")
    channels = step.dim(0, 1)
    if channels is None:
        step.fail("its number of channels is dynamic", "give the channels a fixed size")
    op, kind, spatial = step.op, step.dtype(), len(image)
    inside = ir.DataType.FLOAT if kind in HALF_FLOATS else kind
    if inside not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        step.fail(f"it gathers {kind.name.lower()}, only floats can be convolved")
    strides = step.ints_of("strides") or [1] * spatial
    dilations = step.ints_of("dilations") or [1] * spatial
    pads = step.ints_of("pads") or [0] * (2 * spatial)
    windows = [
        (size + pads[axis] + pads[axis + spatial] - dilations[axis] * (block[axis] - 1) - 1) // strides[axis] + 1
        for axis, size in enumerate(image)
    ]
    elements = int(np.prod(block))
    groups = channels // elements
    kernel = np.tile(np.eye(elements), (groups, 1)).reshape(channels, 1, *block)
    x = step.need(0) if inside == kind else op.Cast(step.need(0), to=inside.value)
    folded = op.ConvTranspose(
        op.Reshape(x, [0, channels, *windows]),
        op.constant(kernel.astype(np.dtype(inside.numpy())), inside),
        group=groups,
        kernel_shape=block,
        strides=strides,
        dilations=dilations,
        pads=pads,
        output_padding=[
            size + pads[a] + pads[a + spatial] - ((windows[a] - 1) * strides[a] + dilations[a] * (block[a] - 1) + 1)
            for a, size in enumerate(image)
        ],
    )
    return [folded if inside == kind else op.Cast(folded, to=kind.value)]


_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare".split()
)

STEPS_DOWN: Mapping[str, StepDown] = {
    **dict.fromkeys(_REDUCTIONS, reduce_axes_to_attribute),
    "BitwiseAnd": bitwise,
    "BitwiseNot": bitwise_not,
    "BitwiseOr": bitwise,
    "BitwiseXor": bitwise,
    "Col2Im": _col2im,
    "LpPool": _lp_pool,
    "Mish": _mish,
    "OptionalGetElement": _optional_get_element,
    "OptionalHasElement": _optional_has_element,
    "Pad": _pad,
    "Resize": resize_18,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "Split": _split,
}
