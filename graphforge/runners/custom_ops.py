"""Run a model with declared operators: with the user's kernel library, or with the declared Python function.

ONNX Runtime takes kernels from a shared library.  An operator that has only a Python function is run by that function:
the model is cut at its nodes, the pieces run in ONNX Runtime and the function between them.  So are our own operators
before a pass has lowered them: by their references.  Where one stands in the body of an If, Loop or Scan, ONNX's
reference evaluator runs that node, and calls the function.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from graphforge.errors import GraphForgeError, argument
from graphforge.runners.arrays import Array, array_from_tensor, tensor_from_array
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.user_code import user_error

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphforge.ops.custom_op import CustomOp

__all__ = ["PiecewiseRunner", "runner_before_lowering", "runner_for", "uses_declared_ops"]

_OURS = "graphforge"


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


def uses_declared_ops(model: onnx.ModelProto) -> bool:
    """Whether a model states the domain of an operator that is declared here, or ours."""
    from graphforge.ops.custom_op import declared_ops

    domains = {_OURS, *(one.domain for one in declared_ops())}
    return any(one.domain in domains for one in model.opset_import)


def runner_before_lowering(
    model: ir.Model, *, optimize: bool = True, threads: int | None = None, here: bool = False
) -> OnnxRuntimeRunner | PiecewiseRunner:
    """A runner of a graph between passes: declared operators in it, ours too, are computed by their functions.

    Those with a kernel library of the user's are left to it.

    Args:
        model: the graph.
        optimize: let the runtime fuse and fold.
        threads: that the runtime may take; None lets it choose.
        here: its runs are measured, and made in this process.

    Raises:
        GraphForgeError: a declared operator has neither a library nor a function.
    """
    import onnx_ir as ir

    from graphforge.ops.custom_op import find_op

    used = {(node.domain, node.op_type) for node in model.graph.all_nodes() if node.domain not in ("", "ai.onnx.ml")}
    if any(domain == _OURS for domain, _ in used):
        _declare_ours()
    declared = [found for found in (find_op(*key) for key in sorted(used)) if found is not None]
    if not declared:
        return OnnxRuntimeRunner(model, optimize=optimize, threads=threads, here=here)
    libraries = sorted({str(one.library) for one in declared if one.library is not None})

    def configure(options: Any) -> None:
        for library in libraries:
            options.register_custom_ops_library(library)

    by_function = [one for one in declared if one.library is None]
    for one in by_function:
        if one.function is None:
            raise GraphForgeError(
                f"{one.qualified_name} has no kernel here, so the graph cannot be run",
                "declare it with function= (a Python function on torch tensors) or library= (for ONNX Runtime)",
            )
    if not by_function:
        return OnnxRuntimeRunner(model, optimize=optimize, threads=threads, configure=configure)
    return PiecewiseRunner(
        ir.to_proto(model),
        {(one.domain, one.name): one for one in by_function},
        configure if libraries else None,
        optimize=optimize,
        threads=threads,
    )


def _declare_ours() -> None:
    """The files of our operators declare them when they are imported."""
    import importlib
    import pkgutil

    from graphforge import ops

    for module in pkgutil.iter_modules(ops.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"graphforge.ops.{module.name}")


@dataclass(frozen=True, slots=True)
class _Piece:
    """One step of a run: nodes that ONNX Runtime computes together, or one that it has no kernel for."""

    runner: OnnxRuntimeRunner | None = None
    node: onnx.NodeProto | None = None


class PiecewiseRunner:
    """A model cut at nodes whose operator is computed by a Python function.

    Args:
        model: the model, or its file.
        operators: (domain, name) -> declaration with a ``function`` from torch tensors and attributes to torch tensors.
        configure: for the sessions' options.
        optimize: let the runtime fuse and fold within the pieces.
        threads: that the runtime may take; None lets it choose.
    """

    name = "onnxruntime + Python kernels"

    def __init__(
        self,
        model: Path | onnx.ModelProto,
        operators: Mapping[tuple[str, str], CustomOp],
        configure: Any = None,
        *,
        optimize: bool = True,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.operators = operators
        self.configure = configure
        self.optimize = optimize
        self.threads = threads
        self._pieces: list[_Piece] = []
        self._outputs: list[str] = []
        self._constants: dict[str, Array] = {}
        self._opsets: list[onnx.OperatorSetIdProto] = []

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name.

        Raises:
            GraphForgeError: a function fails, or returns another number of tensors than declared.
        """
        if not self._pieces:
            self._pieces = self._cut()
        known = {**self._constants, **feeds}
        for piece in self._pieces:
            if piece.runner is not None:
                known |= piece.runner.run(known)
            if piece.node is not None:
                call = self._call if self._is_own(piece.node) else self._evaluate
                known |= call(piece.node, known)
        return {name: known[name] for name in self._outputs}

    def close(self) -> None:
        """Close the sessions of all pieces."""
        for piece in self._pieces:
            if piece.runner is not None:
                piece.runner.close()
        self._pieces = []

    def __enter__(self) -> PiecewiseRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut(self) -> list[_Piece]:
        """Before each node of its own kind, what it needs and nobody has computed yet; the rest at the end."""
        given = onnx.load(self.model) if isinstance(self.model, Path) else self.model
        model = onnx.shape_inference.infer_shapes(given)
        graph = model.graph
        self._outputs = [value.name for value in graph.output]
        self._opsets = list(model.opset_import)
        apart = [self._stands_apart(node) for node in graph.node]
        read_apart = {name for node, alone in zip(graph.node, apart, strict=True) if alone for name in _read_by(node)}
        self._constants = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in graph.initializer
            if tensor.name in read_apart or tensor.name in self._outputs
        }
        makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
        steps: list[list[int]] = []
        taken: set[int] = set()
        for index, alone in enumerate(apart):
            if alone:
                needed = sorted(_needed(graph, makers, _read_by(graph.node[index]), taken))
                steps += [needed, [index]]
                taken |= {*needed, index}
        steps.append(sorted(_needed(graph, makers, self._outputs, taken)))
        pieces = []
        for place, step in enumerate(steps):
            later = {name for rest in steps[place + 1 :] for index in rest for name in _read_by(graph.node[index])}
            if len(step) == 1 and apart[step[0]]:
                pieces.append(_Piece(node=graph.node[step[0]]))
            elif step:
                pieces.append(_Piece(runner=self._piece(model, step, later | set(self._outputs))))
        return pieces

    def _is_own(self, node: onnx.NodeProto) -> bool:
        return (node.domain, node.op_type) in self.operators

    def _stands_apart(self, node: onnx.NodeProto) -> bool:
        """Whether it is one of the operators, or has one in its bodies."""
        return self._is_own(node) or any(self._stands_apart(inner) for body in _bodies(node) for inner in body.node)

    def _piece(self, model: onnx.ModelProto, step: list[int], wanted: set[str]) -> OnnxRuntimeRunner:
        """The nodes of a step as a model of its own, from what they read to what is ``wanted`` of them."""
        graph = model.graph
        types = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
        constants = {tensor.name: tensor for tensor in graph.initializer}
        nodes = [graph.node[index] for index in step]
        made = {name for node in nodes for name in node.output}
        read = dict.fromkeys(name for node in nodes for name in _read_by(node) if name and name not in made)
        local = {value for node in nodes for value in _names_inside(node)}
        part = onnx.helper.make_graph(
            nodes,
            "piece",
            [
                types.get(name, onnx.ValueInfoProto(name=name))
                for name in read
                if name not in constants and name not in local
            ],
            [
                types.get(name, onnx.ValueInfoProto(name=name))
                for node in nodes
                for name in node.output
                if name and name in wanted
            ],
            [constants[name] for name in read if name in constants],
        )
        return OnnxRuntimeRunner(
            onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version),
            configure=self.configure,
            optimize=self.optimize,
            threads=self.threads,
        )

    def _call(self, node: onnx.NodeProto, known: Mapping[str, Array]) -> dict[str, Array]:
        arguments = [None if not name else np.asarray(known[name]) for name in node.input]
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        results = _results(self.operators[node.domain, node.op_type], arguments, attributes, len(node.output))
        return {name: one for name, one in zip(node.output, results, strict=False) if name}

    def _evaluate(self, node: onnx.NodeProto, known: Mapping[str, Array]) -> dict[str, Array]:
        """A node with bodies in ONNX's reference evaluator, the operators in it by their functions."""
        from onnx.reference import ReferenceEvaluator

        read = [name for name in dict.fromkeys(_read_by(node)) if name in known]
        graph = onnx.helper.make_graph(
            [node],
            "piece",
            [onnx.ValueInfoProto(name=name) for name in read],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
        )
        model = onnx.helper.make_model(graph, opset_imports=self._opsets)
        evaluator = ReferenceEvaluator(model, new_ops=[_kernel(one) for one in self.operators.values()])
        try:
            found = evaluator.run(None, {name: np.asarray(known[name]) for name in read})
        except GraphForgeError:
            raise
        except Exception as error:  # numpy and the evaluator raise anything
            raise GraphForgeError(
                f"{node.op_type} {node.name} failed in ONNX's reference evaluator: {error}"
            ) from error
        return dict(zip([name for name in node.output if name], found, strict=True))


