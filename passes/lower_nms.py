"""Write the NMS operators in plain ONNX.    MulticlassNMS, ... ==> NonMaxSuppression, or a Loop of plain operators"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphforge.errors import GraphForgeError, UsageError
from graphforge.ir import Builder, Graph, Node, Value, describe, nodes_of
from graphforge.transform import Pass, Rewriter

__all__ = ["LowerNms"]

_OPERATORS = ("BatchedNMS", "MulticlassNMS", "SoftNMS", "NMSRotated")


@dataclass(frozen=True)
class LowerNms(Pass):
    """Both forms compute exactly what the operators mean.

    Attributes:
        form: ``native`` uses NonMaxSuppression, ``portable`` plain tensor algebra that any target can build.
        depth: portable: 0 iterates in a Loop until nothing changes; a number writes the iteration out so often and adds
            the bool output ``nms_converged``, false where that was not enough.
        fixed_shapes: portable: the whole overlap matrix instead of blocks whose sizes change from round to round, and
            no size that depends on data (but for the kept indices of BatchedNMS): what TensorRT builds.
    """

    name: ClassVar[str] = "lower-nms"
    form: str = "native"
    depth: int = 0
    fixed_shapes: bool = False

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Lower them in the graph and its bodies."""
        if self.form not in ("native", "portable"):
            raise UsageError(f"lower-nms does not know the form {self.form!r}", "its forms: native, portable")
        if self.depth < 0 or (self.depth and self.form == "native"):
            raise UsageError("the depth of lower-nms is a number from 0 up, and of the portable form only")
        if self.fixed_shapes and self.form == "native":
            raise UsageError("fixed_shapes of lower-nms is an option of the portable form only")
        found = [node for node in nodes_of(graph) if node.domain == "graphforge" and node.op_type in _OPERATORS]
        all_converged: Value | None = None
        for node in found:
            op = rewriter.builder(node)
            results, converged = self._lower(op, node)
            if converged is not None:
                if node.graph is not rewriter.graph:
                    raise GraphForgeError(
                        f"{node.op_type} stands in the body of a control-flow node: no output can say whether "
                        f"{self.depth} rounds were enough",
                        "use depth=0",
                    )
                all_converged = converged if all_converged is None else op.And(all_converged, converged)
            rewriter.replace(node, results)
        if all_converged is not None:
            rewriter.add_output("nms_converged", all_converged)
        if found and not any(node.domain == "graphforge" for node in nodes_of(graph)):
            rewriter.set_opset(None, "graphforge")

    def _lower(self, op: Builder, node: Node) -> tuple[list[Value], Value | None]:
        from graphforge.ops import batched_nms, multiclass_nms, nms_rotated, soft_nms

        boxes, scores, class_ids, valid = (*node.inputs, None, None)[:4]
        assert boxes is not None
        assert scores is not None
        try:
            if node.op_type == "SoftNMS":  # a Loop in either form: no runtime has a kernel for it
                return list(soft_nms.lower(op, boxes, scores, soft_nms.Settings.of(node))), None
            if node.op_type == "NMSRotated":  # plain operators in either form, for the same reason
                keep, converged = nms_rotated.lower(op, node, boxes, scores, class_ids, depth=self.depth)
                return [keep], converged
            if node.op_type == "BatchedNMS":
                settings = batched_nms.settings_of(node)
                if self.form == "native":
                    return [batched_nms.lower_native(op, boxes, scores, class_ids, **settings)], None
                keep, converged = batched_nms.lower_portable(op, boxes, scores, class_ids, depth=self.depth, **settings)
                return [keep], converged
            limits = multiclass_nms.Settings.of(node)
            if self.form == "native":
                made = multiclass_nms.lower_native(op, boxes, scores, class_ids, valid, limits)
            else:
                made = multiclass_nms.lower_portable(
                    op, boxes, scores, class_ids, valid, limits, depth=self.depth, fixed_shapes=self.fixed_shapes
                )
            return made.outputs(), made.converged
        except GraphForgeError as error:
            raise error.with_notes(f"at {describe(node)}") from error
