"""Declarations and how far they reach: those of the process, and those of the scopes around the caller.

A declaration made inside a scope ends with it and is seen by nobody else: scopes are kept in a context variable, so
each thread (and each asyncio task) has its own.  What a module declares while Python imports it belongs to the process
even then, for it will not be imported again when the next scope opens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from graphforge.user_files import is_outdated

__all__ = ["Declared", "Scope"]

T = TypeVar("T")
_MACHINERY = frozenset({"graphforge.scopes", "graphforge.frontend.substitution", "graphforge.ops.custom_op"})


@dataclass(frozen=True, slots=True, eq=False)
class _Entry(Generic[T]):
    item: T
    names: dict[str, Any]  # of the module that declared it


class Scope(Generic[T]):
    """What is declared in one place: a ``with`` block, or a file that was read for one call.

    Attributes:
        folder: modules below it that are imported meanwhile declare in this scope too; None for none.
    """

    def __init__(self, items: Iterable[T] = (), *, folder: Path | None = None) -> None:
        self.folder = folder
        self._entries = [_Entry(item, {}) for item in items]

    def items(self) -> list[T]:
        """What is declared here, in order; not what an earlier state of an edited file declared."""
        return [entry.item for entry in self._entries if not is_outdated(entry.names)]

    def add(self, item: T, names: dict[str, Any], replacing: Callable[[T], bool]) -> list[T]:
        """Declare; returns what it takes the place of."""
        gone = [entry.item for entry in self._entries if replacing(entry.item)]
        self._entries = [entry for entry in self._entries if not replacing(entry.item)]
        self._entries.append(_Entry(item, names))
        return gone

    def remove(self, matches: Callable[[T], bool]) -> list[T]:
        """Forget; returns what was forgotten."""
        gone = [entry.item for entry in self._entries if matches(entry.item)]
        self._entries = [entry for entry in self._entries if not matches(entry.item)]
        return gone


class Declared(Generic[T]):
    """All declarations of one kind."""

    def __init__(self, kind: str) -> None:
        self.process: Scope[T] = Scope()
        self._scopes: ContextVar[tuple[Scope[T], ...]] = ContextVar(f"graphforge_{kind}", default=())

    def destination(self) -> tuple[Scope[T], dict[str, Any]]:
        """Where a declaration made by the caller goes, and the names of the caller's module."""
        names = _declaring_names()
        scopes = self._scopes.get()
        if not scopes:
            return self.process, names
        spec, file = names.get("__spec__"), names.get("__file__")
        being_imported = bool(getattr(spec, "_initializing", False))
        folder = scopes[-1].folder
        if being_imported and not (folder and file and Path(file).resolve().is_relative_to(folder)):
            return self.process, names
        return scopes[-1], names

    def scopes(self) -> tuple[Scope[T], ...]:
        """The scopes around the caller, the innermost last; without the process."""
        return self._scopes.get()

    def withdraw(self, matches: Callable[[T], bool]) -> list[T]:
        """Forget in every scope around the caller and in the process; returns what was forgotten."""
        return [item for scope in (self.process, *self.scopes()) for item in scope.remove(matches)]

    @contextmanager
    def scope(self, scope: Scope[T]) -> Iterator[Scope[T]]:
        """What is in the scope, and what is declared inside the block, counts until the block ends."""
        token = self._scopes.set((*self._scopes.get(), scope))
        try:
            yield scope
        finally:
            self._scopes.reset(token)

    @contextmanager
    def for_the_process(self) -> Iterator[None]:
        """What is declared inside the block belongs to the process, whatever scope is around it."""
        token = self._scopes.set(())
        try:
            yield
        finally:
            self._scopes.reset(token)


def _declaring_names() -> dict[str, Any]:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in _MACHINERY:
        frame = frame.f_back
    return frame.f_globals
