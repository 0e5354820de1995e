"""The way that a model goes on some inputs: what it calls, at which line of the user's, and how many dims come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from graphforge.user_code import place_here

__all__ = ["Parting", "Step", "parting", "watching"]


@dataclass(frozen=True, slots=True)
class Step:
    """A call of a function of torch that gives tensors.

    Attributes:
        name: ``squeeze``.
        place: ``net.py:12, in forward: x = x.squeeze(0)``, "" where no Python of a model's is involved.
        dims: of each tensor that came back.
    """

    name: str
    place: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two ways part: the first steps that differ, None where a way has ended."""

    one: Step | None
    other: Step | None

    @property
    def is_of_dims(self) -> bool:
        """Whether both call the same there, and other numbers of dims come back."""
        return (
            self.one is not None
            and self.other is not None
            and (self.one.name, self.one.place) == (self.other.name, self.other.place)
        )


@contextmanager
def watching() -> Iterator[list[Step]]:
    """What a model calls while the context lasts; what torch calls itself to that end is not told apart."""
    import torch
    from torch.overrides import TorchFunctionMode

    steps: list[Step] = []

    class _Watching(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            leaves = result if isinstance(result, list | tuple) else [result]
            dims = tuple(leaf.dim() for leaf in leaves if isinstance(leaf, torch.Tensor))
            if dims:
                name = str(getattr(func, "__name__", ""))
                steps.append(Step(name, place_here().removeprefix("raised at "), dims))
            return result

    with _Watching():
        yield steps


def parting(one: Sequence[Step], other: Sequence[Step]) -> Parting | None:
    """Where two ways part; None where they are the same."""
    for place in range(max(len(one), len(other))):
        step, instead = (way[place] if place < len(way) else None for way in (one, other))
        if step != instead:
            return Parting(step, instead)
    return None
