"""The values that a random program or graph has so far, at every promised size: what its next step is drawn from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

__all__ = ["NoChoiceError", "Values"]


class NoChoiceError(Exception):
    """No value fits what a step needs."""


class Values:
    """Tensors or arrays by name, one mapping for each promised size."""

    def __init__(self, values: Sequence[dict[str, Any]], rng: random.Random) -> None:
        self.values = values
        self.rng = rng

    def choose(self, names: Sequence[str]) -> str:
        """One of some names; the last one more often, so that steps build on each other."""
        if not names:
            raise NoChoiceError
        return names[-1] if self.rng.random() < 0.55 else self.rng.choice(names)

    def rank(self, name: str) -> int:
        """How many axes it has."""
        return len(self.values[0][name].shape)

    def axis(self, name: str) -> int:
        """One of its axes, negative at times."""
        rank = self.rank(name)
        if rank == 0:
            raise NoChoiceError
        return self.rng.randrange(-rank, rank)

    def size(self, name: str, axis: int) -> int:
        """Size of an axis that is the same at every promised size."""
        sizes = {int(values[name].shape[axis]) for values in self.values}
        if len(sizes) != 1:
            raise NoChoiceError
        return sizes.pop()

    def least_size(self, name: str, axis: int) -> int:
        """The least that an axis is."""
        return min(int(values[name].shape[axis]) for values in self.values)
