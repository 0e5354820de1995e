"""Substitutions: while a model is captured, calls of a known function go to another one in its place.

    from graphforge.frontend.substitution import substitute

    @substitute("my_package.heads.select_boxes")
    def select_boxes(boxes, scores):
        ...                     # the same arguments and results, written so that it can be captured

A function that hides its meaning (a hand-written suppression loop) or cannot be captured (a Python loop over boxes) is
declared once, by its full name.  While a capture lasts, every module that holds the function, under whatever name it
was imported, calls the substitute; afterwards, exceptions included, every name is the original object again.  Only the
thread that captures is affected: in any other one, and inside the substitute itself, the name means the original.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar

from graphforge.errors import GraphForgeError, UsageError
from graphforge.user_files import load_file

__all__ = [
    "Applied",
    "Substitution",
    "check_used",
    "declared_substitutions",
    "forget_calls",
    "load_substitutions",
    "substitute",
    "substituting",
    "withdraw",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Substitution:
    """One function to be put in place of another.

    Attributes:
        path: full name of the function or method to replace, ``package.module.function`` or ``...Class.method``.
        function: what is called instead, with the same arguments.
        target: only when compiling for this target; None for every one.
        required: matching nothing is an error; False for those that serve whatever model comes along.
    """

    path: str
    function: Callable[..., Any]
    target: str | None = None
    required: bool = True


@dataclass(slots=True)
class Applied:
    """What became of a substitution in one capture.

    Attributes:
        substitution: the declaration.
        places: names under which the original was found, ``module.name``.
        calls: how often the substitute was called.
    """

    substitution: Substitution
    places: tuple[str, ...]
    calls: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        function = self.substitution.function
        return {
            "function": self.substitution.path,
            "substitute": f"{function.__module__}.{function.__qualname__}",
            "calls": self.calls,
        }


_DECLARED: list[Substitution] = []


def substitute(path: str, *, target: str | None = None, required: bool = True) -> Callable[[_Function], _Function]:
    """Declare that the decorated function takes the place of ``path`` while a model is captured.

    Args:
        path: full name of a function or method, as ``package.module.function`` or ``package.module.Class.method``.
        target: name of the only target for which it holds; a declaration for the target goes before a general one.
        required: whether a capture that never calls it is an error.

    Raises:
        UsageError: the name has no module in it.
    """
    if "." not in path.strip("."):
        raise UsageError(f"cannot substitute {path!r}", "give the full name, package.module.function")

    def declare(function: _Function) -> _Function:
        for earlier in [one for one in _DECLARED if one.path == path and one.target == target]:
            if _same_place(earlier.function, function):
                _DECLARED.remove(earlier)  # a file that is loaded again
        _DECLARED.append(Substitution(path, function, target, required))
        return function

    return declare


def declared_substitutions(target: str | None = None) -> list[Substitution]:
    """The substitutions for a target: of each function the last one declared, the target's own before a general one."""
    chosen: dict[str, Substitution] = {}
    for one in _DECLARED:
        known = chosen.get(one.path)
        if one.target not in (None, target) or (known is not None and known.target and not one.target):
            continue
        chosen[one.path] = one
    return list(chosen.values())


def withdraw(function: Callable[..., Any]) -> None:
    """Forget every declaration of a substitute."""
    _DECLARED[:] = [one for one in _DECLARED if one.function is not function]


