"""How reports show themselves: one line as `repr`, a table in a terminal, the same table in a notebook."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.terminal_theme import TerminalTheme

__all__ = ["Shown", "short_source"]

# As wide as a notebook's cell is on a laptop.
_WIDTH = 118
# Lines that a notebook shows without scrolling.
_SEEN = 40
_TEXT = (
    '<pre style="white-space:pre;overflow:auto;max-height:40em;line-height:1.15;font-size:0.85em;margin:0;'
    "font-family:Menlo,'DejaVu Sans Mono',Consolas,'Courier New',monospace\">{code}</pre>"
)
# Red, green, yellow, blue, magenta and cyan that can be read on white and on black.  What is dim lies half way between
# its colour and this grey, which can be read on both as well.
_INKS = [(200, 40, 40), (20, 120, 40), (138, 97, 0), (40, 90, 200), (150, 50, 150), (0, 117, 127)]
_GREY = (110, 110, 110)
_PICTURE = '<img src="data:image/png;base64,{data}" style="max-width:100%;margin-top:0.5em" alt="{alt}">'


def short_source(source: str) -> str:
    """A source line as tables show it: from the working folder on, or from the installed package on."""
    marker = "/site-packages/"
    if marker in source:
        return source.rpartition(marker)[2]
    if "/ipykernel_" in source:  # a cell of a notebook: its file stands in a folder for the session
        return source.rpartition("/")[2]
    return source.removeprefix(f"{Path.cwd()}/")


class Shown:
    """A report that prints itself by `render`; from that come its `repr`, its rich form and its HTML.

    A dataclass among these is made with ``repr=False``, so that the short form here stands.
    """

    __slots__ = ()

    def summary(self) -> str:
        """What it says, in one line."""
        raise NotImplementedError

    def render(self, console: Console) -> None:
        """Print all of it."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        raise NotImplementedError

    def pictures(self) -> Sequence[bytes]:
        """PNG files that a notebook shows below the text."""
        return ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary()}>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[RenderableType]:
        from rich.text import Text

        inner = _recorder(options.max_width, colours=console.color_system is not None)
        self.render(inner)
        yield Text.from_ansi(inner.export_text(styles=True).rstrip("\n"), overflow="fold")

    def _repr_html_(self) -> str:
        recorder = _recorder(_WIDTH, colours=True)
        recorder.print(self)
        if recorder.export_text(clear=False).count("\n") > _SEEN:  # what a long table comes to stands above it as well
            recorder = _recorder(_WIDTH, colours=True)
            recorder.print(self.summary(), style="bold", markup=False, soft_wrap=True)
            recorder.print()
            recorder.print(self)
        text = recorder.export_html(theme=_theme(), inline_styles=True, code_format=_TEXT)
        pictures = (_PICTURE.format(data=base64.b64encode(one).decode(), alt="picture") for one in self.pictures())
        return "".join([text, *pictures])


def _theme() -> TerminalTheme:
    from rich.terminal_theme import TerminalTheme

    colours = [_GREY, *_INKS, _GREY]
    return TerminalTheme(_GREY, _GREY, colours, colours)


def _recorder(width: int, *, colours: bool) -> Console:
    """A console that keeps what is printed; a notebook or a terminal around it makes no difference."""
    from rich.console import Console

    return Console(
        record=True,
        file=io.StringIO(),
        width=width,
        highlight=False,
        force_jupyter=False,
        force_terminal=True,
        color_system="truecolor" if colours else None,
        legacy_windows=False,
        _environ={},
    )