def _needed(graph: onnx.GraphProto, makers: Mapping[str, int], wanted: list[str], taken: set[int]) -> set[int]:
    """The nodes that compute what is wanted, without those that are taken already."""
    needed: set[int] = set()
    pending = list(wanted)
    while pending:
        maker = makers.get(pending.pop())
        if maker is not None and maker not in needed and maker not in taken:
            needed.add(maker)
            pending += _read_by(graph.node[maker])
    return needed


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _read_by(node: onnx.NodeProto) -> list[str]:
    """What a node reads, the nodes in its bodies included."""
    names = list(node.input)
    for body in _bodies(node):
        for inner in body.node:
            names += _read_by(inner)
        names += [value.name for value in body.output]
    return names


def _names_inside(node: onnx.NodeProto) -> Iterator[str]:
    """The values that belong to a node's bodies."""
    for body in _bodies(node):
        yield from (value.name for value in body.input)
        yield from (tensor.name for tensor in body.initializer)
        for inner in body.node:
            yield from inner.output
            yield from _names_inside(inner)


def _results(declared: CustomOp, given: list[Array | None], attributes: Mapping[str, Any], wanted: int) -> list[Array]:
    """What the declared function makes of a node's inputs.

    Raises:
        GraphForgeError: it fails, or returns fewer tensors than are wanted.
    """
    assert declared.function is not None
    tensors: list[Any] = [None if one is None else tensor_from_array(one) for one in given]
    settings = {name: value for name, value in declared.attributes.items() if not isinstance(value, type)}
    settings |= {name: _plain(value) for name, value in attributes.items()}
    try:
        if declared.domain == _OURS:  # the references have the operator's own names, in an order of their own
            results = declared.function(**_by_name(declared, tensors), **settings)
        else:
            results = declared.function(*tensors, **settings)
    except GraphForgeError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise user_error(f"the function of {declared.qualified_name} failed", error) from error
    several = results if isinstance(results, tuple | list) else (results,)
    if len(several) < wanted:
        raise GraphForgeError(
            f"the function of {declared.qualified_name} returned {len(several)} tensors, declared are "
            f"{len(declared.outputs)}"
        )
    return [array_from_tensor(one) for one in several]


def _by_name(declared: CustomOp, tensors: list[Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for position, parameter in enumerate(declared.inputs):
        if parameter.variadic:
            named[parameter.name] = tensors[position:]
        else:
            named[parameter.name] = tensors[position] if position < len(tensors) else None
    return named


def _kernel(declared: CustomOp) -> Any:
    """The operator for ONNX's reference evaluator."""
    from onnx.reference.op_run import OpRun

    def run(self: Any, *inputs: Array | None, **attributes: Any) -> tuple[Array, ...]:
        given = {one.name: onnx.helper.get_attribute_value(one) for one in self.onnx_node.attribute}
        wanted = len(self.onnx_node.output)
        return tuple(_results(declared, list(inputs), given, wanted)[:wanted])

    members = {"op_domain": declared.domain, "op_schema": declared.schema(), "_run": run}
    return type(declared.name, (OpRun,), members)


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
