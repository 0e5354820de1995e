"""While capturing: Python's own ``int``, ``float``, ``len`` and ``divmod`` in the files of a model, of sizes that vary.

Python makes a plain number of whatever they are given, and so of a size the example's: ``int(x.shape[1] * 0.5)`` and
``len(x)`` tie a program to it.  Under the same names in the globals of those files stand functions that keep the
symbol; nothing outside of these files sees them.

``int`` and ``float`` are types as well.  In a file that does more with one of them than to call it, to ask
``isinstance`` and to annotate (``x.to(int)``), it stays what it is.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from graphforge.frontend.open_sizes import is_traced

__all__ = ["open_builtins"]

# Longer files are left as they are: to parse them takes longer than it is worth.
_LONGEST = 500_000
_SIZES = (torch.SymInt, torch.SymFloat)


class _Kind(type):
    """The class of what stands for a type of Python's: called and asked for, and a type in annotations."""

    plain: type
    made: Callable[..., Any]
    also: tuple[type, ...]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.made(*args, **kwargs)

    def __instancecheck__(cls, one: Any) -> bool:
        return isinstance(one, (cls.plain, *cls.also))

    def __subclasscheck__(cls, one: type) -> bool:
        return issubclass(one, cls.plain)


def _int(*args: Any, **kwargs: Any) -> Any:
    if len(args) == 1 and not kwargs:
        (value,) = args
        if isinstance(value, _SIZES):
            return torch.sym_int(value)
        if isinstance(value, Tensor) and is_traced(value) and _is_whole(value.dtype):
            return value.item()
    return int(*args, **kwargs)


def _is_whole(dtype: torch.dtype) -> bool:
    return not dtype.is_floating_point and not dtype.is_complex and dtype is not torch.bool


def _float(*args: Any) -> Any:
    return torch.sym_float(args[0]) if len(args) == 1 and isinstance(args[0], _SIZES) else float(*args)


def _len(one: Any, /) -> Any:
    return one.shape[0] if isinstance(one, Tensor) and one.dim() and is_traced(one) else len(one)


def _divmod(a: Any, b: Any, /) -> Any:
    return (a // b, a % b) if isinstance(a, _SIZES) or isinstance(b, _SIZES) else divmod(a, b)


def _kind(plain: type, made: Callable[..., Any], also: type) -> type:
    return _Kind(plain.__name__, (), {"plain": plain, "made": staticmethod(made), "also": (also,)})


_TYPES: Mapping[str, Any] = {
    "int": _kind(int, _int, torch.SymInt),
    "float": _kind(float, _float, torch.SymFloat),
}
_FUNCTIONS: Mapping[str, Any] = {"len": _len, "divmod": _divmod}


@contextmanager
def open_builtins(modules: Sequence[ModuleType]) -> Iterator[None]:
    """Put them into the globals of these modules while the context lasts."""
    placed: list[tuple[dict[str, Any], str]] = []
    for module in modules:
        names = vars(module)
        for name, stand_in in _needed(module).items():
            if name not in names:
                names[name] = stand_in
                placed.append((names, name))
    try:
        yield
    finally:
        for names, name in placed:
            names.pop(name, None)


def _needed(module: ModuleType) -> dict[str, Any]:
    """What a file calls of them, and may be given a stand-in for."""
    try:
        text = inspect.getsource(module)
        if len(text) > _LONGEST or not any(f"{name}(" in text for name in (*_TYPES, *_FUNCTIONS)):
            return {}
        tree = ast.parse(text)
    except (OSError, TypeError, SyntaxError, ValueError, RecursionError):  # there is no text of it, or none that parses
        return {}
    called = {one.func.id for one in ast.walk(tree) if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)}
    used_as_values = _used_as_values(tree)
    return {
        name: stand_in
        for name, stand_in in {**_TYPES, **_FUNCTIONS}.items()
        if name in called and (name in _FUNCTIONS or name not in used_as_values)
    }


def _used_as_values(tree: ast.Module) -> set[str]:
    """The names of types that stand in a file otherwise than called, asked for or in an annotation."""
    harmless: set[int] = set()
    for one in ast.walk(tree):
        allowed: list[ast.AST | None] = []
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Name):
            harmless.add(id(one.func))
            if one.func.id == "isinstance":
                allowed = [*one.args[1:]]
        elif isinstance(one, ast.arg | ast.AnnAssign):
            allowed = [one.annotation]
        elif isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            allowed = [one.returns]
        harmless |= {id(inner) for part in allowed if part is not None for inner in ast.walk(part)}
    return {one.id for one in ast.walk(tree) if isinstance(one, ast.Name) and id(one) not in harmless} & {*_TYPES}
