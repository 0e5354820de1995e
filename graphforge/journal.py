"""What happened on the way of one compilation: steps with their times and node counts, and notes for the user."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

__all__ = ["Journal", "Progress"]

# Called with the name of each step as it begins.
Progress: TypeAlias = Callable[[str], None]


class Journal:
    """Steps with their times and node counts, and the notes gathered on the way.

    Attributes:
        progress: called with the name of each step as it begins.
        steps: one record per step, as the manifest keeps it.
        notes: what the user should be told, one line each.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress
        self.steps: list[dict[str, Any]] = []
        self.notes: list[str] = []

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a step; what is put into the dict that it gives belongs to the step's record."""
        if self.progress is not None:
            self.progress(name)
        record: dict[str, Any] = {"name": name, "seconds": 0.0}
        start = time.perf_counter()
        try:
            yield record
        finally:
            record["seconds"] = round(time.perf_counter() - start, 4)
            self.steps.append(record)
