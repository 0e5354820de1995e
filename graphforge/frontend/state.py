"""While capturing: what the model keeps for its next call does not outlive the capture.

Attributes that the call sets are put back (`ModuleState`).  Functions under ``functools.lru_cache`` are called without
their cache, which cannot hold sizes that are symbols and would hand out values of the capture later.  Of the containers
that stand in the modules of the model's code, those that now hold values of the capture get their earlier content back.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import torch

from graphforge.module_state import ModuleState

__all__ = ["keeping_state", "modules_of"]

_CACHED = type(functools.lru_cache(len))
_LIBRARIES = ("torch", "numpy", "sympy", "graphforge", "onnx", "builtins", "typing", "functools", "collections")
_MOST = 4096


@contextmanager
def keeping_state(model: torch.nn.Module, notes: list[str]) -> Iterator[None]:
    """Put the model's state back when the context ends; notes say which tensors the call would have changed."""
    state = ModuleState(model)
    modules = modules_of(model)
    globals_: list[tuple[Any, Any]] = [
        (value, _base_of(value).copy(value))
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, dict | list | set)
        and not name.startswith("__")
        and _base_of(value).__len__(value) <= _MOST
    ]
    with _without_caches(modules), _assignments_allowed():
        try:
            yield
        finally:
            notes += [
                f"{name!r} is set by a call of the model; the artifact starts every call from its present value"
                for name, before in state.put_back().items()
                if isinstance(before, torch.Tensor) and before.numel()
            ]
            for container, kept in globals_:
                if _holds_traced(container):
                    base = _base_of(container)
                    base.clear(container)
                    base.extend(container, kept) if base is list else base.update(container, kept)


def _base_of(container: Any) -> Any:
    """The plain type of a container: what a subclass makes of its methods (loading on first use) is not asked for."""
    return next(base for base in (dict, list, set) if isinstance(container, base))


def modules_of(model: torch.nn.Module) -> list[ModuleType]:
    """The modules of the model's classes and of functions that it holds, and those whose functions they use."""
    names = dict.fromkeys(str(type(part).__module__) for part in model.modules())
    held = (value for part in model.modules() for value in vars(part).values() if isinstance(value, FunctionType))
    names |= dict.fromkeys(str(function.__module__) for function in held)
    for name in list(names):
        for value in list(vars(sys.modules[name]).values()) if name in sys.modules and not _is_library(name) else ():
            names.setdefault(value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", "")))
    found = (sys.modules.get(name) for name in names if not _is_library(name))
    return [module for module in found if isinstance(module, ModuleType)]


def _is_library(name: str) -> bool:
    top = name.split(".")[0]
    return top in _LIBRARIES or (top in sys.stdlib_module_names and top != "__main__")


@contextmanager
def _without_caches(modules: list[ModuleType]) -> Iterator[None]:
    exchanged: list[tuple[Any, str, Any]] = []
    for module in modules:
        owners = [module, *(one for one in vars(module).values() if _is_class_of(one, module))]
        for owner in owners:
            for name, value in list(vars(owner).items()):
                plain = _uncached(value)
                if plain is not None:
                    exchanged.append((owner, name, value))
                    setattr(owner, name, plain)
    try:
        yield
    finally:
        for owner, name, value in exchanged:
            setattr(owner, name, value)


def _is_class_of(value: Any, module: ModuleType) -> bool:
    return issubclass(type(value), type) and getattr(value, "__module__", None) == module.__name__


def _uncached(value: Any) -> Any:
    """The function behind a cache, None for anything else."""
    if type(value) is _CACHED:
        return value.__wrapped__
    if type(value) in (staticmethod, classmethod) and type(value.__func__) is _CACHED:
        return type(value)(value.__func__.__wrapped__)
    return None


@contextmanager
def _assignments_allowed() -> Iterator[None]:
    """torch refuses a model that sets a tensor attribute which it had before: here it is put back anyway."""
    exporter = vars(import_module("torch.export._trace"))
    kept = exporter["_detect_attribute_assignment"]
    exporter["_detect_attribute_assignment"] = _anything_goes
    try:
        yield
    finally:
        exporter["_detect_attribute_assignment"] = kept


@contextmanager
def _anything_goes(model: Any) -> Iterator[None]:
    yield


def _holds_traced(value: Any, depth: int = 3) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor

    if isinstance(value, FakeTensor | FunctionalTensor | torch.SymInt | torch.SymFloat | torch.SymBool):
        return True
    if not depth or not isinstance(value, dict | list | tuple | set):
        return False
    if isinstance(value, dict):
        inside = [*dict.values(value), *dict.keys(value)]
    else:
        inside = list(tuple.__iter__(value) if isinstance(value, tuple) else _base_of(value).__iter__(value))
    return any(_holds_traced(one, depth - 1) for one in inside[:_MOST])
