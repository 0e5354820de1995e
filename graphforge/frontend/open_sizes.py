"""While capturing: torch's functions that take a size for a plain number, written over sizes that vary.

Their kernels read ``n`` once, as the example has it, or ask about values before they compute (``torch.cov``): a program
with them holds for one size.  Here is what they compute, in operators that keep sizes open.  Each has the parameters of
the original, and is called in its place where a size varies only.
``torch.as_tensor`` of sizes is ``torch.tensor``, which takes them; of tensors in a list both stack them.
"""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch._refs
from torch import Tensor

__all__ = ["FUNCTIONS", "is_open", "is_traced"]


def is_traced(tensor: Tensor) -> bool:
    """Whether a tensor is one of a program that is being captured."""
    from torch._subclasses.fake_tensor import FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor

    return isinstance(tensor, FakeTensor | FunctionalTensor) and not isinstance(tensor, torch.nn.Parameter)


def is_open(*given: Any, **named: Any) -> bool:
    """Whether a size among arguments, or of a tensor among them, varies."""
    for one in (*given, *named.values()):
        if isinstance(one, torch.SymInt | torch.SymFloat):
            return True
        if isinstance(one, Tensor) and any(isinstance(size, torch.SymInt) for size in one.shape):
            return True
        if isinstance(one, list | tuple) and is_open(*one):
            return True
    return False


# -- numbers of places ----------------------------------------------------------------------------------------------


def _combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    if r < 1:
        return input.new_empty(0)
    place = torch.arange(input.shape[0], device=input.device)
    grids = torch.meshgrid(*[place] * r, indexing="ij")
    chosen = torch.ones_like(grids[0], dtype=torch.bool)
    for one, other in itertools.pairwise(grids):
        chosen = chosen & (one <= other if with_replacement else one < other)
    return input[chosen.nonzero()]


def _one_hot(input: Tensor, num_classes: Any = -1) -> Tensor:
    return (input.unsqueeze(-1) == torch.arange(num_classes, device=input.device)).to(torch.int64)


# -- rows of numbers ------------------------------------------------------------------------------------------------


def _positions(count: Any, dtype: Any, device: Any) -> Tensor:
    return torch.arange(count, device=device).to(dtype or torch.get_default_dtype())


def _window(of: Callable[[Tensor, Any], Tensor]) -> Callable[..., Tensor]:
    """A window function from its value at each place, given the number of steps between its ends."""

    def window(window_length: Any, periodic: bool = True, *, dtype: Any = None, device: Any = None, **_: Any) -> Tensor:
        steps = window_length if periodic else torch.sym_max(window_length - 1, 1)
        values = of(_positions(window_length, dtype, device), steps)
        alone = torch.scalar_tensor(window_length, dtype=torch.int64, device=device) == 1  # a window of one is a 1
        return torch.where(alone, torch.ones_like(values), values)

    return window


def _cosines(places: Tensor, steps: Any, alpha: float, beta: float) -> Tensor:
    return alpha - beta * torch.cos(places * (2 * math.pi / steps))


def _hamming_window(
    window_length: Any, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, **options: Any
) -> Tensor:
    return _window(functools.partial(_cosines, alpha=alpha, beta=beta))(window_length, periodic, **options)


def _blackman(places: Tensor, steps: Any) -> Tensor:
    angle = places * (math.pi / steps)
    return torch.cos(angle * 4) * 0.08 - torch.cos(angle * 2) * 0.5 + 0.42


def _bartlett(places: Tensor, steps: Any) -> Tensor:
    rising = places * (2 / steps)
    return torch.where(rising <= 1, rising, 2 - rising)


