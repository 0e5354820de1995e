"""The package as users get it: built, installed into a clean environment, used outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MODEL = """
import torch

def build():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    return net, torch.randn(1, 3, 8, 8)
"""


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it; its dependencies are borrowed from the one that runs the tests.

    The borrowed folder's own .pth files are not read there, so an editable install in it stays invisible.
    """
    folder = tmp_path_factory.mktemp("clean")
    # the sdist first and the wheel from it: both carry everything, or the import below fails
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT, cwd=folder)
    (wheel,) = (folder / "dist").glob("graphforge_compiler-*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    _run(
        *(sys.executable, "-m", "pip", "--python", python, "install"),
        *("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", wheel),
        cwd=folder,
    )
    (site_packages,) = (folder / "env").glob("lib/python*/site-packages")
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_wheel_carries_every_room(clean_environment: Path) -> None:
    python = clean_environment / "env" / "bin" / "python"
    program = "import graphforge, graphforge.passes, graphforge.ops as ops; print(graphforge.__file__, ops.__path__[0])"
    for path in _run(python, "-c", program, cwd=clean_environment).split():
        assert str(clean_environment / "env") in path
    installed = {
        path.relative_to(clean_environment / "env").as_posix().split("site-packages/")[1]
        for path in (clean_environment / "env").glob("lib/python*/site-packages/graphforge/**/*.py")
    }
    rooms = {"graphforge": ROOT / "graphforge", "graphforge/passes": ROOT / "passes", "graphforge/ops": ROOT / "ops"}
    expected = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in rooms.items()
        for path in folder.glob("**/*.py")
    }
    assert installed == expected


def test_installed_command_compiles_outside_the_checkout(clean_environment: Path) -> None:
    command = clean_environment / "env" / "bin" / "graphforge"
    assert "compile" in _run(command, "--help", cwd=clean_environment)
    findings = json.loads(_run(command, "doctor", "--json", cwd=clean_environment))["findings"]
    assert any(finding["name"] == "ONNX Runtime" and finding["state"] == "ok" for finding in findings)
    (clean_environment / "net.py").write_text(MODEL)
    printed = _run(command, "compile", "net.py:build", "-o", "bundle", "--json", cwd=clean_environment)
    assert json.loads(printed)["manifest"]["verification"]["passed"] is True
    assert (clean_environment / "bundle" / "model.onnx").is_file()


def test_links_make_a_bare_clone_importable() -> None:
    """Without installing anything: `graphforge.passes` and `graphforge.ops` are the top-level rooms."""
    for room in ("passes", "ops"):
        assert (ROOT / "graphforge" / room).is_symlink()
        assert (ROOT / "graphforge" / room).resolve() == ROOT / room


@pytest.mark.parametrize("room", ["passes", "ops"])
def test_rooms_refuse_their_short_name(room: str) -> None:
    """`import passes` from the checkout would make every pass exist twice."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"graphforge.{room}" in done.stderr
