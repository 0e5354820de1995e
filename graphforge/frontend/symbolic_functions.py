"""While capturing: notice autograd functions that bring a ``symbolic`` of their own for another exporter.

Such a function often has a ``forward`` that only stands in for an operator of some backend.  We capture what the
forward computes, which is what eager computes, and never its ``symbolic``; the user is told so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["noticing_symbolic_functions"]


@contextmanager
def noticing_symbolic_functions(notes: list[str]) -> Iterator[None]:
    """Append a note for every autograd function with a ``symbolic`` that is applied while the context lasts."""
    function: Any = torch.autograd.Function
    original = function.__dict__["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(cls, "symbolic", None) is not None:
            note = (
                f"{cls.__module__}.{cls.__qualname__} has a `symbolic` for another exporter, which is not used: "
                "what its forward computes was compiled"
            )
            if note not in notes:
                notes.append(note)
        return original.__get__(None, cls)(*args, **kwargs)

    function.apply = classmethod(apply)
    try:
        yield
    finally:
        function.apply = original
