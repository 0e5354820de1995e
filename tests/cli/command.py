"""Run the installed command in a folder of its own and look at everything it did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COMMAND", "LONGEST_SECONDS", "Outcome", "command_under_way", "environment", "run_command"]

# no expectation of speed: a command that hangs is to end some time, and no busy machine is to make one fail
LONGEST_SECONDS = 1800

_SCRIPT = Path(sys.executable).parent / "graphforge"
_ROOT = Path(__file__).resolve().parents[2]
# a bare clone without the command installed is the same program by another name
COMMAND = [str(_SCRIPT)] if _SCRIPT.exists() else [sys.executable, "-m", "graphforge"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The message line, without its `error: `."""
        (line,) = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        return line.removeprefix("error: ")

    @property
    def notes(self) -> list[str]:
        """The note lines, without their `note: `."""
        return [line.removeprefix("  note: ") for line in self.stderr.splitlines() if line.startswith("  note: ")]


def environment() -> dict[str, str]:
    """The tests' environment, with the checkout importable where nothing is installed."""
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@contextmanager
def command_under_way(*arguments: str, cwd: Path, pass_fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """Start `graphforge ARGUMENTS` in a folder; whatever happens meanwhile, it does not outlive the block."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=pass_fds,
        preexec_fn=_heed_interruptions,
    )
    limit = threading.Timer(LONGEST_SECONDS, process.kill)
    limit.start()
    try:
        yield process
    finally:
        limit.cancel()
        if process.poll() is None:
            process.kill()
            process.communicate()


def _heed_interruptions() -> None:
    """What a shell starts in the background ignores SIGINT, under nohup SIGHUP, and so does all that it starts.

    Not so the command.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def run_command(*arguments: str, cwd: Path, timeout: float = LONGEST_SECONDS) -> Outcome:
    """Run `graphforge ARGUMENTS` in a folder."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
