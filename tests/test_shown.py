"""One way of showing: what a report prints is its rich form and its HTML, and nothing in it becomes markup or a tag."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from graphforge.shown import Shown

HOSTILE = "<script>alert('x')</script> [link=javascript:alert(1)]here[/link] [red]red[/red] & \"quoted\""


@dataclass(frozen=True, slots=True, repr=False)
class Hostile(Shown):
    """A report whose text comes from somebody else."""

    text: str

    def summary(self) -> str:
        """The text."""
        return self.text

    def render(self, console: Console) -> None:
        """The text, as reports print what is not theirs."""
        console.print(f"[green]ok[/green] {escape(self.text)}", soft_wrap=True)

    def pictures(self) -> tuple[bytes, ...]:
        """No picture, but bytes all the same."""
        return (b'"><b>',)


def test_html_is_escaped() -> None:
    html = Hostile(HOSTILE)._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<a " not in html
    assert "[link=javascript:alert(1)]" in html
    assert "<b>" not in html
    assert 'src="data:image/png;base64,Ij48Yj4="' in html


def test_short_form_is_one_line_with_the_class() -> None:
    assert repr(Hostile("fine")) == "<Hostile: fine>"


def test_terminal_and_notebook_keep_colours_apart() -> None:
    console = Console(record=True, width=40, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Hostile("x" * 60))
    text = console.export_text(styles=True)
    assert "\x1b[32mok" in text
    assert text.count("x") == 60  # folded, not cut off
    written = io.StringIO()
    Console(width=40, file=written, color_system=None).print(Hostile("fine"))
    assert written.getvalue() == "ok fine\n"
    assert 'style="color: #' in Hostile("fine")._repr_html_()


def test_a_notebook_has_the_summary_above_what_has_to_be_scrolled() -> None:
    @dataclass(frozen=True, slots=True, repr=False)
    class Long(Hostile):
        lines: int = 0

        def render(self, console: Console) -> None:
            """As many lines."""
            for number in range(self.lines):
                console.print(f"line {number}")

    long, short = (Long("[bold]wrong[/bold] here", lines)._repr_html_() for lines in (60, 20))
    assert 0 < long.index("[bold]wrong[/bold] here") < long.index("line 0")
    assert "here" not in short


def test_colours_in_a_notebook_can_be_read_on_white_and_on_black() -> None:
    html = Hostile("[dim]a[/] [dim green]b[/] [green]c[/] [red]d[/] [yellow]e[/] [cyan]f[/] [blue]g[/] [magenta]h[/]")
    for colour in re.findall(r"color: #([0-9a-f]{6})", html._repr_html_()):
        channels = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        light = [c / 12.92 if c <= 0.04 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        luminance = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]
        assert 1.05 / (luminance + 0.05) > 4.5, colour
        assert (luminance + 0.05) / 0.05 > 3, colour
