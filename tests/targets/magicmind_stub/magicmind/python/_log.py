"""Stand-in: what was called, and which Status nobody looked at.  Nothing was run on an MLU."""

from __future__ import annotations

import atexit
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._types import Status

UNCHECKED_EXIT_CODE = 97

_pending: list[Status] = []
calls: list[str] = []


def record(call: str, **details: Any) -> None:
    """Note one call, also as a line of JSON where FAKE_MAGICMIND_LOG says."""
    calls.append(call)
    place = os.environ.get("FAKE_MAGICMIND_LOG")
    if place:
        with open(place, "a", encoding="utf-8") as file:
            file.write(json.dumps({"call": call, **details}, default=str) + "\n")


def complain(text: str) -> None:
    """MagicMind's own log: the reason where a call answers None."""
    print(f"[magicmind stand-in] {text}", file=sys.stderr)


def watch(status: Status) -> None:
    """From now on somebody must ask this Status."""
    _pending.append(status)


def unchecked() -> list[str]:
    """What every Status that nobody asked was about."""
    return [f"{status.about}: {status}" for status in _pending if not status.was_asked]


def reset() -> None:
    """Forget everything, for the next test in the same process."""
    _pending.clear()
    calls.clear()


@atexit.register
def _at_exit() -> None:
    forgotten = unchecked()
    if not forgotten:
        return
    for text in forgotten:
        complain(f"Status was never checked: {text}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(UNCHECKED_EXIT_CODE)