def load_substitutions(path: Path) -> list[Substitution]:
    """Run a Python file that declares substitutions, and return what it declared.

    Raises:
        UsageError: there is no such file.
        GraphForgeError: it fails, or declares none.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}", "expected a Python file with @substitute in it")
    before = list(_DECLARED)
    load_file(path, failed=f"{path} cannot be loaded", fresh=True)
    declared = [one for one in _DECLARED if one not in before]
    if not declared:
        raise GraphForgeError(f"{path} declares no substitution", "decorate a function with @substitute('full.name')")
    return declared


def _same_place(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


# -- the patch ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Patch:
    """A dispatcher standing in for one original in every place that held it."""

    original: Any
    dispatcher: Any
    places: list[tuple[Any, str]] = field(default_factory=list)
    users: int = 0


_lock = threading.RLock()
_patches: dict[int, _Patch] = {}
# In this thread, by the original's id: what is called instead.
_active: ContextVar[Mapping[int, Applied]] = ContextVar("graphforge_substitutions", default=MappingProxyType({}))


@contextmanager
def substituting(substitutions: Sequence[Substitution]) -> Iterator[list[Applied]]:
    """Put substitutions in force for this thread while the context lasts; yields what becomes of each.

    Raises:
        GraphForgeError: a required one names a function that does not exist.
    """
    applied: list[Applied] = []
    active = dict(_active.get())
    taken: list[_Patch] = []
    with _lock:
        try:
            found = [(one, _resolve(one)) for one in substitutions]
            fresh = {
                id(original): original for _, original in found if original is not None and id(original) not in _patches
            }
            places = _holders(fresh)
            for one, original in found:
                if original is None:
                    continue
                patch = _patches.get(id(original)) or _install(original, one.path, places[id(original)])
                patch.users += 1
                taken.append(patch)
                record = Applied(one, tuple(_place_name(place) for place in patch.places))
                active[id(original)] = record
                applied.append(record)
        except BaseException:
            _release(taken)
            raise
    token = _active.set(active)
    try:
        yield applied
    finally:
        _active.reset(token)
        with _lock:
            _release(taken)


def forget_calls() -> None:
    """Count anew in this thread: the model is about to be captured a second time."""
    for record in _active.get().values():
        record.calls = 0


def check_used(applied: Sequence[Applied]) -> None:
    """See that every required substitution was called.

    Raises:
        GraphForgeError: one was not; the notes name functions that may have been meant.
    """
    for one in applied:
        if one.calls or not one.substitution.required:
            continue
        path = one.substitution.path
        near = _functions_like(path)
        raise GraphForgeError(
            f"the substitution of {path} matched nothing: the model never calls it",
            f"it is known as {', '.join(one.places) or 'nothing'}",
            *([f"functions of a similar name: {', '.join(near)}"] if near else []),
            "name the function that the model calls, or declare the substitution with required=False",
        )


def _resolve(substitution: Substitution) -> Any:
    """The object a path names; None for an optional one whose package is not in use."""
    path = substitution.path
    parts = path.split(".")
    if not substitution.required and parts[0] not in sys.modules:
        return None  # what was never imported cannot be called
    module: ModuleType | None = None
    depth = 0
    for depth in range(len(parts) - 1, 0, -1):
        module = _module(".".join(parts[:depth]), load=substitution.required)
        if module is not None:
            break
    if module is None:
        if not substitution.required:
            return None
        raise GraphForgeError(
            f"the substitution of {path} matched nothing: there is no module {parts[0]!r}",
            "give the full name of the function, package.module.function",
        )
    owner: Any = module
    for position, name in enumerate(parts[depth:], depth):
        # what the owner itself holds: an inherited method belongs to another class
        held = vars(owner).get(name) if isinstance(owner, type) else getattr(owner, name, None)
        if held is None:
            if not substitution.required:
                return None
            known = [key for key in vars(owner) if not key.startswith("__")]
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            prefix = ".".join(parts[:position])
            raise GraphForgeError(
                f"the substitution of {path} matched nothing: {prefix} has no {name!r}",
                f"nearest: {', '.join(f'{prefix}.{one}' for one in near)}" if near else f"{prefix} has nothing like it",
            )
        owner = held
    for patch in _patches.values():
        if owner is patch.dispatcher:  # in force in another thread, or around us
            return patch.original
    if isinstance(owner, type) or not (callable(owner) or isinstance(owner, classmethod)):
        raise GraphForgeError(
            f"cannot substitute {path}: it is {'a class' if isinstance(owner, type) else 'no function'}",
            "name a function, or a method of the class",
        )
    return owner


def _module(name: str, *, load: bool) -> ModuleType | None:
    if name in sys.modules or not load:
        return sys.modules.get(name)
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _holders(originals: dict[int, Any]) -> dict[int, list[tuple[Any, str]]]:
    """Where each of these objects is held: modules' globals, and the classes in them that define it."""
    places: dict[int, list[tuple[Any, str]]] = {key: [] for key in originals}
    if not places:
        return places
    seen: set[int] = set()
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if not isinstance(module, ModuleType) or names is None or module.__name__.split(".")[0] == "graphforge":
            continue  # our own modules mean what they say
        for name, held in list(names.items()):
            if id(held) in places and originals[id(held)] is held:
                places[id(held)].append((module, name))
            elif issubclass(type(held), type) and id(held) not in seen:  # some objects lie about their class, loudly
                seen.add(id(held))
                for attribute, member in list(vars(held).items()):
                    if id(member) in places and originals[id(member)] is member:
                        places[id(member)].append((held, attribute))
    return places


def _install(original: Any, path: str, places: list[tuple[Any, str]]) -> _Patch:
    key = id(original)
    kind = type(original) if isinstance(original, staticmethod | classmethod) else None
    function = original.__func__ if kind is not None else original

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        record = _active.get().get(key)
        if record is None:
            return function(*args, **kwargs)
        record.calls += 1
        # inside the substitute the name means the original
        token = _active.set({one: applied for one, applied in _active.get().items() if one != key})
        try:
            return record.substitution.function(*args, **kwargs)
        finally:
            _active.reset(token)

    if not places:
        raise GraphForgeError(f"cannot substitute {path}: no module or class holds it")
    dispatcher: Any = call if kind is None else kind(call)
    patch = _Patch(original, dispatcher, places)
    _patches[key] = patch
    for owner, name in places:
        setattr(owner, name, dispatcher)
    return patch


def _release(patches: Sequence[_Patch]) -> None:
    """Take patches back that nobody uses any more, from modules that were imported meanwhile too."""
    done: list[_Patch] = []
    for patch in patches:
        patch.users -= 1
        if not patch.users:
            done.append(patch)
    late = _holders({id(patch.dispatcher): patch.dispatcher for patch in done})
    for patch in done:
        for owner, name in {*patch.places, *late[id(patch.dispatcher)]}:
            if vars(owner).get(name) is patch.dispatcher:
                setattr(owner, name, patch.original)
        del _patches[id(patch.original)]


def _place_name(place: tuple[Any, str]) -> str:
    owner, name = place
    prefix = owner.__name__ if isinstance(owner, ModuleType) else f"{owner.__module__}.{owner.__qualname__}"
    return f"{prefix}.{name}"


def _functions_like(path: str) -> list[str]:
    """Functions of the same or a similar name in modules of the same package."""
    package, wanted = path.split(".")[0], path.rsplit(".", 1)[1]
    known: dict[str, str] = {}
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType) or module.__name__.split(".")[0] not in (package, "__main__"):
            continue
        for name, held in list(vars(module).items()):
            own = getattr(held, "__module__", None) == module.__name__
            if callable(held) and own and f"{module.__name__}.{name}" != path:
                known[f"{module.__name__}.{name}"] = name
    names = difflib.get_close_matches(wanted, set(known.values()), n=3, cutoff=0.6)
    return [full for full, name in known.items() if name in names][:3]
