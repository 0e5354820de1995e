"""What a model's Python can reach: the functions by name, and every place in which a function is held.

A walk over objects, from the model outwards: attributes of its modules, their classes, the globals of the files that
these are written in, closures, default arguments, bound methods, partials, lists, tuples and dicts.  It never asks the
garbage collector, runs no property, and looks at no more than `MAX_OBJECTS` objects.

Not looked into: torch, numpy, the standard library and GraphForge itself; objects with ``__slots__``; containers of
more than `MAX_ITEMS` items; whatever is computed only when it is asked for; objects that raise when they are looked at.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphforge.user_files import path_of_module

__all__ = [
    "FOREIGN",
    "MAX_ITEMS",
    "MAX_OBJECTS",
    "Place",
    "References",
    "imported_as",
    "names_of",
    "references",
    "replaced",
]

MAX_OBJECTS = 200_000
MAX_ITEMS = 4096
# Packages that no model is written in.
FOREIGN = frozenset({*sys.stdlib_module_names, "torch", "numpy", "graphforge", "onnx", "onnx_ir", "onnxruntime"})
_CACHED = type(functools.lru_cache(lambda: None))
_NAMED = types.FunctionType | types.BuiltinFunctionType | staticmethod | classmethod | _CACHED
_PLAIN = (str, bytes, int, float, complex, bool, type(None), types.ModuleType, Path)
_MODULE_STATE = ("_parameters", "_buffers", "_modules")  # tensors, and modules that are walked by themselves


def imported_as(functions: Sequence[tuple[Any, str, Any, Any]]) -> list[tuple[Any, str, Any, Any]]:
    """Where other modules hold functions by a name of their own: `from torch import linspace`.

    Args:
        functions: owner, name, the function, and the one that takes its place.

    Returns:
        the same for the modules that hold one of them.
    """
    known = {id(before): (before, after) for _, _, before, after in functions}
    found: list[tuple[Any, str, Any, Any]] = []
    for module in list(sys.modules.values()):
        if not isinstance(module, types.ModuleType) or module.__name__.split(".")[0] in FOREIGN:
            continue
        names = vars(module)
        if not known.keys().isdisjoint(map(id, list(names.values()))):
            found += [(module, name, *known[id(held)]) for name, held in list(names.items()) if id(held) in known]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where something is held: an item of a dict or a list, or an attribute.

    Attributes:
        owner: what holds it.
        key: the item's key, or the attribute's name.
        value: what is held: a function, or a tuple, a partial or a bound method that holds one.
        name: how a message calls the place.
    """

    owner: Any
    key: Any
    value: Any
    name: str

    def put(self, before: Any, after: Any) -> bool:
        """Put ``after`` where ``before`` is; False when that is not there any more."""
        # a dict's own methods: a subclass may make something else of its items
        if isinstance(self.owner, dict):
            if dict.get(self.owner, self.key) is not before:
                return False
            dict.__setitem__(self.owner, self.key, after)
            return True
        if isinstance(self.owner, list):
            for index, item in enumerate(list.__iter__(self.owner)):
                if item is before:
                    list.__setitem__(self.owner, index, after)
                    return True
            return False
        held = vars(self.owner).get(self.key) if isinstance(self.owner, type) else getattr(self.owner, self.key, None)
        if held is not before:
            return False
        setattr(self.owner, self.key, after)
        return True


@dataclass(slots=True)
class References:
    """What a walk found.

    Attributes:
        by_name: functions by each of their full names (see `names_of`).
        places: every place that holds a callable.
        complete: False when the walk ended at `MAX_OBJECTS`.
    """

    by_name: dict[str, list[Any]] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    complete: bool = True


def references(model: Any, instead: Mapping[int, Any] | None = None) -> References:
    """Walk over what a model can reach.

    Args:
        model: where it begins.
        instead: by id, what stands for another object while a capture lasts -> that object, which is walked over.
    """
    walk = _Walk(instead or {})
    walk.run(model)
    return walk.found


def names_of(function: Any) -> list[str]:
    """The full names by which a function or method can be meant.

    ``package.module.Class.method``; for what is defined inside a function also without that function's name; for what
    is in the user's own file ``net.pick`` and ``net.py:pick``.
    """
    function = getattr(function, "__func__", function)
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return []
    path = path_of_module(module)
    prefixes = [f"{module}."] if path is None else [f"{module}.", f"{path.stem}.", f"{path.name}:"]
    short = dict.fromkeys((name, name.replace("<locals>.", ""), name.rpartition("<locals>.")[2]))
    return [prefix + one for prefix in prefixes for one in short]


