"""Clamp the limit of NonMaxSuppression to 32 bits.    NonMaxSuppression(b, s, 2**63-1)   ==>   ...(b, s, 2**31-1)

"As many as there are" is written as the largest int64; a target that narrows 64-bit integers to 32 would read it as -1.
No model has as many as 2**31 boxes, so the result stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphforge.ir import Graph, constant_of
from graphforge.transform import Pass, Rewriter

__all__ = ["ClampNmsLimit"]

_INT32 = np.iinfo(np.int32)
# NonMaxSuppression(boxes, scores, max_output_boxes_per_class, iou_threshold, score_threshold)
_LIMIT = 2


@dataclass(frozen=True)
class ClampNmsLimit(Pass):
    """Clamp the limit of NonMaxSuppression to 32 bits."""

    name: ClassVar[str] = "clamp-nms-limit"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Give every NonMaxSuppression with such a limit a constant of its own; other users of the old one keep it."""
        for node in graph.all_nodes():
            if node.op_type != "NonMaxSuppression" or node.domain not in ("", "ai.onnx"):
                continue
            limit = constant_of(node.inputs[_LIMIT]) if len(node.inputs) > _LIMIT else None
            if limit is not None and (limit > _INT32.max).any():
                rewriter.set_input(node, _LIMIT, rewriter.constant(np.minimum(limit, _INT32.max)))
