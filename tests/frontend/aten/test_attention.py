"""Attention in every form: one node, equal to eager where rows see nothing, heads are grouped and sizes are dynamic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphforge.errors import GraphForgeError
from graphforge.spec import DimRange
from tests.frontend.helpers import lower_and_compare

_attend: Callable[..., Tensor] = functional.scaled_dot_product_attention


def _values(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def _heads(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    return _values(2, 4, 5, 8, dtype=dtype), _values(2, 4, 7, 8, dtype=dtype), _values(2, 4, 7, 6, dtype=dtype)


_BATCH, _QUERIES, _KEYS = DimRange("batch", 1, 9), DimRange("queries", 1, 20), DimRange("keys", 1, 20)
_DYNAMIC = {"q": {0: _BATCH, 2: _QUERIES}, "k": {0: _BATCH, 2: _KEYS}, "v": {0: _BATCH, 2: _KEYS}}
_OTHER = (_values(1, 4, 9, 8), _values(1, 4, 3, 8), _values(1, 4, 3, 6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("causal", [False, True])
def test_one_node_at_every_size(causal: bool, dtype: torch.dtype) -> None:
    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _attend(q, k, v, is_causal=causal, scale=0.3 if causal else None)

    other = tuple(tensor.to(dtype) for tensor in _OTHER)
    outcome = lower_and_compare(forward, _heads(dtype), dynamic=_DYNAMIC, other_inputs=[other])
    casts = {"Cast": 4} if dtype is torch.float16 else {}
    assert outcome.counts == {"Attention": 1, **casts}


def test_large_scores_in_half_precision() -> None:
    """ONNX Runtime's own float16 kernel is off by 2 % here; eager computes in single precision, and so do we."""
    q, k, v = (
        tensor.to(torch.float16)
        for tensor in (_values(1, 4, 64, 64) * 4, _values(1, 4, 65, 64) * 4, _values(1, 4, 65, 64))
    )
    lower_and_compare(lambda q, k, v: _attend(q, k, v), (q, k, v))


@pytest.mark.parametrize("shape", [(5, 7), (1, 7), (2, 1, 1, 7), (2, 4, 5, 7), (4, 5, 7), (1, 1, 5, 1)], ids=str)
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks_with_rows_that_see_nothing(kind: str, shape: tuple[int, ...]) -> None:
    """Eager gives zeros for such rows, not NaN."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.4
    mask[..., 0, :] = False
    given = mask if kind == "bool" else torch.where(mask, _values(*shape), -torch.inf)
    outcome = lower_and_compare(lambda q, k, v, mask: _attend(q, k, v, mask), (*_heads(), given))
    assert outcome.counts["Attention"] == 1


def test_a_mask_by_key_at_every_size() -> None:
    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return _attend(q, k, v, mask)

    mask = torch.rand(2, 1, 1, 7, generator=torch.Generator().manual_seed(0)) > 0.4
    lower_and_compare(
        forward,
        (*_heads(), mask),
        dynamic={**_DYNAMIC, "mask": {0: _BATCH, 3: _KEYS}},
        other_inputs=[(*_OTHER, torch.tensor([True, False, True]).view(1, 1, 1, 3))],
    )


def test_grouped_queries() -> None:
    q, k, v = _heads()
    outcome = lower_and_compare(
        lambda q, k, v: _attend(q, k, v, enable_gqa=True), (q, k[:, :2].contiguous(), v[:, :2].contiguous())
    )
    assert outcome.counts == {"Attention": 1}


@pytest.mark.parametrize("rank", [2, 3, 5])
@pytest.mark.parametrize("form", ["plain", "causal", "mask"])
def test_other_ranks(form: str, rank: int) -> None:
    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return _attend(q, k, v, mask if form == "mask" else None, is_causal=form == "causal")

    heads = [tensor[None].repeat(2, 1, 1, 1, 1) if rank == 5 else tensor[(0,) * (4 - rank)] for tensor in _heads()]
    mask = torch.ones(5, 7, dtype=torch.bool).tril()
    mask[2] = False
    outcome = lower_and_compare(forward, (*heads, mask))
    if rank == 3:
        assert outcome.counts == {"Attention": 1}


def test_doubles_broadcast_batches_and_nothing() -> None:
    """Forms that ONNX Runtime's Attention does not take are written out."""
    # ONNX Runtime folds the scale into its fused product as a single-precision number
    lower_and_compare(lambda q, k, v: _attend(q, k, v), _heads(torch.float64), atol=1e-6)
    q, k, v = _heads()
    lower_and_compare(lambda q, k, v: _attend(q, k, v), (q[:1], k, v))
    lower_and_compare(lambda q, k, v: _attend(q, k, v), (q[:0], k[:0], v[:0]))
    lower_and_compare(lambda q, k, v: _attend(q, k, v), (q, k[:, :, :0], v[:, :, :0]))


