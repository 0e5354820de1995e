"""Float16 and bfloat16 over many models: the zoo, the gallery's detectors, MTCNN, a pose net; one process for each.

`scripts/bench precision --zoo` runs it.  Each model is compiled in float32 once; that file is then compiled in each
precision, on two feeds of batch 1, checked by onnx.checker in full, run with and without ONNX Runtime's optimization
and with each result rounded as the file says, and scored on three feeds that it was not measured on (detectors: on
those it was measured on, and one more).  Weights are random, so there is no accuracy to lose: the score is the cosine
between an output and float32's (1 is equal, the least of all outputs and runs), for detectors the share of float32's
detections that are found again, which is also the metric that their compilation is bound by (``max_drop``).
``none kept`` is the same with every node converted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from graphforge.runtime.detections import Detections

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "out" / "bench" / "precision"
PRECISIONS = ("fp16", "bf16")
# What the score may lose, as a share of float32's.
ALLOWED = {"fp16": 0.001, "bf16": 0.005}
_OTHERS = ("gallery/mtcnn_p", "gallery/mtcnn_o", "net/rtmpose", "net/loud_rtmpose")
_HELD_OUT = 3

Array = np.ndarray[Any, np.dtype[Any]]
Feeds = dict[str, Array]


def names() -> list[str]:
    """All models: those of the zoo that are quick first, so that a slice of the time shows many."""
    from scripts.bench_detectors import HEADS
    from scripts.zoo import ZOO

    zoo = sorted((entry.name for entry in ZOO), key=lambda name: not name.startswith("transformers/"))
    return [*_OTHERS, *zoo, *(f"gallery/{head}" for head in HEADS)]


def run(only: str, *, table: bool, fresh: bool, seconds: float) -> int:
    """Measure what was not measured before, a process for each model, and print the table of all results."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in names() if only in name]
    for name in wanted:
        out = _out(name)
        if table or (out.exists() and not fresh):
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
        command = [sys.executable, str(Path(__file__).parent / "bench_precision.py"), "--worker", name, str(out)]
        try:
            code = subprocess.run(command, env=environment, cwd=ROOT, timeout=seconds, check=False).returncode
        except subprocess.TimeoutExpired:
            code = -1
        if code and not out.exists():
            told = f"no end after {seconds:.0f} s" if code == -1 else f"the process ended with {code}"
            out.write_text(json.dumps({"model": name, "error": told}))
    _table([json.loads(_out(name).read_text()) for name in wanted if _out(name).exists()])
    return 0


def worker(name: str, out: Path) -> None:
    """Measure one model."""
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="graphforge-precision-") as scratch:
        out.write_text(json.dumps({"model": name, **_measured(name, Path(scratch))}, indent=1))


def _out(name: str) -> Path:
    return RESULTS / f"{name.replace('/', '__')}.json"


# -- one model ---------------------------------------------------------------------------------------------------------


def _measured(name: str, folder: Path) -> dict[str, Any]:
    import graphforge
    from graphforge.call import input_tree

    module, inputs, kwargs, how = _built(name)
    source = folder / "float32" / "model.onnx"
    graphforge.compile(module, inputs or None, kwargs=kwargs, output=source.parent, verify=False, **how)
    example = {key: tensor.numpy() for key, tensor in input_tree(module, inputs, kwargs).tensors.items()}
    feeds = _feeds(source, example, pictures=name.startswith("gallery/"))
    right = _outputs(source, feeds, optimize=True)
    rows: dict[str, Any] = {}
    for precision in PRECISIONS:
        start = time.process_time()
        try:
            rows[precision] = _in(precision, source, folder / precision, feeds, right)
        except Exception as error:  # what failed is the result
            rows[precision] = {"error": f"{type(error).__name__}: {error}"[:600]}
        rows[precision]["seconds"] = round(time.process_time() - start, 1)
    return {"precisions": rows}


def _in(precision: str, source: Path, folder: Path, feeds: Sequence[Feeds], right: Sequence[Feeds]) -> dict[str, Any]:
    import onnx

    import graphforge

    scalars = any(array.ndim == 0 for array in feeds[0].values())
    measured = feeds[_HELD_OUT:]
    calibration = None if scalars else {key: np.concatenate([one[key] for one in measured]) for key in feeds[0]}
    bound: dict[str, Any] = {}
    if _detections(right[0]):  # found again on what is measured, and scored on one more
        expected = _outputs(source, measured, optimize=True)
        bound = {
            "max_drop": 100 * ALLOWED[precision],
            "metric": lambda run: 100 * _score(expected, [run(one) for one in measured])[0],
        }
    bundle = graphforge.compile(
        source,
        precision=precision,
        calibration=calibration,
        output=folder,
        verify=False,
        accept_undecided=True,
        **bound,
    )
    file = folder / "model.onnx"
    onnx.checker.check_model(file, full_check=True)
    scores = [_score(right, _outputs(file, feeds[:_HELD_OUT], optimize=optimize)) for optimize in (True, False)]
    scores.append(_score(right, _as_written(file, feeds[:_HELD_OUT])))
    notes = [note.partition(": ")[2] for note in bundle.manifest["notes"] if note.startswith("convert-")]
    return {
        "score": min(score for score, _ in scores),
        "noise": max(noise for _, noise in scores),
        "size": round(file.stat().st_size / source.stat().st_size, 3),
        "notes": notes,
        **_all_of(source, precision, feeds[:_HELD_OUT], right),
    }


