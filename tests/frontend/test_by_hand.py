"""Operators that no OpInfo sample calls: other spellings, primitive operators, random numbers; each called by name.

``CASES`` says which operator is tested by which calls, ``ELSEWHERE`` which other test has it; ``test_opinfo.py`` wants
every lowering to be in the OpInfo table or in one of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from graphforge.errors import LoweringError
from graphforge.frontend.lower import lower
from tests.frontend.helpers import assert_same, run_model
from tests.frontend.opinfo import Sample, Status, capture_call, check, operator_of, single_call

__all__ = ["CASES", "ELSEWHERE", "Call"]


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one call of an operator, and how many of its results are used (None: all)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    used: int | None = None


def call(*args: Any, **kwargs: Any) -> Call:
    """A call as it is written."""
    return Call(args, kwargs)


def first(*args: Any, **kwargs: Any) -> Call:
    """A call of which only the first result is used: the others are statistics for gradients."""
    return Call(args, kwargs, used=1)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def floats(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Numbers around 0."""
    return torch.randn(shape, generator=_generator(seed)).to(dtype)


def positives(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers between 0.1 and 1.1."""
    return torch.rand(shape, generator=_generator(seed)) + 0.1


def integers(
    *shape: int, low: int = -9, high: int = 9, dtype: torch.dtype = torch.int64, seed: int = 0
) -> torch.Tensor:
    """Whole numbers, ends included."""
    return torch.randint(low, high + 1, shape, generator=_generator(seed)).to(dtype)


def bools(*shape: int, seed: int = 0) -> torch.Tensor:
    """True and false, mixed."""
    return integers(*shape, low=0, high=1, seed=seed).bool()


X, Y = floats(2, 3), floats(2, 3, seed=1)
P, Q = positives(2, 3), positives(2, 3, seed=1)
N, M = integers(2, 3), integers(2, 3, seed=1)
S = integers(2, 3, low=0, high=5)
B, C = bools(2, 3), bools(2, 3, seed=1)

CASES: dict[str, tuple[Call, ...]] = {}


def _spelled(names: str, *calls: Call) -> None:
    for name in names.split():
        CASES[name] = calls


# -- other spellings ---------------------------------------------------------------------------------------------------

for _name in ("and", "or", "xor"):
    _spelled(f"aten.__{_name}__.Tensor", call(N, M), call(B, C))
    _spelled(f"aten.__{_name}__.Scalar aten.bitwise_{_name}.Scalar", call(N, 5), call(B, True))
    _spelled(f"aten.bitwise_{_name}.Scalar_Tensor", call(5, N), call(True, B))
_spelled("aten.__lshift__.Tensor aten.__rshift__.Tensor", call(N, S), call(N.int(), S.int()))
_spelled(
    "aten.__lshift__.Scalar aten.__rshift__.Scalar aten.bitwise_left_shift.Tensor_Scalar "
    "aten.bitwise_right_shift.Tensor_Scalar",
    call(N, 3),
    call(N.to(torch.uint8), 9),
    call(N, 64),
)
_spelled("aten.bitwise_left_shift.Scalar_Tensor aten.bitwise_right_shift.Scalar_Tensor", call(-77, S))
for _word, _short in (("less", "lt"), ("less_equal", "le"), ("greater", "gt"), ("greater_equal", "ge")):
    _spelled(f"aten.{_word}.Tensor aten.{_short}.Tensor", call(X, Y), call(N, M), call(B, C), call(N, X))
    _spelled(f"aten.{_word}.Scalar aten.{_short}.Scalar", call(X, 0.5), call(N, 1), call(N, 0.5), call(B, 0))
_spelled("aten.not_equal.Tensor", call(N, M), call(B, C))
_spelled("aten.not_equal.Scalar aten.eq.Scalar", call(N, 1), call(N.to(torch.int8), 200), call(X, 0.5))
_spelled("aten.multiply.Tensor aten.mul.Tensor", call(X, Y), call(B, C), call(X.half(), torch.tensor(3.0)))
_spelled("aten.multiply.Scalar aten.mul.Scalar", call(X, 2), call(X.half(), 1e5), call(N, 2.5))
_spelled("aten.subtract.Tensor", call(X, Y), call(X, Y, alpha=2))
_spelled(
    "aten.subtract.Scalar aten.rsub.Scalar aten.sub.Scalar aten.add.Scalar", call(X, 2), call(N, 2, 3), call(N, 0.5)
)
_spelled("aten.divide.Tensor aten.true_divide.Tensor", call(X, P), call(N, M.abs() + 1))
_spelled("aten.divide.Scalar aten.true_divide.Scalar aten.div.Scalar", call(X, 2), call(N, 3))
_spelled(
    "aten.divide.Tensor_mode aten.div.Tensor_mode",
    *(
        call(a, b, rounding_mode=mode)
        for mode in ("floor", "trunc", None)
        for a, b in ((X, Y), (N, M.abs() + 1), (N, -M.abs() - 1))
    ),
)
_spelled(
    "aten.divide.Scalar_mode aten.div.Scalar_mode",
    *(
        call(a, b, rounding_mode=mode)
        for mode in ("floor", "trunc", None)
        for a, b in ((X, 0.3), (X, -2), (N, 3), (N, -3))
    ),
)
_spelled("aten.floor_divide.Scalar", call(N, 4), call(N, -3), call(X, 0.25), call(X, -0.3))
_spelled("aten.remainder.Scalar_Tensor", call(7, M.abs() + 1), call(-2.5, P))
_spelled("aten.float_power.Scalar", call(2, X))
_spelled("aten.float_power.Tensor_Scalar", call(P, 1.5), call(N, 2))
_spelled("aten.xlogy.Scalar_Self", call(2, P), call(0, P))
_spelled("aten.xlogy.Scalar_Other", call(X, 2))
_spelled("aten.copysign.Scalar", call(X, -1.0), call(X, 2), call(N, -0.0))
_spelled("aten.arctan2.default", call(X, Y), call(N, M))
_spelled("aten.absolute.default aten.negative.default", call(X), call(N))
_spelled("aten.fix.default", call(X * 3), call(N))
_spelled("aten.clip.default", call(X, -0.5, 0.5), call(N, None, 2), call(X, 0.5, -0.5))
_spelled("aten.clip.Tensor", call(X, Y - 1, Y + 1), call(N, None, M))
_spelled("aten.clamp_max.default", call(X, 0.5), call(N, 2))
_spelled("aten.clamp_min.default", call(X, 0.5), call(N, 2))
_spelled("aten.special_erfc.default aten.special_sinc.default aten.special_exp2.default", call(X), call(N))
_spelled("aten.special_expm1.default", call(X), call(X * 1e-6), call(X * 40))
_spelled("aten.special_log1p.default", call(P), call(X * 1e-6), call(torch.tensor([float("inf"), -1.0, 1e30])))
_spelled("aten.special_logit.default", call(P * 0.8), call(P, 0.2))
_spelled("aten.special_logsumexp.default", call(X, [1]), call(X * 100, [0, 1], True))
_spelled("aten.isin.Tensor_Scalar", call(N, 3), call(X, 0.0))
_spelled("aten.isin.Scalar_Tensor", call(3, N), call(3, N, invert=True))
_spelled("aten.where.ScalarSelf", call(B, 1.5, X), call(B, 1, N), call(B, True, C))
_spelled("aten.where.ScalarOther", call(B, X, 1.5), call(B, N, 0.5), call(B, C, False))
_spelled("aten.where.Scalar", call(B, 1.5, -1.0), call(B, 1, 0))
_spelled("aten.norm.Scalar", call(X), call(X, 1), call(X, float("inf")))
_spelled("aten.norm.ScalarOpt_dtype", call(X, 2, dtype=torch.float64))
_spelled("aten.norm.ScalarOpt_dim_dtype", call(X, 3, [1], True, dtype=torch.float64))
_spelled("aten._softmax.default aten._log_softmax.default", call(X, 1, False), call(X, 0, False))
_spelled("aten._prelu_kernel.default", call(X, floats(1, 3)))
_spelled("aten.native_dropout.default", call(X, 0.5, False))
_spelled("aten.to.dtype_layout", call(X, dtype=torch.int32))
_spelled("aten.to.other aten.type_as.default", call(N, X), call(X * 3, N))
_spelled("aten.contiguous.default", call(X.t()))
_spelled("aten.detach.default", call(X))

# -- primitive operators -----------------------------------------------------------------------------------------------


def _primitives(names: str, *calls: Call) -> None:
    _spelled(" ".join(f"prims.{name}.default" for name in names.split()), *calls)


_primitives(
    "abs asin acos asinh atan atanh ceil cos cosh erf erfc exp "
    "exp2 expm1 floor isfinite neg round sign sin sinh tan tanh trunc",
    call(X / 3),
)
_primitives("log log10 log1p log2 reciprocal rsqrt sqrt", call(P))
_primitives("acosh", call(P + 1))
_primitives("bitwise_not", call(N), call(B))
_primitives("add sub mul eq ne ge gt le lt maximum minimum fmax fmin", call(X, Y), call(N, M))
_primitives("atan2", call(X, Y))
_primitives("bitwise_and bitwise_or bitwise_xor", call(N, M), call(B, C))
CASES["aten._is_all_true.default"] = (call(B), call(torch.ones(2, 3, dtype=torch.bool)), call(B[:0]))
CASES["aten.fmod.Scalar"] = (call(X, 0.7), call(X, -0.7), call(N, 3), call(N, -3))
_primitives("div fmod remainder", call(X, P), call(N, M.abs() + 1), call(N, -M.abs() - 1))
_primitives("pow", call(P, X), call(N, S))
_primitives("shift_left shift_right_arithmetic", call(N, S))
_primitives("where", call(B, X, Y))
_primitives("convert_element_type", call(X, torch.int64), call(N, torch.float16))
_primitives("sum prod", call(X, [1]), call(X, [0, 1]))
_primitives("amax amin", call(X, [1]), call(X, [0, 1]))
_primitives("broadcast_in_dim", call(X, [2, 4, 3], [0, 2]), call(floats(1, 3), [5, 3], [0, 1]))
_primitives("transpose", call(floats(2, 3, 4), [2, 0, 1]))
_primitives("squeeze", call(floats(1, 3, 1), [0, 2]))
_primitives("reshape", call(X, [3, 2]))
_primitives("collapse_view", call(floats(2, 3, 4, 5), 1, 2))
_primitives("full", call([2, 3], 1.5, dtype=torch.float32, device=torch.device("cpu"), requires_grad=False))
_primitives("iota", call(5, start=3, step=2, dtype=torch.int64, device=torch.device("cpu"), requires_grad=False))

# -- views, pieces, indexing: other spellings --------------------------------------------------------------------------

Z = floats(2, 3, 4)
_spelled("aten.adjoint.default", call(Z))
_spelled("aten._reshape_copy.default", call(Z, [4, -1]))
_spelled("aten._reshape_alias.default", call(Z, [6, 4], [4, 1]))
_spelled("aten.concat.default aten.concatenate.default", call([X, Y]), call([X, N], 1))
_spelled("aten.row_stack.default", call([X, Y]), call([floats(3), floats(3)]))
_spelled("aten.moveaxis.int aten.movedim.int", call(Z, 0, -1))
_spelled("aten.moveaxis.intlist", call(Z, [0, 1], [2, 0]))
_spelled("aten.swapaxes.default aten.swapdims.default", call(Z, 0, -1))
_spelled("aten.select_copy.int", call(Z, 1, -1))
_spelled("aten.slice_copy.Tensor", call(Z, 1, 1, 3), call(Z, -1, None, None, 2))
_spelled("aten.split.sizes aten.unsafe_split_with_sizes.default", call(Z, [1, 3], 2))
_spelled("aten.split_copy.Tensor", call(Z, 3, 2))
_spelled("aten.squeeze_copy.dims", call(floats(1, 3, 1), [0, 2]), call(floats(1, 3, 1), [0, 1]))
_spelled("aten.view.dtype aten.view_copy.dtype", call(X, torch.int32), call(N, torch.float64), call(B, torch.uint8))
_spelled("aten.where.default", call(N > 0))
_spelled("aten.fill.Tensor", call(X, torch.tensor(2.5)), call(N, torch.tensor(2.5)))
_spelled("aten.masked_fill.Scalar", call(X, B, 2.5), call(N, B[0], 7), call(B, C, True))
_spelled("aten.masked_fill.Tensor", call(X, B, torch.tensor(2.5)), call(N, B, torch.tensor(7)))
_spelled("aten.scatter.value_reduce", call(X, 1, S.clamp(max=2), 2.0, reduce="add"))
_spelled("aten._index_put_impl.default", call(X, [torch.tensor([0, 1])], Y), call(X, [torch.tensor([0, 0])], Y, True))
_spelled("aten.as_strided_scatter.default", call(Z, floats(2, 2), [2, 2], [4, 1], 1))
_spelled("aten.repeat_interleave.Tensor", call(torch.tensor([2, 0, 3])))
_spelled("aten.repeat_interleave.self_int", call(X, 2, 1), call(X, 3))
_spelled("aten.repeat_interleave.self_Tensor", call(X, torch.tensor([2, 0, 3]), 1))
_spelled("aten.meshgrid.default", call([floats(2), floats(3)]))
_spelled("aten.native_channel_shuffle.default", call(floats(1, 6, 2, 2), 3))
_spelled("aten._unique.default", first(N), call(N, True, True))
_spelled(
    "aten.bucketize.Scalar", call(2.5, torch.tensor([1.0, 2.0, 3.0])), call(2, torch.tensor([1, 2, 3]), right=True)
)
_spelled("aten.mode.default", call(N, 1))
_spelled("aten.nanmedian.default", call(torch.tensor([1.0, float("nan"), 3.0, 2.0])))
_spelled("aten.nanmedian.dim", call(torch.tensor([[1.0, float("nan"), 3.0, 2.0]]), 1))

# -- products, norms, convolutions, pools, sampling --------------------------------------------------------------------

_spelled("aten.ger.default", call(floats(3), floats(4)))
_spelled("aten.linalg_matmul.default", call(Z, floats(4, 5)))
_spelled("aten.tensordot.default", call(Z, floats(4, 3, 5), [2, 1], [0, 1]))
_spelled("aten.einsum.default", call("bij,jk->bik", [Z, floats(4, 5)]), call("ii->i", [floats(3, 3)]))
_spelled("aten.bilinear.default", call(floats(5, 3), floats(5, 4), floats(2, 3, 4), floats(2)))
_spelled(
    "aten.cdist.default", call(floats(2, 5, 3), floats(2, 4, 3)), call(X, Y, 1.0), call(floats(30, 3), floats(40, 3))
)
_spelled("aten._cdist_forward.default", call(X, Y, 2.0, None), call(X, Y, float("inf"), None))
_spelled("aten.det.default aten.linalg_det.default", call(floats(3, 3)), call(floats(2, 2, 2)))
_IMAGE, _KERNEL = floats(1, 4, 6, 6), floats(8, 4, 3, 3)
_spelled("aten.convolution.default", call(_IMAGE, _KERNEL, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1))
_spelled(
    "aten._convolution.deprecated",
    call(_IMAGE, _KERNEL, floats(8), [2, 2], [1, 1], [1, 1], False, [0, 0], 1, False, False, True),
)
_spelled(
    "aten._convolution.default",
    call(_IMAGE, floats(4, 2, 3, 3), floats(2), [2, 2], [1, 1], [1, 1], True, [1, 1], 1, False, False, True, True),
)
_spelled("aten.conv3d.padding", call(floats(1, 2, 4, 4, 4), floats(3, 2, 3, 3, 3), None, [1, 1, 1], "same"))
_spelled("aten._adaptive_avg_pool2d.default", call(_IMAGE, [2, 3]))
_spelled("aten._adaptive_avg_pool3d.default", call(floats(1, 2, 4, 4, 4), [2, 2, 1]))
_spelled("aten.avg_pool3d.default", call(floats(1, 2, 4, 4, 4), [2, 2, 2]))
_spelled("aten.max_pool1d.default", call(floats(1, 2, 8), [3], [2], [1]))
_spelled("aten.im2col.default", call(_IMAGE, [3, 3], [1, 1], [1, 1], [2, 2]))
_spelled("aten.col2im.default", call(floats(1, 36, 9), [6, 6], [3, 3], [1, 1], [1, 1], [2, 2]))
_spelled("aten.reflection_pad1d.default aten.replication_pad1d.default", call(Z, [1, 2]))
_spelled("aten.reflection_pad2d.default aten.replication_pad2d.default", call(_IMAGE, [1, 2, 0, 3]))
_spelled(
    "aten.reflection_pad3d.default aten.replication_pad3d.default", call(floats(1, 2, 4, 4, 4), [1, 2, 0, 1, 1, 1])
)
_spelled("aten._pad_circular.default", call(_IMAGE, [1, 2, 0, 3]))
_spelled("aten._pad_enum.default", call(_IMAGE, [1, 2], 3, 3.0), call(_IMAGE, [1, 2, 2, 1], 1, None))
_spelled(
    "aten._upsample_nearest_exact1d.default aten.upsample_nearest1d.default",
    call(floats(1, 2, 5), [8]),
    call(floats(1, 2, 5), [10], 2.0),
)
_spelled("aten._upsample_nearest_exact2d.default aten.upsample_nearest2d.default", call(_IMAGE, [9, 4]))
_spelled(
    "aten._upsample_nearest_exact3d.default aten.upsample_nearest3d.default", call(floats(1, 2, 3, 4, 5), [6, 5, 4])
)
_spelled("aten.upsample_linear1d.default", call(floats(1, 2, 5), [8], False), call(floats(1, 2, 5), [8], True))
_spelled(
    "aten.upsample_bilinear2d.default aten.upsample_bicubic2d.default",
    call(_IMAGE, [9, 4], False),
    call(_IMAGE, [9, 13], True),
    call(_IMAGE, [12, 12], False, 2.0, 2.0),
)
_spelled("aten.upsample_trilinear3d.default", call(floats(1, 2, 3, 4, 5), [6, 5, 4], False))
_spelled("aten._upsample_bicubic2d_aa.default", call(_IMAGE, [3, 4], False))
_spelled("aten._upsample_bicubic2d_aa.vec", call(_IMAGE, [3, 4], False, None))
_spelled("aten.affine_grid_generator.default", call(floats(2, 2, 3), [2, 3, 4, 5], False))
_GRID = floats(1, 5, 5, 2) / 2
_spelled(
    "aten.grid_sampler.default aten.grid_sampler_2d.default",
    call(_IMAGE, _GRID, 0, 0, False),
    call(_IMAGE, _GRID, 1, 1, True),
)
_spelled("aten.grid_sampler_3d.default", call(floats(1, 2, 3, 4, 5), floats(1, 2, 3, 4, 3) / 2, 0, 0, False))
_STATISTICS = (positives(4), floats(4), floats(4), positives(4))
_spelled("aten._native_batch_norm_legit_no_training.default", call(_IMAGE, *_STATISTICS, 0.1, 1e-5))
_spelled("aten._batch_norm_no_update.default", call(_IMAGE, *_STATISTICS, 0.1, 1e-5))
_spelled("aten._native_batch_norm_legit_functional.default", first(_IMAGE, *_STATISTICS, False, 0.1, 1e-5))
_spelled("aten._fused_rms_norm.default", call(Z, [4], positives(4), 1e-6))
_BAG = (floats(10, 3), torch.tensor([1, 2, 4, 5, 4, 3]), torch.tensor([0, 2, 4]))
_spelled("aten.embedding_bag.default", first(*_BAG))
_spelled("aten.embedding_bag.padding_idx", first(*_BAG, False, 1, False, None, False, 4))
_spelled("aten._embedding_bag.default aten._embedding_bag_forward_only.default", first(*_BAG), first(*_BAG, False, 2))

# -- attention and recurrence ------------------------------------------------------------------------------------------

_HEADS = (floats(1, 2, 5, 8), floats(1, 2, 6, 8, seed=1), floats(1, 2, 6, 8, seed=2))
_spelled("aten.scaled_dot_product_attention.default", call(*_HEADS), call(_HEADS[0], *[_HEADS[0]] * 2, None, 0.0, True))
_spelled("aten._scaled_dot_product_attention_math.default", call(*_HEADS), call(*_HEADS, floats(5, 6)))
_spelled("aten._scaled_dot_product_flash_attention_for_cpu.default", first(*_HEADS))
_LAYER = (floats(24, 8), floats(24), floats(8, 8), floats(8))
_spelled("aten._native_multi_head_attention.default", call(*[floats(2, 5, 8)] * 3, 8, 2, *_LAYER))
_spelled(
    "aten._transformer_encoder_layer_fwd.default",
    call(
        *(floats(2, 5, 8), 8, 2, *_LAYER, True, False, 1e-5, positives(8), floats(8), positives(8), floats(8)),
        *(floats(16, 8), floats(16), floats(8, 16), floats(8)),
    ),
)


def _recurrent(gates: int) -> list[torch.Tensor]:
    return [floats(4 * gates, 3), floats(4 * gates, 4, seed=1), floats(4 * gates), floats(4 * gates, seed=1)]


_SEQUENCE, _STATE = floats(5, 2, 3), floats(1, 2, 4)
_PACKED = (floats(8, 3), torch.tensor([2, 2, 2, 1, 1]))
_OPTIONS = (True, 1, 0.0, False, False)
_spelled("aten.lstm.input", call(_SEQUENCE, [_STATE, _STATE], _recurrent(4), *_OPTIONS, False))
_spelled("aten.gru.input", call(_SEQUENCE, _STATE, _recurrent(3), *_OPTIONS, False))
_spelled("aten.rnn_tanh.input aten.rnn_relu.input", call(_SEQUENCE, _STATE, _recurrent(1), *_OPTIONS, False))
_spelled("aten.lstm_cell.default", call(X, [floats(2, 4), floats(2, 4)], *_recurrent(4)))
_spelled("aten.gru_cell.default", call(X, floats(2, 4), *_recurrent(3)))
_spelled("aten.rnn_tanh_cell.default aten.rnn_relu_cell.default", call(X, floats(2, 4), *_recurrent(1)))

_spelled("aten.logcumsumexp.default", call(floats(3, 4), 0), call(floats(2, 3), -1))

# -- the tests ---------------------------------------------------------------------------------------------------------

# Operators that only torch.export makes, or that take more than a call to test: operator -> the file with the test.
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(
        (
            "aten._linalg_slogdet.default aten._pdist_forward.default aten._trilinear.default aten.conv_tbc.default "
            "aten.convolution_backward.default aten.cummax.default aten.cummin.default aten.erfinv.default "
            "aten.special_erfinv.default aten.special_ndtri.default prims.erf_inv.default prims.ndtri.default "
            "aten.lgamma.default aten.linalg_slogdet.default aten.logdet.default aten.pdist.default "
            "aten.slogdet.default aten.special_gammaln.default prims.collapse.default prims.lgamma.default "
            "prims.split_dim.default prims.view_of.default aten.hamming_window.default aten.hamming_window.periodic "
            "aten.hamming_window.periodic_alpha aten.hamming_window.periodic_alpha_beta"
        ).split(),
        "aten/test_rare.py",
    ),
    **dict.fromkeys(
        (
            "aten.linalg_inv_ex.default aten._linalg_solve_ex.default aten.linalg_solve_triangular.default "
            "aten.linalg_cholesky_ex.default aten.cholesky_solve.default aten._cholesky_solve_helper.default"
        ).split(),
        "aten/test_solve.py",
    ),
    **dict.fromkeys(("aten.stft.default", "aten.stft.center"), "test_complex.py"),
    "aten.bincount.default": "test_open_sizes.py",
    **dict.fromkeys(
        (
            "aten.digamma.default aten.special_psi.default aten.special_digamma.default prims.digamma.default "
            "aten.polygamma.default aten.special_polygamma.default aten.i0.default aten.special_i0.default "
            "prims.bessel_i0.default aten.special_i0e.default prims.bessel_i0e.default aten.special_i1.default "
            "prims.bessel_i1.default aten.special_i1e.default prims.bessel_i1e.default aten.special_erfcx.default "
            "prims.erfcx.default"
        ).split(),
        "aten/test_special.py",
    ),
    **dict.fromkeys(
        (
            "aten.fake_quantize_per_channel_affine.default aten.fake_quantize_per_channel_affine_cachemask.default "
            "aten.fake_quantize_per_tensor_affine.default aten.fake_quantize_per_tensor_affine.tensor_qparams "
            "aten.fake_quantize_per_tensor_affine_cachemask.default "
            "aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default "
            "aten._fused_moving_avg_obs_fq_helper.default aten.fused_moving_avg_obs_fake_quant.default"
        ).split(),
        "aten/test_fake_quantize.py",
    ),
    **dict.fromkeys(
        (
            "quantized_decomposed.quantize_per_tensor.default quantized_decomposed.quantize_per_tensor.tensor "
            "quantized_decomposed.dequantize_per_tensor.default quantized_decomposed.dequantize_per_tensor.tensor "
            "quantized_decomposed.quantize_per_channel.default quantized_decomposed.dequantize_per_channel.default"
        ).split(),
        "aten/test_quantised_numbers.py",
    ),
    "aten._scaled_mm.default": "aten/test_linear.py",
    "graphforge.packed_recurrent.default": "aten/test_recurrent.py",
    **dict.fromkeys(
        ("aten._grouped_mm.default", "transformers.grouped_mm_fallback.default", "aten.histc.default"),
        "aten/test_experts.py",
    ),
    **dict.fromkeys(
        (
            "aten.item.default",
            "aten._local_scalar_dense.default",
            "aten.sym_numel.default",
            "aten.sym_size.int",
        ),
        "test_numbers.py",
    ),
    **dict.fromkeys(("aten.size.default", "aten.sym_size.default"), "test_numbers.py"),
    **dict.fromkeys(
        ("torchvision.deform_conv2d.default", "torchvision.nms.default", "torchvision.roi_align.default"),
        "aten/test_vision.py",
    ),
    "torchvision.roi_pool.default": "../ops/test_torchvision_kernels.py",
    "graphforge.batched_nms.default": "../ops/test_batched_nms.py",
    "graphforge.soft_nms.default": "../ops/test_soft_nms.py",
    "graphforge.nms_rotated.default": "../ops/test_nms_rotated.py",
    "graphforge.multi_scale_roi_align.default": "../ops/test_multi_scale_roi_align.py",
    "graphforge.heatmaps_to_keypoints.default": "../ops/test_heatmaps_to_keypoints.py",
}

_RANDOM: dict[str, Call] = {
    "aten.bernoulli.Tensor": call(P, P),
    "aten.bernoulli.default": call(P / 2),
    "aten.bernoulli.p": call(P, 0.5),
    "aten.cauchy.default": call(X),
    "aten.exponential.default": call(X),
    "aten.geometric.default": call(X, 0.5),
    "aten.log_normal.default": call(X),
    "aten.multinomial.default": call(P, 2),
    "aten.normal.Tensor_Tensor": call(X, P),
    "aten.normal.Tensor_float": call(X, 1.0),
    "aten.normal.float_Tensor": call(0.0, P),
    "aten.normal.float_float": call(0.0, 1.0, [2]),
    "aten.normal_functional.default": call(X),
    "aten.poisson.default": call(P),
    "aten.rand.default": call([2]),
    "aten.rand.generator": call([2], generator=None),
    "aten.rand_like.default": call(X),
    "aten.randint.default": call(9, [2]),
    "aten.randint.low": call(1, 9, [2]),
    "aten.randint_like.default": call(X, 9),
    "aten.randint_like.low_dtype": call(X, 1, 9),
    "aten.randn.default": call([2]),
    "aten.randn.generator": call([2], generator=None),
    "aten.randn_like.default": call(X),
    "aten.random.default": call(X),
    "aten.random.to": call(X, 9),
    "aten.randperm.default": call(5),
    "aten.uniform.default": call(X),
    "prims.normal.default": call([2], mean=0.0, std=1.0, dtype=torch.float32, device="cpu", requires_grad=False),
}
_PACKS: dict[str, Call] = {
    "aten.lstm.data": call(*_PACKED, [_STATE, _STATE], _recurrent(4), *_OPTIONS),
    "aten.gru.data": call(*_PACKED, _STATE, _recurrent(3), *_OPTIONS),
    "aten.rnn_tanh.data": call(*_PACKED, _STATE, _recurrent(1), *_OPTIONS),
    "aten.rnn_relu.data": call(*_PACKED, _STATE, _recurrent(1), *_OPTIONS),
    "aten._pack_padded_sequence.default": call(_SEQUENCE, torch.tensor([5, 3]), False),
    "aten._pad_packed_sequence.default": call(*_PACKED, False, 0.0, 5),
}
_REFUSED = {
    **{name: (each, "random numbers") for name, each in _RANDOM.items()},
    **{name: (each, "packed sequences") for name, each in _PACKS.items()},
}

# Operators that this machine cannot trace: name -> call, and the operator that means the same here.
_MASK = floats(5, 6)
_FOREIGN: dict[str, tuple[Call, str, Call]] = {
    "aten.lift_fresh.default": (call(X), "aten.clone.default", call(X)),
    "aten._scaled_dot_product_efficient_attention.default": (
        first(*_HEADS, _MASK.expand(1, 2, 5, 6), False),
        "aten.scaled_dot_product_attention.default",
        call(*_HEADS, _MASK),
    ),
    "aten._scaled_dot_product_flash_attention.default": (
        first(*_HEADS),
        "aten.scaled_dot_product_attention.default",
        call(*_HEADS),
    ),
    "aten._scaled_dot_product_cudnn_attention.default": (
        first(*_HEADS, _MASK.expand(1, 2, 5, 6), False),
        "aten.scaled_dot_product_attention.default",
        call(*_HEADS, _MASK),
    ),
    "aten._scaled_dot_product_fused_attention_overrideable.default": (
        first(*_HEADS, _MASK.expand(1, 2, 5, 6)),
        "aten.scaled_dot_product_attention.default",
        call(*_HEADS, _MASK),
    ),
    "aten._scaled_dot_product_attention_math_for_mps.default": (
        first(*_HEADS),
        "aten.scaled_dot_product_attention.default",
        call(*_HEADS),
    ),
    "aten.cudnn_batch_norm.default": (
        first(_IMAGE, *_STATISTICS, False, 0.1, 1e-5),
        "aten.native_batch_norm.default",
        first(_IMAGE, *_STATISTICS, False, 0.1, 1e-5),
    ),
    "aten.cudnn_grid_sampler.default": (
        call(_IMAGE, _GRID),
        "aten.grid_sampler_2d.default",
        call(_IMAGE, _GRID, 0, 0, True),
    ),
}

# What these must be is tested below.
ELSEWHERE.update(dict.fromkeys([*_REFUSED, *_FOREIGN], "test_by_hand.py"))


def _function(name: str, each: Call) -> Callable[..., Any]:
    operator = operator_of(name)
    if each.used is None:
        return operator

    def used(*args: Any, **kwargs: Any) -> Any:
        results = operator(*args, **kwargs)
        return results[: each.used] if isinstance(results, list | tuple) else results

    return used


@pytest.mark.parametrize("name", CASES)
def test_call_agrees_with_eager(name: str) -> None:
    for number, each in enumerate(CASES[name]):
        result = check(Sample(name, torch.float32, number, _function(name, each), each.args, each.kwargs))
        assert result.status is Status.PASSED, f"call {number}: {result.status.value}: {result.reason}"
        assert name in result.reached, f"call {number} reached {sorted(result.reached)}"


@pytest.mark.parametrize("name", _REFUSED)
def test_call_is_refused(name: str) -> None:
    each, text = _REFUSED[name]
    captured, _ = capture_call(operator_of(name), each.args, each.kwargs)
    assert any(str(node.target) == name for node in captured.graph_module.graph.nodes)
    with pytest.raises(LoweringError, match=text):
        lower(captured)


@pytest.mark.parametrize("name", _FOREIGN)
def test_call_that_cannot_be_traced_agrees_with_its_twin(name: str) -> None:
    each, twin, reference = _FOREIGN[name]
    result = _function(twin, reference)(*reference.args, **reference.kwargs)
    expected = result[0] if isinstance(result, list | tuple) else result
    captured, feeds = single_call(operator_of(name), each.args, expected, listed=each.used is not None)
    lowered = lower(captured)
    assert not lowered.fallbacks
    wanted = {value.name for value in lowered.model.graph.inputs}
    assert_same(run_model(lowered.model, {key: value for key, value in feeds.items() if key in wanted}), [expected])


@pytest.mark.parametrize("file", sorted(set(ELSEWHERE.values())))
def test_files_named_here_name_their_operators(file: str) -> None:
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    for name in (name for name, where in ELSEWHERE.items() if where == file):
        namespace, packet, _ = name.split(".")
        short = namespace in ("torchvision", "graphforge") and packet in text
        assert name in text or short, f"{file} does not say it tests {name}"
