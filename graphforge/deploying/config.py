"""What a deploy config asks for, whatever language it was written in; what is not asked for is None or empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphforge.errors import GraphForgeError
from graphforge.spec import DimRange, ShapeSpec, TensorSpec

__all__ = ["DeployConfig", "InputRange"]


@dataclass(frozen=True, slots=True)
class InputRange:
    """The sizes of one input: the example's, and the least and the largest along each axis.

    Attributes:
        shape: of the example.
        low, high: the bounds; where they are equal, the size is fixed.
        step: sizes are multiples of it, along each axis.
        dtype: of its elements.
    """

    shape: tuple[int, ...]
    low: tuple[int, ...] = ()
    high: tuple[int, ...] = ()
    step: tuple[int, ...] = ()
    dtype: str = "float32"

    def dims(self, name: str) -> dict[int, DimRange]:
        """Axis -> range of what is not fixed.

        Raises:
            GraphForgeError: the bounds do not go with the shape.
        """
        low, high = self.low or self.shape, self.high or self.shape
        step = self.step or (1,) * len(self.shape)
        if not len(low) == len(high) == len(step) == len(self.shape):
            raise GraphForgeError(f"input {name!r}: shape, min, max and step differ in how many axes they have")
        for axis, (least, size, most) in enumerate(zip(low, self.shape, high, strict=True)):
            if not least <= size <= most:
                raise GraphForgeError(
                    f"input {name!r}: size {size} of axis {axis} is not inside {least}..{most}",
                    "the example's shape lies between min and max",
                )
        return {
            axis: DimRange(f"{name}_{axis}", least, most, by)
            for axis, (least, most, by) in enumerate(zip(low, high, step, strict=True))
            if least != most
        }


@dataclass(frozen=True, slots=True)
class DeployConfig:
    """What is asked of a compilation, where nothing else is said.

    Attributes:
        source: the file or preset.
        about: what it is for, in a line.
        target, opset, precision, outputs, nms, decode: as ``graphforge compile`` takes them.
        options: of the target, by name.
        inputs: sizes by input name.
        batches: how large a batch is to be promised where ``inputs`` has no sizes and the model brings its own; 0 for
            none.
        overrides: values of the model's config, by dotted key.
        notes: what was understood in which way, and what was not understood.
    """

    source: str
    about: str = ""
    target: str | None = None
    opset: int | None = None
    precision: str | None = None
    outputs: str | None = None
    nms: str | None = None
    decode: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, InputRange] = field(default_factory=dict)
    batches: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def tensors(self) -> tuple[TensorSpec, ...]:
        """The inputs with their example's sizes."""
        return tuple(TensorSpec(name, one.shape, one.dtype) for name, one in self.inputs.items())

    def dynamic(self) -> dict[str, dict[int, DimRange]]:
        """Input name -> axis -> range."""
        found = {name: dims for name, one in self.inputs.items() if (dims := one.dims(name))}
        if self.batches and not self.inputs:
            found["input"] = {0: DimRange("input_0", 1, self.batches)}
        return found

    def loading(self) -> dict[str, Any]:
        """What ``graphforge.load_model`` is called with, beside the model's spec."""
        return {"decode": self.decode, "kwargs": dict(self.overrides)}

    def arguments(self) -> dict[str, Any]:
        """What ``graphforge.compile`` is called with, beside the model."""
        asked: dict[str, Any] = {
            "target": self.target,
            "opset": self.opset,
            "precision": self.precision,
            "outputs": self.outputs,
            "nms": self.nms,
            "target_options": dict(self.options),
            "inputs": ShapeSpec(self.tensors()) if self.inputs else None,
            "dynamic_shapes": self.dynamic(),
        }
        return {name: value for name, value in asked.items() if value}
