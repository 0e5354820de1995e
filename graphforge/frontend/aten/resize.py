"""Interpolation: every aten.upsample_* as Resize, or as exact gathers where ONNX Runtime would round another way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from graphforge.frontend.emitter import Dim, Emitter, SymbolicScalar, dim_label_of
from graphforge.frontend.rules import lowers

__all__: list[str] = []

_FLOAT = ir.DataType.FLOAT
_DOUBLE = ir.DataType.DOUBLE
_INT64 = ir.DataType.INT64
_RESIZED = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
# Below this factor, torch's index arithmetic in single precision is exact for whole factors (first failure: 41).
_EXACT_FACTOR = 40
# From so many channels on, torch has a kernel of its own for channels_last_3d.
_MANY_CHANNELS = 4
# Sizes above this are not considered when a scale in single precision is checked to give torch's output sizes.
_LARGEST = 1 << 16


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis to resize: from ``have`` to ``wanted``, by ``scale`` when torch computes with a given factor.

    ``low`` and ``high`` bound what ``have`` can be; ``given`` says that the size was given beside the factor, and need
    not be what the factor makes of it.
    """

    have: Dim
    wanted: Dim
    scale: float | None
    low: int
    high: int
    given: bool = False

    @property
    def same_size(self) -> bool:
        """Whether the size stays as it is, whatever the factor was."""
        return dim_label_of(self.have) == dim_label_of(self.wanted)

    @property
    def unchanged(self) -> bool:
        """Whether nothing happens on this axis."""
        return self.same_size and self.scale in (None, 1.0)

    @property
    def fixed(self) -> bool:
        """Whether both sizes are known now."""
        return isinstance(self.have, int) and isinstance(self.wanted, int)


def _axes(op: Emitter, x: ir.Value, output_size: Sequence[Dim] | None, scales: Sequence[Any] | None) -> list[_Axis]:
    count = op.rank(x) - 2
    factors = list(scales) if scales is not None else [None] * count
    given = output_size is not None
    if output_size is None:
        output_size = _scaled_sizes(op, x, factors)
    axes = []
    for axis in range(count):
        factor = factors[axis]
        if isinstance(factor, SymbolicScalar):
            raise op.fail("the scale factor depends on the input", "pass size= to interpolate instead")
        low, high = _bounds(op, axis + 2)
        scale = None if factor is None else float(factor)
        axes.append(_Axis(op.size(x, axis + 2), output_size[axis], scale, low, high, given and scale is not None))
    return axes


def _bounds(op: Emitter, axis: int) -> tuple[int, int]:
    """The promised range of one size of the operator's first argument."""
    size = op.inputs[0].shape[axis]
    if isinstance(size, int):
        return size, size
    bounds = size.node.shape_env.bound_sympy(size.node.expr)
    return max(1, int(bounds.lower)), int(min(bounds.upper, _LARGEST))


def _scaled_sizes(op: Emitter, x: ir.Value, factors: Sequence[Any]) -> list[Dim]:
    """floor(size * factor), as capture knows it or computed in double precision at run time."""
    fake = op.result_dims()
    sizes: list[Dim] = []
    for axis, factor in enumerate(factors):
        have, known = op.size(x, axis + 2), fake[axis + 2]
        if isinstance(known, int):
            sizes.append(known)
            continue
        if isinstance(factor, SymbolicScalar):
            raise op.fail("the scale factor depends on the input", "pass size= to interpolate instead")
        if factor == 1:
            sizes.append(have)
            continue
        sizes.append(_scaled_size(have, float(factor), known))
    return sizes


def _scaled_size(have: Dim, factor: float, label: str) -> SymbolicScalar:
    def make(op: Emitter) -> ir.Value:
        size = op.scalar(have, _INT64)
        if factor == int(factor):
            return op.Mul(size, int(factor))
        return op.cast(op.Floor(op.Mul(op.cast(size, _DOUBLE), factor)), _INT64)

    return SymbolicScalar(label, scalar=make)


# -- the ONNX operator -----------------------------------------------------------------------------------------------


