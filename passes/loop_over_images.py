"""Run the graph of one image over a batch.    boxes [1,K,4] of x [1,3,H,W]  ==>  Loop: boxes [B,K,4] of x [B,3,H,W]

What a model does image by image in Python, into a list of results, is captured for one image alone.  Here the whole
graph becomes the body of a Loop over the images, and the results of the rounds, all of one shape, are stacked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

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
        _refuse_own_sizes(graph, promised, of_all)
        _refuse_taken(graph, of_all)
        rows = [name in stacked or not one.each for name, one in of_all.items()]
        _loop(graph, rewriter, images, rows)
        rewriter.set_outputs([(one.name, v) for one, v in zip(of_all.values(), list(graph.outputs), strict=True)])
        recipe = [
            {**one, "restores": of_all[one["output"]].each, "output": of_all[one["output"]].name, "image": None}
            for one in padding
        ] + [
            {"restores": one.each, "output": one.name, "image": None, "count": "", "axis": 0}
            for name, one in of_all.items()
            if one.each and name not in padded
        ]
        if recipe:
            meta[PADDED_OUTPUTS] = recipe
        promised[images.dim] = images.sizes
        meta.pop(IMAGE_BY_IMAGE, None)


def _refuse_own_sizes(graph: Graph, promised: Mapping[str, range], of_all: Mapping[str, OfImages]) -> None:
    """What has another size in each image cannot be stacked."""
    known = {str(dim) for value in graph.inputs for dim in value.shape or ()} | set(promised)
    for value, one in zip(graph.outputs, of_all.values(), strict=True):
        if value.shape is None or any(not isinstance(dim, int) and str(dim) not in known for dim in value.shape):
            raise GraphForgeError(
                f"the model returns a list with results of each image, and those of {one.name!r} have a size of their "
                "own in each",
                f"padded to one size they fit a tensor for all images, with the counts beside it: "
                f"{argument('outputs', 'padded')}",
                "or compile for a fixed number of images",
            )


def _refuse_taken(graph: Graph, of_all: Mapping[str, OfImages]) -> None:
    taken = {str(value.name) for value in graph.inputs}
    for one in of_all.values():
        if one.name in taken:
            raise GraphForgeError(f"an input or output is called {one.name!r} already", "rename that one in the model")
        taken.add(one.name)


def _loop(graph: Graph, rewriter: Rewriter, images: Images, one_row: Sequence[bool]) -> None:
    """The nodes of the graph inside a Loop over the rows of the images.

    Args:
        graph: of one image.
        rewriter: edits it.
        images: what its inputs are rows of.
        one_row: of each output, whether its first axis is that of the one image.
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
    handed = [inside.Identity(goes_on)]
    for value, is_row in zip(results, one_row, strict=True):
        kept = value.shape
        handed.append(inside.Squeeze(value, [0]) if is_row else inside.Identity(value))
        rewriter.set_type(handed[-1], value.type)
        rewriter.set_shape(handed[-1], ir.Shape(list(kept or ())[1:]) if is_row else kept)
    body.outputs.extend(handed)
    around = rewriter.builder(None)
    batch = next(value for value in graph.inputs if value.name in images.inputs)
    count = around.Squeeze(around.Shape(batch, start=0, end=1), [0])
    made = around.node("Loop", [count, around.constant(True)], _outputs=len(results), body=body)
    for value, of_one in zip([made] if isinstance(made, ir.Value) else made, handed[1:], strict=True):
        rewriter.set_type(value, of_one.type)
        rewriter.set_shape(value, ir.Shape([images.dim, *(of_one.shape or ())]))
        graph.outputs.append(value)
