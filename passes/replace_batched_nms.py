"""Draw masks into the suppression, and several images into one node.    MulticlassNMS(b, s, c, s > t) ==> MulticlassNMS

After ``bound-dynamic-shapes`` each image has a MulticlassNMS of its own, whose ``valid`` input is the mask that the
model picked boxes with.  A mask ``scores > t`` over the same scores is the operator's own threshold, and nodes that do
the same to several images are one node with a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from graphforge.ir import Graph, constant_of, nodes_of
from graphforge.transform import Pass, Rewriter

__all__ = ["ReplaceBatchedNMS"]


@dataclass(frozen=True)
class ReplaceBatchedNMS(Pass):
    """Both steps leave the result as it is, index for index.

    Attributes:
        merge_images: draw the nodes of several images into one.
    """

    name: ClassVar[str] = "replace-batched-nms"
    merge_images: bool = True

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Thresholds first: they leave fewer inputs to stack."""
        found = [node for node in nodes_of(graph) if node.domain == "graphforge" and node.op_type == "MulticlassNMS"]
        for node in found:
            _absorb_threshold(node, rewriter)
        if self.merge_images:
            _merge_images([node for node in found if node.graph is rewriter.graph], rewriter)


def _absorb_threshold(node: ir.Node, rewriter: Rewriter) -> None:
    """valid = scores > t ==> score_threshold = t"""
    if len(node.inputs) < 4 or node.inputs[3] is None or "score_threshold" in node.attributes:
        return
    scores, valid = node.inputs[1], node.inputs[3]
    assert scores is not None
    mask, scores = _behind_batch_axis(valid), _behind_batch_axis(scores)
    compared = mask.producer() if mask is not None else None
    if compared is None or compared.op_type != "Greater" or compared.domain != "":
        rewriter.declined("the mask is more than a comparison of the scores", node)
        return
    left, right = compared.inputs
    threshold = constant_of(right)
    if left is not scores or threshold is None or threshold.size != 1:
        rewriter.declined("the mask compares other scores, or with more than one number", node)
        return
    number = float(np.asarray(threshold).reshape(-1)[0])
    if number != float(np.float32(number)) or not np.isfinite(number):
        rewriter.declined("the threshold is not a float32", node)
        return
    rewriter.set_attribute(node, "score_threshold", number)
    rewriter.set_input(node, 3, None)


def _behind_batch_axis(value: ir.Value | None) -> ir.Value | None:
    """What an Unsqueeze of axis 0 was made from."""
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "Unsqueeze":
        return value
    axes = constant_of(producer.inputs[1])
    return producer.inputs[0] if axes is not None and list(axes.reshape(-1)) == [0] else value


def _merge_images(nodes: list[ir.Node], rewriter: Rewriter) -> None:
    """Nodes of equal attributes and shapes, none of which feeds another, as one with a batch."""
    groups: dict[Any, list[ir.Node]] = {}
    for node in nodes:
        attributes = tuple(sorted((name, attribute.value) for name, attribute in node.attributes.items()))
        kinds = tuple(
            None if value is None else (str(value.shape), value.dtype) for value in [*node.inputs, *[None] * 4][:4]
        )
        if any(value is not None and (value.shape is None or value.shape[0] != 1) for value in node.inputs):
            continue
        groups.setdefault((attributes, kinds), []).append(node)
    for members in groups.values():
        if len(members) > 1:
            _merge(members, rewriter)


def _merge(members: list[ir.Node], rewriter: Rewriter) -> None:
    last = members[-1]
    ancestors = _ancestors(last)
    if any(member in ancestors for member in members[:-1]):
        rewriter.declined("one image's boxes depend on another's", last)
        return
    # at the last of them everything that they read is there; what reads the first ones has to move behind it
    moved = _readers_before(members, last)
    if moved is None or any(value in moved for member in members for value in _producers(member)):
        rewriter.declined("what follows one image comes before the boxes of another", last)
        return
    op = rewriter.builder(last)
    inputs: list[ir.Value | None] = []
    for place in range(len(last.inputs)):
        parts = [member.inputs[place] for member in members]
        inputs.append(None if parts[0] is None else op.Concat(*parts, axis=0))
    attributes = {name: attribute.value for name, attribute in last.attributes.items()}
    results = op.node("MulticlassNMS", inputs, _outputs=4, _domain="graphforge", **attributes)
    for place, result in enumerate(results):
        if not any(member.outputs[place].uses() or member.outputs[place].is_graph_output() for member in members):
            continue
        pieces = op.Split(result, axis=0, num_outputs=len(members), _outputs=len(members))
        for member, piece in zip(members, pieces, strict=True):
            rewriter.replace_value(member.outputs[place], piece)
    rewriter.erase(*members)
    rewriter.sort()


def _producers(node: ir.Node) -> list[ir.Node]:
    return [made for value in node.inputs if value is not None and (made := value.producer()) is not None]


def _ancestors(node: ir.Node) -> set[ir.Node]:
    found: set[ir.Node] = set()
    pending = _producers(node)
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            pending += _producers(one)
    return found


def _readers_before(members: list[ir.Node], last: ir.Node) -> set[ir.Node] | None:
    """Everything that follows from the members; sorting the graph afterwards puts it where it belongs."""
    found: set[ir.Node] = set()
    pending = [user for member in members for value in member.outputs for user, _ in value.uses()]
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            pending += [user for value in one.outputs for user, _ in value.uses()]
    return None if any(member in found for member in members) else found
