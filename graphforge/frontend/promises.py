"""Conditions on sizes under which a captured program is right: are they true at every promised size?

A capture follows the branches that the example's sizes take.  What it took for granted on the way (`sizes != 1`,
``2*(h//2) < 1 + h`` of a pooling that rounds up, ``n <= 13`` of an ``if`` in the model) stands in the guards of
torch's shape environment, or in the program as assertions.  An artifact asserts nothing, so they are checked here,
size by size, before the program is taken, whichever way it was captured.

Some are taken for granted only because capture treats 0 and 1 apart (`size != 1`: nothing is broadcast).  They say
nothing about the model; the sizes where they are false are handed to verification, which runs them.

Others are false at a few sizes that can all be run (the layout that torch's own code asks about before it flattens,
an end of a slice that a short input does not reach).  These are doubts: `sizes_run.py` runs program and model there.
So is a condition of the first kind that a line of the user's asks (`if n % 3 == 0`, `if a == b`), at some of the sizes
where it is false: nearly every branch is right there as well, and where it is not the line is named.  So is `if a < b`
that is false only where both are the same, as of a padding by what is missing.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from graphforge.errors import CaptureError
from graphforge.frontend.captured import Captured
from graphforge.spec import DimRange, ShapeSpec
from graphforge.user_code import place_here, shown_path

__all__ = [
    "BrokenPromise",
    "Condition",
    "asserted",
    "check_promises",
    "edge_sizes",
    "guarded",
    "met_conditions",
    "small_ranges",
    "symbol_values",
]

# Sizes of one dim, or combinations of several, up to which every single one is tried; beyond, the borders of the
# condition, both ends, and a seeded choice.
_EVERY = 4096
# Sizes that one condition hands to verification, at most; the ends of what there is are among them.
_TRIED = 12
# A range of up to so many sizes is run whole where the capture recorded a single run of the model; as many sizes at
# which a condition is false are run before the model is refused for them.
_SMALL = 64
# What cuts a tensor into pieces, in a line of the user's; and a number of them that a capture takes for granted.
_CUTS = re.compile(r"\b(split|chunk|tensor_split|hsplit|vsplit|unbind)\(")
_NUMBER = re.compile(r"(.+) == (\d+)")
# Sizes at which a line of the user's goes the other way that are run before the capture is taken.
_OTHER_WAY = 4


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that a capture took for granted.

    Attributes:
        expression: a sympy expression over the symbols of sizes.
        place: where in the user's code it is asked, "" where another's code asks, or that is not known.
        led_from: the line of the user's that led there.
    """

    expression: Any
    place: str = ""
    led_from: str = ""


class BrokenPromise(CaptureError):
    """What a capture took for granted is false at a promised size.

    Attributes:
        failing: promised sizes at which it is false.
        words: the condition.
        program: the capture, where it gives what the model gives although its sizes are described otherwise.
        sampled: whether ``failing`` is a choice of them, where the capture is likely right.
    """

    failing: Sequence[dict[str, int]] = ()
    words: str = ""
    program: Captured | None = None
    sampled: bool = False

    @classmethod
    def at(cls, failing: Sequence[dict[str, int]], words: str, place: str) -> BrokenPromise:
        """The error for a condition in words, asked at a place in the user's code."""
        shown = ", ".join(f"{name} = {size}" for name, size in failing[0].items())
        head = f"the model behaves otherwise at {shown} than at the example's sizes"
        cut, pieces = _CUTS.search(place), _NUMBER.fullmatch(words)
        if cut is not None and pieces is not None:
            error = cls(
                f"{head}: {cut[1]} gives {pieces[1]} pieces, which are {pieces[2]} there",
                f"at {place}",
                "what Python does with pieces is written down for one number of them: give the pieces an axis of their "
                "own, as x.unflatten(dim, (-1, size)) does, behind a padding to whole pieces where need be",
                "or promise a range within which their number stays the same, or compile the sizes apart",
            )
        else:
            error = cls(
                head,
                f"the captured program holds where {words}" + (f", asked at {place}" if place else ""),
                "promise a range within which that is true, or compile the sizes apart",
            )
        error.failing = failing
        error.words = words
        return error


