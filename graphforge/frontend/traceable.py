"""While capturing: functions that torch cannot trace at dynamic sizes, computed by others that it can.

``copy.deepcopy`` of a tensor asks for its memory, which a tensor being traced has not: it becomes a clone.
``torch.linspace`` takes its steps and its ends as fixed numbers: over dynamic sizes it is computed from ``arange``.
``torch._shape_as_tensor`` reads the sizes once: here they are put together one by one.  ``torch._check_tensor_all`` is
an assertion about data, which an artifact does not make; so is what ``torch.distributions`` checks of it.  Fake
quantisation has no description of its shapes in torch: it gets one.
``torch.nn.functional.grouped_mm`` runs in any precision, and is described to a capture in bfloat16 only: here in any.
``adaptive_avg_pool1d`` takes its size as a fixed number, which two axes do not: it becomes the pool of one row.
``torch.quantize_per_tensor`` and ``..._per_channel`` make tensors that torch cannot describe to a capture: here the
values that these stand for.
``as_subclass`` to a class that leaves everything to torch would be two objects for one tensor: it is the tensor.
``torch.conv_tbc``, which torch describes for fixed sizes only, becomes ``conv1d``.
Functions whose kernels read a size once (``torch.triu_indices``) are those of ``open_sizes.py`` where it varies.
A write to ``x[:, y]`` or ``x[y:]`` reads the tensor ``y`` as a plain number: it becomes a write to that part of ``x``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from graphforge.frontend.open_sizes import FUNCTIONS, is_traced
from graphforge.frontend.quantised import STORED, Grid, from_steps, grid_of, off_grid, quantised
from graphforge.frontend.references import imported_as

__all__ = ["is_traced", "traceable_functions"]

_QUANTISED = {stored: dtype for dtype, stored in STORED.items()}

_FAKE_QUANTIZING = (
    "fake_quantize_per_tensor_affine_cachemask",
    "fake_quantize_per_channel_affine_cachemask",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
)


@contextmanager
def traceable_functions() -> Iterator[None]:
    """Put the replacements in place while the context lasts."""
    library: Any = torch
    tensors: Any = torch.Tensor
    functional: Any = torch.nn.functional
    linspace, deepcopy = library.linspace, tensors.__deepcopy__
    descriptions = vars(import_module("torch._meta_registrations"))
    described = descriptions.get("_meta_grouped_mm_common")
    shaped = descriptions.get("_create_grouped_mm_output_tensor")
    shape_as_tensor, check_tensor_all = library._shape_as_tensor, library._check_tensor_all
    setitem, as_subclass = tensors.__setitem__, tensors.as_subclass
    quantize, dequantize, int_repr = library.quantize_per_tensor, tensors.dequantize, tensors.int_repr
    quantize_channels, dequantize_function = library.quantize_per_channel, library.dequantize
    made_of_numbers, made_by_channel = (
        library._make_per_tensor_quantized_tensor,
        library._make_per_channel_quantized_tensor,
    )
    conv_tbc = library.conv_tbc
    average = functional.adaptive_avg_pool1d  # which `interpolate` of mode area calls by this name as well

    def traced_linspace(start: Any, end: Any, steps: Any, **keywords: Any) -> Any:
        plain = all(isinstance(one, int | float | torch.SymInt | torch.SymFloat) for one in (start, end))
        dynamic = any(isinstance(one, torch.SymInt | torch.SymFloat) for one in (start, end, steps))
        dtype = keywords.get("dtype") or torch.get_default_dtype()
        if not dynamic or not plain or not dtype.is_floating_point or "out" in keywords:
            return linspace(start, end, steps, **keywords)
        first, last = torch.sym_float(start), torch.sym_float(end)
        return _linspace(first, last, steps, dtype=dtype, device=keywords.get("device"))

    def traced_shape_as_tensor(x: Tensor) -> Tensor:
        if not is_traced(x) or not x.dim():
            return shape_as_tensor(x)  # type: ignore[no-any-return]
        sizes: list[Any] = list(x.shape)
        return torch.stack([torch.scalar_tensor(size, dtype=torch.int64) for size in sizes])

    def unchecked(*_: Any, **__: Any) -> None:
        return None

    def traced_deepcopy(self: Tensor, memo: dict[int, Any]) -> Any:
        if not is_traced(self):
            return deepcopy(self, memo)
        if id(self) not in memo:
            memo[id(self)] = self.clone()
        return memo[id(self)]

    def grouped(a: Tensor, b: Tensor, scale_a: Any, scale_b: Any, offs: Any = None, **keywords: Any) -> Any:
        assert described is not None
        assert shaped is not None
        if scale_a is not None or scale_b is not None:
            return described(a, b, scale_a, scale_b, offs=offs, **keywords)
        return shaped(a, b, offs, keywords.get("out_dtype"))

    def traced_average(x: Any, output_size: Any) -> Any:
        size = output_size[0] if isinstance(output_size, list | tuple) else output_size
        if not isinstance(size, torch.SymInt):
            return average(x, output_size)
        return functional.adaptive_avg_pool2d(x.unsqueeze(-2), [1, size]).squeeze(-2)

    def traced_conv_tbc(x: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
        if not is_traced(x):
            return conv_tbc(x, weight, bias, pad)  # type: ignore[no-any-return]
        made = functional.conv1d(x.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
        return made.permute(2, 0, 1)  # type: ignore[no-any-return]

    def traced_quantize(x: Tensor, scale: Any, zero_point: Any, dtype: Any) -> Tensor:
        if not is_traced(x) or dtype not in STORED:
            return quantize(x, scale, zero_point, dtype)  # type: ignore[no-any-return]
        if not isinstance(scale, Tensor) and not isinstance(zero_point, Tensor):
            return quantised(x, Grid(float(scale), int(zero_point), dtype))
        steps = x.double() * (1 / scale.to(torch.float32)).double() + zero_point  # one rounding
        return _quantised(steps.to(torch.float32), scale.to(torch.float32), zero_point, dtype)

    def traced_quantize_channels(x: Tensor, scales: Tensor, zero_points: Tensor, axis: int, dtype: Any) -> Tensor:
        if not is_traced(x) or dtype not in STORED:
            return quantize_channels(x, scales, zero_points, axis, dtype)  # type: ignore[no-any-return]
        shape = [-1 if place == axis % x.dim() else 1 for place in range(x.dim())]
        by, offset = scales.to(torch.float32).view(shape), zero_points.to(torch.float32).view(shape)
        return _quantised(x * (1 / by) + offset, by, offset, dtype)

    def traced_of_numbers(x: Tensor, scale: float, zero_point: int) -> Tensor:
        if not is_traced(x):
            return made_of_numbers(x, scale, zero_point)  # type: ignore[no-any-return]
        return from_steps(x.to(torch.float32), Grid(float(scale), int(zero_point), _QUANTISED[x.dtype]))

    def traced_by_channel(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
        if not is_traced(x):
            return made_by_channel(x, scale, zero_point, axis)  # type: ignore[no-any-return]
        shape = [-1 if place == axis % x.dim() else 1 for place in range(x.dim())]
        by, offset = scale.to(torch.float32).view(shape), zero_point.to(torch.float32).view(shape)
        return _quantised(x.to(torch.float32), by, offset, _QUANTISED[x.dtype])

    def traced_dequantize(self: Tensor) -> Tensor:
        if grid_of(self) is not None:
            return off_grid(self)
        return self if hasattr(self, "_graphforge_numbers") else dequantize(self)

    def traced_dequantize_function(x: Any) -> Any:
        if isinstance(x, list | tuple):
            return [traced_dequantize_function(one) for one in x]
        known = grid_of(x) is not None or hasattr(x, "_graphforge_numbers")
        return traced_dequantize(x) if known else dequantize_function(x)

    def traced_int_repr(self: Tensor) -> Tensor:
        grid = grid_of(self)
        if grid is not None:
            return (torch.round(self / grid.scale) + grid.zero_point).to(STORED[grid.dtype])
        numbers: Tensor | None = getattr(self, "_graphforge_numbers", None)
        return int_repr(self) if numbers is None else numbers

    def traced_as_subclass(self: Tensor, kind: Any) -> Any:
        return self if is_traced(self) and _changes_nothing(kind) else as_subclass(self, kind)

    def traced_setitem(self: Tensor, key: Any, value: Any) -> None:
        part = _part(self, key)
        if part is None:
            setitem(self, key, value)
        elif isinstance(value, Tensor):
            leading = max(0, value.dim() - part.dim())  # axes of size 1 in front say nothing
            part.copy_(value.squeeze(tuple(range(leading))) if leading else value)
        else:
            part.fill_(value)

    tensors.__setitem__, tensors.as_subclass = traced_setitem, traced_as_subclass
    tensors.dequantize, tensors.int_repr = traced_dequantize, traced_int_repr
    tensors.__deepcopy__ = traced_deepcopy
    functions = [
        (library, "linspace", linspace, traced_linspace),
        (library, "_shape_as_tensor", shape_as_tensor, traced_shape_as_tensor),
        (library, "_check_tensor_all", check_tensor_all, unchecked),
        (library, "quantize_per_tensor", quantize, traced_quantize),
        (library, "quantize_per_channel", quantize_channels, traced_quantize_channels),
        (library, "dequantize", dequantize_function, traced_dequantize_function),
        (library, "_make_per_tensor_quantized_tensor", made_of_numbers, traced_of_numbers),
        (library, "_make_per_channel_quantized_tensor", made_by_channel, traced_by_channel),
        (functional, "adaptive_avg_pool1d", average, traced_average),
        (library, "conv_tbc", conv_tbc, traced_conv_tbc),
        *_of_open_sizes(),
    ]
    exchanged = [*functions, *imported_as(functions)]
    for owner, name, _, after in exchanged:
        setattr(owner, name, after)
    if described is not None and shaped is not None:
        descriptions["_meta_grouped_mm_common"] = grouped
    distribution: Any = torch.distributions.Distribution
    validates, distribution._validate_args = distribution._validate_args, False
    kernels: Any = torch.library.Library("aten", "IMPL")
    for name in _FAKE_QUANTIZING:
        kernels.impl(name, _fake_quantized, "Meta")
    try:
        yield
    finally:
        kernels._destroy()
        distribution._validate_args = validates
        if described is not None:
            descriptions["_meta_grouped_mm_common"] = described
        for owner, name, before, _ in exchanged:
            setattr(owner, name, before)
        tensors.__deepcopy__ = deepcopy
        tensors.__setitem__, tensors.as_subclass = setitem, as_subclass
        tensors.dequantize, tensors.int_repr = dequantize, int_repr


def _of_open_sizes() -> list[tuple[Any, str, Any, Any]]:
    def replaced(before: Any, open_: Any, applies: Any) -> Any:
        @functools.wraps(before)
        def either(*args: Any, **kwargs: Any) -> Any:
            stands_in = "out" not in kwargs and applies(*args, **kwargs)
            return (open_ if stands_in else before)(*args, **kwargs)

        return either

    return [
        (owner, name, getattr(owner, name), replaced(getattr(owner, name), *functions))
        for (owner, name), functions in FUNCTIONS.items()
    ]


def _changes_nothing(kind: Any) -> bool:
    """Whether a class of tensors leaves everything to torch's own: its tensors compute what plain ones do."""
    own = [name for one in kind.__mro__ if issubclass(one, Tensor) and one is not Tensor for name in vars(one)]
    return all(name in ("__module__", "__doc__", "__dict__", "__weakref__", "__annotations__") for name in own)


