"""Types in MagicMind's words, and what becomes of 64-bit ones."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["magicmind_dtype", "run_dtype"]

_NAMES = {
    ir.DataType.FLOAT: "FLOAT32",
    ir.DataType.DOUBLE: "FLOAT64",
    **{
        dtype: dtype.name
        for dtype in (
            ir.DataType.FLOAT16,
            ir.DataType.INT8,
            ir.DataType.INT16,
            ir.DataType.INT32,
            ir.DataType.INT64,
            ir.DataType.UINT8,
            ir.DataType.UINT16,
            ir.DataType.UINT32,
            ir.DataType.BOOL,
        )
    },
}
_NARROWED = {"INT64": "INT32", "FLOAT64": "FLOAT32"}


def magicmind_dtype(dtype: ir.DataType | None) -> str | None:
    """The name of MagicMind's ``DataType`` for an ONNX type, None when it has none."""
    return None if dtype is None else _NAMES.get(dtype)


def run_dtype(name: str) -> str:
    """What a value is at run time: ``type64to32_conversion`` narrows 64-bit types."""
    return _NARROWED.get(name, name)