def _single_precision_scale(axis: _Axis) -> np.float32 | None:
    """A scale with which floor(size * scale) is torch's size; None when there is none.

    ONNX does not say how that is computed: ONNX Runtime does it in single precision, shape inference in double.  A
    scale that serves both is preferred; one for the runtime alone gives files that are refused when sizes are fixed.
    """
    if axis.unchanged:
        return np.float32(1)
    if isinstance(axis.have, int) and isinstance(axis.wanted, int):
        exact = axis.wanted / axis.have if axis.scale is None else axis.scale
        sizes, wanted = np.array([axis.have]), np.array([axis.wanted])
    elif axis.scale is not None and not axis.given:
        exact = axis.scale
        sizes = np.arange(axis.low, axis.high + 1)
        wanted = np.floor(sizes * exact)
    else:
        return None
    nearest = np.float32(exact)
    candidates = (nearest, np.nextafter(nearest, np.float32(np.inf)), np.nextafter(nearest, np.float32(0)))
    for_runtime = [one for one in candidates if np.array_equal(np.floor(sizes.astype(np.float32) * one), wanted)]
    for_both = [one for one in for_runtime if np.array_equal(np.floor(sizes * np.float64(one)), wanted)]
    return next(iter((*for_both, *for_runtime)), None)


def _infers(axis: _Axis, scale: np.float32 | None) -> bool:
    """Whether shape inference, in double precision, finds the wanted size by a scale."""
    if not isinstance(axis.have, int) or not isinstance(axis.wanted, int):
        return True
    return scale is not None and int(np.floor(axis.have * np.float64(scale))) == axis.wanted


def _sayable(axes: Sequence[_Axis], *, by_size: bool) -> bool:
    """Whether Resize gives torch's output sizes, and positions, for every promised size."""
    if all(_single_precision_scale(axis) is not None for axis in axes):
        return True
    return by_size or all(axis.scale is None or axis.unchanged for axis in axes)


def _resize(op: Emitter, x: ir.Value, axes: Sequence[_Axis], **attributes: Any) -> ir.Value:
    """The ONNX operator, by scales where these give the sizes, else by the sizes."""
    scales = [_single_precision_scale(axis) for axis in axes]
    by_scales = all(scale is not None for scale in scales)
    if by_scales and all(axis.scale is None or axis.unchanged for axis in axes):
        # sizes say the same where only the runtime, and not shape inference, finds them by the scale
        by_scales = all(_infers(axis, scale) for axis, scale in zip(axes, scales, strict=True))
    if by_scales:
        known = np.array([1, 1, *[scale for scale in scales if scale is not None]], dtype=np.float32)
        result: ir.Value = op.Resize(x, None, op.constant(known), **attributes)
        return result
    sizes = op.vector([axis.wanted for axis in axes])
    result = op.Resize(x, None, None, sizes, axes=list(range(2, 2 + len(axes))), **attributes)
    return result


# -- nearest ---------------------------------------------------------------------------------------------------------


class _Kernel(Enum):
    """Which of torch's kernels computes a nearest interpolation: they differ in what a given factor means."""

    COPIES = "where the size happens to stay or to double, elements are copied or doubled, whatever the factor"
    BY_FACTOR = "positions go by the factor, also where the size happens to stay or to double"
    EXACT = "as BY_FACTOR, from the middle of every element"


def _kernel_for(op: Emitter) -> _Kernel:
    """The kernel for ``mode="nearest"``: two spatial axes, and three with many channels last, have one of their own."""
    fake = op.inputs[0]
    if fake.dim() == 4:
        return _Kernel.COPIES
    if fake.dim() == 5 and isinstance(fake.shape[1], int) and fake.shape[1] >= _MANY_CHANNELS:
        last = fake.is_contiguous(memory_format=torch.channels_last_3d)
        return _Kernel.COPIES if last else _Kernel.BY_FACTOR
    return _Kernel.BY_FACTOR


