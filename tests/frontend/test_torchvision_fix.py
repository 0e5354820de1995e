"""torchvision imports and its operators are right, whether or not its compiled library fits this torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from graphforge.frontend.torchvision_fix import TorchvisionState, ensure_torchvision, torchvision_state
from graphforge.ops import _torchvision_kernels as kernels

needs_torchvision = pytest.mark.skipif(
    torchvision_state() is TorchvisionState.MISSING, reason="torchvision is not installed"
)


def _greedy_by_hand(boxes: list[list[float]], scores: list[float], threshold: float) -> list[int]:
    """Non-maximum suppression spelled out with Python numbers."""

    def iou(a: list[float], b: list[float]) -> float:
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        return width * height / (area - width * height)

    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: -scores[index]):
        if all(iou(boxes[index], boxes[other]) <= threshold for other in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize("seed", range(8))
def test_nms_is_the_greedy_one_with_ties_by_index(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 40, (60, 2), generator=generator).double()
    sizes = torch.randint(1, 30, (60, 2), generator=generator).double()
    boxes = torch.cat([corners, corners + sizes], dim=1)
    scores = torch.randint(0, 9, (60,), generator=generator).double()  # many equal scores
    expected = _greedy_by_hand(boxes.tolist(), scores.tolist(), 0.35)
    assert kernels.nms(boxes, scores, 0.35).tolist() == expected
    assert 5 < len(expected) < 60


def test_nms_of_nothing_is_nothing() -> None:
    assert kernels.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def _roi_align_by_hand(
    image: torch.Tensor, roi: list[float], scale: float, bins: tuple[int, int], ratio: int, aligned: bool
) -> torch.Tensor:
    """RoIAlign spelled out sample by sample (He et al. 2017, with torchvision's border rule)."""
    channels, height, width = image.shape
    x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0.0) for value in roi)
    box_width = x2 - x1 if aligned else max(x2 - x1, 1.0)
    box_height = y2 - y1 if aligned else max(y2 - y1, 1.0)
    step_y, step_x = box_height / bins[0], box_width / bins[1]
    grid_y = ratio if ratio > 0 else -int(-step_y // 1)
    grid_x = ratio if ratio > 0 else -int(-step_x // 1)
    result = torch.zeros(channels, *bins, dtype=image.dtype)
    for row in range(bins[0]):
        for column in range(bins[1]):
            for sample_y in range(grid_y):
                for sample_x in range(grid_x):
                    y = y1 + row * step_y + (sample_y + 0.5) * step_y / grid_y
                    x = x1 + column * step_x + (sample_x + 0.5) * step_x / grid_x
                    if y < -1 or y > height or x < -1 or x > width:
                        continue
                    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
                    top, left = int(y), int(x)
                    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
                    dy, dx = y - top, x - left
                    result[:, row, column] += (
                        (1 - dy) * (1 - dx) * image[:, top, left]
                        + (1 - dy) * dx * image[:, top, right]
                        + dy * (1 - dx) * image[:, bottom, left]
                        + dy * dx * image[:, bottom, right]
                    ) / max(grid_y * grid_x, 1)
    return result


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [-1, 2])
def test_roi_align_is_the_average_of_bilinear_samples(ratio: int, aligned: bool) -> None:
    images = torch.randn(2, 3, 11, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor(
        [[0, 0, 0, 17, 21], [1, 3.2, 1.7, 9.9, 8.1], [1, -6, -6, 30, 40], [0, 5, 5, 5.4, 5.2]], dtype=torch.float64
    )
    result = kernels.roi_align(images, rois, 0.5, 3, 4, ratio, aligned)
    for roi, found in zip(rois.tolist(), result, strict=True):
        expected = _roi_align_by_hand(images[int(roi[0])], roi[1:], 0.5, (3, 4), ratio, aligned)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_operator_without_kernel_says_why() -> None:
    with pytest.raises(Exception, match=r"torchvision::qnms cannot run here"):
        kernels.refuse("qnms")()


@needs_torchvision
def test_ensure_torchvision_is_idempotent_and_operators_run() -> None:
    assert ensure_torchvision() is ensure_torchvision() is torchvision_state()
    from torchvision.ops import nms, roi_align

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    assert nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist() == [1, 2]
    assert roi_align(torch.ones(1, 2, 8, 8), [torch.tensor([[0.0, 0.0, 8.0, 8.0]])], 2).tolist() == [
        [[[1.0] * 2] * 2] * 2
    ]


@needs_torchvision
def test_ensure_torchvision_recovers_from_a_failed_import_and_exports_one_node() -> None:
    program = """
import torch
try:
    import torchvision
except RuntimeError as error:
    assert "does not exist" in str(error)
from graphforge.frontend.torchvision_fix import ensure_torchvision
ensure_torchvision()
import torchvision

class Pool(torch.nn.Module):
    def forward(self, features, rois, scores):
        kept = torchvision.ops.nms(rois[:, 1:], scores, 0.5)
        return torchvision.ops.roi_align(features, rois, 3), kept

program = torch.export.export(Pool(), (torch.ones(1, 2, 8, 8), torch.ones(4, 5), torch.rand(4)))
print(sorted(str(node.target) for node in program.graph.nodes if "torchvision" in str(node.target)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['torchvision.nms.default', 'torchvision.roi_align.default']"


@needs_torchvision
def test_a_file_that_imports_torchvision_itself_is_loaded(tmp_path: Path) -> None:
    """In a process of its own, where nobody imported it before; by the file's helper, and only in a function."""
    (tmp_path / "boxes.py").write_text("from torchvision.ops import nms\n")
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "import boxes\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x, scores):\n"
        "        from torchvision.ops import roi_align\n"
        "        kept = boxes.nms(x, scores, 0.5)\n"
        "        image = torch.ones(1, 1, 8, 8)\n"
        "        return kept, roi_align(image, [x], 2)\n"
        "def make():\n"
        "    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4.1], [5, 5, 8, 8]])\n"
        "    return Net(), (boxes, torch.tensor([0.1, 0.9, 0.5]))\n"
    )
    code = (
        "from graphforge.frontend.load import load_model\n"
        f"loaded = load_model({str(tmp_path / 'net.py:make')!r})\n"
        "kept, pooled = loaded.module(*loaded.example[0])\n"
        "assert kept.tolist() == [1, 2] and pooled.shape == (3, 1, 2, 2), (kept, pooled.shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
