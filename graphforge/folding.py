"""What becomes of pixels, moved from a bundle's pre-processing into its graph: bytes go in, as cameras deliver them.

What moves is what follows the last step that changes where pixels are: order of colours, scale, mean and deviation.
The model with these in front is what is captured, and what the artifact is compared with.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from graphforge.errors import GraphForgeError, argument
from graphforge.prepare import Prepared
from graphforge.runtime.feeds import takes_pictures
from graphforge.runtime.steps import Colour, Dtype, Layout, Normalise, Scale, Step
from graphforge.spec import ShapeSpec, TensorSpec, ValueRange

__all__ = ["BytesIn", "fold"]


class BytesIn(nn.Module):
    """A model that takes a picture of bytes and does the steps of its pixels itself.

    Args:
        model: takes what the steps make.
        name: the parameter of its forward that is the picture.
        steps: order of colours, scale, mean and deviation, in their order.
        dtype: what the model takes.
        channels: the axis of the channels.
    """

    def __init__(self, model: nn.Module, name: str, steps: Sequence[Step], dtype: torch.dtype, channels: int) -> None:
        super().__init__()
        self.model = model
        self.steps = tuple(steps)
        self.dtype = dtype
        self.channels = channels
        self.signature = inspect.signature(model.forward)
        self.place = list(self.signature.parameters).index(name)
        self.name = name
        for number, step in enumerate(self.steps):
            if isinstance(step, Normalise):
                for key in ("mean", "std"):
                    numbers = torch.tensor(getattr(step, key), dtype=torch.float32).reshape(-1)
                    shape = [1] * (4 if channels in (1, 3) else 3)  # with or without a batch
                    shape[channels] = len(numbers)
                    self.register_buffer(f"{key}_{number}", numbers.reshape(shape))

    def pixels(self, picture: Tensor) -> Tensor:
        """The picture as the model takes it."""
        numbers = picture.to(torch.float32)
        for number, step in enumerate(self.steps):
            if isinstance(step, Colour) and step.order == "bgr":
                numbers = numbers.flip(self.channels)
            elif isinstance(step, Scale):
                inverse = 1 / step.by
                whole = inverse > 1 and abs(inverse - round(inverse)) < 1e-9 * inverse  # as the step itself does it
                numbers = numbers / round(inverse) if whole else numbers * step.by
            elif isinstance(step, Normalise):
                numbers = (numbers - getattr(self, f"mean_{number}")) / getattr(self, f"std_{number}")
        return numbers.to(self.dtype)

    def bytes_of(self, picture: Tensor) -> Tensor:
        """The bytes that come nearest to what the model takes: the way back."""
        numbers = picture.to(torch.float32)
        for number, step in reversed(list(enumerate(self.steps))):
            if isinstance(step, Colour) and step.order == "bgr":
                numbers = numbers.flip(self.channels)
            elif isinstance(step, Scale):
                numbers = numbers / step.by
            elif isinstance(step, Normalise):
                numbers = numbers * getattr(self, f"std_{number}") + getattr(self, f"mean_{number}")
        return numbers.round().clamp(0, 255).to(torch.uint8)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own, its picture in bytes."""
        if self.name in kwargs:
            kwargs[self.name] = self.pixels(kwargs[self.name])
        else:
            args = (*args[: self.place], self.pixels(args[self.place]), *args[self.place + 1 :])
        return self.model(*args, **kwargs)


def fold(prepared: Prepared, steps: Sequence[Step]) -> tuple[Prepared, tuple[Step, ...]]:
    """The model with the steps of its pixels inside, and the steps that are left.

    Args:
        prepared: the model as it is.
        steps: the whole list, as its input takes it.

    Raises:
        GraphForgeError: there is nothing to move, or it cannot be moved.
    """
    before, moving = _split(steps)
    tensor = next((one for one in prepared.shapes.inputs if takes_pictures(one, steps)), None)
    asked = argument("fold_preprocess", True)
    if not any(isinstance(step, Colour | Scale | Normalise) for step in moving):
        raise GraphForgeError(
            f"{asked}: nothing of the pre-processing can be moved into the graph",
            "order of colours, scale, mean and deviation can, where they follow all that moves pixels",
        )
    if any(isinstance(step, Scale | Normalise | Dtype) for step in before):
        raise GraphForgeError(
            f"{asked}: the steps before {moving[0].name} do not leave bytes", "put scale, normalise and dtype last"
        )
    module = prepared.loaded.module
    if module is None or prepared.inputs is None or tensor is None:
        raise GraphForgeError(f"{asked} takes a PyTorch module", "an ONNX file or an exported program stays as it is")
    if tensor.name not in inspect.signature(module.forward).parameters or prepared.further:
        what = "with further inputs" if prepared.further else f"whose picture is {tensor.name!r}"
        raise GraphForgeError(f"{asked} does not go with a call {what}", "give the picture as an input of its own")
    order = next((step.order for step in steps if isinstance(step, Layout)), "nchw")
    channels = len(tensor.shape) - (3 if order == "nchw" else 1)
    whole = _with_signature(module, tensor.name, moving, getattr(torch, tensor.dtype), channels)
    example = {tensor.name: whole.bytes_of(prepared.inputs.tensors[tensor.name])}
    shapes = ShapeSpec(tuple(_in_bytes(one) if one is tensor else one for one in prepared.shapes.inputs))
    folded = replace(
        prepared,
        loaded=replace(prepared.loaded, module=whole),
        inputs=prepared.inputs.replaced(example),
        shapes=shapes,
        notes=[*prepared.notes, f"input {tensor.name} takes bytes: {_named(moving)} in the graph"],
    )
    return folded, (*before, Layout(order), Dtype("uint8"))


def _split(steps: Sequence[Step]) -> tuple[list[Step], list[Step]]:
    """Those up to the last that moves pixels or makes them grey, and those after it."""
    last = max(
        (
            number
            for number, step in enumerate(steps)
            if not isinstance(step, Scale | Normalise | Dtype | Layout)
            and not (isinstance(step, Colour) and step.order != "grey")
        ),
        default=-1,
    )
    return list(steps[: last + 1]), list(steps[last + 1 :])


def _with_signature(module: nn.Module, name: str, steps: Sequence[Step], dtype: torch.dtype, channels: int) -> BytesIn:
    """With the parameters of the model's own forward, so that inputs keep their names."""

    def forward(self: BytesIn, *args: Any, **kwargs: Any) -> Any:
        return BytesIn.forward(self, *args, **kwargs)

    own = inspect.signature(module.forward)
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = own.replace(parameters=[first, *own.parameters.values()])  # type: ignore[attr-defined]
    kind = type("BytesIn", (BytesIn,), {"forward": forward})
    made = kind(module, name, steps, dtype, channels).eval()
    assert isinstance(made, BytesIn)
    return made


def _in_bytes(tensor: TensorSpec) -> TensorSpec:
    return replace(tensor, dtype="uint8", values=ValueRange(0, 255))


def _named(steps: Sequence[Step]) -> str:
    return ", ".join(step.name for step in steps if isinstance(step, Colour | Scale | Normalise))
