"""The two families of failure: what a user can fix (GraphForgeError) and what we must fix (InternalError)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Self

__all__ = [
    "CaptureError",
    "GraphForgeError",
    "InternalError",
    "LoweringError",
    "UndecidedError",
    "UsageError",
    "UserCodeError",
    "VerificationError",
    "argument",
    "as_argument",
    "worded",
]

# Characters that no message has for itself: what stands between them is an argument, its name and its value in JSON.
_ARGUMENT = re.compile("\ue000(.*?)\ue001")


def argument(name: str, value: Any = None) -> str:
    """An argument in a message: the library says which one, who called says how it is written.

    In a `GraphForgeError` it reads as Python has it, ``opset=17``; the command line makes a flag of it.

    Args:
        name: the argument's name in Python.
        value: what to give it; a word in capitals (``FILE``) stands for a value; None is the name alone.
    """
    return f"\ue000{json.dumps([name, value])}\ue001"


def as_argument(name: str, value: Any) -> str:
    """An argument as Python writes it: ``opset=17``, ``output=DIR``, or the name alone."""
    if value is None:
        return name
    if name == "limits" and isinstance(value, dict):
        return f"with graphforge.limits({', '.join(f'{key}={number}' for key, number in value.items())})"
    return f"{name}={value if isinstance(value, str) and value.isupper() else repr(value)}"


def worded(text: str, how: Callable[[str, Any], str] = as_argument) -> str:
    """A text with its arguments written out; ``how`` makes words of a name and a value."""
    return _ARGUMENT.sub(lambda match: how(*json.loads(match[1])), text)


class GraphForgeError(Exception):
    """A user's mistake or a limit of ours: shown without a traceback, exit code 1.

    Args:
        message: lower-case statement, what was expected and what came, no full stop.
        notes: ways out, one line each, printed as ``note: ...``.

    Both may hold an ``argument(...)``; `message` and `notes` have it in Python's words.
    """

    exit_code = 1

    def __init__(self, message: str, *notes: str) -> None:
        self._given = (message, *(note for note in notes if note))
        super().__init__(worded(message))

    @property
    def given(self) -> tuple[str, ...]:
        """Message and notes as they were given, for another error that says the same and more."""
        return self._given

    @property
    def message(self) -> str:
        """What was expected and what came."""
        return worded(self._given[0])

    @property
    def notes(self) -> tuple[str, ...]:
        """The ways out."""
        return tuple(worded(note) for note in self._given[1:])

    def with_notes(self, *notes: str) -> Self:
        """The same error with further ways out at its end."""
        return type(self)(*self._given, *notes)

    def told(self, how: Callable[[str, Any], str]) -> tuple[str, ...]:
        """The message and the notes with every argument worded by ``how``."""
        return tuple(worded(text, how) for text in self._given)

    def add_note(self, note: str) -> None:
        """One more way out, learnt on the way up."""
        self._given += (note,) if note else ()

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  note: {note}" for note in self.notes)])


class UsageError(GraphForgeError):
    """The command line or an argument is malformed: exit code 2."""

    exit_code = 2


class CaptureError(GraphForgeError):
    """No way of capturing the model worked; the notes say why each failed.

    Attributes:
        long_text: all that torch said about it, which is too long for notes.
    """

    long_text: str = ""


class LoweringError(GraphForgeError):
    """An operator of the captured program has no lowering; names the op, the module path and the source line."""


class UserCodeError(GraphForgeError):
    """Code of the user's (a model, a pass, a substitute) raised; names the exception and the line in their file."""


class VerificationError(GraphForgeError):
    """The artifact does not agree with the reference; names outputs, differences and the first suspect.

    Attributes:
        at_small_sizes: whether it agrees wherever all sizes are large enough that no part of one is 0 or 1.
        by_statement: whether shapes were taken from what the model's file states, where nodes do not tell them.
    """

    at_small_sizes: bool = False
    by_statement: bool = False


class UndecidedError(VerificationError):
    """Nothing proves the artifact right or wrong; it is kept, and says so."""


class InternalError(Exception):
    """A bug of ours: shown with its traceback and, where there is one, the reproducer written to disk."""