def replaced(value: Any, standing_in: Mapping[int, Any]) -> Any:
    """The value with functions exchanged, by their id; the same object when it holds none of them."""
    if id(value) in standing_in:
        return standing_in[id(value)]
    if isinstance(value, tuple):
        items = [replaced(item, standing_in) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return type(value)._make(items) if hasattr(value, "_make") else tuple(items)
    if isinstance(value, functools.partial):
        function = replaced(value.func, standing_in)
        return value if function is value.func else functools.partial(function, *value.args, **value.keywords)
    if isinstance(value, types.MethodType):
        function = replaced(value.__func__, standing_in)
        return value if function is value.__func__ else types.MethodType(function, value.__self__)
    return value


class _Walk:
    def __init__(self, instead: Mapping[int, Any]) -> None:
        self._instead = instead
        self.found = References()
        self._seen: set[int] = set()
        self._kept: list[Any] = []  # so that no id is given out twice while the walk lasts
        self._pending: list[tuple[Any, str]] = []

    def run(self, model: Any) -> None:
        self._visit(model, "the model")
        while self._pending:
            thing, name = self._pending.pop()
            if len(self._seen) > MAX_OBJECTS:
                self.found.complete = False
                return
            try:
                for place in self._places(thing, name):
                    if _is_callable(place.value):
                        self.found.places.append(place)
                    self._visit(place.value, place.name)
            except Exception:  # an object of other people's, whose attributes compute, import or refuse: left out
                continue

    def _visit(self, thing: Any, name: str) -> None:
        thing = self._instead.get(id(thing), thing)
        if isinstance(thing, _PLAIN) or id(thing) in self._seen:
            return
        self._seen.add(id(thing))
        self._kept.append(thing)
        self._pending.append((thing, name))
        if isinstance(thing, _NAMED):
            for one in names_of(thing):
                self.found.by_name.setdefault(one, []).append(thing)

    def _places(self, thing: Any, name: str) -> Iterator[Place]:
        """Every place in a thing that is worth looking at."""
        if isinstance(thing, types.FunctionType):
            yield from self._in_function(thing, name)
        elif isinstance(thing, type):
            yield from self._in_class(thing)
        elif isinstance(thing, dict):  # the containers' own methods: a class of the user's may do more when it is asked
            if dict.__len__(thing) <= MAX_ITEMS:
                for key, value in list(dict.items(thing)):
                    yield Place(thing, key, value, f"{name}[{key!r}]" if isinstance(key, str | int) else name)
        elif isinstance(thing, list):
            if list.__len__(thing) <= MAX_ITEMS:
                for index, value in enumerate(list(list.__iter__(thing))):
                    yield Place(thing, index, value, f"{name}[{index}]")
        elif isinstance(thing, tuple):
            # exchanged as a whole, where the tuple is held; looked into all the same
            for value in tuple.__getitem__(thing, slice(MAX_ITEMS)):
                self._visit(value, name)
        elif isinstance(thing, functools.partial):
            self._visit(thing.func, name)
        elif isinstance(thing, types.MethodType | staticmethod | classmethod):
            self._visit(thing.__func__, name)
            if isinstance(thing, types.MethodType):
                self._visit(thing.__self__, name)
        elif isinstance(thing, property):
            self._visit(thing.fget, name)
        else:
            yield from self._in_object(thing, name)

    def _in_function(self, function: types.FunctionType, name: str) -> Iterator[Place]:
        if _foreign(function.__module__):
            return
        title = names_of(function)[-1] if names_of(function) else name
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not bound yet
                continue
            yield Place(cell, "cell_contents", value, f"{variable} in the closure of {title}")
        if function.__defaults__:
            yield Place(function, "__defaults__", function.__defaults__, f"the defaults of {title}")
        for key, value in (function.__kwdefaults__ or {}).items():
            yield Place(function.__kwdefaults__, key, value, f"the default of {key} in {title}")
        wrapped = vars(function).get("__wrapped__")
        if wrapped is not None:
            self._visit(wrapped, title)
        yield from self._in_globals(function.__globals__)

    def _in_globals(self, names: dict[str, Any]) -> Iterator[Place]:
        if id(names) in self._seen:
            return
        self._seen.add(id(names))
        module = str(names.get("__name__", ""))
        if _foreign(module):
            return
        path = path_of_module(module)
        title = module if path is None else path.name
        for name, value in list(names.items()):
            if not name.startswith("__"):
                yield Place(names, name, value, f"{title}:{name}" if path is not None else f"{title}.{name}")

    def _in_class(self, kind: type) -> Iterator[Place]:
        for one in kind.__mro__:
            if one is not kind:
                self._visit(one, one.__name__)
        if _foreign(kind.__module__):
            return
        path = path_of_module(kind.__module__)
        title = f"{kind.__module__}.{kind.__qualname__}" if path is None else f"{path.name}:{kind.__qualname__}"
        for name, value in list(vars(kind).items()):
            if name not in ("__dict__", "__weakref__", "__doc__", "__annotations__"):
                yield Place(kind, name, value, f"{title}.{name}")
        module = sys.modules.get(kind.__module__)
        if module is not None:
            yield from self._in_globals(vars(module))

    def _in_object(self, thing: Any, name: str) -> Iterator[Place]:
        import torch

        if isinstance(thing, torch.Tensor | torch.jit.ScriptModule):
            return
        kind = type(thing)
        is_module = isinstance(thing, torch.nn.Module)
        if _foreign(kind.__module__) and not is_module:
            return
        self._visit(kind, kind.__qualname__)
        attributes = getattr(thing, "__dict__", None)
        if not isinstance(attributes, dict):
            return
        for key, value in list(attributes.items()):
            if is_module and key in _MODULE_STATE:
                if key == "_modules":
                    for child, module in value.items():
                        self._visit(module, f"{name}.{child}")
                continue
            yield Place(attributes, key, value, f"{name}.{key}")


def _foreign(module: object) -> bool:
    """Whether something is of a package that is not looked into; ``__module__`` may be anything, a property too."""
    return not isinstance(module, str) or module.split(".")[0] in FOREIGN


def _is_callable(value: Any) -> bool:
    """A function in any of the forms in which one is held."""
    if isinstance(value, tuple):
        return any(_is_callable(item) for item in value[:MAX_ITEMS])
    return isinstance(value, _NAMED | types.MethodType | functools.partial)
