"""Passes that bring operators of our own domain to what a target takes; every target's pipeline begins with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphforge.errors import UsageError
from graphforge.targets.target import TargetOptions

if TYPE_CHECKING:
    from graphforge.transform import Pass

__all__ = ["NMS_FORMS", "OUTPUT_FORMS", "semantic_passes"]

OUTPUT_FORMS = ("ragged", "padded")
NMS_FORMS = ("native", "portable")


def semantic_passes(
    options: TargetOptions,
    *,
    outputs: str = "ragged",
    nms: str = "native",
    fixed_shapes: bool = False,
    roi_align: str = "native",
) -> list[Pass]:
    """Fixed shapes where they are wanted, then every operator of ours in plain ONNX.

    Args:
        options: what the user asked for.
        outputs, nms: what this target does when nothing was asked.
        fixed_shapes: this target takes no size that changes from round to round of a loop either.
        roi_align: ``portable`` where this target has no RoiAlign.

    Raises:
        UsageError: a form is unknown.
    """
    from graphforge.passes.bound_dynamic_shapes import BoundDynamicShapes
    from graphforge.passes.loop_over_images import LoopOverImages
    from graphforge.passes.lower_nms import LowerNms
    from graphforge.passes.lower_semantic_ops import LowerSemanticOps
    from graphforge.passes.replace_batched_nms import ReplaceBatchedNMS

    form = options.outputs or outputs
    suppression = options.nms or nms
    if form not in OUTPUT_FORMS:
        raise UsageError(f"unknown form of outputs {form!r}", f"known: {', '.join(OUTPUT_FORMS)}")
    if suppression not in NMS_FORMS:
        raise UsageError(
            f"unknown form of NMS {suppression!r}",
            f"known: {', '.join(NMS_FORMS)}",
            "nodes of TensorRT's EfficientNMS plugin are not written: it hands out no indices, which graphs pick "
            "boxes, masks and keypoints by; classic TensorRT has a kernel for what native writes"
            if suppression == "plugin"
            else "",
        )
    padded = form == "padded"
    return [
        *([BoundDynamicShapes(), ReplaceBatchedNMS()] if padded else []),
        LowerSemanticOps(fixed_shapes=padded, roi_align=roi_align),
        LowerNms(form=suppression, fixed_shapes=fixed_shapes and suppression == "portable"),
        LoopOverImages(),
    ]
