"""`graphforge.report`: one bundle as a page for the browser, which a notebook shows as it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphforge.shown import Shown

if TYPE_CHECKING:
    from rich.console import Console

    from graphforge.shown import Shown

__all__ = ["Page", "report"]


@dataclass(frozen=True, slots=True, repr=False)
class Page(Shown):
    """A page that was written.

    Attributes:
        path: the HTML file.
    """

    path: Path

    def summary(self) -> str:
        """Where it is."""
        return str(self.path)

    def render(self, console: Console) -> None:
        """Print where it is."""
        console.print(f"written: {self.path}", soft_wrap=True, markup=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"report": str(self.path)}

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        """The page itself, in a frame of its own, so that its style and the notebook's do not meet."""
        page = escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe sandbox srcdoc="{page}" style="width:100%;height:36em;border:1px solid #8888"></iframe>'


def report(
    bundle: str | os.PathLike[str], output: str | os.PathLike[str] | None = None, *, diff: Shown | None = None
) -> Page:
    """Write a bundle's steps, passes, operators and verification as one self-contained HTML page.

    Args:
        bundle: a ``Bundle`` or its folder.
        output: file to write; None is ``report.html`` in the bundle.
        diff: a layer-wise diff to show as well.

    Raises:
        GraphForgeError: the folder is not a bundle, or the file cannot be written.
    """
    from graphforge.page import write_report

    return Page(write_report(Path(bundle), None if output is None else Path(output), diff=diff))
