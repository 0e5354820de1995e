"""Operators that no OpInfo sample calls: other spellings, primitive operators, random numbers; each called by name.

``CASES`` says which operator is tested by which calls, ``ELSEWHERE`` which other test has it; ``test_opinfo.py`` wants
every lowering to be in the OpInfo table or in one of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.frontend.opinfo import Sample, Status, check

__all__ = ["CASES", "ELSEWHERE", "Call"]


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one call of an operator."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


def call(*args: Any, **kwargs: Any) -> Call:
    """A call as it is written."""
    return Call(args, kwargs)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def floats(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Numbers around 0."""
    return torch.randn(shape, generator=_generator(seed)).to(dtype)


def positives(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers between 0.1 and 1.1."""
    return torch.rand(shape, generator=_generator(seed)) + 0.1


def integers(
    *shape: int, low: int = -9, high: int = 9, dtype: torch.dtype = torch.int64, seed: int = 0
) -> torch.Tensor:
    """Whole numbers, ends included."""
    return torch.randint(low, high + 1, shape, generator=_generator(seed)).to(dtype)


def bools(*shape: int, seed: int = 0) -> torch.Tensor:
    """True and false, mixed."""
    return integers(*shape, low=0, high=1, seed=seed).bool()


X, Y = floats(2, 3), floats(2, 3, seed=1)
P, Q = positives(2, 3), positives(2, 3, seed=1)
N, M = integers(2, 3), integers(2, 3, seed=1)
S = integers(2, 3, low=0, high=5)
B, C = bools(2, 3), bools(2, 3, seed=1)

CASES: dict[str, tuple[Call, ...]] = {}


def _spelled(names: str, *calls: Call) -> None:
    for name in names.split():
        CASES[name] = calls


# -- other spellings ---------------------------------------------------------------------------------------------------

for _name in ("and", "or", "xor"):
    _spelled(f"aten.__{_name}__.Tensor", call(N, M), call(B, C))
    _spelled(f"aten.__{_name}__.Scalar aten.bitwise_{_name}.Scalar", call(N, 5), call(B, True))
    _spelled(f"aten.bitwise_{_name}.Scalar_Tensor", call(5, N), call(True, B))
_spelled("aten.__lshift__.Tensor aten.__rshift__.Tensor", call(N, S), call(N.int(), S.int()))
_spelled(
    "aten.__lshift__.Scalar aten.__rshift__.Scalar aten.bitwise_left_shift.Tensor_Scalar "
    "aten.bitwise_right_shift.Tensor_Scalar",
    call(N, 3),
    call(N.to(torch.uint8), 9),
    call(N, 64),
)
_spelled("aten.bitwise_left_shift.Scalar_Tensor aten.bitwise_right_shift.Scalar_Tensor", call(-77, S))
for _word, _short in (("less", "lt"), ("less_equal", "le"), ("greater", "gt"), ("greater_equal", "ge")):
    _spelled(f"aten.{_word}.Tensor aten.{_short}.Tensor", call(X, Y), call(N, M), call(B, C), call(N, X))
    _spelled(f"aten.{_word}.Scalar aten.{_short}.Scalar", call(X, 0.5), call(N, 1), call(N, 0.5), call(B, 0))
_spelled("aten.not_equal.Tensor", call(N, M), call(B, C))
_spelled("aten.not_equal.Scalar aten.eq.Scalar", call(N, 1), call(N.to(torch.int8), 200), call(X, 0.5))
_spelled("aten.multiply.Tensor aten.mul.Tensor", call(X, Y), call(B, C), call(X.half(), torch.tensor(3.0)))
_spelled("aten.multiply.Scalar aten.mul.Scalar", call(X, 2), call(X.half(), 1e5), call(N, 2.5))
_spelled("aten.subtract.Tensor", call(X, Y), call(X, Y, alpha=2))
_spelled(
    "aten.subtract.Scalar aten.rsub.Scalar aten.sub.Scalar aten.add.Scalar", call(X, 2), call(N, 2, 3), call(N, 0.5)
)
_spelled("aten.divide.Tensor aten.true_divide.Tensor", call(X, P), call(N, M.abs() + 1))
_spelled("aten.divide.Scalar aten.true_divide.Scalar aten.div.Scalar", call(X, 2), call(N, 3))
_spelled(
    "aten.divide.Tensor_mode aten.div.Tensor_mode",
    *(
        call(a, b, rounding_mode=mode)
        for mode in ("floor", "trunc", None)
        for a, b in ((X, Y), (N, M.abs() + 1), (N, -M.abs() - 1))
    ),
)
_spelled(
    "aten.divide.Scalar_mode aten.div.Scalar_mode",
    *(
        call(a, b, rounding_mode=mode)
        for mode in ("floor", "trunc", None)
        for a, b in ((X, 0.3), (X, -2), (N, 3), (N, -3))
    ),
)
_spelled("aten.floor_divide.Scalar", call(N, 4), call(N, -3), call(X, 0.25), call(X, -0.3))
_spelled("aten.remainder.Scalar_Tensor", call(7, M.abs() + 1), call(-2.5, P))
_spelled("aten.float_power.Scalar", call(2, X))
_spelled("aten.float_power.Tensor_Scalar", call(P, 1.5), call(N, 2))
_spelled("aten.xlogy.Scalar_Self", call(2, P), call(0, P))
_spelled("aten.xlogy.Scalar_Other", call(X, 2))
_spelled("aten.copysign.Scalar", call(X, -1.0), call(X, 2), call(N, -0.0))
_spelled("aten.arctan2.default", call(X, Y), call(N, M))
_spelled("aten.absolute.default aten.negative.default", call(X), call(N))
_spelled("aten.fix.default", call(X * 3), call(N))
_spelled("aten.clip.default", call(X, -0.5, 0.5), call(N, None, 2), call(X, 0.5, -0.5))
_spelled("aten.clip.Tensor", call(X, Y - 1, Y + 1), call(N, None, M))
_spelled("aten.clamp_max.default", call(X, 0.5), call(N, 2))
_spelled("aten.clamp_min.default", call(X, 0.5), call(N, 2))
_spelled("aten.special_erfc.default aten.special_sinc.default aten.special_exp2.default", call(X), call(N))
_spelled("aten.special_expm1.default", call(X), call(X * 1e-6), call(X * 40))
_spelled("aten.special_log1p.default", call(P), call(X * 1e-6), call(torch.tensor([float("inf"), -1.0, 1e30])))
_spelled("aten.special_logit.default", call(P * 0.8), call(P, 0.2))
_spelled("aten.special_logsumexp.default", call(X, [1]), call(X * 100, [0, 1], True))
_spelled("aten.isin.Tensor_Scalar", call(N, 3), call(X, 0.0))
_spelled("aten.isin.Scalar_Tensor", call(3, N), call(3, N, invert=True))
_spelled("aten.where.ScalarSelf", call(B, 1.5, X), call(B, 1, N), call(B, True, C))
_spelled("aten.where.ScalarOther", call(B, X, 1.5), call(B, N, 0.5), call(B, C, False))
_spelled("aten.where.Scalar", call(B, 1.5, -1.0), call(B, 1, 0))
_spelled("aten.norm.Scalar", call(X), call(X, 1), call(X, float("inf")))
_spelled("aten.norm.ScalarOpt_dtype", call(X, 2, dtype=torch.float64))
_spelled("aten.norm.ScalarOpt_dim_dtype", call(X, 3, [1], True, dtype=torch.float64))
_spelled("aten._softmax.default aten._log_softmax.default", call(X, 1, False), call(X, 0, False))
_spelled("aten._prelu_kernel.default", call(X, floats(1, 3)))
_spelled("aten.native_dropout.default", call(X, 0.5, False))
_spelled("aten.to.dtype_layout", call(X, dtype=torch.int32))
_spelled("aten.to.other aten.type_as.default", call(N, X), call(X * 3, N))
_spelled("aten.contiguous.default", call(X.t()))
_spelled("aten.detach.default", call(X))

# -- primitive operators -----------------------------------------------------------------------------------------------


def _primitives(names: str, *calls: Call) -> None:
    _spelled(" ".join(f"prims.{name}.default" for name in names.split()), *calls)


_primitives(
    "abs asin acos asinh atan atanh ceil cos cosh erf erfc exp "
    "exp2 expm1 floor isfinite neg round sign sin sinh tan tanh trunc",
    call(X / 3),
)
_primitives("log log10 log1p log2 reciprocal rsqrt sqrt", call(P))
_primitives("acosh", call(P + 1))
_primitives("bitwise_not", call(N), call(B))
_primitives("add sub mul eq ne ge gt le lt maximum minimum fmax fmin", call(X, Y), call(N, M))
_primitives("atan2", call(X, Y))
_primitives("bitwise_and bitwise_or bitwise_xor", call(N, M), call(B, C))
_primitives("div fmod remainder", call(X, P), call(N, M.abs() + 1), call(N, -M.abs() - 1))
_primitives("pow", call(P, X), call(N, S))
_primitives("shift_left shift_right_arithmetic", call(N, S))
_primitives("where", call(B, X, Y))
_primitives("convert_element_type", call(X, torch.int64), call(N, torch.float16))
_primitives("sum prod", call(X, [1]), call(X, [0, 1]))
_primitives("amax amin", call(X, [1]), call(X, [0, 1]))
_primitives("broadcast_in_dim", call(X, [2, 4, 3], [0, 2]), call(floats(1, 3), [5, 3], [0, 1]))
_primitives("transpose", call(floats(2, 3, 4), [2, 0, 1]))
_primitives("squeeze", call(floats(1, 3, 1), [0, 2]))
_primitives("reshape", call(X, [3, 2]))
_primitives("collapse_view", call(floats(2, 3, 4, 5), 1, 2))
_primitives("full", call([2, 3], 1.5, dtype=torch.float32, device=torch.device("cpu"), requires_grad=False))
_primitives("iota", call(5, start=3, step=2, dtype=torch.int64, device=torch.device("cpu"), requires_grad=False))

# -- the tests ---------------------------------------------------------------------------------------------------------

# Operators that only torch.export makes, or that take more than a call to test: operator -> the file with the test.
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(
        (
            "aten.item.default",
            "aten._local_scalar_dense.default",
            "aten.is_nonzero.default",
            "aten.equal.default",
            "aten.sym_numel.default",
            "aten.numel.default",
            "aten.sym_size.int",
            "aten.lift_fresh.default",
        ),
        "test_numbers.py",
    ),
}

_RANDOM: dict[str, Call] = {
    "aten.bernoulli.Tensor": call(P, P),
    "aten.bernoulli.default": call(P / 2),
    "aten.bernoulli.p": call(P, 0.5),
    "aten.cauchy.default": call(X),
    "aten.exponential.default": call(X),
    "aten.geometric.default": call(X, 0.5),
    "aten.log_normal.default": call(X),
    "aten.multinomial.default": call(P, 2),
    "aten.normal.Tensor_Tensor": call(X, P),
    "aten.normal.Tensor_float": call(X, 1.0),
    "aten.normal.float_Tensor": call(0.0, P),
    "aten.normal.float_float": call(0.0, 1.0, [2]),
    "aten.normal_functional.default": call(X),
    "aten.poisson.default": call(P),
    "aten.rand.default": call([2]),
    "aten.rand.generator": call([2], generator=None),
    "aten.rand_like.default": call(X),
    "aten.randint.default": call(9, [2]),
    "aten.randint.low": call(1, 9, [2]),
    "aten.randint_like.default": call(X, 9),
    "aten.randint_like.low_dtype": call(X, 1, 9),
    "aten.randn.default": call([2]),
    "aten.randn.generator": call([2], generator=None),
    "aten.randn_like.default": call(X),
    "aten.random.default": call(X),
    "aten.random.to": call(X, 9),
    "aten.randperm.default": call(5),
    "aten.uniform.default": call(X),
}
# Refused is what they must be; a case of theirs is tested by test_random_numbers_are_refused.
ELSEWHERE.update(dict.fromkeys(_RANDOM, "test_by_hand.py"))


def operator_of(name: str) -> Callable[..., Any]:
    """The operator that a lowering is declared for."""
    namespace, packet, overload = name.split(".")
    found: Callable[..., Any] = getattr(getattr(getattr(torch.ops, namespace), packet), overload)
    return found


@pytest.mark.parametrize("name", CASES)
def test_call_agrees_with_eager(name: str) -> None:
    for number, each in enumerate(CASES[name]):
        result = check(Sample(name, torch.float32, number, operator_of(name), each.args, each.kwargs))
        assert result.status is Status.PASSED, f"call {number}: {result.status.value}: {result.reason}"
        assert name in result.reached, f"call {number} reached {sorted(result.reached)}"


@pytest.mark.parametrize("name", _RANDOM)
def test_random_numbers_are_refused(name: str) -> None:
    each = _RANDOM[name]
    result = check(Sample(name, torch.float32, 0, operator_of(name), each.args, each.kwargs))
    assert result.status is Status.REFUSED, result.reason
    assert "random numbers" in result.reason


@pytest.mark.parametrize("file", sorted(set(ELSEWHERE.values())))
def test_files_named_here_name_their_operators(file: str) -> None:
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    for name in (name for name, where in ELSEWHERE.items() if where == file):
        assert name in text, f"{file} does not say that it tests {name}"
