"""Higher-order operators as ONNX control flow: cond -> If, while_loop -> Loop, scan -> Scan.

A body is lowered like any program, into a graph of its own; weights and other values from outside it reads directly,
as ONNX lets it.  What a body would write to a tensor from outside is refused: it would be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from graphforge.errors import LoweringError
from graphforge.frontend.aliasing import Cell
from graphforge.frontend.emitter import Emitter, SymbolicScalar
from graphforge.frontend.symbolic import symbolic_result

if TYPE_CHECKING:
    from graphforge.frontend.lower import Scope

__all__ = ["CONTROL_FLOW"]


def _module(scope: Scope, argument: Any) -> torch.fx.GraphModule:
    module = scope.argument(argument)
    assert isinstance(module, torch.fx.GraphModule)
    return module


def _leaves(results: Any) -> list[Any]:
    if isinstance(results, list | tuple):
        return [leaf for item in results for leaf in _leaves(item)]
    return [results]


def _run_inside(
    scope: Scope, op: Emitter, module: torch.fx.GraphModule, operands: Sequence[Any], node: torch.fx.Node
) -> list[Any]:
    """Lower a body's module on operands, as values; returns its results as values."""

    def refuse() -> None:
        raise LoweringError(f"the body of {node.target} writes to a tensor from outside", "return it instead")

    inner = scope.child(op, module)
    placeholders = [item for item in module.graph.nodes if item.op == "placeholder"]
    for item, operand in zip(placeholders, operands, strict=True):
        boxed = inner.has_mutation and isinstance(operand, ir.Value)
        inner.env[item] = Cell(operand, item.meta.get("val"), on_write=refuse) if boxed else operand
    results = _leaves(inner.run())
    return [result.read() if isinstance(result, Cell) else result for result in results]


def _new_body(scope: Scope, name: str) -> Emitter:
    body = ir.Graph([], [], nodes=[], name=name)
    emitter = Emitter(body, constants=scope.op.constants, origins=scope.op.origins)
    emitter.symbol_names = scope.op.symbol_names
    return emitter


def _body_input(scope: Scope, op: Emitter, fake: Any, name: str) -> Any:
    """A new input of a body, and what stands for it inside."""
    if isinstance(fake, torch.Tensor):
        value = ir.Value(name=name, type=ir.TensorType(op.dtype_of(fake)), shape=scope.shape(fake))
        op.graph.inputs.append(value)
        return value
    value = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    op.graph.inputs.append(value)
    if isinstance(fake, torch.SymInt):
        return symbolic_result(op, value, fake)
    return SymbolicScalar(f"?{name}", scalar=lambda _: value)


def _body_output(op: Emitter, result: Any) -> None:
    """ONNX wants every output of a body to be made there, and to be no other output."""
    value = result if isinstance(result, ir.Value) else op.scalar(result)
    producer = value.producer()
    if producer is None or producer.graph is not op.graph or value in op.graph.outputs:
        shape = value.shape
        value = op.Identity(value)
        value.shape = shape
    op.graph.outputs.append(value)


def _results(scope: Scope, made: Any, fakes: Sequence[Any]) -> list[Any]:
    """The results of a control-flow node with the types that capture knows."""
    values = [made] if isinstance(made, ir.Value) else list(made)
    typed: list[Any] = []
    for value, fake in zip(values, fakes, strict=True):
        value.type = ir.TensorType(scope.op.dtype_of(fake) if isinstance(fake, torch.Tensor) else ir.DataType.INT64)
        value.shape = scope.shape(fake) if isinstance(fake, torch.Tensor) else ir.Shape([])
        typed.append(symbolic_result(scope.op, value, fake) if isinstance(fake, torch.SymInt) else value)
    return typed


def lower_cond(scope: Scope, node: torch.fx.Node) -> list[Any]:
    """``torch.cond`` as If."""
    predicate, true_module, false_module, operands = node.args[:4]
    assert isinstance(operands, list | tuple)
    condition = scope.op.scalar(scope.argument(predicate))
    branches = []
    for which in (true_module, false_module):
        inner = _new_body(scope, str(which))
        for result in _run_inside(scope, inner, _module(scope, which), scope.argument(operands), node):
            _body_output(inner, result)
        branches.append(inner.graph)
    fakes = node.meta["val"]
    made = scope.op.node("If", [condition], _outputs=len(fakes), then_branch=branches[0], else_branch=branches[1])
    return _results(scope, made, fakes)


def lower_while_loop(scope: Scope, node: torch.fx.Node) -> list[Any]:
    """``while_loop`` as Loop: the condition is computed once before it and at the end of every round."""
    goes_on, body, carried, extra = (*node.args[:3], node.args[3] if len(node.args) > 3 else ())
    start, outside = scope.argument(carried), scope.argument(extra)
    fakes = node.meta["val"]
    (first,) = _run_inside(scope, scope.op, _module(scope, goes_on), [*start, *outside], node)
    inner = _new_body(scope, str(body))
    for name, dtype in (("round", ir.DataType.INT64), ("goes_on", ir.DataType.BOOL)):
        inner.graph.inputs.append(ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([])))
    values = [_body_input(scope, inner, fake, f"carried_{place}") for place, fake in enumerate(fakes)]
    following = _run_inside(scope, inner, _module(scope, body), [*values, *outside], node)
    (again,) = _run_inside(scope, inner, _module(scope, goes_on), [*following, *outside], node)
    for result in (again, *following):
        _body_output(inner, result)
    initial = [value if isinstance(value, ir.Value) else scope.op.scalar(value) for value in start]
    made = scope.op.node("Loop", [None, scope.op.scalar(first), *initial], _outputs=len(fakes), body=inner.graph)
    return _results(scope, made, fakes)


def lower_scan(scope: Scope, node: torch.fx.Node) -> list[Any]:
    """``scan`` as Scan: the operands are cut along their first axis, the states handed from step to step."""
    combine, init, operands, extra = (*node.args[:3], node.args[3] if len(node.args) > 3 else ())
    module = _module(scope, combine)
    states, sequences, outside = scope.argument(init), scope.argument(operands), scope.argument(extra)
    placeholders = [item for item in module.graph.nodes if item.op == "placeholder"]
    inner = _new_body(scope, str(combine))
    values = [
        _body_input(scope, inner, item.meta["val"], f"step_{place}")
        for place, item in enumerate(placeholders[: len(states) + len(sequences)])
    ]
    for result in _run_inside(scope, inner, module, [*values, *outside], node):
        _body_output(inner, result)
    fakes = node.meta["val"]
    made = scope.op.node(
        "Scan", [*states, *sequences], _outputs=len(fakes), body=inner.graph, num_scan_inputs=len(sequences)
    )
    return _results(scope, made, fakes)


CONTROL_FLOW: dict[str, Callable[[Any, torch.fx.Node], list[Any]]] = {
    "cond": lower_cond,
    "while_loop": lower_while_loop,
    "scan": lower_scan,
}