def asserted(captured: Captured, met: Sequence[Condition] = ()) -> Iterator[Condition]:
    """The conditions that stand in the program as assertions, with the places at which they were met."""
    known = {one.expression: one for one in met}
    for node in captured.graph_module.graph.nodes:
        if str(node.target) != "aten._assert_scalar.default":
            continue
        condition = node.args[0].meta.get("val") if isinstance(node.args[0], torch.fx.Node) else None
        if isinstance(condition, torch.SymBool):
            expression = condition.node.expr
            yield known.get(expression, Condition(expression))


def guarded(environment: Any, symbols: Mapping[Any, str], met: Sequence[Condition] = ()) -> Iterator[Condition]:
    """The guards of a shape environment, and the ranges that it narrowed for lack of a better word for a guard."""
    import sympy
    from torch.utils._sympy.numbers import int_oo

    led_from = {one.expression: one.led_from for one in met}
    for guard in environment.guards:
        yield Condition(guard.expr, _place(guard.sloc), led_from.get(guard.expr, ""))
    for symbol in symbols:
        known = environment.var_to_range.get(symbol)
        if known is None:
            continue
        if known.upper is not int_oo and known.upper < 2**62:
            yield Condition(sympy.Le(symbol, known.upper))
        if known.lower > 2:  # 2 is what capture takes for granted of every size
            yield Condition(sympy.Ge(symbol, known.lower))


@contextmanager
def met_conditions() -> Iterator[list[Condition]]:
    """Every condition on sizes that torch decides while the context lasts, as it was decided."""
    import sympy
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    environment: Any = ShapeEnv
    evaluate = environment.evaluate_expr
    met: list[Condition] = []
    seen: set[Any] = set()

    def evaluate_expr(self: Any, expression: Any, *args: Any, **kwargs: Any) -> Any:
        answer = evaluate(self, expression, *args, **kwargs)
        if expression not in seen and getattr(expression, "free_symbols", None):
            seen.add(expression)
            if answer in (sympy.true, sympy.false):
                asked = expression if answer == sympy.true else sympy.Not(expression)
            elif getattr(answer, "is_Integer", False):  # a size that becomes a number
                asked = sympy.Eq(expression, answer)
            else:
                return answer
            met.append(Condition(asked, _place(self._get_sloc()), place_here().removeprefix("raised at ")))
        return answer

    environment.evaluate_expr = evaluate_expr
    try:
        yield met
    finally:
        environment.evaluate_expr = evaluate


def _place(location: Any) -> str:
    frame = getattr(location, "framework_loc", None)
    file, line = getattr(frame, "filename", ""), getattr(frame, "lineno", 0)
    return "" if not file or "/torch/" in file or "/graphforge/" in file else f"{shown_path(file)}:{line}"


