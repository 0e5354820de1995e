"""Values of a captured program that hang on weights, buffers and constants alone: the same at every call."""

from __future__ import annotations

import operator
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from graphforge.frontend.aliasing import is_mutation

__all__ = ["computed", "hanging_on"]

# Nodes that a value may hang on, at most.
_MOST_NODES = 200


def hanging_on(
    node: torch.fx.Node, tensor_of: Callable[[torch.fx.Node], torch.Tensor | None]
) -> dict[torch.fx.Node, torch.Tensor | None] | None:
    """What a node is computed from, in the order of the program, weights with their tensors.

    Args:
        node: whose value is asked for.
        tensor_of: the weight, buffer or constant that a placeholder or attribute stands for, None for an input.

    Returns:
        None where an input is among it, random numbers, or a write in place.
    """
    found: dict[torch.fx.Node, torch.Tensor | None] = {node: None}
    pending = [node]
    while pending:
        one = pending.pop()
        if one.op in ("placeholder", "get_attr"):
            found[one] = tensor_of(one)
            if found[one] is None:
                return None
        elif one.target is not operator.getitem and (
            not isinstance(one.target, torch._ops.OpOverload)
            or torch.Tag.nondeterministic_seeded in one.target.tags
            or is_mutation(one.target)
        ):
            return None
        for argument in one.all_input_nodes:
            if argument not in found:
                found[argument] = None
                pending.append(argument)
        if len(found) > _MOST_NODES:
            return None
    return {one: found[one] for one in node.graph.nodes if one in found}


def computed(
    node: torch.fx.Node,
    order: dict[torch.fx.Node, torch.Tensor | None],
    asked: Callable[[Any], Any] = lambda value: value,
) -> Any:
    """What is asked of the value of a node; None where an operator does not run apart.

    Args:
        node: whose value it is.
        order: as ``hanging_on`` returns it.
        asked: the question.
    """

    def compute() -> Any:
        values: dict[torch.fx.Node, Any] = {}
        with torch.no_grad():
            for one, tensor in order.items():
                if tensor is not None:
                    values[one] = tensor.detach().clone()
                    continue
                function: Any = one.target
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
