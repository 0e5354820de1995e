"""Does a model fail?  Told by a child process that loads and runs it, or by a command of the user's and its exit code.

The child is one Python for many trials; where a trial ends it, that is the finding, and the next trial gets a new one.
"""

from __future__ import annotations

import math
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import onnx

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.limiting import allowed
from graphforge.runners.arrays import Array
from graphforge.runners.child import Child, do_jobs
from graphforge.verify.subgraph import load_arrays, save_arrays

__all__ = ["CommandCheck", "Failure", "RuntimeCheck", "Trials", "first_failure", "serve"]

# What a model is tried with, in the order in which they are tried.
OPTIMIZED, AS_WRITTEN, REFERENCE = "optimized", "as written", "reference"


@dataclass(frozen=True, slots=True)
class Failure:
    """How a model fails.

    Attributes:
        kind: ``died``, ``refused``, ``departs`` or ``exit code``.
        where: what it was tried with: ``optimized``, ``as written``, or what was compared; the command.
        text: the signal, what the runtime said, the difference, the code.
        half: half of the largest difference, 0 where there is none in numbers: a bound that it exceeds.
    """

    kind: str
    where: str
    text: str
    half: float = 0.0

    def describe(self) -> str:
        """One sentence."""
        if self.kind == "died":
            return f"ONNX Runtime ({self.where}) ends the process: {self.text}"
        if self.kind == "refused":
            return f"ONNX Runtime ({self.where}) refuses it: {self.text}"
        if self.kind == "departs":
            return f"ONNX Runtime ({self.where}) departs: {self.text}"
        return f"the check ends with {self.text}"

    def resembles(self, other: Failure | None) -> bool:
        """Whether another model fails in the same way; numbers and names may be others."""
        if other is None or (self.kind, self.where) != (other.kind, other.where):
            return False
        return self.kind not in ("refused", "exit code") or _gist(self.text) == _gist(other.text)


class Check(Protocol):
    """Says of a model whether it fails."""

    def failure(self, model: Path, inputs: Path) -> Failure | None:
        """How it fails; None where it does not."""
        ...


class Trials(Child):
    """A Python of its own that loads and runs models."""

    def __init__(self) -> None:
        super().__init__("graphforge.verify.trials")

    def compute(self, model: onnx.ModelProto, feeds: Mapping[str, Array], folder: Path) -> dict[str, Array]:
        """The outputs of a model as it is written, by ONNX Runtime, or by ONNX's reference where that fails.

        Raises:
            GraphForgeError: both fail.
        """
        path, inputs, outputs = folder / "compute.onnx", folder / "compute.npz", folder / "computed.npz"
        if model.ByteSize() > 1_900_000_000:
            onnx.save(model, path, save_as_external_data=True, location="compute.data")
        else:
            path.write_bytes(model.SerializeToString())
        save_arrays(inputs, {value.name: feeds[value.name] for value in model.graph.input if value.name in feeds})
        told = ""
        for way in (AS_WRITTEN, REFERENCE):
            answer = self.ask(do="run", way=way, model=str(path), inputs=str(inputs), outputs=str(outputs))
            if "done" in answer:
                return load_arrays(outputs)
            told = answer.get("refused") or answer.get("died") or told
        raise GraphForgeError(f"a value in the middle of the graph cannot be computed: {told}")


@dataclass(frozen=True, slots=True)
class RuntimeCheck:
    """ONNX Runtime, in the way in which the whole model was seen to fail.

    Attributes:
        child: where models are run.
        like: how the whole fails.
        tolerance: share of an output's largest magnitude that counts as equal; None takes the defaults.
    """

    child: Trials
    like: Failure
    tolerance: float | None = None

    def failure(self, model: Path, inputs: Path) -> Failure | None:
        """How it fails, where that resembles the failure of the whole."""
        ways = self.like.where.split(" against ")
        found = _tried(self.child, model, inputs, ways, self.tolerance)
        return found if self.like.resembles(found) else None


def first_failure(
    child: Trials,
    model: Path,
    inputs: Path,
    *,
    tolerance: float | None = None,
    reference: bool = True,
    notes: list[str] | None = None,
) -> Failure | None:
    """How ONNX Runtime fails on a model, None where it does not.

    Tried are: the model as it is written, the same optimized, both compared, and the first compared with ONNX's
    reference evaluator.

    Args:
        child: where it is run.
        model: the file.
        inputs: its inputs, as ``save_arrays`` writes them.
        tolerance: as ``RuntimeCheck`` takes it.
        reference: compare with the reference evaluator, which is slow, too.
        notes: what could not be compared is put here.
    """
    tries: list[list[str]] = [[AS_WRITTEN], [OPTIMIZED], [OPTIMIZED, AS_WRITTEN]]
    if reference:
        tries.append([AS_WRITTEN, REFERENCE])
    for ways in tries:
        found = _tried(child, model, inputs, ways, tolerance)
        if found is not None and REFERENCE in ways and found.kind != "departs":
            if notes is not None:
                notes.append(
                    f"ONNX's reference evaluator does not run it, so nothing was compared with it: {found.text}"
                )
        elif found is not None:
            return found
    return None


