"""A command runs in a child of the process that was started: a vendor's crash ends the child, and is told.

The child is a fork from before anything was imported, which takes a millisecond.  The parent does nothing but wait,
pass signals on, and look after the child: if a signal ends it, the parent names the vendor that was at work, keeps the
file that it was given, clears what was half-written, and, where ONNX Runtime's optimizer died, runs the command again
with less of it.  Where there is no fork the command runs in the one process.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import mmap
import os
import shutil
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from graphforge import last_step
from graphforge.apart import limit_memory, signal_name
from graphforge.cli.console import print_error

__all__ = ["EndedError", "reads_data", "supervised"]

# Verbs that hand files or graphs to a vendor's native code.
_VERBS = frozenset(
    (
        "compile optimize run inspect diff bisect reduce opset lint profile evaluate explain pipeline report publish"
    ).split()
)
_DATA = (".onnx", ".npy", ".npz", ".pt2", ".pt", ".ts", ".pth", ".safetensors")
_OF_FOLDERS = ("manifest.json", "manifest.unverified.json", "deploy.json", "bundle.json")
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else (signal.SIGINT,)
_CRASHES = frozenset(getattr(signal, name, None) for name in ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGBUS", "SIGILL"))
_LEVELS = 2  # of less optimization that are tried after a crash in ONNX Runtime
_OVER_TIME = -1  # in place of a signal
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_FAILED = 1
_LOOKS_EVERY = 1.0  # seconds between looks at whether the child is over its time
_GRACE = 15.0  # seconds that a child has to end after a signal: native code that does not return keeps Python from it


class EndedError(KeyboardInterrupt):
    """SIGTERM or SIGHUP: as an interruption, with a number of its own."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal_code = 128 + number


def supervised(run: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run a command line, in a child where that is of use; its exit code."""
    if not hasattr(os, "fork") or not arguments or arguments[0] not in _VERBS or {"--help", "-h"} & set(arguments):
        _end_as_interrupted()
        return _to_the_end(run, arguments)
    page = mmap.mmap(-1, last_step.PAGE_BYTES)
    level, because = 0, ""
    while True:
        # one that is ignored (nohup, a job in the background) would come all the same while it is blocked
        waited_for = {n for n in _PASSED_ON if signal.getsignal(n) != signal.SIG_IGN} | {signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            _settle_in(parent, arguments)
            last_step.share(page)
            with last_step.lowering(level, because):
                code = _to_the_end(run, arguments)
            _end_at_once(code)
        # from here on signals stay blocked: there is nothing left to end
        status, ended = _wait(child, waited_for, page)
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        died = last_step.last_step(page)
        number = ended or os.WTERMSIG(status)
        message, notes = _told(died, number)
        if died.get("folder"):
            _keep(died)
            shutil.rmtree(died["folder"], ignore_errors=True)
        if number in _CRASHES and died.get("vendor") == "onnxruntime" and level < _LEVELS:
            level, because = level + 1, message
            sys.stderr.write(f"note: {message}; the command runs again with less of its optimization\n")
            page[:] = bytes(last_step.PAGE_BYTES)
            continue
        print_error(message, [*notes, *_about_kept(died)])
        return 128 + number if number in _PASSED_ON else _FAILED


def _to_the_end(run: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run it; a signal that comes before its own handling begins, or while that is at work, ends it all the same."""
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_PASSED_ON, signal.SIGCHLD})
        code = run(arguments)
        _block()
    except KeyboardInterrupt as ended:
        _block()
        code = getattr(ended, "signal_code", 128 + signal.SIGINT)
    return code


def _end_at_once(code: int) -> NoReturn:
    """End as Python does, but for taking some thousand modules down one by one: seconds of CPU, for nobody's use.

    Threads are waited for, what registered for the end is called, and what was written reaches its files.
    """
    waiting: Any = threading
    ending: Any = atexit
    waiting._shutdown()
    ending._run_exitfuncs()
    files = {io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom}
    for file in [sys.stdout, sys.stderr, *(one for one in gc.get_objects() if type(one) in files)]:
        with contextlib.suppress(OSError, ValueError):  # closed, or its reader is gone
            file.flush()
    os._exit(code)


