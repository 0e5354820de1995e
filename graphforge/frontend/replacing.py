"""Substitutions put in force: while a capture lasts, whoever holds a function calls the substitute in its place.

The function is exchanged in every module and class that holds it, under whatever name it was imported, and in whatever
the model can reach (`references.py`): closures, default arguments, lists, dicts, attributes.  Afterwards, exceptions
included, every place holds the original object again.  Only the thread that captures is affected: in any other one, and
inside the substitute itself, the name means the original.
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
from importlib.machinery import PathFinder
from types import MappingProxyType, ModuleType
from typing import Any

from graphforge.errors import GraphForgeError
from graphforge.frontend.references import MAX_OBJECTS, Place, References, names_of, references, replaced
from graphforge.frontend.substitution import Substitution
from graphforge.user_code import is_installed, is_ours
from graphforge.user_files import name_of, path_of_module, user_modules

__all__ = ["Applied", "check_used", "forget_calls", "substituting"]


@dataclass(slots=True)
class Applied:
    """What became of a substitution in one capture.

    Attributes:
        substitution: the declaration.
        places: where the original was found, ``module.name``.
        calls: how often the substitute was called.
        problem: why it could not be put in force; empty when it was.
        nearest: functions that may have been meant, when there was nothing of that name.
    """

    substitution: Substitution
    places: tuple[str, ...] = ()
    calls: int = 0
    problem: str = ""
    nearest: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "function": self.substitution.path,
            "substitute": name_of(self.substitution.function),
            "calls": self.calls,
        }


@dataclass(eq=False)
class _Patch:
    """A dispatcher standing in for one original in every module and class that held it."""

    original: Any
    dispatcher: Any
    places: list[tuple[Any, str]] = field(default_factory=list)
    users: int = 0
    references: int = 0

    def counted(self) -> int:
        """How many hold the dispatcher."""
        return sys.getrefcount(self.dispatcher)


# Modules of ours whose functions are part of the model.
_OURS_AND_CAPTURED = ("graphforge.frontend.openmmlab.batched",)

_lock = threading.RLock()
_patches: dict[int, _Patch] = {}
# In this thread, by the original's id: what is called instead.
_active: ContextVar[Mapping[int, Applied]] = ContextVar("graphforge_substituting", default=MappingProxyType({}))


@contextmanager
def substituting(substitutions: Sequence[Substitution], model: Any = None) -> Iterator[list[Applied]]:
    """Put substitutions in force for this thread while the context lasts; yields what becomes of each.

    Args:
        substitutions: the declarations.
        model: the module to be captured, in whose reach places are looked for; with it, only one thread at a time
            (a capture holds a lock of its own).

    Raises:
        GraphForgeError: a required one, given for this call, names a function that does not exist.
    """
    with _lock:
        # our own are found by their modules alone
        own = any(not is_ours(str(getattr(one.function, "__module__", ""))) for one in substitutions)
        instead = {id(patch.dispatcher): patch.original for patch in _patches.values()}
        reach = references(model, instead) if model is not None and own else References()
        applied = [Applied(one) for one in substitutions]
        active = dict(_active.get())
        taken: list[_Patch] = []
        exchanged: list[tuple[Place, Any]] = []
        try:
            found = [(record, original) for record in applied for original in _originals(record, reach)]
            fresh = {id(original): original for _, original in found if id(original) not in _patches}
            holders = _holders(fresh)
            for record, original in found:
                patch = _patches.get(id(original)) or _install(original, holders[id(original)])
                patch.users += 1
                patch.references = patch.references or patch.counted()
                taken.append(patch)
                active[id(original)] = record
                record.places += tuple(_place_name(place) for place in patch.places)
            exchanged = _exchange(reach, found)
            _see_that_all_are_held(found)
        except BaseException:
            _put_back(exchanged)
            _release(taken)
            raise
    token = _active.set(active)
    try:
        yield [one for one in applied if one.places or one.problem]
    finally:
        _active.reset(token)
        with _lock:
            _put_back(exchanged)
            _release(taken)


def forget_calls() -> None:
    """Count anew in this thread: the model is about to be captured a second time."""
    for record in _active.get().values():
        record.calls = 0


def check_used(applied: Sequence[Applied]) -> list[str]:
    """See that every required substitution was called; returns notes on those of the process that were not.

    Raises:
        GraphForgeError: one that was given for this call was not; the notes name functions that may have been meant.
    """
    notes: list[str] = []
    for one in applied:
        if one.calls or not one.substitution.required:
            continue
        message = _unused(one)
        if not one.substitution.process:
            raise GraphForgeError(*message)
        notes.append("; ".join((message[0], *message[1:2])))
    return notes


def _unused(one: Applied) -> tuple[str, ...]:
    path = one.substitution.path
    if one.problem:
        nearest = f"nearest: {', '.join(one.nearest)}" if one.nearest else ""
        return (f"the substitution of {path} matched nothing: {one.problem}", nearest)
    near = [name for name in one.nearest if name not in one.places]
    return (
        f"the substitution of {path} matched nothing: the model never calls it",
        f"it is known as {', '.join(one.places)}",
        f"functions of a similar name: {', '.join(near)}" if near else "",
        "name the function that the model calls, or declare the substitution with required=False",
    )


# -- what a name means -------------------------------------------------------------------------------------------------


def _originals(record: Applied, reach: References) -> list[Any]:
    """The functions that a substitution names; where there are none, the record says why.

    Raises:
        GraphForgeError: it names something that cannot be substituted, or is required and names nothing.
    """
    one = record.substitution
    found = list({id(held): held for held in map(_undispatched, reach.by_name.get(one.path, ()))}.values())
    found = _outermost(found)
    named, problem, nearest = _named(one, load=one.required and not found)
    # a file of this name that another model was read from has nothing to do with this one
    if named is not None and not (found and path_of_module(str(getattr(named, "__module__", "")))):
        found = [*(held for held in found if held is not named), named]
    for held in found:
        if isinstance(held, type) or not (callable(held) or isinstance(held, classmethod)):
            record.problem = f"it is {'a class' if isinstance(held, type) else 'not a function'}"
            if one.process:
                return []
            raise GraphForgeError(
                f"cannot substitute {one.path}: {record.problem}", "name a function, or a method of the class"
            )
    if one.required:
        record.nearest = (*nearest, *(name for name in _functions_like(one.path, reach) if name not in nearest))[:4]
    if not found and one.required:
        record.problem = problem + ("" if reach.complete else f" among the first {MAX_OBJECTS:,} objects of the model")
        if not one.process:
            raise GraphForgeError(*_unused(record), "give the full name of the function, package.module.function")
    return found


def _named(one: Substitution, *, load: bool) -> tuple[Any, str, tuple[str, ...]]:
    """The object that a path leads to, or the reason why it leads nowhere and the names nearest to it."""
    file, colon, inside = one.path.rpartition(".py:")
    if colon:
        starts = [(module, inside.split("."), f"{file}.py:") for module in user_modules(f"{file}.py")]
        problem = f"no file {file}.py was loaded"
    else:
        parts = one.path.split(".")
        starts = [(module, parts[1:], f"{parts[0]}.") for module in user_modules(f"{parts[0]}.py")]
        problem = f"there is no module {parts[0]!r}"
        for depth in range(len(parts) - 1, 0, -1):
            module = _module(".".join(parts[:depth]), load=load and not starts)
            if module is not None:
                starts.append((module, parts[depth:], ".".join(parts[:depth]) + "."))
                break
    nearest: tuple[str, ...] = ()
    for module, names, prefix in starts:
        owner: Any = module
        for position, name in enumerate(names):
            # what the owner itself holds: an inherited method belongs to another class
            if isinstance(owner, type) or (not load and _not_imported(owner, name)):
                held = vars(owner).get(name)
            else:
                held = getattr(owner, name, None)
            if held is None:
                known = [key for key in getattr(owner, "__dict__", ()) if not key.startswith("__")]
                before = prefix + "".join(f"{part}." for part in names[:position])
                problem = f"{before.rstrip('.:')} has no {name!r}"
                nearest = tuple(before + near for near in difflib.get_close_matches(name, known, n=3, cutoff=0.5))
                break
            owner = held
        else:
            return _undispatched(owner), "", ()
    return None, problem, nearest


def _not_imported(owner: Any, name: str) -> bool:
    """Whether it is a module that a lazy package would import only now: nobody has anything of it in use."""
    path = getattr(owner, "__path__", None)
    if not isinstance(owner, ModuleType) or path is None or name in vars(owner):
        return False
    full = f"{owner.__name__}.{name}"
    return full not in sys.modules and PathFinder.find_spec(full, list(path)) is not None


def _outermost(found: list[Any]) -> list[Any]:
    """Of functions of one name, a decorator's and the one it wraps, those that the name leads to."""
    meant = {id(_undispatched(_definition(held))) for held in found}
    inside = {id(getattr(held, name, None)) for held in found for name in ("__wrapped__", "__func__")}
    return [held for held in found if id(held) in meant] or [held for held in found if id(held) not in inside]


