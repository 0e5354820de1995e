"""Options as the command line writes them: the library names an argument, here it becomes a flag."""

from __future__ import annotations

import shlex
from typing import Any

__all__ = ["flag"]

# Arguments whose flag has a name of its own; every other is `--name`, with dashes.
_NAMES = {
    "dynamic_shapes": "--dynamic",
    "fail_codes": "--fail-code",
    "further_inputs": "--input-file",
    "inputs": "--input",
    "limits": "--limit",
    "output": "-o",
    "passes": "--pass",
    "ranges": "--range",
    "substitutes": "--substitute",
    "target_options": "--option",
}


def flag(name: str, value: Any = None) -> str:
    """``--opset 17``; a switch has no value, one that is switched off is ``--no-name``."""
    written = _NAMES.get(name, f"--{name.replace('_', '-')}")
    if value is None or value is True:
        return written
    if value is False:
        return f"--no-{name.replace('_', '-')}"
    if isinstance(value, dict):
        return " ".join(f"{written} {_quoted(f'{key}={one}')}" for key, one in value.items())
    if isinstance(value, list):
        return " ".join(f"{written} {_quoted(str(one))}" for one in value)
    return f"{written} {_quoted(str(value))}"


def _quoted(text: str) -> str:
    """A word as a shell takes it; with quotes wherever a reader would wonder."""
    plain = shlex.quote(text)
    return f"'{text}'" if plain == text and ":" in text else plain
