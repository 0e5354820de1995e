"""While capturing: where in the user's code a size that was promised to vary becomes a fixed number.

torch tells that it does, once the whole model has been followed, and not where; here the line is written down as it
runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphforge.user_code import place_here

__all__ = ["noticing_fixed_sizes"]


@contextmanager
def noticing_fixed_sizes(places: dict[int, str]) -> Iterator[None]:
    """Keep number -> ``raised at net.py:12, in forward: ...`` for each size that becomes a number inside."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    environment: Any = ShapeEnv
    original = environment._set_replacement

    def replace(self: Any, symbol: Any, becomes: Any, message: str) -> None:
        if becomes.is_Integer and symbol in self.var_to_range and str(symbol).startswith("s"):
            places.setdefault(int(becomes), place_here())
        original(self, symbol, becomes, message)

    environment._set_replacement = replace
    try:
        yield
    finally:
        environment._set_replacement = original