def check_promises(
    captured: Captured, conditions: Sequence[Condition], *, accepted: bool = False
) -> list[dict[str, int]]:
    """Check conditions at the promised sizes; returns sizes at which only a run of the model can tell.

    A condition that is false at few sizes, all of them known, becomes one of ``captured.doubts``.

    Args:
        captured: the program.
        conditions: what it took for granted.
        accepted: a run tells where they are false, whatever they say.

    Raises:
        BrokenPromise: one is false at more promised sizes than are run; the notes name condition and sizes.
    """
    names, dims = captured.symbols, captured.shapes.dims
    tried: list[dict[str, int]] = []
    once: dict[Any, Condition] = {}
    for condition in conditions:
        once.setdefault(condition.expression, condition)  # the first one knows its place
    for condition in once.values():
        symbols = sorted(condition.expression.free_symbols, key=str)
        if not symbols or not all(symbol in names for symbol in symbols):
            continue  # about sizes that depend on data: those are not promised
        divided = {symbol: _divided(names[symbol], dims) for symbol in symbols}
        false = list(itertools.islice(_failing(condition.expression, divided, dims), _EVERY))
        if not false:
            continue
        about_edges = _is_about_edges(condition.expression)
        likely = accepted or about_edges or _fails_by_equality(condition.expression, false, divided)
        if likely:
            tried += _spread(false, _TRIED)
        if not about_edges or condition.place:
            chosen = _spread(false, _OTHER_WAY) if likely else false
            place = condition.led_from or condition.place
            broken = BrokenPromise.at(chosen, _in_words(condition.expression, names), place)
            broken.sampled = likely
            if likely:
                captured.doubts.append(broken)
                continue
            if len(false) > _SMALL or not _all_listed(divided, dims):
                raise broken
            captured.doubts.append(broken)
    return [dict(sizes) for sizes in dict.fromkeys(tuple(sorted(sizes.items())) for sizes in tried)]


def edge_sizes(dims: Mapping[str, DimRange]) -> list[dict[str, int]]:
    """Sizes 0 and 1 of each dim that promises them: capture takes sizes to be larger."""
    return [
        {name: size}
        for name, dim in dims.items()
        for size in dim.sizes(limit=2)
        if size // dim.step <= 1 and dim.high > dim.low
    ]


def small_ranges(dims: Mapping[str, DimRange]) -> list[dict[str, int]]:
    """Every size of each small range, the other dims at the example's."""
    return [
        {name: size} for name, dim in dims.items() if len(_sizes(dim)) <= _SMALL for size in dim.sizes(limit=_SMALL)
    ]


def _is_about_edges(expression: Any) -> bool:
    """Whether a condition only says that some size is not 0 or 1, or not that of another one (nothing is broadcast)."""
    import sympy

    if isinstance(expression, sympy.Ne):
        return True
    if isinstance(expression, sympy.Eq):  # max(1, n) == n, of the strides of something that may be empty
        one, other = (_without_floors(side) for side in expression.args)
        return bool(sympy.expand(one - other) == 0)
    strict = isinstance(expression, sympy.Gt | sympy.Lt)
    if isinstance(expression, sympy.Gt | sympy.Ge):
        larger, smaller = expression.args
    elif isinstance(expression, sympy.Lt | sympy.Le):
        smaller, larger = expression.args
    else:
        return False
    return bool(smaller.is_Integer and not larger.is_Integer and 0 <= int(smaller) + strict <= 2)


