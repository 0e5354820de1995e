"""Sizes divided by ``torch.div`` while capturing.

``torch.div(x.shape[1], 8, rounding_mode="trunc")`` makes a tensor of a size, and what is cut to that size then hangs on
data, as far as a capture can see.  Where a capture fails so, it is tried once more with the division on sizes alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Divisions", "dividing"]


@dataclass(slots=True)
class Divisions:
    """What is known of the divisions of sizes in a capture.

    Attributes:
        met: whether a size was divided so.
        of_sizes: whether the quotient is a size again, and not a tensor.
    """

    met: bool = False
    of_sizes: bool = False


@contextmanager
def dividing(divisions: Divisions) -> Iterator[None]:
    """Notice divisions of sizes, and make sizes of them if asked for, while the context lasts."""
    library: Any = torch
    div, floor_divide = library.div, library.floor_divide

    def divided(one: Any, other: Any, *, rounding_mode: str | None = None, **keywords: Any) -> Any:
        if rounding_mode is None or keywords or not _are_sizes(one, other):
            return div(one, other, rounding_mode=rounding_mode, **keywords)
        divisions.met = True
        if not divisions.of_sizes:
            return div(one, other, rounding_mode=rounding_mode)
        return one // other  # neither is negative: both ways of rounding agree

    def floor_divided(one: Any, other: Any, **keywords: Any) -> Any:
        if keywords or not _are_sizes(one, other):
            return floor_divide(one, other, **keywords)
        divisions.met = True
        return one // other if divisions.of_sizes else floor_divide(one, other)

    library.div, library.floor_divide = divided, floor_divided
    try:
        yield
    finally:
        library.div, library.floor_divide = div, floor_divide


def _are_sizes(one: Any, other: Any) -> bool:
    """Whether both are whole numbers that are not negative, at least one of them a size that varies."""
    if not any(isinstance(number, torch.SymInt) for number in (one, other)):
        return False
    return all(isinstance(number, torch.SymInt) or (type(number) is int and number > 0) for number in (one, other))
