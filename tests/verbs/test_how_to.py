"""The how-to tells the truth: every command in it runs as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "graphforge" / "verbs" / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- (?P<order>file: \S+|run) -->\n```\w+\n(?P<code>.*?)```", re.DOTALL)


def test_every_command_runs_as_written(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    blocks = list(BLOCK.finditer(TEXT))
    assert len(blocks) >= 9
    for block in blocks:
        if block["order"].startswith("file: "):
            (tmp_path / block["order"].removeprefix("file: ")).write_text(block["code"])
            continue
        done = subprocess.run(
            ["bash", "-e", "-c", block["code"]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block['code']}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "page.html").is_file()


def test_every_question_has_a_command() -> None:
    parts = TEXT.split("\n## ")[1:]
    assert len(parts) >= 7
    assert all("<!-- run -->" in part for part in parts)
