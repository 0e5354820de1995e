"""While capturing: the modules of an eager-quantised model, computed by plain ones on the same whole numbers.

    quantized.Conv2d(x)   ==>   round(conv2d(numbers(x), numbers(weight)) * scale) on the grid of its result

The weights are whole numbers of eight bits in torch's own packing, which a capture cannot look into.  The sums of their
products are exact in float32, so that the results are those of torch's kernels, but for ties in the last rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphforge.frontend.quantised import (
    Grid,
    OnGrids,
    chosen_grid,
    from_steps,
    grid_of,
    is_positive,
    off_grid,
    on_grid,
    quantised,
)

__all__ = ["plain_modules"]

Forward = Callable[..., Tensor]


class _Twin(nn.Module):
    """A plain module in the place of a quantised one, which still computes what comes in quantised."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.training = False
        self._made_of = (original,)  # out of sight of what looks for submodules

    @property
    def original(self) -> Any:
        """The module it stands for."""
        return self._made_of[0]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_made_of"][0], name)


class _Weighted(_Twin):
    """A linear layer or a convolution: whole numbers in float32, rounded to the grid of the result."""

    weight_numbers: Tensor
    weight_scale: Tensor

    def __init__(self, original: Any, compute: Callable[[Any, Tensor, Tensor], Tensor], axis: int) -> None:
        super().__init__(original)
        weight, bias = original.weight(), original.bias()
        shape = [-1 if place == axis else 1 for place in range(weight.dim())]
        if weight.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams):
            scale, zero = weight.q_per_channel_scales(), weight.q_per_channel_zero_points().view(shape)
        else:
            scale, zero = torch.tensor([weight.q_scale()]), torch.tensor(weight.q_zero_point())
        self.register_buffer("weight_numbers", weight.int_repr().float() - zero.float())
        self.register_buffer("weight_scale", scale.float())
        self.register_buffer("bias_values", None if bias is None else bias.detach().float())
        self.compute = compute

    def on_channels(self, values: Tensor, x: Tensor) -> Tensor:
        """One number a channel, against a result."""
        last = isinstance(self.original, nn.Module) and "Linear" in type(self.original).__name__
        return values if last else values.view(-1, *[1] * (x.dim() - 2))

    def forward(self, x: Tensor) -> Tensor:
        if x.is_quantized:
            result: Tensor = self.original(x)
            return result
        made, name = self.original, type(self.original).__name__
        out = Grid(float(made.scale), int(made.zero_point))
        known = grid_of(x)
        one = 1.0 if known is None else known.scale
        numbers = x if known is None else torch.round(x / one)
        sums = self.compute(made, numbers, self.weight_numbers)
        step = self.on_channels(self.weight_scale * one, sums)
        if self.bias_values is not None:
            sums = sums + self.on_channels(self.bias_values, sums) / step
        steps = torch.round(sums * (step / out.scale)) + out.zero_point
        if "ReLU" in name:
            steps = steps.clamp(min=out.zero_point)
        result = from_steps(steps, out)
        return result


class _Dynamic(_Weighted):
    """A linear layer that quantises its input by the range that it has."""

    def forward(self, x: Tensor) -> Tensor:
        scale, zero = chosen_grid(x, bits=7)
        numbers = torch.round((x.double() / scale + zero).to(torch.float32)).clamp(0, 127) - zero.to(torch.float32)
        sums = self.compute(self.original, numbers, self.weight_numbers)
        result = sums * (self.weight_scale * scale.to(torch.float32))
        if self.bias_values is not None:
            result = result + self.bias_values
        return functional.relu(result) if "ReLU" in type(self.original).__name__ else result


def _linear(_: Any, x: Tensor, weight: Tensor) -> Tensor:
    return functional.linear(x, weight)


def _convolution(original: Any, x: Tensor, weight: Tensor) -> Tensor:
    axes = weight.dim() - 2
    padding = original.padding
    if original.padding_mode != "zeros":
        x = functional.pad(x, original._reversed_padding_repeated_twice, mode=original.padding_mode)
        padding = (0,) * axes
    compute: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    result: Tensor = compute(x, weight, None, original.stride, padding, original.dilation, original.groups)
    return result


def _transposed(original: Any, x: Tensor, weight: Tensor) -> Tensor:
    axes = weight.dim() - 2
    compute: Any = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[axes - 1]
    made = original
    result: Tensor = compute(
        x, weight, None, made.stride, made.padding, made.output_padding, made.groups, made.dilation
    )
    return result