def _definition(function: Any) -> Any:
    """What the function's name stands for in the file that it is written in; None inside another function."""
    inner = getattr(function, "__func__", function)
    names: Any = getattr(inner, "__globals__", {})
    for part in str(getattr(inner, "__qualname__", "")).split("."):
        held = names.get(part)
        names = getattr(held, "__dict__", {})
    return held


def _undispatched(held: Any) -> Any:
    """The original behind a dispatcher: in force in another thread, or around us."""
    return next((patch.original for patch in _patches.values() if held is patch.dispatcher), held)


def _module(name: str, *, load: bool) -> ModuleType | None:
    if name in sys.modules or not load:
        return sys.modules.get(name)
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _functions_like(path: str, reach: References) -> list[str]:
    """Functions of a similar name: in modules of the same package, and among those that the model reaches."""
    package, wanted = path.split(".")[0], path.replace(":", ".").rsplit(".", 1)[1]
    known: dict[str, str] = {}
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType) or module.__name__.split(".")[0] not in (package, "__main__"):
            continue
        for name, held in list(vars(module).items()):
            own = getattr(held, "__module__", None) == module.__name__
            if callable(held) and own and f"{module.__name__}.{name}" != path:
                known[f"{module.__name__}.{name}"] = name
    for held in reach.by_name.values():
        names = names_of(held[0])
        if names and path not in names:
            known[names[-1]] = names[-1].replace(":", ".").rsplit(".", 1)[-1]
    close = difflib.get_close_matches(wanted, sorted(set(known.values())), n=3, cutoff=0.6)
    return [full for full, name in known.items() if name in close][:3]


