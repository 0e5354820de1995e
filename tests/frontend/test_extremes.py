"""NaN, infinities, negative zero, empty and rank-0 tensors, integer limits: what samples seldom hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.frontend.opinfo import Sample, Status, check

NAN, INF = math.nan, math.inf
SPECIAL = [NAN, INF, -INF, -0.0, 0.0, 1.0, -1.0, 0.5, -0.5, 2.5, -2.5, 1e-6, 30.0, -30.0, 6e4, -6e4]
FLOATS = (torch.float32, torch.float16, torch.float64)


def agree(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    result = check(Sample("extreme", args[0].dtype, 0, function, args, kwargs))
    assert result.status is Status.PASSED, f"{result.status.value}: {result.reason}"


UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    name: getattr(torch, name)
    for name in (
        "abs acos acosh asin asinh atan atanh ceil cos cosh deg2rad erf erfc exp exp2 expm1 floor frac isfinite isinf "
        "isnan isneginf isposinf log log10 log1p log2 logical_not logit nan_to_num neg rad2deg reciprocal relu round "
        "rsqrt sigmoid signbit sin sinc sinh sqrt square tan tanh trunc angle"
    ).split()
}
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    name: getattr(functional, name)
    for name in (
        "celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu6 selu silu softplus "
        "softshrink softsign tanhshrink"
    ).split()
}
# cos, sin and tan of large numbers need more digits of pi than a half or single kernel keeps
_TRIGONOMETRIC = {"cos", "sin", "tan", "sinc"}


@pytest.mark.parametrize("name", sorted({**UNARY, **ACTIVATIONS}))
def test_special_values(name: str) -> None:
    function = {**UNARY, **ACTIVATIONS}[name]
    values = [value for value in SPECIAL if name not in _TRIGONOMETRIC or not 100 < abs(value) < INF]
    for dtype in FLOATS:
        agree(function, torch.tensor(values, dtype=dtype))


BINARY: dict[str, Callable[..., torch.Tensor]] = {
    name: getattr(torch, name)
    for name in (
        "add sub mul div pow maximum minimum fmax fmin fmod remainder atan2 copysign hypot heaviside xlogy logaddexp "
        "logaddexp2 eq ne lt le gt ge logical_and logical_or logical_xor floor_divide"
    ).split()
}


@pytest.mark.parametrize("name", sorted(BINARY))
def test_pairs_of_special_values(name: str) -> None:
    values = torch.tensor([NAN, INF, -INF, -0.0, 0.0, 1.0, -1.5, 3.0])
    grid = torch.cartesian_prod(values, values)
    for dtype in FLOATS:
        agree(BINARY[name], grid[:, 0].to(dtype), grid[:, 1].to(dtype))


INTEGER_PAIRS = ("floor_divide", "remainder", "fmod", "sub", "mul", "add", "maximum", "bitwise_and", "pow", "eq", "lt")


@pytest.mark.parametrize("name", INTEGER_PAIRS)
def test_integers_of_either_sign(name: str) -> None:
    function = getattr(torch, name)
    left = torch.tensor([7, -7, 7, -7, 0, 6, -6, 1])
    right = torch.tensor([2, 2, -2, -2, 3, 3, 3, -1])
    if name == "pow":
        right = right.abs()
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8):
        agree(function, left.to(dtype), right.to(dtype))
    agree(function, left.abs().to(torch.uint8), right.abs().to(torch.uint8))


def test_integers_wrap() -> None:
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        limits = torch.iinfo(dtype)
        ends = torch.tensor([limits.max, limits.min, limits.max - 1, 3], dtype=dtype)
        agree(torch.add, ends, ends)
        agree(torch.mul, ends, ends)
        agree(torch.sub, ends, torch.tensor([1, 1, 2, 4], dtype=dtype))
        agree(torch.neg, ends)
        agree(torch.square, ends)
        agree(torch.pow, ends, 3)


def test_integer_powers_are_exact() -> None:
    agree(torch.pow, torch.tensor([3, -3, 2, 7, 10]), torch.tensor([39, 39, 62, 22, 18]))
    agree(torch.pow, torch.tensor([3, -3, 2, 7, 10]), 5)
    agree(torch.pow, torch.tensor([1, -1, 2, 0, -1]), torch.tensor([-2, -3, -1, 5, 0]))


def test_numbers_that_halves_cannot_hold() -> None:
    x = torch.tensor([0.001, 2.0, 60000.0, 0.0], dtype=torch.float16)
    agree(lambda value: value * 1e5, x)
    agree(lambda value: value / 1e5, x)
    agree(lambda value: value + 1e-8, x)
    agree(lambda value: value > 1e5, x)
    agree(lambda value: value * 1e-7, x)


def test_halves_overflow_as_in_eager() -> None:
    x = torch.tensor([60000.0, -60000.0, 300.0], dtype=torch.float16)
    agree(lambda value: value + value, x)
    agree(lambda value: value * value, x)
    agree(lambda value: value.sum(), x.abs())
    agree(lambda value: value.var(), x)
    agree(lambda value: value.norm(), x)


EMPTY: dict[str, Callable[[torch.Tensor], Any]] = {
    "add": lambda x: x + 1,
    "sum": lambda x: x.sum(0),
    "sum of all": lambda x: x.sum(),
    "mean": lambda x: x.mean(0),
    "var": lambda x: x.var(0),
    "prod": lambda x: x.prod(0),
    "all": lambda x: x.all(0),
    "any": lambda x: x.any(),
    "logsumexp": lambda x: x.logsumexp(0),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=0),
    "softmax": lambda x: x.softmax(0),
    "cumsum": lambda x: x.cumsum(0),
    "amax of the other axis": lambda x: x.amax(1),
    "argmax of the other axis": lambda x: x.argmax(1),
    "where": lambda x: torch.where(x > 0, x, -x),
    "relu": torch.relu,
    "clamp": lambda x: x.clamp(0, 1),
    "count_nonzero": lambda x: x.count_nonzero(),
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_tensors(name: str) -> None:
    agree(EMPTY[name], torch.zeros(0, 3))


SCALAR: dict[str, Callable[[torch.Tensor], Any]] = {
    "sum": lambda x: x.sum(0),
    "mean": lambda x: x.mean(-1, keepdim=True),
    "var": lambda x: x.var(unbiased=False),
    "argmax": lambda x: x.argmax(0),
    "argmax of all": lambda x: x.argmax(keepdim=True),
    "max": lambda x: x.max(0),
    "amin": lambda x: x.amin(),
    "softmax": lambda x: x.softmax(0),
    "log_softmax": lambda x: x.log_softmax(-1),
    "cumsum": lambda x: x.cumsum(0),
    "cumprod": lambda x: x.cumprod(-1),
    "all": lambda x: x.all(0),
    "any": lambda x: x.any(),
    "logsumexp": lambda x: x.logsumexp(0),
    "norm": lambda x: x.norm(),
    "prod": lambda x: x.prod(0),
    "aminmax": lambda x: torch.aminmax(x),
    "clamp": lambda x: x.clamp(max=1),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "prelu": lambda x: functional.prelu(x, torch.tensor([0.2])),
    "glu": lambda x: functional.glu(x.expand(4)),
}


@pytest.mark.parametrize("name", SCALAR)
def test_rank_zero(name: str) -> None:
    agree(SCALAR[name], torch.tensor(-2.5))


def test_softmax_of_infinities() -> None:
    rows = torch.tensor([[INF, 1.0], [-INF, -INF], [-INF, 0.0], [1000.0, 0.0], [NAN, 0.0]])
    agree(lambda x: x.softmax(1), rows)
    agree(lambda x: x.log_softmax(1), rows)
    agree(lambda x: torch.ops.aten._safe_softmax(x, 1), rows)


def test_sums_of_infinities() -> None:
    rows = torch.tensor([[INF, -INF], [INF, 1.0], [-INF, -INF], [NAN, 1.0]])
    for name in ("sum", "mean", "prod", "logsumexp", "var"):
        agree(lambda x, name=name: getattr(x, name)(1), rows)


def test_casts_between_kinds() -> None:
    numbers = torch.tensor([0.0, -0.0, 0.5, -0.5, 1.5, -2.7, 200.0, NAN])
    agree(lambda x: x.bool(), numbers)
    agree(lambda x: x[:-1].to(torch.int64), numbers)
    agree(lambda x: x[:-1].to(torch.int32), numbers)
    agree(lambda x: x.half().double(), numbers)
    agree(lambda x: x.to(torch.int8), torch.tensor([300, -300, 127, 2**40]))
    agree(lambda x: x.to(torch.uint8), torch.tensor([300, -1, 127]))
    agree(lambda x: x.half(), torch.tensor([7e4, -7e4, 1e-9, 65519.0]))
    agree(lambda x: x.float() / 3, torch.tensor([True, False]))


def test_clamp_with_crossed_and_special_bounds() -> None:
    x = torch.tensor([NAN, INF, -INF, 0.0, 3.0, 9.0])
    agree(lambda value: value.clamp(6, 2), x)
    agree(lambda value: value.clamp(min=-INF, max=INF), x)
    agree(lambda value: value.clamp(min=NAN), x)
    for bound in (0, 0.5, -2):
        agree(lambda value, bound=bound: (value.clamp(min=bound), value.clamp(max=bound)), x)
    agree(lambda value: (value.clamp(min=1), value.clamp(max=2)), torch.tensor([0, 2, 9]))
    agree(lambda value: value.clamp(torch.tensor(6.0), torch.tensor([2.0])), x)
    agree(lambda value: value.clamp(1, 3), torch.tensor([0, 2, 250], dtype=torch.uint8))


def test_comparisons_beyond_an_integer_dtype() -> None:
    x = torch.tensor([-128, 0, 127], dtype=torch.int8)
    agree(lambda value: value < 1000, x)  # 1000 wraps to -24 in eager torch, and so it does here
    agree(lambda value: value == 0.5, x)
    agree(lambda value: value >= torch.tensor(1.5), x)
    agree(lambda value: value == 2**24 + 1, torch.tensor([2**24, 2**24 + 1]))
