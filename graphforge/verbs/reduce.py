"""`graphforge.reduce`: the smallest part of an ONNX file that still fails, with a script that shows it alone."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.prepare import load, prepare
from graphforge.shown import Shown

if TYPE_CHECKING:
    from rich.console import Console

    from graphforge.journal import Progress
    from graphforge.prepare import ModelLike
    from graphforge.verify.trials import Failure

__all__ = ["ReduceReport", "reduce"]


@dataclass(frozen=True, slots=True, repr=False)
class ReduceReport(Shown):
    """The smallest part that fails.

    Attributes:
        model: the file.
        failure: how the whole fails; None where it does not.
        nodes: the nodes that fail together.
        total: how many nodes the whole has.
        runs: how many times something was run to find them, the whole included.
        seconds: how long that took.
        complete: no single one of the nodes can go.
        files: what was written: the part, its inputs, the script.
        shown: whether the script, run alone, fails.
        script: the script that does the same with polygraphy, None where none was asked for.
        notes: what could not be tried.
    """

    model: str
    failure: Failure | None
    nodes: tuple[str, ...]
    total: int
    runs: int
    seconds: float
    complete: bool = True
    files: tuple[Path, ...] = ()
    shown: bool = False
    script: Path | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """How many nodes are left of how many, and how they fail."""
        if self.failure is None:
            return f"{self.model} does not fail ({self.total} nodes, {self.runs} run{'s' * (self.runs != 1)})"
        left = f"{len(self.nodes)} of {self.total} nodes"
        more = "" if self.complete else "; the runs were used up, fewer may do"
        return f"{left} fail, found in {self.runs} runs and {self.seconds:.1f} s: {self.failure.describe()}{more}"

    def render(self, console: Console) -> None:
        """Print the nodes, the verdict and what was written."""
        from rich.markup import escape

        lines = [*(f"  {node}" for node in self.nodes), self.summary()]
        if self.files:
            script = self.files[-1]
            lines.append(f"written: {', '.join(str(file) for file in self.files)}")
            lines.append(
                f"python {script} {'fails as the whole does' if self.shown else 'does NOT fail when run alone'}"
            )
        if self.script is not None:
            lines.append(f"written: {self.script}")
        for line in (*(f"note: {note}" for note in self.notes), *lines):
            console.print(escape(line), highlight=False, soft_wrap=True)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        failure = self.failure
        return {
            "model": self.model,
            "fails": failure is not None,
            "failure": None
            if failure is None
            else {"kind": failure.kind, "where": failure.where, "text": failure.text, "says": failure.describe()},
            "nodes": list(self.nodes),
            "total": self.total,
            "runs": self.runs,
            "seconds": round(self.seconds, 3),
            "complete": self.complete,
            "files": [str(file) for file in self.files],
            "script_fails": self.shown,
            "notes": list(self.notes),
            "polygraphy_script": None if self.script is None else str(self.script),
        }


def reduce(
    model: ModelLike,
    inputs: Any = None,
    *,
    check: str | None = None,
    fail_codes: Sequence[int] = (),
    fail_text: str | None = None,
    tolerance: float | None = None,
    reference: bool = True,
    most_runs: int = 500,
    seed: int = 0,
    output: str | os.PathLike[str] | None = None,
    script: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> ReduceReport:
    """Find the smallest part of an ONNX file that still fails.

    What counts as a failure is what ONNX Runtime does with the whole: it ends the process, refuses the file, gives
    other results optimized than as written, or others than ONNX's reference evaluator, in this order.  All of it runs
    in a process of its own.  Parts are given the values that the whole computes in their place.

    Args:
        model: an ONNX file, or a bundle with one.
        inputs: data or shapes, as ``graphforge.compile`` takes them.
        check: a command instead, which fails by its exit code; ``{model}`` and ``{inputs}`` in it are the files.
        fail_codes: exit codes that count; none given is that of the whole.
        fail_text: a regular expression that the command's output has to match.
        tolerance: share of an output's largest magnitude that results may differ; None takes verification's.
        reference: compare with the reference evaluator, too, where nothing else fails.
        most_runs: how many parts are tried at most.
        seed: of random inputs.
        output: folder for the part, its inputs and the script; None takes a new temporary one.
        script: file for a script that does the same with polygraphy.
        progress: called with one line before each run.

    Raises:
        GraphForgeError: the model is not an ONNX file, or cannot be read.
    """
    import onnx

    from graphforge.onnx_io.importing import admit
    from graphforge.verify.reduction import reduce_nodes
    from graphforge.verify.repro import polygraphy_script, shows_it, write_repro
    from graphforge.verify.subgraph import Part, Whole, save_arrays
    from graphforge.verify.trials import CommandCheck, RuntimeCheck, Trials, first_failure

    if check is None and (fail_codes or fail_text is not None):
        raise UsageError(
            "exit codes and texts are those of a check command, and none is given",
            f"give one: {argument('check', 'COMMAND')}",
        )
    loaded = load(model)
    path = loaded.onnx_path
    if path is None:
        raise GraphForgeError(
            "only ONNX files can be taken apart into nodes, this model is not one",
            "compile it, and give the model.onnx of the bundle",
        )
    admit(path)
    feeds = prepare(loaded, inputs, seed=seed).feeds
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="graphforge-reduce-") as scratch, Trials() as child:
        folder = Path(scratch)
        command = None if check is None else CommandCheck(check, codes=fail_codes, text=fail_text)
        save_arrays(folder / "whole.npz", feeds)
        whole = Whole(onnx.load(path), feeds, lambda part, names: child.compute(part, known.feeds, folder))
        known = whole
        total = len(whole.nodes)
        if progress is not None:
            progress(f"the whole, {total} nodes")
        notes: list[str] = []
        failure = (
            first_failure(child, path, folder / "whole.npz", tolerance=tolerance, reference=reference, notes=notes)
            if command is None
            else command.failure(path.resolve(), folder / "whole.npz")
        )
        written = None
        if script is not None:
            keep = Path(script).with_suffix(".npz")
            keep.parent.mkdir(parents=True, exist_ok=True)
            save_arrays(keep, feeds)
            written = polygraphy_script(Path(script), path, keep, check or "")
        if failure is None:
            return ReduceReport(
                str(path), None, (), total, 1, time.perf_counter() - started, script=written, notes=tuple(notes)
            )
        judge: Any = RuntimeCheck(child, failure, tolerance) if command is None else command.like(failure)
        last: list[tuple[Part, Failure]] = []

        def fails(indices: Collection[int]) -> bool:
            part = whole.part(indices)
            if part is None:
                return False
            found = judge.failure(part.write(folder, "part.onnx"), folder / "inputs.npz")
            if found is not None and (not last or len(part.model.graph.node) <= len(last[0][0].model.graph.node)):
                last[:] = [(part, found)]
            return found is not None

        def told(left: int, runs: int) -> None:
            if progress is not None:
                progress(f"{left} of {total} nodes left, {runs} runs")

        found = reduce_nodes(total, fails, most_runs=most_runs, progress=told)
        if not last and not fails(range(total)):
            raise GraphForgeError(
                f"{path} fails as a whole, but not when its nodes are written into another file: {failure.describe()}",
                "its failure may lie in something else than its nodes: data types of outputs, metadata, external data",
            )
        part, how = last[0]
        where = Path(tempfile.mkdtemp(prefix="graphforge-repro-")) if output is None else Path(output)
        names = tuple(whole.describe(index) for index in found.nodes)
        line = "" if command is None else _in_folder(command)
        files = write_repro(part, where, how, how.describe(), command=line)
        return ReduceReport(
            str(path),
            how,
            names,
            total,
            found.runs + 1,
            time.perf_counter() - started,
            found.complete,
            tuple(files),
            shows_it(files[-1]),
            written,
        )


def _in_folder(command: Any) -> str:
    """The check's command line for the files of the repro's folder, which the script fills in."""
    text: str = command.command.replace("{{", "{").replace("}}", "}")
    if "{model}" not in text and "{inputs}" not in text:
        text = f"{text} {{model}}"
    escaped: str = text.replace("{", "{{").replace("}", "}}")
    return escaped.replace("{{model}}", "{folder}/repro.onnx").replace("{{inputs}}", "{folder}/inputs.npz")
