"""Every head of the gallery compiled in every form and verified against eager; prints a table.

    scripts/bench heads
    scripts/bench heads --match yolo --output out/bench/heads

A head is captured once for each batch, lowered four times: results as eager returns them (ragged) or in fixed shapes
(padded), suppression by ONNX's NonMaxSuppression (native) or in plain operators (portable).  Verification is that of
`graphforge compile`: the given inputs and random ones, integers and counts exactly.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

from scripts.gallery import digits, mtcnn, torchvision_heads, yolo, yolox_pose

__all__ = ["FORMS", "HEADS", "Head", "Row", "rows_of"]

FORMS = [(outputs, nms) for outputs in ("ragged", "padded") for nms in ("native", "portable")]

_COLUMNS = {
    "head": "head",
    "batch": "batch",
    "capture": "capture",
    "outputs": "outputs",
    "nms": "NMS",
    "nodes": "nodes",
    "suppression": "NMS nodes",
    "detections": "detections",
    "difference": "max difference",
    "relative": "relative",
    "verified": "verified",
}
_LISTS_DETECTIONS = re.compile(r"(output_)*(\d+_)?boxes|output_\d+")


@dataclass(frozen=True, slots=True)
class Head:
    """One row of the gallery.

    Attributes:
        name: the function that makes it.
        batch: images, or crops.
        make: the model and its inputs.
    """

    name: str
    batch: str
    make: Callable[[], tuple[nn.Module, tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Row:
    """One form of a head.

    Attributes:
        head, batch: of the gallery.
        capture: how the model was captured.
        outputs, nms: the form.
        nodes: of the ONNX file.
        suppression: nodes that suppress, by operator; other Loops of the model are among them.
        detections: of each image.
        difference, relative: the largest of all outputs and trials, absolute and as a share of its output's largest.
        verified: whether every trial agreed, and what was let pass; else why not.
    """

    head: str
    batch: str
    capture: str
    outputs: str
    nms: str
    nodes: int
    suppression: str
    detections: str
    difference: float
    relative: float
    verified: str


def _heads() -> Iterator[Head]:
    for name in ("ssd", "retinanet", "fcos", "faster_rcnn", "mask_rcnn", "keypoint_rcnn"):
        yield Head(name, "1", getattr(torchvision_heads, name))
        yield Head(name, "3", getattr(torchvision_heads, f"{name}_batch3"))
    yield Head("yolo", "1", yolo.yolo)
    yield Head("yolo", "3", yolo.yolo_batch3)
    yield Head("yolo_offset", "1", yolo.yolo_offset)
    yield Head("yolo_offset", "3", yolo.yolo_offset_batch3)
    yield Head("yolox_pose", "1", yolox_pose.yolox_pose)
    yield Head("yolox_pose", "3", yolox_pose.yolox_pose_batch3)
    yield Head("digits", "1", digits.detector)
    yield Head("digits", "3", digits.detector_batch3)
    yield Head("mtcnn p_stage", "1", mtcnn.p_stage)
    yield Head("mtcnn m_stage", "294 boxes", mtcnn.m_stage)
    yield Head("mtcnn r_stage", "153 crops", mtcnn.r_stage)
    yield Head("mtcnn o_stage", "9 crops", mtcnn.o_stage)


HEADS = list(_heads())


def rows_of(head: Head, forms: list[tuple[str, str]] = FORMS) -> Iterator[Row]:
    """Capture a head once, and compile it in some forms."""
    from graphforge.prepare import prepare, to_canonical, to_ir

    model, inputs = head.make()
    prepared = prepare(model, inputs)
    captured, facts = to_ir(prepared, target="onnx")
    to_canonical(captured)
    for outputs, nms in forms:
        yield _row(head, prepared, captured.clone(), facts["method"], outputs, nms)


def _row(head: Head, prepared: Any, model: Any, capture: str, outputs: str, nms: str) -> Row:
    from graphforge.passes.bound_dynamic_shapes import PADDED_OUTPUTS
    from graphforge.prepare import example_feeds, reference_runner
    from graphforge.runners.padding import UnpaddedRunner
    from graphforge.targets import get_target, options_for
    from graphforge.transform import Pipeline
    from graphforge.verify import verify

    target = get_target("onnx")
    options = options_for(target, outputs=outputs, nms=nms)
    Pipeline(target.pipeline(options)).run(model)
    operators = [node.op_type for node in model.graph.all_nodes()]
    kinds = [f"{operators.count(kind)} {kind}" for kind in ("NonMaxSuppression", "Loop") if kind in operators]
    with tempfile.TemporaryDirectory() as folder:
        target.emit(model, Path(folder), options, prepared.shapes)
        runner: Any = target.runner(Path(folder))
        recipe = model.meta.get(PADDED_OUTPUTS, ())
        if recipe:
            runner = UnpaddedRunner(runner, recipe)
        try:
            feeds = example_feeds(prepared)
            report = verify(reference_runner(prepared), runner, prepared.shapes, feeds)
            found = runner.run(feeds)
        finally:
            runner.close()
    notes = {output.note for trial in report.trials for output in trial.outputs if output.note}
    counts = [len(array) for name, array in found.items() if _LISTS_DETECTIONS.fullmatch(name)]
    return Row(
        head=head.name,
        batch=head.batch,
        capture=capture,
        outputs=outputs,
        nms=nms,
        nodes=len(operators),
        suppression=", ".join(kinds),
        detections=", ".join(map(str, counts)),
        difference=report.max_abs,
        relative=report.max_rel,
        verified="; ".join(["yes", *sorted(notes)]) if report.passed else "; ".join(report.failures())[:200],
    )


def main() -> int:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--match", default="", help="heads whose name holds this")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/bench/heads"))
    options = parser.parse_args()
    chosen = [head for head in HEADS if options.match in head.name]
    if not chosen:
        parser.error(f"no head is called {options.match!r}")
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    print("| " + " | ".join(_COLUMNS.values()) + " |\n|" + "---|" * len(_COLUMNS))
    rows: list[Row] = []
    failed = []
    for head in chosen:
        started = time.perf_counter()
        try:
            for row in rows_of(head):
                rows.append(row)
                cells = [asdict(row)[column] for column in _COLUMNS]
                text = [f"{cell:.1e}" if isinstance(cell, float) else str(cell) for cell in cells]
                print("| " + " | ".join(text) + " |", flush=True)
        except Exception as error:  # the next head may still compile
            failed.append(head)
            print(f"{head.name} at batch {head.batch}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            traceback.print_exc()
        print(f"{head.name} at batch {head.batch}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    path = options.output / "heads.json"
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    passed = sum(row.verified.startswith("yes") for row in rows)
    print(f"\n{passed} of {len(rows)} verified, {len(failed)} heads did not compile; {path}")
    return 0 if passed == len(rows) and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
