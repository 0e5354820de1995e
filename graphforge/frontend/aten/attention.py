"""Attention: scaled_dot_product_attention in all its spellings, and the fused paths of nn.MultiheadAttention.

The ONNX operator Attention (opset 23) is used wherever ONNX Runtime runs it.  On CPU, one thread, it took 0.75 to 1.0
of its decomposition's time in most shapes measured and up to 1.13 in a few (long causal sequences), with a fraction
of the nodes; and it agrees with eager PyTorch on rows that are masked out entirely, which are zero and not NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphforge.frontend.aten.norm import layer_normalized
from graphforge.frontend.emitter import Dim, Emitter, SymbolicScalar, dim_label_of
from graphforge.frontend.rules import lowers
from graphforge.ir.dtypes import HALVES

__all__: list[str] = []

_FLOAT = ir.DataType.FLOAT
_BOOL = ir.DataType.BOOL
_AFTER_SOFTMAX = 3


def _labels(op: Emitter, value: ir.Value) -> list[int | str]:
    return [dim_label_of(size) for size in op.dims(value)]


def _attention(
    op: Emitter,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    mask: ir.Value | None,
    *,
    causal: bool,
    scale: Any,
) -> ir.Value:
    """softmax(query key^T * scale + mask) value, over any leading dims."""
    if query.dtype in HALVES:
        # eager computes halves in single precision; ONNX Runtime's kernel for float16 does not, with errors of 2 %
        query, key, value = (op.cast(operand, _FLOAT) for operand in (query, key, value))
    if mask is not None and mask.dtype != _BOOL:
        mask = op.cast(mask, query.dtype or _FLOAT)
    if _runs_whole(op, query, key, value, mask, scale):
        return _whole(op, query, key, value, mask, causal=causal, scale=scale)
    return _in_parts(op, query, key, value, mask, causal=causal, scale=scale)[0]


def _runs_whole(
    op: Emitter, query: ir.Value, key: ir.Value, value: ir.Value, mask: ir.Value | None, scale: Any
) -> bool:
    """Whether ONNX Runtime's Attention takes these operands."""
    rank = op.rank(query)
    if query.dtype != _FLOAT or rank not in (3, 4) or op.rank(key) != rank or op.rank(value) != rank:
        return False
    if scale is not None and not (isinstance(scale, int | float) and scale > 0):
        return False
    q, k, v = _labels(op, query), _labels(op, key), _labels(op, value)
    if 0 in (*q, *k, *v) or q[0] != k[0] or q[0] != v[0]:
        return False
    if rank == 4:
        heads, key_heads, value_heads = q[1], k[1], v[1]
        grouped = isinstance(heads, int) and isinstance(key_heads, int) and heads % key_heads == 0
        if key_heads != value_heads or not (heads == key_heads or grouped):
            return False
    return mask is None or op.rank(mask) <= rank


def _whole(
    op: Emitter,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    mask: ir.Value | None,
    *,
    causal: bool,
    scale: Any,
) -> ir.Value:
    one_head = op.rank(query) == 3
    if mask is not None:
        mask = _full_mask(op, mask, op.size(query, -2), op.size(key, -2))
        if one_head and op.rank(mask) == 3:
            mask = op.unsqueeze(mask, [1])
    result: ir.Value = op.Attention(
        query,
        key,
        value,
        mask,
        is_causal=int(causal) or None,
        scale=None if scale is None else float(scale),
        q_num_heads=1 if one_head else None,
        kv_num_heads=1 if one_head else None,
    )
    return result


def _full_mask(op: Emitter, mask: ir.Value, queries: Dim, keys: Dim) -> ir.Value:
    """The mask with its last two dims spelled out, as ONNX Runtime wants them."""
    rank = op.rank(mask)
    if rank == 1:
        mask, rank = op.unsqueeze(mask, [0]), 2
    lead: list[Dim] = [-1] * (rank - 2)
    return op.expand(mask, [*lead, queries, keys])


