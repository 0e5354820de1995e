"""The lock names exact versions inside pyproject's ranges, by hash where one build serves all, and no server."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts import lockfile
from scripts.lockfile import LOCK, TORCH_LOCK, Change, changes, parse, range_of, split

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED_EXTRAS = ("dev", "timm", "transformers", "onnxsim", "torchvision", "tensorrt-rtx", "openvino", "video")


@pytest.mark.parametrize(
    "requirement", [*PROJECT["dependencies"], *(line for extra in INSTALLED_EXTRAS for line in EXTRAS[extra])]
)
def test_every_requirement_is_locked_to_a_version_in_its_range(requirement: str) -> None:
    wanted = Requirement(requirement)
    locked = parse(LOCK.read_text()) | parse(TORCH_LOCK.read_text())
    assert wanted.specifier.contains(locked[wanted.name])


def test_every_package_has_hashes_except_those_built_for_each_machine() -> None:
    for block in re.split(r"^(?=[a-z0-9-]+==)", LOCK.read_text(), flags=re.MULTILINE)[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block
    assert set(parse(TORCH_LOCK.read_text())) == {"torch", "torchvision", "tensorrt-rtx-cu13"}
    assert not set(parse(TORCH_LOCK.read_text())) & set(parse(LOCK.read_text()))


def test_the_lock_names_no_server() -> None:
    assert "://" not in LOCK.read_text() + TORCH_LOCK.read_text()


def test_what_is_locked_is_split_by_what_another_machine_would_take() -> None:
    installed = {
        "torch": "2.13.0+cpu",
        "numpy": "2.4.6",
        "nvidia-cublas": "13.1",
        "triton": "3.7",
        "pip": "23.2.1",
        "graphforge-compiler": "0.1.0",
        "tensorrt-rtx-cu13-libs": "1.7.1",
        "tensorrt-rtx-cu13": "1.7.1",
    }
    assert split(installed) == ({"numpy": "2.4.6"}, {"tensorrt-rtx-cu13": "1.7.1", "torch": "2.13.0"})


def test_newer_absent_and_unlocked_packages_are_told() -> None:
    locked = {"numpy": "2.4.6", "onnx": "1.23.2", "psutil": "7.2"}
    found = {"numpy": "2.5.0", "onnx": "1.23.2", "rich": "15.0"}
    assert changes(locked, found) == [
        Change("numpy", "2.4.6", "2.5.0"),
        Change("psutil", "7.2", ""),
        Change("rich", "", "15.0"),
    ]


def test_a_range_is_that_of_pyproject() -> None:
    assert range_of("torch") in PROJECT["dependencies"]
    assert range_of("torch").startswith("torch>=")
    assert range_of("openvino") in EXTRAS["openvino"]
    with pytest.raises(KeyError):
        range_of("torc")


def test_the_lock_is_written_with_the_hashes_of_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockfile, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(lockfile, "TORCH_LOCK", tmp_path / "torch")
    monkeypatch.setattr(lockfile, "_installed", lambda: {"torch": "2.13.0+cpu", "numpy": "2.4.6"})
    monkeypatch.setattr(
        lockfile, "_with_hashes", lambda pins: "".join(f"{pin} \\\n    --hash=sha256:0\n" for pin in pins)
    )
    lockfile._main(["write"])
    assert parse((tmp_path / "lock").read_text()) == {"numpy": "2.4.6"}
    assert "# locked for Python 3." in (tmp_path / "lock").read_text()
    assert parse((tmp_path / "torch").read_text()) == {"torch": "2.13.0"}
    monkeypatch.setattr(lockfile, "_with_hashes", lambda pins: "numpy==2.5.0 \\\n    --hash=sha256:0\n")
    with pytest.raises(SystemExit, match="other versions"):
        lockfile._main(["write"])


def test_setup_replaces_no_folder_that_is_not_an_environment(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    command = ["scripts/setup.sh", "--newest", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not an environment" in done.stderr
    assert (tmp_path / "thesis.txt").exists()
