"""Remake the pictures of the README from a real run: the command's own output, and what the compiled detector sees.

.venv/bin/python scripts/pictures.py
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console

from graphforge.summary import print_summary

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
COMMAND = "graphforge compile scripts/gallery/digits.py:detector --outputs padded -o out/digits"


def _run(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Compile the digit detector, and draw its terminal page and one of its pictures into docs/."""
    DOCS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run("-m", "graphforge", *COMMAND.split()[1:-1], folder / "digits", "--json")
        _run("scripts/gallery/save_canvases.py", folder / "canvases")
        seen = folder / "seen.png"
        canvas = folder / "canvases" / "canvas_0000.png"
        _run("-m", "graphforge", "run", folder / "digits", "--input", canvas, "--draw", seen)
        picture = Image.open(seen)
        picture.save(DOCS / "digits.png")
        manifest = json.loads((folder / "digits" / "manifest.json").read_text())
    console = Console(record=True, width=104, file=io.StringIO(), force_terminal=True)
    console.print(f"[bold]$[/bold] {COMMAND}", highlight=False)
    print_summary(console, Path("out/digits"), manifest)
    # the viewer's own fixed-width font: a picture in a README fetches nothing
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="graphforge compile"), flags=re.DOTALL)
    (DOCS / "compile.svg").write_text(re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL).replace("Fira Code, ", ""))


if __name__ == "__main__":
    main()
