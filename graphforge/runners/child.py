"""A Python of its own that does jobs for this one; where a job ends it, that is the answer, and the next gets another.

For native code that may crash and that needs threads, which do not survive a fork (`apart.py` forks).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from graphforge.apart import limit_memory, signal_name
from graphforge.limiting import allowed

__all__ = ["Child", "do_jobs"]


class Child:
    """A process that stays until it is closed, or until this one ends.

    Args:
        module: where its function ``serve`` is, which calls ``do_jobs``.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def ask(self, **job: Any) -> dict[str, Any]:
        """The answer to a job, ``{"died": ...}`` where the job ended the process."""
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        answer = ""
        try:
            process.stdin.write(json.dumps({**job, "seconds": allowed("seconds")}) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:  # it died before it read the job
            pass
        if answer:
            found: dict[str, Any] = json.loads(answer)
            return found
        code = process.wait()
        self.close()
        if code == -14:  # SIGALRM, the child's own limit
            return {"died": f"not done in {allowed('seconds')} s"}
        return {"died": signal_name(-code) if code < 0 else f"exit code {code}"}

    def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():  # a fork of its owner may not end it
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
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

    def _start(self) -> subprocess.Popen[str]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self.close()
            self._owner = os.getpid()
            home = str(Path(__file__).resolve().parents[2])
            path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {self._module} import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
                preexec_fn=limit_memory,
            )
        return self._process


def do_jobs(work: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """In the child: answer jobs until there are no more, one JSON object a line, in and out."""
    import signal

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a runtime prints does not belong to the answers
    for line in sys.stdin:
        job = json.loads(line)
        signal.alarm(job.pop("seconds"))
        try:
            answer = work(job)
        except Exception as error:  # a runtime raises anything; that is the answer
            answer = {"refused": " ".join(str(error).split())[:2000] or type(error).__name__}
        signal.alarm(0)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
