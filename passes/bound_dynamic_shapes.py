"""Carry tensors whose size depends on data in fixed shapes, with a count.    boxes[mask] ==> boxes, mask; num_dets

A padded tensor and the number of valid rows take the place of a ragged tensor, through everything between the mask, the
top-k or the suppression that made it and the outputs.  Nothing is cut off: the fixed size is a bound that holds always.
What stands in the padding never reaches a valid row; at the outputs it is 0 (-1 where the elements are integers).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir import Graph, describe, here, origins_of
from graphforge.passes.bounding import Ragged, Refusal, Rows, Walk
from graphforge.passes.bounding.common import in_front
from graphforge.transform import Pass, Rewriter

__all__ = ["PADDED_OUTPUTS", "BoundDynamicShapes"]

# In a model's meta: how to get each original output back, for whoever compares.
PADDED_OUTPUTS = "graphforge.padded_outputs"

_Outputs: TypeAlias = list[tuple[str, ir.Value]]
# Sizes that depend on data, as capture calls them.
_FROM_DATA = re.compile(r"\bu\d+\b")
_OF_AN_IMAGE = re.compile(r"output_(\d+)_(.+)")


@dataclass(frozen=True)
class BoundDynamicShapes(Pass):
    """Outputs of one image each (``output_0_boxes``, ...) are stacked: ``boxes`` [B,K,4] with ``num_dets`` [B].

    Attributes:
        outputs: ``padded`` hands out the fixed shapes and the counts, ``ragged`` cuts each output to its count.
    """

    name: ClassVar[str] = "bound-dynamic-shapes"
    outputs: str = "padded"

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Walk the graph once, in order."""
        from graphforge.ops import multiclass_nms  # declares what suppression becomes

        assert multiclass_nms.__doc__
        walk = Walk(rewriter)
        for node in list(graph):
            try:
                walk.visit(node, rewriter.builder(node))
            except Refusal as reason:
                raise GraphForgeError(
                    f"{reason}, and fixed shapes were asked for",
                    f"at {describe(node)}",
                    here(node),
                    "ask for ragged outputs, or rewrite that line",
                ) from None
        if self.outputs == "padded":
            _refuse_left(graph, walk)
        if not walk.ragged and not walk.renewed and not walk.squares:
            return
        for value in graph.outputs:
            if value in walk.squares:
                raise GraphForgeError(
                    f"two sizes of output {value.name!r} depend on data, and fixed shapes were asked for",
                    "ask for ragged outputs, or hand out the rows without the matrix between them",
                )
        last = graph[-1]
        walk.op = rewriter.builder(None, origins=origins_of(last))
        rewriter.set_opset(graph.opset_imports.get("graphforge", 1), "graphforge")
        if self.outputs == "ragged":
            outputs = _hand_out_ragged(graph, walk)
        else:
            outputs, rewriter.model.meta[PADDED_OUTPUTS] = _hand_out_padded(graph, walk)
        rewriter.set_outputs(outputs)
        rewriter.sort()


def _refuse_left(graph: Graph, walk: Walk) -> None:
    """Refuse outputs whose size depends on data in a way that nobody here knows a bound of.

    Raises:
        GraphForgeError: there is one; the notes name the node that makes the size.
    """
    for value in graph.outputs:
        if value in walk.ragged or value in walk.renewed or value in walk.squares or value.shape is None:
            continue
        sizes = {name for dim in value.shape for name in _FROM_DATA.findall(str(dim))}
        if not sizes:
            continue
        makers = (
            node
            for node in graph
            if any(sizes & set(_FROM_DATA.findall(str(one.shape))) for one in node.outputs if one.shape is not None)
        )
        maker = next(makers, None)
        raise GraphForgeError(
            f"the size of output {value.name!r} depends on data in a way that has no fixed form, "
            "and fixed shapes were asked for",
            *(() if maker is None else (f"at {describe(maker)}", here(maker))),
            "ask for ragged outputs, or rewrite that line",
        )


def _hand_out_ragged(graph: Graph, walk: Walk) -> _Outputs:
    outputs: _Outputs = []
    for old in graph.outputs:
        known = walk.ragged.get(old)
        new = walk.renewed.get(old)
        if known is not None:
            prefix = in_front(walk, known)
            end = walk.op.Unsqueeze(prefix.rows.count(walk.op), [0])
            new = walk.op.Slice(prefix.dense, [0], end, [prefix.axis], [1])
        outputs.append(_in_place_of(outputs, old, new))
    return outputs


