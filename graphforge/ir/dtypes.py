"""Facts about element types: kinds, which hold the values of which, and where to compute what one of them cannot."""

from __future__ import annotations

import functools
from typing import Final

import onnx_ir as ir

__all__ = ["HALVES", "INTEGERS", "SUBSTITUTES", "dtype_name", "holds", "is_float"]

_D = ir.DataType

HALVES: Final = frozenset({_D.FLOAT16, _D.BFLOAT16})
INTEGERS: Final = frozenset(
    {_D.INT64, _D.INT32, _D.INT16, _D.INT8, _D.UINT8, _D.UINT16, _D.UINT32, _D.UINT64},
)

# Where to compute instead, in order of preference: nothing lost first, then the nearest.
SUBSTITUTES: Final[dict[ir.DataType, tuple[ir.DataType, ...]]] = {
    _D.BFLOAT16: (_D.FLOAT,),
    _D.FLOAT16: (_D.FLOAT,),
    _D.DOUBLE: (_D.FLOAT,),
    _D.FLOAT: (_D.DOUBLE,),
    _D.BOOL: (_D.UINT8, _D.INT32, _D.INT64, _D.FLOAT),
    _D.INT8: (_D.INT32, _D.INT64, _D.FLOAT),
    _D.INT16: (_D.INT32, _D.INT64, _D.FLOAT),
    _D.UINT8: (_D.INT32, _D.INT64, _D.FLOAT),
    _D.UINT16: (_D.INT32, _D.INT64, _D.FLOAT),
    _D.INT32: (_D.INT64, _D.DOUBLE, _D.FLOAT),
    _D.UINT32: (_D.INT64, _D.DOUBLE, _D.FLOAT),
    _D.INT64: (_D.DOUBLE, _D.FLOAT),
    _D.UINT64: (_D.INT64, _D.DOUBLE, _D.FLOAT),
}

# Bits of the whole numbers that are exact, bits of the exponent.
_FLOAT_BITS: Final = {_D.FLOAT16: (11, 5), _D.BFLOAT16: (8, 8), _D.FLOAT: (24, 8), _D.DOUBLE: (53, 11)}


def is_float(dtype: ir.DataType | None) -> bool:
    """Whether values of the dtype are floating-point numbers."""
    return dtype in _FLOAT_BITS


def dtype_name(dtype: ir.DataType) -> str:
    """What messages call it: ``float64``, ``bool``."""
    return dtype.numpy().name


@functools.cache
def holds(wide: ir.DataType, narrow: ir.DataType) -> bool:
    """Whether every value of ``narrow`` is a value of ``wide``, so that a cast there and back changes nothing."""
    if wide == narrow or narrow == _D.BOOL:
        return True
    if narrow in _FLOAT_BITS:
        return wide in _FLOAT_BITS and all(w >= n for w, n in zip(_FLOAT_BITS[wide], _FLOAT_BITS[narrow], strict=True))
    if narrow not in INTEGERS or wide == _D.BOOL:
        return False
    signed = narrow.is_signed()
    digits = narrow.bitwidth - int(signed)
    if wide in _FLOAT_BITS:
        return digits <= _FLOAT_BITS[wide][0] and digits < 2 ** (_FLOAT_BITS[wide][1] - 1)
    if wide not in INTEGERS or (signed and not wide.is_signed()):
        return False
    return wide.bitwidth - int(wide.is_signed()) >= digits
