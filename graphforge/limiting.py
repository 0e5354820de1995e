"""How far a file or a command may go before any work is done for it: each limit has a number, and can be raised.

A file of two kilobytes can stand for a billion nodes, and eight characters for a petabyte of inputs.  What a thing will
come to is counted first and held against these; ``limits`` raises them for a block of code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from graphforge.errors import GraphForgeError, UsageError, argument

__all__ = ["DEFAULTS", "BeyondLimitError", "allowed", "check_limit", "limits", "over_time"]

# The largest networks that people compile have some 100,000 nodes, and 1 GiB of float32 is an input of 2**28 elements.
# ONNX Runtime takes some microseconds for a round of the smallest loop: ten million are a minute.
DEFAULTS: Mapping[str, int] = {
    "nodes": 200_000,
    "nesting": 100,
    "constant_bytes": 1 << 30,
    "input_elements": 1 << 28,
    "rounds": 10_000_000,
    "seconds": 600,
}
_raised: ContextVar[Mapping[str, int]] = ContextVar("graphforge limits", default=DEFAULTS)


@contextmanager
def limits(**numbers: int) -> Iterator[None]:
    """Other limits for a block of code.

    Args:
        numbers: ``nodes`` of a graph with its functions inlined, ``nesting`` of bodies and functions,
            ``constant_bytes`` of what a file repeats or leaves out (functions, sparse tensors, what it makes out of
            constants), ``input_elements`` of one input, ``rounds`` of loops whose number the file states, ``seconds``
            of one run of a model in ONNX Runtime, and of what native code is asked at arm's length.

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


def allowed(name: str) -> int:
    """The number of a limit that is in force."""
    return _raised.get()[name]


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
    most = allowed(name)
    if number <= most:
        return
    enough = 1 << (number - 1).bit_length()
    raise BeyondLimitError(
        f"{what}: {_shown(number)}, and the limit is {most:,}",
        f"if that is meant: {argument('limits', {name: enough})}" if enough < 1 << 62 else "",
    )


def over_time(who: str, what: str) -> BeyondLimitError:
    """What took longer than the limit on seconds allows: ``onnxruntime 1.32.0``, ``run model.onnx``."""
    seconds = allowed("seconds")
    return BeyondLimitError(
        f"{who} did not {what} in {seconds:,} s, which is the limit",
        f"if it needs more time: {argument('limits', {'seconds': 8 * seconds})}",
    )


def _shown(number: int) -> str:
    return (
        f"{number:,}" if number < 10**18 else f"about 10^{len(str(number)) - 1}" if number < 1 << 10_000 else "endless"
    )
