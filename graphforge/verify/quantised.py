"""The verdict on a quantised file: its float32 graph as strictly as ever, and the file by what quantising was measured
to cost.

What int8 does to an output is not a rounding that the reference could be asked about: it is what the pass measured
between the graph before and after.  So a fault of the compiler shows in the graph before, and the file may be off from
that one by twice what was measured, on the very samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.passes.compute_where_kernels_are import runnable
from graphforge.ranges.difference import Difference
from graphforge.runners.custom_ops import runner_before_lowering
from graphforge.runners.runner import Runner
from graphforge.verify.shapes import SizeAssignment
from graphforge.verify.verify import Trial, VerificationReport

if TYPE_CHECKING:
    from graphforge.passes.qdq import Quantised
    from graphforge.runners.arrays import Array

__all__ = ["verify_quantised"]

# The file against the pass's own trial of the same graph: another optimization of the runtime rounds elsewhere.
_FACTOR = 2.0
# What is lost in integers either way, as a share: below it nothing is read into a difference.
_LEAST = 0.01


def verify_quantised(
    verified: Callable[[Runner], VerificationReport], artifact: Runner, quantised: Quantised
) -> VerificationReport:
    """The report on the graph before, completed by what the file does on the samples.

    Args:
        verified: compares a runner with the reference.
        artifact: runs the quantised file.
        quantised: what the pass did.
    """
    with runner_before_lowering(runnable(quantised.before)) as before:
        before.name = "the graph before quantisation"
        report = verified(before)
        trial = _on_samples(before, artifact, quantised)
    off = max(quantised.errors.values(), default=0.0)
    notes = (
        "compared with the reference is the graph before quantisation; the quantised file is compared with that graph: "
        f"it may be off by twice the {100 * off:.2g} % (root of the mean square) that was measured",
        *report.notes,
    )
    return replace(report, artifact=artifact.name, trials=(*report.trials, trial), notes=notes)


def _on_samples(before: Runner, artifact: Runner, quantised: Quantised) -> Trial:
    found: dict[str, Difference] = {}
    feeds: Mapping[str, Any] = quantised.samples.feeds[0]
    shapes = {name: tuple(np.shape(array)) for name, array in feeds.items()}
    trial = Trial(SizeAssignment({}, "samples"), "samples", shapes)
    compared = []
    try:
        for feeds in quantised.samples.feeds:
            right, made = before.run(feeds), artifact.run(feeds)
            fault = next(_strange(right, made), "")
            if fault:
                return replace(trial, error=fault)
            for name in right:
                if name in quantised.errors:
                    found.setdefault(name, Difference()).add(right[name], made[name])
    except GraphForgeError as error:
        return replace(trial, error=error.message, notes=error.notes)
    from graphforge.verify.compare import OutputComparison

    for name, difference in found.items():
        allowed = max(_FACTOR * quantised.errors[name], _LEAST)
        off = difference.relative
        compared.append(
            OutputComparison(
                name,
                "float32",
                tuple(np.shape(right[name])),
                max_abs=difference.worst,
                max_rel=difference.share,
                max_reference=difference.largest,
                tolerance=f"{100 * allowed:.2g} % of the signal",
                passed=off <= allowed,
                reason=""
                if off <= allowed
                else f"off by {100 * off:.2g} % of the signal, where {100 * allowed:.2g} % is what quantising costs",
            )
        )
    return replace(trial, outputs=tuple(compared) or _only_runs(right))


def _only_runs(right: Mapping[str, Array]) -> tuple[Any, ...]:
    """Outputs behind choices: rows stand in another order, and what the choices hang on was measured by the pass."""
    from graphforge.verify.compare import OutputComparison

    return tuple(
        OutputComparison(
            name,
            str(array.dtype.name),
            tuple(np.shape(array)),
            tolerance="runs, finite",
            note="stands behind a choice: not compared element by element",
        )
        for name, array in right.items()
    )


def _strange(right: Mapping[str, Array], made: Mapping[str, Array]) -> Iterator[str]:
    for name, array in right.items():
        other = made.get(name)
        if other is None:
            yield f"output {name} is missing in the quantised file"
        elif other.dtype != array.dtype or other.ndim != array.ndim:
            yield f"output {name} is {other.dtype} with {other.ndim} dims, expected {array.dtype} with {array.ndim}"
        elif other.dtype.kind == "f" and np.isfinite(array).all() and not np.isfinite(other).all():
            yield f"output {name} has NaN or Inf in the quantised file only"