def _tried(child: Trials, model: Path, inputs: Path, ways: Sequence[str], tolerance: float | None) -> Failure | None:
    where = " against ".join(ways)
    answer = child.ask(do="compare", ways=list(ways), model=str(model), inputs=str(inputs), tolerance=tolerance)
    for kind in ("died", "refused", "departs"):
        if kind in answer:
            return Failure(kind, where, answer[kind], answer.get("half", 0.0))
    return None


# What a shell ends with when a command cannot be run, or is not there.
_NOT_STARTED = (126, 127)


class CommandCheck:
    """A command of the user's, which fails by its exit code.

    Args:
        command: the command; ``{model}`` and ``{inputs}`` in it stand for the files, the model's is put behind it where
            it has neither.
        codes: exit codes that count; none given are all but 0, at first, and then that of the whole model.
        text: what the command has to say (a regular expression) for its failure to count.
        seconds: a run that takes longer is ended, and fails by that; None is the limit that is in force.
    """

    def __init__(
        self, command: str, *, codes: Sequence[int] = (), text: str | None = None, seconds: float | None = None
    ) -> None:
        if not command.strip():
            raise UsageError("the check command is empty")
        try:
            self.text = None if text is None else re.compile(text)
        except re.error as error:
            raise UsageError(f"the text to look for is not a regular expression: {error}") from None
        self.command = command
        self.codes = frozenset(codes)
        self.seconds: float = allowed("seconds") if seconds is None else seconds

    def like(self, whole: Failure) -> CommandCheck:
        """The same check, for failures with the whole model's exit code only."""
        if self.codes:
            return self
        code = whole.text.split()[-1]
        same = CommandCheck(
            self.command, codes=[int(code)] if code.lstrip("-").isdecimal() else [], seconds=self.seconds
        )
        same.text = self.text
        return same

    def line(self, model: Path, inputs: Path) -> str:
        """The command for a model."""
        if "{model}" not in self.command and "{inputs}" not in self.command:
            return f"{self.command} {shlex.quote(str(model))}"
        names = {"{model}": shlex.quote(str(model)), "{inputs}": shlex.quote(str(inputs))}
        return re.sub(r"\{model\}|\{inputs\}", lambda found: names[found[0]], self.command)

    def failure(self, model: Path, inputs: Path) -> Failure | None:
        """How the command fails on a model."""
        try:
            done = subprocess.run(
                self.line(model, inputs),
                shell=True,  # it is the user's own command line
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None if self.codes else Failure("exit code", self.command, "no exit code in time")
        if done.returncode == 0 or (self.codes and done.returncode not in self.codes):
            return None
        if done.returncode in _NOT_STARTED and not self.codes:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
            raise UsageError(
                f"the check command did not start: {said}",
                f"if that is the failure to look for: {argument('fail_codes', [done.returncode])}",
            )
        if self.text is not None and not self.text.search(done.stdout + done.stderr):
            return None
        return Failure("exit code", self.command, f"exit code {done.returncode}")


def _gist(text: str) -> str:
    """A message without the names and numbers that differ between a model and its parts."""
    plain = re.sub(r"'[^']*'|\"[^\"]*\"|\([^()]*\)|\S*[/_.\d]\S*", "", text)
    return " ".join(plain.split())[:60]


# In the child


def serve() -> None:
    """Answer jobs until there are no more."""
    do_jobs(lambda job: _run_job(job) if job["do"] == "run" else _compare_job(job))


def _run_job(job: Mapping[str, Any]) -> dict[str, Any]:
    outputs = _outputs(Path(job["model"]), load_arrays(Path(job["inputs"])), job["way"])
    save_arrays(Path(job["outputs"]), outputs)
    return {"done": True}


def _compare_job(job: Mapping[str, Any]) -> dict[str, Any]:
    from graphforge.verify.tolerance import Tolerances, as_tolerances, for_model
    from graphforge.verify.verify import compare_outputs

    model, feeds = Path(job["model"]), load_arrays(Path(job["inputs"]))
    found = [_outputs(model, feeds, way) for way in job["ways"]]
    if len(found) == 1:
        return {"agrees": True}
    given = as_tolerances(job["tolerance"]) or Tolerances()
    import onnx_ir as ir

    allowed = for_model(given, ir.load(model)).loosen(because="both are one model", allow_nonfinite=True)
    for one in compare_outputs(found[1], found[0], allowed):
        if not one.passed:
            largest = one.max_abs if one.max_abs is not None and math.isfinite(one.max_abs) else 0.0
            return {"departs": f"output {one.name}: {one.reason}", "half": largest / 2}
    return {"agrees": True}


def _outputs(model: Path, feeds: Mapping[str, Array], way: str) -> dict[str, Array]:
    from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

    if way == REFERENCE:
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(str(model))
        return dict(zip(evaluator.output_names, evaluator.run(None, dict(feeds)), strict=True))
    with OnnxRuntimeRunner(model, optimize=way == OPTIMIZED, threads=1) as runner:
        return runner.run(feeds)
