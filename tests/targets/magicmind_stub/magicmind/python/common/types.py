"""Stand-in for tests, made from public samples; NOTHING run with it was run on an MLU."""

from __future__ import annotations

from .._types import datatype_of as get_datatype_by_numpy  # noqa: TID252
from .._types import numpy_dtype as get_numpy_dtype_by_datatype  # noqa: TID252

__all__ = ["get_datatype_by_numpy", "get_numpy_dtype_by_datatype"]
