"""Run the graph of one image over a batch.    boxes [1,K,4] of x [1,3,H,W]  ==>  Loop: boxes [B,K,4] of x [B,3,H,W]

What a model does image by image in Python, into a list of results, is captured for one image alone.  Here the whole
graph becomes the body of a Loop over the images, and the results of the rounds are stacked.  Those that have a size of
their own in each image are joined along it, image after image, and a further output says how many each image has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from graphforge.errors import GraphForgeError, argument
from graphforge.ir import Graph
from graphforge.ir.images import IMAGE_BY_IMAGE, Images, OfImages
from graphforge.ir.sizes import PROMISED_SIZES
from graphforge.passes.bound_dynamic_shapes import PADDED_OUTPUTS
from graphforge.transform import Pass, Rewriter

__all__ = ["LoopOverImages"]


@dataclass(frozen=True)
class LoopOverImages(Pass):
    """What the list held at each place (``output_0_boxes``) is handed out for all images at once (``boxes``).

    A graph that the capture does not call one of an image is left alone, unless ``inputs`` says that it is.

    Attributes:
        inputs: names of inputs with one row, joined by ``+``, that are to have a row for each image, as all outputs.
    """

    name: ClassVar[str] = "loop-over-images"
    inputs: str = ""

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Wrap the graph, once."""
        meta = rewriter.model.meta
        images: Images | None = meta.get(IMAGE_BY_IMAGE)
        if self.inputs:
            images = Images("images", range(1, 1 << 31), tuple(self.inputs.split("+")), {})
        if images is None or any(v.name in images.inputs and (v.shape or [0])[0] != 1 for v in graph.inputs):
            return
        promised = meta.setdefault(PROMISED_SIZES, {})
        padding: Sequence[Mapping[str, Any]] = meta.get(PADDED_OUTPUTS, ())
        stacked = {one["output"] for one in padding if one["image"] is not None} | {one["count"] for one in padding}
        padded = {one["output"]: one["restores"] for one in padding}
        of_all: dict[str, OfImages] = {}  # by the name of the output of one image, padded or not
        for name in (str(value.name) for value in graph.outputs):
            of_all[name] = images.results.get(padded.get(name, name), OfImages(name, ""))
        joined = _own_sizes(graph, promised, of_all)
        counts = list(dict.fromkeys(one.count for one in joined.values()))
        _refuse_taken(graph, [*(one.name for one in of_all.values()), *counts])
        rows = [name in stacked or not one.each for name, one in of_all.items()]
        _loop(graph, rewriter, images, rows, [joined.get(name) for name in of_all])
        if joined:
            named = ", ".join(repr(of_all[name].name) for name in joined)
            told = " and ".join(map(repr, counts)) + (" says" if len(counts) == 1 else " say")
            rewriter.note(f"{named}: the rows of all images behind each other; {told} how many each image has")
        names = [*(one.name for one in of_all.values()), *counts]
        rewriter.set_outputs(list(zip(names, list(graph.outputs), strict=True)))
        recipe = [
            {**one, "restores": of_all[one["output"]].each, "output": of_all[one["output"]].name, "image": None}
            for one in padding
        ]
        for name, one in of_all.items():
            if name in joined:
                own = joined[name]
                recipe.append({"count": own.count, "axis": own.axis, "joined": True} | _restores(one))
            elif one.each and name not in padded:
                recipe.append({"count": "", "axis": 0} | _restores(one))
        if recipe:
            meta[PADDED_OUTPUTS] = recipe
        promised[images.dim] = images.sizes
        meta.pop(IMAGE_BY_IMAGE, None)


def _restores(one: OfImages) -> dict[str, Any]:
    return {"restores": one.each, "output": one.name, "image": None}


@dataclass(frozen=True, slots=True)
class _OwnSize:
    """A size that differs from image to image.

    Attributes:
        axis: where the result of one image has it.
        count: name of the output that says it of each image.
    """

    axis: int
    count: str


def _own_sizes(graph: Graph, promised: Mapping[str, range], of_all: Mapping[str, OfImages]) -> dict[str, _OwnSize]:
    """The outputs with a size of their own in each image, which cannot be stacked, and can be joined."""
    known = {str(dim) for value in graph.inputs for dim in value.shape or ()} | set(promised)
    found: dict[str, tuple[int, str]] = {}
    for value, (name, one) in zip(graph.outputs, of_all.items(), strict=True):
        sizes = list(value.shape or ())
        own = [axis for axis, dim in enumerate(sizes) if not isinstance(dim, int) and str(dim) not in known]
        fixed = all(isinstance(dim, int) for axis, dim in enumerate(sizes) if axis not in own)
        if value.shape is None or len(own) > 1 or (own and not (one.each and fixed)):
            raise GraphForgeError(
                f"the model returns a list with results of each image, and those of {one.name!r} have a size of their "
                "own in each",
                f"padded to one size they fit a tensor for all images, with the counts beside it: "
                f"{argument('outputs', 'padded')}",
                "or compile for a fixed number of images",
            )
        if own:  # an anonymous size is like no other
            found[name] = own[0], getattr(sizes[own[0]], "value", None) or name
    distinct = list(dict.fromkeys(size for _, size in found.values()))
    return {
        name: _OwnSize(axis, "num_dets" if len(distinct) == 1 else f"num_dets_{distinct.index(size)}")
        for name, (axis, size) in found.items()
    }


