"""The registry: built-ins, users' files, clashes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from graphforge.errors import GraphForgeError, UsageError
from graphforge.transform import PassRegistry, default_registry, load_pass_from_file
from tests.transform.toys import DropDoubleNeg, ReluToClip

USER_PASS = '''
from dataclasses import dataclass
from typing import ClassVar
from graphforge.transform import Pass

@dataclass(frozen=True)
class Mine(Pass):
    """Do nothing."""
    name: ClassVar[str] = "mine"
    level: int = 3
    def run(self, graph, rewriter): ...
'''


def test_every_builtin_pass_loads_under_its_name() -> None:
    registry = default_registry()
    assert registry.names()
    for name in registry.names():
        found = registry.get(name)
        assert found.name == name
        assert found.summary()


def test_two_passes_of_one_name_are_an_error() -> None:
    registry = PassRegistry()
    registry.add_class(DropDoubleNeg, "here")
    registry.add_class(DropDoubleNeg, "here")
    with pytest.raises(GraphForgeError, match="two passes are called 'drop-double-neg': one from here, one from there"):
        registry.add("drop-double-neg", lambda: ReluToClip, "there")


def test_loads_a_pass_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(USER_PASS)
    found = load_pass_from_file(f"{file}:Mine")
    assert found.name == "mine"
    assert found.option_names() == ["level"]
    assert load_pass_from_file(str(file)) is found


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mine.txt:Mine", "write it as FILE.py:Class"),
        ("absent.py:Mine", "there is no file"),
        ("mine.py:Yours", "has no pass 'Yours'"),
        ("mine.py:dataclass", "has no pass 'dataclass'"),
        ("broken.py:Mine", "cannot be loaded: SyntaxError"),
        ("raises.py:Mine", "cannot be loaded: ValueError: no"),
        ("unnamed.py:Mine", "needs a name of lower-case words"),
    ],
)
def test_files_that_bring_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(USER_PASS)
    Path("broken.py").write_text("class")
    Path("raises.py").write_text("raise ValueError('no')")
    Path("unnamed.py").write_text(USER_PASS.replace('"mine"', '""'))
    with pytest.raises((GraphForgeError, UsageError)) as caught:
        load_pass_from_file(spec)
    assert message in str(caught.value)


def test_import_brings_neither_torch_nor_onnxruntime() -> None:
    code = "import sys, graphforge.transform; print([m for m in ('torch', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
