"""Prove the opset matrix: deliver the model at every legal opset, and run each file beside the reference."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array

if TYPE_CHECKING:
    from graphforge.runners.runner import Runner
    from graphforge.spec import ShapeSpec
    from graphforge.verify.verify import VerificationReport

__all__ = ["Proof", "prove_opset", "prove_opsets", "remembering"]

# What ONNX Runtime says when it knows the operator but brings no kernel for this version or type of it.
_NO_KERNEL = "Could not find an implementation"


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of running the model at one opset.

    Attributes:
        opset: the opset.
        passed: True when checker, shape inference and every comparison agree; None when nothing here runs the file.
        trials: number of sets of inputs that were compared.
        max_rel: largest difference as a share of its output's largest magnitude; None when nothing ran.
        reason: what went wrong or why it was not run, "" when all is well.
    """

    opset: int
    passed: bool | None
    trials: int
    max_rel: float | None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "opset": self.opset,
            "passed": self.passed,
            "trials": self.trials,
            "max_rel": self.max_rel,
            "reason": self.reason or None,
        }


def prove_opsets(
    model: ir.Model,
    opsets: Iterable[int],
    reference: Runner,
    shapes: ShapeSpec,
    example: Mapping[str, Array],
    *,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> list[Proof]:
    """Deliver copies of a model (see ``as_delivered``) at each opset, and compare each with the reference."""
    once = remembering(reference)
    proofs = []
    for opset in opsets:
        if progress is not None:
            progress(f"prove opset {opset}")
        proofs.append(prove_opset(model, opset, once, shapes, example, seed=seed))
    return proofs


def prove_opset(
    model: ir.Model,
    opset: int,
    reference: Runner,
    shapes: ShapeSpec,
    example: Mapping[str, Array],
    *,
    seed: int = 0,
) -> Proof:
    """Deliver a copy of a model (see ``as_delivered``) at one opset and compare it with the reference.

    Raises:
        GraphForgeError: the model cannot be expressed at the opset after all.
    """
    from graphforge.ir.printer import FILE_OPSET
    from graphforge.onnx_io.checking import complaint_about
    from graphforge.passes.bound_dynamic_shapes import PADDED_OUTPUTS
    from graphforge.runners.elsewhere import DiedError
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
    from graphforge.runners.padding import UnpaddedRunner
    from graphforge.targets import options_for
    from graphforge.targets.onnx import OnnxTarget
    from graphforge.transform import Pipeline
    from graphforge.verify.tolerance import for_model
    from graphforge.verify.verify import verify

    target = OnnxTarget()
    options = options_for(target, opset=opset)
    delivered = model.clone()
    Pipeline(target.pipeline(options)).run(delivered)
    with tempfile.TemporaryDirectory(prefix="graphforge-opset-") as name:
        file = Path(name) / "model.onnx"
        target.emit(delivered, file.parent, options, shapes)
        complaint = complaint_about(file, shapeless=FILE_OPSET in model.meta)
        if complaint is not None:
            return Proof(opset, False, 0, None, f"onnx.checker: {complaint.text}")
        runner: Runner = OnnxRuntimeRunner(file)
        padding = model.meta.get(PADDED_OUTPUTS, ())
        if padding:
            runner = UnpaddedRunner(runner, padding)
        try:
            fitting = for_model(None, delivered)
            report = verify(reference, runner, shapes, example, tolerances=fitting, seed=seed)
        except DiedError as died:  # at this opset; another may do
            return Proof(opset, False, 0, None, died.message)
        finally:
            runner.close()
    return _judged(opset, report)


def _judged(opset: int, report: VerificationReport) -> Proof:
    if report.passed:
        return Proof(opset, True, len(report.trials), report.max_rel)
    reason = report.failures()[0]
    details = [reason, *(note for trial in report.trials for note in trial.notes)]
    without_kernel = next((text for text in details if _NO_KERNEL in text), None)
    if without_kernel is not None:
        what = without_kernel.partition(_NO_KERNEL)[2].partition(" node")[0].strip(" for")
        return Proof(opset, None, 0, None, f"not run: ONNX Runtime brings no kernel for {what}")
    if report.verdict == "undecided":
        return Proof(opset, None, len(report.trials), report.max_rel, f"undecided: {reason}")
    return Proof(opset, False, len(report.trials), report.max_rel, reason)


def remembering(runner: Runner) -> Runner:
    """The same runner, which answers equal feeds from memory."""
    remembered: Runner = _Remembering(runner)
    return remembered


@dataclass
class _Remembering:
    runner: Runner
    answers: dict[bytes, dict[str, Array] | GraphForgeError] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.runner.name

    @name.setter
    def name(self, value: str) -> None:
        self.runner.name = value

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        digest = hashlib.sha256()
        for name in sorted(feeds):
            digest.update(f"{name}{feeds[name].dtype}{feeds[name].shape}".encode())
            digest.update(feeds[name].tobytes())
        key = digest.digest()
        if key not in self.answers:
            try:
                self.answers[key] = self.runner.run(feeds)
            except GraphForgeError as error:
                self.answers[key] = error
        answer = self.answers[key]
        if isinstance(answer, GraphForgeError):
            raise answer
        return answer

    def close(self) -> None:
        self.runner.close()
