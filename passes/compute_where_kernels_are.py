"""Compute in another type what a runtime has no kernel for.    Erf(x: f64)  ==>  Cast(Erf(Cast(x to f32)) to f64)

Nothing is lost where a wider type has a kernel (bfloat16, short integers), or where doubles can be written by other
operators (Tan by Sin and Cos).  Elsewhere digits are lost: a note says so, once for each operator, and so do the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import onnx_ir as ir

from graphforge.ir import Builder, Graph, nodes_of
from graphforge.ir.detour import Rounding, cast_to, compute_in, decides
from graphforge.ir.dtypes import HALVES, dtype_name, holds
from graphforge.ir.infer import infer_node, schema_of
from graphforge.passes._double_forms import DOUBLE_FORMS
from graphforge.targets.tables import Kernels, facts_of
from graphforge.transform import Pass, Pipeline, Rewriter

__all__ = ["ComputeWhereKernelsAre", "runnable", "runnable_file"]


@dataclass(frozen=True)
class ComputeWhereKernelsAre(Pass):
    """Cast around every node whose element type has no kernel.

    Attributes:
        runtime: whose kernels: the name of its table of facts, or the path of one; the entry is that of the installed
            version.
        halves: False leaves float16 and bfloat16 as they are, for a file that another runtime computes.
    """

    name: ClassVar[str] = "compute-where-kernels-are"
    runtime: str = "onnxruntime"
    halves: bool = True

    def run(self, graph: Graph, rewriter: Rewriter) -> None:
        """Look at every node once."""
        kernels = facts_of(self.runtime).kernels
        casts = _Casts()
        for node in nodes_of(graph):
            if node.op_type == "Cast":
                casts.saw(node)
            detour = _detour(node, kernels, rewriter.opset)
            if detour is not None and not self.halves and detour[0] in HALVES:
                continue
            if detour is not None and not _write_by_others(node, detour[0], kernels, rewriter):
                _take(node, *detour, rewriter, casts)
        # what one node casts back and the next would cast forth again, the next has read uncast
        rewriter.erase(*(cast for cast in casts.back if not any(_is_read(value) for value in cast.outputs)))


class _Casts:
    """The casts of a graph, each made once: nodes are seen in the order of the graph.

    Attributes:
        back: the casts behind nodes that are computed in another type.
    """

    def __init__(self) -> None:
        self.back: list[ir.Node] = []
        self._known: dict[tuple[ir.Value, ir.DataType, ir.Graph | None], ir.Value] = {}

    def saw(self, node: ir.Node) -> None:
        """Remember a cast that is there already."""
        if node.domain != "" or not isinstance(node.graph, ir.Graph):
            return
        source, value = node.inputs[0], node.outputs[0]
        if source is not None and value.dtype is not None:
            self._known.setdefault((source, value.dtype, node.graph), value)

    def cast(self, op: Builder, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value in another dtype, by a cast of the same graph where there is one."""
        key = (value, dtype, op.graph)
        if key not in self._known:
            self._known[key] = cast_to(op, value, dtype)
        return self._known[key]


def runnable(model: ir.Model, runtime: str = "onnxruntime") -> ir.Model:
    """What the runtime can run of a model: a copy that shares the weights, or itself where no kernel is lacking."""
    kernels = facts_of(runtime).kernels
    opset = model.graph.opset_imports.get("", 0)
    if not any(_detour(node, kernels, opset) for node in nodes_of(model.graph)):
        return model
    copy = model.clone()
    Pipeline([ComputeWhereKernelsAre(runtime)]).run(copy)
    return copy


def runnable_file(file: Path, runtime: str = "onnxruntime") -> Path | ir.Model:
    """The file, or a copy of its model that the runtime can run where that has no kernels for all of it.

    A file that was made for another runtime may have halves that this one lacks.
    """
    try:
        written = ir.load(file)
    except Exception:  # protobuf's and onnx_ir's own kinds: what cannot be read is the runtime's to refuse
        return file
    if not any(value.dtype in HALVES for node in nodes_of(written.graph) for value in _typed(node)):
        return file
    for node in nodes_of(written.graph):
        infer_node(node, written.opset_imports.get("", 0))
    model = runnable(written, runtime)
    return file if model is written else model


def _typed(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in (*node.inputs, *node.outputs) if value is not None)


def _detour(node: ir.Node, kernels: Kernels, opset: int) -> tuple[ir.DataType, ir.DataType] | None:
    """The element type that the node computes in and the one to compute in; None where it runs as it is."""
    if node.domain != "":
        return None
    position = decides(node.op_type)
    value = node.inputs[position] if position < len(node.inputs) else None
    dtype = None if value is None else value.dtype
    if dtype is None or not kernels.may_lack(node.op_type, dtype):
        return None
    schema = schema_of(node.op_type, "", opset)
    instead = kernels.instead(node.op_type, dtype, None if schema is None else schema.since_version)
    if instead is None or schema is None or _only_moves(node):
        return None
    return dtype, instead


def _write_by_others(node: ir.Node, asked: ir.DataType, kernels: Kernels, rewriter: Rewriter) -> bool:
    """Whether the node could be written by operators that have kernels for doubles; then it is."""
    form = DOUBLE_FORMS.get(node.op_type)
    if form is None or asked != ir.DataType.DOUBLE or not all(kernels.has(name, asked) for name in form.needs):
        return False
    value = form.build(rewriter.builder(node), node)
    if value is not None:
        rewriter.replace(node, value)
    return value is not None


def _only_moves(node: ir.Node) -> bool:
    """A scatter without a reduction computes nothing: it has kernels for every element type."""
    if node.op_type not in ("ScatterElements", "ScatterND"):
        return False
    reduction = node.attributes.get("reduction")
    return reduction is None or reduction.as_string() == "none"


def _take(node: ir.Node, asked: ir.DataType, computed: ir.DataType, rewriter: Rewriter, casts: _Casts) -> None:
    op = rewriter.builder(node)
    attributes: dict[str, Any] = dict(node.attributes.items())
    results = compute_in(
        op,
        node.op_type,
        node.inputs,
        attributes,
        asked=asked,
        computed=computed,
        outputs=len(node.outputs),
        cast=casts.cast,
    )
    first = len(op.created)
    values = [
        new if old.dtype is None or new.dtype != computed or not _is_read(old) else cast_to(op, new, old.dtype)
        for old, new in zip(node.outputs, results, strict=True)
    ]
    if not holds(computed, asked):
        rewriter.note(str(Rounding(node.op_type, dtype_name(asked), dtype_name(computed))))
    rewriter.replace(node, values)
    casts.back += op.created[first:]


def _is_read(value: ir.Value) -> bool:
    return bool(value._uses) or value.is_graph_output()
