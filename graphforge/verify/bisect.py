"""Which pass did it, and which of its rewrites: run ever fewer passes, compare in ONNX Runtime, name the first one.

The search halves the list: with n passes it takes about log2(n) runs of the graph, and every pass runs about twice.
It assumes that what one pass spoils no later one repairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import Array
from graphforge.shown import Shown
from graphforge.verify.compare import OutputComparison
from graphforge.verify.guilty_rewrite import GuiltyRewrite, find_rewrite
from graphforge.verify.numeric_check import run_as_written
from graphforge.verify.tolerance import Tolerances, for_model
from graphforge.verify.verify import compare_outputs

if TYPE_CHECKING:
    import onnx_ir as ir
    from rich.console import Console

    from graphforge.transform import Pass

__all__ = ["BisectReport", "Probe", "bisect_passes"]


@dataclass(frozen=True, slots=True)
class Probe:
    """The graph after the first ``count`` passes.

    Attributes:
        count: how many passes have run.
        outputs: comparison with the expected outputs; empty when it does not run.
        error: why it does not run, "" when it does.
    """

    count: int
    outputs: tuple[OutputComparison, ...] = ()
    error: str = ""

    @property
    def agrees(self) -> bool:
        """It runs and every output agrees."""
        return not self.error and all(output.passed for output in self.outputs)

    def describe(self) -> str:
        """What is wrong, "agrees" when nothing is."""
        if self.error:
            return self.error
        wrong = next((output for output in self.outputs if not output.passed), None)
        return "agrees" if wrong is None else f"output {wrong.name}: {wrong.reason}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "passes": self.count,
            "agrees": self.agrees,
            "error": self.error,
            "outputs": [output.to_dict() for output in self.outputs],
        }


@dataclass(frozen=True, slots=True, repr=False)
class BisectReport(Shown):
    """The first pass that changes a result.

    Attributes:
        passes: the passes in order, as ``Pipeline.parse`` reads them.
        guilty: index of the pass; None when the lowering is to blame, or nothing is.
        before_any_pass: the graph departs before the first pass has run.
        probes: what was tried, in the order of the number of passes.
        notes: what limits the answer.
        rewrite: the rewrite of the guilty pass after which the graph departs; None where it cannot be told apart.
        replay: the command that shows the guilty pass alone, on the graph in front of it; "" where none was written.
    """

    passes: tuple[str, ...]
    guilty: int | None
    before_any_pass: bool
    probes: tuple[Probe, ...]
    notes: tuple[str, ...] = ()
    rewrite: GuiltyRewrite | None = None
    replay: str = ""

    @property
    def clean(self) -> bool:
        """Nothing departs."""
        return self.guilty is None and not self.before_any_pass

    def describe(self) -> str:
        """One line: the guilty one and what it does."""
        if self.before_any_pass:
            return f"the graph departs before any pass has run: {self.probes[0].describe()}"
        if self.guilty is None:
            return f"no pass changes a result ({len(self.passes)} passes)"
        bad = next(probe for probe in self.probes if probe.count == self.guilty + 1)
        return f"pass {self.guilty + 1} of {len(self.passes)}, {self.passes[self.guilty]}: {bad.describe()}"

    def summary(self) -> str:
        """The guilty one and what it does."""
        return self.describe()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "clean": self.clean,
            "guilty": None if self.guilty is None else self.passes[self.guilty],
            "index": self.guilty,
            "before_any_pass": self.before_any_pass,
            "passes": list(self.passes),
            "probes": [probe.to_dict() for probe in self.probes],
            "notes": list(self.notes),
            "rewrite": None if self.rewrite is None else self.rewrite.to_dict(),
            "replay": self.replay,
        }

    def render(self, console: Console) -> None:
        """Print the probes and the verdict."""
        from rich.markup import escape

        verdict = self.describe()
        for probe in self.probes:
            last = self.passes[probe.count - 1] if probe.count else "no pass"
            told = probe.describe()
            told = "departs, as told below" if verdict.endswith(told) else told
            console.print(escape(f"after {probe.count:3} ({last}): {told}"), highlight=False)
        for note in self.notes:
            console.print(escape(f"note: {note}"), highlight=False)
        console.print(escape(verdict), highlight=False)
        if self.rewrite is not None:
            found = self.rewrite.describe(but_for=verdict)
            for line in (found, *self.rewrite.rewrite.lines()):
                console.print(escape(line), highlight=False, soft_wrap=True)
        if self.replay:
            console.print(escape(f"replay with: {self.replay}"), highlight=False, soft_wrap=True)


def bisect_passes(
    model: ir.Model,
    passes: Sequence[Pass],
    feeds: Mapping[str, Array],
    *,
    expected: Mapping[str, Array] | None = None,
    tolerances: Tolerances | None = None,
    progress: Callable[[str], None] | None = None,
    keep: Callable[[ir.Model, Pass], str] | None = None,
) -> BisectReport:
    """Find the first pass, and its first rewrite, after which the graph no longer gives what is expected.

    Args:
        model: the graph before the passes; it is left as it is.
        passes: the passes in order.
        feeds: inputs by name.
        expected: outputs by name, from eager; None takes those of the graph before the passes.
        tolerances: what counts as equal.
        progress: called before each probe.
        keep: given the graph in front of the guilty pass and that pass; keeps it, and returns the command that replays.

    Raises:
        GraphForgeError: the graph runs in ONNX Runtime neither before the passes nor after any of them.
    """
    search = _Search(model, tuple(passes), feeds, expected, tolerances or Tolerances(), progress, keep)
    notes = []
    start = search.first_that_runs()
    if start:
        notes.append(f"the graph runs in ONNX Runtime only after {start} passes; those are not judged one by one")
    first = search.probe(start)
    if not first.agrees:
        guilty = None if start == 0 else start - 1
        return search.report(guilty, before_any_pass=start == 0, notes=notes)
    if search.probe(len(passes)).agrees:
        return search.report(None, before_any_pass=False, notes=notes)
    good, bad = start, len(passes)
    while bad - good > 1:
        middle = (good + bad) // 2
        if search.probe(middle).agrees:
            good = middle
        else:
            bad = middle
    return search.report(good, before_any_pass=False, notes=notes)


class _Search:
    """The probes made so far, and the furthest graph known to be good: later probes start from there."""

    def __init__(
        self,
        model: ir.Model,
        passes: tuple[Pass, ...],
        feeds: Mapping[str, Array],
        expected: Mapping[str, Array] | None,
        tolerances: Tolerances,
        progress: Callable[[str], None] | None,
        keep: Callable[[ir.Model, Pass], str] | None,
    ) -> None:
        self.keep = keep
        self.passes = passes
        self.feeds = feeds
        self.expected = expected
        self.tolerances = tolerances
        self.progress = progress
        self.probes: dict[int, Probe] = {}
        self.good: tuple[int, ir.Model] = (0, model)

    def probe(self, count: int) -> Probe:
        if count in self.probes:
            return self.probes[count]
        if self.progress is not None:
            self.progress(f"{count} of {len(self.passes)} passes")
        from graphforge.transform import Pipeline

        done, base = self.good
        model = base.clone()
        try:
            Pipeline(self.passes[done:count]).run(model)
            found = self._judged(model, count)
        except GraphForgeError as error:
            found = Probe(count, error=error.message)
        self.probes[count] = found
        if found.agrees and count > done:
            self.good = (count, model)
        return found

    def _judged(self, model: ir.Model, count: int) -> Probe:
        """The graph, run and compared."""
        from graphforge.passes.compute_where_kernels_are import runnable

        try:
            outputs = run_as_written(model, self.feeds)
        except GraphForgeError as error:
            return Probe(count, error=error.message)
        if self.expected is None:
            self.expected = outputs
        if outputs.keys() != self.expected.keys():
            return Probe(count, error=f"its outputs are {list(outputs)}, expected {list(self.expected)}")
        allowed = for_model(self.tolerances, runnable(model))
        return Probe(count, tuple(compare_outputs(self.expected, outputs, allowed)))

    def _first_departure(self, before: ir.Model, after: ir.Model) -> tuple[str, str]:
        """The first value in the order of the second graph that the first one has otherwise under the same name."""
        from graphforge.verify.compare import compare_arrays

        try:
            expected, found = (run_as_written(_all_handed_out(one), self.feeds) for one in (before, after))
        except GraphForgeError:
            return "", ""
        for node in after.graph:
            for value in node.outputs:
                one, other = expected.get(value.name or ""), found.get(value.name or "")
                if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
                    continue  # a value in another form has another meaning
                compared = compare_arrays(str(value.name), one, other, self.tolerances.of("", str(one.dtype.name)))
                if not compared.passed:
                    return str(value.name), f"value {value.name}: {compared.reason}"
        return "", ""

    def first_that_runs(self) -> int:
        """0, or how many passes it takes until the runtime knows every operator (ours are lowered by passes)."""
        for count in range(len(self.passes) + 1):
            if not self.probe(count).error:
                return count
        raise GraphForgeError(
            f"the graph does not run in ONNX Runtime, with or without passes: {self.probes[0].error}",
            "bisection needs one state of the graph that runs",
        )

    def report(self, guilty: int | None, *, before_any_pass: bool, notes: Sequence[str]) -> BisectReport:
        """The answer, down to the rewrite where the graph in front of the guilty pass agrees."""
        told, rewrite, replay = list(notes), None, ""
        count, model = self.good
        if guilty is not None and count == guilty and self._runs_before(guilty):
            pass_ = self.passes[guilty]
            rewrite = self._find_rewrite(pass_, model, told)
            if self.keep is not None:
                replay = self.keep(model, pass_)
        return BisectReport(
            tuple(item.spec() for item in self.passes),
            guilty,
            before_any_pass,
            tuple(self.probes[count] for count in sorted(self.probes)),
            tuple(told),
            rewrite,
            replay,
        )

    def _runs_before(self, guilty: int) -> bool:
        return guilty in self.probes and self.probes[guilty].agrees

    def _find_rewrite(self, pass_: Pass, model: ir.Model, notes: list[str]) -> GuiltyRewrite | None:
        if self.progress is not None:
            self.progress(f"the rewrites of {pass_.name}")

        def judge(graph: ir.Model) -> tuple[bool, str, bool]:
            found = self._judged(graph, 0)
            return found.agrees, found.describe(), not found.error

        try:
            rewrite = find_rewrite(pass_, model, judge, self._first_departure)
        except GraphForgeError as error:  # the pass fails, or what it leaves is not valid: that is the finding
            notes.append(f"its rewrites cannot be told apart: {error.message}")
            return None
        if rewrite is None:
            notes.append(f"{pass_.name} edits the graph without the rewriter, so its edits cannot be told apart")
        return rewrite


def _all_handed_out(model: ir.Model) -> ir.Model:
    """A copy with every value of the main graph among its outputs."""
    copy = model.clone()
    for node in copy.graph:
        copy.graph.outputs.extend(value for value in node.outputs if value.name and not value.is_graph_output())
    return copy
