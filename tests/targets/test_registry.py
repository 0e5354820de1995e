"""The registry of targets."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

import graphforge.targets as targets
from graphforge.errors import GraphForgeError, UsageError
from graphforge.targets.onnx import OnnxTarget

VENDORS = ("torch", "onnxruntime", "tensorrt", "tensorrt_rtx", "polygraphy", "magicmind", "openvino")


class Mine(OnnxTarget):
    """A target of somebody else's."""

    name = "mine"


def test_importing_the_registry_imports_no_vendor() -> None:
    code = f"import sys, graphforge.targets; print([name for name in {VENDORS!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["tensorrt", "magicmind", "openvino"])
def test_getting_a_target_imports_no_vendor(name: str) -> None:
    code = (
        f"import sys, graphforge.targets as t; target = t.get_target({name!r}); "
        f"print(target.name, [name for name in {VENDORS!r} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == f"{name} []"


def test_every_listed_target_can_be_had() -> None:
    names = targets.target_names()
    assert names[:4] == ("onnx", "tensorrt", "magicmind", "openvino")
    assert [targets.get_target(name).name for name in names] == list(names)


def test_unknown_name_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="unknown target 'tensort'") as caught:
        targets.get_target("tensort")
    assert "did you mean 'tensorrt'?" in str(caught.value)
    assert "known targets: onnx, tensorrt, magicmind, openvino" in str(caught.value)


def test_installed_package_adds_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "tests.targets.test_registry:Mine", targets.ENTRY_POINT_GROUP)
    monkeypatch.setattr(targets, "_installed", lambda: [entry])
    assert targets.target_names()[-1] == "mine"
    assert targets.get_target("mine").name == "mine"


def test_entry_point_of_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest records the target's own name, and `graphforge run` looks it up again."""
    entry = EntryPoint("mine", "graphforge.targets.tensorrt:TensorRTTarget", targets.ENTRY_POINT_GROUP)
    monkeypatch.setattr(targets, "_installed", lambda: [entry])
    with pytest.raises(GraphForgeError, match="it calls itself 'tensorrt', and its entry point 'mine'"):
        targets.get_target("mine")


def test_name_taken_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("onnx", "elsewhere:Target", targets.ENTRY_POINT_GROUP)
    monkeypatch.setattr(targets, "_installed", lambda: [entry])
    with pytest.raises(GraphForgeError, match="'onnx' is taken twice"):
        targets.get_target("tensorrt")


def test_installed_target_that_cannot_be_imported_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("broken", "no_such_package_here:Target", targets.ENTRY_POINT_GROUP)
    monkeypatch.setattr(targets, "_installed", lambda: [entry])
    with pytest.raises(GraphForgeError, match="no_such_package_here"):
        targets.get_target("broken")
