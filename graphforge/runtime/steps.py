"""The steps of a picture on its way into a model: each a frozen dataclass, its fields the keys of its data.

A picture begins as bytes, height x width x 3, red first.  Every step says what becomes of its pixels and of the
place of the picture in the model's input, so that boxes and points find their way back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, replace
from typing import Any, ClassVar, TypeAlias

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.runtime.files import Array
from graphforge.runtime.placement import Placement
from graphforge.runtime.warping import resized, warped
from graphforge.schema import FLAG, NUMBER, Description, one_of

__all__ = [
    "STEPS",
    "CentreCrop",
    "Colour",
    "CropBox",
    "Dtype",
    "Layout",
    "Letterbox",
    "Normalise",
    "Pad",
    "Resize",
    "Scale",
    "Seen",
    "Step",
]

Size: TypeAlias = tuple[int, int]  # width and height

# A picture of this many pixels is refused: 100 megapixels are more than any model takes.
_MOST_PIXELS = 100_000_000

_SIDE = one_of("a side in pixels, 1 to 100000", lambda data: type(data) is int and 1 <= data <= 100_000)
_POSITIVE = one_of("a number above 0", lambda data: not NUMBER.fault(data, "") and data > 0)
_SIZE = one_of(
    "[width, height] in pixels",
    lambda data: isinstance(data, list) and len(data) == 2 and not any(_SIDE.fault(one, "") for one in data),
)


def _channels(data: Any) -> bool:
    return not NUMBER.fault(data, "") or (
        isinstance(data, list) and len(data) in (1, 3) and not any(NUMBER.fault(one, "") for one in data)
    )


_VALUES = one_of("a number, or one for each channel", _channels)


def _word(*words: str) -> Description:
    return one_of(" or ".join(f'"{word}"' for word in words), lambda data: data in words)


def _key(described: Description, default: Any = MISSING) -> Any:
    """A field with the description that data from outside is held against."""
    metadata = {"is": described}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture on its way into the model.

    Attributes:
        pixels: [H, W, C], or [C, H, W] once ``layout`` came.
        placement: where the picture lies in it, for boxes and points.
        box: what is to be looked at, xyxy in the picture's pixels.
        laid_out: whether ``layout`` came.
    """

    pixels: Array
    placement: Placement
    box: tuple[float, float, float, float]
    laid_out: bool = False

    @property
    def size(self) -> Size:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(frozen=True, slots=True)
