"""Run an artifact with inputs and outputs in half precision as if they were float32, to compare it with its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from graphforge.ir.dtypes import HALVES
from graphforge.runners.arrays import Array

if TYPE_CHECKING:
    from graphforge.runners.runner import Runner

__all__ = ["RetypedRunner", "halved_inputs"]


def halved_inputs(model: ir.Model, given: Mapping[str, str]) -> dict[str, np.dtype[Any]]:
    """Name -> dtype of the inputs that are halves in the artifact, of those that are ``float32`` for the model."""
    found = {}
    for value in model.graph.inputs:
        if value.dtype in HALVES and value.dtype is not None and given.get(str(value.name)) == "float32":
            found[str(value.name)] = value.dtype.numpy()
    return found


class RetypedRunner:
    """A runner of an artifact in halves, which takes and answers float32.

    Args:
        runner: runs the artifact.
        inputs: name -> dtype of the inputs that are halves.
    """

    def __init__(self, runner: Runner, inputs: Mapping[str, np.dtype[Any]]) -> None:
        self.runner = runner
        self.inputs = inputs
        self.name = runner.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name, halves widened."""
        given = {name: array.astype(self.inputs.get(name, array.dtype)) for name, array in feeds.items()}
        found = self.runner.run(given)
        return {n: a.astype(np.float32) if a.dtype.name in ("float16", "bfloat16") else a for n, a in found.items()}

    def close(self) -> None:
        """Close the artifact's runner."""
        self.runner.close()
