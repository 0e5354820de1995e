"""Normalisation layers: one node each, equal to eager at every promised size and in half precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphforge
from graphforge.errors import GraphForgeError
from tests.frontend.helpers import lower_and_compare

_DYNAMIC = {"input": {0: (1, 4), 2: (6, 40), 3: (6, 40)}}


def _image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(2)) * 3 + 1).to(dtype)


def _trained(layer: nn.Module) -> nn.Module:
    """A layer whose weights and statistics are not those it starts with."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
        if tensor.is_floating_point():
            low = 0.5 if "var" in name else -1.0
            tensor.data.uniform_(low, 2.0, generator=generator)
    return layer.eval()


_IMAGE_LAYERS = [
    nn.BatchNorm2d(8),
    nn.BatchNorm2d(8, affine=False),
    nn.GroupNorm(1, 8),
    nn.GroupNorm(4, 8),
    nn.GroupNorm(2, 8, affine=False),
    nn.InstanceNorm2d(8),
    nn.InstanceNorm2d(8, affine=True),
    nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("layer", _IMAGE_LAYERS, ids=str)
def test_images(layer: nn.Module, dtype: torch.dtype) -> None:
    x, y = _image(3, 8, 13, 17, dtype=dtype), _image(1, 8, 6, 40, dtype=dtype)
    outcome = lower_and_compare(
        _trained(layer).to(dtype),
        (x,),
        dynamic=_DYNAMIC,
        other_inputs=[(y,)],
        atol=8e-3 if dtype is torch.float16 else 1e-5,  # values up to 10: one unit in the last place of half
    )
    assert outcome.nodes == 1
    layer.float()


@pytest.mark.parametrize(
    "layer",
    [
        nn.LayerNorm(17),
        nn.LayerNorm((13, 17), bias=False),
        nn.LayerNorm(17, elementwise_affine=False),
        nn.RMSNorm(17),
        nn.RMSNorm((13, 17), eps=1e-3),
        nn.RMSNorm(17, elementwise_affine=False),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_last_axes(layer: nn.Module, dtype: torch.dtype) -> None:
    name = "input" if isinstance(layer, nn.LayerNorm) else "x"
    x, y = _image(3, 8, 13, 17, dtype=dtype), _image(1, 2, 13, 17, dtype=dtype)
    outcome = lower_and_compare(
        _trained(layer).to(dtype),
        (x,),
        dynamic={name: {0: (1, 4), 1: (1, 9)}},
        other_inputs=[(y,)],
        atol=8e-3 if dtype is torch.float16 else 1e-5,
    )
    assert outcome.nodes == 1
    layer.float()


def test_batch_norm_of_vectors_and_sequences() -> None:
    assert lower_and_compare(_trained(nn.BatchNorm1d(8)), (_image(5, 8),)).nodes == 1
    assert lower_and_compare(_trained(nn.BatchNorm1d(8)), (_image(5, 8, 7),)).nodes == 1
    assert lower_and_compare(_trained(nn.BatchNorm3d(8)), (_image(2, 8, 3, 4, 5),)).nodes == 1


def test_batch_norm_by_the_batch() -> None:
    """Without running statistics eager normalises by the batch, in eval mode too."""
    layer = _trained(nn.BatchNorm2d(8, track_running_stats=False))
    lower_and_compare(layer, (_image(3, 8, 6, 7),), dynamic=_DYNAMIC, other_inputs=[(_image(2, 8, 9, 6),)])


def test_batch_norm_in_training_mode_is_refused() -> None:
    layer = nn.BatchNorm2d(8)
    layer.train()

    def forward(x: Tensor) -> Tensor:
        result: Tensor = layer(x)
        return result

    with pytest.raises(GraphForgeError, match="eval"):
        lower_and_compare(forward, (_image(3, 8, 6, 7),))


def test_instance_norm_by_the_input_leaves_running_statistics_alone() -> None:
    class Net(nn.Module):
        mean: Tensor
        var: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.rand(8))
            self.register_buffer("var", torch.rand(8) + 0.5)

        def forward(self, x: Tensor) -> Tensor:
            return functional.instance_norm(x, self.mean, self.var)

    net = Net().eval()
    outcome = lower_and_compare(net, (_image(3, 8, 6, 7),), other_inputs=[(_image(3, 8, 6, 7) * 3,)])
    assert outcome.counts["InstanceNormalization"] == 1


def test_group_norm_of_vectors_and_nothing() -> None:
    lower_and_compare(nn.GroupNorm(2, 8), (_image(3, 8),))
    lower_and_compare(nn.GroupNorm(2, 8), (_image(0, 8, 4, 4),))


def test_doubles_keep_their_digits() -> None:
    for layer in (nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True), nn.BatchNorm2d(8)):
        lower_and_compare(_trained(layer).double(), (_image(3, 8, 6, 7, dtype=torch.float64),))


def test_doubles_have_an_epsilon_of_doubles(tmp_path: Path) -> None:
    """Where the variance is small beside it, an epsilon of single precision changes the ninth digit."""
    small = _image(3, 8, 6, 7, dtype=torch.float64) * 1e-4
    batch = nn.BatchNorm2d(8)
    assert batch.running_var is not None
    batch.running_var.mul_(1e-8)
    norms = [nn.InstanceNorm2d(8), nn.GroupNorm(2, 8), batch, nn.LayerNorm(7), nn.RMSNorm([6, 7], eps=1e-5)]
    model = nn.ModuleList(norms).double().eval()

    class All(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = model

        def forward(self, x: Tensor) -> list[Tensor]:
            statistics = torch.native_layer_norm(x, [7], None, None, 1e-5)
            sums = torch.addmm(x[0, 0], x[0, 1], x[:, 0, 0].T @ x[:, 0, 0], beta=0.3, alpha=0.7)
            return [*(norm(x) for norm in self.norms), *statistics, sums]

    bundle = graphforge.compile(All(), (small,), output=tmp_path / "norms")
    assert bundle.manifest["verification"]["passed"]
    session = onnxruntime.InferenceSession(bundle.path / "model.onnx", providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for got, wanted in zip(session.run(None, {name: small.numpy()}), All()(small), strict=True):
        np.testing.assert_allclose(got, wanted.detach().numpy(), rtol=1e-13, atol=1e-17)


@pytest.mark.parametrize("method", ["export-strict", "trace"])
def test_decomposed_forms(method: str) -> None:
    for layer in (nn.BatchNorm2d(8), nn.LayerNorm(7), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8)):
        lower_and_compare(_trained(layer), (_image(3, 8, 6, 7),), method=method)


def test_statistics_are_computed_where_used() -> None:
    x = _image(3, 8, 6, 7)
    lower_and_compare(lambda x: torch.native_layer_norm(x, [7], None, None, 1e-5), (x,))
    lower_and_compare(lambda x: torch.native_group_norm(x, None, None, 3, 8, 42, 2, 1e-5), (x,))
    unused = lower_and_compare(lambda x: torch.native_layer_norm(x, [7], None, None, 1e-5)[0], (x,))
    assert unused.nodes == 1


def test_local_response_norm() -> None:
    lower_and_compare(lambda x: functional.local_response_norm(x, 3), (_image(2, 8, 6, 7),))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_root_mean_square_of_halves_takes_the_smallest_step_of_float32(dtype: torch.dtype) -> None:
    """torch's default is that of the type it computes in; that of bfloat16 would outweigh small values."""
    x = (torch.randn(3, 8, generator=torch.Generator().manual_seed(0)) * 0.02).to(dtype)
    lower_and_compare(lambda x: functional.rms_norm(x, (8,)), (x,))
    lower_and_compare(lambda x: torch.ops.aten._fused_rms_norm(x, (8,), None, None), (x,))


@pytest.mark.parametrize("opset", [None, 18, 21, 23])
def test_groups_with_a_mean_far_from_zero_keep_their_digits_at_every_opset(opset: int | None, tmp_path: Path) -> None:
    """ONNX defines GroupNormalization of 21 by a difference of squares, and ONNX Runtime computes it so."""
    norm = nn.GroupNorm(2, 4)
    x = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0)) * 0.1 + 5
    bundle = graphforge.compile(norm, x, opset=opset, output=tmp_path / "bundle")
    session = onnxruntime.InferenceSession(bundle.path / "model.onnx")
    exact = nn.functional.group_norm(x.double(), 2).numpy()
    assert np.abs(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0] - exact).max() < 2e-4
