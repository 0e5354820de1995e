"""Something is done when a block takes longer than the limit on seconds allows.

One thread looks after all blocks of the process, once a second: a thread for each run would be seen in what a profile
measures.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Self

from graphforge.limiting import allowed

__all__ = ["Deadline"]

_LOOKS_EVERY = 1.0
_open: dict[int, Deadline] = {}
_watcher: tuple[int, threading.Thread] | None = None  # with the process that it is of: a fork has no threads
_turn = threading.Lock()


class Deadline:
    """A block that has so many seconds.

    Args:
        end: called, in another thread, when they are over; whatever it stops raises in the block.
    """

    def __init__(self, end: Callable[[], None]) -> None:
        self.passed = False
        self._end = end
        self._until = 0.0

    def __enter__(self) -> Self:
        self._until = time.monotonic() + allowed("seconds")
        _open[id(self)] = self
        if _watcher is None or _watcher[0] != os.getpid():
            _start()
        return self

    def __exit__(self, *_: object) -> None:
        _open.pop(id(self), None)

    def look(self, now: float) -> None:
        """End the block if its time is over."""
        if now > self._until and not self.passed:
            self.passed = True
            self._end()


def _start() -> None:
    global _watcher
    with _turn:
        if _watcher is None or _watcher[0] != os.getpid():
            thread = threading.Thread(target=_watch, name="graphforge deadlines", daemon=True)
            _watcher = (os.getpid(), thread)
            thread.start()


def _watch() -> None:
    while True:
        time.sleep(_LOOKS_EVERY)
        now = time.monotonic()
        for one in list(_open.values()):
            one.look(now)
