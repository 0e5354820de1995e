"""What the MLU is fed in place of normalised floats in NCHW: bytes of pixels in NHWC, as cameras give them.

MagicMind puts ``(x - mean) / sqrt(var)`` before the first convolution (``insert_bn_before_firstnode``) and turns the
layout round (``convert_input_layout``); model.onnx, its calibration data and its ranges stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from graphforge.errors import GraphForgeError

if TYPE_CHECKING:
    from graphforge.targets.magicmind.options import MagicMindOptions

__all__ = ["Fed", "fed_inputs"]


@dataclass(frozen=True, slots=True)
class Fed:
    """How one input is fed on the MLU.

    Attributes:
        mean, std: of the pixels, one number a channel; None where the input stays normalised floats.
        is_nhwc: whether the channels come last.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    is_nhwc: bool = False

    def config(self) -> dict[str, Any]:
        """What build_config.json says of it, by its key."""
        said: dict[str, Any] = {}
        if self.mean is not None and self.std is not None:
            said["insert_bn_before_firstnode"] = {"mean": list(self.mean), "var": [one * one for one in self.std]}
        if self.is_nhwc:
            said["convert_input_layout"] = {"src": "NCHW", "dst": "NHWC"}
        return said

    def made_of(self, array: np.ndarray) -> np.ndarray:
        """What is fed where model.onnx takes ``array``; bytes are whole pixels from 0 to 255."""
        if self.mean is not None and self.std is not None:
            pixels = array * _by_channel(self.std) + _by_channel(self.mean)
            array = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(array, 1, -1) if self.is_nhwc else array)

    def read_back(self, array: np.ndarray) -> np.ndarray:
        """What model.onnx takes where ``array`` is fed."""
        array = np.moveaxis(array, -1, 1) if self.is_nhwc else array
        if self.mean is not None and self.std is not None:
            array = (array.astype(np.float32) - _by_channel(self.mean)) / _by_channel(self.std)
        return np.ascontiguousarray(array)

    def dims(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape of model.onnx in the layout that is fed."""
        return (shape[0], *shape[2:], shape[1]) if self.is_nhwc else tuple(shape)


def fed_inputs(model: ir.Model, options: MagicMindOptions) -> dict[int, Fed]:
    """Inputs that are fed otherwise than model.onnx takes them, by their position.

    Raises:
        GraphForgeError: there is no such input, more than one takes pixels, or numbers do not fit its channels.
    """
    if options.pixel_mean is None and options.input_layout == "nchw":
        return {}
    pictures = {index: value for index, value in enumerate(model.graph.inputs) if _is_picture(value)}
    if not pictures:
        raise GraphForgeError(
            "no input of the model is a picture: of four dims, floating, and read by a convolution",
            "leave pixel_mean, pixel_std and input_layout out",
        )
    is_nhwc = options.input_layout == "nhwc"
    if options.pixel_mean is None or options.pixel_std is None:
        return {index: Fed(is_nhwc=is_nhwc) for index in pictures}
    first = {index: value for index, value in pictures.items() if all(_is_conv(user) for user, _ in value.uses())}
    if len(first) != 1:
        names = ", ".join(str(value.name) for value in pictures.values())
        raise GraphForgeError(
            f"pixels are normalised before a first convolution, and {len(first)} of the pictures ({names}) are read by "
            "convolutions alone",
            "leave pixel_mean and pixel_std out and feed normalised floats, or move what is before the convolution out "
            "of the model",
        )
    ((index, value),) = first.items()
    channels = value.shape[1] if value.shape is not None else None
    mean, std = (
        _of_channels(numbers, channels, what, str(value.name))
        for numbers, what in ((options.pixel_mean, "pixel_mean"), (options.pixel_std, "pixel_std"))
    )
    return {other: Fed(is_nhwc=is_nhwc) for other in pictures if is_nhwc} | {index: Fed(mean, std, is_nhwc)}


def _of_channels(numbers: tuple[float, ...], channels: object, what: str, name: str) -> tuple[float, ...]:
    if not isinstance(channels, int) or len(numbers) not in (1, channels):
        raise GraphForgeError(f"{what} has {len(numbers)} numbers, and input {name!r} has {channels} channels")
    return numbers * channels if len(numbers) == 1 else numbers


def _by_channel(numbers: Sequence[float]) -> np.ndarray:
    return np.asarray(numbers, np.float32).reshape(1, -1, 1, 1)


def _is_picture(value: ir.Value) -> bool:
    is_floating = value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    return is_floating and value.shape is not None and len(value.shape) == 4 and any(map(_is_conv, _users(value)))


def _users(value: ir.Value) -> list[ir.Node]:
    return [user for user, _ in value.uses()]


def _is_conv(node: ir.Node) -> bool:
    return node.op_type == "Conv" and node.domain == ""
