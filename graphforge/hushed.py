"""What torch would print on the terminal while something fails, kept as a text; and files for texts that are too long.

torch tells a failed capture several times: in the exception, in its log, and by `print`, graph dumps included.  All of
it together may be hundreds of kilobytes, of which a message of ours repeats the few lines that say something.  Who
needs the rest finds it in a file.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

__all__ = ["MOST_LINES", "Transcript", "hushed", "in_a_screen", "leave_long_text"]

# A message of ours is to fit a screen.
MOST_LINES = 25
# Beyond this a dump helps nobody.
_MOST_CHARACTERS = 1 << 21

_one_at_a_time = threading.RLock()
# Where torch calls `print` itself: the exporter and whatever runs a graph module print the code that failed.
_PRINTING = ("torch.export._trace", "torch.fx.graph_module")


class Transcript:
    """What was said, as far as it is kept."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0

    def add(self, text: str) -> None:
        """Keep a text, unless there is too much already."""
        if text and self._length < _MOST_CHARACTERS:
            self._parts.append(text[:_MOST_CHARACTERS])
            self._length += len(text)

    def add_error(self, heading: str, error: BaseException) -> None:
        """Keep an exception with its traceback."""
        self.add(f"== {heading}\n{''.join(traceback.format_exception(error))}")

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self._parts)


class _Keeping(logging.Handler):
    def __init__(self, transcript: Transcript) -> None:
        super().__init__()
        self.transcript = transcript

    def emit(self, record: logging.LogRecord) -> None:
        """As every handler."""
        self.transcript.add(self.format(record))


@contextmanager
def hushed(transcript: Transcript | None = None) -> Iterator[Transcript]:
    """Inside, what torch logs and prints goes to the transcript; with TORCH_LOGS in the environment all is as ever."""
    kept = Transcript() if transcript is None else transcript
    if os.environ.get("TORCH_LOGS"):
        yield kept
        return

    def said(*told: object, **how: object) -> None:
        kept.add(" ".join(map(str, told)))

    with _one_at_a_time:
        handler = _Keeping(kept)
        names = [name for name in logging.root.manager.loggerDict if name == "torch" or name.startswith("torch.")]
        loggers = [logging.getLogger(name) for name in dict.fromkeys(("torch", *names))]
        before: list[tuple[logging.Logger, list[logging.Handler], bool]] = [
            (logger, list(logger.handlers), logger.propagate) for logger in loggers
        ]
        for logger in loggers:
            logger.handlers = [handler] if logger.name == "torch" else []
            logger.propagate = logger.name != "torch"
        modules: list[dict[str, Any]] = [vars(import_module(name)) for name in _PRINTING]
        printing = [module.get("print") for module in modules]
        for module in modules:
            module["print"] = said
        try:
            yield kept
        finally:
            for module, own in zip(modules, printing, strict=True):
                if own is None:
                    module.pop("print", None)
                else:
                    module["print"] = own
            for logger, handlers, propagate in before:
                logger.handlers, logger.propagate = handlers, propagate


def leave_long_text(text: str, kind: str) -> str:
    """Write a text that is too long for a message to a file of its own; its path, "" where none can be written."""
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"graphforge-{kind}-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError:
        return ""
    return path


def in_a_screen(told: tuple[str, ...]) -> tuple[str, ...]:
    """Message and notes in at most ``MOST_LINES`` lines: long notes are cut, then the middle ones left out.

    What is left out is written to a file, and the last note says where.

    Args:
        told: the message, then the notes.
    """
    if sum(text.count("\n") + 1 for text in told) <= MOST_LINES:
        return told
    message, *notes = (_first_lines(text, 6) for text in told)
    kept: list[str] = []
    left = MOST_LINES - 2 - message.count("\n")
    for note in notes:
        if note.count("\n") + 1 <= left:
            kept.append(note)
            left -= note.count("\n") + 1
    path = leave_long_text("\n".join(told) + "\n", "message")
    return (message, *kept, f"shortened; the whole message is in {path}" if path else "shortened")


def _first_lines(text: str, most: int) -> str:
    lines = text.split("\n")
    return text if len(lines) <= most else "\n".join([*lines[: most - 1], f"... {len(lines) - most + 1} more lines"])
