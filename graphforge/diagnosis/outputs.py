"""The model's outputs against the file's: always compared, padded ones cut to their counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphforge.diagnosis.layout import compared
from graphforge.diagnosis.precision import Quality, quality
from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array
from graphforge.runners.padding import unpadded
from graphforge.verify.compare import OutputComparison
from graphforge.verify.tolerance import Tolerances

__all__ = ["Outputs"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the reference returned, and how the file's outputs are held against it.

    Attributes:
        expected: the reference's outputs by name.
        padding: the manifest's recipe for padded outputs.
        tolerances: what counts as equal.
    """

    expected: Mapping[str, Array]
    padding: Sequence[Mapping[str, Any]]
    tolerances: Tolerances

    def compare(self, found: Mapping[str, Array]) -> list[OutputComparison]:
        """One comparison for each output of the reference; one without a counterpart fails with that reason."""
        try:
            plain = self._lined_up(found)
        except (GraphForgeError, KeyError) as error:
            reason = error.message if isinstance(error, GraphForgeError) else f"the file has no output {error}"
            return [
                OutputComparison(name, str(array.dtype.name), tuple(array.shape), passed=False, reason=reason)
                for name, array in self.expected.items()
            ]
        return [self._one(name, array, plain.get(name)) for name, array in self.expected.items()]

    def measure(self, found: Mapping[str, Array]) -> list[Quality | None]:
        """How close each output of floats is, in the measures people use; None for another type or shape."""
        try:
            plain = self._lined_up(found)
        except (GraphForgeError, KeyError):
            return [None] * len(self.expected)
        pairs = [(array, plain.get(name)) for name, array in self.expected.items()]
        return [
            quality(one, other, tops=True)
            if other is not None and one.dtype.kind in "fV" and one.size and one.shape == np.shape(other)
            else None
            for one, other in pairs
        ]

    def _lined_up(self, found: Mapping[str, Array]) -> Mapping[str, Array]:
        plain = unpadded(found, self.padding)
        if not set(self.expected) <= set(plain) and len(plain) >= len(self.expected):
            return dict(zip(self.expected, plain.values(), strict=False))
        return plain

    def agree(self, found: Mapping[str, Array]) -> bool:
        """Whether all agree."""
        return all(one.passed for one in self.compare(found))

    def _one(self, name: str, expected: Array, found: Array | None) -> OutputComparison:
        if found is None:
            return OutputComparison(
                name,
                str(expected.dtype.name),
                tuple(expected.shape),
                passed=False,
                reason="the file has no such output",
            )
        return compared(name, expected, np.asarray(found), self.tolerances, any_layout=False)[1]
