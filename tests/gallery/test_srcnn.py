"""The walk through SRCNN runs as it is written, and its network is better than bicubic."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
WALK = (ROOT / "scripts" / "gallery" / "srcnn.md").read_text()

pytestmark = pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="scikit-image has the photo")


@pytest.mark.slow
def test_the_walk_runs_as_written(tmp_path: Path) -> None:
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    blocks = re.findall(r"<!-- run -->\n```(\w+)\n(.*?)```", WALK, re.DOTALL)
    assert len(blocks) == 5
    for language, code in blocks:
        command = ["bash", "-e", "-c", code] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    opsets = {one.domain: one.version for one in onnx.load(tmp_path / "out" / "srcnn" / "model.onnx").opset_import}
    assert opsets[""] == 11
    made = np.asarray(Image.open(tmp_path / "out" / "face_srcnn.png"), np.float64)
    large = np.asarray(Image.open(tmp_path / "out" / "large" / "face.png"), np.float64)
    assert 10 * np.log10(255**2 / ((made - large) ** 2).mean()) > 25


def test_the_network_is_nearer_to_the_photo_than_bicubic() -> None:
    from scripts.gallery.srcnn import trained
    from scripts.gallery.train_srcnn import gain

    assert gain(trained()) > 0.3


def test_a_factor_may_be_an_input() -> None:
    from scripts.gallery.srcnn import trained

    small = torch.rand(1, 3, 6, 5)
    assert trained()(small, torch.tensor(4)).shape == (1, 3, 24, 20)
    torch.testing.assert_close(trained()(small, torch.tensor(3)), trained()(small))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", WALK))))
def test_link_leads_somewhere(target: str) -> None:
    assert (ROOT / "scripts" / "gallery" / target).exists()