def _all_of(source: Path, precision: str, feeds: Sequence[Feeds], right: Sequence[Feeds]) -> dict[str, Any]:
    """The score when every node that can be is converted, and the first value that is not finite then."""
    import onnx_ir as ir

    from graphforge.passes.compute_where_kernels_are import runnable
    from graphforge.passes.half.forms import form_of
    from graphforge.passes.half.place import place
    from graphforge.ranges.values import values_in
    from graphforge.runners.halves import rounded_throughout
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
    from graphforge.transform import Rewriter

    half = ir.DataType.FLOAT16 if precision == "fp16" else ir.DataType.BFLOAT16
    model = ir.load(source)
    opset = model.graph.opset_imports[""]
    forms = {node: form for node in model.graph if (form := form_of(node, half, opset)) is not None}
    place(Rewriter(model, pass_name="all"), forms, half, keep_io=True)
    rounded_throughout(model)
    model = runnable(model)
    try:
        with OnnxRuntimeRunner(model, threads=1, optimize=False) as runner:
            score, _ = _score(right, [runner.run(one) for one in feeds])
        checked = [v.name for node in model.graph for v in node.outputs if v.dtype == half and v.name]
        values = values_in(model, feeds[0], checked) if score < 1 - ALLOWED[precision] else {}
        bad = [name for name, array in values.items() if not np.isfinite(array.astype(np.float32)).all()]
    except Exception as error:  # what failed is the result
        return {"all": None, "first": f"{type(error).__name__}: {error}"[:200]}
    return {"all": score, "first": bad[0] if bad else ""}


def _outputs(file: Path, feeds: Sequence[Feeds], *, optimize: bool) -> list[Feeds]:
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

    with OnnxRuntimeRunner(file, threads=1, optimize=optimize) as runner:
        return [runner.run(one) for one in feeds]


def _as_written(file: Path, feeds: Sequence[Feeds]) -> list[Feeds]:
    """With each result rounded as the file says: a CPU computes in float32 from one node to the next."""
    import onnx_ir as ir

    from graphforge.passes.compute_where_kernels_are import runnable
    from graphforge.runners.halves import rounded_throughout
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

    model = ir.load(file)
    rounded_throughout(model)
    with OnnxRuntimeRunner(runnable(model), threads=1, optimize=False) as runner:
        return [runner.run(one) for one in feeds]


def _score(right: Sequence[Feeds], found: Sequence[Feeds]) -> tuple[float, float]:
    """The least cosine of an output with float32's, or the share of detections found again; and the largest noise."""
    pairs = [(_detections(one), _detections(other)) for one, other in zip(right, found, strict=False)]
    if all(one and other for one, other in pairs):
        shares = [_found_again(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)]
        return float(np.mean(shares)), 0.0
    least, noise = 1.0, 0.0
    for name, array in right[0].items():
        if array.dtype.kind != "f":
            continue
        a = np.concatenate([one[name].reshape(-1) for one in right[: len(found)]]).astype(np.float64)
        b = np.concatenate([one[name].reshape(-1) for one in found]).astype(np.float64)
        if not np.isfinite(b).all() or a.shape != b.shape:
            return -1.0, float("inf")
        size = float(np.linalg.norm(a))
        least = min(least, float(a @ b / max(size * float(np.linalg.norm(b)), 1e-30)))
        noise = max(noise, float(np.linalg.norm(a - b)) / max(size, 1e-30))
    return least, noise


def _detections(outputs: Feeds) -> Sequence[Detections]:
    """Of each image; none where the outputs are something else, or boxes that nothing was chosen of."""
    from graphforge.runtime.detections import detections_of

    chosen = all(any(name.endswith(field) for name in outputs) for field in ("boxes", "scores"))
    return detections_of(outputs) or [] if chosen else []


def _found_again(right: Detections, found: Detections) -> float:
    """Of float32's detections those with one of the same label, of boxes that overlap by 0.9 and scores within 0.02."""
    from graphforge.runtime.tracker import overlap as overlaps

    if not len(right.boxes):
        return 1.0
    taken: set[int] = set()
    overlap = overlaps(right.boxes, found.boxes)
    for place in range(len(right.boxes)):
        fits = (
            (overlap[place] >= 0.9)
            & (found.labels == right.labels[place])
            & (np.abs(found.scores - right.scores[place]) <= 0.02)
        )
        free = [int(other) for other in np.flatnonzero(fits) if other not in taken]
        if free:
            taken.add(max(free, key=lambda other: overlap[place, other]))
    return len(taken) / len(right.boxes)


