"""A file that runs one image after the other in a Loop: its body is the program, and is diagnosed on one image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx

from graphforge.diagnosis.artifact import Artifact
from graphforge.diagnosis.diagnose import diagnose
from graphforge.diagnosis.outputs import Outputs
from graphforge.diagnosis.report import Cause, Diagnosis
from graphforge.diagnosis.tape import Tape
from graphforge.ir.images import Images
from graphforge.runners.arrays import Array
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.verify.tolerance import Tolerances

__all__ = ["diagnose_by_image", "of_one_image"]

# From this opset on the axes of Unsqueeze are an input.
_AXES_AS_INPUT = 13
_AXES = "graphforge/axis_of_images"


def of_one_image(artifact: Artifact) -> Artifact | None:
    """The body of the file's Loop as a graph of its own, for a batch of one; None where the file has no such Loop."""
    graph = artifact.proto.graph
    loops = [node for node in graph.node if node.op_type == "Loop" and set(artifact.outputs) <= set(node.output)]
    if len(loops) != 1:
        return None
    (loop,) = loops
    body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
    if len(body.input) != len(loop.input) or len(body.output) != len(loop.output) + 1:
        return None
    number, goes_on, *carried = (value.name for value in body.input)
    made = onnx.GraphProto(name=body.name, input=graph.input)
    made.node.extend(node for node in graph.node if node is not loop)
    # What is carried from image to image, the rows so far, is what it is in front of the first.
    starts = list(loop.input)[2:]
    made.node.extend(onnx.helper.make_node("Identity", [s], [name]) for s, name in zip(starts, carried, strict=True))
    made.node.extend(body.node)
    made.initializer.extend(
        onnx.numpy_helper.from_array(artifact.elements_of(tensor), tensor.name) for tensor in graph.initializer
    )
    made.initializer.extend(body.initializer)
    made.sparse_initializer.extend(graph.sparse_initializer)
    given = {number: np.int64(0), goes_on: np.bool_(True), _AXES: np.array([0], np.int64)}
    made.initializer.extend(onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in given.items())
    opset = next(one.version for one in artifact.proto.opset_import if one.domain in ("", "ai.onnx"))
    for place, (value, of_one) in enumerate(zip(loop.output, list(body.output)[1:], strict=True)):
        if place < len(carried):
            made.node.append(onnx.helper.make_node("Identity", [of_one.name], [value]))
        elif opset < _AXES_AS_INPUT:
            made.node.append(onnx.helper.make_node("Unsqueeze", [of_one.name], [value], axes=[0]))
        else:
            made.node.append(onnx.helper.make_node("Unsqueeze", [of_one.name, _AXES], [value]))
    made.output.extend(graph.output)
    model = onnx.ModelProto(ir_version=artifact.proto.ir_version, graph=made)
    model.opset_import.extend(artifact.proto.opset_import)
    model.functions.extend(artifact.proto.functions)
    source = artifact.source
    runner = OnnxRuntimeRunner(
        model, threads=source.threads, optimize=source.optimize, configure=source.configure, name=source.name
    )
    return Artifact(runner, artifact.graph_runner)


def diagnose_by_image(
    images: Images,
    artifact: Artifact,
    body: Artifact,
    feeds: Mapping[str, Array],
    expected: Mapping[str, Array],
    tape_of: Callable[[Mapping[str, Array]], Tape],
    *,
    tolerances: Tolerances | None = None,
    padding: Sequence[Mapping[str, Any]] = (),
    own: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = None,
    twin: Callable[[], Artifact | None] | None = None,
    full: Callable[[], Artifact | None] | None = None,
    notes: Sequence[str] = (),
    **others: Any,
) -> Diagnosis:
    """The outputs of the whole batch, and the values of the first image that goes wrong.

    Args:
        images: what the captured program stands for.
        artifact: the file.
        body: what ``of_one_image`` makes of it; itself, where it is a graph of one image and ``own`` runs the batch.
        feeds: inputs of the batch.
        expected: the reference's outputs for them.
        tape_of: the reference's values for the inputs of one image.
        tolerances, padding, own, twin, full, notes, others: as ``diagnose`` takes them.

    Raises:
        GraphForgeError: the file does not run on these inputs.
    """
    outputs = Outputs(expected, padding, tolerances or Tolerances())
    found = artifact.run(artifact.outputs, artifact.feeds(feeds)) if own is None else own(feeds)
    compared, measured = tuple(outputs.compare(found)), tuple(outputs.measure(found))
    agrees = all(one.passed for one in compared)
    asked = {"tolerances": tolerances, "padding": padding, "notes": notes, **others}
    asked |= {name: partial(_of_one, one) for name, one in (("twin", twin), ("full", full)) if one is not None}
    count = 1 if agrees else len(feeds[images.inputs[0]])
    reports: list[Diagnosis] = []
    for number in range(count):
        row = {name: array[number : number + 1] if name in images.inputs else array for name, array in feeds.items()}
        tape = tape_of(row)
        try:
            reports.append(diagnose(tape, body, row, **asked))
        finally:
            tape.close()
        if not reports[-1].agrees:
            break
    wrong = next((number for number, one in enumerate(reports) if not one.agrees), None)
    report = reports[wrong or 0]
    verdict, causes = "agrees" if agrees else report.verdict, () if agrees else report.causes
    if not agrees and wrong is None:
        verdict, causes = "departs", (_around(artifact),)
    told = f"the file runs image by image: the values are those of image {wrong or 0}, counted from 0, alone"
    return replace(
        report,
        verdict=verdict,
        outputs=compared,
        measured=measured,
        causes=causes,
        not_compared=tuple(
            f"output {one.name}: {one.reason}" for one in compared if one.max_abs is None and not one.passed
        ),
        notes=(told, *report.notes),
    )


def _of_one(compiled: Callable[[], Artifact | None]) -> Artifact | None:
    """What is compiled anew, of one image; without a Loop it is that already."""
    whole = compiled()
    body = None if whole is None else of_one_image(whole)
    return whole if body is None else body


def _around(artifact: Artifact) -> Cause:
    """Every image alone agrees: the Loop hands out, or takes in, what it should not."""
    loop = next(node for node in artifact.nodes if node.operator == "Loop")
    note = "each image alone agrees: it is what stands around the body, the number of rounds or the row that is taken"
    return Cause(None, loop.outputs[0], loop.describe(), (loop.name,), None, False, "the images one by one", note)
