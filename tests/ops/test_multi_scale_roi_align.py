"""multi_scale_roi_align: the reference against torchvision's pooler, both lowerings against the reference."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor

from graphforge.frontend.torchvision_fix import ensure_torchvision
from graphforge.ir import Builder
from graphforge.ops.multi_scale_roi_align import multi_scale_roi_align
from graphforge.passes.lower_semantic_ops import LowerSemanticOps
from graphforge.runners.session import new_session
from graphforge.transform import Pipeline

SCALES = (0.25, 0.125, 0.0625)


def case(count: int, *, seed: int = 0, levels: tuple[int, ...] = (0, 1, 2)) -> tuple[list[Tensor], Tensor, Tensor]:
    """Feature maps of two images of 64x80 pixels, boxes on them and over their borders, a level for each."""
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(2, 3, int(64 * scale), int(80 * scale), generator=generator) for scale in SCALES]
    corner = torch.rand(count, 2, generator=generator) * 70 - 5
    size = torch.rand(count, 2, generator=generator) * 40
    images = torch.randint(0, 2, (count, 1), generator=generator).float()
    rois = torch.cat([images, corner, corner + size], dim=1)
    chosen = torch.tensor(levels)[torch.randint(0, len(levels), (count,), generator=generator)]
    return features, rois, chosen


def lowered(aligned: bool, sampling_ratio: int, *, fixed_shapes: bool, levels: int = 3) -> onnxruntime.InferenceSession:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21, "graphforge": 1}, name="pooling")

    def value(name: str, dims: list[int | str], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
        made = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(dims))
        graph.inputs.append(made)
        return made

    rois, chosen = value("rois", ["boxes", 5]), value("levels", ["boxes"], ir.DataType.INT64)
    features = [value(f"feature_{at}", [2, 3, int(64 * s), int(80 * s)]) for at, s in enumerate(SCALES[:levels])]
    pooled = Builder(graph, opset=21).node(
        "MultiScaleRoiAlign",
        [rois, chosen, *features],
        _domain="graphforge",
        spatial_scales=list(SCALES[:levels]),
        output_height=5,
        output_width=3,
        sampling_ratio=sampling_ratio,
        aligned=int(aligned),
    )
    assert list(pooled.shape.dims) == ["boxes", 3, 5, 3]
    pooled.name = "pooled"
    graph.outputs.append(pooled)
    model = ir.Model(graph, ir_version=10)
    Pipeline([LowerSemanticOps(fixed_shapes=fixed_shapes)]).run(model)
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("RoiAlign") == levels
    assert ("NonZero" in kinds) is (levels > 1 and not fixed_shapes)
    return new_session(model)


def run(session: onnxruntime.InferenceSession, features: list[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
    feeds: dict[str, Any] = {"rois": rois.numpy(), "levels": levels.numpy()}
    feeds |= {f"feature_{at}": feature.numpy() for at, feature in enumerate(features)}
    names = {one.name for one in session.get_inputs()}
    return torch.from_numpy(session.run(None, {name: feeds[name] for name in names})[0])


@pytest.mark.parametrize("fixed_shapes", [False, True])
@pytest.mark.parametrize(("aligned", "sampling_ratio"), [(False, 2), (True, 2), (False, 0)])
def test_lowerings_pool_as_the_reference(aligned: bool, sampling_ratio: int, fixed_shapes: bool) -> None:
    session = lowered(aligned, sampling_ratio, fixed_shapes=fixed_shapes)
    for count, levels in ((9, (0, 1, 2)), (1, (1,)), (6, (0, 2)), (5, (2,))):
        features, rois, chosen = case(count, seed=count, levels=levels)
        expected = multi_scale_roi_align(features, rois, chosen, SCALES, 5, 3, sampling_ratio, aligned)
        torch.testing.assert_close(run(session, features, rois, chosen), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_no_boxes(fixed_shapes: bool) -> None:
    features, rois, chosen = case(0)
    assert multi_scale_roi_align(features, rois, chosen, SCALES, 5, 3, 2, False).shape == (0, 3, 5, 3)
    assert run(lowered(False, 2, fixed_shapes=fixed_shapes), features, rois, chosen).shape == (0, 3, 5, 3)


@pytest.mark.parametrize("fixed_shapes", [False, True])
def test_one_level(fixed_shapes: bool) -> None:
    features, rois, chosen = case(4, levels=(0,))
    expected = multi_scale_roi_align(features[:1], rois, chosen, SCALES[:1], 5, 3, 2, False)
    session = lowered(False, 2, fixed_shapes=fixed_shapes, levels=1)
    torch.testing.assert_close(run(session, features[:1], rois, chosen), expected, rtol=1e-4, atol=1e-5)


def test_the_reference_is_torchvisions_pooler() -> None:
    ensure_torchvision()
    from torchvision.ops import MultiScaleRoIAlign

    features, rois, _ = case(12)
    boxes = [rois[rois[:, 0] == image][:, 1:] for image in range(2)]
    pooler = MultiScaleRoIAlign(["a", "b", "c"], (5, 3), 2)
    expected = pooler(dict(zip("abc", features, strict=True)), boxes, [(64, 80), (64, 80)])
    rows = torch.cat([torch.cat([torch.full_like(one[:, :1], at), one], 1) for at, one in enumerate(boxes)])
    assert pooler.scales is not None
    assert pooler.map_levels is not None
    pooled = multi_scale_roi_align(features, rows, pooler.map_levels(boxes), pooler.scales, 5, 3, 2, False)
    torch.testing.assert_close(pooled, expected)
