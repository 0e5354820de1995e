"""`graphforge.diff`: module outputs of the eager model against a compiled file, the first departure marked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.declaring import GivenOperator, GivenSubstitution, declarations
from graphforge.errors import UsageError, argument
from graphforge.prepare import ModelLike, example_feeds, prepare, reference_runner
from graphforge.runners.recorded import locate_artifact

if TYPE_CHECKING:
    from graphforge.journal import Progress
    from graphforge.verify.diff import DiffReport

__all__ = ["diff"]


def diff(
    model: ModelLike,
    against: str | os.PathLike[str],
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    substitutes: Sequence[GivenSubstitution] = (),
    custom_ops: Sequence[GivenOperator] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> DiffReport:
    """Compare a model layer by layer with what was compiled from it, and mark the first module that departs.

    Args:
        model: the PyTorch model, as ``graphforge.compile`` takes it.
        against: the bundle (a ``Bundle`` or its folder), or an ONNX file compiled from the model.
        inputs, kwargs, dynamic_shapes: the example call, as ``graphforge.compile`` takes it.
        substitutes, custom_ops: your own declarations for this call, as ``graphforge.compile`` takes them.
        seed: of random inputs.
        progress: called with the name of each step as it begins.

    Returns:
        The table of module outputs; ``first_departure`` is None where all agree.

    Raises:
        UsageError: there is no such file, or the model is an ONNX file and has no modules.
        GraphForgeError: one of the two does not run.
    """
    from graphforge.runners.eager import EagerRunner
    from graphforge.verify.diff import diff_modules

    if not isinstance(against, str | os.PathLike):
        raise UsageError(
            f"against: expected a bundle or a path, got {type(against).__name__}",
            "the order is diff(model, bundle, inputs)",
        )
    with declarations(substitutes, custom_ops):
        if not Path(against).exists():
            raise UsageError(
                f"file {os.fspath(against)!r} does not exist",
                f"{argument('against')} names a bundle, or the compiled .onnx file",
            )
        file, _ = locate_artifact(Path(against))  # told before the model is loaded
        prepared = prepare(model, inputs, kwargs=kwargs, dynamic_shapes=dynamic_shapes, seed=seed)
        reference = reference_runner(prepared)
        if not isinstance(reference, EagerRunner):
            raise UsageError(
                f"{prepared.loaded.spec!r} is an ONNX file and has no modules to compare with",
                "give the PyTorch model that it was compiled from",
            )
        if progress is not None:
            progress("compare")
        return diff_modules(reference, file, example_feeds(prepared))
