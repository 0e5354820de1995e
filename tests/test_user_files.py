"""Files of the user's are read again once they, or the modules beside them, were edited."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from graphforge.errors import UserCodeError
from graphforge.frontend.load import load_model
from graphforge.transform import load_pass_from_file
from graphforge.user_files import load_file, name_of, stands_in

PASS = """
from dataclasses import dataclass
from typing import ClassVar
from beside_it import LEVEL
from graphforge.transform import Pass

@dataclass(frozen=True)
class Mine(Pass):
    name: ClassVar[str] = "mine"
    level: int = LEVEL + 1
    def run(self, graph, rewriter): ...
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside_it.py").write_text("LEVEL = 1\n")
    (tmp_path / "mine.py").write_text(PASS)
    return tmp_path / "mine.py"


def test_an_edited_pass_file_is_read_again_and_an_unchanged_one_is_not(file: Path) -> None:
    first = load_pass_from_file(str(file))
    assert load_pass_from_file(str(file)) is first
    file.write_text(PASS.replace("+ 1", "+ 2"))  # the same size, within the same second
    second = load_pass_from_file(str(file))
    assert (first().level, second().level) == (2, 3)  # type: ignore[attr-defined]
    assert not (file.parent / "__pycache__").exists()


def test_a_module_beside_it_is_read_again_too(file: Path) -> None:
    load_pass_from_file(str(file))
    (file.parent / "beside_it.py").write_text("LEVEL = 7\n")
    assert load_pass_from_file(str(file))().level == 8  # type: ignore[attr-defined]
    assert str(file.parent) not in sys.path


def test_what_the_process_had_imported_itself_stays(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.modules.pop("beside_it", None)
    monkeypatch.syspath_prepend(file.parent)
    import beside_it  # type: ignore[import-not-found]

    try:
        load_pass_from_file(str(file))
        (file.parent / "beside_it.py").write_text("LEVEL = 7\n")
        assert load_pass_from_file(str(file))().level == 2  # type: ignore[attr-defined]
        assert sys.modules["beside_it"] is beside_it
    finally:
        del sys.modules["beside_it"]


def test_a_file_that_failed_is_tried_again(file: Path) -> None:
    (file.parent / "beside_it.py").write_text("LEVEL = 1 // 0\n")
    with pytest.raises(UserCodeError, match=r"raised at .*beside_it.py:1: LEVEL = 1 // 0"):
        load_pass_from_file(str(file))
    (file.parent / "beside_it.py").write_text("LEVEL = 4\n")
    assert load_pass_from_file(str(file))().level == 5  # type: ignore[attr-defined]


def test_a_model_file_is_run_each_time(tmp_path: Path) -> None:
    net = tmp_path / "net.py"
    net.write_text("import torch\ndef build():\n    return torch.nn.Linear(2, 3)\n")
    first = load_model(f"{net}:build").module
    net.write_text("import torch\ndef build():\n    return torch.nn.Linear(2, 4)\n")
    second = load_model(f"{net}:build").module
    assert isinstance(first, torch.nn.Linear)
    assert isinstance(second, torch.nn.Linear)
    assert [first.out_features, second.out_features] == [3, 4]


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text(f"class Here:\n    text = {name!r}\n")
    one, other = (load_file(tmp_path / name / "net.py", failed="") for name in ("a", "b"))
    assert (one.Here.text, other.Here.text) == ("a", "b")
    assert name_of(one.Here) == "net.py:Here"
    assert stands_in(other.Here) == f"{tmp_path / 'b' / 'net.py'}:Here"
    assert stands_in(Path) is None


def test_modules_of_one_name_beside_two_files_do_not_meet(tmp_path: Path) -> None:
    levels = []
    for name, level in (("a", 1), ("b", 5), ("a", 1)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "beside_it.py").write_text(f"LEVEL = {level}\n")
        (tmp_path / name / "mine.py").write_text(PASS)
        levels.append(load_pass_from_file(f"{tmp_path / name / 'mine.py'}")().level)  # type: ignore[attr-defined]
    assert levels == [2, 6, 2]
