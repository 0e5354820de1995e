"""Cut the model in two: what runs on the device up to the named places, and the tail for the host behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir import bodies_of, describe
from graphforge.ir.named import is_inside, similar_names

if TYPE_CHECKING:
    import numpy as np

    from graphforge.runners.runner import Runner

__all__ = ["TAIL", "Cut", "CutRunner", "cut_model"]

TAIL = "tail.onnx"


@dataclass(frozen=True, slots=True)
class Cut:
    """The two parts.

    Attributes:
        front: from the inputs to the cut values, which are its outputs.
        tail: from the cut values (and from inputs of the model that it reads itself) to the model's outputs.
        values: names of the cut values, in the order asked for.
    """

    front: ir.Model
    tail: ir.Model
    values: tuple[str, ...]


def cut_model(model: ir.Model, places: Sequence[str]) -> Cut:
    """Split copies of a model whose names are assigned.

    Args:
        model: it is not changed.
        places: names of values, of nodes, or paths of modules, which stand for what others read of the module.

    Raises:
        GraphForgeError: there is no such place, or the outputs depend on computed values beside the cut.
    """
    names: dict[str, None] = {}
    for place in places:
        names.update(dict.fromkeys(_values_at(model.graph, place)))
    front, tail = model.clone(), model.clone()
    _keep_front(front.graph, names)
    _keep_tail(tail.graph, names)
    _refuse_overlap(front.graph, tail.graph, names)
    return Cut(front, tail, tuple(names))


def _values_at(graph: ir.Graph, place: str) -> list[str]:
    for node in graph:
        outputs = [
            str(value.name) for value in node.outputs if value.name and (value.uses() or value.is_graph_output())
        ]
        if place in outputs:
            return [place]
        if place == node.name:
            return outputs
    inside = [node for node in graph if is_inside(node, place)]
    if not inside:
        raise _no_such_place(graph, place)
    members = set(inside)
    return [
        str(value.name)
        for node in inside
        for value in node.outputs
        if value.is_graph_output() or any(user not in members for user, _ in value.uses())
    ]


def _no_such_place(graph: ir.Graph, place: str) -> GraphForgeError:
    return GraphForgeError(
        f"there is no value, node or module {place!r} to cut at",
        *similar_names(graph, place),
        "compile without cut, then graphforge inspect BUNDLE/model.onnx shows all names",
    )


def _keep_front(graph: ir.Graph, names: Iterable[str]) -> None:
    by_name = {value.name: value for node in graph for value in node.outputs}
    graph.outputs.clear()
    graph.outputs.extend(by_name[name] for name in names)
    _drop_unread(graph)


def _keep_tail(graph: ir.Graph, names: Iterable[str]) -> None:
    by_name = {value.name: value for node in graph for value in node.outputs}
    for name in names:
        old = by_name[name]
        if old.is_graph_output():
            raise GraphForgeError(
                f"{name!r} is an output of the model already, so nothing is behind it to cut off",
                "cut before the head: name values or modules that the head reads",
            )
        new = ir.Value(name=name, type=old.type, shape=old.shape)
        old.name = None
        graph.inputs.append(new)
        ir.convenience.replace_all_uses_with(old, new)
    _drop_unread(graph)
    for value in list(graph.inputs):
        if not value.uses() and not value.is_graph_output():
            graph.inputs.remove(value)


def _drop_unread(graph: ir.Graph) -> None:
    """Nodes and constants that no output needs."""
    needed: set[ir.Node] = set()
    waiting = [value.producer() for value in graph.outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in needed:
            continue
        needed.add(node)
        waiting += [value.producer() for value in node.inputs if value is not None]
        for body in bodies_of(node):
            # what a body reads from outside is needed as well
            waiting += [v.producer() for inner in body.all_nodes() for v in inner.inputs if v is not None]
    doomed = [node for node in graph if node not in needed]
    graph.remove(doomed, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _refuse_overlap(front: ir.Graph, tail: ir.Graph, names: Iterable[str]) -> None:
    """Sizes may be computed on both sides; a floating value that both compute means that the cut has a hole."""
    computed = {node.name for node in front if any(value.dtype not in _SIZES for value in node.outputs)}
    twice = [n for n in tail if n.name in computed and any(value.dtype not in _SIZES for value in n.outputs)]
    if twice:
        raise GraphForgeError(
            f"the outputs also depend on {describe(twice[-1])} by a way that does not pass through the cut",
            f"cut that way as well; now: {', '.join(names)}",
        )


_SIZES = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


class CutRunner:
    """The device's part and the host's tail, one after the other, in ONNX Runtime."""

    def __init__(self, front: Path, tail: Path) -> None:
        from graphforge.runners.onnx_runtime import OnnxRuntimeRunner

        self.name = "ONNX Runtime on both parts, not an MLU"
        self._front: Runner = OnnxRuntimeRunner(front, name=self.name)
        self._tail: Runner = OnnxRuntimeRunner(tail, name=self.name)
        self._read = {str(value.name) for value in ir.load(tail).graph.inputs}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The model's outputs by name."""
        cut = self._front.run(feeds)
        return self._tail.run({name: array for name, array in {**feeds, **cut}.items() if name in self._read})

    def close(self) -> None:
        """Let go of both sessions."""
        self._front.close()
        self._tail.close()
