"""An instrument that prints the graph after some passes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from graphforge.errors import UsageError
from graphforge.ir.printer import print_graph
from graphforge.transform.base import Pass
from graphforge.transform.pipeline import PassRecord

__all__ = ["PrintAfter"]


@dataclass
class PrintAfter:
    """Prints the graph each time that one of the passes has run.

    Attributes:
        names: the passes.
        write: takes the text; prints it by default.
        width: letters to a line; None lets lines be as long as they are.
        colour: put in the colours of a terminal.
    """

    names: tuple[str, ...]
    write: Callable[[str], object] = print
    width: int | None = None
    colour: bool = False
    _seen: int = field(default=0, repr=False)

    def refuse_unknown(self, passes: Iterable[Pass]) -> None:
        """Raise a UsageError for a name that none of the passes has, with the nearest that one has."""
        there = list(dict.fromkeys(item.name for item in passes))
        for name in self.names:
            if name not in there:
                near = difflib.get_close_matches(name, there, n=1)
                raise UsageError(
                    f"no pass {name!r} runs here, so the graph cannot be printed after it",
                    f"did you mean {near[0]}?" if near else "",
                    f"the passes that run: {', '.join(there)}" if there else "no pass runs",
                )

    def before(self, pass_: Pass, model: ir.Model) -> None:
        """Count the passes."""
        self._seen += 1

    def after(self, pass_: Pass, model: ir.Model, record: PassRecord) -> None:
        """Print the graph where the pass is one of those asked for."""
        if pass_.name not in self.names:
            return
        changes = {0: "nothing changed", 1: "1 change"}.get(record.changes, f"{record.changes} changes")
        head = f"---- after {record.spec}, pass {self._seen}: {changes}"
        self.write(f"{head}\n{print_graph(model, width=self.width, colour=self.colour)}")
