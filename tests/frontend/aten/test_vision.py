"""Sampling and detection operators agree with eager; torchvision's are looked up through our own mending of it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.frontend.captured import Captured
from graphforge.frontend.lower import lower
from graphforge.frontend.torchvision_fix import TorchvisionState, ensure_torchvision, torchvision_state
from graphforge.spec import DimRange, ShapeSpec, TensorSpec
from tests.frontend.helpers import assert_same, lower_and_compare, run_model
from tests.passes.test_bound_dynamic_shapes import check


def _values(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample(padding: str, mode: str) -> None:
    def forward(x: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        return (
            functional.grid_sample(x, grid, mode, padding, align_corners=True),
            functional.grid_sample(x, grid, mode, padding, align_corners=False),
        )

    x = _values(2, 3, 12, 9)
    grid = torch.rand(2, 5, 6, 2, generator=torch.Generator().manual_seed(0)) * 2.6 - 1.3
    outcome = lower_and_compare(
        forward,
        (x, grid),
        dynamic={"x": {2: (4, 40), 3: (4, 40)}, "grid": {1: (1, 9)}},
        other_inputs=[(x[:, :, :7, :5], grid[:, :3])],
        atol=1e-4,  # slopes of a few units times the rounding of a coordinate
    )
    assert outcome.counts == {"GridSample": 2}


def test_grid_sample_of_volumes() -> None:
    grid = torch.rand(1, 3, 4, 5, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    lower_and_compare(lambda x, g: functional.grid_sample(x, g, align_corners=False), (_values(1, 2, 5, 6, 7), grid))


@pytest.mark.parametrize("align_corners", [False, True])
def test_affine_grid(align_corners: bool) -> None:
    lower_and_compare(
        lambda theta: functional.affine_grid(theta, [2, 3, 4, 5], align_corners), (_values(2, 2, 3),), atol=1e-5
    )
    lower_and_compare(lambda theta: functional.affine_grid(theta, [2, 3, 4, 5, 6], align_corners), (_values(2, 3, 4),))


needs_torchvision = pytest.mark.skipif(
    torchvision_state() is TorchvisionState.MISSING, reason="torchvision is not installed"
)


@needs_torchvision
def test_nms(tmp_path: Path) -> None:
    ensure_torchvision()
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(40, 4, generator=generator) * 20
    boxes[:, 2:] += boxes[:, :2] + 1
    scores = torch.rand(40, generator=generator)

    class Head(torch.nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
            result: Tensor = torch.ops.torchvision.nms(boxes, scores, 0.4)
            return result

    count = DimRange("count", 1, 50)
    dynamic = {"boxes": {0: count}, "scores": {0: count}}
    bundle = graphforge.compile(Head(), (boxes, scores), dynamic_shapes=dynamic, output=tmp_path / "out")
    assert bundle.manifest["verification"]["passed"]
    check(Head(), (boxes, scores), (boxes.flip(0), scores))


@needs_torchvision
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [2, -1])
def test_roi_align(ratio: int, aligned: bool) -> None:
    """ONNX Runtime has a kernel for the operator of opset 16 to 21 only, hence the version here."""
    ensure_torchvision()
    rois = torch.rand(7, 5, generator=torch.Generator().manual_seed(0)) * 10
    rois[:, 3:] += rois[:, 1:3] + 1
    rois[:, 0] = torch.tensor([0, 1, 1, 0, 0, 1, 1])
    x = _values(2, 3, 20, 24)

    def forward(x: Tensor, rois: Tensor) -> Tensor:
        result: Tensor = torch.ops.torchvision.roi_align(x, rois, 0.5, 3, 4, ratio, aligned)
        return result

    captured = _captured(
        torch.ops.torchvision.roi_align.default, [x, rois], [0.5, 3, 4, ratio, aligned], forward(x, rois)
    )
    model = lower(captured).model
    model.opset_imports[""] = 21
    assert_same(run_model(model, {"x0": x, "x1": rois}), [forward(x, rois)], atol=1e-4)


@needs_torchvision
@pytest.mark.parametrize("form", ["ragged", "padded"])
def test_roi_pool_rounds_and_clips_as_torchvision_does(form: str) -> None:
    ensure_torchvision()
    random = np.random.default_rng(0)
    examples = []
    for case in range(6):  # halves that round, boxes beyond the borders, swapped corners; at last no box
        corner = random.integers(-12, 60, (50, 2)) / 2
        rows = [random.integers(0, 2, (50, 1)), corner, corner + random.integers(-6, 60, (50, 2)) / 2]
        rois = torch.from_numpy(np.concatenate(rows, axis=1).astype(np.float32))
        x = torch.from_numpy(random.normal(size=(2, 3, 13, 11)).astype(np.float32))
        examples.append((x, rois, torch.rand(50) * (case < 5)))

    def function(x: Tensor, rois: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        every = torch.ops.torchvision.roi_pool(x, rois, 0.5, 3, 2)[0]
        return every, torch.ops.torchvision.roi_pool(x, rois[scores > 0.5], 0.3, 7, 7)[0]

    check(function, *examples, form=form)


@needs_torchvision
def test_argmax_of_roi_pool_is_refused() -> None:
    ensure_torchvision()

    def function(x: Tensor, rois: Tensor) -> Tensor:
        places: Tensor = torch.ops.torchvision.roi_pool(x, rois, 1.0, 2, 2)[1]
        return places

    with pytest.raises(GraphForgeError, match=r"argmax\) of roi_pool"):
        lower_and_compare(function, (_values(1, 2, 8, 8), torch.zeros(3, 5)))


@needs_torchvision
@pytest.mark.parametrize("opset", [16, 22])
@pytest.mark.parametrize("masked", [False, True])
def test_deform_conv2d_module_compiles(masked: bool, opset: int, tmp_path: Path) -> None:
    """Below 19 there is no DeformConv: legalise-opset writes it out."""
    ensure_torchvision()
    deformable: Any = importlib.import_module("torchvision.ops").DeformConv2d

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = torch.nn.Conv2d(4, 2 * 2 * 9, 3, stride=2, padding=2, dilation=2)
            self.mask = torch.nn.Conv2d(4, 2 * 9, 3, stride=2, padding=2, dilation=2)
            self.deformed = deformable(4, 6, 3, stride=2, padding=2, dilation=2, groups=2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.deformed(x, self.offset(x) * 3, self.mask(x).sigmoid() if masked else None)
            return result

    torch.manual_seed(0)
    bundle = graphforge.compile(
        Layer().eval(), _values(2, 4, 12, 10), opset=opset, output=tmp_path / "out",
        dynamic_shapes={"x": {0: (1, 3), 2: (8, 16)}},
    )  # fmt: skip
    assert bundle.manifest["verification"]["passed"]


@needs_torchvision
@pytest.mark.parametrize("masked", [False, True])
def test_deformable_convolution(masked: bool) -> None:
    """Against the definition written out below: the compiled kernel is not there on every machine."""
    ensure_torchvision()
    x, weight, bias = _values(2, 4, 7, 8), _values(6, 2, 3, 2), _values(6)
    offset = _values(2, 2 * 2 * 6, 4, 5)
    mask = torch.rand(2, 2 * 6, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = _deformed(x, weight, offset, mask if masked else torch.ones_like(mask), bias)
    arguments = [2, 1, 1, 0, 1, 3, 2, 2, masked]
    captured = _captured(
        torch.ops.torchvision.deform_conv2d.default, [x, weight, offset, mask, bias], arguments, expected
    )
    model = lower(captured).model
    wanted = {value.name for value in model.graph.inputs}
    feeds = {f"x{i}": tensor for i, tensor in enumerate((x, weight, offset, mask, bias)) if f"x{i}" in wanted}
    assert_same(run_model(model, feeds), [expected], atol=1e-4)


def _deformed(x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
    """Deformable convolution with stride (2, 1), padding (1, 0), dilation (1, 3), 2 groups, 2 offset groups."""
    images, channels, height, width = x.shape
    out_channels, per_group, rows, columns = weight.shape
    _, _, out_height, out_width = offset.shape
    result = bias.view(1, -1, 1, 1).repeat(images, 1, out_height, out_width)
    for n, o, i, j in np.ndindex(images, out_channels, out_height, out_width):
        group = o // (out_channels // 2)
        for c, r, s in np.ndindex(per_group, rows, columns):
            channel = group * per_group + c
            part = channel // (channels // 2)
            tap = part * rows * columns + r * columns + s
            y = i * 2 - 1 + r + float(offset[n, 2 * tap, i, j])
            z = j + s * 3 + float(offset[n, 2 * tap + 1, i, j])
            value = 0.0
            for a, b in ((int(np.floor(y)), int(np.floor(z))),):
                for u, v in ((a, b), (a, b + 1), (a + 1, b), (a + 1, b + 1)):
                    if 0 <= u < height and 0 <= v < width:
                        value += float(x[n, channel, u, v]) * (1 - abs(y - u)) * (1 - abs(z - v))
            result[n, o, i, j] += float(weight[o, c, r, s]) * value * float(mask[n, tap, i, j])
    return result


def _captured(target: Any, tensors: list[Tensor], numbers: list[Any], expected: Tensor) -> Captured:
    """A program of one call, made by hand."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode()
    graph = torch.fx.Graph()
    inputs = []
    for position, tensor in enumerate(tensors):
        node = graph.placeholder(f"x{position}")
        node.meta["val"] = mode.from_tensor(tensor)
        inputs.append(node)
    call = graph.call_function(target, (*inputs, *numbers))
    call.meta["val"] = mode.from_tensor(expected)
    graph.output((call,))
    return Captured(
        graph_module=torch.fx.GraphModule(torch.nn.Module(), graph),
        input_names={node.name: node.name for node in inputs},
        weights={},
        constants={},
        output_names=["y"],
        shapes=ShapeSpec(tuple(TensorSpec(f"x{i}", tuple(tensor.shape)) for i, tensor in enumerate(tensors))),
        symbols={},
        method="trace",
    )


def test_roi_align_of_opset_22_has_no_kernel_yet() -> None:
    """The reason for the opset in ``test_roi_align``: once ONNX Runtime has the newer kernel, it can go."""
    import onnxruntime

    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 22]> '
        "g (float[1,1,4,4] x, float[1,4] r, int64[1] b) => (float[1,1,1,1] y) { y = RoiAlign(x, r, b) }"
    )
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
