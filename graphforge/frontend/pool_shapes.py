"""While capturing: the sizes of pools are described by one formula without a condition, at every length.

torch takes one window off a size that is rounded up where that window would start in the padding: a comparison, which
a capture turns into a condition on the input's sizes, and a promise that crosses it is refused.  The last window starts
within ``size + pad``, so that the number of windows is the smaller of two roundings, and of two numbers a fixed
distance apart the smaller one is known beforehand.  ``aten.max_pool1d`` is described to a capture by running it, on
plain numbers only; it is described as the pool of a picture of one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

__all__ = ["pool_shapes"]


def _windows(size: Any, kernel: int, begin: int, end: int, stride: int, dilation: int, ceil_mode: bool) -> Any:
    """How many windows fit, as ``pooling_output_shape_pad_lr`` counts them."""
    reach = dilation * (kernel - 1) + 1
    beyond = begin + end - reach  # what the windows after the first have besides the size itself
    if not ceil_mode:
        return (size + beyond) // stride + 1
    return (size + min(beyond + stride, begin) + stride - 1) // stride


def _max_pool1d(
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> torch.Tensor:
    steps = list(stride) or list(kernel_size)
    pooled, _ = torch.ops.aten.max_pool2d_with_indices.default(
        x.unsqueeze(-2), [1, *kernel_size], [1, *steps], [0, *padding], [1, *dilation], ceil_mode
    )
    result: torch.Tensor = pooled.squeeze(-2)
    return result


@contextmanager
def pool_shapes() -> Iterator[None]:
    """Describe the sizes of pools by our formula while the context lasts."""
    keys = (torch._C.DispatchKey.CompositeImplicitAutograd, torch._C.DispatchKey.Autograd)
    described = torch.ops.aten.max_pool1d.default
    kernels = dict(described.py_kernels)
    registered = vars(import_module("torch._meta_registrations"))
    formula = registered["pooling_output_shape_pad_lr"]
    try:
        registered["pooling_output_shape_pad_lr"] = _windows
        for key in keys:
            described.py_kernels[key] = _max_pool1d
        described._dispatch_cache.clear()
        yield
    finally:
        registered["pooling_output_shape_pad_lr"] = formula
        described.py_kernels.clear()
        described.py_kernels.update(kernels)
        described._dispatch_cache.clear()
