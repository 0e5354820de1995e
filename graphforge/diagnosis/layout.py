"""How a value of the file lies compared with the reference's: the same, in another shape, or with its axes moved."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphforge.runners.arrays import Array, dtype_name
from graphforge.verify.compare import OutputComparison, compare_arrays
from graphforge.verify.tolerance import Tolerances

__all__ = ["PADDED", "SAME", "Layout", "compared", "layouts"]

# Orders of axes are tried for values of at most this rank.
_RANK = 5


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to lay the reference's value out as the file has it.

    Attributes:
        axes: order of the reference's axes; None leaves them.
        shape: the shape to give it then; None leaves that.
    """

    axes: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None

    def of(self, reference: Array) -> Array:
        """The reference's value as the file has it."""
        array = reference if self.axes is None else reference.transpose(self.axes)
        return array if self.shape is None else array.reshape(self.shape)

    def describe(self) -> str:
        """ "" for the same layout."""
        if self is PADDED:
            return "padded"
        if self.axes is not None:
            return f"axes in the order {', '.join(map(str, self.axes))}"
        return "in another shape" if self.shape is not None else ""


SAME = Layout()
# The rows come first, and padding behind them.
PADDED = Layout(shape=())


def layouts(reference: Array, found: Array) -> Iterator[Layout]:
    """All ways that fit the two shapes, the plain ones first."""
    if reference.shape == found.shape:
        yield SAME
    if reference.size != found.size or reference.size == 0:
        return
    if reference.shape != found.shape:
        yield Layout(shape=tuple(found.shape))
    plain = tuple(size for size in reference.shape if size != 1)
    if len(plain) > 1 and reference.ndim <= _RANK:
        for axes in itertools.permutations(range(reference.ndim)):
            moved = [axis for axis in axes if reference.shape[axis] != 1]
            if moved == sorted(moved):
                continue
            shape = tuple(reference.shape[axis] for axis in axes)
            if shape == found.shape:
                yield Layout(axes)
            elif tuple(size for size in shape if size != 1) == tuple(size for size in found.shape if size != 1):
                yield Layout(axes, tuple(found.shape))


def compared(
    name: str, reference: Array, found: Array, tolerances: Tolerances, *, any_layout: bool = True
) -> tuple[Layout | None, OutputComparison]:
    """The layout in which the two agree (None where they agree in none), and how far they are apart.

    Floats of different widths are compared as the narrower of the two is judged.

    Args:
        name: of the value.
        reference: the reference's value.
        found: the file's.
        tolerances: what counts as equal.
        any_layout: whether other layouts than the same are tried.
    """
    reference, found, judged = _one_type(reference, found)
    tolerance = tolerances.of(name, judged)
    first: OutputComparison | None = None
    for layout in layouts(reference, found):
        if not any_layout and layout is not SAME:
            break
        if layout is not SAME and not _alike(reference, found):
            break
        comparison = compare_arrays(name, layout.of(reference), found, tolerance)
        if comparison.passed or _same_strange(comparison, layout.of(reference), found):
            return layout, comparison
        first = first or comparison
    return None, first or compare_arrays(name, reference, found, tolerance)


def _same_strange(comparison: OutputComparison, reference: Array, found: Array) -> bool:
    """NaN and Inf at the very places where the reference has them (a mask of -inf) are no difference."""
    if comparison.mismatched or comparison.max_abs is None or not np.isfinite(comparison.max_abs):
        return False
    return reference.shape == found.shape and "reference itself" in comparison.reason


def _alike(reference: Array, found: Array) -> bool:
    """Whether two arrays may hold the same elements in some order: what does not depend on the order is compared."""
    one, other = _sketch(reference), _sketch(found)
    return all(abs(a - b) <= 1e-3 * max(abs(a), abs(b), 1e-30) for a, b in zip(one, other, strict=True))


def _sketch(array: Array) -> tuple[float, float]:
    flat = np.asarray(array).reshape(-1)
    if flat.dtype.kind == "b":
        return float(np.count_nonzero(flat)), 0.0
    wide: Any = flat.astype(np.float64) if flat.dtype.kind not in "f" or flat.dtype.itemsize < 4 else flat
    with np.errstate(all="ignore"):
        size = np.abs(wide)
        finite = size[np.isfinite(size)]
        return float(finite.max(initial=0.0)), float(finite.mean(dtype=np.float64)) if finite.size else 0.0


def _one_type(reference: Array, found: Array) -> tuple[Array, Array, str]:
    """Both in one element type, and the type to judge them by: the narrower of two floats."""
    one, other = dtype_name(reference), dtype_name(found)
    if one == other:
        return reference, found, one
    if "float" in one and "float" in other:
        narrow = min((one, other), key=_digits)
        wide = np.float64 if "float64" in (one, other) else np.float32
        return reference.astype(wide), found.astype(wide), narrow
    if "int" in one and "int" in other:
        return reference.astype(np.int64), found.astype(np.int64), "int64"
    return reference, found, one


def _digits(name: str) -> int:
    order = ("float8", "bfloat16", "float16", "float32", "float64")
    return next((index for index, prefix in enumerate(order) if name.startswith(prefix)), len(order))
