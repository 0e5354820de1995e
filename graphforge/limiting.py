"""How far a file or a command may go before any work is done for it: each limit has a number, and can be raised.

A file of two kilobytes can stand for a billion nodes, and eight characters for a petabyte of inputs.  What a thing will
come to is counted first and held against these; ``limits`` raises them for a block of code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from graphforge.errors import GraphForgeError, UsageError, argument

__all__ = ["DEFAULTS", "BeyondLimitError", "check_limit", "limits"]

# The largest networks that people compile have some 100,000 nodes, and 1 GiB of float32 is an input of 2**28 elements.
DEFAULTS: Mapping[str, int] = {
    "nodes": 200_000,
    "nesting": 100,
    "constant_bytes": 1 << 30,
    "input_elements": 1 << 28,
}
_raised: ContextVar[Mapping[str, int]] = ContextVar("graphforge limits", default=DEFAULTS)


@contextmanager
def limits(**numbers: int) -> Iterator[None]:
    """Other limits for a block of code.

    Args:
        numbers: ``nodes`` of a graph with its functions inlined, ``nesting`` of bodies and functions,
            ``constant_bytes`` of what a file repeats or leaves out (functions, sparse tensors, what it makes out of
            constants), ``input_elements`` of one input.

    Raises:
        UsageError: there is no such limit, or it is not a whole number above 0.
    """
    for name, number in numbers.items():
        if name not in DEFAULTS:
            raise UsageError(f"there is no limit {name!r}", f"the limits are: {', '.join(DEFAULTS)}")
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise UsageError(f"limit {name}: expected a whole number above 0, got {number!r}")
    token = _raised.set({**_raised.get(), **numbers})
    try:
        yield
    finally:
        _raised.reset(token)


class BeyondLimitError(GraphForgeError):
    """Something comes to more than a limit allows."""


def check_limit(name: str, number: int, what: str) -> None:
    """Refuse what goes beyond a limit.

    Args:
        name: the limit.
        number: what the thing comes to.
        what: the thing with its unit, to which the number is added: ``model.onnx: nodes with its functions inlined``.

    Raises:
        BeyondLimitError: it is too much; says the number, the limit and how to raise it.
    """
    allowed = _raised.get()[name]
    if number <= allowed:
        return
    enough = 1 << (number - 1).bit_length()
    raise BeyondLimitError(
        f"{what}: {_shown(number)}, and the limit is {allowed:,}",
        f"if that is meant: {argument('limits', {name: enough})}" if enough < 1 << 62 else "",
    )


def _shown(number: int) -> str:
    return (
        f"{number:,}" if number < 10**18 else f"about 10^{len(str(number)) - 1}" if number < 1 << 10_000 else "endless"
    )
