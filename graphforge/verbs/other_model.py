"""A PyTorch model on the other side of `diff`: its program as a graph that can be run in parts, its outputs its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError, UsageError
from graphforge.prepare import ModelLike, Prepared, load, prepare, reference_runner, to_ir
from graphforge.runners.arrays import Array

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["OtherModel", "model_among", "other_model"]

_FILES = (".onnx", ".plan")


@dataclass(slots=True)
class OtherModel:
    """A PyTorch model that is held against a reference.

    Attributes:
        prepared: the model with its inputs.
        name: how messages call it.
    """

    prepared: Prepared
    name: str

    @property
    def is_of_one_image(self) -> bool:
        """Its program is that of one image of the batch."""
        return self.prepared.captured is not None and self.prepared.captured.images is not None

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Its outputs, by PyTorch; inputs by name, or in their order where the names are others."""
        names = [tensor.name for tensor in self.prepared.shapes.inputs]
        mine = feeds if set(names) <= set(feeds) else dict(zip(names, feeds.values(), strict=False))
        return dict(reference_runner(self.prepared).run(mine))

    def close(self) -> None:
        """Nothing to let go of."""

    def graph(self, reference: Prepared) -> tuple[ir.Model, dict[str, Any]]:
        """Its program as a graph, with the names of the reference's values, and the passes that make it run.

        Only what a runtime needs is done to it, so that as many values as possible can be looked at.
        """
        from graphforge.ir.origin import origins_of, set_origins
        from graphforge.targets import get_target
        from graphforge.targets.options import options_for

        graph, _ = to_ir(self.prepared)
        if reference.captured is not None:
            from graphforge.diagnosis.program import counterparts

            assert self.prepared.captured is not None
            known = counterparts(self.prepared.captured, reference.captured)
            for node in graph.graph.all_nodes():
                set_origins(node, [replace(one, value=known.get(one.value, "")) for one in origins_of(node)])
        target = get_target("onnx")
        passes = target.pipeline(options_for(target))
        if self.is_of_one_image:
            # values are compared image by image: the graph stays that of one
            passes = [one for one in passes if one.name != "loop-over-images"]
        return graph, {"passes": [{"name": one.name, "spec": one.spec()} for one in passes]}


def model_among(against: Any) -> ModelLike | None:
    """The PyTorch model that is meant; None where it is a bundle, a file that is run as it is, or nothing at all.

    Raises:
        GraphForgeError: it names a model that cannot be loaded.
    """
    if isinstance(against, str | os.PathLike):
        text = os.fspath(against)
        if Path(text).is_dir() or text.endswith(_FILES) or (":" not in text and not Path(text).is_file()):
            return None
        against = text
    try:
        loaded = load(against)
    except UsageError:  # an object of another kind
        return None
    return None if loaded.onnx_path is not None else loaded


def other_model(model: ModelLike, reference: Prepared, inputs: Any, **given: Any) -> OtherModel:
    """The model with the reference's inputs.

    Raises:
        GraphForgeError: it does not take them.
    """
    loaded = load(model)
    if reference.inputs is not None:
        inputs, given["kwargs"] = reference.inputs.args, reference.inputs.kwargs
    try:
        prepared = prepare(loaded, inputs, **given)
    except GraphForgeError as error:
        raise error.with_notes(f"{loaded.spec} is called with what the first model is called with") from error
    return OtherModel(prepared, loaded.spec)
