"""Measure: the graph run on samples, and what every floating-point value was there: its ends, how it is spread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphforge.errors import GraphForgeError
from graphforge.ir.bodies import bodies_of, nodes_of
from graphforge.ir.describe import describe
from graphforge.ir.dtypes import is_float
from graphforge.ranges.histogram import Histogram
from graphforge.ranges.samples import Samples
from graphforge.ranges.values import in_pieces
from graphforge.runners.arrays import Array

__all__ = [
    "LARGEST_HALF",
    "SMALLEST_HALF",
    "STANDS_FOR_INFINITY",
    "Measured",
    "Ranges",
    "constants_of",
    "float_values",
    "measure",
]

# The largest finite number of float16, and the smallest that is not rounded to zero.
LARGEST_HALF = 65504.0
SMALLEST_HALF = 2.0**-24
# Elements of this magnitude stand for infinity: masks before a softmax.
STANDS_FOR_INFINITY = 2.0**100


@dataclass(slots=True)
class Measured:
    """What one value was over all samples.

    Attributes:
        name: of the value.
        where: the node that computes it and its line; what it is, where no node does.
        low, high: its least and largest finite element.
        ordinary: the largest magnitude of those below 2^100; what is larger stands for infinity, as in masks.
        count: how many elements were looked at.
        above: how many have a magnitude above 65504, the largest of float16.
        below: how many are not zero and so small that float16 makes zero of them.
        strange: how many were NaN or infinite.
        squares: the sum of their squares.
        histogram: how they are spread; None where it was not asked for.
    """

    name: str
    where: str = ""
    low: float = float("inf")
    high: float = float("-inf")
    ordinary: float = 0.0
    count: int = 0
    above: int = 0
    below: int = 0
    strange: int = 0
    squares: float = 0.0
    histogram: Histogram | None = None

    @property
    def largest(self) -> float:
        """The largest magnitude; 0 where nothing was seen."""
        return max(abs(self.low), abs(self.high)) if self.low <= self.high else 0.0

    @property
    def mean_square(self) -> float:
        """Of the elements; 0 where nothing was seen."""
        return self.squares / self.count if self.count else 0.0

    def share(self, count: int) -> float:
        """``count`` as a share of all elements."""
        return count / self.count if self.count else 0.0

    def describe(self) -> str:
        """``-3.2..70123, 0.4 % above 65504``."""
        if self.low > self.high:
            return "NaN or infinite throughout" if self.strange else "no elements"
        parts = [f"{self.low:.4g}..{self.high:.4g}"]
        for count, words in ((self.above, "above 65504"), (self.below, "below 6e-8"), (self.strange, "NaN or Inf")):
            if count:
                parts.append(f"{100 * self.share(count):.2g} % {words}")
        return ", ".join(parts)

    def add(self, array: Array) -> None:
        """Look at more elements."""
        numbers = array.reshape(-1)
        if numbers.dtype.kind != "f":  # bfloat16 and its kin
            numbers = numbers.astype(np.float32)
        if not numbers.size:
            return
        self.count += numbers.size
        finite = np.isfinite(numbers)
        if not finite.all():
            self.strange += int(numbers.size - finite.sum())
            numbers = numbers[finite]
            if not numbers.size:
                return
        self.low = min(self.low, float(numbers.min()))
        self.high = max(self.high, float(numbers.max()))
        size = np.abs(numbers)
        highest = float(size.max())
        if highest >= STANDS_FOR_INFINITY:
            highest = float(size.max(initial=0.0, where=size < STANDS_FOR_INFINITY))
        self.ordinary = max(self.ordinary, highest)
        self.above += int(np.count_nonzero(size > LARGEST_HALF)) if self.largest > LARGEST_HALF else 0
        self.below += int(np.count_nonzero(size < SMALLEST_HALF) - np.count_nonzero(size == 0))
        wide = numbers.astype(np.float64, copy=False)
        with np.errstate(over="ignore"):
            self.squares += float(np.dot(wide, wide))
        if self.histogram is not None:
            self.histogram.add(wide)


@dataclass(frozen=True)
class Ranges(Mapping[str, Measured]):
    """What was measured, by the names of the values.

    Attributes:
        found: inputs and computed values.
        samples: what it was measured on.
        left_out: what could not be looked at and why, one line each.
    """

    found: Mapping[str, Measured]
    samples: Samples
    left_out: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Measured:
        return self.found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


def measure(
    model: ir.Model, samples: Samples, *, histograms: bool = False, only: Iterable[str] | None = None
) -> Ranges:
    """Run the model on the samples and look at every floating-point value of its main graph.

    The bodies of loops and branches are run, but what is inside them cannot be handed out: it is left out, and said.

    Args:
        model: in operators that ONNX Runtime runs.
        samples: what to run it on.
        histograms: also how the elements of each value are spread.
        only: names of the values to look at; None is all of them.

    Raises:
        GraphForgeError: there are no samples, or ONNX Runtime does not run the model.
    """
    if not samples.feeds:
        raise GraphForgeError("ranges are measured on inputs, and there are none")
    wanted = None if only is None else set(only)
    places = {name: place for name, place in float_values(model) if wanted is None or name in wanted}
    found = {
        name: Measured(name, place, histogram=Histogram() if histograms else None) for name, place in places.items()
    }
    for values in in_pieces(model, samples.feeds, [(name,) for name in found]):
        for name, array in values.items():
            found[name].add(array)
    return Ranges(found, samples, tuple(_left_out(model)))


def float_values(model: ir.Model) -> Iterator[tuple[str, str]]:
    """Name and place of every floating-point input and value of the main graph."""
    for value in model.graph.inputs:
        if value.name is not None and is_float(value.dtype) and not value.is_initializer():
            yield value.name, f"input {value.name!r}"
    for node in model.graph:
        for value in node.outputs:
            if value.name and is_float(value.dtype) and isinstance(value.type, ir.TensorType):
                yield value.name, describe(node)


def constants_of(model: ir.Model) -> Iterator[ir.Value]:
    """The floating-point constants of a model."""
    for value in model.graph.initializers.values():
        if is_float(value.dtype) and value.const_value is not None:
            yield value


def _left_out(model: ir.Model) -> Iterator[str]:
    for node in model.graph:
        inside = sum(
            is_float(value.dtype) for body in bodies_of(node) for inner in nodes_of(body) for value in inner.outputs
        )
        if inside:
            yield f"{inside} values inside {describe(node)} were not looked at"