def _hand_out_padded(graph: Graph, walk: Walk) -> tuple[_Outputs, list[dict[str, object]]]:
    """What is handed out instead of the outputs, and how each original one is got back."""
    padded: dict[str, Ragged] = {}
    for old in graph.outputs:
        known = walk.ragged.get(old)
        if known is not None:
            assert old.name is not None
            prefix = in_front(walk, known)
            padded[old.name] = Ragged(_padded(walk, prefix), prefix.axis, prefix.rows)
    stacked = _stacked(graph, walk, padded)
    if stacked is not None:
        return stacked
    outputs: _Outputs = []
    recipe: list[dict[str, object]] = []
    counts: dict[ir.Value, str] = {}
    distinct = list(dict.fromkeys(one.rows for one in padded.values()))
    for old in graph.outputs:
        assert old.name is not None
        known = padded.get(old.name)
        new = walk.renewed.get(old) if known is None else known.dense
        if known is not None:
            count = "num_dets" if len(distinct) == 1 else f"num_dets_{distinct.index(known.rows)}"
            recipe.append({"restores": old.name, "output": old.name, "image": None, "count": count, "axis": known.axis})
            counts.setdefault(known.rows.count(walk.op), count)
        outputs.append(_in_place_of(outputs, old, new))
    for rows, (_, name) in zip(distinct, counts.items(), strict=True):
        _refuse_taken(graph, name)
        outputs.append((name, walk.op.Unsqueeze(rows.count(walk.op), [0])))
    return outputs, recipe


def _stacked(graph: Graph, walk: Walk, padded: dict[str, Ragged]) -> tuple[_Outputs, list[dict[str, object]]] | None:
    """Outputs of one image each as one batch; None when the outputs are not of that kind."""
    fields: dict[str, list[tuple[int, ir.Value]]] = {}
    for old in graph.outputs:
        match = _OF_AN_IMAGE.fullmatch(old.name or "")
        if match is None or old.name not in padded:
            return None
        fields.setdefault(match.group(2), []).append((int(match.group(1)), old))
    images = [image for image, _ in next(iter(fields.values()))]
    if images != list(range(len(images))):
        return None
    for members in fields.values():
        kinds = {(str(padded[old.name or ""].dense.shape), old.dtype) for _, old in members}
        if [image for image, _ in members] != images or len(kinds) != 1:
            return None
    rows: list[Rows] = []
    for image in images:
        of_image = {padded[members[image][1].name or ""].rows for members in fields.values()}
        if len(of_image) != 1 or any(padded[members[image][1].name or ""].axis != 0 for members in fields.values()):
            return None
        rows += of_image
    recipe: list[dict[str, object]] = []
    stacked: _Outputs = []
    for field, members in fields.items():
        parts = [walk.op.Unsqueeze(padded[old.name or ""].dense, [0]) for _, old in members]
        stacked.append((field, parts[0] if len(parts) == 1 else walk.op.Concat(*parts, axis=0)))
        recipe += [
            {"restores": old.name, "output": field, "image": image, "count": "num_dets", "axis": 0}
            for image, old in members
        ]
    counts = [walk.op.Unsqueeze(one.count(walk.op), [0]) for one in rows]
    stacked.append(("num_dets", counts[0] if len(counts) == 1 else walk.op.Concat(*counts, axis=0)))
    for name, _ in stacked:
        _refuse_taken(graph, name, among=graph.inputs)
    # image by image, as the original outputs are ordered
    order = {name: at for at, name in enumerate(padded)}
    return stacked, sorted(recipe, key=lambda one: order[str(one["restores"])])


def _padded(walk: Walk, known: Ragged) -> ir.Value:
    """Zeros (or -1, or False) in the rows that do not count."""
    if known.rows.is_full:
        return known.dense
    dense = known.dense
    assert dense.dtype is not None
    assert dense.shape is not None
    others = [axis for axis in range(len(dense.shape)) if axis != known.axis]
    mask = known.rows.mask(walk.op)
    if others:
        mask = walk.op.Unsqueeze(mask, others)
    filler = -1 if dense.dtype.is_signed() and dense.dtype.is_integer() else 0
    filled: ir.Value = walk.op.Where(mask, dense, walk.op.constant(filler, dense.dtype))
    return filled


def _in_place_of(outputs: _Outputs, old: ir.Value, new: ir.Value | None) -> tuple[str, ir.Value]:
    name = str(old.name)
    if new is None:
        return name, old
    if new.producer() is None or new.is_graph_output() or any(value is new for _, value in outputs):
        raise GraphForgeError(f"output {name!r} would be no tensor of its own in fixed shapes")
    return name, new


def _refuse_taken(graph: Graph, name: str, among: Sequence[ir.Value] | None = None) -> None:
    if any(one.name == name for one in ((*graph.inputs, *graph.outputs) if among is None else among)):
        raise GraphForgeError(f"an input or output is called {name!r} already", "rename that one in the model")
