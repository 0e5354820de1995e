"""What a diagnosis says: the verdict, the cause, every value of the reference, and the modules as a view on them."""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from graphforge.diagnosis.precision import LayerPrecision, Quality, decibels, worth_keeping
from graphforge.diagnosis.tape import Entry, ModuleCall
from graphforge.shown import Shown, short_source
from graphforge.verify.compare import OutputComparison

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["COSTS", "Cause", "Diagnosis", "Row"]

# How a cause is found that is right in the file's own format: by what it costs.
COSTS = "what it costs alone"
# So many layers are named as those to keep in full precision.
_NAMED = 3
_COLOURS = {"equal": "green", "wrong here": "red", "inherited": "red", "absorbed": "yellow", "merged": "dim"}


@dataclass(frozen=True, slots=True)
class Cause:
    """One place where the file is wrong.

    Attributes:
        entry: the reference's value that is wrong there; None where the file does not say which it stands for.
        value: the file's value.
        node: the node that makes it wrong, in words.
        nodes: names of all nodes that it may be.
        comparison: how far the value is off when it is computed from the reference's values.
        shown: with the reference's value in its place, all outputs agree.
        by: how the place was found.
        note: what differs there, where that is known.
        made_by: the pass that made the node; "" for what was captured.
    """

    entry: Entry | None
    value: str
    node: str
    nodes: tuple[str, ...] = ()
    comparison: OutputComparison | None = None
    shown: bool = False
    by: str = "origins"
    note: str = ""
    made_by: str = ""

    def describe(self) -> str:
        """``attn (Attention), net.py:12: Softmax node 'attn/Softmax'``."""
        place = []
        if self.entry is not None:
            named = self.entry.call.path or self.entry.call.kind
            place = [self.entry.call.describe() if named else f"value {self.entry.name!r}", self.entry.origin.source]
        told = ", ".join(part for part in place if part)
        return f"{told}: {self.node}" if told else self.node

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        entry = self.entry
        return {
            "module": "" if entry is None else entry.call.path,
            "class": "" if entry is None else entry.call.kind,
            "call": 0 if entry is None else entry.call.call,
            "source": "" if entry is None else entry.origin.source,
            "callers": [] if entry is None else list(entry.origin.callers),
            "operator": "" if entry is None else entry.operator,
            "program_value": "" if entry is None else entry.name,
            "value": self.value,
            "node": self.node,
            "nodes": list(self.nodes),
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "shown": self.shown,
            "by": self.by,
            "note": self.note,
            "made_by": self.made_by,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One value of the reference, or one that a module call returned.

    Attributes:
        entry: the reference's value.
        status: ``equal``; ``wrong here``; ``inherited``, what it reads is wrong; ``absorbed``, it differs and nothing
            that reads it does; ``merged``, the file does not have it.
        value: the file's value, "" where it has none.
        comparison: how far they are apart.
        note: the layout it has in the file, what it is merged into, what it is wrong because of.
        module: the module call that returned it, for a row of the view on modules.
    """

    entry: Entry
    status: str
    value: str = ""
    comparison: OutputComparison | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        entry = self.entry
        return {
            "name": entry.name,
            "operator": entry.operator,
            "module": entry.call.path,
            "class": entry.call.kind,
            "call": entry.call.call,
            "source": entry.origin.source,
            "status": self.status,
            "value": self.value,
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "note": self.note,
        }


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis(Shown):
    """What became of every value of the reference in the file.

    Attributes:
        verdict: ``agrees``; ``departs``; ``undecided``, the outputs differ and no node is wrong by itself.
        outputs: one comparison for each output of the reference.
        causes: what makes them wrong, in the order of computation.
        rows: one for each value of the reference, in the order of computation.
        not_compared: outputs that could not be compared, with the reason.
        weights: what differs among the weights, one line each.
        notes: what limits the answer, one line each.
        has_other_weights: most weights differ, so that no place is wrong by itself.
        level: what the file computes in, ``float16``, ``bfloat16`` or ``int8``, where the reference does not.
        precision: what each layer loses by that.
        measured: how close each of ``outputs`` is in other measures; None where it is not of floats, or of other shape.
        layers: what is printed of the rows: ``modules``, ``all`` or a pattern of module paths.
    """

    verdict: str
    outputs: tuple[OutputComparison, ...]
    causes: tuple[Cause, ...]
    rows: tuple[Row, ...]
    not_compared: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    has_other_weights: bool = False
    level: str = ""
    precision: tuple[LayerPrecision, ...] = ()
    measured: tuple[Quality | None, ...] = ()
    layers: str = field(default="modules", compare=False)

    @property
    def agrees(self) -> bool:
        """Every output was compared and agrees."""
        return self.verdict == "agrees"

    @property
    def first_departure(self) -> Cause | None:
        """The first place where the file is wrong."""
        return self.causes[0] if self.causes else None

    def summary(self) -> str:
        """The cause, or that there is none."""
        wrong = [one.name for one in self.outputs if not one.passed]
        if self.agrees:
            compared = sum(row.status == "equal" for row in self.rows)
            told = "the output agrees" if len(self.outputs) == 1 else f"all {len(self.outputs)} outputs agree"
            return f"{told}, and {compared} value{'s' * (compared != 1)} on the way"
        told = "the output differs" if len(self.outputs) == 1 else f"{len(wrong)} of {len(self.outputs)} outputs differ"
        if not self.causes and self.weights:
            return f"{told}: {self.weights[0]}"
        if self.first_departure is not None:
            return f"{told}: wrong at {self.first_departure.describe()}"
        return f"{told}, and no node is wrong by itself"

    def describe_first_departure(self) -> str:
        """One line for messages, "" where nothing is wrong."""
        cause = self.first_departure
        if cause is None:
            return ""
        comparison = cause.comparison
        if comparison is None or comparison.max_abs is None:
            return cause.describe() + (f": {comparison.reason}" if comparison is not None else "")
        return f"{cause.describe()}: max abs {comparison.max_abs:.3g}, max rel {comparison.max_rel:.2g}"

    def modules(self) -> list[tuple[str, int, str, Row]]:
        """The view on modules: path, call, class and the last value that each call of each handed on, in order.

        A value that is wrong where it is stands among them, whether a module handed it on or not.
        """
        read: dict[str, list[Entry]] = {}
        for row in self.rows:
            for name in row.entry.reads:
                read.setdefault(name, []).append(row.entry)
        last: dict[tuple[str, int], tuple[ModuleCall, Row]] = {}
        for row in self.rows:
            own = row.entry.call
            if row.status == "wrong here":
                last[f"value {row.entry.name}", 0] = own, row  # no path has a space in it
            for depth, call in reversed(list(enumerate(row.entry.calls))):
                around = row.entry.calls[: depth + 1]
                readers = read.get(row.entry.key[0], [])
                if row.status == "wrong here" and call == own:
                    continue
                if not readers or any(reader.calls[: depth + 1] != around for reader in readers):
                    last.pop((call.path, call.call), None)  # so that it stands where the call ended
                    last[call.path, call.call] = call, _seen_from(call, row)
        return [(call.path, call.call, call.kind, row) for call, row in last.values()]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        first, named = self.first_departure, self.worth_keeping[:_NAMED]
        return {
            "agrees": self.agrees,
            "verdict": self.verdict,
            "first_departure": None if first is None else first.to_dict(),
            "causes": [cause.to_dict() for cause in self.causes],
            "outputs": [
                {**one.to_dict(), "measured": None if measured is None else measured.to_dict()}
                for one, measured in itertools.zip_longest(self.outputs, self.measured)
            ],
            "not_compared": list(self.not_compared),
            "weights": list(self.weights),
            "values": [row.to_dict() for row in self.rows],
            "rows": [
                {**row.to_dict(), "module": path, "class": kind, "call": call}
                for path, call, kind, row in self.modules()
            ],
            "notes": list(self.notes),
            "level": self.level,
            "precision": [{**layer.to_dict(), "keep": layer in named} for layer in self.precision],
            "keep": list(self.keep),
        }

    @property
    def worth_keeping(self) -> tuple[LayerPrecision, ...]:
        """The layers that cost the outputs most, the worst first: those to keep in full precision."""
        return worth_keeping(self.precision)

    @property
    def keep(self) -> tuple[str, ...]:
        """What to give the target's option ``pins``: the modules, or values of the model, that cost most in all."""
        noise: dict[str, float] = {}
        for layer in self.precision:
            if layer.costs is not None:
                name = layer.entry.call.path or layer.entry.name
                noise[name] = noise.get(name, 0.0) + 10 ** (-layer.costs / 10)
        dear = dict.fromkeys(layer.entry.call.path or layer.entry.name for layer in self.worth_keeping)
        worst = sorted(dear, key=lambda name: -noise[name])[:_NAMED]
        return tuple(name for name in worst if not any(name.startswith(f"{other}.") for other in worst))

    # -- printing ------------------------------------------------------------------------------------------------------

    def render(self, console: Console) -> None:
        """Print the verdict, the outputs and the table."""
        from rich.markup import escape
        from rich.table import Table

        def say(text: str) -> None:
            console.print(escape(text), highlight=False)

        table = Table(title=f"values, reference against file ({self.layers})", title_justify="left")
        for name in ("", "module", "value", "source", "max abs", "max rel", "status"):
            table.add_column(name, justify="right" if name.startswith("max") else "left", overflow="fold")
        wrong = {cause.entry.key for cause in self.causes if cause.entry is not None}
        hidden = 0
        for module, row in self._shown_rows():
            if row.status == "merged":
                hidden += 1
                continue
            comparison = row.comparison
            measured = comparison is not None and comparison.max_abs is not None
            status = f"[{_COLOURS[row.status]}]{row.status}[/]" + (f" ({escape(row.note)})" if row.note else "")
            table.add_row(
                "[red]>>[/red]" if row.entry.key in wrong else "",
                escape(module),
                escape(row.entry.name),
                escape(short_source(row.entry.origin.source)),
                f"{comparison.max_abs:.3g}" if comparison is not None and measured else "-",
                f"{comparison.max_rel:.2g}" if comparison is not None and measured else "-",
                status,
            )
        if self.precision:
            self._render_precision(console)
        elif table.row_count:
            console.print(table)
        if hidden:
            they = "value is" if hidden == 1 else "values are"
            say(f"{hidden} {they} computed together with later ones, and not shown")
        self._render_outputs(console)
        for line in self.weights:
            say(line)
        for one in self.outputs:
            told = f"output {one.name}: {one.reason}"
            if not one.passed and told not in self.not_compared:
                say(told)
        for line in self.not_compared:
            say(f"not compared: {line}")
        for line in self.notes:
            say(f"note: {line}")
        for cause in self.causes:
            self._render_cause(cause, say)
        if self.agrees or not self.causes:
            say(self.summary())

    def _render_outputs(self, console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title="outputs", title_justify="left")
        for name in ("output", "SNR, dB", "cosine", "max abs", "max rel", "ulp", "top 1", "top 5"):
            table.add_column(name, justify="left" if name == "output" else "right", overflow="fold")
        for one, measured in zip(self.outputs, self.measured, strict=False):
            if measured is None:
                continue
            table.add_row(
                escape(one.name),
                _decibels(measured.snr),
                f"{measured.cosine:.7f}",
                f"{measured.max_abs:.3g}",
                f"{measured.max_rel:.2g}",
                f"{measured.ulp:.3g}",
                "-" if measured.top1 is None else f"{measured.top1:.1%}",
                "-" if measured.top5 is None else f"{measured.top5:.1%}",
            )
        if table.row_count:
            console.print(table)

    def _render_precision(self, console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"what {self.level} loses, by layer (signal to noise in dB)", title_justify="left")
        for name in ("module", "value", "here", "own", "outputs", "cosine", "max rel", "largest", "trouble"):
            table.add_column(
                name, justify="left" if name in ("module", "value", "trouble") else "right", overflow="fold"
            )
        keep = {layer.value for layer in self.worth_keeping[:_NAMED]}
        shown = [row for row in self.precision if self.layers in ("modules", "all") or self._fits(row.entry)]
        for row in shown:
            trouble = [
                f"{_percent(share)} {what}"
                for what, share in (("overflow", row.overflow), ("underflow", row.underflow), ("clipped", row.clipped))
                if share > 0
            ]
            mark = "[red]keep[/red] " if row.value in keep else ""
            table.add_row(
                escape(row.entry.call.path or "(model)"),
                escape(row.entry.name),
                _decibels(row.here.snr),
                "-" if row.own is None else _decibels(row.own.snr),
                "-" if row.costs is None else _decibels(row.costs),
                f"{row.here.cosine:.5f}",
                f"{row.here.max_rel:.2g}",
                f"{row.largest:.3g}",
                mark + ", ".join(trouble),
            )
        console.print(table)
        console.print(
            "here: as the file has it; own: from the reference's values; outputs: with this layer alone reduced",
            highlight=False,
        )
        if not self.worth_keeping:
            console.print("no layer stands out: none alone brings an output below 60 dB", highlight=False)
        for row in self.worth_keeping[:_NAMED]:
            console.print(
                f"worth keeping: {escape(row.entry.call.describe())}, {escape(row.entry.name)}: "
                f"alone it brings the outputs down to {decibels(row.costs or 0.0)}",
                highlight=False,
            )
        if self.keep:
            names = escape(",".join(self.keep))
            console.print(f"to keep them in float32: the target's option pins={names}", highlight=False)

    def _fits(self, entry: Entry) -> bool:
        return fnmatch.fnmatchcase(entry.call.path, self.layers)

    def _render_cause(self, cause: Cause, say: Any) -> None:
        comparison = cause.comparison
        far = ""
        if comparison is not None:
            far = comparison.reason or f"max abs {comparison.max_abs:.3g}"
        say(f"wrong here: {cause.describe()}")
        if cause.entry is not None:
            say(f"  {cause.entry.operator}, {cause.entry.name} of the program, {cause.value!r} in the file")
            for caller in cause.entry.origin.callers[:4]:
                say(f"  called from {short_source(caller)}")
        if cause.made_by:
            say(f"  made by the pass {cause.made_by}: bisect tells whether that is to blame, and its rewrite")
        if far:
            say(f"  from the reference's values: {far}")
        if len(cause.nodes) > 1:
            say(f"  one of {len(cause.nodes)} nodes: {', '.join(cause.nodes[:6])}{', ...' * (len(cause.nodes) > 6)}")
        if cause.note:
            say(f"  {cause.note}")
        if cause.by == COSTS:
            return
        say(
            "  with the reference's value in its place, every output agrees"
            if cause.shown
            else f"  found by {cause.by}; putting it right alone does not make every output agree"
        )

    def _shown_rows(self) -> Iterator[tuple[str, Row]]:
        if self.layers == "modules":
            for path, call, _, row in self.modules():
                name = path or "(model)"
                yield f"{name} call {call + 1}" if call else name, row
            return
        for row in self.rows:
            path = row.entry.call.path
            if self.layers == "all" or fnmatch.fnmatchcase(path, self.layers):
                yield path or "(model)", row


def _seen_from(call: ModuleCall, row: Row) -> Row:
    """A value as a call around the one that is wrong sees it."""
    if row.status != "wrong here" or call == row.entry.call:
        return row
    return replace(row, status="inherited", note=f"in {row.entry.call.path}")


def _percent(share: float) -> str:
    """A share that is not nothing: ``0.3%``, and never ``0.0%``."""
    return f"{share:.1%}" if share >= 0.0005 else "<0.1%"


def _decibels(snr: float) -> str:
    return f"{snr:.1f}" if math.isfinite(snr) else "exact" if snr > 0 else "broken"
