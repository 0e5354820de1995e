"""Runner: what executes a model, whatever the model is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Runner", "underlying"]


@runtime_checkable
class Runner(Protocol):
    """Something that executes an artifact."""

    name: str

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name."""
        ...

    def close(self) -> None:
        """Let go of files and device memory."""
        ...


def underlying(runner: Runner) -> Runner:
    """The runner that executes, inside others that remember its answers or cut them to size."""
    while isinstance(inner := getattr(runner, "runner", None), Runner):
        runner = inner
    return runner
