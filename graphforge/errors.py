"""The two families of failure: what a user can fix (GraphForgeError) and what we must fix (InternalError)."""

from __future__ import annotations

__all__ = [
    "CaptureError",
    "GraphForgeError",
    "InternalError",
    "LoweringError",
    "UsageError",
    "UserCodeError",
    "VerificationError",
]


class GraphForgeError(Exception):
    """A user's mistake or a limit of ours: shown without a traceback, exit code 1.

    Args:
        message: lower-case statement, what was expected and what came, no full stop.
        notes: ways out, one line each, printed as ``note: ...``.
    """

    exit_code = 1

    def __init__(self, message: str, *notes: str) -> None:
        super().__init__(message)
        self.message = message
        self.notes = tuple(note for note in notes if note)

    def add_note(self, note: str) -> None:
        """One more way out, learnt on the way up."""
        self.notes += (note,)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  note: {note}" for note in self.notes)])


class UsageError(GraphForgeError):
    """The command line or an argument is malformed: exit code 2."""

    exit_code = 2


class CaptureError(GraphForgeError):
    """No way of capturing the model worked; the notes say why each failed."""


class LoweringError(GraphForgeError):
    """An operator of the captured program has no lowering; names the op, the module path and the source line."""


class UserCodeError(GraphForgeError):
    """Code of the user's (a model, a pass, a substitute) raised; names the exception and the line in their file."""


class VerificationError(GraphForgeError):
    """The artifact does not agree with the reference; names outputs, differences and the first suspect."""


class InternalError(Exception):
    """A bug of ours: shown with its traceback and, where there is one, the reproducer written to disk."""
