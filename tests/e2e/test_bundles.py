"""MagicMind bundles of small whole models, every step; `scripts/bench bundles` does the same with large ones.

The scripts are run by another Python when GRAPHFORGE_OLD_PYTHON names one with numpy, onnx and onnxruntime.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from graphforge.frontend.torchvision_fix import TorchvisionState, torchvision_state
from graphforge.spec import DimRange
from tests.e2e import nets
from tests.e2e.bundles import BundleEntry, run_bundle
from tests.e2e.matrix import Made

pytestmark = pytest.mark.slow

PYTHON = os.environ.get("GRAPHFORGE_OLD_PYTHON", sys.executable)


def pose() -> Made:
    torch.manual_seed(0)
    return nets.calm(nets.RTMPose(5, (32, 24), 8, 16)), (torch.randn(1, 3, 32, 24),), {}


def resolution() -> Made:
    torch.manual_seed(0)
    return nets.calm(nets.SRCNN(8)), (torch.randn(1, 3, 16, 16),), {}


BATCH_AND_SIZES = {
    "image": {
        0: DimRange("batch", 1, 64),
        2: DimRange("height", 8, 2560, 8),
        3: DimRange("width", 8, 2560, 8),
    }
}


@pytest.mark.parametrize("precision", ["force_float32", "force_float16", "qint8_mixed_float16"])
def test_bundle_with_free_sizes_in_three_precisions(precision: str, tmp_path: Path) -> None:
    entry = BundleEntry("resolution", resolution, BATCH_AND_SIZES)
    row = run_bundle(entry, precision, tmp_path / "bundle", python=PYTHON)
    assert row.passed, row
    assert row.dim_range == {"0": {"min": [1, 3, 8, 8], "max": [64, 3, 2560, 2560]}}
    assert row.sizes >= 4
    assert row.distance < 1e-5
    assert row.warnings == ("G10",)  # bicubic Resize: no public sample has it


def test_bundle_of_a_pose_estimator(tmp_path: Path) -> None:
    entry = BundleEntry("pose", pose, {"image": {0: (1, 4)}})
    row = run_bundle(entry, "force_float32", tmp_path / "bundle", python=PYTHON)
    assert row.passed, row
    assert row.distance < 1e-5


@pytest.mark.parametrize(
    ("nms", "precision"), [("native", "qint8_mixed_float16"), ("portable", "force_float32")], ids=["native", "portable"]
)
def test_bundle_of_a_detector(nms: str, precision: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    if torchvision_state() is TorchvisionState.MISSING:
        pytest.skip("torchvision is not installed: its NMS is called")
    from scripts.gallery import digits

    def made() -> Made:
        model, inputs = digits.detector()
        return model.eval(), inputs, {}

    pages = digits.stacked(digits.canvases(9)).numpy()
    options = {"reference_inputs": {"images": pages[8:]}}
    entry = BundleEntry("digits", made, options=options, calibration={"images": pages[:8]}, nms=nms)
    row = run_bundle(entry, precision, tmp_path / "bundle", python=PYTHON)
    assert row.passed, row
    assert row.warnings == ("G7",)  # operators without a public sample, ArgMax among them
    described = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert any("NonMaxSuppression" in pin for pin in described["pins"]) == (precision != "force_float32")
    assert "num_dets" in [entry["name"] for entry in described["outputs"]]


def test_scripts_that_fail_are_not_called_passed(tmp_path: Path) -> None:
    """The harness itself: an interpreter without the stand-in's packages ends the scripts, and the row says so."""
    fake = tmp_path / "python"
    fake.write_text(
        f'#!/bin/sh\ncase "$1" in -c) exec {sys.executable} "$@";; esac\necho "no numpy here" >&2\nexit 3\n'
    )
    fake.chmod(0o755)
    row = run_bundle(BundleEntry("pose", pose), "force_float32", tmp_path / "bundle", python=str(fake))
    assert (row.built, row.ran, row.passed) == (3, -1, False)
    assert "no numpy here" in row.said