def _feeds(source: Path, example: Mapping[str, Array], *, pictures: bool) -> list[Feeds]:
    """Three feeds to score on and two to measure on, of batch 1 where the batch may vary, all like the example."""
    import onnx_ir as ir

    from graphforge.runners.inputs import random_array

    model = ir.load(source)
    made: list[Feeds] = []
    if (
        pictures
    ):  # what is found on noise would differ by rounding: the pictures that it was made for, and mirrored ones
        mirrored = [
            {key: np.flip(array, axis).copy() if array.ndim > 2 else array for key, array in example.items()}
            for axis in (-1, -2)
        ]
        return [dict(example), *mirrored, dict(example), mirrored[0]]
    for seed in range(_HELD_OUT + 2):
        feeds: Feeds = {}
        for number, value in enumerate(model.graph.inputs):
            assert value.name is not None
            assert value.shape is not None
            like = example[value.name]
            one = like[:1] if value.shape.dims and not isinstance(value.shape.dims[0], int) else like
            feeds[value.name] = (
                one if not one.ndim else random_array(one, one.shape, np.random.default_rng((seed, number)))
            )
        made.append(feeds)
    return made


def _built(name: str) -> tuple[Any, tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """Model, arguments, keywords, and how to compile it."""
    import torch

    kind, _, short = name.partition("/")
    if kind == "net":
        from tests.e2e import nets

        torch.manual_seed(0)
        net: Any = nets.calm(nets.RTMPose(17, (256, 192), 96, 256))
        if short == "loud_rtmpose":
            with torch.no_grad():  # as training makes them: features in the hundreds, attention that is squared
                net.maps.weight.mul_(2000)
                net.attention.gain.mul_(60)
                net.attention.out.weight.mul_(1e-6)
        return net, (torch.randn(1, 3, 256, 192),), {}, {"dynamic_shapes": {"image": {0: (1, 8)}}}
    if name == "gallery/mtcnn_p":
        from scripts.gallery import mtcnn

        module, inputs = mtcnn.p_stage()
        return module, inputs, {}, {}
    if name == "gallery/mtcnn_o":
        from scripts.gallery import mtcnn

        module, inputs = mtcnn.o_stage()
        return module, inputs, {}, {}
    if kind == "gallery":
        from scripts.gallery import torchvision_heads

        module, inputs = getattr(torchvision_heads, short)(1)
        return module, inputs, {}, {}
    from scripts.bench_zoo import _gf_dynamic
    from scripts.zoo import build

    entry, module, args, kwargs = build(name)
    return module, args, kwargs, {"dynamic_shapes": _gf_dynamic(entry.dynamic) or None}


# -- the table ---------------------------------------------------------------------------------------------------------


def _table(results: Sequence[dict[str, Any]]) -> None:
    print("| model | precision | score | noise | score, none kept | nodes | stay in float32 | size |")
    print("|---|---|---|---|---|---|---|---|")
    held = total = 0
    for result in results:
        if "error" in result:
            print(f"| {result['model']} | - | {result['error'][:150]} | | | | | |")
            total += len(PRECISIONS)
            continue
        for precision, row in result["precisions"].items():
            total += 1
            if "error" in row:
                print(f"| {result['model']} | {precision} | FAILS: {' '.join(row['error'].split())[:200]} | | | | | |")
                continue
            good = row["score"] >= 1 - ALLOWED[precision]
            held += good
            print(f"| {' | '.join(_cells(result['model'], precision, row, good=good))} |")
    print(f"\n{held} of {total} within the bound (fp16 {ALLOWED['fp16']:.1%}, bf16 {ALLOWED['bf16']:.1%})")


def _cells(model: str, precision: str, row: Mapping[str, Any], *, good: bool) -> Iterator[str]:
    nodes = next((note.partition(" nodes")[0] for note in row["notes"] if " nodes compute in" in note), "none")
    kept = [note for note in row["notes"] if " stay in float32, " in note]
    told = "; ".join(f"{k.split()[0]} {k.partition('float32, ')[2].partition(':')[0]}" for k in kept)
    everything = row["all"]
    yield model
    yield precision
    yield f"{row['score']:.5f}" + ("" if good else " **outside**")
    yield f"{row['noise']:.1e}"
    yield "fails" if everything is None else f"{everything:.4f}" + (f", first {row['first']}" if row["first"] else "")
    yield nodes
    yield told or "-"
    yield f"{row['size']:.2f}"
