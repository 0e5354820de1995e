"""While capturing: what is asked of sizes and has one answer at every promised size, is answered by it.

torch proves such a thing by the ends of ranges, which tell little of a length that is padded to whole windows
(``n + (512 - n % 512) % 512`` is 512 for every n up to 512) or of two halves compared with each other.  What it cannot
prove it ties to the example, by a guard or by a number in place of a size.  Here the sizes are gone through.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree

from graphforge.call import CallInputs
from graphforge.spec import ShapeSpec

__all__ = ["Promised", "knowing_promises", "promised_sizes", "settled"]

# Combinations of sizes that are gone through, at most.
_MOST = 1 << 16
# Combinations of sizes that a part of the model is run at, at most.
_RUN = 32


class Promised:
    """What is promised of the symbols of a capture, by the dims that they stand for.

    Two symbols may stand for one dim: they are equal by the promise, which torch learns at the end only.
    """

    def __init__(self) -> None:
        self.dims: dict[Any, str] = {}
        self.ranges: dict[str, range] = {}
        self.answers: dict[Any, Any] = {}


@contextmanager
def knowing_promises(
    model: torch.nn.Module, inputs: CallInputs, shapes: ShapeSpec, promised: Promised
) -> Iterator[None]:
    """Inside, a call of the model with traced inputs tells which symbols stand for the promised dims."""
    if isinstance(model, torch.jit.ScriptModule) or not shapes.dims:
        yield
        return
    by_name = {spec.name: spec for spec in shapes.inputs}

    def look(_: Any, args: Any, kwargs: Any) -> None:
        leaves, tree = _pytree.tree_flatten((args, kwargs))
        if tree != inputs.tree:
            return
        for name, leaf in zip(inputs.leaf_names, leaves, strict=True):
            for axis, dim in by_name[name].dims.items() if isinstance(leaf, torch.Tensor) else ():
                size = leaf.shape[axis]
                free = list(size.node.expr.free_symbols) if isinstance(size, torch.SymInt) else []
                for symbol in free if len(free) == 1 else ():
                    sizes = range(-(-dim.low // dim.step) * dim.step, dim.high + 1, dim.step)
                    if size.node.expr != symbol:  # it stands for the size divided by its step
                        sizes = range(sizes.start // dim.step, dim.high // dim.step + 1)
                    promised.dims[symbol], promised.ranges[dim.name] = dim.name, sizes

    hook = model.register_forward_pre_hook(look, with_kwargs=True, prepend=True)
    try:
        yield
    finally:
        hook.remove()


def settled(promised: Promised, expression: Any, *, least: int = 0) -> Any:
    """The one value that an expression over sizes has at all of them, as sympy's; None where there is no such value.

    Args:
        promised: the sizes.
        expression: a condition or a number.
        least: smaller sizes are left out.  torch takes every size to be 2 or more, and verification runs 0 and 1.
    """
    import sympy

    if not promised.dims or not isinstance(expression, sympy.Basic) or not expression.has(sympy.Function):
        return None  # plain sums and products are what torch proves well
    symbols = sorted(expression.free_symbols, key=str)
    if not symbols or not all(symbol in promised.dims for symbol in symbols):
        return None
    key = expression, least
    if key not in promised.answers:
        promised.answers[key] = _one_value(expression, symbols, promised, least)
    return promised.answers[key]


def promised_sizes(promised: Promised) -> list[dict[Any, int]]:
    """Promised sizes by their symbols: all combinations where these are few, else of ends and middles."""
    ranges: dict[str, Sequence[int]] = {**promised.ranges}
    if math.prod(len(one) for one in promised.ranges.values()) > _RUN:
        ranges = {name: [*dict.fromkeys((one[0], one[len(one) // 2], one[-1]))] for name, one in ranges.items()}
    combinations = itertools.islice(itertools.product(*ranges.values()), _RUN)
    by_name = (dict(zip(ranges, sizes, strict=True)) for sizes in combinations)
    return [{symbol: sizes[name] for symbol, name in promised.dims.items()} for sizes in by_name]


def _one_value(expression: Any, symbols: Sequence[Any], promised: Promised, least: int) -> Any:
    import sympy

    names = list(dict.fromkeys(promised.dims[symbol] for symbol in symbols))
    ranges = [promised.ranges[name] for name in names]
    if np.prod([float(len(one)) for one in ranges]) > _MOST:
        return None
    listed = [np.arange(one.start, one.stop, one.step) for one in ranges]
    axes = np.meshgrid(*(one[one >= least] for one in listed), indexing="ij")
    sizes = {name: axis.ravel() for name, axis in zip(names, axes, strict=True)}
    at = {symbol: sizes[promised.dims[symbol]] for symbol in symbols}
    try:
        with np.errstate(all="raise"):
            values = np.unique(_values(expression, at))
    except Exception:  # a division by zero, or words that numpy has not
        return None
    if len(values) != 1 or values.dtype.kind not in "bi":
        return None
    return sympy.Integer(int(values[0])) if values.dtype.kind == "i" else sympy.sympify(bool(values[0]))


def _values(expression: Any, at: Mapping[Any, Any]) -> Any:
    """What an expression is where its symbols have these values."""
    import sympy

    if isinstance(expression, sympy.Not):
        return np.logical_not(_values(expression.args[0], at))
    if isinstance(expression, sympy.And | sympy.Or):
        joined = np.logical_and if isinstance(expression, sympy.And) else np.logical_or
        return functools.reduce(joined, [_values(part, at) for part in expression.args])
    symbols = sorted(expression.free_symbols, key=str)
    return np.asarray(_function(expression, symbols)(*(at[symbol] for symbol in symbols)))


class _Math:
    """What the printer takes from Python's ``math``, of arrays."""

    @staticmethod
    def floor(values: Any) -> Any:
        return np.floor(values).astype(np.int64)

    @staticmethod
    def ceil(values: Any) -> Any:
        return np.ceil(values).astype(np.int64)

    @staticmethod
    def trunc(values: Any) -> Any:
        return np.trunc(values).astype(np.int64)


def _function(expression: Any, symbols: Sequence[Any]) -> Callable[..., Any]:
    """An expression as a function of arrays of sizes."""
    from torch.utils._sympy.printers import PythonPrinter

    words = {
        "math": _Math,
        "min": lambda *parts: functools.reduce(np.minimum, parts),
        "max": lambda *parts: functools.reduce(np.maximum, parts),
        "__builtins__": {},
    }
    said: Callable[..., Any] = eval(
        f"lambda {', '.join(map(str, symbols))}: {PythonPrinter().doprint(expression)}", words
    )
    return said
