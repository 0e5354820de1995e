"""A clock that stands still: a model that gives up after so many seconds does not do so on a slow machine only.

ultralytics' suppression stops after two seconds, and keeps what it has by then.  What a model computes must not hang on
how long the computing takes: not while it is captured, and not where it is the reference.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["standing_clock"]

_lock = threading.Lock()
_within = 0
_going: Callable[[], float] = time.time


@contextmanager
def standing_clock() -> Iterator[None]:
    """``time.time`` gives one and the same time while the context lasts, in all threads."""
    global _within, _going
    clock: Any = time
    with _lock:
        if not _within:
            _going = clock.time
            now = _going()
            clock.time = lambda: now
        _within += 1
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if not _within:
                clock.time = _going
