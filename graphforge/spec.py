"""Input and shape specs: one description of the inputs that drives capture, verification and target profiles."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphforge.errors import UsageError, argument
from graphforge.limiting import check_limit

__all__ = [
    "DTYPES",
    "ONE_NAME",
    "DimRange",
    "ShapeSpec",
    "TensorSpec",
    "ValueRange",
    "parse_dynamic",
    "parse_input",
    "parse_range",
]

# The way out where sizes that must be equal are promised apart.
ONE_NAME = "dims that must be equal are given one name: a:0=batch:1..8 and b:0=batch:1..8"
# Sizes, by their step, up to which a part of one is likely to be a 1.
_SMALL = 4

# torch's names of the element types that an input may have.
DTYPES = (
    "float32 float16 bfloat16 float64 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool complex64 complex128"
).split()


@dataclass(frozen=True, slots=True)
class DimRange:
    """One dynamic dimension: every size ``low, low + step, ... <= high`` (multiples of ``step``) is promised to work.

    Dimensions with the same name are equal in every call.
    """

    name: str
    low: int
    high: int
    step: int = 1

    def __post_init__(self) -> None:
        if self.low < 0 or self.high < self.low or self.step < 1:
            raise UsageError(
                f"dynamic dim {self.name}: 0 <= low <= high and step >= 1, not {self.low}..{self.high}/{self.step}",
                f"for example {argument('dynamic_shapes', 'x:0=1..8,2=128..512/32')}",
            )
        if not self.sizes(limit=1):
            raise UsageError(
                f"dynamic dim {self.name}: no multiple of {self.step} lies in {self.low}..{self.high}",
            )

    def sizes(self, *, limit: int | None = None) -> list[int]:
        """The promised sizes in rising order, at most ``limit`` of them."""
        first = -(-self.low // self.step) * self.step
        sizes = range(first, self.high + 1, self.step)
        return list(sizes if limit is None else sizes[:limit])

    def is_small(self, size: int) -> bool:
        """Whether a half or a third of a size may well be a 1, which a capture takes for a constant."""
        return size // self.step <= _SMALL

    def nearest(self, wanted: int) -> int:
        """The promised size nearest to the wanted one, the smaller of two."""
        sizes = range(-(-self.low // self.step) * self.step, self.high + 1, self.step)
        place = min(max((wanted - sizes[0]) // self.step, 0), len(sizes) - 1)
        return min(sizes[place : place + 2], key=lambda size: (abs(size - wanted), size))

    def __contains__(self, size: object) -> bool:
        return isinstance(size, int) and self.low <= size <= self.high and size % self.step == 0


MOST_AXES = 64


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Values that an input takes, both ends included: numbers, or a promised dim by its name, ``T`` or ``T-1``."""

    low: float | str
    high: float | str

    def at(self, label: str, sizes: Mapping[str, int]) -> tuple[float, float]:
        """Both ends, with dims at their sizes.

        Raises:
            UsageError: a dim is not promised, or nothing lies between the ends.
        """
        low, high = (_end_at(label, end, sizes) for end in (self.low, self.high))
        if high < low:
            raise UsageError(f"{argument('ranges')}: nothing lies in {label}={low:g}..{high:g}")
        if not math.isfinite(high - low):
            raise UsageError(f"{argument('ranges')}: {label}={low:g}..{high:g} is not a range of numbers with two ends")
        return low, high

    def describe(self) -> str:
        """``1..T``."""
        return "..".join(end if isinstance(end, str) else f"{end:g}" for end in (self.low, self.high))


_END = re.compile(r"([A-Za-z_]\w*)\s*(?:([+-])\s*(\d{1,18}))?")


