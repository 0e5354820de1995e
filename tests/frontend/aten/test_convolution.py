"""Convolutions agree with eager at every promised size, in every spelling."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.frontend.helpers import lower_and_compare

_IMAGE = {"input": {0: (1, 4), 2: (6, 40), 3: (6, 40)}}


def _image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, (1, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2), bias=False),
        nn.Conv2d(4, 8, 3, groups=4, padding=1, padding_mode="zeros"),
        nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2)),
        nn.Conv2d(4, 6, 3, padding="valid"),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.ConvTranspose2d(4, 6, (3, 2), stride=(1, 3), dilation=2, bias=False),
    ],
    ids=lambda layer: str(layer),
)
def test_2d_is_one_node_at_every_size(layer: nn.Module, dtype: torch.dtype) -> None:
    other = _image(1, 4, 20, 9, dtype=dtype)
    outcome = lower_and_compare(
        layer.to(dtype),
        (_image(2, 4, 13, 17, dtype=dtype),),
        dynamic=_IMAGE,
        other_inputs=[(other,)],
        atol=2e-3 if dtype is torch.float16 else 1e-5,  # sums in another order
    )
    assert outcome.nodes == 1
    layer.float()


def test_1d_and_3d() -> None:
    for layer, x, y in (
        (nn.Conv1d(3, 5, 4, stride=3, padding=2), _image(2, 3, 20), _image(1, 3, 31)),
        (nn.ConvTranspose1d(3, 5, 4, stride=3), _image(2, 3, 20), _image(1, 3, 7)),
    ):
        outcome = lower_and_compare(layer, (x,), dynamic={"input": {0: (1, 4), 2: (5, 40)}}, other_inputs=[(y,)])
        assert outcome.nodes == 1
    for volume in (nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1)), nn.ConvTranspose3d(2, 3, 2, stride=2)):
        assert lower_and_compare(volume, (_image(1, 2, 4, 5, 6),)).nodes == 1


def test_without_batch() -> None:
    assert lower_and_compare(nn.Conv2d(4, 6, 3), (_image(4, 9, 9),)).counts["Conv"] == 1
    assert lower_and_compare(nn.ConvTranspose2d(4, 6, 3), (_image(4, 9, 9),)).counts["ConvTranspose"] == 1


def test_computed_weight() -> None:
    """The weight may be computed in the graph: a dynamic filter."""

    def forward(input: Tensor, weight: Tensor) -> Tensor:
        return functional.conv2d(input, torch.tanh(weight))

    assert lower_and_compare(forward, (_image(1, 4, 9, 9), _image(2, 4, 3, 3))).nodes == 2


@pytest.mark.parametrize("method", ["export-strict", "trace"])
def test_decomposed_forms(method: str) -> None:
    for layer in (nn.Conv2d(4, 6, 3, padding="same"), nn.ConvTranspose2d(4, 6, 3, stride=2)):
        lower_and_compare(layer, (_image(2, 4, 9, 9),), method=method)


def test_output_padding_beyond_the_stride() -> None:
    """torch allows it below the dilation; ONNX Runtime does not, so the rest is padded on afterwards."""
    layer = nn.ConvTranspose2d(4, 4, 3, stride=(3, 2), padding=(1, 2), output_padding=(2, 3), groups=2, dilation=4)
    lower_and_compare(layer, (_image(2, 4, 4, 5),))
    layer = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=0, output_padding=3, dilation=4)
    lower_and_compare(layer, (_image(2, 4, 4, 5),))


def test_empty_batch() -> None:
    lower_and_compare(nn.Conv2d(4, 6, 3), (_image(0, 4, 9, 9),))


def test_integers_and_doubles() -> None:
    weight = torch.randint(-3, 4, (2, 3, 2, 2))
    x = torch.randint(-5, 6, (1, 3, 6, 6))
    run: Callable[[Tensor, Tensor], Tensor] = functional.conv2d
    lower_and_compare(lambda a, b: run(a, b), (x, weight))
    # computed in single precision, which the graph says
    outcome = lower_and_compare(lambda a, b: run(a, b), (x.double(), weight.double()), rtol=1e-5, atol=1e-5)
    assert outcome.rounded == {"Conv"}