def _quantised(steps: Tensor, scale: Tensor, zero_point: Any, dtype: torch.dtype) -> Tensor:
    """The values that quantised numbers stand for; ``int_repr`` asks for the numbers."""
    stored = STORED[dtype]
    numbers = torch.round(steps).clamp(torch.iinfo(stored).min, torch.iinfo(stored).max)
    values: Any = (numbers - zero_point) * scale
    values._graphforge_numbers = numbers.to(stored)
    return values  # type: ignore[no-any-return]


def _part(x: Tensor, key: Any) -> Tensor | None:
    """The view that ``x[key]`` stands for, where a traced tensor is read as a number in it; else None."""
    items = list(key) if isinstance(key, tuple) else [key]
    bounds = [bound for item in items if isinstance(item, slice) for bound in (item.start, item.stop, item.step)]
    if not any(_is_number(item) for item in (*items, *bounds)) or not all(map(_is_plain, items)):
        return None
    if Ellipsis in [item for item in items if not isinstance(item, Tensor)]:
        place = next(i for i, item in enumerate(items) if item is Ellipsis)
        items[place : place + 1] = [slice(None)] * (x.dim() - len(items) + 1)
    axis = 0
    for item in items:
        if isinstance(item, slice):
            start, stop, step = (_number(bound) for bound in (item.start, item.stop, item.step))
            x = torch.ops.aten.slice.Tensor(x, axis, start, stop, 1 if step is None else step)
            axis += 1
        else:
            x = x.select(axis, _number(item))
    return x


def _is_number(item: Any) -> bool:
    """Whether an index is a traced tensor that is read as one whole number."""
    if not isinstance(item, Tensor) or not is_traced(item) or item.dim() != 0:
        return False
    return (
        not item.dtype.is_floating_point and not item.dtype.is_complex and item.dtype not in (torch.bool, torch.uint8)
    )


def _is_plain(item: Any) -> bool:
    if isinstance(item, bool):
        return False
    return isinstance(item, int | torch.SymInt | slice) or item is Ellipsis or _is_number(item)


def _number(item: Any) -> Any:
    return item.item() if isinstance(item, Tensor) else item


def _fake_quantized(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


def _linspace(start: Any, end: Any, steps: Any, *, dtype: torch.dtype, device: Any) -> Tensor:
    """As torch computes it: the first half from the start, the second half from the end."""
    count: Any = steps  # torch's annotations know plain numbers only
    positions = torch.arange(count, device=device).to(dtype)
    step = (end - start) / torch.sym_max(steps - 1, 1)
    from_start = start + positions * step
    from_end = end - (count - 1 - positions) * step
    return torch.where(positions * 2 < count, from_start, from_end)