def _repeated(op: Emitter, x: ir.Value, heads: Dim) -> ir.Value:
    """Key or value heads repeated to as many as the query has."""
    own = op.size(x, -3)
    if dim_label_of(own) == dim_label_of(heads):
        return x
    if not isinstance(own, int) or not isinstance(heads, int):
        raise op.fail("grouped queries need a fixed number of heads")
    rank = op.rank(x)
    lead: list[Dim] = op.dims(x)[: rank - 3]
    size: list[Dim] = op.dims(x)[rank - 2 :]
    wide = op.expand(op.unsqueeze(x, [rank - 2]), [*lead, own, heads // own, *size])
    return op.reshape(wide, [*lead, heads, *size])


def _causal_mask(op: Emitter, query: ir.Value, key: ir.Value) -> ir.Value:
    """True where a query may look: at its own position and before."""
    queries, keys = op.size(query, -2), op.size(key, -2)
    if isinstance(queries, int) and isinstance(keys, int):
        return op.constant(np.tril(np.ones((queries, keys), dtype=bool)))
    rows = op.Unsqueeze(op.Range(0, op.scalar(queries, ir.DataType.INT64), 1), [1])
    allowed: ir.Value = op.LessOrEqual(op.Range(0, op.scalar(keys, ir.DataType.INT64), 1), rows)
    return allowed


def _scale_factor(op: Emitter, query: ir.Value, scale: Any) -> ir.Value:
    dtype = query.dtype or _FLOAT
    if isinstance(scale, SymbolicScalar):
        return op.scalar(scale, dtype)
    if scale is not None:
        return op.constant(float(scale), dtype)
    width = op.size(query, -1)
    if isinstance(width, int):
        return op.constant(1.0 / math.sqrt(width) if width else 1.0, dtype)
    factor: ir.Value = op.Reciprocal(op.Sqrt(op.scalar(width, dtype)))
    return factor


def _in_parts(
    op: Emitter,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    mask: ir.Value | None,
    *,
    causal: bool,
    scale: Any,
) -> tuple[ir.Value, ir.Value]:
    """The same in plain products, and the attention weights; rows that see nothing are zero."""
    if op.rank(query) >= 3:
        heads = op.size(query, -3)
        if op.rank(key) >= 3:
            key, value = _repeated(op, key, heads), _repeated(op, value, heads)
    rank = op.rank(key)
    swapped = op.transpose(key, [*range(rank - 2), rank - 1, rank - 2])
    scores = op.MatMul(op.Mul(query, _scale_factor(op, query, scale)), swapped)
    if causal:
        mask = _causal_mask(op, query, key)
    dtype = query.dtype or _FLOAT
    if mask is None:
        weights = op.Softmax(scores, axis=-1)
    elif mask.dtype == _BOOL:
        weights = op.Softmax(op.Where(mask, scores, op.constant(-math.inf, dtype)), axis=-1)
        weights = op.Where(mask, weights, op.constant(0.0, dtype))
    else:
        masked = op.Add(scores, mask)
        blind = op.Equal(op.ReduceMax(masked, [-1], keepdims=1), op.constant(-math.inf, dtype))
        weights = op.Where(blind, op.constant(0.0, dtype), op.Softmax(masked, axis=-1))
    return op.MatMul(weights, value), weights


def _refuse_dropout(op: Emitter, probability: float) -> None:
    if probability:
        raise op.fail(
            "attention dropout is active",
            "pass dropout_p=0.0 outside of training (torch applies it even in eval mode)",
        )


@lowers("aten.scaled_dot_product_attention.default")
def scaled_dot_product_attention(
    op: Emitter,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    attn_mask: ir.Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: Any = None,
    enable_gqa: bool = False,
) -> ir.Value:
    """Attention.

    Raises:
        LoweringError: dropout is active.
    """
    _refuse_dropout(op, dropout_p)
    return _attention(op, query, key, value, attn_mask, causal=is_causal, scale=scale)


def _only_first(op: Emitter, result: ir.Value) -> list[ir.Value | None]:
    """The result among results of a kernel that nothing in inference may use.

    Raises:
        LoweringError: something uses one of the others.
    """
    count = len(op.result)
    if any(op.wants(index) for index in range(1, count)):
        raise op.fail("uses statistics of the attention kernel that are for its gradient only")
    return [result, *[None] * (count - 1)]


@lowers("aten._scaled_dot_product_flash_attention_for_cpu.default")
def flash_attention_for_cpu(
    op: Emitter,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: ir.Value | None = None,
    scale: Any = None,
) -> list[ir.Value | None]:
    """Attention."""
    _refuse_dropout(op, dropout_p)
    return _only_first(op, _attention(op, query, key, value, attn_mask, causal=is_causal, scale=scale))


@lowers("aten._scaled_dot_product_flash_attention.default")
def flash_attention(
    op: Emitter,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: Any = None,
) -> list[ir.Value | None]:
    """Attention."""
    _refuse_dropout(op, dropout_p)
    return _only_first(op, _attention(op, query, key, value, None, causal=is_causal, scale=scale))


@lowers("aten._scaled_dot_product_efficient_attention.default", "aten._scaled_dot_product_cudnn_attention.default")
def efficient_attention(
    op: Emitter,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    attn_bias: ir.Value | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: Any = None,
) -> list[ir.Value | None]:
    """Attention."""
    _refuse_dropout(op, dropout_p)
    return _only_first(op, _attention(op, query, key, value, attn_bias, causal=is_causal, scale=scale))


@lowers("aten._scaled_dot_product_fused_attention_overrideable.default")
def fused_attention(
    op: Emitter,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    attn_bias: ir.Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: Any = None,
) -> list[ir.Value | None]:
    """Attention."""
    _refuse_dropout(op, dropout_p)
    return _only_first(op, _attention(op, query, key, value, attn_bias, causal=is_causal, scale=scale))


@lowers("aten._scaled_dot_product_attention_math.default", "aten._scaled_dot_product_attention_math_for_mps.default")
def attention_math(
    op: Emitter,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    attn_mask: ir.Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    dropout_mask: ir.Value | None = None,
    *,
    scale: Any = None,
    enable_gqa: bool = False,
) -> list[ir.Value | None]:
    """Attention, with its weights where used."""
    _refuse_dropout(op, dropout_p)
    if not op.wants(1):
        return [_attention(op, query, key, value, attn_mask, causal=is_causal, scale=scale), None]
    if query.dtype in HALVES:
        query, key, value = (op.cast(operand, _FLOAT) for operand in (query, key, value))
    if attn_mask is not None and attn_mask.dtype != _BOOL:
        attn_mask = op.cast(attn_mask, query.dtype or _FLOAT)
    return list(_in_parts(op, query, key, value, attn_mask, causal=is_causal, scale=scale))


# -- nn.MultiheadAttention and nn.TransformerEncoderLayer, fused -----------------------------------------------------


def _dense(op: Emitter, x: ir.Value, weight: ir.Value, bias: ir.Value | None) -> ir.Value:
    from graphforge.frontend.aten.linear import linear

    result: ir.Value = linear(op, x, weight, bias)
    return result


def _fused_mask(op: Emitter, mask: ir.Value | None, mask_type: int | None) -> ir.Value | None:
    """The mask of the fused kernels (true: look away) as Attention's (true: look), [.., .., queries, keys]."""
    if mask is None:
        return None
    looking: ir.Value = op.Not(mask) if mask.dtype == _BOOL else op.Equal(mask, op.constant(0, mask.dtype))
    # a mask by key is [batch, keys]
    return op.unsqueeze(looking, [1, 2]) if mask_type == 1 else looking


def _multi_head(
    op: Emitter,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    width: int,
    heads: int,
    qkv_weight: ir.Value,
    qkv_bias: ir.Value,
    mask: ir.Value | None,
    *,
    weights: bool,
) -> tuple[ir.Value, ir.Value | None]:
    """Projected, attended, heads side by side again: [batch, queries, width]; and the attention weights."""
    if query is key and key is value:
        projected = _dense(op, query, qkv_weight, qkv_bias)
        q, k, v = op.Split(projected, [width, width, width], axis=-1, _outputs=3)
    else:
        q, k, v = (
            _dense(
                op,
                x,
                op.Slice(qkv_weight, [start], [start + width], [0]),
                op.Slice(qkv_bias, [start], [start + width], [0]),
            )
            for x, start in ((query, 0), (key, width), (value, 2 * width))
        )
    if query.dtype in HALVES:
        q, k, v = (op.cast(operand, _FLOAT) for operand in (q, k, v))
    if mask is not None:
        mask = _full_mask(op, mask, op.size(query, 1), op.size(key, 1))
    attributes = {"q_num_heads": heads, "kv_num_heads": heads}
    if not weights:
        result: ir.Value = op.Attention(q, k, v, mask, **attributes)
        return result, None
    attended, _, _, scores = op.Attention(q, k, v, mask, _outputs=4, qk_matmul_output_mode=_AFTER_SOFTMAX, **attributes)
    return attended, scores


@lowers("aten._native_multi_head_attention.default")
def native_multi_head_attention(
    op: Emitter,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    embed_dim: int,
    num_head: int,
    qkv_weight: ir.Value,
    qkv_bias: ir.Value,
    proj_weight: ir.Value,
    proj_bias: ir.Value,
    mask: ir.Value | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> Sequence[ir.Value | None]:
    """Projections around Attention."""
    wanted = need_weights and op.wants(1)
    attended, scores = _multi_head(
        op,
        query,
        key,
        value,
        embed_dim,
        num_head,
        qkv_weight,
        qkv_bias,
        _fused_mask(op, mask, mask_type),
        weights=wanted,
    )
    result = _dense(op, attended, proj_weight, proj_bias)
    if scores is not None and average_attn_weights:
        scores = op.ReduceMean(scores, [1], keepdims=0)
    return [result, scores]


@lowers("aten._transformer_encoder_layer_fwd.default")
def transformer_encoder_layer(
    op: Emitter,
    src: ir.Value,
    embed_dim: int,
    num_heads: int,
    qkv_weight: ir.Value,
    qkv_bias: ir.Value,
    proj_weight: ir.Value,
    proj_bias: ir.Value,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: ir.Value,
    norm_bias_1: ir.Value,
    norm_weight_2: ir.Value,
    norm_bias_2: ir.Value,
    ffn_weight_1: ir.Value,
    ffn_bias_1: ir.Value,
    ffn_weight_2: ir.Value,
    ffn_bias_2: ir.Value,
    mask: ir.Value | None = None,
    mask_type: int | None = None,
) -> ir.Value:
    """A whole encoder layer, written out."""
    looking = _fused_mask(op, mask, mask_type)

    def attend(x: ir.Value) -> ir.Value:
        attended, _ = _multi_head(op, x, x, x, embed_dim, num_heads, qkv_weight, qkv_bias, looking, weights=False)
        return _dense(op, attended, proj_weight, proj_bias)

    def feed_forward(x: ir.Value) -> ir.Value:
        hidden = _dense(op, x, ffn_weight_1, ffn_bias_1)
        return _dense(op, op.Gelu(hidden) if use_gelu else op.Relu(hidden), ffn_weight_2, ffn_bias_2)

    def normalise(x: ir.Value, weight: ir.Value, bias: ir.Value) -> ir.Value:
        normalised = layer_normalized(op, x, [op.size(x, -1)], weight, bias, eps)
        assert isinstance(normalised, ir.Value)
        return normalised

    if norm_first:
        x = op.Add(src, attend(normalise(src, norm_weight_1, norm_bias_1)))
        result: ir.Value = op.Add(x, feed_forward(normalise(x, norm_weight_2, norm_bias_2)))
        return result
    x = normalise(op.Add(src, attend(src)), norm_weight_1, norm_bias_1)
    return normalise(op.Add(x, feed_forward(x)), norm_weight_2, norm_bias_2)