def _nearest_positions(axis: _Axis, kernel: _Kernel) -> np.ndarray:
    """The source of every output position as torch computes it, in single precision."""
    assert isinstance(axis.have, int)
    assert isinstance(axis.wanted, int)
    exact = kernel is _Kernel.EXACT
    if kernel is _Kernel.COPIES and axis.wanted in (axis.have, 2 * axis.have):
        return np.arange(axis.wanted) // (axis.wanted // axis.have)
    ratio = np.float32(axis.have) / np.float32(axis.wanted) if axis.scale is None else np.float32(1.0 / axis.scale)
    positions = np.arange(axis.wanted).astype(np.float32) + np.float32(0.5 if exact else 0)
    sources: np.ndarray = np.minimum(np.floor(positions * ratio).astype(np.int64), axis.have - 1)
    return sources


def _runtime_positions(axis: _Axis, exact: bool, scale: np.float32) -> np.ndarray:
    """The source of every output position as ONNX Runtime's Resize computes it."""
    assert isinstance(axis.have, int)
    assert isinstance(axis.wanted, int)
    positions = np.arange(axis.wanted).astype(np.float32)
    if exact:
        source = (positions + np.float32(0.5)) / scale - np.float32(0.5)
        rounded = np.floor(source + np.float32(0.5))
    else:
        rounded = np.floor(positions / scale)
    sources: np.ndarray = np.clip(rounded.astype(np.int64), 0, axis.have - 1)
    return sources


def _resize_agrees(axis: _Axis, kernel: _Kernel) -> bool:
    """Whether ONNX Runtime's Resize picks the very elements that torch picks."""
    if axis.unchanged:
        return True
    if not isinstance(axis.have, int) or not isinstance(axis.wanted, int):
        factor = axis.scale
        return factor is not None and not axis.given and factor == int(factor) and factor <= _EXACT_FACTOR
    scale = _single_precision_scale(axis)
    if scale is None:
        return False
    exact = kernel is _Kernel.EXACT
    return bool(np.array_equal(_nearest_positions(axis, kernel), _runtime_positions(axis, exact, scale)))


def _dynamic_positions(op: Emitter, axis: _Axis, kernel: _Kernel) -> ir.Value:
    """``_nearest_positions`` for sizes known at run time only."""
    have, wanted = op.scalar(axis.have, _INT64), op.scalar(axis.wanted, _INT64)
    if axis.scale is None:
        ratio = op.Div(op.cast(have, _FLOAT), op.cast(wanted, _FLOAT))
    else:
        ratio = op.constant(np.array(1.0 / axis.scale, dtype=np.float32))
        if kernel is _Kernel.COPIES:
            # torch copies where the size happens to stay, and doubles where it happens to double
            ratio = op.Where(op.Equal(wanted, have), 1.0, op.Where(op.Equal(wanted, op.Mul(have, 2)), 0.5, ratio))
    positions = op.cast(op.Range(0, wanted, 1), _FLOAT)
    if kernel is _Kernel.EXACT:
        positions = op.Add(positions, 0.5)
    picked: ir.Value = op.Min(op.cast(op.Mul(positions, ratio), _INT64), op.Sub(have, 1))
    return picked


