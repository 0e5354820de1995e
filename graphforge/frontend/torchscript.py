"""Run a TorchScript module operator by operator in Python, so that a trace sees sizes as symbols and not as numbers.

TorchScript's own interpreter reads sizes as plain integers, which ties a trace to the example's shape.  Here its
inlined graph is walked instead: tensor operators are called through ``torch.ops``, arithmetic on sizes through Python.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch

from graphforge.call import script_arguments
from graphforge.errors import GraphForgeError

__all__ = ["interpret"]


def interpret(module: torch.jit.ScriptModule) -> Callable[..., Any]:
    """A Python callable that computes what ``module.forward`` computes.

    Raises:
        GraphForgeError: (when called) the script uses something that has no counterpart here.
    """
    graph = module.inlined_graph
    names = [value.debugName() for value in graph.inputs()]
    arguments = script_arguments(module)
    parameters = [argument.name for argument in arguments]
    defaults = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = {**defaults, **dict(zip(parameters, args, strict=False)), **kwargs}
        values = {names[0]: module}
        for name, parameter in zip(names[1:], parameters, strict=True):
            if parameter not in bound:
                raise GraphForgeError(f"the script's input {parameter!r} was not given")
            values[name] = bound[parameter]
        results = _run(graph, values)
        return results[0] if len(results) == 1 else tuple(results)

    return call


def _run(block: Any, values: dict[str, Any]) -> list[Any]:
    for node in block.nodes():
        results = _execute(node, values)
        for output, result in zip(node.outputs(), results, strict=True):
            values[output.debugName()] = result
    return [values[value.debugName()] for value in block.outputs()] if hasattr(block, "outputs") else []


def _execute(node: Any, values: dict[str, Any]) -> Sequence[Any]:
    kind = node.kind()
    if kind == "prim::Constant":
        output = node.output()
        return [None if output.type().kind() == "NoneType" else output.toIValue()]
    arguments = [values[value.debugName()] for value in node.inputs()]
    if kind == "prim::GetAttr":
        return [getattr(arguments[0], node.s("name"))]
    if kind == "prim::SetAttr":
        raise GraphForgeError(
            f"the script writes to its attribute {node.s('name')!r}", "make the state an input and an output"
        )
    if kind == "prim::If":
        branch = list(node.blocks())[0 if arguments[0] else 1]
        return _run(branch, values)
    if kind == "prim::Loop":
        return _loop(node, arguments, values)
    if kind in _PRIMITIVES:
        return _PRIMITIVES[kind](arguments)
    namespace, _, name = kind.partition("::")
    if namespace == "prim":
        raise GraphForgeError(f"the script uses {kind}, which has no counterpart in a trace")
    result = _operator(namespace, name, node, arguments)
    return [result] if node.outputsSize() == 1 else list(result) if node.outputsSize() else []


def _loop(node: Any, arguments: list[Any], values: dict[str, Any]) -> list[Any]:
    trips, going, *carried = arguments
    body = next(iter(node.blocks()))
    names = [value.debugName() for value in body.inputs()]
    step = 0
    while step < trips and going:
        values.update(zip(names, [step, *carried], strict=True))
        going, *carried = _run(body, values)
        step += 1
    return carried


def _raise(arguments: list[Any]) -> Sequence[Any]:
    raise GraphForgeError(f"the script raises: {arguments[0]}")


_PRIMITIVES: dict[str, Callable[[list[Any]], Sequence[Any]]] = {
    "prim::ListConstruct": lambda a: [list(a)],
    "prim::TupleConstruct": lambda a: [tuple(a)],
    "prim::DictConstruct": lambda a: [dict(zip(a[::2], a[1::2], strict=True))],
    "prim::ListUnpack": lambda a: list(a[0]),
    "prim::TupleUnpack": lambda a: list(a[0]),
    "prim::TupleIndex": lambda a: [a[0][a[1]]],
    "prim::NumToTensor": lambda a: [a[0]],  # a size wrapped as a tensor stays a number: see _operator
    "prim::Uninitialized": lambda a: [None],
    "prim::unchecked_cast": lambda a: [a[0]],
    "prim::unchecked_unwrap_optional": lambda a: [a[0]],
    "prim::RaiseException": _raise,
    "prim::dtype": lambda a: [a[0].dtype],
    "prim::device": lambda a: [a[0].device],
    "prim::layout": lambda a: [a[0].layout],
    "prim::is_cuda": lambda a: [a[0].is_cuda],
    "prim::requires_grad": lambda a: [False],
    "prim::data": lambda a: [a[0]],
    "prim::min": lambda a: [min(*a) if len(a) > 1 else min(a[0])],
    "prim::max": lambda a: [max(*a) if len(a) > 1 else max(a[0])],
    "prim::Print": lambda a: [],
}


def _set_item(items: Any, key: Any, value: Any) -> Any:
    items[key] = value
    return items


def _append(items: list[Any], value: Any) -> list[Any]:
    items.append(value)
    return items


# Operators of TorchScript on numbers, strings and containers; with tensors among the operands they are ATen's.
_PYTHON: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "pow": operator.pow,
    "neg": operator.neg,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "__and__": operator.and_,
    "__or__": operator.or_,
    "__not__": operator.not_,
    "__is__": operator.is_,
    "__isnot__": operator.is_not,
    "__getitem__": operator.getitem,
    "__contains__": lambda items, key: key in items,
    "_set_item": _set_item,
    "append": _append,
    "len": len,
    "list": list,
    "keys": lambda mapping: list(mapping),
    "values": lambda mapping: list(mapping.values()),
    "Int": int,
    "Float": float,
    "Bool": bool,
    "str": str,
    "format": lambda text, *items: text.format(*items),
    "ceil": math.ceil,
    "floor": math.floor,
    "round": round,
    "sqrt": math.sqrt,
    "abs": abs,
    "warn": lambda *_: None,
}


def _operator(namespace: str, name: str, node: Any, arguments: list[Any]) -> Any:
    if any(isinstance(argument, int | torch.SymInt) for argument in arguments) and name in _PYTHON:
        # a traced module does arithmetic on sizes with constants that are tensors
        arguments = [a.item() if type(a) is torch.Tensor and a.dim() == 0 else a for a in arguments]
    tensors = any(isinstance(argument, torch.Tensor) for argument in arguments)
    if namespace == "aten" and name == "size":
        return list(arguments[0].shape) if len(arguments) == 1 else arguments[0].shape[arguments[1]]
    if namespace == "aten" and name in ("dim", "numel"):
        return getattr(arguments[0], name)()
    if namespace == "aten" and name in ("__is__", "__isnot__", "append", "len", "__getitem__", "_set_item"):
        return _PYTHON[name](*arguments)
    if (
        namespace == "aten"
        and name in ("Int", "Float", "Bool", "IntImplicit", "FloatImplicit", "ScalarImplicit")
        and tensors
    ):
        return arguments[0].item()
    if name in ("Int", "IntImplicit", "ScalarImplicit"):
        return arguments[0]
    if namespace == "aten" and name == "slice" and isinstance(arguments[0], list):
        return arguments[0][slice(*arguments[1:])]
    if namespace == "aten" and name in _PYTHON and not tensors:
        return _PYTHON[name](*arguments)
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if packet is None:
        raise GraphForgeError(f"the script calls {namespace}::{name}, which this torch does not have")
    schema = torch._C.parse_schema(node.schema())
    positional = [a for a, declared in zip(arguments, schema.arguments, strict=True) if not declared.kwarg_only]
    keywords = {d.name: a for a, d in zip(arguments, schema.arguments, strict=True) if d.kwarg_only}
    return getattr(packet, schema.overload_name or "default")(*positional, **keywords)
