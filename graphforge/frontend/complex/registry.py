"""The table of rules for complex numbers: ATen operator name -> the function that lowers it over pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from graphforge.errors import InternalError
from graphforge.frontend.rules import lowering_for

__all__ = ["lowers_pairs", "pair_lowering_for"]

_Rule = TypeVar("_Rule", bound=Callable[..., Any])
_TABLE: dict[str, Callable[..., Any]] = {}


def lowers_pairs(*targets: str) -> Callable[[_Rule], _Rule]:
    """Declare that a function lowers these operators wherever an argument or the result is complex.

    It receives the ``Emitter`` and the operator's arguments: a ``Pair`` for a complex tensor, ``ir.Value`` for a real
    one, Python values for the rest.  It returns pairs where the operator's result is complex, values where it is real,
    and ``NotImplemented`` for a form that torch's decomposition is to take.

    Raises:
        InternalError: an operator is declared twice.
    """

    def register(function: _Rule) -> _Rule:
        for target in targets:
            if target in _TABLE:
                raise InternalError(f"two lowerings of {target} over complex numbers")
            _TABLE[target] = function
        return function

    return register


def pair_lowering_for(target: str) -> Callable[..., Any] | None:
    """The rule of an operator over complex numbers, None when there is none."""
    lowering_for(target)  # reads all rules
    return _TABLE.get(target)
