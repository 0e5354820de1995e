"""`graphforge doctor` tells what is there, and what is missing, and keeps speaking when anything is broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from graphforge.cli.doctor import _known_faults
from graphforge.targets.tables import installed_version
from tests.cli.command import environment, run_command

# Starts the command in an interpreter where some packages cannot be imported and are not listed as installed.
_WITHOUT = """
import importlib.metadata, sys
hidden = {names!r}
for name in hidden:
    sys.modules[name] = None
    sys.modules[name.replace('-', '_')] = None
version = importlib.metadata.version
def without(name):
    if name in hidden:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = without
from graphforge.targets.tables import installed_version
from graphforge.cli.main import main
main(["doctor", "--json"])
"""


def _doctor_without(names: set[str], folder: Path) -> tuple[int, dict[str, dict[str, str]]]:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT.format(names=names)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, {f"{finding['section']}/{finding['name']}": finding for finding in findings}


def test_says_what_works_here(tmp_path: Path) -> None:
    outcome = run_command("doctor", cwd=tmp_path)
    assert outcome.code == 0, outcome.stdout
    for word in ("python", "torch", "ONNX Runtime", "loads opsets up to", "target onnx", "target magicmind"):
        assert word in outcome.stdout
    assert "BROKEN" not in outcome.stdout


def test_says_which_opsets_are_delivered_and_why(tmp_path: Path) -> None:
    """It said "loads opsets up to 28" where --opset 27 was refused as newer than what is supported."""
    stdout = run_command("doctor", cwd=tmp_path).stdout
    assert "graphforge delivers 11 to 26, 23 unless --opset says otherwise; graphs are written in 26" in stdout
    assert "known   ReduceSum of int64" in stdout


def test_missing_optional_packages_are_absent_with_the_way_to_get_them(tmp_path: Path) -> None:
    code, findings = _doctor_without({"torchvision", "timm", "tensorrt_rtx", "tensorrt-rtx-cu13", "tensorrt"}, tmp_path)
    assert code == 0
    assert findings["optional/timm"]["state"] == "absent"
    assert findings["optional/timm"]["advice"] == "pip install 'graphforge-compiler[timm]'"
    assert findings["works here/target tensorrt"]["state"] == "absent"
    assert findings["works here/ONNX Runtime"]["state"] == "ok"


def test_missing_required_packages_are_broken_and_the_rest_is_still_told(tmp_path: Path) -> None:
    code, findings = _doctor_without({"torch", "rich", "onnxruntime"}, tmp_path)
    assert code == 1
    for name in ("torch", "rich", "onnxruntime"):
        assert findings[f"required/{name}"]["state"] == "broken"
        assert "pip install" in findings[f"required/{name}"]["advice"]
    assert findings["works here/ONNX Runtime"]["state"] == "broken"
    assert findings["required/onnx"]["state"] == "ok"


def test_known_faults_are_those_of_the_runtimes_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> set[str]:
        return {finding.detail.partition(":")[0].rpartition(" ")[0] for finding in _known_faults()}

    if installed_version("openvino") is not None:
        assert told() == {"ONNX Runtime", "OpenVINO"}
        assert any("computed in 32 bits" in finding.detail for finding in _known_faults())
    monkeypatch.setattr("graphforge.targets.tables.facts.installed_version", lambda *packages: None)
    assert told() == set()
