"""Conditions on sizes that a capture left to run time: are they true at every promised size?

torch.export refuses a dynamic dim when its solver cannot prove a condition it met on the way, such as
``2*(h//2) < 1 + h`` of a pooling that rounds up.  Asked to, it writes such conditions into the program as assertions
instead.  An artifact asserts nothing, so they are checked here, size by size, before the program is taken.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from graphforge.errors import CaptureError
from graphforge.frontend.captured import Captured
from graphforge.spec import DimRange

__all__ = ["check_promises"]

# Sizes of one dim, or combinations of several, up to which every single one is tried; beyond, a seeded choice.
_EVERY = 4096


def check_promises(captured: Captured) -> None:
    """Check the assertions on promised sizes in a captured program.

    Raises:
        CaptureError: one is false at a promised size; the notes name condition and sizes.
    """
    names = dict(captured.symbols)
    for node in captured.graph_module.graph.nodes:
        if str(node.target) != "aten._assert_scalar.default":
            continue
        condition = node.args[0].meta.get("val") if isinstance(node.args[0], torch.fx.Node) else None
        if not isinstance(condition, torch.SymBool):
            continue
        expression = condition.node.expr
        symbols = sorted(expression.free_symbols, key=str)
        if not symbols or not all(symbol in names for symbol in symbols):
            continue  # about sizes that depend on data: those are not promised
        _check(expression, symbols, [names[symbol] for symbol in symbols], captured.shapes.dims)


def _check(expression: Any, symbols: list[Any], names: list[str], dims: Mapping[str, DimRange]) -> None:
    from torch.utils._sympy.interp import sympy_interp
    from torch.utils._sympy.reference import PythonReferenceAnalysis

    ranges = [_values(name, dims) for name in names]
    for sizes in _combinations(ranges):
        if not sympy_interp(PythonReferenceAnalysis, dict(zip(symbols, sizes, strict=True)), expression):
            shown = ", ".join(f"{name} = {size}" for name, size in zip(names, sizes, strict=True))
            condition = str(expression)
            for symbol, name in zip(symbols, names, strict=True):
                condition = condition.replace(str(symbol), name)
            raise CaptureError(
                f"the model behaves otherwise at {shown} than at the example's sizes",
                f"the captured program holds where {condition}",
                "promise a range within which that is true, or compile the sizes apart",
            )


def _values(name: str, dims: Mapping[str, DimRange]) -> list[int]:
    """The promised values of a symbol: a dim, or a dim divided by its step."""
    if name in dims:
        return dims[name].sizes()
    base, _, _ = name.rpartition("_div")
    return [size // dims[base].step for size in dims[base].sizes()]


def _combinations(ranges: list[list[int]]) -> Iterator[tuple[int, ...]]:
    total = 1
    for values in ranges:
        total *= len(values)
    if total <= _EVERY:
        yield from itertools.product(*ranges)
        return
    yield from itertools.product(*((values[0], values[len(values) // 2], values[-1]) for values in ranges))
    draw = random.Random(0)
    for _ in range(_EVERY):
        yield tuple(draw.choice(values) for values in ranges)
