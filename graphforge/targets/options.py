"""Read the options that only one target knows: Python objects, or text from the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphforge.errors import UsageError

__all__ = ["as_bool", "as_choice", "as_list", "check_known"]


def check_known(target: str, extra: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse options this target does not have.

    Raises:
        UsageError: an option's name is unknown.
    """
    names = sorted(known)
    for name in extra:
        if name in names:
            continue
        close = difflib.get_close_matches(name, names, n=1)
        raise UsageError(
            f"target {target!r} has no option {name!r}",
            f"did you mean {close[0]!r}?" if close else "",
            f"its options: {', '.join(names)}",
        )


def as_bool(target: str, name: str, value: object) -> bool:
    """``value`` as true or false.

    Raises:
        UsageError: it is neither a bool nor one of the words true, false, yes, no, on, off, 1, 0.
    """
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise UsageError(f"target {target!r}, option {name!r}: expected true or false, got {value!r}")


def as_choice(target: str, name: str, value: object, choices: Sequence[str]) -> str:
    """``value`` as one of ``choices``.

    Raises:
        UsageError: it is none of them.
    """
    text = str(value)
    if text in choices:
        return text
    close = difflib.get_close_matches(text, choices, n=1)
    raise UsageError(
        f"target {target!r}, option {name!r}: unknown value {text!r}",
        f"did you mean {close[0]!r}?" if close else "",
        f"known values: {', '.join(choices)}",
    )


def as_list(value: object) -> list[str]:
    """``value`` as a list of texts: a sequence as it is, a text split at its commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, Iterable):
        return [str(part) for part in value]
    return [str(value)]
