"""The command answers at once, teaches by example, and imports nothing heavy to do so."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

import graphforge
from graphforge.cli.main import cli
from graphforge.targets import target_names
from tests.cli.command import COMMAND, environment, run_command

VERBS = tuple(cli.list_commands(click.Context(cli)))
HEAVY = ("torch", "numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "sympy", "rich", "polygraphy")


def test_help_lists_every_verb(tmp_path: Path) -> None:
    outcome = run_command("--help", cwd=tmp_path)
    assert outcome.code == 0
    assert {"compile", "inspect", "passes", "diff", "opset", "profile", "doctor"} <= set(VERBS)
    for verb in VERBS:
        assert f"\n  {verb} " in outcome.stdout


def test_without_arguments_it_is_the_help(tmp_path: Path) -> None:
    assert run_command(cwd=tmp_path) == run_command("--help", cwd=tmp_path)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_teaches_by_example(verb: str, tmp_path: Path) -> None:
    outcome = run_command(verb, "--help", cwd=tmp_path)
    assert outcome.code == 0
    assert f"Examples:\n    graphforge {verb}" in outcome.stdout


def test_help_of_compile_names_every_target(tmp_path: Path) -> None:
    words = " ".join(run_command("compile", "--help", cwd=tmp_path).stdout.split())
    told = words.partition("Where the model goes: ")[2].partition(" or one of your own")[0]
    assert told.split(", ") == list(target_names())


def test_help_answers_within_300_ms(tmp_path: Path) -> None:
    """Measured as processor time, which is what it takes on a machine that does nothing else; the best of three."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, "--help"], cwd=tmp_path, env=environment(), capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.3


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "--help"], ["compile", "nonsense", "--input", "x"]])
def test_nothing_heavy_is_imported_for_help_or_a_refusal(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "graphforge", *arguments],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "click" in imported
    assert not imported & set(HEAVY)


def test_importing_the_package_imports_nothing_heavy(tmp_path: Path) -> None:
    program = "import sys, graphforge; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert not set(eval(done.stdout)) & set(HEAVY)


def test_version(tmp_path: Path) -> None:
    assert run_command("--version", cwd=tmp_path).stdout.strip() == f"graphforge, version {graphforge.__version__}"


def test_every_public_name_is_there() -> None:
    for name in graphforge.__all__:
        assert getattr(graphforge, name) is not None
        assert name in dir(graphforge)


def test_compile_stays_the_function_after_its_module_is_imported() -> None:
    import importlib

    module = importlib.import_module("graphforge.compile")
    assert graphforge.compile is module.compile
    assert callable(graphforge.compile)


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        graphforge.nonsense  # noqa: B018
