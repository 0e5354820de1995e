"""What opset 16 brought, said in opset 15."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphforge.passes.opset.grid_sample import grid_sample
from graphforge.passes.opset.step import Rule, Step, Values

__all__ = ["RULES"]


def _roi_align(step: Step) -> Values | None:
    """The shift could go into the boxes, but boxes thinner than a pixel would then grow to one."""
    if step.text_of("coordinate_transformation_mode", "half_pixel") == "half_pixel":
        step.fail(
            "it samples with half-pixel coordinates, opset 15 knows the older ones only",
            "align with coordinate_transformation_mode=output_half_pixel (torchvision: aligned=False)",
        )
    step.set("coordinate_transformation_mode", None)
    return None


def _scatter_elements(step: Step) -> Values | None:
    return _scatter(step, lambda: _is_injective_along(step))


def _scatter_nd(step: Step) -> Values | None:
    def distinct() -> bool:
        indices = step.constant(1)
        if indices is None:
            return False
        rows = indices.reshape(-1, indices.shape[-1])
        return len(np.unique(rows, axis=0)) == len(rows) and bool((indices >= 0).all())

    return _scatter(step, distinct)


def _scatter(step: Step, distinct: object) -> Values | None:
    """With every index there once, reducing is: gather, combine, scatter."""
    reduction = step.text_of("reduction", "none")
    if reduction == "none":
        step.set("reduction", None)
        return None
    assert callable(distinct)
    if not distinct():
        step.fail(
            f"it reduces by {reduction} at indices that may repeat", "make the indices constants that do not repeat"
        )
    op = step.op
    data, indices, updates = step.need(0), step.need(1), step.need(2)
    combine = op.Add if reduction == "add" else op.Mul
    if step.node.op_type == "ScatterND":
        old = op.GatherND(data, indices)
    else:
        old = op.GatherElements(data, indices, axis=step.int_of("axis", 0))
    return [step.same(data, indices, combine(old, updates), reduction=None)]


def _is_injective_along(step: Step) -> bool:
    indices = step.constant(1)
    if indices is None:
        return False
    axis = step.int_of("axis", 0) % indices.ndim
    size = step.dim(0, axis)
    if (indices < 0).any():
        if size is None:
            return False
        indices = np.where(indices < 0, indices + size, indices)
    ordered = np.sort(indices, axis=axis)
    return bool((np.diff(ordered, axis=axis) != 0).all())


RULES: Mapping[str, Rule] = {
    "GridSample": grid_sample,
    "RoiAlign": _roi_align,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
