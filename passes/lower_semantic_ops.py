"""Lower operators of our own domain, other than NMS, to ONNX.    graphforge::MultiScaleRoiAlign ==> RoiAlign, ..."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import ClassVar

from graphforge.ir import Graph, nodes_of
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
    """

    name: ClassVar[str] = "lower-semantic-ops"
    edits_through_rewriter: ClassVar[bool] = True
    fixed_shapes: bool = False

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Lower them wherever they stand."""
        for node in list(nodes_of(graph)):
            if node.domain != "graphforge" or node.op_type not in _HOMES:
                continue
            home = importlib.import_module(f"graphforge.ops.{_HOMES[node.op_type]}")
            lowered = home.lower(rewriter.builder(node), node, fixed_shapes=self.fixed_shapes)
            rewriter.replace(node, lowered)
