"""Decompose one operator that we have no rule for, that node alone, by torch's own decomposition."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree

from graphforge.errors import LoweringError
from graphforge.frontend.rules import lowering_for

__all__ = ["decompose_call"]


@functools.cache
def _table() -> dict[Any, Any]:
    """Every decomposition torch knows, without those of operators that we lower ourselves."""
    from torch._decomp import decomposition_table

    return {target: function for target, function in decomposition_table.items() if lowering_for(str(target)) is None}


@functools.cache
def _table_over_pairs() -> dict[Any, Any]:
    """The same for complex numbers: operators with a rule for reals only are decomposed where they meet one."""
    from torch._decomp import decomposition_table

    from graphforge.frontend.complex.parts import works_by_parts
    from graphforge.frontend.complex.registry import pair_lowering_for

    def where_complex(function: Any) -> Any:
        @functools.wraps(function)
        def decomposed(*args: Any, **kwargs: Any) -> Any:
            leaves = _pytree.tree_leaves((args, kwargs))
            met = any(isinstance(leaf, torch.Tensor) and leaf.is_complex() for leaf in leaves)
            return function(*args, **kwargs) if met else NotImplemented

        return decomposed

    table: dict[Any, Any] = {}
    for target, function in decomposition_table.items():
        name = str(target)
        if pair_lowering_for(name) is None and not works_by_parts(name):
            table[target] = function if lowering_for(name) is None else where_complex(function)
    return table


def decompose_call(
    node: torch.fx.Node, target: torch._ops.OpOverload, *, over_pairs: bool = False
) -> tuple[torch.fx.GraphModule, list[torch.fx.Node]] | None:
    """The operator's decomposition as a small graph, and the FX arguments to feed its placeholders.

    Args:
        node: the call.
        target: the operator to decompose: the node's own, or its functional twin.
        over_pairs: whether it takes or returns complex numbers.

    None when torch has no decomposition for it.

    Raises:
        LoweringError: the decomposition fails on these arguments.
    """
    composite = target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    table = _table_over_pairs() if over_pairs else _table()
    if target not in table and not composite:
        return None
    flat, spec = _pytree.tree_flatten((node.args, node.kwargs))
    fed = [leaf for leaf in flat if isinstance(leaf, torch.fx.Node)]
    fakes = [leaf.meta["val"] for leaf in fed]

    def call(*values: Any) -> Any:
        following = iter(values)
        leaves = [next(following) if isinstance(leaf, torch.fx.Node) else leaf for leaf in flat]
        args, kwargs = _pytree.tree_unflatten(leaves, spec)
        return target(*args, **kwargs)

    mode = next((fake.fake_mode for fake in fakes if isinstance(fake, FakeTensor)), None) or FakeTensorMode()
    with torch.no_grad(), mode:
        try:
            module = make_fx(call, decomposition_table=table, _allow_non_fake_inputs=True)(*fakes)
        except Exception as error:  # decompositions are Python code that may want values where there are none
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise LoweringError(
                f"{target}: no lowering", f"torch's decomposition of it fails: {type(error).__name__}: {reason}"
            ) from None
    if any(item.target is target for item in module.graph.nodes):
        return None
    return module, fed
