"""Operators that move or add elements do so to the real and to the imaginary part, each by the rule for reals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from graphforge.frontend.complex.pair import (
    Pair,
    as_pair,
    component_dtype,
    holds_complex,
    real_dtype,
    real_facts,
    zeros_like,
)
from graphforge.frontend.emitter import Emitter
from graphforge.frontend.rules import lowering_for

__all__ = ["by_parts", "real_rule", "works_by_parts"]

_MOVES = (
    "view reshape _unsafe_view _reshape_alias permute transpose t swapaxes swapdims movedim moveaxis numpy_T mT "
    "squeeze unsqueeze expand expand_as broadcast_to flatten unflatten ravel slice select narrow split "
    "split_with_sizes chunk unbind tensor_split hsplit vsplit dsplit index index_select gather take take_along_dim "
    "masked_select flip fliplr flipud roll rot90 repeat repeat_interleave tile clone contiguous detach detach_copy "
    "alias lift_fresh lift_fresh_copy lift diagonal diag diag_embed diagflat tril triu unfold view_as reshape_as "
    "as_strided reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d atleast_1d atleast_2d atleast_3d sum mean cumsum neg negative trace dropout zeros_like "
    "empty_like new_zeros new_ones ones_like new_empty resolve_neg positive fft_fftshift fft_ifftshift "
    "upsample_nearest1d squeeze_copy detach_ unsqueeze_copy view_copy expand_copy permute_copy transpose_copy "
    "slice_copy select_copy"
).split()

# Where the elements stand among the arguments, for operators that take them elsewhere than in the first place.
_ELEMENTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(_MOVES, (0,)),
    **dict.fromkeys("cat concat concatenate stack hstack vstack dstack column_stack block_diag meshgrid".split(), (0,)),
    **dict.fromkeys(("where",), (1, 2)),
    **dict.fromkeys(("masked_fill", "masked_scatter", "constant_pad_nd", "index_put", "_index_put_impl"), (0, 2)),
    **dict.fromkeys(("scatter", "scatter_add", "index_add", "index_copy", "index_fill", "pad"), (0, 3)),
    **dict.fromkeys(("slice_scatter", "select_scatter", "diagonal_scatter", "copy", "fill"), (0, 1)),
    **dict.fromkeys(("full", "full_like"), (1,)),
    **dict.fromkeys(("new_full",), (2,)),
    **dict.fromkeys(("scalar_tensor",), (0,)),
    **dict.fromkeys(("zeros", "ones", "empty", "empty_strided", "empty_permuted", "eye"), ()),
}
_FILLS = ("value", "fill_value")
_MADE_OF_ONES = ("ones", "ones_like", "new_ones", "eye")


def _base(target: str) -> str:
    return target.split(".")[1] if target.startswith("aten.") else ""


def works_by_parts(target: str) -> bool:
    """Whether the operator may be applied to either part by itself, and has a rule for reals."""
    return _base(target) in _ELEMENTS and lowering_for(target) is not None


def by_parts(op: Emitter, target: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """The results of the operator over pairs: its rule for reals, once for each part."""
    positions = _ELEMENTS[_base(target)]
    if not holds_complex(op.result):  # written to a real tensor: torch drops the imaginary part
        return real_rule(op, target, *_part(op, arguments, 0), **_keywords(op, keywords, 0))
    dtype = component_dtype(op, *arguments)
    given = [_elements(op, item, dtype) if at in positions else item for at, item in enumerate(arguments)]
    keywords = {key: _elements(op, item, dtype) if key in _FILLS else item for key, item in keywords.items()}
    real = real_rule(op, target, *_part(op, given, 0), **_keywords(op, keywords, 0))
    if _base(target) in _MADE_OF_ONES:
        return Pair(real, zeros_like(op, real))
    imag = real_rule(op, target, *_part(op, given, 1), **_keywords(op, keywords, 1))
    if isinstance(real, list | tuple):
        return [Pair(one, other) for one, other in zip(real, imag, strict=True)]
    return Pair(real, imag)


def real_rule(op: Emitter, target: str, *arguments: Any, result: Any = None, **keywords: Any) -> Any:
    """Apply the rule for reals of an operator, which sees capture's facts as those of a part.

    Args:
        op: the emitter.
        target: the operator.
        arguments, keywords: its arguments.
        result: what it returns, where that is not what the operator being lowered returns.
    """
    rule = lowering_for(target)
    if rule is None:
        raise op.fail(f"complex numbers: {target} has no rule")
    with real_facts(op, result):
        return rule(op, *arguments, **keywords)


def _elements(op: Emitter, value: Any, dtype: ir.DataType) -> Any:
    if isinstance(value, list | tuple):
        return [_elements(op, item, dtype) for item in value]
    if isinstance(value, ir.Value | Pair):
        return as_pair(op, value, dtype)
    return complex(value) if isinstance(value, int | float) else value


def _part(op: Emitter, value: Any, part: int) -> Any:
    if isinstance(value, list | tuple):
        return [_part(op, item, part) for item in value]
    if isinstance(value, Pair):
        return value.imag if part else value.real
    if isinstance(value, complex):
        return value.imag if part else value.real
    if isinstance(value, torch.dtype):
        return real_dtype(value)
    return value


def _keywords(op: Emitter, keywords: Mapping[str, Any], part: int) -> dict[str, Any]:
    return {key: _part(op, value, part) for key, value in keywords.items()}
