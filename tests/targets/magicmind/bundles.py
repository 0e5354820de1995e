"""Bundles to test with, and the stand-in to run their scripts on.  Nothing here runs on an MLU."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphforge.spec import DimRange, ShapeSpec, TensorSpec
from graphforge.targets import EmitResult, options_for
from graphforge.targets.magicmind import MagicMindTarget
from tests.targets.models import CONV, Sketch, conv_net, spec

__all__ = [
    "OPSET",
    "STAND_IN",
    "Outcome",
    "dynamic_bundle",
    "edit_json",
    "edit_model",
    "edit_text",
    "emit",
    "pinned_bundle",
    "quantised_bundle",
    "run_scripts",
    "static_bundle",
    "two_inputs",
]

OPSET = 11
STAND_IN = Path(__file__).parent.parent / "magicmind_stub"


def emit(model: ir.Model, folder: Path, shapes: ShapeSpec, *, precision: str | None = None, **extra: Any) -> EmitResult:
    """What the target writes for a model that is at opset 11 already."""
    folder.mkdir(parents=True, exist_ok=True)
    target = MagicMindTarget()
    return target.emit(model, folder, options_for(target, precision=precision, own=extra), shapes)


def static_bundle(folder: Path, **options: Any) -> EmitResult:
    """A convolution and a Relu, all dims fixed."""
    return emit(conv_net(OPSET), folder, spec("x", 1, 3, 16, 16), **options)


def dynamic_bundle(folder: Path, **options: Any) -> EmitResult:
    """The same with dynamic batch and width."""
    shapes = spec("x", 2, 3, 16, 16, axis0=DimRange("batch", 1, 8), axis3=DimRange("width", 8, 64, 8))
    return emit(conv_net(OPSET, batch="batch", width="width"), folder, shapes, **options)


def quantised_bundle(folder: Path, **options: Any) -> EmitResult:
    """The static one in int8, calibrated with nine random samples."""
    samples = np.random.default_rng(3).standard_normal((9, 3, 16, 16)).astype(np.float32)
    options.setdefault("calibration", {"x": samples})
    return static_bundle(folder, precision="qint8_mixed_float16", **options)


def pinned_bundle(folder: Path) -> EmitResult:
    """In int8, with a square root that stays in float32."""
    sketch = Sketch(OPSET)
    x = sketch.input("x", [1, 3, 16, 16])
    conv = sketch.op(CONV).Conv(x, sketch.weight("weight", 8, 3, 1, 1))
    model = sketch.model(y=sketch.op(CONV).Sqrt(sketch.op(CONV).Relu(conv)))
    samples = np.random.default_rng(3).standard_normal((9, 3, 16, 16)).astype(np.float32)
    shapes = spec("x", 1, 3, 16, 16)
    return emit(model, folder, shapes, precision="qint8_mixed_float16", calibration={"x": samples})


def two_inputs() -> tuple[ir.Model, ShapeSpec]:
    """Rows of a table by int64 index, times a factor: an integer and a float input."""
    sketch = Sketch(OPSET)
    index = sketch.input("index", [2, 5], ir.DataType.INT64)
    factor = sketch.input("factor", [2, 5, 4])
    rows = sketch.op(CONV).Gather(sketch.weight("table", 10, 4), index)
    model = sketch.model(y=sketch.op(CONV).Mul(rows, factor))
    return model, ShapeSpec((TensorSpec("index", (2, 5), "int64"), TensorSpec("factor", (2, 5, 4))))


@dataclass(frozen=True)
class Outcome:
    """What came of running the scripts of a bundle on the stand-in."""

    code: int
    output: str
    unchecked: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether everything worked and every Status was asked."""
        return self.code == 0 and not self.unchecked


def run_scripts(
    folder: Path,
    names: tuple[str, ...] = ("build_mm.py", "run_mm.py"),
    *,
    build_arguments: tuple[str, ...] = (),
) -> Outcome:
    """Run scripts one after the other, in this process, on the stand-in; stops at the first that fails."""
    sys.path.insert(0, str(STAND_IN))
    output = io.StringIO()
    arguments = sys.argv
    try:
        log = importlib.import_module("magicmind.python._log")
        log.reset()
        code = 0
        for name in names:
            sys.argv = [str(folder / name), *(build_arguments if name == "build_mm.py" else ())]
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                code = _run(folder / name, output)
            if code:
                break
        forgotten = tuple(log.unchecked())
        log.reset()
    finally:
        sys.argv = arguments
        sys.path.remove(str(STAND_IN))
    return Outcome(code, output.getvalue(), forgotten)


def _run(script: Path, output: io.StringIO) -> int:
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    except Exception as error:  # a mutated script may fail in any way; a user would see the traceback
        output.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


def edit_model(folder: Path, edit: Callable[[onnx.ModelProto], None]) -> None:
    """Change model.onnx and let bundle.json know its new hash."""
    model = onnx.load(folder / "model.onnx")
    edit(model)
    onnx.save(model, folder / "model.onnx")
    _sign(folder)


def edit_json(folder: Path, name: str, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change build_config.json or bundle.json."""
    data = json.loads((folder / name).read_text())
    edit(data)
    (folder / name).write_text(json.dumps(data))
    _sign(folder)


def edit_text(folder: Path, name: str, old: str, new: str) -> None:
    """Replace a text that occurs in a file of the bundle."""
    text = (folder / name).read_text()
    assert old in text, f"{name} has no {old!r}"
    (folder / name).write_text(text.replace(old, new))
    _sign(folder)


def _sign(folder: Path) -> None:
    bundle = json.loads((folder / "bundle.json").read_text())
    for part in ("model", "config"):
        bundle[part]["sha256"] = hashlib.sha256((folder / bundle[part]["file"]).read_bytes()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(bundle))
