"""Values of a captured program that hang on weights, buffers and constants alone: the same at every call.

So may be what hangs on sizes besides: a mask of ones in the size of the input.  It is computed at given sizes.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from graphforge.frontend.aliasing import NotInvertible, is_mutation, shared_argument, written_arguments
from graphforge.frontend.captured import Captured

__all__ = ["computed", "hanging_on", "written_weights"]

# Nodes that a value may hang on, at most.
_MOST_NODES = 200
# Elements of a value among them, at most, where sizes are tried.
_MOST_ELEMENTS = 1 << 22
# Operators that ask their first argument for its size alone.
_OF_SIZE = frozenset(
    "aten.zeros_like.default aten.ones_like.default aten.full_like.default aten.new_zeros.default "
    "aten.new_ones.default aten.new_full.default".split()
)


def hanging_on(
    node: torch.fx.Node,
    tensor_of: Callable[[torch.fx.Node], torch.Tensor | None],
    symbols: Collection[Any] = (),
) -> dict[torch.fx.Node, torch.Tensor | None] | None:
    """What a node is computed from, in the order of the program, weights with their tensors.

    Args:
        node: whose value is asked for.
        tensor_of: the weight, buffer or constant that a placeholder or attribute stands for, None for an input.
        symbols: those of sizes that it may hang on, too.

    Returns:
        None where an input is among it, random numbers, or a write to a weight.  Writes to what the program made
        itself, be it through a view, are a part of it.
    """
    writes = _writes(_before(node))
    found: dict[torch.fx.Node, torch.Tensor | None] = {node: None}
    pending = [node]
    while pending or (pending := _writing_to(found, writes)):
        one = pending.pop()
        if _is_size(one, symbols):
            continue
        if one.op in ("placeholder", "get_attr"):
            found[one] = tensor_of(one)
            if found[one] is None or one in writes:
                return None
        elif one.target is not operator.getitem and (
            not isinstance(one.target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded in one.target.tags
        ):
            return None
        for argument in _read(one):
            if argument not in found:
                pending.append(argument)
            found.setdefault(argument, None)
        if len(found) > _MOST_NODES:
            return None
    return {one: found[one] for one in node.graph.nodes if one in found}


def _is_size(node: torch.fx.Node, symbols: Collection[Any]) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.SymInt) and value.node.expr.free_symbols <= set(symbols)


def _read(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The nodes whose values, and not their sizes alone, a node is computed from."""
    of_size = node.args[0] if str(node.target) in _OF_SIZE else None
    others = (*node.args[1:], *node.kwargs.values()) if of_size is not None else ()
    return [one for one in node.all_input_nodes if one is not of_size or one in others]


def written_weights(captured: Captured) -> list[str]:
    """Names of the weights, buffers and constants that a program writes to."""
    owners = _writes(captured.graph_module.graph.nodes)
    names = {node: captured.weights.get(str(node.target) if node.op == "get_attr" else node.name) for node in owners}
    return [known[0] for known in names.values() if known is not None]


def _before(node: torch.fx.Node) -> Iterator[torch.fx.Node]:
    return itertools.takewhile(lambda one: one is not node, node.graph.nodes)


def _writes(nodes: Iterable[torch.fx.Node]) -> dict[torch.fx.Node, list[torch.fx.Node]]:
    """Owner of memory -> the calls among these that write to it, directly or through a view."""
    writes: dict[torch.fx.Node, list[torch.fx.Node]] = {}
    for one in nodes:
        if one.op != "call_function" or not is_mutation(one.target):
            continue
        for place in written_arguments(one.target)[0]:
            written = one.kwargs.get(place) if isinstance(place, str) else one.args[place]
            for given in written if isinstance(written, list | tuple) else [written]:
                if isinstance(given, torch.fx.Node):
                    writes.setdefault(_owner(given), []).append(one)
    return writes


def _writing_to(
    found: dict[torch.fx.Node, torch.Tensor | None], writes: dict[torch.fx.Node, list[torch.fx.Node]]
) -> list[torch.fx.Node]:
    """Calls that write to what is found, and are not found themselves; they are from now on."""
    owners = {_owner(one) for one in found} if writes else ()
    more = [call for owner in owners for call in writes.get(owner, ()) if call not in found]
    found |= dict.fromkeys(more)
    return list(dict.fromkeys(more))


def _owner(node: torch.fx.Node) -> torch.fx.Node:
    """The node that made the memory in which a node's value lies."""
    while True:
        fake = node.meta.get("val")
        call: Any = node.args[0] if node.target is operator.getitem else node
        if call.op != "call_function":
            return call  # type: ignore[no-any-return]
        try:
            argument = shared_argument(call, fake)
        except NotInvertible:  # sizes depend on data
            argument = next(iter(call.all_input_nodes), None)
        if argument is None:
            return call  # type: ignore[no-any-return]
        node = argument


def computed(
    node: torch.fx.Node,
    order: dict[torch.fx.Node, torch.Tensor | None],
    asked: Callable[[Any], Any] = lambda value: value,
    at: Mapping[Any, int] | None = None,
) -> Any:
    """What is asked of the value of a node; None where an operator does not run apart, or a value is very large.

    Args:
        node: whose value it is.
        order: as ``hanging_on`` returns it.
        asked: the question.
        at: the symbols of sizes with these.
    """

    def sized(fake: Any) -> Any:
        """What a value of the capture is at these sizes: a number, or a tensor of which only the size counts."""
        if isinstance(fake, torch.Tensor):
            return torch.empty([sized(size) for size in fake.shape], dtype=fake.dtype)
        return int(fake.node.expr.xreplace(dict(at or {}))) if isinstance(fake, torch.SymInt) else fake

    def compute() -> Any:
        values: dict[torch.fx.Node, Any] = {}
        with torch.no_grad():
            for one, tensor in order.items():
                if tensor is not None:
                    values[one] = tensor.detach().clone()
                    continue
                fake = one.meta.get("val")
                if at and _is_size(one, at):
                    values[one] = sized(fake)
                    continue
                if at and isinstance(fake, torch.Tensor) and math.prod(map(sized, fake.shape)) > _MOST_ELEMENTS:
                    return None
                function: Any = one.target
                if str(function) in _OF_SIZE:
                    like: Any = one.args[0]
                    values.setdefault(like, sized(like.meta["val"]))
                args: Any = torch.fx.node.map_arg(one.args, lambda n: values[n])
                kwargs: Any = torch.fx.node.map_arg(one.kwargs, lambda n: values[n])
                values[one] = function(*args, **kwargs)
        return asked(values[node])

    with ThreadPoolExecutor(1) as elsewhere:  # a thread has no modes of the capture in force
        try:
            return elsewhere.submit(compute).result()
        except MemoryError:
            raise
        except Exception:  # whatever operators raise: the question stays open
            return None
