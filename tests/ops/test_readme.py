"""ops/README.md: its examples compile as they stand there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphforge.cli.main import main
from graphforge.frontend.substitution import declared_substitutions, withdraw
from graphforge.user_files import load_file

README = Path(__file__).parents[2] / "ops" / "README.md"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    before = declared_substitutions()
    yield
    for one in declared_substitutions():
        if one not in before:
            withdraw(one.function)


@pytest.mark.parametrize("outputs", ["ragged", "padded"])
def test_a_detector_of_ones_own(
    outputs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = README.read_text(encoding="utf-8")
    script, _ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(script.splitlines()) <= 62
    (command,) = re.findall(r"```\ngraphforge (compile my_detector[^\n]*)\n```", text)
    (tmp_path / "my_detector.py").write_text(script, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    arguments = command.replace("--outputs padded", f"--outputs {outputs}").split()
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "-o", "out", "--json"])
    assert not ended.value.code
    manifest = json.loads(capsys.readouterr().out)["manifest"]
    assert manifest["verification"]["passed"]
    (substitution,) = manifest["capture"]["substitutions"]
    assert substitution["function"].endswith(".suppress")
    assert substitution["calls"] == 1
    names = [one["name"] for one in manifest["outputs"]]
    assert names == (["boxes", "scores", "num_dets"] if outputs == "padded" else ["boxes", "scores"])


def test_a_declaration_for_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, script = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "gate.py").write_text(script, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    manifest = load_file(Path("gate.py"), failed="the example").bundle.manifest
    assert manifest["verification"]["passed"]
    (substitution,) = manifest["capture"]["substitutions"]
    assert (substitution["substitute"], substitution["calls"]) == ("gate.py:<lambda>", 1)
    assert not [one for one in declared_substitutions() if one.path.endswith("positive")]
