"""Messages say options in the caller's words: the library names the argument, the command line its flag."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import graphforge
from graphforge.cli.flags import flag
from graphforge.cli.main import cli
from graphforge.errors import GraphForgeError, UsageError, argument
from graphforge.spec import ShapeSpec, TensorSpec

ROOT = Path(graphforge.__file__).resolve().parent.parent
# Files whose strings are command lines: ours that show a fault again, and those of other programs.
_COMMAND_LINES = (
    "graphforge/page/commands.py",
    "graphforge/reproducer.py",
    "graphforge/targets/magicmind/shell.py",
    "graphforge/verbs/replay_line.py",
    "graphforge/verify/repro.py",
)
_FOLDERS = ("cli", "onboard")


def _flags() -> set[str]:
    with click.Context(cli) as context:
        commands = [cli.get_command(context, name) for name in cli.list_commands(context)]
    parameters = [parameter for command in commands if command for parameter in command.params]
    return {text for one in parameters if isinstance(one, click.Option) for text in (*one.opts, *one.secondary_opts)}


def _sources() -> Iterator[Path]:
    for folder in ("graphforge", "passes", "ops"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT)
            if inside.as_posix() not in _COMMAND_LINES and not set(_FOLDERS) & set(inside.parts):
                yield path


def _spoken(path: Path, flags: re.Pattern[str]) -> list[str]:
    strings = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant))
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value[:80]}"
        for node in strings
        if isinstance(node.value, str) and flags.search(node.value) and "mm_run" not in node.value
    ]


def _pattern() -> re.Pattern[str]:
    known = sorted(_flags() - {"--help", "-h"}, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, known))})(?![\w-])")


def test_no_text_outside_the_command_line_speaks_in_flags() -> None:
    """A flag in a string of the library is one that a caller from Python cannot follow."""
    pattern = _pattern()
    written = "to keep it --keep-unverified is there", "choose a folder with -o", "--option flavour=tensorrt"
    assert all(pattern.search(text) for text in written)
    assert [line for path in _sources() for line in _spoken(path, pattern)] == []


@pytest.mark.parametrize(
    ("placed", "in_python", "as_flag"),
    [
        (argument("opset", 17), "opset=17", "--opset 17"),
        (argument("opset"), "opset", "--opset"),
        (argument("output", "DIR"), "output=DIR", "-o DIR"),
        (argument("trust_pickle", True), "trust_pickle=True", "--trust-pickle"),
        (argument("verify", False), "verify=False", "--no-verify"),
        (argument("dynamic_shapes", "x:0=1..8"), "dynamic_shapes='x:0=1..8'", "--dynamic 'x:0=1..8'"),
        (argument("pipeline", "a,b{x=1}"), "pipeline='a,b{x=1}'", "--pipeline 'a,b{x=1}'"),
        (
            argument("target_options", {"flavour": "tensorrt"}),
            "target_options={'flavour': 'tensorrt'}",
            "--option flavour=tensorrt",
        ),
    ],
)
def test_option_is_worded_for_who_asks(placed: str, in_python: str, as_flag: str) -> None:
    error = GraphForgeError(f"wrong: {placed}", f"write {placed}")
    assert (error.message, *error.notes) == (f"wrong: {in_python}", f"write {in_python}")
    assert str(error) == f"wrong: {in_python}\n  note: write {in_python}"
    assert error.told(flag) == (f"wrong: {as_flag}", f"write {as_flag}")


def test_further_notes_keep_the_options_of_the_first() -> None:
    error = UsageError(f"no {argument('opset', 3)}").with_notes(f"or {argument('opset', 18)}", "")
    assert type(error) is UsageError
    assert error.told(flag) == ("no --opset 3", "or --opset 18")
    assert error.notes == ("or opset=18",)


def test_wrong_name_in_dynamic_shapes_is_told_in_both_words() -> None:
    spec = ShapeSpec((TensorSpec("image", (1, 3, 8, 8)),))
    with pytest.raises(UsageError) as caught:
        spec.with_dynamic({"x": {}})
    assert str(caught.value).splitlines() == [
        "dynamic_shapes names input 'x', but the inputs are: image",
        "  note: dynamic dims go by the inputs' names, for example dynamic_shapes='image:0=1..8'",
    ]
    assert caught.value.told(flag) == (
        "--dynamic names input 'x', but the inputs are: image",
        "dynamic dims go by the inputs' names, for example --dynamic 'image:0=1..8'",
    )