class _Computed(_Twin):
    """What a function of floats gives, rounded to the grid of the result."""

    def __init__(self, original: nn.Module, compute: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__(original)
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        made = self.original
        if x.is_quantized:
            result: Tensor = made(x)
            return result
        if type(made).__name__ == "ReLU6":
            known = grid_of(x)
            clipped = functional.relu6(off_grid(x))
            return clipped if known is None else quantised(clipped, known)
        scale = made.output_scale if hasattr(made, "output_scale") else made.scale
        zero = made.output_zero_point if hasattr(made, "output_zero_point") else made.zero_point
        return quantised(self.compute(made, off_grid(x)), Grid(float(scale), int(zero)))


def _normalised(made: Any, x: Tensor) -> Tensor:
    result = functional.batch_norm(x, made.running_mean, made.running_var, made.weight, made.bias, False, 0.0, made.eps)
    return functional.relu(result) if "ReLU" in type(made).__name__ else result


_FUNCTIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "BatchNorm2d": _normalised,
    "BatchNorm3d": _normalised,
    "BNReLU2d": _normalised,
    "BNReLU3d": _normalised,
    "Hardswish": lambda _, x: functional.hardswish(x),
    "ELU": lambda made, x: functional.elu(x, made.alpha),
    "LeakyReLU": lambda made, x: functional.leaky_relu(x, made.negative_slope),
    "Sigmoid": lambda _, x: torch.sigmoid(x),
    "Softmax": lambda made, x: functional.softmax(x, made.dim if made.dim is not None else -1),
    "LayerNorm": lambda made, x: functional.layer_norm(x, made.normalized_shape, made.weight, made.bias, made.eps),
    "GroupNorm": lambda made, x: functional.group_norm(x, made.num_groups, made.weight, made.bias, made.eps),
    "ReLU6": lambda _, x: functional.relu6(x),
}


class _Quantize(_Twin):
    def forward(self, x: Tensor) -> Tensor:
        made = self.original
        return torch.quantize_per_tensor(x, float(made.scale), int(made.zero_point), made.dtype)


class _Functional(_Twin):
    """Sums, products and concatenations of quantised tensors."""

    def rounded(self, name: str, result: Callable[[], Tensor], *operands: Any) -> Tensor:
        """A result on the module's grid; torch's own where an operand is quantised."""
        made = self.original
        if any(isinstance(one, Tensor) and one.is_quantized for one in operands):
            own: Tensor = getattr(made, name)(*operands)
            return own
        return quantised(result(), Grid(float(made.scale), int(made.zero_point)))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self.rounded("add", lambda: x + y, x, y)

    def add_relu(self, x: Tensor, y: Tensor) -> Tensor:
        return self.rounded("add_relu", lambda: functional.relu(x + y), x, y)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        return self.rounded("mul", lambda: x * y, x, y)

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return self.rounded("matmul", lambda: x @ y, x, y)

    def cat(self, x: Sequence[Tensor], dim: int = 0) -> Tensor:
        if x[0].is_quantized:
            own: Tensor = self.original.cat(x, dim)
            return own
        return self.rounded("cat", lambda: torch.cat([off_grid(one) for one in x], dim))

    def mul_scalar(self, x: Tensor, y: float) -> Tensor:
        known = grid_of(x)
        if x.is_quantized or known is None or not is_positive(y):
            own: Tensor = self.original.mul_scalar(x, y)
            return own
        return on_grid(x * y, Grid(known.scale * y, known.zero_point, known.dtype))


def _twin(module: nn.Module) -> nn.Module | None:
    """What stands for a quantised module; None for every other one."""
    home, name = type(module).__module__, type(module).__name__
    if not home.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
        return None
    if ".dynamic" in home:
        return _Dynamic(module, _linear, 0) if name in ("Linear", "LinearReLU") else None
    if name in ("Linear", "LinearReLU"):
        return _Weighted(module, _linear, 0)
    if name.startswith("ConvTranspose"):
        return _Weighted(module, _transposed, 1)
    if name in ("Conv1d", "Conv2d", "Conv3d", "ConvReLU1d", "ConvReLU2d", "ConvReLU3d"):
        return _Weighted(module, _convolution, 0)
    if name in _FUNCTIONS:
        return _Computed(module, _FUNCTIONS[name])
    if name == "Quantize":
        return _Quantize(module)
    return _Functional(module) if name == "QFunctional" else None


@contextmanager
def plain_modules(model: nn.Module) -> Iterator[nn.Module]:
    """The model with plain modules in the place of its quantised ones, while the context lasts."""
    if isinstance(model, torch.jit.ScriptModule):
        yield model
        return
    replaced: list[tuple[Any, str, nn.Module]] = []
    whole = _twin(model)
    for owner in [] if whole is not None else list(model.modules()):
        for name, child in list(owner.named_children()):
            twin = _twin(child)
            if twin is not None:
                replaced.append((owner, name, child))
                owner._modules[name] = twin
    if whole is None and not replaced:
        yield model
        return
    try:
        with OnGrids():
            yield whole if whole is not None else model
    finally:
        for owner, name, child in replaced:
            owner._modules[name] = child