def _nearest(op: Emitter, x: ir.Value, axes: Sequence[_Axis], *, exact: bool = False) -> ir.Value:
    kernel = _Kernel.EXACT if exact else _kernel_for(op)
    axes = [_copied(axis) if kernel is _Kernel.COPIES else axis for axis in axes]
    if all(axis.unchanged for axis in axes):
        return x
    # where no size changes, ONNX Runtime copies, whatever the scales are
    moves = kernel is _Kernel.COPIES or not all(axis.same_size for axis in axes)
    if x.dtype in _RESIZED and moves and all(_resize_agrees(axis, kernel) for axis in axes):
        if exact:
            return _resize(
                op,
                x,
                axes,
                mode="nearest",
                nearest_mode="round_prefer_ceil",
                coordinate_transformation_mode="half_pixel",
            )
        return _resize(op, x, axes, mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")
    for position, axis in enumerate(axes, start=2):
        if axis.unchanged:
            continue
        if isinstance(axis.have, int) and isinstance(axis.wanted, int):
            picked = op.constant(_nearest_positions(axis, kernel))
        else:
            picked = _dynamic_positions(op, axis, kernel)
        x = op.Gather(x, picked, axis=position)
    return x


@lowers("aten.upsample_nearest1d.vec", "aten.upsample_nearest2d.vec", "aten.upsample_nearest3d.vec")
def upsample_nearest_vec(
    op: Emitter, x: ir.Value, output_size: Sequence[Dim] | None, scale_factors: Sequence[Any] | None
) -> ir.Value:
    """Resize, or gathers."""
    return _nearest(op, x, _axes(op, x, output_size, scale_factors))


@lowers("aten.upsample_nearest1d.default", "aten.upsample_nearest2d.default", "aten.upsample_nearest3d.default")
def upsample_nearest(op: Emitter, x: ir.Value, output_size: Sequence[Dim], *scales: Any, **named: Any) -> ir.Value:
    """Resize, or gathers."""
    return _nearest(op, x, _axes(op, x, output_size, _factors(op, x, scales, named)))


@lowers(
    "aten._upsample_nearest_exact1d.vec", "aten._upsample_nearest_exact2d.vec", "aten._upsample_nearest_exact3d.vec"
)
def upsample_nearest_exact_vec(
    op: Emitter, x: ir.Value, output_size: Sequence[Dim] | None, scale_factors: Sequence[Any] | None
) -> ir.Value:
    """Resize, or gathers."""
    return _nearest(op, x, _axes(op, x, output_size, scale_factors), exact=True)


@lowers(
    "aten._upsample_nearest_exact1d.default",
    "aten._upsample_nearest_exact2d.default",
    "aten._upsample_nearest_exact3d.default",
)
def upsample_nearest_exact(
    op: Emitter, x: ir.Value, output_size: Sequence[Dim], *scales: Any, **named: Any
) -> ir.Value:
    """Resize, or gathers."""
    return _nearest(op, x, _axes(op, x, output_size, _factors(op, x, scales, named)), exact=True)


def _factors(op: Emitter, x: ir.Value, scales: Sequence[Any], named: dict[str, Any]) -> list[Any]:
    """The optional factors of the ``.default`` overloads, one for each axis."""
    names = {1: ["scales"], 2: ["scales_h", "scales_w"], 3: ["scales_d", "scales_h", "scales_w"]}[op.rank(x) - 2]
    listed = [*scales, *[None] * (len(names) - len(scales))]
    return [named.get(name, factor) for name, factor in zip(names, listed, strict=True)]


# -- linear and cubic ------------------------------------------------------------------------------------------------


def _copied(axis: _Axis) -> _Axis:
    """An axis whose size stays is copied, even when the factor is not exactly one."""
    return replace(axis, scale=None) if axis.same_size else axis


def _smooth(
    op: Emitter, x: ir.Value, axes: Sequence[_Axis], mode: str, *, align_corners: bool, antialias: bool = False
) -> ir.Value:
    if mode == "linear" and not antialias:
        axes = [_copied(axis) for axis in axes]
    if all(axis.unchanged for axis in axes):
        return x
    dtype = x.dtype
    if dtype == ir.DataType.UINT8:
        raise op.fail(
            "interpolation of bytes rounds after every axis, in fixed point, which Resize cannot say",
            "convert the image to float32 before interpolate",
        )
    fixed = all(axis.fixed or axis.unchanged for axis in axes)
    if fixed and antialias and (align_corners or dtype == _DOUBLE or _to_one_column(axes)):
        # no coordinate mode of ONNX for aligned corners, no kernel for doubles
        return _by_matrices(op, x, axes, mode, align_corners=align_corners, antialias=antialias)
    if antialias and (align_corners or dtype == _DOUBLE):
        raise op.fail(
            "this interpolation (antialias of float64, or with align_corners) needs fixed sizes",
            "make the spatial dims static, convert the model to float32, or leave out align_corners",
        )
    unsayable = not _sayable(axes, by_size=align_corners) or _may_coincide(axes, mode, align_corners=align_corners)
    if (dtype == _DOUBLE or unsayable) and not antialias:
        # no kernel for doubles, or sizes that are not those of the factor
        if fixed:
            return _by_matrices(op, x, axes, mode, align_corners=align_corners, antialias=False)
        return _by_gathers(op, x, axes, mode, align_corners=align_corners)
    if unsayable:
        raise op.fail(
            f"no single-precision scale gives torch's output size for every input size: factors {_listed(axes)}",
            "pass size= or recompute_scale_factor=True to interpolate, or make the spatial dims static",
        )
    attributes: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": "align_corners" if align_corners else "half_pixel",
    }
    if mode == "cubic":
        attributes["cubic_coeff_a"] = -0.5 if antialias else -0.75
    if antialias:
        attributes["antialias"] = 1
        attributes["exclude_outside"] = 1
    return _resize(op, x, axes, **attributes)


