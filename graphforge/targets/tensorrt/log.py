"""TensorRT's log, collected: why something failed is only in its log, never in a return value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Log", "collect_log", "in_words", "vendor_logger"]


@dataclass(slots=True)
class Log:
    """Warnings and errors of one build, in order."""

    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


# TensorRT keeps the first logger it is given for the life of the process and ignores later ones; so there is
# one per flavour, and it writes into whichever log is open.
_LOGGERS: dict[str, Any] = {}
_OPEN: list[Log] = []


def vendor_logger(trt: Any) -> Any:
    """The process's one ``ILogger`` for this flavour."""
    name = trt.__name__
    if name in _LOGGERS:
        return _LOGGERS[name]
    severity = trt.ILogger.Severity
    errors, warnings = (severity.ERROR, severity.INTERNAL_ERROR), (severity.WARNING,)

    def start(self: Any) -> None:
        trt.ILogger.__init__(self)

    def log(self: Any, level: Any, message: str) -> None:
        if level in errors:
            for opened in _OPEN:
                opened.errors.append(message)
        elif level in warnings:
            for opened in _OPEN:
                opened.warnings.append(message)

    # Made by type(): the base class is known only once the vendor's module is loaded.
    _LOGGERS[name] = type("GraphForgeLogger", (trt.ILogger,), {"__init__": start, "log": log})()
    return _LOGGERS[name]


@contextmanager
def collect_log() -> Iterator[Log]:
    """Warnings and errors that TensorRT logs inside the block."""
    log = Log()
    _OPEN.append(log)
    try:
        yield log
    finally:
        _OPEN.remove(log)


def in_words(message: str) -> str:
    """A line of the log without the function that wrote it, its code and its place in the vendor's source.

    ``IRuntime::load: Error Code 6: API Usage Error (No. In f at /_src/a.cpp:84)`` says ``No.``
    """
    found = re.fullmatch(r"(?:[\w:]+: )?Error Code \d+: [^()]*\((.*)\)\s*", message, re.DOTALL)
    said = message if found is None else re.sub(r" In \w+ at \S+:\d+$", "", found[1])
    return " ".join(said.split())
