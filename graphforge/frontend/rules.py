"""The lowering table: ATen operator name -> the function that writes it in our IR."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from graphforge.errors import InternalError

__all__ = ["Lowering", "lowered_operators", "lowering_for", "lowers", "means_the_same"]

Lowering = Callable[..., Any]
_Lowering = TypeVar("_Lowering", bound=Lowering)

_TABLE: dict[str, Lowering] = {}
_TWINS: dict[str, str] = {}
_loaded = False
_loading = threading.RLock()  # the first two models of a server may arrive at once


def lowers(*targets: str) -> Callable[[_Lowering], _Lowering]:
    """Declare that a function lowers these operators, named ``aten.add.Tensor``.

    The function receives the ``Emitter`` and then the operator's arguments as the captured program has them:
    ``ir.Value`` for tensors, ``SymbolicScalar`` for sizes known at run time only, Python values for the rest.
    It returns a value, or a tuple of values for an operator with several results.
    In-place variants (``aten.add_.Tensor``) need none of their own: the driver applies the functional one.

    Raises:
        InternalError: an operator is declared twice.
    """

    def register(function: _Lowering) -> _Lowering:
        for target in targets:
            if target in _TABLE:
                raise InternalError(f"two lowerings of {target}: {_TABLE[target].__module__} and {function.__module__}")
            _TABLE[target] = function
        return function

    return register


def means_the_same(target: str, twin: str) -> None:
    """Declare that an operator takes the same arguments and means the same as another, whose lowering serves both."""
    _TWINS[target] = twin


def _load() -> None:
    global _loaded
    if _loaded:
        return
    with _loading:
        if _loaded:
            return
        for folder in ("aten", "complex"):
            package = importlib.import_module(f"graphforge.frontend.{folder}")
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"graphforge.frontend.{folder}.{module.name}")
        for target, twin in _TWINS.items():
            lowers(target)(_TABLE[twin])
        _loaded = True


def lowering_for(target: str) -> Lowering | None:
    """The lowering of an operator, None when there is none of ours."""
    _load()
    return _TABLE.get(target)


def lowered_operators() -> tuple[str, ...]:
    """Every operator that has a rule of ours, sorted."""
    _load()
    return tuple(sorted(_TABLE))
