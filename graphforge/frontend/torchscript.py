"""Run a TorchScript module operator by operator in Python, so that a trace sees sizes as symbols and not as numbers.

TorchScript's own interpreter reads sizes as plain integers, which ties a trace to the example's shape.  Here its
inlined graph is walked instead: tensor operators are called through ``torch.ops``, arithmetic on sizes through Python.

A number that depends on data is a tensor of rank 0 here.  An ``if`` over one runs both branches and chooses between
what they give; a loop whose end hangs on one becomes torch's ``while_loop``, and one of a few rounds that may break off
is unrolled with what it carries held still from there on.  A loop over a dynamic size that appends to lists becomes
torch's ``scan``, and its lists the stacks of what was appended.

The same is done with scripts inside a model that is none: its scripted parts, their methods, scripted functions.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch.utils import _pytree

from graphforge.call import script_arguments
from graphforge.errors import GraphForgeError
from graphforge.frontend.traceable import is_traced

__all__ = ["interpret", "interpreted_scripts"]


# What the inputs of the script at work were made by; tensors of sizes that are symbols must be made by it as well.
_fake_mode: ContextVar[Any] = ContextVar("fake_mode", default=None)


def interpret(script: Any) -> Callable[..., Any]:
    """A Python callable that computes what a script does: a module by its forward, a method of one, or a function.

    Raises:
        GraphForgeError: (when called) the script uses something that has no counterpart here.
    """
    graph = script.inlined_graph
    names = [value.debugName() for value in graph.inputs()]
    arguments, owner = _signature(script)
    own = dict(zip(names, owner, strict=False))
    parameters = [argument.name for argument in arguments]
    defaults = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = {**defaults, **dict(zip(parameters, args, strict=False)), **kwargs}
        values = dict(own)
        for name, parameter in zip(names[len(own) :], parameters, strict=True):
            if parameter not in bound:
                raise GraphForgeError(f"the script's input {parameter!r} was not given")
            values[name] = bound[parameter]
        given = _fake_mode.set(_mode_of([*args, *kwargs.values()]))
        try:
            results = _run(graph, values)
        finally:
            _fake_mode.reset(given)
        return results[0] if len(results) == 1 else tuple(results)

    return call


def _signature(script: Any) -> tuple[list[Any], list[Any]]:
    """The declared arguments of a script without self, and what self is, where it has one."""
    if isinstance(script, torch.jit.ScriptModule):
        return script_arguments(script), [script]
    arguments, owner = list(script.schema.arguments), getattr(script, "raw_owner", None)
    return (arguments, []) if owner is None else (arguments[1:], [owner])


@contextmanager
def interpreted_scripts() -> Iterator[None]:
    """Walk over scripts that are called with traced tensors while the context lasts."""
    kinds: list[Any] = [torch.jit.ScriptModule, torch._C.ScriptMethod, torch._C.ScriptFunction]
    own = [vars(kind).get("__call__") for kind in kinds]
    for kind in kinds:
        kind.__call__ = _walking(kind.__call__)
    try:
        yield
    finally:
        for kind, call in zip(kinds, own, strict=True):
            if call is None:
                del kind.__call__
            else:
                kind.__call__ = call


def _walking(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(script: Any, *args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(leaf, torch.Tensor) and is_traced(leaf) for leaf in _pytree.tree_leaves((args, kwargs))):
            return original(script, *args, **kwargs)
        try:
            return interpret(script)(*args, **kwargs)
        except GraphForgeError:  # at fixed sizes torch's own interpreter does as well
            return original(script, *args, **kwargs)

    return call


def _mode_of(values: Sequence[Any]) -> Any:
    from torch._subclasses.fake_tensor import FakeTensor

    return next((leaf.fake_mode for leaf in _pytree.tree_leaves(values) if isinstance(leaf, FakeTensor)), None)


def _made(function: Callable[..., Any], *positional: Any, **keywords: Any) -> Any:
    """A call that may make a tensor of nothing but numbers, some of them symbols."""
    leaves = _pytree.tree_leaves((positional, keywords))
    anew = any(isinstance(leaf, torch.SymInt | torch.SymFloat) for leaf in leaves)
    anew = anew and not any(isinstance(leaf, torch.Tensor) for leaf in leaves)
    with (anew and _fake_mode.get()) or nullcontext():
        return function(*positional, **keywords)


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
        if node.output().debugName() in values:  # a weight that was handed into a loop
            return [values[node.output().debugName()]]
        return [getattr(arguments[0], node.s("name"))]
    if kind == "prim::SetAttr":
        raise GraphForgeError(
            f"the script writes to its attribute {node.s('name')!r}", "make the state an input and an output"
        )
    if kind == "prim::If":
        branches = list(node.blocks())
        if isinstance(arguments[0], torch.Tensor):
            return _either(arguments[0], branches, values)
        return _run(branches[0 if arguments[0] else 1], values)
    if kind == "prim::Loop":
        return _loop(node, arguments, values)
    if kind in _PRIMITIVES:
        return _PRIMITIVES[kind](arguments)
    namespace, _, name = kind.partition("::")
    if namespace == "prim":
        raise GraphForgeError(f"the script uses {kind}, which has no counterpart in a trace")
    result = _operator(namespace, name, node, arguments)
    return [result] if node.outputsSize() == 1 else list(result) if node.outputsSize() else []


# -- control flow over values ---


class _Raised(GraphForgeError):
    """The script raises where it is."""


def _either(condition: torch.Tensor, branches: Sequence[Any], values: dict[str, Any]) -> list[Any]:
    """Both branches, and of each result the one that the condition chooses."""
    results: list[list[Any]] = []
    for branch in branches:
        _see_that_nothing_is_changed(branch)
        try:
            results.append(_run(branch, dict(values)))
        except _Raised:
            continue  # an assertion about data: an artifact makes none
    if not results:
        raise _Raised("the script raises in both branches of an if")
    if len(results) == 1:
        return results[0]
    return [_chosen(condition, one, other) for one, other in zip(*results, strict=True)]


def _chosen(condition: torch.Tensor, one: Any, other: Any) -> Any:
    if one is other:
        return one
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return type(one)(_chosen(condition, *pair) for pair in zip(one, other, strict=True))
    if not _is_number_or_tensor(one) or not _is_number_or_tensor(other):
        if type(one) is type(other) and one == other:
            return one
        raise GraphForgeError(
            f"the branches of an if over data give a {type(one).__name__} and a {type(other).__name__}",
            "both must give tensors of one shape, or numbers",
        )
    first, second = _as_tensor(one, condition), _as_tensor(other, condition)
    if first.dim() and second.dim() and tuple(first.shape) != tuple(second.shape):
        raise GraphForgeError(
            f"the branches of an if over data give tensors of {list(first.shape)} and of {list(second.shape)}",
            "both must give tensors of one shape, or numbers",
        )
    return torch.where(condition.reshape(()).bool(), first, second)


def _see_that_nothing_is_changed(block: Any) -> None:
    """What is appended or written in a branch would be so in either case.

    Raises:
        GraphForgeError: there is such a thing.
    """
    for node in block.nodes():
        name = node.kind().rpartition("::")[2]
        if name in ("append", "_set_item", "SetAttr", "insert", "extend", "pop", "clear") or (
            name.endswith("_") and not name.startswith("_")
        ):
            raise GraphForgeError(
                f"the script changes something inside an if or a loop over data ({node.kind()})",
                "let the branch give a new value instead",
            )
        for inner in node.blocks():
            _see_that_nothing_is_changed(inner)


def _is_number_or_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor | int | float | bool | torch.SymInt | torch.SymFloat)


def _as_tensor(value: Any, like: torch.Tensor | None = None) -> torch.Tensor:
    """A number as a tensor; ``like`` is one of the program's, without which a symbol would be read as a number."""
    if isinstance(value, torch.Tensor):
        return value
    dtype = torch.bool if isinstance(value, bool) else torch.int64
    if isinstance(value, float | torch.SymFloat):
        dtype = torch.float64
    if like is not None and isinstance(value, torch.SymInt | torch.SymFloat):
        number: Any = value
        return like.new_full((), number, dtype=dtype)
    return torch.scalar_tensor(value, dtype=dtype)


