"""Whether a runtime survives a file, found out in a process of its own before this one loads it.

That process starts once and stays; a file then costs what loading it costs, and where ONNX Runtime runs it in that
process afterwards (`elsewhere.py`), not even that.  Surveyed are files that are not ours, and what is made of them; of
ours those that are like what it is known to die of: with float16 in them (1.32 ends with SIGSEGV in its last level of
optimization on a MultiheadAttention in float16).  A command is watched as a whole and surveys nothing.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError
from graphforge.last_step import is_watched, kept, lowered, lowering
from graphforge.runners.arrays import Array
from graphforge.runners.child import Child
from graphforge.runners.elsewhere import DiedError, ended, fault_in, fault_of, forget
from graphforge.runners.session import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

__all__ = ["doubting", "has_float16", "is_doubted", "survivable", "try_first"]


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
            fault = fault_in(child.ask(**job))
        except OSError:  # no further process can be started: then nothing can be told beforehand
            return
        finally:
            if not stays:
                child.close()
    if fault:
        raise ended(vendor, fault, what, partial(kept, file))


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
    try:
        with lowering(steps, because):
            yield because
    finally:
        forget()


def has_float16(model: ir.Model) -> bool:
    """Whether a model computes in float16 anywhere."""
    import onnx_ir as ir

    values: Iterable[ir.Value] = (value for node in model.graph.all_nodes() for value in node.outputs)
    return any(value.dtype == ir.DataType.FLOAT16 for value in (*model.graph.inputs, *values))


def _first_survived(file: Path, steps: int, because: str, feeds: Mapping[str, Array] | None) -> tuple[int, str]:
    what = "load" if feeds is None else "load and run"
    for step in range(steps, len(LEVELS)):
        fault = fault_of(file, step, feeds)
        if not fault:
            return step, because
        error = ended("onnxruntime", fault, f"{what} {file.name}", partial(kept, file))
        if not isinstance(error, DiedError):  # nor would it come to an end with less of it
            raise error
        because = because or error.message
    raise GraphForgeError(
        because,
        "it does so without any optimization, too; another version of it may do",
        f"what it was given: {kept(file)}",
    )


_others: dict[str, Child] = {}
_turn = threading.Lock()