class Step:
    """One step; ``name`` is what files call it."""

    name: ClassVar[str]

    def apply(self, seen: Seen) -> Seen:
        """What the picture is after it."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Resize(Step):
    """Resize the picture.

    Attributes:
        size: width and height; left out, the size of the bundle's input.
        fit: ``stretch`` to the size; ``inside`` it with the ratio kept; ``either-way``, the same with the longer side
            of the picture held against the longer of the size; ``cover`` it, so that a crop can follow.
        filter: ``bilinear`` as OpenCV has it, or ``antialias-bilinear`` and ``antialias-bicubic`` as Pillow has them.
    """

    name: ClassVar[str] = "resize"
    size: Size | None = _key(_SIZE, None)
    fit: str = _key(_word("stretch", "inside", "either-way", "cover"), "stretch")
    filter: str = _key(_word("bilinear", "antialias-bilinear", "antialias-bicubic"), "bilinear")

    def apply(self, seen: Seen) -> Seen:
        """As every step."""
        wanted = _bounded(self, self._target(seen.size))
        if self.filter == "bilinear":
            pixels = resized(seen.pixels, wanted)
        else:
            pixels = _resized_by_pillow(seen.pixels, wanted, self.filter.removeprefix("antialias-"))
        factors = wanted[0] / seen.size[0], wanted[1] / seen.size[1]
        return replace(seen, pixels=pixels, placement=seen.placement.then(factors))

    def _target(self, own: Size) -> Size:
        size = _given(self, self.size)
        if self.fit == "stretch":
            return size
        if self.fit == "cover":  # the shorter side exact, the longer one cut down, as torchvision does
            factor = max(size[0] / own[0], size[1] / own[1])
            return max(size[0], int(own[0] * factor)), max(size[1], int(own[1] * factor))
        if self.fit == "either-way" and (own[0] < own[1]) != (size[0] < size[1]):
            size = size[1], size[0]
        factor = min(size[0] / own[0], size[1] / own[1])
        return max(1, int(own[0] * factor + 0.5)), max(1, int(own[1] * factor + 0.5))


@dataclass(frozen=True, slots=True)
class Pad(Step):
    """Fill the picture up to a size.

    Attributes:
        size: width and height; left out, the size of the bundle's input, unless there is a divisor.
        divisor: instead of a size: up to the next multiple of it.
        value: of the new pixels.
        where: the picture stays at the ``corner`` (top left) or goes to the ``centre``.
        cut: boxes that reach into what is filled in are cut to the picture.
    """

    name: ClassVar[str] = "pad"
    size: Size | None = _key(_SIZE, None)
    divisor: int | None = _key(_SIDE, None)
    value: float | tuple[float, ...] = _key(_VALUES, 0)
    where: str = _key(_word("corner", "centre"), "corner")
    cut: bool = _key(FLAG, False)

    def apply(self, seen: Seen) -> Seen:
        """As every step."""
        own = seen.size
        if self.divisor is not None:
            wanted = tuple(-(-side // self.divisor) * self.divisor for side in own)
        else:
            wanted = _given(self, self.size)
        if own[0] > wanted[0] or own[1] > wanted[1]:
            raise GraphForgeError(
                f"pre-processing: pad goes up to {wanted[0]}x{wanted[1]}, but the picture has {own[0]}x{own[1]}",
                "resize it inside that size first",
            )
        wanted = _bounded(self, (wanted[0], wanted[1]))
        left, top = ((wanted[0] - own[0]) // 2, (wanted[1] - own[1]) // 2) if self.where == "centre" else (0, 0)
        shape = (wanted[1], wanted[0], seen.pixels.shape[2])
        pixels = np.empty(shape, seen.pixels.dtype)
        pixels[...] = _values(self, self.value, seen.pixels)
        pixels[top : top + own[1], left : left + own[0]] = seen.pixels
        placement = seen.placement.then((1.0, 1.0), (left, top))
        return replace(seen, pixels=pixels, placement=replace(placement, cut=placement.cut or self.cut))


@dataclass(frozen=True, slots=True)
class Letterbox(Step):
    """Lay the whole picture into the middle of a size with its ratio kept, by one warp (mmpose's BottomupResize).

    Attributes:
        size: width and height; left out, the size of the bundle's input.
        value: of the pixels that the picture does not reach.
        cut: boxes that reach into these are cut to the picture.
    """

    name: ClassVar[str] = "letterbox"
    size: Size | None = _key(_SIZE, None)
    value: float | tuple[float, ...] = _key(_VALUES, 0)
    cut: bool = _key(FLAG, False)

    def apply(self, seen: Seen) -> Seen:
        """As every step."""
        wide, high = _given(self, self.size)
        ratio = seen.size[0] / seen.size[1]
        reached = min(wide, high * ratio), min(high, wide / ratio)
        # what stock code computes in float32 is computed in float32: a place that is a little off is another pixel
        scale = np.float32(seen.size[0] * wide / reached[0]), np.float32(seen.size[1] * high / reached[1])
        centre = np.float32(seen.size[0] / 2), np.float32(seen.size[1] / 2)
        where, results = _window(centre, scale, (wide, high))
        pixels = warped(seen.pixels, where, (wide, high), _values(self, self.value, seen.pixels))
        placement = seen.placement.then(results.scale, results.shift)
        return replace(seen, pixels=pixels, placement=replace(placement, cut=placement.cut or self.cut))


@dataclass(frozen=True, slots=True)
class CropBox(Step):
    """Cut out the box that is to be looked at, padded and widened to the ratio of the size (top-down pose).

    Attributes:
        size: width and height; left out, the size of the bundle's input.
        padding: the box is made so many times as large.
        udp: the corners of pixels are laid on each other, not their middles ("unbiased data processing").
    """

    name: ClassVar[str] = "crop-box"
    size: Size | None = _key(_SIZE, None)
    padding: float = _key(_POSITIVE, 1.25)
    udp: bool = _key(FLAG, False)

    def apply(self, seen: Seen) -> Seen:
        """As every step."""
        wide, high = _given(self, self.size)
        corners = np.asarray(seen.box, np.float32)
        centre = (corners[:2] + corners[2:]) * np.float32(0.5)
        sides = (corners[2:] - corners[:2]) * np.float32(self.padding)
        if not (np.isfinite(corners).all() and (sides > 0).all()):
            raise GraphForgeError(
                f"pre-processing: box {[float(one) for one in seen.box]} has no area",
                "a box is left, top, right, bottom in the picture's pixels",
            )
        ratio = wide / high
        scale = (sides[0], sides[0] / ratio) if sides[0] > sides[1] * ratio else (sides[1] * ratio, sides[1])
        where, results = _window((centre[0], centre[1]), (np.float32(scale[0]), np.float32(scale[1])), (wide, high))
        if self.udp:
            x, y = (wide - 1) / float(scale[0]), (high - 1) / float(scale[1])
            left, top = float(scale[0]) / 2 - float(centre[0]), float(scale[1]) / 2 - float(centre[1])
            where = Placement((x, y), (x * left, y * top))
        black = np.zeros(seen.pixels.shape[2], np.float32)
        pixels = warped(seen.pixels, where, (wide, high), black)
        # what codecs decode is scaled to the whole size with udp too, so results go back by the plain window
        return replace(seen, pixels=pixels, placement=seen.placement.then(results.scale, results.shift))


@dataclass(frozen=True, slots=True)
class CentreCrop(Step):
    """Cut out the middle.

    Attributes:
        size: width and height; left out, the size of the bundle's input.
    """

    name: ClassVar[str] = "centre-crop"
    size: Size | None = _key(_SIZE, None)

    def apply(self, seen: Seen) -> Seen:
        """As every step."""
        wide, high = _given(self, self.size)
        own = seen.size
        if own[0] < wide or own[1] < high:
            raise GraphForgeError(
                f"pre-processing: centre-crop takes {wide}x{high} out of a picture of {own[0]}x{own[1]}",
                'resize it first, with fit = "cover"',
            )
        left, top = round((own[0] - wide) / 2), round((own[1] - high) / 2)
        pixels = seen.pixels[top : top + high, left : left + wide]
        return replace(seen, pixels=pixels, placement=seen.placement.then((1.0, 1.0), (-left, -top)))


@dataclass(frozen=True, slots=True)
class Colour(Step):
    """Turn red-first pixels into another order.

    Attributes:
        order: ``bgr`` (as OpenCV reads pictures), ``rgb`` or ``grey``.
    """

    name: ClassVar[str] = "colour"
    order: str = _key(_word("rgb", "bgr", "grey"))

    def apply(self, seen: Seen) -> Seen:
        """As every step."""
        pixels = seen.pixels
        if self.order == "rgb":
            return seen
        if pixels.shape[2] != 3:
            raise GraphForgeError(f"pre-processing: colour takes 3 channels, and there are {pixels.shape[2]}")
        if self.order == "bgr":
            return replace(seen, pixels=pixels[..., ::-1])
        if pixels.dtype == np.uint8:  # Pillow's integers
            sums = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32) + 0x8000
            return replace(seen, pixels=(sums >> 16).astype(np.uint8)[..., None])
        weights = np.array([0.299, 0.587, 0.114], np.float32)
        return replace(seen, pixels=(pixels.astype(np.float32) @ weights)[..., None])


@dataclass(frozen=True, slots=True)
class Dtype(Step):
    """Turn the numbers into another element type; into ``uint8`` they are rounded.

    Attributes:
        to: ``float32``, ``float16`` or ``uint8``.
    """

    name: ClassVar[str] = "dtype"
    to: str = _key(_word("float32", "float16", "uint8"))

    def apply(self, seen: Seen) -> Seen:
        """As every step."""
        pixels = seen.pixels
        if self.to == "uint8" and pixels.dtype != np.uint8:
            pixels = np.clip(np.rint(pixels), 0, 255)
        return replace(seen, pixels=pixels.astype(self.to))


@dataclass(frozen=True, slots=True)
class Scale(Step):
    """Multiply every number, in float32.

    Attributes:
        by: the factor; 0.00392156862745098 makes 0..1 of bytes.
    """

    name: ClassVar[str] = "scale"
    by: float = _key(_POSITIVE)

    def apply(self, seen: Seen) -> Seen:
        """As every step."""
        inverse = 1 / self.by
        if inverse > 1 and abs(inverse - round(inverse)) < 1e-9 * inverse:  # 1/255 as a division, as everybody does it
            return replace(seen, pixels=seen.pixels.astype(np.float32) / np.float32(round(inverse)))
        return replace(seen, pixels=seen.pixels.astype(np.float32) * np.float32(self.by))


@dataclass(frozen=True, slots=True)
class Normalise(Step):
    """Subtract the mean and divide by the deviation, in float32, channel by channel in the order they then have.

    Attributes:
        mean: one number, or one for each channel.
        std: likewise.
    """

    name: ClassVar[str] = "normalise"
    mean: float | tuple[float, ...] = _key(_VALUES, 0)
    std: float | tuple[float, ...] = _key(_VALUES, 1)

    def apply(self, seen: Seen) -> Seen:
        """As every step."""
        mean, std = (np.asarray(_values(self, numbers, seen.pixels), np.float32) for numbers in (self.mean, self.std))
        return replace(seen, pixels=(seen.pixels.astype(np.float32) - mean) / std)


@dataclass(frozen=True, slots=True)
class Layout(Step):
    """The order of the axes that the model takes; last among the steps that see pixels.

    Attributes:
        order: ``nchw`` or ``nhwc``.
    """

    name: ClassVar[str] = "layout"
    order: str = _key(_word("nchw", "nhwc"), "nchw")

    def apply(self, seen: Seen) -> Seen:
        """As every step."""
        pixels = seen.pixels.transpose(2, 0, 1) if self.order == "nchw" else seen.pixels
        return replace(seen, pixels=np.ascontiguousarray(pixels), laid_out=True)


STEPS: Mapping[str, type[Step]] = {
    step.name: step for step in (Resize, Pad, Letterbox, CropBox, CentreCrop, Colour, Dtype, Scale, Normalise, Layout)
}


def _given(step: Step, size: Size | None) -> Size:
    if size is None:
        raise GraphForgeError(f"pre-processing: {step.name} has no size", "write it: size = [width, height]")
    return _bounded(step, size)


def _bounded(step: Step, size: Size) -> Size:
    """The size, seen to be one that a model may take, before memory is asked for."""
    if math.prod(size) > _MOST_PIXELS:
        raise GraphForgeError(
            f"pre-processing: {step.name} makes a picture of {size[0]}x{size[1]}, beyond {_MOST_PIXELS:,} pixels",
            "is the size right, and is the picture of an extreme ratio?",
        )
    return size


def _values(step: Step, numbers: float | tuple[float, ...], pixels: Array) -> Array:
    values = np.atleast_1d(np.asarray(numbers, np.float64))
    if len(values) not in (1, pixels.shape[2]):
        raise GraphForgeError(
            f"pre-processing: {step.name} has {len(values)} numbers, and there are {pixels.shape[2]} channels",
            "give one number, or one for each channel",
        )
    return np.broadcast_to(values, (pixels.shape[2],))


def _window(centre: tuple[Any, Any], scale: tuple[Any, Any], size: Size) -> tuple[Placement, Placement]:
    """A window of the picture laid into a size: for pixels with one factor, for results with one for each axis."""
    middle = float(centre[0]), float(centre[1])
    factor = size[0] / float(scale[0])
    pixels = Placement((factor, factor), (size[0] / 2 - middle[0] * factor, size[1] / 2 - middle[1] * factor))
    factors = factor, size[1] / float(scale[1])
    results = Placement(factors, (size[0] / 2 - middle[0] * factors[0], size[1] / 2 - middle[1] * factors[1]))
    return pixels, results


def _resized_by_pillow(pixels: Array, size: Size, name: str) -> Array:
    from PIL import Image

    if pixels.dtype != np.uint8:
        raise GraphForgeError(
            "pre-processing: resize with antialias takes bytes", "put it before dtype, scale and normalise"
        )
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
    array = np.asarray(picture.resize(size, getattr(Image.Resampling, name.upper())))
    return array.reshape(size[1], size[0], pixels.shape[2])
