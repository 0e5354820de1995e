"""Targets of somebody else's: what one lacks of the contract, and what it raises, said in a sentence."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from typing import cast

from graphforge.errors import GraphForgeError, InternalError
from graphforge.targets.options import PRECISION, declared_options
from graphforge.targets.target import Target
from graphforge.user_code import is_ours, user_error

__all__ = ["asking", "check_contract", "shortcomings"]

# method -> the arguments that it is called with
_METHODS = {
    "available": (),
    "pipeline": ("options",),
    "emit": ("model", "folder", "options", "shapes"),
    "runner": ("folder",),
    "runs_here": ("folder",),
}
_TEXTS = ("name", "makes")


def check_contract(target: object, name: str | None = None, origin: str = "") -> None:
    """Refuse what is not a target.

    Args:
        target: what is taken for one.
        name: what users call it; None takes its own word.
        origin: where it came from, for the message.

    Raises:
        GraphForgeError: it lacks members of the contract, or declares an option that nobody could ask for.
    """
    lacking = list(shortcomings(target))
    own_name = getattr(target, "name", None)
    if not lacking and name not in (None, own_name):
        lacking.append(f"it calls itself {own_name!r}, and its entry point {name!r}")
    if lacking:
        called = name or own_name or type(target).__name__
        raise GraphForgeError(
            f"target {called!r}{f' ({origin})' if origin else ''} does not fulfil the contract: {'; '.join(lacking)}",
            "graphforge/targets/README.md shows a complete target",
        )


@contextmanager
def asking(target: Target, what: str) -> Iterator[None]:
    """An exception out of somebody else's target, while it is asked for ``what``, is told as theirs and not as ours.

    Raises:
        UserCodeError: the target's own code raised.
    """
    try:
        yield
    except (GraphForgeError, InternalError):
        raise
    except Exception as error:
        package = type(target).__module__.partition(".")[0]
        frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
        if is_ours(package) or not any(str(name).partition(".")[0] == package for name in frames):
            raise
        raise user_error(f"target {target.name!r} failed when asked for {what}", error) from error


def shortcomings(target: object) -> Iterator[str]:
    """Every way in which something falls short of a target, in words; nothing where it is one."""
    if isinstance(target, type):
        yield f"it is the class {target.__name__}, expected an instance of it"
        return
    absent = [member for member in (*_TEXTS, "options", "tables", *_METHODS) if not hasattr(target, member)]
    if absent:
        yield f"it has no {', '.join(absent)}"
    for member in _TEXTS:
        if member not in absent and not isinstance(getattr(target, member), str):
            yield f"its {member} is not a text"
    for method, arguments in _METHODS.items():
        if method not in absent:
            yield from _unfit_method(getattr(target, method), method, arguments)
    one = cast(Target, target)
    if "tables" not in absent and (isinstance(one.tables, str) or not isinstance(one.tables, Sequence)):
        yield "its tables are not a sequence of names"
    if "options" not in absent:
        yield from _unfit_options(one)


def _unfit_method(method: object, name: str, arguments: tuple[str, ...]) -> Iterator[str]:
    if not callable(method):
        yield f"its {name} is not a method"
        return
    try:
        inspect.signature(method).bind(*arguments)
    except TypeError:
        yield f"its {name} does not take ({', '.join(arguments)})"


def _unfit_options(target: Target) -> Iterator[str]:
    declared = target.options
    frozen = getattr(getattr(declared, "__dataclass_params__", None), "frozen", False)
    if not isinstance(declared, type) or not is_dataclass(declared) or not frozen:
        yield "its options are not a frozen dataclass"
        return
    without = [one.name for one in fields(declared) if one.default is MISSING or not one.metadata]
    if without:
        yield f"of its options, {', '.join(without)} is not declared by option(default, help=...)"
        return
    try:
        options = {one.name: one for one in declared_options(target)}
    except NameError as error:
        yield f"the types of its options cannot be read: {error}"
        return
    if PRECISION not in options or not options[PRECISION].values:
        yield 'its options have no precision, declared as precision: str = option("NAME", values={"NAME": "help"}, ...)'
    for one in options.values():
        if not one.help:
            yield f"its option {one.name} has no help"
        if one.values and one.default is not None and str(one.default) not in one.values:
            yield f"the default of its option {one.name}, {one.default!r}, is not among its values"