# -- the exchange ------------------------------------------------------------------------------------------------------


def _holders(originals: dict[int, Any]) -> dict[int, list[tuple[Any, str]]]:
    """Where each of these objects is held: modules' globals, and the classes in them that define it."""
    places: dict[int, list[tuple[Any, str]]] = {key: [] for key in originals}
    if not places:
        return places
    own: dict[int, type] = {}
    for module in _modules():
        _collect(module, vars(module), originals, places)
        if not _is_installed(module):
            own |= {id(one): one for one in _classes_in(module)}
    for one in own.values():
        _collect(one, vars(one), originals, places)
    installed = _installed_classes()
    for key, original in originals.items():
        known = _held_by_classes.setdefault(key, _HeldByClasses(original))
        if known.original is not original:  # the earlier object of this id is gone
            known = _held_by_classes[key] = _HeldByClasses(original)
    behind = min(_held_by_classes[key].looked_at for key in originals)
    found: dict[int, list[tuple[Any, str]]] = {key: [] for key in originals}
    for one in installed[behind:]:
        _collect(one, vars(one), originals, found)
    for key, new in found.items():
        known = _held_by_classes[key]
        known.places += [place for place in new if place not in known.places]
        known.looked_at = len(installed)
        places[key] += [place for place in known.places if vars(place[0]).get(place[1]) is originals[key]]
    while len(_held_by_classes) > max(_MOST_HELD, len(originals)):
        del _held_by_classes[next(iter(_held_by_classes))]
    return places


def _collect(
    owner: Any, names: Mapping[str, Any], originals: Mapping[int, Any], places: dict[int, list[tuple[Any, str]]]
) -> None:
    if places.keys().isdisjoint(map(id, list(names.values()))):  # nearly always
        return
    for name, held in list(names.items()):
        if id(held) in places and originals[id(held)] is held:
            places[id(held)].append((owner, name))


def _modules() -> list[ModuleType]:
    """All modules but our own, which mean what they say; those of two names once."""
    distinct = {id(module): module for module in list(sys.modules.values()) if isinstance(module, ModuleType)}
    return [
        module for module in distinct.values() if not is_ours(module.__name__) or module.__name__ in _OURS_AND_CAPTURED
    ]