# Rounds up to which a loop that may break off is unrolled.
_MOST_ROUNDS = 256


def _loop(node: Any, arguments: list[Any], values: dict[str, Any]) -> list[Any]:
    trips, going, *carried = arguments
    body = next(iter(node.blocks()))
    names = [value.debugName() for value in body.inputs()]
    appended = _appended(body, values) if isinstance(trips, torch.SymInt) else {}
    if appended and going is True and all(_is_number_or_tensor(one) for one in carried):
        try:
            return _collecting(body, names, trips, carried, values, appended)
        except _NoLoop:
            pass  # unrolled
    if isinstance(trips, torch.Tensor | torch.SymInt) and all(_is_number_or_tensor(one) for one in carried):
        try:
            return _while(body, names, (0, trips, going), carried, values)
        except _NoLoop:
            if isinstance(trips, torch.Tensor):
                raise
            # unrolled, which holds for the lengths that its guards admit
    step, alive = 0, going
    while step < trips:
        if not isinstance(alive, torch.Tensor):
            if not alive:
                break
            values.update(zip(names, [step, *carried], strict=True))
            alive, *carried = _run(body, values)
        elif isinstance(trips, int) and trips > _MOST_ROUNDS:
            return _while(body, names, (step, trips, alive), carried, values)
        else:
            _see_that_nothing_is_changed(body)
            going, *after = _run(body, {**values, **dict(zip(names, [step, *carried], strict=True))})
            carried = [_chosen(alive, new, old) for new, old in zip(after, carried, strict=True)]
            alive = alive.reshape(()).bool() & _as_tensor(going).reshape(())
        step += 1
    return carried


