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
from contextvars import ContextVar
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

__all__ = ["doubting", "has_float16", "is_doubted", "serve", "survivable", "try_first", "try_run"]


# Whether what is read and run in a block is from elsewhere: "" no, "others" in other runtimes, "all" in this one, too.
_doubted: ContextVar[str] = ContextVar("graphforge doubted", default="")


@contextmanager
def doubting(what: str) -> Iterator[None]:
    """For a block: whoever is about to run a file tries it in another process first, where nobody watches this one.

    Args:
        what: ``all``, ``others`` where ONNX Runtime was tried already, or nothing.
    """
    token = _doubted.set(what)
    try:
        yield
    finally:
        _doubted.reset(token)


def is_doubted(by: str = "others") -> bool:
    """Whether files are to be tried first here, by ONNX Runtime (``all``) or by others."""
    return not is_watched() and _doubted.get() in ("all", by)


def try_run(file: Path, feeds: Mapping[str, Array], *, optimize: bool) -> None:
    """Load and run a file in another process.

    Raises:
        GraphForgeError: that ends it.
    """
    fault = _fault(file, lowered()[0] if optimize else len(LEVELS) - 1, feeds)
    if fault:
        raise _ended(f"onnxruntime {version_of('onnxruntime')}", fault, f"load and run {file.name}", file)


def try_first(vendor: str, module: str, what: str, file: Path, *, stays: bool = True, **job: Any) -> None:
    """Have a vendor's native code do something in a process that stays, before it does it in this one.

    Args:
        vendor: its package.
        module: where its function ``serve`` is, which calls ``do_jobs``.
        what: what it does, ``read model.xml``.
        file: what it is given.
        stays: whether the process stays for the next; one that holds memory of a GPU had better not.
        job: what ``serve`` is told.

    Raises:
        GraphForgeError: that ends the process; what it refuses, it will refuse here.
    """
    child = _others.get(module)
    if child is None:
        child = _others[module] = Child(module)
        atexit.register(child.close)
    with _turn:
        try:
            died = str(child.ask(**job).get("died", ""))
        except OSError:  # as in _fault
            return
        finally:
            if not stays:
                child.close()
    if died:
        fault = _LATE if died.startswith("not done") else f"died ({died})"
        raise _ended(f"{vendor} {version_of(vendor)}", fault, what, file)


def _ended(vendor: str, fault: str, what: str, file: Path) -> GraphForgeError:
    if fault == _LATE:
        return over_time(vendor, what)
    return GraphForgeError(
        f"{vendor} {fault} while it was to {what}",
        "it was tried in another process first; another version of it may do",
        f"what it was given: {kept(file)}",
    )


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
_others: dict[str, Child] = {}
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
