"""Names: every value of a model, in whatever body, has one of its own; ONNX asks for it, the graph does not need it."""

from __future__ import annotations

import onnx_ir as ir

from graphforge.ir.bodies import bodies_of

__all__ = ["NameTable", "make_names_unique"]


class NameTable:
    """The names that are taken in a model.  Names that became free are not given out again."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        self._counters: dict[str, int] = {}
        pending = [model.graph]
        while pending:
            graph = pending.pop()
            self._taken.update(graph.initializers)
            self._taken.update(value.name for value in graph.inputs if value.name)
            for node in graph:
                self._taken.update(value.name for value in node.outputs if value.name)
                if node.attributes:
                    pending.extend(bodies_of(node))

    def fresh(self, base: str) -> str:
        """``base`` when it is free, else ``base_1``, ``base_2``, ..."""
        name = base
        count = self._counters.get(base, 0)
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._counters[base] = count
        self._taken.add(name)
        return name


def make_names_unique(model: ir.Model) -> int:
    """Rename values that share a name with another one, or have none; returns how many.

    The names of the model's inputs and outputs stay.
    """
    fixed = {*model.graph.inputs, *model.graph.outputs}
    taken: set[str] = {value.name for value in fixed if value.name}
    counters: dict[str, int] = {}
    renamed = 0
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        values = [*graph.inputs, *graph.initializers.values()]
        for node in graph:
            values.extend(node.outputs)
            if node.attributes:
                pending.extend(bodies_of(node))
        seen: set[ir.Value] = set()
        for value in values:
            if value in fixed or value in seen:
                continue
            seen.add(value)
            if value.name == "" and not value._uses and not value.is_graph_output():
                continue  # an optional output that is not asked for
            base = value.name or "value"
            name = base
            count = counters.get(base, 0)
            while name in taken:
                count += 1
                name = f"{base}_{count}"
            counters[base] = count
            taken.add(name)
            if name != value.name:
                value.name = name
                renamed += 1
    return renamed