def _listed(axes: Sequence[_Axis]) -> str:
    return ", ".join(str(axis.scale) for axis in axes)


def _to_one_column(axes: Sequence[_Axis]) -> bool:
    """Whether a picture shrinks to one column with antialias while its height changes.

    torch's CPU kernel then takes the column for a row, and gives every element the weights of the first one.
    """
    return axes[-1].wanted == 1 and not axes[0].unchanged


def _may_coincide(axes: Sequence[_Axis], mode: str, *, align_corners: bool) -> bool:
    """Whether a size may stay what it was under a factor above one.

    Linear interpolation then copies that axis in torch and goes by the factor in Resize; cubic interpolation goes by
    the factor in torch, while ONNX Runtime's Resize copies where no size changes.
    """
    if align_corners:
        return False
    if mode == "cubic" and all(axis.same_size for axis in axes):
        return True
    for axis in axes:
        if axis.fixed or axis.scale is None or not 1 < axis.scale < 2:
            continue
        changing = math.ceil(1 / (axis.scale - 1))
        if max(axis.low, 2) < changing and changing > 2:
            return True
    return False


def _by_gathers(op: Emitter, x: ir.Value, axes: Sequence[_Axis], mode: str, *, align_corners: bool) -> ir.Value:
    """For each axis, the elements beside every position (two, or four for cubic), weighted: at sizes known later."""
    assert x.dtype is not None
    kind = _DOUBLE if x.dtype == _DOUBLE else _FLOAT
    rank, asked = op.rank(x), x.dtype
    x = op.cast(x, kind)
    for position, axis in enumerate(axes, start=2):
        if axis.unchanged:
            continue
        have = op.scalar(axis.have, _INT64)
        centres = _centres(op, axis, kind, clamped=mode == "linear", align_corners=align_corners)
        low = op.Floor(centres)
        fraction = op.Unsqueeze(op.Sub(centres, low), list(range(1, rank - position)))
        start, last = op.cast(low, _INT64), op.Sub(have, 1)
        total: ir.Value | None = None
        for step, weight in _taps(op, fraction, mode):
            picked = op.Max(op.Min(op.Add(start, step), last), 0) if step else op.Max(op.Min(start, last), 0)
            part = op.Mul(op.Gather(x, picked, axis=position), weight)
            total = part if total is None else op.Add(total, part)
        assert total is not None
        x = total
    return op.cast(x, asked)


def _centres(op: Emitter, axis: _Axis, kind: ir.DataType, *, clamped: bool, align_corners: bool) -> ir.Value:
    """Where every output element lies in the input, as torch computes it."""
    have, wanted = op.scalar(axis.have, _INT64), op.scalar(axis.wanted, _INT64)
    steps = op.cast(op.Range(0, wanted, 1), kind)
    if align_corners:
        spans = op.Max(op.Sub(wanted, 1), 1)
        aligned: ir.Value = op.Mul(steps, op.Div(op.cast(op.Sub(have, 1), kind), op.cast(spans, kind)))
        return aligned
    if axis.scale is None:
        ratio = op.Div(op.cast(have, kind), op.cast(wanted, kind))
    else:
        ratio = op.constant(1.0 / axis.scale, kind)
    half = op.constant(0.5, kind)
    centres = op.Sub(op.Mul(op.Add(steps, half), ratio), half)
    if clamped:
        centres = op.Max(centres, op.constant(0.0, kind))
        if axis.scale is not None:  # linear interpolation copies where the size happens to stay
            centres = op.Where(op.Equal(have, wanted), steps, centres)
    return centres


