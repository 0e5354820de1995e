"""The how-to tells the truth: every command in it runs as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from graphforge.cli.main import run

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "graphforge" / "verbs" / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- (?P<order>file: \S+|run) -->\n```\w+\n(?P<code>.*?)```", re.DOTALL)
QUESTIONS = ("capture", "verify", "Which layer", "Which pass", "Which precision")


def test_every_command_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = list(BLOCK.finditer(TEXT))
    assert len(blocks) >= 10
    for block in blocks:
        if block["order"].startswith("file: "):
            (tmp_path / block["order"].removeprefix("file: ")).write_text(block["code"])
            continue
        for line in block["code"].splitlines():
            program, *arguments = shlex.split(line)
            assert program == "graphforge"
            code = run(arguments)
            told = capsys.readouterr()
            assert code == 0, f"{line}\n{told.out}\n{told.err}"
            assert told.out
    assert (tmp_path / "page.html").is_file()


def test_every_question_has_a_command() -> None:
    parts = TEXT.split("\n## ")[1:]
    assert all("<!-- run -->" in part for part in parts)
    titles = [part.partition("\n")[0] for part in parts]
    assert [word for word in QUESTIONS if not any(word in title for title in titles)] == []
