"""Resize in its older forms; what they cannot say becomes matrix products with the weights that Resize stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphforge.passes.opset.step import Step, Values

__all__ = ["resize_13", "resize_18", "resize_19", "resize_by_matrices"]

_LINEAR_MODES = ("linear", "cubic")


def resize_19(step: Step) -> Values | None:
    """Before 19, half_pixel_symmetric did not exist."""
    if step.text_of("coordinate_transformation_mode", "half_pixel") == "half_pixel_symmetric":
        return _by_matrices(step, "coordinates half_pixel_symmetric")
    return None


def resize_18(step: Step) -> Values | None:
    """Before 18, no antialiasing, no choice of axes, no keeping of the aspect ratio."""
    if step.int_of("antialias", 0):
        return _by_matrices(step, "antialiasing")
    if step.text_of("keep_aspect_ratio_policy", "stretch") != "stretch" and step.input(3) is not None:
        return _keeping_ratio(step)
    axes = step.ints_of("axes")
    for name in ("antialias", "keep_aspect_ratio_policy", "axes"):
        step.set(name, None)
    rank = step.rank(0)
    if axes is None or [axis % rank for axis in axes] == list(range(rank)):
        return None
    axes = [axis % rank for axis in axes]
    return [step.same(step.need(0), _full_roi(step, axes), _full_scales(step, axes), _full_sizes(step, axes))]


def resize_13(step: Step) -> Values | None:
    """Before 13, roi and scales had to be there, empty where they say nothing."""
    empty = np.zeros(0, dtype=np.float32)
    for position in (1, 2):
        if step.input(position) is None:
            step.rewriter.set_input(step.node, position, step.op.constant(empty, ir.DataType.FLOAT))
    roi = step.input(1)
    if roi is not None and roi.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16):
        step.fail("its region of interest is not a float")
    return None


def resize_by_matrices(step: Step) -> Values:
    """At any opset: the matrix of each axis instead of Resize."""
    return _by_matrices(step, "Resize")


def _full_roi(step: Step, axes: list[int]) -> ir.Value | None:
    roi = step.input(1)
    if roi is None or (step.constant(1) is not None and step.constant(1).size == 0):  # type: ignore[union-attr]
        return None
    rank, count = step.rank(0), len(axes)
    assert roi.dtype is not None
    padded = step.op.Concat(roi, step.op.constant(np.array([0, 1], dtype=np.dtype(roi.dtype.numpy()))), axis=0)
    starts = [axes.index(axis) if axis in axes else 2 * count for axis in range(rank)]
    ends = [count + axes.index(axis) if axis in axes else 2 * count + 1 for axis in range(rank)]
    full = step.op.Gather(padded, [*starts, *ends], axis=0)
    assert isinstance(full, ir.Value)
    return full


def _full_scales(step: Step, axes: list[int]) -> ir.Value | np.ndarray | None:
    known = step.constant(2)
    if step.input(2) is None or (known is not None and known.size == 0):
        return None
    rank = step.rank(0)
    if known is not None:
        full = np.ones(rank, dtype=np.float32)
        full[axes] = known
        return full
    padded = step.op.Concat(step.input(2), np.ones(1, dtype=np.float32), axis=0)
    gathered = step.op.Gather(padded, [axes.index(a) if a in axes else len(axes) for a in range(rank)], axis=0)
    assert isinstance(gathered, ir.Value)
    return gathered


def _full_sizes(step: Step, axes: list[int]) -> ir.Value | np.ndarray | None:
    if step.input(3) is None:
        return None
    rank = step.rank(0)
    known = step.constant_ints(3)
    dims: list[int | None] = [step.dim(0, axis) for axis in range(rank)]
    if known is not None:
        for axis, size in zip(axes, known, strict=True):
            dims[axis] = size
        if all(dim is not None for dim in dims):
            return np.array(dims, dtype=np.int64)
    both = step.op.Concat(step.input(3), step.op.Shape(step.need(0)), axis=0)
    order = [axes.index(axis) if axis in axes else len(axes) + axis for axis in range(rank)]
    gathered = step.op.Gather(both, order, axis=0)
    assert isinstance(gathered, ir.Value)
    return gathered


def _keeping_ratio(step: Step) -> Values:
    """One scale for all axes, the smallest or the largest of those asked for; sizes are rounded."""
    rank = step.rank(0)
    axes = [axis % rank for axis in step.ints_of("axes") or range(rank)]
    sizes = step.constant_ints(3)
    dims = [step.dim(0, axis) for axis in axes]
    known = [dim for dim in dims if dim is not None]
    if sizes is None or len(known) != len(dims):
        step.fail("it keeps the aspect ratio of a size that is computed at run time", "give sizes that fit, or scales")
    ratios = [size / dim for size, dim in zip(sizes, known, strict=True)]
    policy = step.text_of("keep_aspect_ratio_policy", "stretch")
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    wanted = [int(np.floor(scale * dim + 0.5)) for dim in known]
    full = [step.dim(0, axis) for axis in range(rank)]
    for axis, size in zip(axes, wanted, strict=True):
        full[axis] = size
    if any(dim is None for dim in full):
        step.fail("it keeps the aspect ratio and leaves dynamic dims alone", "give every dim a fixed size")
    roi = _full_roi(step, axes)
    target = np.array(full, dtype=np.int64)
    return [step.same(step.need(0), roi, None, target, antialias=None, keep_aspect_ratio_policy=None, axes=None)]


def _by_matrices(step: Step, what: str) -> Values:
    """Resize of each axis is linear in that axis: its matrix is what Resize makes of the unit matrix.

    The weights come from the reference evaluator of the installed onnx, the specification in numbers.
    """
    mode = step.text_of("mode", "nearest")
    rank = step.rank(0)
    axes = [axis % rank for axis in step.ints_of("axes") or range(rank)]
    out = step.node.outputs[0].shape
    changed = []
    for axis in range(rank):
        size, target = step.dim(0, axis), out[axis] if out is not None else None
        if size is not None and size == target:
            continue
        if size is None and not _resizes(step, axes, axis):
            continue
        if size is None or not isinstance(target, int):
            if not _is_plain_antialias(step):
                step.fail(
                    f"{what} on a dynamic dim (axis {axis}) needs opset {step.opset + 1}",
                    "give the dim a fixed size, or resize without it",
                )
            size = None
        changed.append((axis, size, target))
    if mode not in _LINEAR_MODES and changed and step.int_of("antialias", 0):
        step.set("antialias", None)  # says nothing for nearest
        return [step.same(*step.node.inputs)]
    x, op = step.need(0), step.op
    for axis, size, _ in changed:
        if size is None:
            weights = _weights(step, axes.index(axis), axis)
        else:
            weights = op.constant(_matrix(step, axes.index(axis), size).astype(np.dtype(step.dtype().numpy())))
        if axis == rank - 1:
            x = op.MatMul(x, op.Transpose(weights, perm=[1, 0]))
        elif axis == rank - 2:
            x = op.MatMul(weights, x)
        else:
            order = [other for other in range(rank) if other != axis] + [axis]
            back = [order.index(other) for other in range(rank)]
            x = op.Transpose(op.MatMul(op.Transpose(x, perm=order), op.Transpose(weights, perm=[1, 0])), perm=back)
    return [x if x is not step.need(0) else op.Identity(x)]


def _is_plain_antialias(step: Step) -> bool:
    """Whether a Resize with antialias is of the kind whose weights are written below: the one that frameworks make."""
    return (
        bool(step.int_of("antialias", 0))
        and step.text_of("mode", "nearest") in _LINEAR_MODES
        and step.text_of("coordinate_transformation_mode", "half_pixel") == "half_pixel"
        and bool(step.int_of("exclude_outside", 0))
        and step.text_of("keep_aspect_ratio_policy", "stretch") == "stretch"
        and step.dtype() == ir.DataType.FLOAT
    )


def _weights(step: Step, position: int, axis: int) -> ir.Value:
    """(new size, old size): the weights of antialiasing, computed where the sizes are known."""
    op = step.op
    scales, sizes = step.constant(2), step.input(3)
    length = op.Cast(op.Squeeze(op.Slice(op.Shape(step.need(0)), [axis], [axis + 1]), [0]), to=ir.DataType.FLOAT)
    if scales is not None and scales.size:
        scale = op.constant(float(scales[position]), ir.DataType.FLOAT)
        target = op.Floor(op.Mul(length, scale))
        ratio = op.constant(1.0 / float(scales[position]), ir.DataType.FLOAT)
    else:
        assert sizes is not None
        target = op.Cast(op.Squeeze(op.Slice(sizes, [position], [position + 1]), [0]), to=ir.DataType.FLOAT)
        ratio = op.Div(length, target)

    def number(value: float) -> ir.Value:
        return op.constant(value, ir.DataType.FLOAT)

    centres = op.Mul(op.Add(op.Range(number(0.0), target, number(1.0)), number(0.5)), ratio)
    places = op.Add(op.Range(number(0.0), length, number(1.0)), number(0.5))
    apart = op.Abs(op.Sub(op.Unsqueeze(places, [0]), op.Unsqueeze(centres, [1])))
    apart = op.Div(apart, op.Max(ratio, number(1.0)))  # the window widens where the picture shrinks
    if step.text_of("mode", "nearest") == "linear":
        raw = op.Max(op.Sub(number(1.0), apart), number(0.0))
    else:
        raw = _keys(step, apart, step.float_of("cubic_coeff_a", -0.75))
    weights = op.Div(raw, op.ReduceSum(raw, [1], keepdims=1))
    assert isinstance(weights, ir.Value)
    return weights


def _keys(step: Step, apart: ir.Value, a: float) -> ir.Value:
    """Keys' cubic kernel of a distance."""
    op = step.op

    def number(value: float) -> ir.Value:
        return op.constant(value, ir.DataType.FLOAT)

    near = op.Sub(op.Mul(number(a + 2), apart), number(a + 3))
    near = op.Add(op.Mul(op.Mul(near, apart), apart), number(1.0))
    far = op.Add(op.Mul(op.Sub(op.Mul(number(a), apart), number(5 * a)), apart), number(8 * a))
    far = op.Sub(op.Mul(far, apart), number(4 * a))
    beyond = op.Where(op.Less(apart, number(2.0)), far, number(0.0))
    kernel = op.Where(op.LessOrEqual(apart, number(1.0)), near, beyond)
    assert isinstance(kernel, ir.Value)
    return kernel


