"""Quantised tensors in a capture: floats on a grid, since torch cannot describe its own quantised ones there.

A tensor on a grid knows its scale and zero point.  What moves elements about keeps the grid, what computes new ones
(averages, bounds, ``cat``) is rounded to it again, as torch's quantised kernels do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

__all__ = [
    "STORED",
    "Grid",
    "OnGrids",
    "chosen_grid",
    "from_steps",
    "grid_of",
    "is_positive",
    "off_grid",
    "on_grid",
    "quantised",
]

# What the elements of a quantised tensor are stored as.
STORED = {torch.quint8: torch.uint8, torch.qint8: torch.int8, torch.qint32: torch.int32}


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that whole numbers stand for: ``(number - zero_point) * scale``.

    Attributes:
        scale: of one step.
        zero_point: the number that stands for 0.
        dtype: torch's quantised type.
    """

    scale: float
    zero_point: int
    dtype: torch.dtype = torch.quint8

    @property
    def ends(self) -> tuple[int, int]:
        """The least and the largest number."""
        stored = torch.iinfo(STORED[self.dtype])
        return stored.min, stored.max


def grid_of(x: Any) -> Grid | None:
    """The grid that a tensor is known to lie on."""
    found: Grid | None = getattr(x, "_graphforge_grid", None) if isinstance(x, Tensor) else None
    return found


def on_grid(x: Tensor, grid: Grid) -> Tensor:
    """The tensor itself, known to lie on the grid."""
    noted: Any = x
    noted._graphforge_grid = grid
    return x


def off_grid(x: Tensor) -> Tensor:
    """The same values, of which nothing is known."""
    return x.view_as(x)


def quantised(x: Tensor, grid: Grid) -> Tensor:
    """Values rounded to a grid, with one rounding, as torch's fused product has it."""
    one_step = 1 / torch.tensor(grid.scale, dtype=torch.float32)
    return from_steps((x.double() * one_step.double() + grid.zero_point).to(torch.float32), grid)


def from_steps(steps: Tensor, grid: Grid) -> Tensor:
    """The values that numbers stand for once they are whole and within the type."""
    low, high = grid.ends
    numbers = torch.round(steps).clamp(low, high)
    scale = torch.tensor(grid.scale, dtype=torch.float32)
    return on_grid((numbers - grid.zero_point) * scale, grid)


# What moves elements, or picks among them.
_KEEP = frozenset(
    "flatten view reshape permute transpose squeeze unsqueeze movedim contiguous clone chunk split narrow select "
    "unbind __getitem__ index_select dropout dropout2d feature_dropout relu relu_ max_pool1d max_pool2d max_pool3d "
    "_max_pool1d _max_pool2d _max_pool3d adaptive_max_pool1d adaptive_max_pool2d amax amin repeat expand detach t "
    "channel_shuffle pixel_shuffle pixel_unshuffle roll flip unflatten".split()
)
# What computes elements in between, of the whole numbers, so that a tie is one in any runtime.
_AVERAGES = frozenset(
    "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean interpolate "
    "upsample".split()
)
# What is computed of the values, and rounded.
_ROUND = frozenset("hardtanh hardtanh_ clamp clamp_ relu6 cat concat leaky_relu leaky_relu_".split())
# What has a grid of its own: its range is known.
_OWN = {
    "sigmoid": Grid(1 / 256, 0),
    "hardsigmoid": Grid(1 / 256, 0),
    "tanh": Grid(2 / 256, 128),
}


class OnGrids(TorchFunctionMode):
    """While it is on, results of functions lie on the grids that torch's quantised kernels would give them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        known = name in _KEEP or name in _AVERAGES or name in _ROUND or name in _OWN
        grid = next((found for leaf in _pytree.tree_leaves(args) if (found := grid_of(leaf)) is not None), None)
        if not known or grid is None:
            return func(*args, **(kwargs or {}))
        if name in _AVERAGES:
            numbers = _pytree.tree_map(lambda leaf: torch.round(leaf / grid.scale) if grid_of(leaf) else leaf, args)
            return from_steps(func(*numbers, **(kwargs or {})) + grid.zero_point, grid)
        result = func(*args, **(kwargs or {}))
        if name in _OWN:
            return quantised(result, _OWN[name])
        if name in _ROUND:
            return quantised(result, grid)
        for leaf in _pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                on_grid(leaf, grid)
        return result


def chosen_grid(x: Tensor, *, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point for the values of a tensor, as torch's dynamic quantisation chooses them."""
    steps = 2**bits - 1
    low = torch.clamp(x.amin(), max=0.0).double()
    high = torch.clamp(x.amax(), min=0.0).double()
    scale = ((high - low) / steps).to(torch.float32).double()
    scale = torch.where(scale == 0, torch.full_like(scale, 0.1), scale)
    below, above = -low / scale, steps - high / scale
    start = torch.where((low / scale).abs() < steps + (high / scale).abs(), below, above)
    return scale, torch.round(start.clamp(0, steps))


def is_positive(number: float) -> bool:
    """Whether a factor keeps the order of numbers."""
    return number > 0 and math.isfinite(number)