def _end_at(label: str, end: float | str, sizes: Mapping[str, int]) -> float:
    if not isinstance(end, str):
        return float(end)
    match = _END.fullmatch(end)
    if match is None:
        raise UsageError(
            f"{argument('ranges')}: cannot read {end!r} of input {label!r}", "an end is a number, T or T-1"
        )
    name, sign, offset = match.groups()
    if name not in sizes:
        raise UsageError(
            f"{argument('ranges')}: {name!r} of input {label!r} is not a promised dim",
            f"the dims are: {', '.join(sizes) or 'none'}; {argument('dynamic_shapes', f'x:1={name}:1..8')} names one",
        )
    return float(sizes[name] + int(f"{sign or '+'}{offset or 0}"))


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor input.

    Attributes:
        name: its name.
        shape: its shape in the example.
        dtype: torch's name for its dtype, ``float32``.
        dims: its dynamic dims by axis.
        values: what its random elements lie between; None where the example alone says so.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    dims: Mapping[int, DimRange] = field(default_factory=dict)
    values: ValueRange | None = None

    def __post_init__(self) -> None:
        if len(self.shape) > MOST_AXES:
            raise UsageError(
                f"input {self.name!r} has {len(self.shape)} axes, and numpy and torch go up to {MOST_AXES}"
            )

    def at(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape with every dynamic dim set to ``sizes[its name]`` (left at the example's size when absent)."""
        shape = list(self.shape)
        for axis, dim in self.dims.items():
            shape[axis] = sizes.get(dim.name, shape[axis])
        return tuple(shape)


@dataclass(frozen=True, slots=True)
class ShapeSpec:
    """All tensor inputs of a model, in call order (nested inputs flattened, named by their path)."""

    inputs: tuple[TensorSpec, ...]

    @property
    def dims(self) -> dict[str, DimRange]:
        """Every dynamic dim by name."""
        return {dim.name: dim for tensor in self.inputs for dim in tensor.dims.values()}

    def example_sizes(self) -> dict[str, int]:
        """The size of every dynamic dim in the example inputs."""
        return {dim.name: tensor.shape[axis] for tensor in self.inputs for axis, dim in tensor.dims.items()}

    def shapes_at(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Input name -> shape with the dynamic dims at ``sizes``."""
        return {tensor.name: tensor.at(sizes) for tensor in self.inputs}

    def at(self, sizes: Mapping[str, int]) -> ShapeSpec:
        """This spec with the example's sizes replaced."""
        return ShapeSpec(tuple(replace(tensor, shape=tensor.at(sizes)) for tensor in self.inputs))

    def with_ranges(self, wanted: Mapping[str, ValueRange]) -> ShapeSpec:
        """This spec with ranges of values: input name -> range.

        Raises:
            UsageError: an input does not exist, or a range names a dim that is not promised.
        """
        names = [tensor.name for tensor in self.inputs]
        for name, values in wanted.items():
            if name not in names:
                raise UsageError(
                    f"{argument('ranges')} names input {name!r}, but the inputs are: {', '.join(names) or 'none'}",
                    f"for example {argument('ranges', f'{names[0] if names else name}=0..1')}",
                )
            values.at(name, self.example_sizes())
        return ShapeSpec(
            tuple(replace(tensor, values=wanted.get(tensor.name, tensor.values)) for tensor in self.inputs)
        )

    def with_dynamic(self, wanted: Mapping[str, Mapping[int, DimRange]]) -> ShapeSpec:
        """This spec with dynamic dims added: input name -> axis -> range.

        Raises:
            UsageError: an input or axis does not exist, a size lies outside its range, or dims of one name disagree.
        """
        names = [tensor.name for tensor in self.inputs]
        for name in wanted:
            if name not in names:
                listed = ", ".join(names) or "none"
                example = argument("dynamic_shapes", f"{names[0] if names else 'NAME'}:0=1..8")
                raise UsageError(
                    f"{argument('dynamic_shapes')} names input {name!r}, but the inputs are: {listed}",
                    f"dynamic dims go by the inputs' names, for example {example}",
                )
        inputs = []
        for tensor in self.inputs:
            dims = dict(tensor.dims)
            for axis, dim in wanted.get(tensor.name, {}).items():
                rank = len(tensor.shape)
                if not -rank <= axis < rank:
                    raise UsageError(
                        f"input {tensor.name!r} has {rank} dims, so axis {axis} does not exist",
                        f"axes count from 0, so its last one is {rank - 1}" if rank else "it is a single number",
                    )
                axis %= rank
                if tensor.shape[axis] not in dim:
                    raise UsageError(
                        f"input {tensor.name!r}: the example's size {tensor.shape[axis]} on axis {axis} is outside the "
                        f"promised range {dim.low}..{dim.high}" + (f"/{dim.step}" if dim.step > 1 else ""),
                        "widen the range or give an example input inside it",
                    )
                dims[axis] = dim
            inputs.append(replace(tensor, dims=dims))
        spec = ShapeSpec(tuple(inputs))
        seen: dict[str, tuple[DimRange, int]] = {}
        for tensor in spec.inputs:
            for axis, dim in tensor.dims.items():
                known = seen.setdefault(dim.name, (dim, tensor.shape[axis]))
                if known[0] != dim:
                    raise UsageError(f"dynamic dim {dim.name!r} is given two different ranges")
                if known[1] != tensor.shape[axis]:
                    raise UsageError(
                        f"dynamic dim {dim.name!r} has size {known[1]} in one input and {tensor.shape[axis]} in another"
                    )
        return spec


def parse_input(text: str) -> TensorSpec:
    """Read ``name:1x3x224x224`` or ``name:1x128:int64`` (``name:scalar`` or ``name::int64`` for a rank-0 tensor).

    Raises:
        UsageError: the text has another form, or the dtype is unknown.
    """
    match = re.fullmatch(r"([A-Za-z_][\w.]*):((?:\d+(?:x\d+)*)|scalar|)(?::(\w+))?", text.strip())
    if match is None:
        raise UsageError(
            f"cannot read input {text!r}",
            "write it as name:1x3x224x224 or, with a dtype, name:1x128:int64",
        )
    name, shape, dtype = match.groups()
    dtype = dtype or "float32"
    if dtype not in DTYPES:
        raise UsageError(f"input {name!r}: unknown dtype {dtype!r}", f"known: {', '.join(DTYPES)}")
    sizes = () if shape in ("", "scalar") else tuple(_size(size, name) for size in shape.split("x"))
    check_limit("input_elements", math.prod(sizes), f"input {name!r} of shape {shape[:80]}: elements")
    return TensorSpec(name, sizes, dtype)


def _size(digits: str, name: str) -> int:
    """A size as torch and ONNX can hold it."""
    if len(digits) > 18:
        raise UsageError(f"input {name!r}: a size of {len(digits)} digits is too large")
    return int(digits)


def parse_dynamic(texts: Sequence[str]) -> dict[str, dict[int, DimRange]]:
    """Read ``x:0=1..8,2=128..512/32``; a dim may be named to tie it to others: ``ids:0=batch:1..8``.

    Raises:
        UsageError: a text has another form.
    """
    wanted: dict[str, dict[int, DimRange]] = {}
    for text in texts:
        name, colon, rest = text.strip().partition(":")
        if not colon or not name or not rest:
            raise UsageError(f"cannot read dynamic dims {text!r}", "write them as x:0=1..8,2=128..512/32")
        for part in rest.split(","):
            match = re.fullmatch(r"\s*(-?\d+)=(?:([A-Za-z_]\w*):)?(\d+)\.\.(\d+)(?:/(\d+))?\s*", part)
            if match is None:
                raise UsageError(
                    f"cannot read dynamic dim {part!r} of input {name!r}",
                    "write it as axis=low..high, axis=low..high/step or axis=name:low..high",
                )
            axis, dim_name, low, high, step = match.groups()
            for digits in (axis.lstrip("-"), low, high, step or "1"):
                _size(digits, name)
            label = dim_name or re.sub(r"\W", "_", f"{name}_{axis.replace('-', 'm')}")
            wanted.setdefault(name, {})[int(axis)] = DimRange(label, int(low), int(high), int(step or 1))
    return wanted


def parse_range(texts: Sequence[str]) -> dict[str, ValueRange]:
    """Read ``lens=1..T``, ``ids=0..999`` or ``p=0.5..1``: input name -> the values that it takes.

    Raises:
        UsageError: a text has another form.
    """
    wanted: dict[str, ValueRange] = {}
    for text in texts:
        name, equals, rest = text.strip().partition("=")
        low, dots, high = rest.partition("..")
        if not (name and equals and dots and low.strip() and high.strip()):
            raise UsageError(f"cannot read range {text!r}", "write it as name=low..high, for example lens=1..T")
        wanted[name.strip()] = ValueRange(_end(low), _end(high))
    return wanted


def _end(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text.strip()