def _resizes(step: Step, axes: list[int], axis: int) -> bool:
    if axis not in axes:
        return False
    scales = step.constant(2)
    return scales is None or scales.size == 0 or float(scales[axes.index(axis)]) != 1.0


def _matrix(step: Step, position: int, size: int) -> np.ndarray:
    """(new size, old size): what the node's Resize makes of each unit vector along one axis."""
    inputs: dict[str, Any] = {"x": np.eye(size, dtype=np.float64)}
    names = ["x", "", "", ""]
    roi, scales, sizes = step.constant(1), step.constant(2), step.constant(3)
    if roi is not None and roi.size:
        count = roi.size // 2
        names[1], inputs["roi"] = "roi", np.array([roi[position], roi[count + position]], dtype=np.float64)
    if scales is not None and scales.size:
        names[2], inputs["scales"] = "scales", scales[position : position + 1].astype(np.float32)
    elif sizes is not None:
        names[3], inputs["sizes"] = "sizes", sizes[position : position + 1].astype(np.int64)
    else:
        step.fail("its sizes are computed at run time", "make the sizes constants of the model")
    attributes = {
        name: attribute.value
        for name, attribute in step.node.attributes.items()
        if name not in ("axes", "keep_aspect_ratio_policy")
    }
    node = onnx.helper.make_node("Resize", names, ["y"], axes=[0], **attributes)
    types = {np.dtype(np.float64): onnx.TensorProto.DOUBLE, np.dtype(np.float32): onnx.TensorProto.FLOAT}
    infos = [
        onnx.helper.make_tensor_value_info(name, types.get(value.dtype, onnx.TensorProto.INT64), list(value.shape))
        for name, value in inputs.items()
    ]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, None)
    graph = onnx.helper.make_graph([node], "resize", infos, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    from onnx.reference import ReferenceEvaluator

    (found,) = ReferenceEvaluator(model).run(None, inputs)
    return np.asarray(found)
