"""How the values of one tensor are spread, the reference's beside the file's: a few bars and numbers for the page."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphforge.runners.arrays import Array

__all__ = ["BARS", "spread_of"]

BARS = 24
# Bars are one character high each, so that thousands of nodes stay a small page.
_HEIGHTS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Of larger tensors every so-manieth element is counted; ends and means are of all.
_COUNTED = 1 << 16


def spread_of(reference: Array, found: Array) -> dict[str, Any] | None:
    """Both arrays over the same bars; None where there is nothing to draw.

    Returns:
        ``low`` and ``high``, the ends of the bars; ``reference`` and ``file``, each with ``bars`` (heights on a
        logarithmic scale, a character each), ``min``, ``max``, ``mean``, and ``strange``, how many are NaN or Inf.
    """
    if reference.dtype.kind in "OSU" or not reference.size or not found.size:
        return None
    both = [np.asarray(array, np.float64).reshape(-1) for array in (reference, found)]
    finite = [array[np.isfinite(array)] for array in both]
    if not all(array.size for array in finite):
        return None
    low, high = (float(end) for end in (min(a.min() for a in finite), max(a.max() for a in finite)))
    width = (high - low) or 1.0
    sides = {}
    for name, array, numbers in zip(("reference", "file"), both, finite, strict=True):
        few = numbers[:: -(-numbers.size // _COUNTED)]
        places = np.minimum(((few - low) * (BARS / width)).astype(np.int64), BARS - 1)
        sides[name] = {
            "bars": _bars(np.bincount(places, minlength=BARS)),
            "min": float(numbers.min()),
            "max": float(numbers.max()),
            "mean": float(numbers.mean()),
            "strange": int(array.size - numbers.size),
        }
    return {"low": low, "high": high, **sides}


def _bars(counts: Array) -> str:
    """Heights as characters; a bar with anything in it is seen."""
    logs = np.log1p(counts)
    heights = np.ceil(logs / logs.max() * (len(_HEIGHTS) - 1)).astype(int)
    return "".join(_HEIGHTS[height] for height in heights)
