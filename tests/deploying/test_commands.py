"""The commands that take the place of MMDeploy's: each has options that there are, and presets that there are."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import click
import pytest

import graphforge.deploying
from graphforge.cli.main import cli
from graphforge.deploying import preset_names
from scripts.bench_openmmlab_commands import commands_for_targets, commands_of_document

DOCUMENT = Path(graphforge.deploying.__file__).parent / "commands.md"
COMMANDS = commands_of_document(DOCUMENT.read_text())


def test_the_document_has_what_is_run() -> None:
    assert len(COMMANDS) >= 20
    assert {one.split()[1] for one in COMMANDS} == {
        "compile",
        "evaluate",
        "pipeline",
        "presets",
        "profile",
        "publish",
        "run",
    }


@pytest.mark.parametrize("line", [*COMMANDS, *commands_for_targets()])
def test_a_command_is_one_of_ours(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("human-pose.jpg").touch()
    _, verb, *arguments = shlex.split(line)
    with click.Context(cli) as context:
        found = cli.get_command(context, verb)
        assert found is not None
        found.make_context(verb, arguments, context)  # an unknown option or a wrong value raises
    for option, value in itertools.pairwise(arguments):
        if option == "--deploy-config" and not value.endswith(".py"):
            assert value in preset_names()