def _fails_by_equality(
    expression: Any, false: Sequence[Mapping[str, int]], divided: Mapping[Any, tuple[str, int]]
) -> bool:
    """Whether one size is less than another or the same: `if a < b` around a padding, which may be of nothing."""
    import sympy

    if not isinstance(expression, sympy.Gt | sympy.Lt) or not all(side.free_symbols for side in expression.args):
        return False
    same = _function(sympy.Eq(*expression.args), list(divided))
    try:
        return all(same(*(at[name] // by for name, by in divided.values())) for at in false)
    except (ArithmeticError, ValueError, TypeError):
        return False


def _without_floors(expression: Any) -> Any:
    """The expression with ``n`` for ``max(0, n)`` and ``max(1, n)``."""
    parts = [_without_floors(part) for part in expression.args]
    if type(expression).__name__ == "Max":
        parts = [part for part in parts if not (part.is_Integer and int(part) in (0, 1))]
        if len(parts) == 1:
            return parts[0]
    return expression.func(*parts) if parts else expression


def _in_words(expression: Any, names: Mapping[Any, str]) -> str:
    sign = {"Equality": "==", "Unequality": "!="}.get(type(expression).__name__)
    text = str(expression) if sign is None else f"{expression.lhs} {sign} {expression.rhs}"
    for symbol in sorted(expression.free_symbols, key=lambda symbol: -len(str(symbol))):
        text = text.replace(str(symbol), names[symbol])
    return text


def _divided(name: str, dims: Mapping[str, DimRange]) -> tuple[str, int]:
    """The dim that a symbol stands for, and by what it is divided: a dim, or a dim by its step."""
    if name in dims:
        return name, 1
    base, _, _ = name.rpartition("_div")
    return base, dims[base].step


def symbol_values(symbols: Mapping[Any, str], shapes: ShapeSpec, sizes: Mapping[str, int]) -> dict[Any, int]:
    """What the symbols of a capture stand for at some sizes, the other dims at the example's."""
    at = {**shapes.example_sizes(), **sizes}
    divided = {symbol: _divided(name, shapes.dims) for symbol, name in symbols.items()}
    return {symbol: at[name] // by for symbol, (name, by) in divided.items()}


def _sizes(dim: DimRange) -> range:
    """The promised sizes, unlisted: there may be a billion of them."""
    return range(-(-dim.low // dim.step) * dim.step, dim.high + 1, dim.step)


def _failing(
    expression: Any, divided: Mapping[Any, tuple[str, int]], dims: Mapping[str, DimRange]
) -> Iterator[dict[str, int]]:
    """The promised sizes at which a condition is false, or cannot be computed."""
    holds_at = _function(expression, list(divided))
    used = {name for name, _ in divided.values()}
    names = [name for name in dims if name in used]
    numbers = sorted({abs(int(number)) for number in expression.atoms() if number.is_Integer})
    for sizes in _combinations([_sizes(dims[name]) for name in names], numbers):
        at = dict(zip(names, sizes, strict=True))
        try:
            holds = holds_at(*(at[name] // by for name, by in divided.values()))
        except (ArithmeticError, ValueError, TypeError):  # a division by zero, most of all; or no truth value
            holds = False
        if not holds:
            yield at


def _all_listed(divided: Mapping[Any, tuple[str, int]], dims: Mapping[str, DimRange]) -> bool:
    """Whether ``_failing`` goes through every combination of promised sizes, and not a choice of them."""
    return math.prod(len(_sizes(dims[name])) for name in {name for name, _ in divided.values()}) <= _EVERY


def _function(expression: Any, symbols: Sequence[Any]) -> Callable[..., Any]:
    """A condition as a function of numbers: in Python's own words where it can be said in them, which is quick."""
    import sympy
    from torch.utils._sympy.printers import PythonPrinter

    def slowly(*sizes: int) -> bool:
        return bool(expression.xreplace(dict(zip(symbols, map(sympy.Integer, sizes), strict=True))))

    try:
        text = PythonPrinter().doprint(expression)
        said: Callable[..., Any] = eval(f"lambda {', '.join(map(str, symbols))}: {text}", {"math": math})
        said(*[7] * len(symbols))
    except Exception:  # not all of sympy can be said
        return slowly
    return said


def _combinations(ranges: Sequence[range], numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
    total = 1
    for values in ranges:
        total *= len(values)
    if total <= _EVERY:
        yield from itertools.product(*ranges)
        return
    if len(ranges) == 1:  # a condition changes at the numbers that stand in it, or at multiples of them
        (values,) = ranges
        around = (n * times + off for n in numbers for times in (1, 2, 3, values.step) for off in (-2, -1, 0, 1, 2))
        yield from ((size,) for size in dict.fromkeys(around) if size in values)
        half = _EVERY // 4
        yield from ((size,) for size in itertools.chain(values[:half], values[-half:]))
    yield from itertools.product(*((values[0], values[len(values) // 2], values[-1]) for values in ranges))
    draw = random.Random(0)
    for _ in range(_EVERY):
        yield tuple(draw.choice(values) for values in ranges)


def _spread(sizes: Sequence[dict[str, int]], most: int) -> list[dict[str, int]]:
    """At most so many of them, evenly, both ends among them."""
    if len(sizes) <= most:
        return list(sizes)
    return [sizes[round(place * (len(sizes) - 1) / (most - 1))] for place in range(most)]
