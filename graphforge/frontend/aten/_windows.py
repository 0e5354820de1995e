"""What convolution, pooling and unfolding share: arguments given once for all axes."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["per_axis"]


def per_axis(values: int | Sequence[int], axes: int) -> list[int]:
    """One number for each spatial axis; torch lets a single one stand for all."""
    if isinstance(values, int):
        return [values] * axes
    listed = list(values)
    return listed * axes if len(listed) == 1 else listed
