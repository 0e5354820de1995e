"""The package as users get it: built, installed into a clean environment, used outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
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
        for pattern in ("*.py", "examples/*.txt")
        for path in (clean_environment / "env").glob(f"lib/python*/site-packages/graphforge/**/{pattern}")
    }
    rooms = {"graphforge": ROOT / "graphforge", "graphforge/passes": ROOT / "passes", "graphforge/ops": ROOT / "ops"}
    expected = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in rooms.items()
        for pattern in ("*.py", "examples/*.txt")
        for path in folder.glob(f"**/{pattern}")
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


@pytest.fixture(scope="module")
def clone_without_links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as a zip archive or git on Windows lays it out: a link is a file that names its target."""
    folder = tmp_path_factory.mktemp("no_links") / "clone"
    listed = _run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        source, copy = ROOT / name, folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            copy.write_text(str(source.readlink()))
        elif source.is_file():
            shutil.copyfile(source, copy)
    assert (folder / "graphforge" / "passes").is_file()
    return folder


def test_a_clone_without_links_runs(clone_without_links: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    environment = {**os.environ, "PYTHONPATH": str(clone_without_links)}
    command = [sys.executable, "-m", "graphforge", "compile", "net.py:build", "-o", "bundle", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["manifest"]["verification"]["passed"] is True
    program = "import graphforge.passes, graphforge.ops; print(graphforge.passes.__file__, graphforge.ops.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert where.stdout.split() == [str(clone_without_links / room / "__init__.py") for room in ("passes", "ops")]


def test_an_incomplete_clone_says_what_is_missing(clone_without_links: Path, tmp_path: Path) -> None:
    shutil.copytree(clone_without_links / "graphforge", tmp_path / "graphforge")
    done = subprocess.run(
        [sys.executable, "-c", "import graphforge"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "graphforge is incomplete: passes and ops should be folders" in done.stderr
    assert "pip install ." in done.stderr


def test_wheels_with_and_without_links_hold_the_same_files(
    clean_environment: Path, clone_without_links: Path, tmp_path: Path
) -> None:
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, clone_without_links)
    _run(*command, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    (usual,) = (clean_environment / "dist").glob("*.whl")
    assert _names(wheel) == _names(usual)
    known = (".py", ".toml", ".jinja", ".md", ".typed", ".js", "dagre.LICENSE")
    ours = [name for name in _names(wheel) if ".dist-info/" not in name and "/passes/examples/" not in name]
    assert [name for name in ours if not name.endswith(known)] == []


def _names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


@pytest.mark.parametrize("room", ["passes", "ops"])
def test_rooms_refuse_their_short_name(room: str) -> None:
    """`import passes` from the checkout would make every pass exist twice."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"graphforge.{room}" in done.stderr
