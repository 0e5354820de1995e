"""What opset 16 brought, said in opset 15."""

from __future__ import annotations

from collections.abc import Mapping

from graphforge.passes.opset.grid_sample import grid_sample
from graphforge.passes.opset.scatter import scatter_reducing
from graphforge.passes.opset.step import Step, StepDown, Values

__all__ = ["STEPS_DOWN"]


def _roi_align(step: Step) -> Values | None:
    """The shift could go into the boxes, but boxes thinner than a pixel would then grow to one."""
    if step.text_of("coordinate_transformation_mode", "half_pixel") == "half_pixel":
        step.fail(
            "it samples with half-pixel coordinates, opset 15 knows the older ones only",
            "align with coordinate_transformation_mode=output_half_pixel (torchvision: aligned=False)",
        )
    step.set("coordinate_transformation_mode", None)
    return None


def _scatter(step: Step) -> Values | None:
    if step.text_of("reduction", "none") != "none":
        return scatter_reducing(step)
    step.set("reduction", None)
    return None


STEPS_DOWN: Mapping[str, StepDown] = {
    "GridSample": grid_sample,
    "RoiAlign": _roi_align,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
}
