"""Whether ONNX Runtime survives a file, found out in a process of its own before this one loads it.

That process starts once, in half a second, and stays; a file then costs what loading it costs.  Surveyed are files
that are not ours, and what is made of them; of ours those that are like what it is known to die of: with float16 in
them (1.32 ends with SIGSEGV in its last level of optimization on a MultiheadAttention in float16).  A command is
watched as a whole and surveys nothing.
"""

from __future__ import annotations

import atexit
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.last_step import is_watched, kept, lowered, lowering, version_of
from graphforge.limiting import over_time
from graphforge.runners.arrays import Array
from graphforge.runners.child import Child, do_jobs
from graphforge.runners.session import LEVELS, new_session

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

__all__ = ["has_float16", "serve", "survivable"]


@contextmanager
def survivable(files: Sequence[Path], feeds: Mapping[str, Array] | None = None) -> Iterator[str]:
    """For a block: as much of ONNX Runtime's optimization as the files survive; why it is less, "" when it is all.

    Args:
        files: they are loaded.
        feeds: and run on these, where there are some.

    Raises:
        GraphForgeError: it dies of one of them whatever is left out.
    """
    steps, because = lowered()
    if not is_watched():
        for file in files:
            steps, because = _first_survived(file, steps, because, feeds)
    with lowering(steps, because):
        yield because


def has_float16(model: ir.Model) -> bool:
    """Whether a model computes in float16 anywhere."""
    import onnx_ir as ir

    values: Iterable[ir.Value] = (value for node in model.graph.all_nodes() for value in node.outputs)
    return any(value.dtype == ir.DataType.FLOAT16 for value in (*model.graph.inputs, *values))


def _first_survived(file: Path, steps: int, because: str, feeds: Mapping[str, Array] | None) -> tuple[int, str]:
    for step in range(steps, len(LEVELS)):
        fault = _fault(file, step, feeds)
        if not fault:
            return step, because
        what = "load" if feeds is None else "load and run"
        if fault == _LATE:
            raise over_time(f"onnxruntime {version_of('onnxruntime')}", f"{what} {file.name}")
        because = because or f"onnxruntime {version_of('onnxruntime')} {fault} while it was to {what} {file.name}"
    raise GraphForgeError(
        because,
        "it does so without any optimization, too; another version of it may do",
        f"what it was given: {kept(file)}",
    )


_LATE = "did not end in time"
_child = Child("graphforge.runners.survey")
_turn = threading.Lock()
atexit.register(_child.close)


def _fault(path: Path, step: int, feeds: Mapping[str, Array] | None = None) -> str:
    """How ONNX Runtime dies when it loads a file with so much left out, and runs it; "" when it does or refuses it."""
    with tempfile.TemporaryDirectory(prefix="graphforge-") as folder, _turn:
        inputs = ""
        if feeds is not None and all(value.dtype.kind in "biufc" for value in feeds.values()):
            inputs = f"{folder}/inputs.npz"
            np.savez(inputs, **dict(feeds))  # type: ignore[arg-type]
        try:
            answer = _child.ask(file=str(path.absolute()), step=step, inputs=inputs)
        except OSError:  # no further process can be started: then nothing can be told beforehand
            return ""
    died = str(answer.get("died", ""))
    return _LATE if died.startswith("not done") else f"died ({died})" if died else ""


def serve() -> None:
    """In the child: load files, and run them, until there are no more."""
    do_jobs(_load)


def _load(job: Mapping[str, Any]) -> Mapping[str, Any]:
    with lowering(job["step"], ""):
        session = new_session(job["file"])
    if job["inputs"]:
        with np.load(job["inputs"], allow_pickle=False) as given:
            session.run(None, {value.name: given[value.name] for value in session.get_inputs()})
    return {"done": True}