def _classes_in(module: ModuleType) -> list[type]:
    # some objects lie about their class, loudly: it is the type that is asked
    return [held for held in list(vars(module).values()) if issubclass(type(held), type)]


@dataclass(eq=False)
class _HeldByClasses:
    """Which classes of installed modules hold an object, of the first so many that are known."""

    original: Any
    looked_at: int = 0
    places: list[tuple[Any, str]] = field(default_factory=list)


_held_by_classes: dict[int, _HeldByClasses] = {}
_MOST_HELD = 64
# Classes of installed modules, by their ids, and how many names their modules had when they were collected: looking
# through all of them costs as much as a small model's whole compilation, and they seldom change.
_known_classes: dict[int, type] = {}
_sizes_seen: dict[int, tuple[ModuleType, int]] = {}


def _installed_classes() -> list[type]:
    for module in _modules():
        size = len(vars(module))
        if _sizes_seen.get(id(module), (None, -1)) == (module, size) or not _is_installed(module):
            continue
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            continue  # it is being imported: its classes are still to come
        _sizes_seen[id(module)] = (module, size)
        for one in _classes_in(module):
            _known_classes.setdefault(id(one), one)
    return list(_known_classes.values())


@functools.lru_cache(maxsize=1 << 14)
def _is_installed(module: ModuleType) -> bool:
    file = vars(module).get("__file__")
    return module.__name__ != "__main__" and (not isinstance(file, str) or is_installed(file))


def _exchange(reach: References, found: Sequence[tuple[Applied, Any]]) -> list[tuple[Place, Any]]:
    """Put dispatchers in the places that the model reaches; returns what to put back.  All of it, or an exception."""
    wanted = {id(original): record for record, original in found}
    dispatchers = {key: _patches[key].dispatcher for key in wanted}
    done: list[tuple[Place, Any]] = []
    if not wanted:
        return done
    try:
        for place in reach.places:
            after = replaced(place.value, dispatchers)
            if after is not place.value and place.put(place.value, after):
                done.append((place, after))
                for key in _inside(place.value, wanted):
                    wanted[key].places += (place.name,)
    except BaseException:
        _put_back(done)
        raise
    return done


def _put_back(exchanged: Sequence[tuple[Place, Any]]) -> None:
    for place, after in reversed(exchanged):
        place.put(after, place.value)


def _see_that_all_are_held(found: Sequence[tuple[Applied, Any]]) -> None:
    for record, _ in found:
        if record.places or not record.substitution.required:
            continue
        record.problem = "nothing that could be found holds it"
        if not record.substitution.process:
            raise GraphForgeError(*_unused(record))


def _inside(value: Any, wanted: Mapping[int, Any]) -> Iterator[int]:
    if id(value) in wanted:
        yield id(value)
    elif isinstance(value, tuple):
        for item in value:
            yield from _inside(item, wanted)
    elif isinstance(value, functools.partial):
        yield from _inside(value.func, wanted)
    elif hasattr(value, "__func__"):
        yield from _inside(value.__func__, wanted)


def _install(original: Any, places: list[tuple[Any, str]]) -> _Patch:
    key = id(original)
    kind = type(original) if isinstance(original, staticmethod | classmethod) else None
    function: Callable[..., Any] = original.__func__ if kind is not None else original

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

    dispatcher: Any = call if kind is None else kind(call)
    # no class that there is holds it: only later ones are looked through when it is taken back
    _held_by_classes[id(dispatcher)] = _HeldByClasses(dispatcher, looked_at=len(_known_classes))
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
    gained = [patch for patch in done if patch.counted() > patch.references]
    late = _holders({id(patch.dispatcher): patch.dispatcher for patch in gained})
    for patch in done:
        for owner, name in {*patch.places, *late.get(id(patch.dispatcher), ())}:
            if vars(owner).get(name) is patch.dispatcher:
                setattr(owner, name, patch.original)
        del _patches[id(patch.original)]
        _held_by_classes.pop(id(patch.dispatcher), None)


def _place_name(place: tuple[Any, str]) -> str:
    owner, name = place
    if isinstance(owner, ModuleType):
        path = path_of_module(owner.__name__)
        return f"{owner.__name__}.{name}" if path is None else f"{path.name}:{name}"
    return f"{name_of(owner)}.{name}"
