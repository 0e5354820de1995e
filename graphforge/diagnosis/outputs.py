"""The model's outputs against the file's: always compared, padded ones cut to their counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphforge.diagnosis.layout import compared
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
            plain = unpadded(found, self.padding)
        except (GraphForgeError, KeyError) as error:
            reason = error.message if isinstance(error, GraphForgeError) else f"the file has no output {error}"
            return [
                OutputComparison(name, str(array.dtype.name), tuple(array.shape), passed=False, reason=reason)
                for name, array in self.expected.items()
            ]
        if not set(self.expected) <= set(plain) and len(plain) >= len(self.expected):
            plain = dict(zip(self.expected, plain.values(), strict=False))
        return [self._one(name, array, plain.get(name)) for name, array in self.expected.items()]

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
