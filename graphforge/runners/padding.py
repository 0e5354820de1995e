"""Compare an artifact in fixed shapes with a reference whose results are ragged: cut its outputs to their counts.

So are outputs cut apart that hold the rows of all images of a batch, one image behind the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
            hold it, the ``axis`` that is padded and the output with its ``count`` ("": nothing is padded).  A name with
            a ``*`` stands for that of every image: the output has a first axis of images, or, where it is ``joined``,
            the rows of all images behind each other along ``axis``.

    Returns:
        The original outputs, the others as they are; without the counts.

    Raises:
        GraphForgeError: a padding row holds something else than 0 (-1 among integers), or a count is out of range.
    """
    held = {str(one[key]) for one in recipe for key in ("output", "count")}
    restored: dict[str, Array] = {}
    for one in _image_by_image(outputs, recipe):
        image = one["image"] or 0
        padded = outputs[one["output"]]
        if one.get("joined"):
            restored[one["restores"]] = _rows_of(image, padded, outputs[one["count"]], one)
            continue
        padded = padded if one["image"] is None else np.atleast_1d(padded)[image]
        if not one["count"]:
            restored[one["restores"]] = padded
            continue
        count, axis = int(np.reshape(outputs[one["count"]], -1)[image]), int(one["axis"])
        if axis >= padded.ndim:
            raise GraphForgeError(
                f"output {one['output']!r} has the shape {padded.shape}, without the padded axis {axis}"
            )
        if not 0 <= count <= padded.shape[axis]:
            raise GraphForgeError(f"output {one['count']!r} says {count} rows, there are {padded.shape[axis]}")
        valid, rest = np.split(padded, [count], axis=axis)
        filler = -1 if np.issubdtype(padded.dtype, np.signedinteger) else 0
        if np.any(rest != filler):
            raise GraphForgeError(f"output {one['output']!r} holds something else than {filler} in its padding")
        restored[one["restores"]] = valid
    others = {name: value for name, value in outputs.items() if name not in held}
    return {**restored, **others}


def _rows_of(image: int, joined: Array, counts: Array, entry: Mapping[str, Any]) -> Array:
    """What one image has of the rows of all images."""
    axis, ends = int(entry["axis"]), np.cumsum(counts, dtype=np.int64)
    if axis >= joined.ndim or np.any(np.asarray(counts) < 0) or ends[-1] != joined.shape[axis]:
        raise GraphForgeError(
            f"output {entry['output']!r} has the shape {joined.shape}, and {entry['count']!r} says "
            f"{int(ends[-1])} rows of all images along axis {axis}"
        )
    return np.split(joined, ends[:-1], axis=axis)[image]


def _image_by_image(outputs: Mapping[str, Array], recipe: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The entries of the recipe, those of every image once for each."""
    for_each = [one for one in recipe if one["image"] is None and "*" in one["restores"]]
    yield from (one for one in recipe if one not in for_each)
    counted = [one["count"] if one.get("joined") else one["output"] for one in for_each]
    images = min((len(np.atleast_1d(outputs[name])) for name in counted), default=0)
    for image in range(images):
        for one in for_each:
            yield {**one, "restores": str(one["restores"]).replace("*", str(image), 1), "image": image}
