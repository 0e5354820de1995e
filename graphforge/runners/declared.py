"""Hold an artifact's results against the shapes that its file declares: a runtime that differs there only warns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array

if TYPE_CHECKING:
    from graphforge.runners.runner import Runner

__all__ = ["DeclaredRunner"]


class DeclaredRunner:
    """A runner of an artifact that refuses results of other shapes than the graph declares.

    Compared are sizes that are numbers, and those that go by the name of an input's dim.

    Args:
        runner: runs the artifact.
        graph: what the artifact was written from.
    """

    def __init__(self, runner: Runner, graph: ir.Graph) -> None:
        self.runner = runner
        self.name = runner.name
        self.inputs = {str(value.name): value.shape for value in graph.inputs}
        self.outputs = {str(value.name): value.shape for value in graph.outputs}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name.

        Raises:
            GraphForgeError: one has not the shape that the graph declares.
        """
        found = self.runner.run(feeds)
        sizes = {
            dim.value: size
            for name, array in feeds.items()
            for dim, size in zip(self.inputs.get(name) or (), array.shape, strict=False)
            if isinstance(dim, ir.SymbolicDim)
        }
        for name, array in found.items():
            shape = self.outputs.get(name)
            if shape is None:
                continue
            wanted = [dim if isinstance(dim, int) else sizes.get(dim.value) for dim in shape]
            if len(wanted) != array.ndim or any(
                one not in (None, size) for one, size in zip(wanted, array.shape, strict=True)
            ):
                raise GraphForgeError(
                    f"{self.name}: output {name!r} is declared as {_text(list(shape))}, and a run gives "
                    f"{_text(array.shape)}"
                )
        return found

    def close(self) -> None:
        """Close the artifact's runner."""
        self.runner.close()


def _text(shape: Any) -> str:
    return "x".join(str(size) for size in shape) or "a scalar"