class _NoLoop(GraphForgeError):
    """A loop that cannot be one of torch's."""


def _while(
    body: Any, names: list[str], rounds: tuple[Any, Any, Any], carried: list[Any], values: dict[str, Any]
) -> list[Any]:
    """torch's while_loop over the number of the round, whether it goes on, and what the loop carries.

    ``rounds`` are the number of the first round, the limit, and whether it goes on at all.
    """
    from torch._higher_order_ops.while_loop import while_loop_op

    first, trips, going = rounds
    try:
        _see_that_nothing_is_changed(body)
    except GraphForgeError as error:
        raise _NoLoop(error.message, *error.notes) from None
    known = {**values, **_attributes(body, values)}  # torch takes weights into a loop as operands only
    wanted = [*_outer_names(body, set(names)), *_attributes(body, values)]
    outer = {name: known[name] for name in dict.fromkeys(wanted) if isinstance(known.get(name), torch.Tensor)}
    known = {name: value for name, value in known.items() if name not in outer}
    like = next((value for value in values.values() if isinstance(value, torch.Tensor) and _is_of_data(value)), None)
    limit = _as_tensor(trips, like)
    start = [torch.full((), first, dtype=torch.int64), _as_tensor(going).reshape(()).bool().clone()]
    start += [_as_tensor(value, like).clone() for value in carried]
    dtypes = [one.dtype for one in start]
    extra = (limit, *outer.values())

    def goes_on(step: torch.Tensor, alive: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return torch.logical_and(step < rest[len(carried)], alive)

    def once(step: torch.Tensor, alive: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        held, (_, *others) = rest[: len(carried)], rest[len(carried) :]
        inner = {**known, **dict(zip(outer, others, strict=True)), **dict(zip(names, [step, *held], strict=True))}
        results = [_as_tensor(value) for value in _run(body, inner)]
        following = [step + 1, results[0].reshape(()).bool(), *results[1:]]
        return tuple(one.to(dtype).clone() for one, dtype in zip(following, dtypes, strict=True))

    try:
        operands: Any = tuple(start)  # torch's annotations know one operand
        made = while_loop_op(goes_on, once, operands, extra)
    except (GraphForgeError, MemoryError):
        raise
    except Exception as error:  # torch's own refusals: shapes that change, most of all
        raise _NoLoop(
            f"the script's loop over data cannot be expressed: {str(error).splitlines()[0] if str(error) else error!r}",
            "what a round gives must have the shape and dtype that it was given",
        ) from None
    return list(made[2:])


class _Collected:
    """A list of a dynamic length, stacked: what the rounds of a loop appended, or the rows of a tensor."""

    def __init__(self, stacked: torch.Tensor) -> None:
        self.stacked = stacked

    def joined(self, dim: int) -> torch.Tensor:
        """``torch.cat`` of the list."""
        axis = dim % (self.stacked.dim() - 1)
        return self.stacked.movedim(0, axis).flatten(axis, axis + 1)

    def in_stack(self, dim: int) -> torch.Tensor:
        """``torch.stack`` of the list."""
        return self.stacked.movedim(0, dim)


# What is handed into a loop, and not read from outside.
_OPERANDS = (torch.Tensor, _Collected)


def _appended(body: Any, values: dict[str, Any]) -> dict[str, str]:
    """Empty lists of outside that every round appends to once, and reads nowhere: name -> what is appended."""
    found: dict[str, str] = {}
    for node in body.nodes():
        if node.kind() == "aten::append":
            items, item = (value.debugName() for value in node.inputs())
            if values.get(items) != [] or items in found:
                return {}
            found[items] = item
    read = [name for node in body.nodes() if node.kind() != "aten::append" for name in _read_by(node)]
    return {} if any(name in found for name in read) else found


def _read_by(node: Any) -> list[str]:
    inner = [name for block in node.blocks() for name in _outer_names(block, set())]
    return [value.debugName() for value in node.inputs()] + inner


def _collecting(
    body: Any, names: list[str], trips: Any, carried: list[Any], values: dict[str, Any], appended: dict[str, str]
) -> list[Any]:
    """torch's scan over the numbers of the rounds; the lists become what the rounds appended."""
    from torch._higher_order_ops.scan import scan_op

    nodes = [node for node in body.nodes() if node.kind() != "aten::append"]
    for node in nodes:
        for inner in node.blocks():
            _see_that_nothing_is_changed(inner)
    known = {**values, **_attributes(body, values)}
    wanted = [*_outer_names(body, set(names)), *_attributes(body, values)]
    outer = {name: known[name] for name in dict.fromkeys(wanted) if isinstance(known.get(name), _OPERANDS)}
    known = {name: value for name, value in known.items() if name not in outer}
    operands = tuple(value.stacked if isinstance(value, _Collected) else value for value in outer.values())
    like = next((value for value in values.values() if isinstance(value, torch.Tensor) and _is_of_data(value)), None)
    start = [_as_tensor(value, like).clone() for value in carried] or [torch.zeros((), dtype=torch.int64)]
    dtypes = [one.dtype for one in start]

    def once(*taken: torch.Tensor) -> list[torch.Tensor]:
        states, step, rest = taken[: len(start)], taken[len(start)], taken[len(start) + 1 :]
        held = states if carried else ()
        given = {
            name: _Collected(one) if isinstance(outer[name], _Collected) else one
            for name, one in zip(outer, rest, strict=True)
        }
        inner = {**known, **given, **dict(zip(names, [step, *held], strict=True))}
        for node in nodes:
            inner.update(zip([one.debugName() for one in node.outputs()], _execute(node, inner), strict=True))
        alive, *after = (inner[value.debugName()] for value in body.outputs())
        if alive is not True:
            raise _NoLoop("the script's loop may break off")
        new = [_as_tensor(one).to(dtype).clone() for one, dtype in zip(after, dtypes, strict=False)]
        return [*(new or [states[0].clone()]), *(_as_tensor(inner[item]).clone() for item in appended.values())]

    rounds = _made(torch.arange, trips)
    try:
        made = list(scan_op(once, start, [rounds], operands))
    except (GraphForgeError, MemoryError):
        raise
    except Exception as error:  # torch's own refusals: shapes that change, most of all
        raise _NoLoop(f"the script's loop cannot be expressed: {str(error) or error!r}") from None
    for name, stacked in zip(appended, made[len(start) :], strict=True):
        gathered, empty = _Collected(stacked), values[name]
        values.update({other: gathered for other, value in values.items() if value is empty})
    return made[: len(start)] if carried else []


def _attributes(block: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The attributes of modules that a block reads, by the names of its values."""
    found: dict[str, Any] = {}
    for node in block.nodes():
        if node.kind() == "prim::GetAttr":
            owner = node.input().debugName()
            found[node.output().debugName()] = getattr({**values, **found}[owner], node.s("name"))
        for inner in node.blocks():
            found |= _attributes(inner, {**values, **found})
    return found


def _outer_names(block: Any, inside: set[str]) -> list[str]:
    """The values of outside that a block reads."""
    read: dict[str, None] = {}
    for node in block.nodes():
        for value in node.inputs():
            if value.debugName() not in inside:
                read[value.debugName()] = None
        for inner in node.blocks():
            read |= dict.fromkeys(_outer_names(inner, inside | {value.debugName() for value in inner.inputs()}))
        inside |= {value.debugName() for value in node.outputs()}
    for value in block.outputs():
        if value.debugName() not in inside:
            read[value.debugName()] = None
    return list(read)


def _raise(arguments: list[Any]) -> Sequence[Any]:
    raise _Raised(f"the script raises: {arguments[0]}")


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
    "prim::min": lambda a: [_extreme(min, torch.minimum, a)],
    "prim::max": lambda a: [_extreme(max, torch.maximum, a)],
    "prim::Print": lambda a: [],
}


def _extreme(plain: Callable[..., Any], of_tensors: Callable[..., Any], arguments: list[Any]) -> Any:
    many = arguments if len(arguments) > 1 else arguments[0]
    if not any(isinstance(one, torch.Tensor) for one in many):
        return plain(many)
    result = many[0]
    for one in many[1:]:
        result = of_tensors(_as_tensor(result), _as_tensor(one))
    return result


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


def _on_collected(name: str, items: _Collected, rest: list[Any]) -> Any:
    if name in ("stack", "cat", "concat"):
        dim = rest[0] if rest else 0
        return items.in_stack(dim) if name == "stack" else items.joined(dim)
    if name == "len":
        return items.stacked.shape[0]
    if name == "__getitem__" and isinstance(rest[0], torch.Tensor):
        return items.stacked.index_select(0, rest[0].reshape(1)).squeeze(0)
    if name == "__getitem__":
        return items.stacked[rest[0]]
    raise GraphForgeError(f"the script calls {name} on a list of a dynamic length", "torch.stack or torch.cat it")


def _operator(namespace: str, name: str, node: Any, arguments: list[Any]) -> Any:
    if arguments and isinstance(arguments[0], _Collected):
        return _on_collected(name, arguments[0], arguments[1:])
    if any(isinstance(argument, int | torch.SymInt) for argument in arguments) and name in _PYTHON:
        # a traced module does arithmetic on sizes with constants that are tensors
        arguments = [
            a.item() if type(a) is torch.Tensor and a.dim() == 0 and not _is_of_data(a) else a for a in arguments
        ]
    tensors = any(isinstance(argument, torch.Tensor) for argument in arguments)
    if namespace == "aten" and name == "size":
        return list(arguments[0].shape) if len(arguments) == 1 else arguments[0].shape[arguments[1]]
    if namespace == "aten" and name in ("dim", "numel"):
        return getattr(arguments[0], name)()
    if name == "len" and tensors:
        return arguments[0].shape[0]
    if name == "unbind" and isinstance(arguments[0].shape[arguments[1]], torch.SymInt):
        return _Collected(arguments[0].movedim(arguments[1], 0))
    if namespace == "aten" and name in ("__is__", "__isnot__", "append", "len", "__getitem__", "_set_item"):
        return _PYTHON[name](*arguments)
    if namespace == "aten" and name in _NUMBERS and tensors:
        return _number(arguments[0], _NUMBERS[name])
    if name in ("Int", "IntImplicit", "ScalarImplicit"):
        return arguments[0]
    if namespace == "aten" and name == "slice" and isinstance(arguments[0], list):
        return arguments[0][slice(*arguments[1:])]
    if namespace == "aten" and name in _PYTHON and not tensors:
        return _PYTHON[name](*arguments)
    schema = torch._C.parse_schema(node.schema())
    if (
        tensors
        and namespace == "aten"
        and name in _PYTHON
        and not any("Tensor" in str(a.type) for a in schema.arguments)
    ):
        return _ON_NUMBERS.get(name, _PYTHON[name])(*arguments)  # numbers that depend on data
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if packet is None:
        raise GraphForgeError(f"the script calls {namespace}::{name}, which this torch does not have")
    if any(_is_number_of_data(a, declared) for a, declared in zip(arguments, schema.arguments, strict=True)):
        return _on_data(packet, schema, name, arguments)
    positional = [a for a, declared in zip(arguments, schema.arguments, strict=True) if not declared.kwarg_only]
    keywords = {d.name: a for a, d in zip(arguments, schema.arguments, strict=True) if d.kwarg_only}
    return _made(getattr(packet, schema.overload_name or "default"), *positional, **keywords)


# What makes a number of a tensor, and the dtype that Python's number has.
_NUMBERS = {
    "Int": torch.int64,
    "Float": torch.float64,
    "Bool": torch.bool,
    "IntImplicit": torch.int64,
    "FloatImplicit": torch.float64,
    "ScalarImplicit": None,
    "item": None,
}
# Operators on numbers that Python would ask for their value.
_ON_NUMBERS: dict[str, Callable[..., Any]] = {
    "__not__": torch.logical_not,
    "ceil": lambda value: torch.ceil(value).long(),
    "floor": lambda value: torch.floor(value).long(),
    "round": torch.round,
    "sqrt": lambda value: torch.sqrt(value.double()),
    "div": lambda one, other: _as_tensor(one).double() / other,
    "floordiv": lambda one, other: torch.floor_divide(_as_tensor(one), _as_tensor(other)),
    "Float": lambda value: value.double(),
    "Int": lambda value: value.long(),
    "Bool": lambda value: value.bool(),
}


def _number(value: torch.Tensor, dtype: torch.dtype | None) -> Any:
    """A tensor's one element as a number: itself where it depends on data, which Python must not ask for."""
    if not _is_of_data(value):
        return value.item()
    if dtype is None:
        dtype = torch.float64 if value.is_floating_point() else torch.bool if value.dtype is torch.bool else torch.int64
    return value.reshape(()).to(dtype)


def _is_of_data(value: torch.Tensor) -> bool:
    """Whether a tensor is computed in the program, and no constant of the script."""
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot

    mode = get_proxy_mode()
    return isinstance(value, FakeTensor) or (mode is not None and get_proxy_slot(value, mode.tracer, None) is not None)


def _is_number_of_data(value: Any, declared: Any) -> bool:
    """Whether a number that depends on data, or a list with one, stands where the schema has numbers."""
    if "Tensor" in str(declared.type):
        return False
    many = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(one, torch.Tensor) for one in many)


def _on_data(packet: Any, schema: Any, name: str, arguments: list[Any]) -> Any:
    """An operator whose numbers depend on data: in its form with tensors, or with a symbol for each of them."""
    named = {declared.name: value for declared, value in zip(schema.arguments, arguments, strict=True)}
    if name == "select":
        index = named["index"].reshape(1)
        return named["self"].index_select(named["dim"], index).squeeze(named["dim"])
    of_data = [declared for declared in schema.arguments if _is_number_of_data(named[declared.name], declared)]
    if all(str(declared.type) in ("number", "Scalar") for declared in of_data):
        plain = [declared for declared in schema.arguments if not declared.kwarg_only]
        while (
            plain[-1].has_default_value()
            and plain[-1] not in of_data
            and (named[plain[-1].name] == plain[-1].default_value)
        ):
            plain.pop()  # `alpha` stands elsewhere in the form with tensors
        positional = [named[declared.name] for declared in plain]
        keywords = {declared.name: named[declared.name] for declared in schema.arguments if declared.kwarg_only}
        try:
            return packet(*positional, **{key: value for key, value in keywords.items() if value is not None})
        except (TypeError, RuntimeError):
            pass  # it has none
    named |= {declared.name: _asked(named[declared.name]) for declared in of_data}
    positional = [named[declared.name] for declared in schema.arguments if not declared.kwarg_only]
    keywords = {declared.name: named[declared.name] for declared in schema.arguments if declared.kwarg_only}
    return getattr(packet, schema.overload_name or "default")(*positional, **keywords)


def _asked(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_asked(one) for one in value]
    return value.item() if isinstance(value, torch.Tensor) else value
