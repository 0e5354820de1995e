"""Run a model with operators of the user's own: with the user's kernel library, or with the declared Python function.

ONNX Runtime takes kernels from a shared library.  An operator that has only a Python function is run by that function:
the model is cut at its nodes, the pieces run in ONNX Runtime and the function between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from graphforge.errors import GraphForgeError, argument
from graphforge.runners.arrays import Array, array_from_tensor, tensor_from_array
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.user_code import user_error

if TYPE_CHECKING:
    from graphforge.ops.custom_op import CustomOp

__all__ = ["PiecewiseRunner", "runner_for"]


def runner_for(path: Path) -> OnnxRuntimeRunner | PiecewiseRunner:
    """A runner of a model that may hold declared operators.

    Raises:
        GraphForgeError: a declared operator has neither a library nor a function.
    """
    from graphforge.ops.custom_op import declared_ops

    declared = {(one.domain, one.name): one for one in declared_ops() if one.domain != "graphforge"}
    if not declared:
        return OnnxRuntimeRunner(path)
    model = onnx.load(path, load_external_data=False)
    used = {(node.domain, node.op_type) for node in model.graph.node} & set(declared)
    without = [declared[key] for key in sorted(used) if declared[key].library is None]
    libraries = sorted({str(declared[key].library) for key in used} - {"None"})

    def configure(options: Any) -> None:
        for library in libraries:
            options.register_custom_ops_library(library)

    if not without:
        return OnnxRuntimeRunner(path, configure=configure if libraries else None)
    for one in without:
        if one.function is None:
            raise GraphForgeError(
                f"{one.qualified_name} has no kernel here, so the artifact cannot be verified",
                "declare it with function= (a Python function on torch tensors) or library= (for ONNX Runtime)",
                f"or compile without the check: {argument('verify', False)}",
            )
    return PiecewiseRunner(path, {(one.domain, one.name): one for one in without}, configure if libraries else None)


class PiecewiseRunner:
    """A model cut at nodes whose operator is computed by a Python function.

    Args:
        path: the model.
        operators: (domain, name) -> declaration with a ``function`` from torch tensors and attributes to torch tensors.
        configure: for the sessions' options.
    """

    name = "onnxruntime + Python kernels"

    def __init__(self, path: Path, operators: Mapping[tuple[str, str], CustomOp], configure: Any = None) -> None:
        self.path = path
        self.operators = operators
        self.configure = configure
        self._pieces: list[tuple[OnnxRuntimeRunner | None, onnx.NodeProto | None]] = []
        self._outputs: list[str] = []
        self._constants: dict[str, Array] = {}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name.

        Raises:
            GraphForgeError: a function fails, or returns another number of tensors than declared.
        """
        if not self._pieces:
            self._pieces = self._cut()
        known = dict(feeds)
        result: dict[str, Array] = {}
        for runner, node in self._pieces:
            if runner is not None:
                made = runner.run(known)
                known |= made
                result |= made
            if node is not None:
                known |= self._call(node, known)
        return {name: known[name] for name in self._outputs}

    def close(self) -> None:
        """Close the sessions of all pieces."""
        for runner, _ in self._pieces:
            if runner is not None:
                runner.close()
        self._pieces = []

    def _cut(self) -> list[tuple[OnnxRuntimeRunner | None, onnx.NodeProto | None]]:
        model = onnx.shape_inference.infer_shapes(onnx.load(self.path))
        graph = model.graph
        self._outputs = [value.name for value in graph.output]
        constants = {tensor.name for tensor in graph.initializer}
        types = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
        pieces: list[tuple[OnnxRuntimeRunner | None, onnx.NodeProto | None]] = []
        given = [value.name for value in graph.input]
        own = {name for node in graph.node if self._is_own(node) for name in node.input}
        self._constants = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in own
        }
        for node in [*(one for one in graph.node if self._is_own(one)), None]:
            wanted = self._outputs if node is None else [n for n in node.input if n and n not in constants]
            piece = self._piece(model, given, [name for name in wanted if name not in given], types)
            pieces.append((piece, node))
            given += [name for name in wanted if name not in given]
            if node is not None:
                given += [name for name in node.output if name]
        return pieces

    def _is_own(self, node: onnx.NodeProto) -> bool:
        return (node.domain, node.op_type) in self.operators

    def _piece(
        self, model: onnx.ModelProto, given: list[str], wanted: list[str], types: Mapping[str, onnx.ValueInfoProto]
    ) -> OnnxRuntimeRunner | None:
        """The part of the model that computes ``wanted`` from ``given``."""
        if not wanted:
            return None
        makers = {name: node for node in model.graph.node for name in node.output}
        needed: set[int] = set()
        reached: set[str] = set()
        pending = list(wanted)
        while pending:
            name = pending.pop()
            if name in given:
                reached.add(name)
                continue
            maker = makers.get(name)
            if maker is None or id(maker) in needed:
                continue
            needed.add(id(maker))
            pending += [one for one in _read_by(maker) if one]
        nodes = [node for node in model.graph.node if id(node) in needed]
        read = {name for node in nodes for name in _read_by(node)}
        graph = onnx.helper.make_graph(
            nodes,
            "piece",
            [types.get(name, onnx.ValueInfoProto(name=name)) for name in given if name in reached],
            [types.get(name, onnx.ValueInfoProto(name=name)) for name in wanted],
            [tensor for tensor in model.graph.initializer if tensor.name in read],
        )
        part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        return OnnxRuntimeRunner(part, configure=self.configure)

    def _call(self, node: onnx.NodeProto, known: Mapping[str, Array]) -> dict[str, Array]:
        declared = self.operators[node.domain, node.op_type]
        assert declared.function is not None
        arguments = [
            None if not name else tensor_from_array(np.asarray(known.get(name, self._constants.get(name))))
            for name in node.input
        ]
        attributes = {name: value for name, value in declared.attributes.items() if not isinstance(value, type)}
        attributes |= {one.name: _plain(onnx.helper.get_attribute_value(one)) for one in node.attribute}
        try:
            results = declared.function(*arguments, **attributes)
        except GraphForgeError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise user_error(f"the function of {declared.qualified_name} failed", error) from error
        several = results if isinstance(results, tuple | list) else (results,)
        if len(several) < len(node.output):
            raise GraphForgeError(
                f"the function of {declared.qualified_name} returned {len(several)} tensors, declared are "
                f"{len(declared.outputs)}"
            )
        return {name: array_from_tensor(one) for name, one in zip(node.output, several, strict=False) if name}


def _read_by(node: onnx.NodeProto) -> list[str]:
    """What a node reads, the nodes in its bodies included."""
    names = list(node.input)
    for attribute in node.attribute:
        for body in [attribute.g, *attribute.graphs] if attribute.HasField("g") else list(attribute.graphs):
            for inner in body.node:
                names += _read_by(inner)
    return names


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
