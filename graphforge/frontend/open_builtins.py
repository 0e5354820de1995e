"""While capturing: Python's own functions in the files of a model, of sizes that vary.

Python makes a plain number of whatever ``int``, ``float`` and ``len`` are given, and so of a size the example's:
``int(x.shape[1] * 0.5)`` and ``len(x)`` tie a program to it.  Under the same names in the globals of those files stand
functions that keep the symbol; nothing outside of these files sees them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from graphforge.frontend.open_sizes import is_traced

__all__ = ["open_builtins"]

_SYMBOL_OF: dict[type, type] = {int: torch.SymInt, float: torch.SymFloat}
_SYMBOLS = (torch.SymInt, torch.SymFloat)


@contextmanager
def open_builtins(modules: Sequence[ModuleType]) -> Iterator[None]:
    """In these modules ``len``, ``int``, ``float``, ``divmod``, ``min``, ``max`` and ``range`` may give symbols."""
    named: dict[str, Callable[..., Any]] = {
        "len": _len,
        "int": _Int,
        "float": _Float,
        "divmod": _divmod,
        "min": _min,
        "max": _max,
        "range": _Range,
    }
    changed = [
        (module, name)
        for module in modules
        for name in named
        if name not in vars(module) and not (name in ("int", "float") and _is_a_dtype_in(module, name))
    ]
    for module, name in changed:
        vars(module)[name] = named[name]
    try:
        yield
    finally:
        for module, name in changed:
            vars(module).pop(name, None)


def _is_a_dtype_in(module: ModuleType, name: str) -> bool:
    """Whether a type stands for an element type somewhere in a module's code, where it must be Python's own."""
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):  # no file, or none that can be read
        return True
    return re.search(rf"(dtype\s*=\s*|\.(to|type|astype|view)\(){name}\b", source) is not None


def _len(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() and isinstance(value.shape[0], torch.SymInt):
        return value.shape[0]
    return len(value)


def _divmod(a: Any, b: Any) -> Any:
    return (a // b, a % b) if isinstance(a, _SYMBOLS) or isinstance(b, _SYMBOLS) else divmod(a, b)


class _NumberType(type):
    """Numbers are instances of what stands for their type, and symbols of them are, as in eager."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, (cls.__mro__[1], _SYMBOL_OF[cls.__mro__[1]]))

    def __subclasscheck__(cls, subclass: Any) -> bool:
        return issubclass(subclass, cls.__mro__[1])


class _Int(int, metaclass=_NumberType):
    """``int``, which leaves a symbol a symbol: ``int(h * 0.5)`` of a size, ``int(mask.sum())`` of a count."""

    def __new__(cls, value: Any = 0, *base: Any, **keywords: Any) -> Any:
        if isinstance(value, _SYMBOLS):
            return torch.sym_int(value)
        if isinstance(value, torch.Tensor) and not value.is_floating_point() and is_traced(value):
            return value.item()
        return int(value, *base, **keywords)


class _Float(float, metaclass=_NumberType):
    """``float``, of a size."""

    def __new__(cls, value: Any = 0.0) -> Any:
        return torch.sym_float(value) if isinstance(value, _SYMBOLS) else float(value)


class _RangeType(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, range)


class _Range(metaclass=_RangeType):
    """``range``, which asks for the number of its steps and not for its end: ``range(0, length, 128)`` has one of 32.

    That number is what the capture takes for granted then, and what the promised sizes are held to.
    """

    def __new__(cls, *ends: Any) -> Any:
        start, stop, step = ends if len(ends) == 3 else (0, 0, 1)
        if isinstance(step, int) and step > 1 and any(isinstance(one, torch.SymInt) for one in (start, stop)):
            return [start + step * place for place in range((stop - start + step - 1) // step)]
        return range(*ends)


def _min(*values: Any, **keywords: Any) -> Any:
    return _extreme(min, torch.sym_min, values, keywords)


def _max(*values: Any, **keywords: Any) -> Any:
    return _extreme(max, torch.sym_max, values, keywords)


def _extreme(plain: Any, symbolic: Any, values: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """The least or the largest of counts and of quotients of sizes; torch sees to that of sizes itself."""
    many = values if len(values) > 1 else list(values[0]) if values and isinstance(values[0], list | tuple) else ()
    if (
        keywords
        or not all(isinstance(one, int | float | torch.SymInt | torch.SymFloat) for one in many)
        or not any(isinstance(one, torch.SymFloat) or _depends_on_data(one) for one in many)
    ):
        return plain(*values, **keywords)
    result = many[0]
    for one in many[1:]:
        result = symbolic(result, one)
    return result


def _depends_on_data(value: Any) -> bool:
    return isinstance(value, torch.SymInt) and not value.node.has_hint()
