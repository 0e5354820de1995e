"""heatmaps_to_keypoints: the reference against torchvision's loop, the lowering against the reference."""

from __future__ import annotations

import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor

from graphforge.frontend.torchvision_fix import ensure_torchvision
from graphforge.ir import HOME_OPSET, Builder
from graphforge.ops.heatmaps_to_keypoints import heatmaps_to_keypoints
from graphforge.passes.lower_semantic_ops import LowerSemanticOps
from graphforge.runners.session import new_session
from graphforge.transform import Pipeline


def case(count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Heatmaps with one clear peak each, and boxes from a fraction of a pixel to sixty pixels."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(count, 4, 14, 14, generator=generator) * 0.05
    peaks = torch.randint(0, 14, (count, 4, 2), generator=generator)
    for box in range(count):
        for point in range(4):
            maps[box, point, peaks[box, point, 0], peaks[box, point, 1]] += 3
    corner = torch.rand(count, 2, generator=generator) * 40 - 5
    return maps, torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 60], dim=1)


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": HOME_OPSET, "graphforge": 1}, name="keypoints")
    floats = ir.TensorType(ir.DataType.FLOAT)
    maps = ir.Value(name="maps", type=floats, shape=ir.Shape(["boxes", 4, 14, 14]))
    rois = ir.Value(name="rois", type=floats, shape=ir.Shape(["boxes", 4]))
    graph.inputs.extend([maps, rois])
    made = Builder(graph).node("HeatmapsToKeypoints", [maps, rois], _domain="graphforge", _outputs=2)
    for value, name, dims in zip(made, ("keypoints", "scores"), (["boxes", 4, 3], ["boxes", 4]), strict=True):
        assert list(value.shape.dims) == dims
        value.name = name
        graph.outputs.append(value)
    model = ir.Model(graph, ir_version=10)
    Pipeline([LowerSemanticOps()]).run(model)
    return new_session(model)


@pytest.mark.parametrize("count", [1, 7, 0])
def test_the_lowering_finds_what_the_reference_finds(session: onnxruntime.InferenceSession, count: int) -> None:
    maps, rois = case(count, seed=count)
    expected = heatmaps_to_keypoints(maps, rois)
    found = session.run(["keypoints", "scores"], {"maps": maps.numpy(), "rois": rois.numpy()})
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), other, rtol=1e-5, atol=1e-5)


def test_boxes_without_a_size(session: onnxruntime.InferenceSession) -> None:
    """A side below one pixel counts as one."""
    maps, rois = case(3)
    rois[:, 2:] = rois[:, :2] + torch.tensor([[0.0, 0.0], [0.4, 20.0], [-3.0, 2.0]])
    expected = heatmaps_to_keypoints(maps, rois)
    found = session.run(["keypoints", "scores"], {"maps": maps.numpy(), "rois": rois.numpy()})
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), other, rtol=1e-5, atol=1e-5)


def test_the_reference_is_torchvisions_loop() -> None:
    ensure_torchvision()
    from torchvision.models.detection.roi_heads import heatmaps_to_keypoints as of_torchvision

    maps, rois = case(6)
    for one, other in zip(heatmaps_to_keypoints(maps, rois), of_torchvision(maps, rois), strict=True):
        torch.testing.assert_close(one, other)