def _refuse_taken(graph: Graph, names: Sequence[str]) -> None:
    taken = {str(value.name) for value in graph.inputs}
    for name in names:
        if name in taken:
            raise GraphForgeError(f"an input or output is called {name!r} already", "rename that one in the model")
        taken.add(name)


def _loop(
    graph: Graph, rewriter: Rewriter, images: Images, one_row: Sequence[bool], joined: Sequence[_OwnSize | None]
) -> None:
    """The nodes of the graph inside a Loop over the rows of the images; counts stand behind the other outputs.

    Args:
        graph: of one image.
        rewriter: edits it.
        images: what its inputs are rows of.
        one_row: of each output, whether its first axis is that of the one image.
        joined: of each output, the size along which those of all images are joined, None where they are stacked.
    """
    body = ir.Graph([], [], nodes=[], name=rewriter.names.fresh("image"))
    for name, kind in (("image_number", ir.DataType.INT64), ("image_goes_on", ir.DataType.BOOL)):
        fresh = rewriter.names.fresh(name)
        body.inputs.append(ir.Value(name=fresh, type=ir.TensorType(kind), shape=ir.Shape([])))
    number, goes_on = body.inputs
    results = rewriter.move_in(body)
    first = body[0]
    inside = rewriter.builder(first)
    place = inside.Unsqueeze(number, [0])
    for value in graph.inputs:
        if value.name not in images.inputs:
            continue
        users = list(value.uses())
        row = inside.Gather(value, place, axis=0)
        rewriter.set_type(row, value.type)
        rewriter.set_shape(row, value.shape)
        for user, index in users:
            rewriter.set_input(user, index, row)
        rewriter.set_shape(value, ir.Shape([images.dim, *(value.shape or ())[1:]]))
    inside = rewriter.builder(first).inside(body)
    carried: list[ir.Value] = []
    stacked: list[ir.Value] = []
    counts: dict[str, ir.Value] = {}
    empty: list[ir.Value] = []
    shapes: list[ir.Shape] = []
    for value, is_row, own in zip(results, one_row, joined, strict=True):
        kept = list(value.shape or ())
        if own is None:
            stacked.append(inside.Squeeze(value, [0]) if is_row else inside.Identity(value))
            rewriter.set_type(stacked[-1], value.type)
            rewriter.set_shape(stacked[-1], ir.Shape(kept[1:] if is_row else kept))
            continue
        front, behind = kept[: own.axis], kept[own.axis + 1 :]
        so_far = ir.Value(name=rewriter.names.fresh("joined"), type=value.type, shape=ir.Shape([*front, None, *behind]))
        body.inputs.append(so_far)
        carried.append(inside.Concat(so_far, value, axis=own.axis))
        rewriter.set_type(carried[-1], value.type)
        rewriter.set_shape(carried[-1], so_far.shape)
        empty.append(
            inside.constant(np.zeros([size if isinstance(size, int) else 0 for size in kept]), dtype=value.dtype)
        )
        shapes.append(ir.Shape([*front, f"all_{own.count}", *behind]))
        if own.count not in counts:
            counts[own.count] = inside.Squeeze(inside.Shape(value, start=own.axis, end=own.axis + 1), [0])
    body.outputs.extend([inside.Identity(goes_on), *carried, *stacked, *counts.values()])
    around = rewriter.builder(None)
    batch = next(value for value in graph.inputs if value.name in images.inputs)
    count = around.Squeeze(around.Shape(batch, start=0, end=1), [0])
    outputs = len(body.outputs) - 1
    made = around.node("Loop", [count, around.constant(True), *empty], _outputs=outputs, body=body)
    values = [made] if isinstance(made, ir.Value) else list(made)
    shapes += [ir.Shape([images.dim, *(one.shape or ())]) for one in (*stacked, *counts.values())]
    for value, of_one, shape in zip(values, body.outputs[1:], shapes, strict=True):
        rewriter.set_type(value, of_one.type)
        rewriter.set_shape(value, shape)
    behind_each_other, of_each = iter(values[: len(carried)]), iter(values[len(carried) :])
    graph.outputs.extend([next(of_each if own is None else behind_each_other) for own in joined])
    graph.outputs.extend(of_each)  # the counts
