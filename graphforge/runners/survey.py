"""Whether ONNX Runtime survives a file, found out in a process of its own before this one loads it.

Half a second for each file, so only those are surveyed that are like what it is known to die of: with float16 in them
(1.32 ends with SIGSEGV in its last level of optimization on a MultiheadAttention in float16).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphforge.apart import SECONDS, limit_memory, signal_name
from graphforge.errors import GraphForgeError
from graphforge.last_step import is_watched, lowered, lowering, version_of
from graphforge.runners.session import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["has_float16", "survivable"]


@contextmanager
def survivable(files: Sequence[Path]) -> Iterator[str]:
    """For a block: as much of ONNX Runtime's optimization as the files survive; why it is less, "" when it is all.

    Raises:
        GraphForgeError: it dies of one of them whatever is left out.
    """
    steps, because = lowered()
    if not is_watched():
        for file in files:
            steps, because = _first_survived(file, steps, because)
    with lowering(steps, because):
        yield because


def has_float16(model: ir.Model) -> bool:
    """Whether a model computes in float16 anywhere."""
    values: Iterable[ir.Value] = (value for node in model.graph.all_nodes() for value in node.outputs)
    return any(value.dtype == ir.DataType.FLOAT16 for value in (*model.graph.inputs, *values))


def _first_survived(file: Path, steps: int, because: str) -> tuple[int, str]:
    for step in range(steps, len(LEVELS)):
        fault = _fault(file, step)
        if not fault:
            return step, because
        because = because or f"onnxruntime {version_of('onnxruntime')} {fault} while it was to load {file.name}"
    raise GraphForgeError(because, "it does so without any optimization, too; another version of it may do")


_LOAD = """
import sys
from graphforge.last_step import lowering
from graphforge.runners.session import new_session
with lowering(int(sys.argv[2]), ""):
    try:
        new_session(sys.argv[1])
    except Exception:
        pass
"""


def _fault(path: Path, step: int) -> str:
    """How ONNX Runtime dies when it loads a file with so much left out; "" when it loads or refuses it."""
    home = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))}
    command = [sys.executable, "-c", _LOAD, str(path), str(step)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS, check=False, preexec_fn=limit_memory, env=environment
        )
    except subprocess.TimeoutExpired:
        return f"did not end in {SECONDS} s"
    except OSError:  # no further process can be started: then nothing can be told beforehand
        return ""
    return f"died ({signal_name(-done.returncode)})" if done.returncode < 0 else ""