def test_dropout_is_refused() -> None:
    """torch applies dropout_p in eval mode too, so that leaving it out would change the result."""
    with pytest.raises(GraphForgeError, match="dropout"):
        lower_and_compare(lambda q, k, v: _attend(q, k, v, dropout_p=0.1), _heads())


@pytest.mark.parametrize("method", ["export-strict", "trace"])
def test_decomposed_forms(method: str) -> None:
    lower_and_compare(lambda q, k, v: _attend(q, k, v, is_causal=True), _heads(), method=method)


def test_encoder_layer_at_every_size() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")

    def forward(x: Tensor, padding: Tensor) -> Tensor:
        result: Tensor = layer(x, src_key_padding_mask=padding)
        return result

    layer.eval()
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[0, 3:] = True
    batch, length = DimRange("batch", 1, 9), DimRange("length", 2, 20)
    outcome = lower_and_compare(
        forward,
        (_values(2, 5, 8), padding),
        dynamic={"x": {0: batch, 1: length}, "padding": {0: batch, 1: length}},
        other_inputs=[(_values(3, 7, 8), torch.zeros(3, 7, dtype=torch.bool))],
    )
    assert outcome.counts["Attention"] == 1


_fused = torch.ops.aten._native_multi_head_attention
_fused_layer = torch.ops.aten._transformer_encoder_layer_fwd


@pytest.mark.parametrize("mask_type", [None, 0, 1, 2])
def test_fused_paths(mask_type: int | None) -> None:
    """What eager runs in place of nn.MultiheadAttention and nn.TransformerEncoderLayer."""
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[0, 3:] = True
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    both = (padding.view(2, 1, 1, 5) | later).expand(2, 2, 5, 5).contiguous()
    masks = [] if mask_type is None else [(later, padding, both)[mask_type]]
    projections = (_values(24, 8), _values(24), _values(8, 8), _values(8))
    norms = (_values(8), _values(1, 8)[0], _values(8), _values(1, 8)[0])
    feed_forward = (_values(16, 8), _values(16), _values(8, 16), _values(8))

    def attention(x: Tensor, *mask: Tensor) -> tuple[Tensor, Tensor]:
        given = mask[0] if mask else None
        result: tuple[Tensor, Tensor] = _fused(x, x, x, 8, 2, *projections, given, True, True, mask_type)
        return result

    def cross(x: Tensor, y: Tensor, *mask: Tensor) -> Tensor:
        given = mask[0] if mask else None
        result: Tensor = _fused(x, y, y, 8, 2, *projections, given, False, True, mask_type)[0]
        return result

    def layer(x: Tensor, *mask: Tensor) -> list[Tensor]:
        given = mask[0] if mask else None
        return [
            _fused_layer(x, 8, 2, *projections, gelu, first, 1e-5, *norms, *feed_forward, given, mask_type)
            for gelu in (True, False)
            for first in (True, False)
        ]

    x = _values(2, 5, 8)
    lower_and_compare(attention, (x, *masks), rtol=1e-4)
    lower_and_compare(cross, (x, _values(2, 5, 8) * 0.5, *masks), rtol=1e-4)
    lower_and_compare(layer, (x, *masks), rtol=1e-4, atol=1e-4)  # four layers' sums
