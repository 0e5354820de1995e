"""While capturing: what is asked of sizes and has one answer at every promised size, is answered by it.

torch proves such a thing by the ends of ranges, which tell little of a length that is padded to whole windows
(``n + (512 - n % 512) % 512`` is 512 for every n up to 512) or of two halves compared with each other.  What it cannot
prove it ties to the example, by a guard or by a number in place of a size.  Here the sizes are gone through.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

__all__ = ["settled"]

# Combinations of sizes that are gone through, at most.
_MOST = 1 << 16
_MOST_SYMBOLS = 3

_answers: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def settled(environment: Any, expression: Any) -> Any:
    """The one value that an expression over sizes has at all of them, as sympy's; None where there is no such value.

    Args:
        environment: torch's shape environment, which knows the range of each size.
        expression: a condition or a number.
    """
    import sympy

    if not isinstance(expression, sympy.Basic) or not expression.has(sympy.Function):
        return None  # plain sums and products are what torch proves well
    symbols = sorted(expression.free_symbols, key=str)
    ranges = [_range(environment, symbol) for symbol in symbols]
    if not 0 < len(symbols) <= _MOST_SYMBOLS or not all(ranges) or np.prod([len(one) for one in ranges]) > _MOST:
        return None
    known = _answers.setdefault(environment, {})
    key = (expression, *ranges)
    if key not in known:
        known[key] = _one_value(expression, symbols, ranges)
    return known[key]


def _range(environment: Any, symbol: Any) -> range:
    """The sizes that a symbol may have; none where they are not known."""
    bounds = environment.var_to_range.get(symbol)
    backed = getattr(environment, "backed_var_to_val", None) or environment.var_to_val
    if bounds is None or symbol not in backed:
        return range(0)
    low, high = bounds.lower, bounds.upper
    if not (getattr(low, "is_Integer", False) and getattr(high, "is_Integer", False)) or high - low >= _MOST:
        return range(0)
    return range(int(low), int(high) + 1)


def _one_value(expression: Any, symbols: Sequence[Any], ranges: Sequence[range]) -> Any:
    import sympy

    computed = _function(expression, symbols)
    if computed is None:
        return None
    sizes = [axis.ravel() for axis in np.meshgrid(*map(np.asarray, ranges), indexing="ij")]
    try:
        with np.errstate(all="raise"):
            values = np.unique(np.asarray(computed(*sizes)))
    except Exception:  # a division by zero, or words that numpy has not
        return None
    if len(values) != 1 or values.dtype.kind not in "bi":
        return None
    return sympy.Integer(int(values[0])) if values.dtype.kind == "i" else sympy.sympify(bool(values[0]))


def _function(expression: Any, symbols: Sequence[Any]) -> Callable[..., Any] | None:
    """An expression as a function of arrays of sizes; None where it has parts that cannot be said so."""
    from torch.utils._sympy.printers import PythonPrinter

    words = {
        "min": lambda *parts: functools.reduce(np.minimum, parts),
        "max": lambda *parts: functools.reduce(np.maximum, parts),
        "__builtins__": {},
    }
    try:
        text = PythonPrinter().doprint(expression)
        said: Callable[..., Any] = eval(f"lambda {', '.join(map(str, symbols))}: {text}", words)
    except Exception:  # not all of sympy can be said
        return None
    return said