def _taps(op: Emitter, fraction: ir.Value, mode: str) -> list[tuple[int, ir.Value]]:
    """Offsets of the elements beside a position, and their weights."""
    kind = fraction.dtype

    def number(value: float) -> ir.Value:
        return op.constant(value, kind)

    if mode == "linear":
        return [(0, op.Sub(number(1.0), fraction)), (1, fraction)]
    a = -0.75

    def near(t: ir.Value) -> ir.Value:  # Keys' kernel up to a distance of one
        inner = op.Sub(op.Mul(number(a + 2), t), number(a + 3))
        result: ir.Value = op.Add(op.Mul(op.Mul(inner, t), t), number(1.0))
        return result

    def far(t: ir.Value) -> ir.Value:  # and from one to two
        inner = op.Add(op.Mul(op.Sub(op.Mul(number(a), t), number(5 * a)), t), number(8 * a))
        result: ir.Value = op.Sub(op.Mul(inner, t), number(4 * a))
        return result

    rest = op.Sub(number(1.0), fraction)
    one = number(1.0)
    return [(-1, far(op.Add(fraction, one))), (0, near(fraction)), (1, near(rest)), (2, far(op.Add(rest, one)))]


def _weights(axis: _Axis, mode: str, *, align_corners: bool, antialias: bool) -> np.ndarray:
    """[wanted, have]: the weight of every source in every output, in double precision."""
    assert isinstance(axis.have, int)
    assert isinstance(axis.wanted, int)
    have, wanted = axis.have, axis.wanted
    matrix = np.zeros((wanted, have))
    steps = np.arange(wanted)
    if align_corners:
        ratio = (have - 1) / (wanted - 1) if wanted > 1 else 0.0
    else:
        ratio = have / wanted if axis.scale is None else 1.0 / axis.scale
    if antialias:
        return _antialias_weights(matrix, (steps + 0.5) * ratio, max(ratio, 1.0), mode)
    centres = steps * ratio if align_corners else (steps + 0.5) * ratio - 0.5
    if mode == "linear":
        centres = np.clip(centres, 0, None)
    low = np.floor(centres).astype(int)
    for row in range(wanted):
        fraction = centres[row] - low[row]
        if mode == "linear":
            taps = [(0, 1 - fraction), (1, fraction)]
        else:
            taps = [(step, _cubic(abs(fraction - step), -0.75)) for step in (-1, 0, 1, 2)]
        for step, weight in taps:
            matrix[row, min(max(low[row] + step, 0), have - 1)] += weight
    return matrix


def _cubic(distance: float, a: float) -> float:
    """Keys' cubic convolution kernel."""
    if distance <= 1:
        return ((a + 2) * distance - (a + 3)) * distance * distance + 1
    if distance < 2:
        return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return 0.0


def _antialias_weights(matrix: np.ndarray, centres: np.ndarray, stretch: float, mode: str) -> np.ndarray:
    have = matrix.shape[1]
    support = (1.0 if mode == "linear" else 2.0) * stretch
    for row, centre in enumerate(centres):
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), have)
        for source in range(low, high):
            distance = abs((source - centre + 0.5) / stretch)
            matrix[row, source] = max(0.0, 1 - distance) if mode == "linear" else _cubic(distance, -0.5)
        matrix[row] /= matrix[row].sum()
    return matrix


def _by_matrices(
    op: Emitter, x: ir.Value, axes: Sequence[_Axis], mode: str, *, align_corners: bool, antialias: bool
) -> ir.Value:
    """One product with a matrix of weights for each axis: for doubles, whose scales Resize takes as float32."""
    rank = op.rank(x)
    for position, axis in enumerate(axes, start=2):
        if axis.unchanged:
            continue
        matrix = _weights(axis, mode, align_corners=align_corners, antialias=antialias)
        if antialias and position == 2 and _to_one_column(axes):
            matrix[:] = matrix[0]
            op.notes.add(
                "interpolate with antialias to one column gives the first row's value everywhere: torch does on the CPU"
            )
        swap = list(range(rank))
        swap[position], swap[-1] = swap[-1], swap[position]
        x = op.transpose(
            op.MatMul(
                op.transpose(x, swap), op.constant(np.ascontiguousarray(matrix.T.astype((x.dtype or _FLOAT).numpy())))
            ),
            swap,
        )
    return x


