"""While capturing: functions that torch cannot trace at dynamic sizes, computed by others that it can.

``copy.deepcopy`` of a tensor asks for its memory, which a tensor being traced has not: it becomes a clone.
``torch.linspace`` takes its number of steps as a fixed number: over a dynamic size it is computed from ``arange``.
``torch.nn.functional.grouped_mm`` runs in any precision, and is described to a capture in bfloat16 only: here in any.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

__all__ = ["traceable_functions"]


@contextmanager
def traceable_functions() -> Iterator[None]:
    """Put the replacements in place while the context lasts."""
    library: Any = torch
    tensors: Any = torch.Tensor
    linspace, deepcopy = library.linspace, tensors.__deepcopy__
    descriptions = vars(import_module("torch._meta_registrations"))
    described = descriptions.get("_meta_grouped_mm_common")
    shaped = descriptions.get("_create_grouped_mm_output_tensor")

    def traced_linspace(start: Any, end: Any, steps: Any, **keywords: Any) -> Any:
        plain = isinstance(start, int | float) and isinstance(end, int | float)
        dtype = keywords.get("dtype") or torch.get_default_dtype()
        if not isinstance(steps, torch.SymInt) or not plain or not dtype.is_floating_point or "out" in keywords:
            return linspace(start, end, steps, **keywords)
        return _linspace(float(start), float(end), steps, dtype=dtype, device=keywords.get("device"))

    def traced_deepcopy(self: Tensor, memo: dict[int, Any]) -> Any:
        if not _is_traced(self):
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

    library.linspace = traced_linspace
    tensors.__deepcopy__ = traced_deepcopy
    if described is not None and shaped is not None:
        descriptions["_meta_grouped_mm_common"] = grouped
    try:
        yield
    finally:
        if described is not None:
            descriptions["_meta_grouped_mm_common"] = described
        library.linspace = linspace
        tensors.__deepcopy__ = deepcopy


def _is_traced(tensor: Tensor) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor

    return isinstance(tensor, FakeTensor | FunctionalTensor) and not isinstance(tensor, torch.nn.Parameter)


def _linspace(start: float, end: float, steps: torch.SymInt, *, dtype: torch.dtype, device: Any) -> Tensor:
    """As torch computes it: the first half from the start, the second half from the end."""
    count: Any = steps  # torch's annotations know plain numbers only
    positions = torch.arange(count, device=device).to(dtype)
    step = (end - start) / torch.sym_max(steps - 1, 1)
    from_start = start + positions * step
    from_end = end - (count - 1 - positions) * step
    return torch.where(positions * 2 < count, from_start, from_end)
