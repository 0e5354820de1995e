"""Which element types the operators of a runtime have kernels for, and where to compute instead of those they lack.

The schema of an operator says what is legal; what runs is less.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir.dtypes import SUBSTITUTES, dtype_name

__all__ = ["Kernels"]


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels of one release.

    Attributes:
        rows: ``Clip``, or ``Clip-11`` where that version differs from the newer ones -> the element types computed; an
            operator without a row computes whatever its schema admits.
        everywhere: operator with rows -> the element types that all its versions compute.
    """

    rows: Mapping[str, frozenset[ir.DataType]] = field(default_factory=dict)
    everywhere: Mapping[str, frozenset[ir.DataType]] = field(init=False)

    def __post_init__(self) -> None:
        common: dict[str, frozenset[ir.DataType]] = {}
        for name, row in self.rows.items():
            operator = name.partition("-")[0]
            common[operator] = common.get(operator, row) & row
        object.__setattr__(self, "everywhere", common)

    def row(self, op_type: str, version: int | None = None) -> frozenset[ir.DataType] | None:
        """The element types that the operator (of this version, as in ``Clip-11``) computes; None is all of them."""
        own = self.rows.get(f"{op_type}-{version}") if version is not None else None
        return self.rows.get(op_type) if own is None else own

    def may_lack(self, op_type: str, dtype: ir.DataType) -> bool:
        """Whether some version of the operator has no kernel for the dtype; no schema is asked, so it is quick."""
        common = self.everywhere.get(op_type)
        return common is not None and dtype not in common

    def has(self, op_type: str, dtype: ir.DataType, version: int | None = None) -> bool:
        """Whether the operator computes values of the dtype."""
        row = self.row(op_type, version)
        return row is None or dtype in row

    def instead(self, op_type: str, dtype: ir.DataType, version: int | None = None) -> ir.DataType | None:
        """The dtype to compute in where ``dtype`` has no kernel; None where it has, or where nothing else has."""
        if self.has(op_type, dtype, version):
            return None
        return next((other for other in SUBSTITUTES.get(dtype, ()) if self.has(op_type, other, version)), None)


_NAMES: Final = {dtype_name(dtype): dtype for dtype in SUBSTITUTES}


def rows_of(written: Mapping[str, str]) -> Iterable[tuple[str, frozenset[ir.DataType]]]:
    """``{"float32 float64": "Exp Log-6"}`` -> (``Exp``, its dtypes), (``Log-6``, its dtypes)."""
    for names, operators in written.items():
        unknown = [name for name in names.split() if name not in _NAMES]
        if unknown:
            raise GraphForgeError(f"a table of kernels names the dtype {unknown[0]!r}", f"known: {', '.join(_NAMES)}")
        dtypes = frozenset(_NAMES[name] for name in names.split())
        for operator in operators.split():
            yield operator, dtypes
