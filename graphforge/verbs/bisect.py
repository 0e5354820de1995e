"""`graphforge.bisect`: which pass makes the compiled graph depart from the eager model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphforge.declaring import GivenOperator, GivenSubstitution, declarations
from graphforge.prepare import ModelLike, prepare, reference_runner, to_ir

if TYPE_CHECKING:
    from graphforge.journal import Progress
    from graphforge.transform import Pass
    from graphforge.verify.bisect import BisectReport

__all__ = ["bisect"]


def bisect(
    model: ModelLike,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    passes: Sequence[Pass] = (),
    pipeline: str | Sequence[Pass] | None = None,
    tolerances: Any = None,
    substitutes: Sequence[GivenSubstitution] = (),
    custom_ops: Sequence[GivenOperator] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> BisectReport:
    """Find the first pass after which a model's graph no longer computes what the eager model computes.

    Args:
        model: the model, as ``graphforge.compile`` takes it.
        inputs, kwargs, dynamic_shapes: the example call, as ``graphforge.compile`` takes it.
        passes: passes of your own, after the canonical ones.
        pipeline: passes to look among instead of the canonical ones: a list, or text such as ``"a,b{x=1}"``.
        tolerances: what counts as equal, as ``graphforge.compile`` takes it.
        substitutes, custom_ops: your own declarations for this call, as ``graphforge.compile`` takes them.
        seed: of random inputs.
        progress: called with one line before each probe.

    Returns:
        The report; ``clean`` says that no pass departs, ``describe()`` names the one that does.

    Raises:
        GraphForgeError: the model cannot be captured, lowered or run.
    """
    from graphforge.onnx_io.blame import blaming
    from graphforge.prepare import canonical_passes
    from graphforge.runners.eager import EagerRunner
    from graphforge.verify.bisect import bisect_passes
    from graphforge.verify.tolerance import as_tolerances

    with declarations(substitutes, custom_ops), blaming(model):
        allowed = as_tolerances(tolerances)
        candidates = canonical_passes(pipeline, passes)
        prepared = prepare(model, inputs, kwargs=kwargs, dynamic_shapes=dynamic_shapes, seed=seed)
        captured, _ = to_ir(prepared)
        reference = reference_runner(prepared)
        feeds = reference.example() if isinstance(reference, EagerRunner) else prepared.feeds
        return bisect_passes(
            captured, candidates, feeds, expected=reference.run(feeds), tolerances=allowed, progress=progress
        )
