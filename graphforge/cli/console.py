"""What the command prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

__all__ = ["print_error", "print_json", "print_text", "progress", "stderr", "stdout"]


# Names come from files: a terminal is to show their control characters, not to obey them.
_WITHOUT_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")


def stdout() -> Console:
    """The console for results; wide when it is not a terminal, so that tables in files and pipes keep their cells."""
    return _console(to_stderr=False)


def stderr() -> Console:
    """The console for progress and messages."""
    return _console(to_stderr=True)


def print_error(message: str, notes: Iterable[str] = ()) -> None:
    """`error: ...` and its notes on stderr; plain text, so that it can be read by people and by programs."""
    lines = [f"error: {message}", *(f"  note: {note}" for note in notes if note)]
    print("\n".join(lines).translate(_WITHOUT_CONTROL), file=sys.stderr, flush=True)


def print_text(text: str, *, colours: bool | None = None, to_stderr: bool = False) -> None:
    """Text with names from files in it; of control characters only colours of ours are kept."""
    import click

    pieces = _COLOUR.split(text) if colours else [text]  # what the expression finds stands at every second place
    shown = (piece if at % 2 else piece.translate(_WITHOUT_CONTROL) for at, piece in enumerate(pieces))
    click.echo("".join(shown), err=to_stderr, color=colours)


def print_json(document: object) -> None:
    """The one JSON document of `--json` on stdout; NaN and infinities, which JSON cannot say, become text."""
    # through a text first: a document that cannot be told must not leave half of itself on stdout
    text = json.dumps(json.loads(json.dumps(document, default=_plain), parse_constant=str), indent=2)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A function that is told which step begins; shows it with its running time on a terminal's stderr."""
    console = None if quiet else stderr()
    if console is None or not console.is_terminal:
        yield _say_nothing
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as display:
        task = display.add_task("starting")

        def begin(step: str) -> None:
            display.reset(task, description=step)

        yield begin


def _say_nothing(step: str) -> None:
    """Not a terminal, or `--json`: progress would only litter a log."""


def _console(*, to_stderr: bool) -> Console:
    kind = _console_class()
    console = kind(stderr=to_stderr, highlight=False, soft_wrap=False)
    return console if console.is_terminal else kind(stderr=to_stderr, highlight=False, width=160)


@functools.cache
def _console_class() -> type[Console]:
    """rich's console, which shows control characters of what it is given instead of passing them on."""
    from rich.console import Console
    from rich.segment import Segment

    class Showing(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control is None and _CONTROL.search(segment.text):
                    yield Segment(segment.text.translate(_WITHOUT_CONTROL), segment.style)
                else:
                    yield segment

    return Showing


def _plain(value: object) -> Any:
    """JSON for what json does not know: anything with `to_dict`, paths, numpy scalars."""
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict):
        return to_dict()
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    return str(value)
