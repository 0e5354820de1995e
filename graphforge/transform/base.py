"""Pass: a named, frozen bundle of options with one method that edits a graph."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from graphforge.ir import Graph
    from graphforge.transform.rewriter import Rewriter

__all__ = ["Pass"]


@dataclass(frozen=True)
class Pass:
    """One step of a pipeline.  A subclass is a frozen dataclass; its fields are its options.

    Attributes:
        name: what pipelines, journals and error messages call it (``fold-batch-norm``).
    """

    name: ClassVar[str] = ""

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Edit the graph (the main one; ``graph.all_nodes()`` reaches the bodies of If, Loop and Scan too)."""
        raise NotImplementedError

    @classmethod
    def summary(cls) -> str:
        """What the pass does, in one line: the first line of its file's docstring, else of its own."""
        module = sys.modules.get(cls.__module__)
        for text in (inspect.getdoc(module) if module is not None else None, cls.__doc__):
            # A dataclass without a docstring gets its own signature as one.
            if text and not text.startswith(f"{cls.__name__}("):
                return text.strip().splitlines()[0]
        return ""

    @classmethod
    def option_names(cls) -> list[str]:
        """The options, in the order in which they are declared."""
        return [field.name for field in fields(cls)]

    def options(self) -> dict[str, Any]:
        """Option name -> value."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def spec(self) -> str:
        """The text that ``Pipeline.parse`` reads back as this pass; options at their default are left out."""
        changed = [
            f"{field.name}={_spell(getattr(self, field.name))}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return self.name + (f"{{{','.join(changed)}}}" if changed else "")


def _spell(value: object) -> str:
    if isinstance(value, tuple | list):
        return "[" + ",".join(_spell(item) for item in value) + "]"
    if isinstance(value, str):
        return repr(value)
    return str(value).lower() if isinstance(value, bool) or value is None else repr(value)
