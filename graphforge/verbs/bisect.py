"""`graphforge.bisect`: which pass, and which of its rewrites, makes the compiled graph depart from the eager model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.declaring import GivenOperator, GivenSubstitution, declarations, files_with_operators
from graphforge.prepare import ModelLike, prepare, reference_runner, to_ir
from graphforge.verbs.replay_line import keeper

if TYPE_CHECKING:
    from graphforge.journal import Progress
    from graphforge.targets.target import Target
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
    target: str | Target | None = None,
    opset: int | None = None,
    precision: str | None = None,
    target_options: Mapping[str, Any] | None = None,
    outputs: str | None = None,
    nms: str | None = None,
    tolerances: Any = None,
    substitutes: Sequence[GivenSubstitution] = (),
    custom_ops: Sequence[GivenOperator] = (),
    seed: int = 0,
    output: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> BisectReport:
    """Find the first pass, and its first rewrite, after which the graph no longer computes what eager computes.

    The passes are the canonical ones and those of the target, as ``graphforge.compile`` would run them.

    Args:
        model: the model, as ``graphforge.compile`` takes it.
        inputs, kwargs, dynamic_shapes: the example call, as ``graphforge.compile`` takes it.
        passes: passes of your own, after the canonical ones.
        pipeline: passes to look among instead of the canonical ones: a list, or text such as ``"a,b{x=1}"``.
        target, opset, precision, target_options, outputs, nms: whose passes come behind them, and what is asked of it,
            as ``graphforge.compile`` takes them; with a pipeline of your own only where one of them is given.
        tolerances: what counts as equal, as ``graphforge.compile`` takes it.
        substitutes, custom_ops: your own declarations for this call, as ``graphforge.compile`` takes them.
        seed: of random inputs.
        output: folder for the graph in front of the guilty pass, which the replay line runs; None takes a new
            temporary one.
        progress: called with one line before each probe.

    Returns:
        The report; ``clean`` says that no pass departs, ``describe()`` names the one that does.

    Raises:
        GraphForgeError: the model cannot be captured, lowered or run.
    """
    from graphforge.onnx_io.blame import blaming
    from graphforge.options import CompileOptions, plan
    from graphforge.runners.eager import EagerRunner
    from graphforge.runners.survey import doubting
    from graphforge.verify.bisect import bisect_passes
    from graphforge.verify.tolerance import as_tolerances

    with declarations(substitutes, custom_ops), blaming(model):
        allowed = as_tolerances(tolerances)
        asked = any(value is not None for value in (target, opset, precision, target_options, outputs, nms))
        planned = plan(
            CompileOptions(
                target=target or "onnx",
                opset=opset,
                precision=precision,
                target_options=target_options or {},
                outputs=outputs,
                nms=nms,
                passes=passes,
                pipeline=pipeline,
            )
        )
        candidates = [*planned.canonical, *(planned.legalising if asked or pipeline is None else ())]
        prepared = prepare(model, inputs, kwargs=kwargs, dynamic_shapes=dynamic_shapes, seed=seed)
        captured, _ = to_ir(prepared, target=planned.target.name)
        reference = reference_runner(prepared)
        feeds = reference.example() if isinstance(reference, EagerRunner) else prepared.feeds
        files = [str(file) for file in files_with_operators([*substitutes, *custom_ops])]
        with doubting("all" if prepared.loaded.onnx_path is not None else ""):
            return bisect_passes(
                captured,
                candidates,
                feeds,
                expected=reference.run(feeds),
                tolerances=allowed,
                progress=progress,
                keep=keeper(None if output is None else Path(output), feeds, files),
            )
