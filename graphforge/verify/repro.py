"""What a reduction leaves: the part that fails as ``repro.onnx``, its inputs, and a short script that shows it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from graphforge.errors import GraphForgeError
from graphforge.last_step import version_of
from graphforge.verify.subgraph import Part
from graphforge.verify.trials import AS_WRITTEN, OPTIMIZED, REFERENCE, Failure

__all__ = ["polygraphy_script", "shows_it", "write_repro"]

_SECONDS = 300
_LEVELS = {AS_WRITTEN: "ORT_DISABLE_ALL", OPTIMIZED: "ORT_ENABLE_ALL"}

_HEAD = '''"""{title}"""
from pathlib import Path

import numpy as np
import onnxruntime as ort
{more}
folder = Path(__file__).parent
feeds = dict(np.load(folder / "inputs.npz"))


def run(level):
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    return ort.InferenceSession(folder / "{model}", options, providers=["CPUExecutionProvider"]).run(None, feeds)


'''
_ONE = 'run("{level}")\n'
_TWO = """found = {found}
expected = {expected}
for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol={atol:.3g})
"""
_REFERENCE = 'ReferenceEvaluator(folder / "{model}").run(None, feeds)'
_COMMAND = '''"""{title}"""
import os
import subprocess
import sys
from pathlib import Path

os.chdir({here!r})
sys.exit(subprocess.run({command!r}.format(folder=Path(__file__).parent), shell=True).returncode)
'''


def write_repro(part: Part, folder: Path, failure: Failure, title: str, *, command: str = "") -> list[Path]:
    """Write the part, its inputs and the script; the files.

    Args:
        part: what fails.
        folder: where to.
        failure: how it fails.
        title: the first line of the script.
        command: a command of the user's that shows it, ``{folder}`` standing for the folder; "" takes ONNX Runtime.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model = part.write(folder)
        script = folder / "repro.py"
        script.write_text(_script(failure, title, model.name, command), encoding="utf-8")
    except OSError as error:
        raise GraphForgeError(f"cannot write into {folder}: {error.strerror or error}") from error
    return [model, folder / "inputs.npz", script]


def shows_it(script: Path) -> bool:
    """Whether the script fails, run alone."""
    try:
        done = subprocess.run([sys.executable, str(script)], capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def _script(failure: Failure, title: str, model: str, command: str) -> str:
    plain = textwrap.shorten(title.replace("\\", "/").replace('"', "'"), 90)
    if command:
        return _COMMAND.format(title=plain, here=str(Path.cwd()), command=command)
    ways = failure.where.split(" against ")
    more = "from onnx.reference import ReferenceEvaluator\n" if REFERENCE in ways else ""
    head = _HEAD.format(title=f"onnxruntime {version_of('onnxruntime')}: {plain}", model=model, more=more)
    calls = [_REFERENCE.format(model=model) if way == REFERENCE else f'run("{_LEVELS[way]}")' for way in ways]
    if len(ways) == 1:
        return head + _ONE.format(level=_LEVELS[ways[0]])
    return head + _TWO.format(found=calls[0], expected=calls[1], atol=failure.half)


_POLYGRAPHY = '''#!/usr/bin/env python3
"""The search for the smallest failing part of {model} with polygraphy's own tools.

    python {script}             compare the whole model; exit code 1 where it fails
    python {script} --reduce    polygraphy debug reduce, with this script as the check

polygraphy draws data for each part anew: where the failure needs other data, say so in DataLoader.
"""
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from polygraphy.backend.onnxrt import OnnxrtRunner
from polygraphy.comparator import Comparator, CompareFunc, DataLoader

MODEL = {model!r}
INPUTS = {inputs!r}


def session(model, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def check(model):
    data = [dict(np.load(INPUTS))] if model == MODEL else DataLoader(seed=0)
    levels = {{"as written": "ORT_DISABLE_ALL", "optimized": "ORT_ENABLE_ALL"}}
    runners = [OnnxrtRunner(session(model, level), name=name) for name, level in levels.items()]
    results = Comparator.run(runners, data_loader=data)
    return bool(Comparator.compare_accuracy(results, compare_func=CompareFunc.simple(rtol=1e-3, atol=1e-4)))


if "--reduce" in sys.argv:
    again = [{check}]
    command = ["polygraphy", "debug", "reduce", MODEL, "--output", str(Path(MODEL).with_suffix(".reduced.onnx"))]
    sys.exit(subprocess.run([*command, "--mode", "bisect", "--check", *again]).returncode)
sys.exit(0 if check(sys.argv[1] if len(sys.argv) > 1 else MODEL) else 1)
'''
# Where polygraphy puts the part that the check is to look at.
_ITS_PART = "polygraphy_debug.onnx"


def polygraphy_script(script: Path, model: Path, inputs: Path, command: str = "") -> Path:
    """Write the same search as a script that calls polygraphy.

    Args:
        script: the file to write.
        model: the model.
        inputs: its inputs.
        command: a check of the user's as ``CommandCheck`` takes it; "" compares ONNX Runtime with itself.
    """
    from graphforge.verify.trials import CommandCheck

    words = ["sys.executable", "__file__", repr(_ITS_PART)]
    if command:
        words = [repr(word) for word in ("sh", "-c", CommandCheck(command).line(Path(_ITS_PART), inputs.resolve()))]
    text = _POLYGRAPHY.format(
        model=str(model.resolve()), inputs=str(inputs.resolve()), script=script.name, check=", ".join(words)
    )
    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(text, encoding="utf-8")
    except OSError as error:
        raise GraphForgeError(f"cannot write {script}: {error.strerror or error}") from error
    return script
