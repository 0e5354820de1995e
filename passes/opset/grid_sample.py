"""GridSample by gathering: every tap's place in the flattened image, its weight, and the sum over the taps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from graphforge.passes.opset.step import HALF_FLOATS, Step, Values
from graphforge.transform import RewriterBuilder

__all__ = ["Sampler", "grid_sample"]


def grid_sample(step: Step) -> Values:
    """GridSample(x, grid)  ==>  sum over taps of GatherElements(x, place) * weight."""
    kind = step.dtype()
    inside = ir.DataType.FLOAT if kind in HALF_FLOATS else kind
    op = step.op
    x, grid = step.need(0), step.need(1)
    if step.dtype(0) != inside:
        x = op.Cast(x, to=inside.value)
    if step.dtype(1) != inside:
        grid = op.Cast(grid, to=inside.value)
    spatial = step.rank(0) - 2
    shape, places = op.Shape(x), op.Shape(grid)
    points = op.Reshape(grid, op.Concat(op.Slice(places, [0], [1]), [1, -1, spatial], axis=0))
    parts = op.Split(points, axis=3, num_outputs=spatial if step.opset > 17 else None, _outputs=spatial)
    align = bool(step.int_of("align_corners", 0))
    sampler = Sampler(
        op,
        x,
        inside,
        mode=step.text_of("mode", "bilinear"),
        padding=step.text_of("padding_mode", "zeros"),
        align=align,
    )
    # The grid counts its coordinates from the last axis of the image on.
    coordinates = [sampler.pixels(axis, op.Squeeze(part, [3])) for axis, part in enumerate(reversed(parts))]
    y = sampler.sample(coordinates)
    y = op.Reshape(y, op.Concat(op.Slice(shape, [0], [2]), op.Slice(places, [1], [1 + spatial]), axis=0))
    return [y if inside == kind else op.Cast(y, to=kind.value)]


@dataclass
class _Axis:
    """One direction of the image: its size as a float and the coordinates in pixels."""

    size: ir.Value
    at: ir.Value


class Sampler:
    """Writes the nodes that pick an image's elements at fractional coordinates of shape (batch, 1, places)."""

    def __init__(
        self, op: RewriterBuilder, image: ir.Value, kind: ir.DataType, *, mode: str, padding: str, align: bool
    ) -> None:
        self.op = op
        self.kind = kind
        self.mode = mode
        self.padding = padding
        self.align = align
        assert image.shape is not None
        shape = op.Shape(image)
        self.channels = op.Slice(shape, [1], [2])
        self.sizes = [op.Slice(shape, [axis], [axis + 1]) for axis in range(2, len(image.shape))]
        self.lengths = [op.Cast(size, to=kind.value) for size in self.sizes]
        self.flat = op.Reshape(image, [0, 0, -1])
        self.axes: list[_Axis] = []

    def number(self, value: float) -> ir.Value:
        return self.op.constant(value, self.kind)

    def pixels(self, axis: int, normal: ir.Value) -> ir.Value:
        """Coordinates of one axis from -1 .. 1 to pixels."""
        op, length = self.op, self.lengths[axis]
        shifted = op.Add(normal, self.number(1.0))
        if self.align:
            at = op.Mul(shifted, op.Div(op.Sub(length, self.number(1.0)), self.number(2.0)))
        else:
            at = op.Div(op.Sub(op.Mul(shifted, length), self.number(1.0)), self.number(2.0))
        assert isinstance(at, ir.Value)
        return at

    def sample(self, coordinates: list[ir.Value]) -> ir.Value:
        """(batch, channels, places): the image at the coordinates, given in pixels for each axis."""
        op = self.op
        self.axes = [_Axis(length, at) for length, at in zip(self.lengths, coordinates, strict=True)]
        taps: list[tuple[tuple[ir.Value, ...], ir.Value | None]]
        if self.mode == "nearest":
            taps = [(tuple(op.Round(self._folded(axis, axis.at)) for axis in self.axes), None)]
        elif self.mode in ("linear", "bilinear"):
            taps = list(self._linear_taps())
        else:
            taps = list(self._cubic_taps())
        total: ir.Value | None = None
        for places, weight in taps:
            picked = self._pick(places)
            term = picked if weight is None else op.Mul(picked, weight)
            total = term if total is None else op.Add(total, term)
        assert total is not None
        return total

    def _linear_taps(self) -> Iterator[tuple[tuple[ir.Value, ...], ir.Value]]:
        op = self.op
        sides = []
        for axis in self.axes:
            at = self._folded(axis, axis.at)
            low = op.Floor(at)
            part = op.Sub(at, low)
            sides.append([(low, op.Sub(self.number(1.0), part)), (op.Add(low, self.number(1.0)), part)])
        yield from self._combined(sides)

    def _cubic_taps(self) -> Iterator[tuple[tuple[ir.Value, ...], ir.Value]]:
        """Keys' kernel with a = -0.75 over four taps in each direction; each tap is folded back on its own."""
        op = self.op
        sides = []
        for axis in self.axes:
            low = op.Floor(axis.at)
            part = op.Sub(axis.at, low)
            taps = []
            for offset in range(-1, 3):
                distance = op.Abs(op.Sub(part, self.number(float(offset))))
                place = op.Add(low, self.number(float(offset)))
                taps.append((self._folded(axis, place), self._keys(distance, near=offset in (0, 1))))
            sides.append(taps)
        yield from self._combined(sides)

    def _combined(
        self, sides: list[list[tuple[ir.Value, ir.Value]]]
    ) -> Iterator[tuple[tuple[ir.Value, ...], ir.Value]]:
        """Every choice of one tap in each direction, with the product of their weights."""
        for choice in itertools.product(*sides):
            weight = choice[0][1]
            for _, other in choice[1:]:
                weight = self.op.Mul(weight, other)
            yield tuple(place for place, _ in choice), weight

    def _keys(self, distance: ir.Value, *, near: bool) -> ir.Value:
        a = -0.75
        # R. Keys, Cubic convolution interpolation for digital image processing, 1981.
        coefficients = (a + 2, -(a + 3), 0.0, 1.0) if near else (a, -5 * a, 8 * a, -4 * a)
        op = self.op
        total = self.number(coefficients[0])
        for coefficient in coefficients[1:]:
            total = op.Add(op.Mul(total, distance), self.number(coefficient))
        return total

    def _folded(self, axis: _Axis, at: ir.Value) -> ir.Value:
        """Coordinates outside brought back by the padding mode; zeros are masked later."""
        op = self.op
        top = op.Sub(axis.size, self.number(1.0))
        if self.padding == "reflection":
            at = self._reflected(axis, at)
        if self.padding in ("reflection", "border"):
            at = op.Min(op.Max(at, self.number(0.0)), top)
        return at

    def _reflected(self, axis: _Axis, at: ir.Value) -> ir.Value:
        """Mirrored at the centres of the outer pixels (align_corners) or at their outer edges."""
        op = self.op
        low = self.number(0.0 if self.align else -0.5)
        span = op.Sub(axis.size, self.number(1.0)) if self.align else axis.size
        double = op.Mul(span, self.number(2.0))
        # A span of zero (one pixel between its own centres) has nowhere to go but the pixel itself.
        safe = op.Max(double, self.number(1e-6))
        distance = op.Abs(op.Sub(at, low))
        rest = op.Mod(distance, safe, fmod=1)
        back = op.Min(rest, op.Sub(double, rest))
        result = op.Add(back, low)
        assert isinstance(result, ir.Value)
        return result

    def _pick(self, places: tuple[ir.Value, ...]) -> ir.Value:
        """The pixels at whole coordinates, zero outside."""
        op = self.op
        inside = None
        place = None
        for at, axis, size in zip(places, self.axes, self.sizes, strict=True):
            top = op.Sub(axis.size, self.number(1.0))
            clamped = op.Min(op.Max(at, self.number(0.0)), top)
            whole = op.Cast(clamped, to=ir.DataType.INT64.value)
            place = whole if place is None else op.Add(op.Mul(place, size), whole)
            if self.padding == "zeros":
                here = op.Equal(clamped, at)
                inside = here if inside is None else op.And(inside, here)
        shape = op.Shape(place)
        spread = op.Concat(op.Slice(shape, [0], [1]), self.channels, op.Slice(shape, [2], [3]), axis=0)
        picked = op.GatherElements(self.flat, op.Expand(place, spread), axis=2)
        if inside is not None:
            picked = op.Where(inside, picked, self.number(0.0))
        assert isinstance(picked, ir.Value)
        return picked
