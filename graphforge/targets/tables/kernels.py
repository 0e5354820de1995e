"""Which element types the operators of a runtime have kernels for, and where to compute instead of those they lack.

The schema of an operator says what is legal; what runs is less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from graphforge.errors import GraphForgeError

__all__ = ["Kernels", "is_exact"]

_D = ir.DataType

# Where to compute instead, the first that has a kernel.
_INSTEAD: Final[dict[ir.DataType, tuple[ir.DataType, ...]]] = {
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

# Pairs (asked for, computed in) by which digits can be lost.
_LOSSY: Final = frozenset(
    {
        (_D.DOUBLE, _D.FLOAT),
        (_D.INT32, _D.FLOAT),
        (_D.UINT32, _D.FLOAT),
        (_D.INT64, _D.FLOAT),
        (_D.INT64, _D.DOUBLE),
        (_D.UINT64, _D.INT64),
        (_D.UINT64, _D.DOUBLE),
        (_D.UINT64, _D.FLOAT),
    }
)


def is_exact(asked: ir.DataType, computed: ir.DataType) -> bool:
    """Whether every value of the one dtype is a value of the other."""
    return (asked, computed) not in _LOSSY


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels of one release.

    Attributes:
        rows: ``Clip``, or ``Clip-11`` where that version differs from the newer ones -> the element types computed; an
            operator without a row computes whatever its schema admits.
    """

    rows: Mapping[str, frozenset[ir.DataType]] = field(default_factory=dict)

    def row(self, op_type: str, version: int | None = None) -> frozenset[ir.DataType] | None:
        """The element types that the operator (of this version, as in ``Clip-11``) computes; None is all of them."""
        own = self.rows.get(f"{op_type}-{version}") if version is not None else None
        return self.rows.get(op_type) if own is None else own

    def has(self, op_type: str, dtype: ir.DataType, version: int | None = None) -> bool:
        """Whether the operator computes values of the dtype."""
        row = self.row(op_type, version)
        return row is None or dtype in row

    def instead(self, op_type: str, dtype: ir.DataType, version: int | None = None) -> ir.DataType | None:
        """The dtype to compute in where ``dtype`` has no kernel; None where it has, or where nothing else has."""
        if self.has(op_type, dtype, version):
            return None
        return next((other for other in _INSTEAD.get(dtype, ()) if self.has(op_type, other, version)), None)


_NAMES: Final = {dtype.numpy().name: dtype for dtype in _INSTEAD}


def rows_of(written: Mapping[str, str]) -> Iterable[tuple[str, frozenset[ir.DataType]]]:
    """``{"float32 float64": "Exp Log-6"}`` -> (``Exp``, its dtypes), (``Log-6``, its dtypes)."""
    for names, operators in written.items():
        unknown = [name for name in names.split() if name not in _NAMES]
        if unknown:
            raise GraphForgeError(f"a table of kernels names the dtype {unknown[0]!r}", f"known: {', '.join(_NAMES)}")
        dtypes = frozenset(_NAMES[name] for name in names.split())
        for operator in operators.split():
            yield operator, dtypes
