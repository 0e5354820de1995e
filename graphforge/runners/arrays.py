"""Arrays: what runners take and return, as numpy, and the way to torch tensors and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from graphforge.errors import GraphForgeError

if TYPE_CHECKING:
    import torch

__all__ = ["Array", "array_from_tensor", "as_real", "dtype_name", "tensor_from_array"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def dtype_name(array: Array) -> str:
    """torch's and numpy's common name of the dtype, ``float32``, ``bool``, ``bfloat16``."""
    return str(array.dtype.name)


def array_from_tensor(tensor: torch.Tensor) -> Array:
    """The tensor as numpy; bfloat16 and float8 as ml_dtypes arrays."""
    import torch

    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if plain.layout != torch.strided or plain.is_quantized:
        raise GraphForgeError(
            f"a {plain.layout} {plain.dtype} tensor has no numpy form; only dense tensors can be compared"
        )
    if plain.dtype.itemsize > 2 or plain.dtype in (torch.float16, torch.int16, torch.int8, torch.uint8, torch.bool):
        array: Array = plain.numpy()
        return array
    if plain.dtype == torch.uint16:
        return np.asarray(plain.numpy())
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, str(plain.dtype).removeprefix("torch.")))
    raw = plain.contiguous().view(torch.uint8 if plain.dtype.itemsize == 1 else torch.int16)
    return np.asarray(raw.numpy().view(dtype))


def as_real(tensor: torch.Tensor) -> torch.Tensor:
    """Complex numbers with a last axis of two, as artifacts take and return them; any other tensor as it is."""
    import torch

    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def tensor_from_array(array: Array) -> torch.Tensor:
    """A fresh tensor with the array's elements; never shares memory with the array."""
    import torch

    if array.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"):
        raw = np.array(array, order="C").view(np.int16 if array.itemsize == 2 else np.uint8)
        return torch.from_numpy(raw).view(getattr(torch, array.dtype.name))
    return torch.from_numpy(np.array(array, order="C"))
