"""What is said of OpenMMLab's models where its packages are missing; `tests/openmmlab` has all that needs them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import graphforge
from graphforge.errors import GraphForgeError, UsageError
from graphforge.frontend.openmmlab.codebases import codebase_of


def test_specs_are_known_by_their_first_word() -> None:
    assert codebase_of("mmpose:rtmpose-t.py,weights.pth") == "mmpose"
    assert codebase_of("mmdet:a:b") == "mmdet"
    assert codebase_of("mmpose:") == codebase_of("mmpose") == codebase_of("package.mmpose:build") == ""


def test_a_missing_package_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(GraphForgeError, match="mmpose is not installed") as told:
        graphforge.load_model("mmpose:rtmpose-t_8xb256-420e_coco-256x192")
    assert "scripts/openmmlab.sh" in str(told.value)


def test_decode_is_about_models_of_openmmlab() -> None:
    with pytest.raises(UsageError, match="about models of OpenMMLab"):
        graphforge.load_model("net.py:build", decode="none")


def test_a_spec_is_read_without_torch() -> None:
    code = "import sys, graphforge.frontend.openmmlab.codebases; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
