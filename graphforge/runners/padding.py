"""Compare an artifact in fixed shapes with a reference whose results are ragged: cut its outputs to their counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array

if TYPE_CHECKING:
    from graphforge.runners.runner import Runner

__all__ = ["UnpaddedRunner", "unpadded"]


class UnpaddedRunner:
    """A runner of an artifact with padded outputs, which answers with the original ones.

    Args:
        runner: runs the artifact.
        recipe: for each original output its padded one, see ``unpadded``.
    """

    def __init__(self, runner: Runner, recipe: Sequence[Mapping[str, Any]]) -> None:
        self.runner = runner
        self.recipe = recipe
        self.name = runner.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The original outputs by name.

        Raises:
            GraphForgeError: the padding is not what was promised.
        """
        return unpadded(self.runner.run(feeds), self.recipe)

    def close(self) -> None:
        """Close the artifact's runner."""
        self.runner.close()


def unpadded(outputs: Mapping[str, Array], recipe: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Cut padded outputs to their counts.

    Args:
        outputs: what the artifact returned.
        recipe: the manifest's ``padding``: the output that each entry ``restores``, the ``output`` and ``image`` that
            hold it, the ``axis`` that is padded and the output with its ``count``.

    Returns:
        The original outputs, the others as they are; without the counts.

    Raises:
        GraphForgeError: a padding row holds something else than 0 (-1 among integers), or a count is out of range.
    """
    held = {str(one[key]) for one in recipe for key in ("output", "count")}
    restored: dict[str, Array] = {}
    for one in recipe:
        image = one["image"] or 0
        padded = outputs[one["output"]]
        padded = padded if one["image"] is None else padded[image]
        count, axis = int(np.reshape(outputs[one["count"]], -1)[image]), int(one["axis"])
        if not 0 <= count <= padded.shape[axis]:
            raise GraphForgeError(f"output {one['count']!r} says {count} rows, there are {padded.shape[axis]}")
        valid, rest = np.split(padded, [count], axis=axis)
        filler = -1 if np.issubdtype(padded.dtype, np.signedinteger) else 0
        if np.any(rest != filler):
            raise GraphForgeError(f"output {one['output']!r} holds something else than {filler} in its padding")
        restored[one["restores"]] = valid
    others = {name: value for name, value in outputs.items() if name not in held}
    return {**restored, **others}