def _fftfreq(n: Any, d: float = 1.0, *, dtype: Any = None, device: Any = None, **_: Any) -> Tensor:
    places = _positions(n, dtype, device)
    return torch.where(places < (n + 1) // 2, places, places - n) * (1.0 / (n * d))


def _rfftfreq(n: Any, d: float = 1.0, *, dtype: Any = None, device: Any = None, **_: Any) -> Tensor:
    return _positions(n // 2 + 1, dtype, device) * (1.0 / (n * d))


def _logspace(start: Any, end: Any, steps: Any, base: float = 10.0, **options: Any) -> Tensor:
    return torch.pow(base, torch.linspace(start, end, steps, **options))


def _as_tensor(data: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> Tensor:
    if not _has_tensors(data):
        return _tensor_of_numbers(data, dtype=dtype, device=device)
    stacked = _stacked(data, device)
    return stacked if dtype is None else stacked.to(dtype)


def _tensor_of_numbers(data: Any, **options: Any) -> Tensor:
    return torch._refs.tensor(data, **options)  # what torch.export itself takes where it meets torch.tensor


def _stacked(data: Any, device: Any) -> Tensor:
    if isinstance(data, list | tuple):
        parts = [_stacked(one, device) for one in data]
        common = functools.reduce(torch.promote_types, [one.dtype for one in parts])
        return torch.stack([one.to(common) for one in parts])
    return data.to(device or data.device) if isinstance(data, Tensor) else _tensor_of_numbers(data, device=device)


def _has_tensors(data: Any) -> bool:
    return isinstance(data, list | tuple) and any(isinstance(one, Tensor) or _has_tensors(one) for one in data)


# -- algebra --------------------------------------------------------------------------------------------------------


def _kron(input: Tensor, other: Tensor) -> Tensor:
    rank = max(input.dim(), other.dim())
    a, b = (one[(None,) * (rank - one.dim())] for one in (input, other))
    shape = [x * y for x, y in zip(a.shape, b.shape, strict=True)]
    for axis in range(rank):
        a, b = a.unsqueeze(2 * axis + 1), b.unsqueeze(2 * axis)
    return (a * b).reshape(shape)


def _vander(x: Tensor, N: Any = None, increasing: bool = False) -> Tensor:
    powers = _linalg_vander(x, N=N)
    return powers if increasing else powers.flip(-1)


def _linalg_vander(x: Tensor, *, N: Any = None) -> Tensor:
    count: Any = x.shape[-1] if N is None else N
    wide = x if x.is_floating_point() or x.is_complex() else x.to(torch.int64)
    factors = wide.unsqueeze(-1).expand(*x.shape, count)
    first: Tensor = torch.arange(count, device=x.device) == 0
    return torch.where(first, torch.ones_like(factors), factors.roll(1, -1)).cumprod(-1)


def _product(matrices: Sequence[Tensor]) -> Tensor:
    return functools.reduce(torch.matmul, matrices)


def _chain_matmul(*matrices: Tensor) -> Tensor:
    return _product(matrices)


def _take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    if dim is None:
        return input.reshape(-1).gather(0, indices.reshape(-1))
    dim %= input.dim()
    sizes: list[Any] = list(input.shape)
    sizes[dim] = indices.shape[dim]
    common: list[Any] = list(torch.broadcast_shapes(tuple(sizes), indices.shape))
    places = indices.expand(common)
    common[dim] = input.shape[dim]
    return input.expand(common).gather(dim, places)


def _cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    x = input if input.dim() == 2 else input.reshape(1, -1)
    weights = fweights if aweights is None else aweights if fweights is None else fweights * aweights
    total: Any = x.shape[1] if weights is None else weights.sum()
    mean = (x if weights is None else x * weights).sum(1, keepdim=True) / total
    freedom: Any = total - correction
    if weights is not None and aweights is not None:
        freedom = total - correction * (weights * aweights).sum() / total
    if not isinstance(freedom, Tensor):
        freedom = torch.scalar_tensor(freedom, dtype=mean.real.dtype, device=x.device)
    off = x - mean
    products = off @ (off if weights is None else off * weights).conj().t()
    covariance = products / freedom.clamp(min=0)
    return covariance if input.dim() == 2 and not _is_one(input.shape[0]) else covariance.reshape(())


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _corrcoef(input: Tensor) -> Tensor:
    covariance = _cov(input)
    if covariance.dim() == 0:
        return covariance / covariance
    deviation = covariance.diagonal().real.sqrt() if covariance.is_complex() else covariance.diagonal().sqrt()
    scaled = covariance / deviation[:, None] / deviation[None]
    return scaled if scaled.is_complex() else scaled.clamp(-1, 1)


def _gradient(input: Tensor, *, spacing: Any = None, dim: Any = None, edge_order: int = 1) -> list[Tensor]:
    axes = list(range(input.dim())) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    steps = list(spacing) if isinstance(spacing, list | tuple) else [1 if spacing is None else spacing] * len(axes)
    return [_slopes(input, axis, step, edge_order) for axis, step in zip(axes, steps, strict=True)]


def _slopes(x: Tensor, axis: int, step: Any, edge_order: int) -> Tensor:
    def at(start: int, count: int = 1) -> Tensor:
        return x.narrow(axis, start if start >= 0 else x.shape[axis] + start, count)

    inside = (x.narrow(axis, 2, x.shape[axis] - 2) - x.narrow(axis, 0, x.shape[axis] - 2)) / (2 * step)
    if edge_order == 1:
        first, last = (at(1) - at(0)) / step, (at(-1) - at(-2)) / step
    else:
        first = (at(0) * -1.5 + at(1) * 2 - at(2) * 0.5) / step
        last = (at(-1) * 1.5 - at(-2) * 2 + at(-3) * 0.5) / step
    return torch.cat([first, inside, last], axis)


def _matrix_norm(
    A: Tensor,
    ord: Any = "fro",
    dim: Any = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    row, column = (axis % A.dim() for axis in dim)
    summed, kept = (row, column) if abs(ord) == 1 else (column, row)
    sums = (A if dtype is None else A.to(dtype)).abs().sum(summed, keepdim=True)
    norm = sums.amax(kept, keepdim=True) if ord > 0 else sums.amin(kept, keepdim=True)
    return norm if keepdim else norm.squeeze((row, column))


def _norm(
    A: Tensor,
    ord: Any = None,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    return _matrix_norm(A, ord, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)


# -- pools over all there is: avg_pool2d(x, x.shape[2:]) ---------------------------------------------------------------


def _pooled(original: Callable[..., Tensor], reduced: Callable[..., Tensor], axes: int) -> Callable[..., Tensor]:
    """A pool whose windows are as long as the axis where their length varies: these axes are reduced, others pooled."""

    def pool(input: Tensor, kernel_size: Any, *_: Any, **__: Any) -> Tensor:
        kernel = _kernel(kernel_size, axes)
        others = [1 if isinstance(size, torch.SymInt) else size for size in kernel]
        x = input if all(size == 1 for size in others) else original(input, others)
        return reduced(x, [axis - axes for axis in range(axes) if isinstance(kernel[axis], torch.SymInt)], keepdim=True)

    return pool


def _kernel(given: Any, axes: int) -> list[Any]:
    sizes = list(given) if isinstance(given, list | tuple) else [given]
    return sizes * axes if len(sizes) == 1 else sizes


def _pools_all(axes: int) -> Callable[..., bool]:
    def applies(input: Tensor, kernel_size: Any, stride: Any = None, *more: Any, **options: Any) -> bool:
        if more or options or not is_open(kernel_size):
            return False
        kernel = _kernel(kernel_size, axes)
        whole = all(
            isinstance(size, torch.SymInt) and isinstance(length, torch.SymInt) and size.node.expr == length.node.expr
            for size, length in zip(kernel, input.shape[-axes:], strict=True)
            if isinstance(size, torch.SymInt)
        )
        own = stride is None or stride == [] or (is_open(stride) and list(_kernel(stride, axes)) == kernel)
        return whole and own

    return applies


# -- which of them, and when -----------------------------------------------------------------------------------------


def _is_sum_norm(A: Tensor, ord: Any = "fro", *_: Any, **__: Any) -> bool:
    return isinstance(ord, int | float) and abs(ord) in (1, math.inf)


def _is_sum_norm_of_matrix(A: Tensor, ord: Any = None, dim: Any = None, *_: Any, **__: Any) -> bool:
    of_two = A.dim() == 2 if dim is None else isinstance(dim, list | tuple) and len(dim) == 2
    return of_two and _is_sum_norm(A, ord)


def _by_numbers(*_: Any, spacing: Any = None, **__: Any) -> bool:
    steps = spacing if isinstance(spacing, list | tuple) else [spacing]
    return not any(isinstance(one, Tensor) for one in steps)


def _only_open(applies: Callable[..., bool]) -> Callable[..., bool]:
    return lambda *args, **kwargs: is_open(*args, *kwargs.values()) and applies(*args, **kwargs)


_linalg: Any = torch.linalg
_functional: Any = torch.nn.functional
_tensor: Any = torch.Tensor


def _holds_open(data: Any, *_: Any, **__: Any) -> bool:
    """Whether numbers that vary stand in a list, sizes or tensors of the capture; a tensor by itself is as it is."""
    if isinstance(data, list | tuple):
        return any(_holds_open(one) or (isinstance(one, Tensor) and is_traced(one)) for one in data)
    return isinstance(data, torch.SymInt | torch.SymFloat)


# Owner and name of each function, what stands in for it, and whether it does for these arguments.
FUNCTIONS: Mapping[tuple[Any, str], tuple[Callable[..., Any], Callable[..., bool]]] = {
    (torch, "tensor"): (_as_tensor, _holds_open),
    (torch, "as_tensor"): (_as_tensor, _holds_open),
    (torch, "asarray"): (_as_tensor, _holds_open),
    (torch, "triu_indices"): (torch._refs.triu_indices, is_open),
    (torch, "tril_indices"): (torch._refs.tril_indices, is_open),
    (torch, "combinations"): (_combinations, is_open),
    **{
        (_functional, f"{kind}_pool{axes}d"): (
            _pooled(getattr(_functional, f"{kind}_pool{axes}d"), reduced, axes),
            _pools_all(axes),
        )
        for kind, reduced in (("avg", torch.mean), ("max", torch.amax))
        for axes in (1, 2, 3)
    },
    (_functional, "one_hot"): (_one_hot, lambda input, num_classes=-1: is_open(num_classes)),
    (torch, "hann_window"): (_window(functools.partial(_cosines, alpha=0.5, beta=0.5)), is_open),
    (torch, "hamming_window"): (_hamming_window, is_open),
    (torch, "blackman_window"): (_window(_blackman), is_open),
    (torch, "bartlett_window"): (_window(_bartlett), is_open),
    (torch.fft, "fftfreq"): (_fftfreq, is_open),
    (torch.fft, "rfftfreq"): (_rfftfreq, is_open),
    (torch, "logspace"): (_logspace, _only_open(lambda start, *_, **__: not isinstance(start, Tensor))),
    (torch, "kron"): (_kron, is_open),
    (_tensor, "kron"): (_kron, is_open),
    (torch, "vander"): (_vander, is_open),
    (_linalg, "vander"): (_linalg_vander, is_open),
    (torch, "chain_matmul"): (_chain_matmul, is_open),
    (_linalg, "multi_dot"): (_product, is_open),
    (torch, "take_along_dim"): (_take_along_dim, is_open),
    (_tensor, "take_along_dim"): (_take_along_dim, is_open),
    (torch, "cov"): (_cov, is_open),
    (_tensor, "cov"): (_cov, is_open),
    (torch, "corrcoef"): (_corrcoef, is_open),
    (_tensor, "corrcoef"): (_corrcoef, is_open),
    (torch, "gradient"): (_gradient, _only_open(_by_numbers)),
    (_linalg, "matrix_norm"): (_matrix_norm, _only_open(_is_sum_norm)),
    (_linalg, "norm"): (_norm, _only_open(_is_sum_norm_of_matrix)),
}
