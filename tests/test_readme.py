"""The README tells the truth: its files are written, its marked commands and programs run, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
# a comment that says what to do with the code block below it
_ORDER = r"<!-- (?P<order>file: \S+|run(?: if \w+| in clone)?) -->"
_BLOCK = re.compile(_ORDER + r"\n```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


def _blocks() -> list[tuple[str, str, str]]:
    return [(match["order"], match["language"], match["code"]) for match in _BLOCK.finditer(README)]


def test_tour_runs_as_written(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }
    ran = 0
    for order, language, code in _blocks():
        if order.startswith("file: "):
            (tmp_path / order.removeprefix("file: ")).write_text(code)
            continue
        in_clone = order == "run in clone"
        needed = "" if in_clone else order.removeprefix("run").removeprefix(" if ")
        if needed and importlib.util.find_spec(needed) is None:
            continue
        command = ["bash", "-e", "-c", code] if language == "sh" else [sys.executable, "-c", code]
        folder = ROOT if in_clone else tmp_path
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 5
    assert (tmp_path / "out" / "net" / "model.onnx").is_file()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_commands_of_the_first_section_are_there() -> None:
    for script in ("demo", "test"):
        assert f"scripts/{script}" in README
        assert os.access(ROOT / "scripts" / script, os.X_OK)
