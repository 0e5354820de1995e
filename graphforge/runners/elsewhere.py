"""ONNX Runtime in a process of its own: it holds the sessions of files from elsewhere, loads them there and runs them.

What is run there need not be run here, so that arm's length costs what passes through a pipe: inputs and results.  The
process starts once, in half a second, and stays; where a file ends it, that is an error here, and the next session
gets another.
"""

from __future__ import annotations

import atexit
import itertools
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.last_step import kept, lowered, lowering, version_of
from graphforge.limiting import BeyondLimitError, allowed, limits, over_time
from graphforge.runners.arrays import Array
from graphforge.runners.child import ARRAYS, Child, do_jobs
from graphforge.runners.session import LEVELS

__all__ = ["DiedError", "Elsewhere", "ended", "fault_in", "fault_of", "forget", "serve"]

_ENDS_BY_ITSELF = 15  # seconds that a run has to end between two nodes once its time is over, as in a command
_numbers = itertools.count()
_left: list[str] = []  # of sessions that nobody holds any more, for the next job to end
_child = Child("graphforge.runners.elsewhere")
_turn = threading.Lock()
atexit.register(_child.close)


class DiedError(GraphForgeError):
    """A runtime died of what it was given: other inputs of the same kind would end it again.

    Attributes:
        vendor: its package.
    """

    vendor = ""


class Elsewhere:
    """A model that is loaded and run in the other process.

    Args:
        model: a file, or what stands in one.
        threads: threads within an operator.
        optimize: let the runtime fuse and fold; as much of it as ``lowering`` leaves.
        entries: of the session's configuration.
        name: how messages call it.

    Raises:
        DiedError: the runtime dies of it.
        GraphForgeError: the runtime refuses it.
        OSError: no further process can be started.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        threads: int,
        optimize: bool,
        name: str,
        entries: Mapping[str, str] | None = None,
    ) -> None:
        self._model = model
        self._job: dict[str, Any] = {
            "threads": threads,
            "step": lowered()[0] if optimize else len(LEVELS) - 1,
            "name": name,
            "entries": dict(entries or {}),
        }
        self._number = f"{os.getpid()}-{next(_numbers)}"
        weakref.finalize(self, _left.append, self._number)
        self.input_names, self.output_names = self._open()

    def run(self, feeds: Mapping[str, Array], *, back: bool = True, tensors: bool = False) -> dict[str, Array]:
        """Outputs by name for inputs by name.

        Args:
            feeds: one for each input.
            back: send the results; False only tries whether it survives.
            tensors: leave out what is not a tensor, in place of refusing it.

        Raises:
            DiedError: the runtime dies of it.
            GraphForgeError: the runtime refuses it.
        """
        ask = {"do": "run", "number": self._number, "back": back, "tensors": tensors, ARRAYS: feeds}
        answer = self._ask("run", feeds, **ask)
        if "unknown" in answer:  # another model ended the process that held it
            self._open()
            answer = self._ask("run", feeds, **ask)
        found: dict[str, Array] = answer.get(ARRAYS, {})
        return found

    def close(self) -> None:
        """End its session there."""
        if _child.is_running:
            _asked(do="close", number=self._number)

    def _open(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        given: dict[str, Any] = {"file": str(self._model.absolute())} if isinstance(self._model, Path) else {}
        if isinstance(self._model, bytes):
            given = {ARRAYS: {"model": np.frombuffer(self._model, np.uint8)}}
        answer = self._ask("load", {}, do="open", number=self._number, **self._job, **given)
        return tuple(answer["inputs"]), tuple(answer["outputs"])

    def _ask(self, what: str, feeds: Mapping[str, Array], **job: Any) -> dict[str, Any]:
        answer = _asked(**job)
        fault = fault_in(answer)
        if fault:
            here = self._model.name if isinstance(self._model, Path) else "a model"
            sizes = ", ".join(f"{name}:{'x'.join(map(str, np.shape(one)))}" for name, one in feeds.items())
            raise ended("onnxruntime", fault, f"{what} {here}" + (f" on {sizes}" if sizes else ""), self._kept)
        if "refused" in answer:
            raise GraphForgeError(f"{self._job['name']}: {answer['refused']}")
        return answer

    def _kept(self) -> Path:
        if isinstance(self._model, Path):
            return kept(self._model)
        file = Path(tempfile.mkdtemp(prefix="graphforge-crash-")) / "model.onnx"
        file.write_bytes(self._model)
        return file


_LATE = "did not end in time"


def ended(vendor: str, fault: str, what: str, file: Callable[[], Path]) -> GraphForgeError:
    """The error for a runtime that died, or that did not come to an end.

    Args:
        vendor: its package.
        fault: ``died (SIGSEGV)``.
        what: what it was to do.
        file: where what it was given is; called once something is to be kept.
    """
    called = f"{vendor} {version_of(vendor)}"
    if fault == _LATE:
        return over_time(called, what)
    error = DiedError(
        f"{called} {fault} while it was to {what}",
        "it did so in another process; another version of it may do",
        f"what it was given: {file()}",
    )
    error.vendor = vendor
    return error


def fault_of(path: Path, step: int, feeds: Mapping[str, Array] | None = None) -> str:
    """How ONNX Runtime dies when it loads a file with so much left out, and runs it; "" when it does or refuses it.

    What it has loaded it keeps, for whoever runs the same file next, until ``forget``.
    """
    from graphforge.runners.onnx_runtime import usable_cpus

    job: dict[str, Any] = {"do": "try", "file": str(path.absolute()), "step": step, "threads": usable_cpus()}
    if feeds is not None and all(value.dtype.kind in "biufc" for value in feeds.values()):
        job[ARRAYS] = feeds
    try:
        return fault_in(_asked(**job))
    except OSError:  # no further process can be started: then nothing can be told beforehand
        return ""


def forget() -> None:
    """End the sessions that ``fault_of`` left and nobody asked for."""
    if _child.is_running:
        _asked(do="forget")


def _asked(**job: Any) -> dict[str, Any]:
    """The other process's answer; what it says of the user's part is raised here."""
    with _turn:
        limit = allowed("seconds")
        left = [_left.pop() for _ in range(len(_left))]
        answer = _child.ask(limit=limit, seconds=limit + _ENDS_BY_ITSELF, left=left, **job)
    if "beyond" in answer:
        raise BeyondLimitError(*answer["beyond"])
    if "memory" in answer:
        raise MemoryError(answer["memory"])
    if "told" in answer:
        raise GraphForgeError(*answer["told"])
    return answer


def fault_in(answer: Mapping[str, Any]) -> str:
    """How the process ended that should have answered; "" when it did."""
    died = str(answer.get("died", ""))
    return _LATE if died.startswith("not done") else f"died ({died})" if died else ""


# -- in the other process ----------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer jobs until there are no more."""
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

    held: dict[str, OnnxRuntimeRunner] = {}  # by their number there
    spare: dict[tuple[Any, ...], OnnxRuntimeRunner] = {}  # tried, and not asked for yet

    def work(job: dict[str, Any]) -> Mapping[str, Any]:
        try:
            for number in job["left"]:
                held.pop(number, None)
            with limits(seconds=job["limit"]), lowering(job.get("step", 0), ""):
                return _DOES[job["do"]](job, held, spare)
        except BeyondLimitError as error:
            return {"beyond": [*error.given]}
        except GraphForgeError as error:
            return {"told": [*error.given]}
        except MemoryError as error:
            return {"memory": str(error)}

    do_jobs(work)


