"""A target in a package of its own: installed, listed, compiled to and run from the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import COMMAND, Outcome, environment

PACKAGE = Path(__file__).parent / "toy_package"
README = Path(__file__).parents[2] / "graphforge" / "targets" / "README.md"
NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


class Smooth(Net):
    def forward(self, x):
        return torch.sigmoid(super().forward(x))
"""


# Three targets that cannot be used, each for a reason of its own.
BROKEN = """
from graphforge.targets import option

class Half:
    name = "half"
    makes = "nothing yet"

    def available(self):
        return None

class Failing:
    def __init__(self):
        raise RuntimeError("the licence has expired")
"""
BROKEN_PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "graphforge-broken"
version = "0.1"
[project.entry-points."graphforge.targets"]
half = "graphforge_broken:Half"
failing = "graphforge_broken:Failing"
gone = "graphforge_broken:Gone"
[tool.setuptools]
py-modules = ["graphforge_broken"]
"""


def install(package: Path, folder: Path) -> None:
    """Install a package into a folder, from a copy: the build leaves files beside the sources."""
    copy = folder.with_name(f"{folder.name}-source")
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(
        [*command, "--target", str(folder), str(copy)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy package installed."""
    folder = tmp_path_factory.mktemp("toy") / "site"
    install(PACKAGE, folder)
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package installed whose targets cannot be used."""
    package = tmp_path_factory.mktemp("broken") / "package"
    package.mkdir()
    (package / "graphforge_broken.py").write_text(BROKEN)
    (package / "pyproject.toml").write_text(BROKEN_PROJECT)
    folder = package.with_name("site")
    install(package, folder)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def graphforge(*arguments: str, site: Path, cwd: Path) -> Outcome:
    """Run `graphforge ARGUMENTS` where the packages in ``site`` are installed."""
    surroundings = environment()
    surroundings["PYTHONPATH"] = os.pathsep.join([str(site), surroundings["PYTHONPATH"]])
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=surroundings, capture_output=True, text=True, timeout=300, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def compiled(model: str, *arguments: str, site: Path, cwd: Path) -> Outcome:
    return graphforge(
        "compile", f"net.py:{model}", "--input", "x:2x8", "--target", "toy", "-o", "out", *arguments, site=site, cwd=cwd
    )


def test_listed_with_the_package_that_adds_it(site: Path, work: Path) -> None:
    outcome = graphforge("targets", site=site, cwd=work)
    assert outcome.code == 0, outcome.stderr
    (row,) = [line for line in outcome.stdout.splitlines() if line.startswith("│ toy")]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["toy", "program for the toy runtime", "yes", "yes"]
    assert "toy is added by graphforge-toy 0.1, graphforge_toy:ToyTarget" in outcome.stdout


def test_told_with_its_precisions_options_and_operators(site: Path, work: Path) -> None:
    outcome = graphforge("targets", "toy", site=site, cwd=work)
    assert outcome.code == 0, outcome.stderr
    assert "fp32  [default]\n    everything in float32" in outcome.stdout
    assert "indent = whole number\n    spaces per level in program.json  [default: 0]" in outcome.stdout
    assert "Toy runtime: opset 17 only (documented)" in outcome.stdout


def test_compiled_verified_and_run_from_the_command_line(site: Path, work: Path) -> None:
    outcome = compiled("Net", "--option", "indent=2", "--dynamic", "x:0=1..4", site=site, cwd=work)
    assert outcome.code == 0, outcome.stderr
    assert "toy runtime against" in outcome.stdout
    assert "verified: out/program.json" in outcome.stdout
    manifest = json.loads((work / "out" / "manifest.json").read_text())
    assert manifest["files"] == ["program.json", "weights.npz"]
    assert manifest["artifact"] == {"lines": 3}
    assert manifest["target"]["options"] == {"precision": "fp32", "indent": 2, "compress": False}
    assert manifest["target"]["asked"] == ["indent"]
    assert (work / "out" / "program.json").read_text().startswith('{\n  "weights"')


def test_runner_sees_what_the_precision_costs(site: Path, work: Path) -> None:
    """The weights are really stored in half the bits: the default comparison says so, a looser one lets it pass."""
    outcome = compiled("Net", "--precision", "fp16_weights", site=site, cwd=work)
    assert outcome.code == 1
    assert "elements are off" in outcome.error
    assert compiled("Net", "--precision", "fp16_weights", "--atol", "1e-2", site=site, cwd=work).code == 0
    assert json.loads((work / "out" / "manifest.json").read_text())["target"]["precision"] == "fp16_weights"


@pytest.mark.parametrize(
    ("arguments", "message", "note"),
    [
        (("--option", "indend=2"), "target 'toy' has no option 'indend'", "did you mean 'indent'?"),
        (
            ("--option", "indent=two"),
            "target 'toy', option 'indent': expected whole number, got 'two'",
            "indent is whole number: spaces per level in program.json",
        ),
        (("--precision", "fp8"), "target 'toy' has no precision 'fp8'", "fp32 (default): everything in float32"),
    ],
)
def test_what_it_does_not_declare_is_refused(
    arguments: tuple[str, ...], message: str, note: str, site: Path, work: Path
) -> None:
    outcome = compiled("Net", *arguments, site=site, cwd=work)
    assert (outcome.code, outcome.error) == (2, message)
    assert note in outcome.notes
    assert not (work / "out").exists()


def test_operator_it_does_not_take_is_refused_with_the_line_it_came_from(site: Path, work: Path) -> None:
    outcome = compiled("Smooth", site=site, cwd=work)
    assert (outcome.code, outcome.error) == (1, "the toy runtime has no Sigmoid")
    assert any("net.py:17" in note for note in outcome.notes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "half",
            "target 'half' (graphforge_broken:Half) does not fulfil the contract: "
            "it has no options, tables, pipeline, emit, runner, runs_here",
        ),
        (
            "failing",
            "target 'failing' (graphforge_broken:Failing) cannot be loaded: RuntimeError: the licence has expired",
        ),
        (
            "gone",
            "target 'gone' (graphforge_broken:Gone) cannot be loaded: "
            "AttributeError: module 'graphforge_broken' has no attribute 'Gone'",
        ),
    ],
)
def test_broken_target_is_refused_in_a_sentence(name: str, message: str, broken: Path, work: Path) -> None:
    for command in (["targets", name], ["compile", "net.py:Net", "--input", "x:2x8", "--target", name]):
        outcome = graphforge(*command, site=broken, cwd=work)
        assert (outcome.code, outcome.error) == (1, message)
        assert "Traceback" not in outcome.stderr
    assert not (work / "out").exists()


def test_broken_targets_are_listed_with_the_reason_beside_those_that_work(broken: Path, work: Path) -> None:
    outcome = graphforge("targets", "--json", site=broken, cwd=work)
    assert outcome.code == 0, outcome.stderr
    rows = {row["name"]: row for row in json.loads(outcome.stdout)["targets"]}
    assert rows["onnx"]["compiles_here"]
    assert not any(rows[name]["compiles_here"] for name in ("half", "failing", "gone"))
    assert "the licence has expired" in rows["failing"]["cannot_compile"]
    assert {rows[name]["package"] for name in ("half", "failing", "gone")} == {
        f"graphforge-broken 0.1, graphforge_broken:{name}" for name in ("Half", "Failing", "Gone")
    }


def test_readme_shows_this_very_package() -> None:
    text = README.read_text()
    for file in ("pyproject.toml", "graphforge_toy/__init__.py", "graphforge_toy/operators.toml"):
        assert (PACKAGE / file).read_text() in text, file