@lowers("aten.upsample_linear1d.vec", "aten.upsample_bilinear2d.vec", "aten.upsample_trilinear3d.vec")
def upsample_linear_vec(
    op: Emitter,
    x: ir.Value,
    output_size: Sequence[Dim] | None,
    align_corners: bool,
    scale_factors: Sequence[Any] | None,
) -> ir.Value:
    """Resize."""
    return _smooth(op, x, _axes(op, x, output_size, scale_factors), "linear", align_corners=align_corners)


@lowers("aten.upsample_linear1d.default", "aten.upsample_bilinear2d.default", "aten.upsample_trilinear3d.default")
def upsample_linear(
    op: Emitter, x: ir.Value, output_size: Sequence[Dim], align_corners: bool, *scales: Any, **named: Any
) -> ir.Value:
    """Resize."""
    axes = _axes(op, x, output_size, _factors(op, x, scales, named))
    return _smooth(op, x, axes, "linear", align_corners=align_corners)


@lowers("aten.upsample_bicubic2d.vec")
def upsample_bicubic_vec(
    op: Emitter,
    x: ir.Value,
    output_size: Sequence[Dim] | None,
    align_corners: bool,
    scale_factors: Sequence[Any] | None,
) -> ir.Value:
    """Resize."""
    return _smooth(op, x, _axes(op, x, output_size, scale_factors), "cubic", align_corners=align_corners)


@lowers("aten.upsample_bicubic2d.default")
def upsample_bicubic(
    op: Emitter, x: ir.Value, output_size: Sequence[Dim], align_corners: bool, *scales: Any, **named: Any
) -> ir.Value:
    """Resize."""
    axes = _axes(op, x, output_size, _factors(op, x, scales, named))
    return _smooth(op, x, axes, "cubic", align_corners=align_corners)


@lowers("aten._upsample_bilinear2d_aa.vec")
def upsample_bilinear_aa_vec(
    op: Emitter,
    x: ir.Value,
    output_size: Sequence[Dim] | None,
    align_corners: bool,
    scale_factors: Sequence[Any] | None,
) -> ir.Value:
    """Resize with antialias."""
    axes = _axes(op, x, output_size, scale_factors)
    return _smooth(op, x, axes, "linear", align_corners=align_corners, antialias=True)


@lowers("aten._upsample_bilinear2d_aa.default")
def upsample_bilinear_aa(
    op: Emitter, x: ir.Value, output_size: Sequence[Dim], align_corners: bool, *scales: Any, **named: Any
) -> ir.Value:
    """Resize with antialias."""
    axes = _axes(op, x, output_size, _factors(op, x, scales, named))
    return _smooth(op, x, axes, "linear", align_corners=align_corners, antialias=True)


@lowers("aten._upsample_bicubic2d_aa.vec")
def upsample_bicubic_aa_vec(
    op: Emitter,
    x: ir.Value,
    output_size: Sequence[Dim] | None,
    align_corners: bool,
    scale_factors: Sequence[Any] | None,
) -> ir.Value:
    """Resize with antialias."""
    axes = _axes(op, x, output_size, scale_factors)
    return _smooth(op, x, axes, "cubic", align_corners=align_corners, antialias=True)


@lowers("aten._upsample_bicubic2d_aa.default")
def upsample_bicubic_aa(
    op: Emitter, x: ir.Value, output_size: Sequence[Dim], align_corners: bool, *scales: Any, **named: Any
) -> ir.Value:
    """Resize with antialias."""
    axes = _axes(op, x, output_size, _factors(op, x, scales, named))
    return _smooth(op, x, axes, "cubic", align_corners=align_corners, antialias=True)