def _try(job: dict[str, Any], _: dict[str, Any], spare: dict[tuple[Any, ...], Any]) -> Mapping[str, Any]:
    try:
        runner = _loaded(job)
        spare[_place_of(job)] = runner
        if ARRAYS in job:
            runner.run(job[ARRAYS])
    except BeyondLimitError:
        raise
    except GraphForgeError:  # whoever loads or runs it next is told
        pass
    return {"done": True}


def _open(job: dict[str, Any], held: dict[str, Any], spare: dict[tuple[Any, ...], Any]) -> Mapping[str, Any]:
    runner = (spare.pop(_place_of(job), None) if "file" in job else None) or _loaded(job)
    runner.name = job["name"]
    held[job["number"]] = runner
    return {"inputs": runner.input_names, "outputs": runner.output_names}


def _run(job: dict[str, Any], held: dict[str, Any], _: dict[tuple[Any, ...], Any]) -> Mapping[str, Any]:
    runner = held.get(job["number"])
    if runner is None:
        return {"unknown": True}
    feeds = job.get(ARRAYS, {})
    found = dict(runner.run_each(feeds)) if job["tensors"] else runner.run(feeds)
    return {ARRAYS: found} if job["back"] else {}


def _close(job: dict[str, Any], held: dict[str, Any], _: dict[tuple[Any, ...], Any]) -> Mapping[str, Any]:
    held.pop(job["number"], None)
    return {}


def _forget(_: dict[str, Any], __: dict[str, Any], spare: dict[tuple[Any, ...], Any]) -> Mapping[str, Any]:
    spare.clear()
    return {}


_DOES: Mapping[str, Callable[..., Mapping[str, Any]]] = {
    "try": _try,
    "open": _open,
    "run": _run,
    "close": _close,
    "forget": _forget,
}


def _loaded(job: Mapping[str, Any]) -> Any:
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

    model: Path | bytes = Path(job["file"]) if "file" in job else job[ARRAYS]["model"].tobytes()
    runner = OnnxRuntimeRunner(
        model, threads=job["threads"], entries=job.get("entries"), name=job.get("name", "onnxruntime")
    )
    assert runner.session is not None  # loaded now
    return runner


def _place_of(job: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be the same for a session that was tried to be the one that is asked for."""
    about = os.stat(job["file"])
    file: Sequence[Any] = (job["file"], about.st_ino, about.st_size, about.st_mtime_ns)
    return (*file, job["step"], job["threads"], *sorted(job.get("entries", {}).items()))
