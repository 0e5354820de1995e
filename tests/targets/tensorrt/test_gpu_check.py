"""scripts/gpu_check: without a GPU it says what it could not do and claims nothing; with one it runs plans."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from graphforge.targets.tensorrt.flavour import gpu_problem

SCRIPT = Path(__file__).parents[3] / "scripts" / "gpu_check.py"


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False)


@pytest.mark.skipif(gpu_problem() is None, reason="a GPU is here")
def test_without_a_gpu_nothing_is_claimed(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    done = _run("--write", str(table))
    assert done.returncode == 0
    assert str(gpu_problem()) in done.stdout
    assert "could not be checked" in done.stdout
    assert not table.exists()


@pytest.mark.skipif(gpu_problem() is None, reason="a GPU is here")
def test_a_plan_that_cannot_run_here_is_refused_and_not_called_right() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    done = _run("--one", "tiny", "fp32", "tensorrt_rtx", "SM86")
    assert done.returncode == 0, done.stderr
    assert '"verdict": "refused"' in done.stdout
    assert "error" not in done.stdout  # no number that nobody measured


@pytest.mark.skipif(gpu_problem() is not None, reason=str(gpu_problem()))
def test_a_plan_runs_where_a_gpu_takes_it() -> None:
    done = _run("--models", "resnet18", "--precisions", "fp32")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "right" in done.stdout or "No flavour of TensorRT takes this GPU" in done.stdout
