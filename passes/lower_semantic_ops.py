"""Lower operators of our own domain, other than NMS, to ONNX.    graphforge::MultiScaleRoiAlign ==> RoiAlign, ..."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import ClassVar

from graphforge.errors import GraphForgeError, UsageError
from graphforge.ir import Builder, Graph, Node, Value, nodes_of
from graphforge.transform import Pass, Rewriter

__all__ = ["LowerSemanticOps"]

_HOMES = {
    "MultiScaleRoiAlign": "multi_scale_roi_align",
    "HeatmapsToKeypoints": "heatmaps_to_keypoints",
}


@dataclass(frozen=True)
class LowerSemanticOps(Pass):
    """Each operator's own file in ops/ says how.

    Attributes:
        fixed_shapes: let no size depend on data, at the price of computing what is then thrown away.
        roi_align: ``native`` uses ONNX's RoiAlign; ``portable`` plain operators in its place, wherever it stands, for
            targets that have none (feature maps of fixed shape, a sampling ratio above 0).
    """

    name: ClassVar[str] = "lower-semantic-ops"
    fixed_shapes: bool = False
    roi_align: str = "native"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Lower them wherever they stand."""
        if self.roi_align not in ("native", "portable"):
            raise UsageError(f"lower-semantic-ops has no roi_align {self.roi_align!r}", "its forms: native, portable")
        for node in list(nodes_of(graph)):
            if node.domain == "" and node.op_type == "RoiAlign" and self.roi_align == "portable":
                rewriter.replace(node, _portable(rewriter.builder(node), node))
            if node.domain != "graphforge" or node.op_type not in _HOMES:
                continue
            home = importlib.import_module(f"graphforge.ops.{_HOMES[node.op_type]}")
            options = {"roi_align": self.roi_align} if node.op_type == "MultiScaleRoiAlign" else {}
            lowered = home.lower(rewriter.builder(node), node, fixed_shapes=self.fixed_shapes, **options)
            rewriter.replace(node, lowered)


def _portable(op: Builder, node: Node) -> Value:
    """ONNX's RoiAlign, opset 16 and above."""
    from graphforge.ops._roi_align import roi_align_of_levels

    feature, corners, images = node.inputs
    assert feature is not None
    assert corners is not None
    assert images is not None
    if node.attributes.get_string("mode", "avg") != "avg":
        raise GraphForgeError("RoiAlign with mode 'max' has no portable form", "use mode 'avg'")
    return roi_align_of_levels(
        op,
        [feature],
        corners,
        images,
        None,
        scales=[node.attributes.get_float("spatial_scale", 1.0)],
        size=(node.attributes.get_int("output_height", 1), node.attributes.get_int("output_width", 1)),
        sampling_ratio=node.attributes.get_int("sampling_ratio", 0),
        aligned=node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "half_pixel",
    )
