"""A Python of its own that does jobs for this one; where a job ends it, that is the answer, and the next gets another.

For native code that may crash and that needs threads, which do not survive a fork (`apart.py` forks).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from graphforge.apart import limit_memory, signal_name
from graphforge.errors import GraphForgeError
from graphforge.limiting import allowed
from graphforge.runners.arrays import Array

__all__ = ["ARRAYS", "Child", "do_jobs"]

# Where a job and an answer have arrays, by name; what else they have is JSON.
ARRAYS = "arrays"


class Child:
    """A process that stays until it is closed, or until this one ends.

    Args:
        module: where its function ``serve`` is, which calls ``do_jobs``.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, **job: Any) -> dict[str, Any]:
        """The answer to a job, ``{"died": ...}`` where the job ended the process.

        Args:
            job: what ``serve`` is told; under ``arrays`` arrays by name; ``seconds`` that it has, None for those of
                the limit.
        """
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        seconds = job.get("seconds") or allowed("seconds")
        try:
            with suppress(BrokenPipeError):  # it died before it read the job
                _write(process.stdin, {**job, "seconds": seconds})  # type: ignore[arg-type]
            answer = _read(process.stdout)  # type: ignore[arg-type]
        except BaseException:  # an interruption: what it answers then would be taken for the answer to the next job
            process.kill()
            self.close()
            raise
        if answer is not None:
            return answer
        code = process.wait()
        self.close()
        if code == -14:  # SIGALRM, the child's own limit
            return {"died": f"not done in {seconds} s"}
        return {"died": signal_name(-code) if code < 0 else f"exit code {code}"}

    @property
    def is_running(self) -> bool:
        """Whether there is a process now that knows of earlier jobs."""
        return self._process is not None and self._owner == os.getpid() and self._process.poll() is None

    def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():  # a fork of its owner may not end it
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # half of a job is still in its buffer
                    pipe.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        if not self.is_running:
            self.close()
            self._owner = os.getpid()
            home = str(Path(__file__).resolve().parents[2])
            path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {self._module} import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                preexec_fn=limit_memory,
            )
        assert self._process is not None
        return self._process


def do_jobs(work: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """In the child: answer jobs until there are no more, one JSON object a line and its arrays' bytes, in and out."""
    import signal

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a runtime prints does not belong to the answers
    while (job := _read(sys.stdin.buffer)) is not None:
        signal.alarm(job.pop("seconds"))
        try:
            answer = work(job)
        except Exception as error:  # a runtime raises anything; that is the answer
            answer = {"refused": " ".join(str(error).split())[:2000] or type(error).__name__}
        signal.alarm(0)
        _write(answers, answer)
        del job, answer  # arrays that nobody needs while it waits


# -- one message -------------------------------------------------------------------------------------------------------


def _write(pipe: BinaryIO, message: Mapping[str, Any]) -> None:
    heads: list[Any] = []
    bodies: list[memoryview] = []
    for name, given in message.get(ARRAYS, {}).items():
        array = np.asarray(given, order="C")
        if array.dtype.kind in "USO":
            texts = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in array.ravel()]
            heads.append([name, "text", array.shape, texts])
            continue
        array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
        _dtype(array.dtype.name)  # told here, where it comes from
        heads.append([name, array.dtype.name, array.shape, array.nbytes])
        bodies.append(_bytes_of(array))
    pipe.write(json.dumps({**message, ARRAYS: heads}).encode() + b"\n")
    for body in bodies:
        pipe.write(body)
    pipe.flush()


def _read(pipe: BinaryIO) -> dict[str, Any] | None:
    """The next message; None where there is none, or half of one."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        return None
    message: dict[str, Any] = json.loads(line)
    arrays: dict[str, Array] = {}
    for name, kind, shape, held in message.pop(ARRAYS):
        if kind == "text":
            arrays[name] = np.array(held, dtype=object).reshape(shape)
            continue
        array = np.empty(shape, _dtype(kind))
        rest = _bytes_of(array)
        while len(rest):
            count = pipe.readinto(rest)  # type: ignore[attr-defined]
            if not count:
                return None
            rest = rest[count:]
        arrays[name] = array
    if arrays:
        message[ARRAYS] = arrays
    return message


def _bytes_of(array: Array) -> memoryview:
    raw: Any = array.reshape(-1).view(np.uint8)
    return memoryview(raw)


def _dtype(name: str) -> np.dtype[Any]:
    """A type of numbers, numpy's own or one of ml_dtypes'."""
    import ml_dtypes

    found = getattr(ml_dtypes, name, None) or np.sctypeDict.get(name)
    if found is None or np.dtype(found).kind not in "biufcV":
        raise GraphForgeError(f"{name} is not a type of numbers that a runtime takes")
    return np.dtype(found)
