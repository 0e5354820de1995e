"""While capturing: functions of ``math`` of a size that varies (``math.log(x.shape[1])``) stay symbols.

Python's own take such a size for the number that it is in the example.  They are written in the functions that torch
has for symbols: logarithms by that to the base 2, powers by ``**``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from graphforge.frontend.references import imported_as

__all__ = ["math_of_sizes"]

_SYMBOLIC: Any = torch
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log2": lambda x: _log2(x),
    "log": lambda x, base=math.e: _log2(x) / _log2(base),
    "log10": lambda x: _log2(x) * math.log10(2),
    "log1p": lambda x: _log2(1 + x) * math.log(2),
    "exp": lambda x: math.e ** torch.sym_float(x),
    "pow": lambda x, y: torch.sym_float(x) ** torch.sym_float(y),
    **{
        name: lambda x, name=name: getattr(_SYMBOLIC, f"_sym_{name}")(torch.sym_float(x))
        for name in ("sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin", "acos", "atan")
    },
}


def _log2(x: Any) -> Any:
    return _SYMBOLIC._sym_log2(torch.sym_float(x)) if _is_symbol(x) else math.log2(x)


def _is_symbol(value: Any) -> bool:
    return isinstance(value, torch.SymInt | torch.SymFloat)


class _OfSymbolsType(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return str(getattr(instance, "__name__", "")).startswith("_sym_") and hasattr(torch, instance.__name__)


class _OfSymbols(metaclass=_OfSymbolsType):
    """What torch's functions of symbols are instances of, where its check of an exported program asks."""


@contextmanager
def math_of_sizes() -> Iterator[None]:
    """In force while the context lasts, wherever these functions are held by a name."""

    def symbolic(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def function(*args: Any) -> Any:
            return _FUNCTIONS[name](*args) if any(map(_is_symbol, args)) else plain(*args)

        return function

    from torch._export.verifier import Verifier

    functions = [(math, name, getattr(math, name), symbolic(name, getattr(math, name))) for name in _FUNCTIONS]
    exchanged = [*functions, *imported_as(functions)]
    verifier: Any = Verifier
    allowed = verifier.allowed_op_types
    verifier.allowed_op_types = lambda self: (*allowed(self), _OfSymbols)
    for owner, name, _, after in exchanged:
        setattr(owner, name, after)
    try:
        yield
    finally:
        verifier.allowed_op_types = allowed
        for owner, name, before, _ in exchanged:
            setattr(owner, name, before)
