"""Foreign native code at arm's length: what it makes of a file that is not ours is found out in a child process.

A child that dies takes nothing with it, and its death becomes a message.  It is a fork where only Python and onnx are
at work, which costs some milliseconds; ONNX Runtime, whose threads do not survive a fork, gets a new Python
(`runners/survey.py`, half a second).  A command is such a child as a whole (`cli/supervisor.py`), so within it nothing
is done twice, but for what it can do without.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from graphforge.errors import GraphForgeError
from graphforge.last_step import entering, is_watched, version_of
from graphforge.limiting import allowed, over_time

__all__ = ["ForeignError", "apart", "limit_memory", "signal_name"]

_SHARE_OF_MEMORY = 0.9


class ForeignError(Exception):
    """What native code raised in the child."""


def apart(
    vendor: str, what: str, function: Callable[[], bytes], *, file: Path | None = None, always: bool = False
) -> bytes:
    """Run a function that calls a vendor's native code on something that is not ours; its result.

    Args:
        vendor: the package.
        what: what it does, ``infer the shapes of model.onnx``.
        function: calls it; must not need threads.
        file: what it is given, for the message.
        always: in a child of its own within a command, too, which then can go on without the answer.

    Raises:
        ForeignError: the function raised; with its text.
        GraphForgeError: the native code died, or did not end in time.
        MemoryError: there is not enough of it; the file need not be at fault.
    """
    if (is_watched() and not always) or not hasattr(os, "fork"):
        entering(vendor, what, file)
        try:
            return function()
        except (GraphForgeError, MemoryError):
            raise
        except Exception as error:  # as in the child
            raise ForeignError(str(error)) from error
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        _in_the_child(function, writes)
    os.close(writes)
    with open(reads, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) or not content:
        raise _death(vendor, what, os.WTERMSIG(status) if os.WIFSIGNALED(status) else signal.SIGKILL, file)
    kind, body = content[:1], content[1:]
    if kind == b"=":
        return body
    told = json.loads(body)["told"]
    if kind == b"m":
        raise MemoryError(*told)
    raise GraphForgeError(*told) if kind == b"!" else ForeignError(told[0])


def _in_the_child(function: Callable[[], bytes], writes: int) -> None:
    """Never returns: what comes after belongs to the parent."""
    try:
        for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(allowed("seconds"))
        limit_memory()
        try:
            content = b"=" + function()
        except MemoryError as error:
            content = b"m" + json.dumps({"told": [str(error)]}).encode()
        except GraphForgeError as error:
            content = b"!" + json.dumps({"told": [error.message, *error.notes]}).encode()
        except BaseException as error:  # whatever it is, it is the vendor's answer
            content = b"?" + json.dumps({"told": [str(error) or type(error).__name__]}).encode()
        with open(writes, "wb") as pipe:
            pipe.write(content)
    finally:
        os._exit(0)


def limit_memory() -> None:
    """A file from elsewhere gets an error instead of the whole machine's memory; for this process from now on."""
    if sys.platform != "linux":
        return
    import resource

    allowed = _allowed_memory()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY or soft > allowed:
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))


def _allowed_memory() -> int:
    """Most of what the machine, or the container, has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(place).read_text().strip()
        except OSError:
            continue
        total = min(total, int(text)) if text.isdecimal() else total
    return int(total * _SHARE_OF_MEMORY)


def _death(vendor: str, what: str, number: int, file: Path | None) -> GraphForgeError:
    if number == signal.SIGALRM:
        return over_time(f"{vendor} {version_of(vendor)}", what)
    return GraphForgeError(
        f"{vendor} {version_of(vendor)} died ({signal_name(number)}) while it was to {what}",
        f"this is a fault of {vendor}; another version of it may do",
        f"what it was given: {file}" if file is not None else "",
    )


def signal_name(number: int) -> str:
    """``SIGSEGV``."""
    return signal.Signals(number).name if number in {one.value for one in signal.Signals} else f"signal {number}"