def _block() -> None:
    """There is nothing left to end.  Ignored, too: what this thread blocks, a thread of a runtime's still takes."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    for number in _PASSED_ON:
        ignored = False
        while not ignored:
            with contextlib.suppress(KeyboardInterrupt):  # one that was on its way
                signal.signal(number, signal.SIG_IGN)
                ignored = True


def _settle_in(parent: int, arguments: Sequence[str]) -> None:
    """In the child: die with the parent, end like an interruption, leave the machine some memory."""
    finalizers: Any = weakref.finalize
    for one in list(finalizers._registry):  # temporary folders of the process that was forked are its own to clear
        one.atexit = False
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(_FAILED)
        if reads_data(arguments):
            limit_memory()
    _end_as_interrupted()


def reads_data(arguments: Sequence[str]) -> bool:
    """Whether a command reads files that may come from anywhere: models, weights, arrays, bundles."""
    return any(
        argument.lower().endswith(_DATA) or any(os.path.isfile(os.path.join(argument, name)) for name in _OF_FOLDERS)
        for argument in arguments
    )


def _end_as_interrupted() -> None:
    def end(number: int, _: FrameType | None) -> None:
        raise EndedError(number) if number != signal.SIGINT else KeyboardInterrupt

    for number in _PASSED_ON:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # one that is ignored stays so
            signal.signal(number, end)


def _wait(child: int, waited_for: set[signal.Signals], page: mmap.mmap) -> tuple[int, int]:
    """The child's status once it has ended, and the signal that it was ended for where it did not heed that, or 0.

    Signals from elsewhere are passed on, those of the terminal reach both.  A child that is inside native code heeds
    none of them until that returns: it is given some seconds, and as long as the limit where its time is over.
    """
    asked, since = 0, 0.0
    while True:
        told = signal.sigtimedwait(waited_for, _LOOKS_EVERY)
        if told is None:
            if asked and time.monotonic() - since > _GRACE:
                os.kill(child, signal.SIGKILL)
            elif not asked and last_step.is_overdue(page):
                asked, since = _OVER_TIME, 0.0
        elif told.si_signo != signal.SIGCHLD:
            if told.si_code <= 0:  # sent by a process; the terminal's own reach the child without us
                os.kill(child, told.si_signo)
            if not asked:
                asked, since = told.si_signo, time.monotonic()
        else:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended == child:
                return status, asked if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else 0


def _told(died: dict[str, Any], number: int) -> tuple[str, list[str]]:
    vendor = " ".join(filter(None, (died.get("vendor"), died.get("version"))))
    if number == _OVER_TIME:
        return f"{vendor} did not {died.get('what')} in time", [f"if it needs more: --limit seconds={1 << 15}"]
    name = signal_name(number)
    if number == signal.SIGKILL:
        return "the command was killed from outside", ["most often by the system, for want of memory"]
    if number in _PASSED_ON or not vendor:
        return f"the command was ended by {name}", []
    return (
        f"{vendor} died ({name}) while it was to {died['what']}",
        [f"this is a fault of {died['vendor']}, which ended the process; another version of it may do"],
    )


def _about_kept(died: dict[str, Any]) -> list[str]:
    kept = died.get("kept")
    if not kept:
        return []
    found = [f"what it was given is kept: {kept}"]
    if died.get("vendor") == "onnxruntime" and kept.endswith(".onnx"):
        found.append(f"`graphforge bisect {kept} --nodes` finds the nodes that do it")
    return found


def _keep(died: dict[str, Any]) -> None:
    """Copy what the vendor was given out of the folder that is about to go."""
    file = Path(died.get("file") or "")
    if file.is_file():
        died["kept"] = str(last_step.kept(file) if file.is_relative_to(died["folder"]) else file)
