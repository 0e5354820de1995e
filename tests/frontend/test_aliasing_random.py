"""Random programs of views and in-place writes agree with eager: every tensor is read at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.frontend.helpers import lower_and_compare

Step = tuple[int, int, int, int]


def _wrap(value: int, size: int) -> int:
    return value % size if size else 0


def _select(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    axis = _wrap(a, x.dim())
    return x.select(axis, _wrap(b, x.shape[axis]) - (x.shape[axis] if b % 2 else 0))


def _slice(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    axis = _wrap(a, x.dim())
    start = _wrap(b, x.shape[axis])
    index: list[slice] = [slice(None)] * x.dim()
    index[axis] = slice(start, None, 1 + a // 4 % 2) if b % 3 else slice(0, start + 1)
    return x[tuple(index)]


def _transpose(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    return x.transpose(_wrap(a, x.dim()), _wrap(b, x.dim()))


def _permute(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    axes = list(range(x.dim()))
    return x.permute(axes[a % x.dim() :] + axes[: a % x.dim()])


def _reshape(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    return x.reshape(-1) if a % 2 else x.reshape(x.shape[0], -1)


def _unflatten(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    axis = _wrap(a, x.dim())
    return x.unflatten(axis, (2, -1)) if x.shape[axis] % 2 == 0 and x.shape[axis] else x.unsqueeze(axis)


def _squeeze(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    return x.squeeze() if a % 2 else x.unsqueeze(_wrap(b, x.dim() + 1))


def _piece(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    axis = _wrap(a, x.dim())
    pieces = x.chunk(2, axis) if b % 2 else x.unbind(axis) if b % 3 else x.split(2, axis)
    return pieces[_wrap(b // 6, len(pieces))]


def _diagonal(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    return x.diagonal(a % 2, -2, -1) if x.dim() > 1 and x.shape[-1] > 1 else x[None]


def _same(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    # eager dropout hands its operand itself through, where a capture sees another tensor: a view tells them apart
    same = torch.dropout(x, 0.5, False).view_as(x)
    return (x.detach(), x.contiguous(), same, x.to(torch.float32), x.clone())[a % 5]


def _windows(x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    axis = _wrap(a, x.dim())
    return x.unfold(axis, 2, 2) if x.shape[axis] > 1 else x.flatten()


_VIEWS: list[Callable[[torch.Tensor, int, int], torch.Tensor]] = [
    _select,
    _slice,
    _transpose,
    _permute,
    _reshape,
    _unflatten,
    _squeeze,
    _piece,
    _diagonal,
    _same,
    _windows,
]


def _write(x: torch.Tensor, a: int, b: int) -> None:
    """One of the ways to change a tensor in place."""
    kind = a % 9
    if kind == 0:
        x += b
    elif kind == 1:
        x.mul_(2)
    elif kind == 2:
        x.fill_(b)
    elif kind == 3:
        x[x > b] = -b
    elif kind == 4:
        x.copy_(torch.arange(x.numel()).reshape(x.shape) + b)
    elif kind == 5:
        x[..., : b % 3] = b
    elif kind == 6:
        x[...] = x.flip(0) - 1
    elif kind == 7:
        x.index_put_((torch.tensor([b % x.shape[0]]),), x[0] + 1, accumulate=True)
    else:
        torch.add(x, b, out=x)


def _run(x: torch.Tensor, steps: list[Step]) -> list[torch.Tensor]:
    pool = [x * 1]
    for kind, which, a, b in steps:
        tensor = pool[which % len(pool)]
        if kind >= len(_VIEWS) + 6:
            pool.append(tensor.t_() if tensor.dim() == 2 and a % 2 else tensor.unsqueeze_(0))
        elif kind >= len(_VIEWS) and tensor.dim() and tensor.shape[0]:
            _write(tensor, a, b)
        elif tensor.dim() and tensor.numel():
            pool.append(_VIEWS[kind % len(_VIEWS)](tensor, a, b))
    return [tensor * 1 for tensor in pool]


_STEP = st.tuples(st.integers(0, len(_VIEWS) + 6), st.integers(0, 9), st.integers(0, 17), st.integers(0, 17))


@pytest.mark.parametrize("method", ["export", "trace"])
@settings(
    derandomize=True,
    max_examples=25,
    deadline=None,
    phases=[Phase.generate],  # a failing program is short enough to read; making it shorter takes minutes
    suppress_health_check=list(HealthCheck),
)
@given(steps=st.lists(_STEP, min_size=2, max_size=9))
def test_random_programs_of_views_and_writes(method: str, steps: list[Step]) -> None:
    x = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    lower_and_compare(lambda x: _run(x, steps), [x], method=method)
