"""Sizes that vary stay so in functions of torch and of Python that take a plain number.

aten.bincount.default.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from graphforge.frontend.open_builtins import open_builtins
from graphforge.frontend.open_sizes import FUNCTIONS
from tests.frontend.helpers import assert_same, flat_tensors, lower_and_compare

X = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) - 0.4
WHOLE = torch.tensor([[2, 0, 1], [4, 3, 3]])

Calls: TypeAlias = list[tuple[Any, str, list[Any]]]

CALLS: Calls = [
    (torch, "tensor", [(([X.sum(), 3],), {}), (([[X.sum().double(), 1], [X.argmax(), 2.5]],), {})]),
    (torch, "as_tensor", [(([X.amax(), X.amin()],), {"dtype": torch.float64}), (([3, 2.5],), {})]),
    (torch, "asarray", [(([3, 4],), {})]),
    (torch, "triu_indices", [((4, 6, 1), {}), ((5, 3, -2), {"dtype": torch.int32}), ((2, 2, 7), {})]),
    (torch, "tril_indices", [((4, 6, -1), {}), ((5, 3), {})]),
    (torch, "combinations", [((X[0],), {}), ((X[0], 3), {"with_replacement": True}), ((X[0], 0), {})]),
    (torch.nn.functional, "one_hot", [((WHOLE, 6), {})]),
    *[
        (torch, f"{name}_window", [((1,), {}), ((6,), {}), ((7, False), {}), ((1, False), {})])
        for name in ("hann", "hamming", "blackman", "bartlett")
    ],
    (torch, "hamming_window", [((6, True, 0.6, 0.3), {"dtype": torch.float64})]),
    (torch.fft, "fftfreq", [((5,), {}), ((6, 0.5), {})]),
    (torch.fft, "rfftfreq", [((5,), {}), ((6,), {"d": 0.5})]),
    (torch, "logspace", [((-1, 2, 5), {}), ((0.5, 1, 3), {"base": 2.0})]),
    (torch, "kron", [((X, X[:2]), {}), ((X[0], X), {}), ((WHOLE, X), {})]),
    (torch.Tensor, "kron", [((X, WHOLE), {})]),
    (torch, "vander", [((X[0],), {}), ((X[0], 3), {"increasing": True}), ((WHOLE[0],), {"N": 4})]),
    (torch.linalg, "vander", [((X,), {}), ((WHOLE,), {"N": 3})]),
    (torch, "chain_matmul", [((X, X.t(), X), {})]),
    (torch.linalg, "multi_dot", [(([X[0], X.t(), X],), {})]),
    *[
        (owner, "take_along_dim", [((X, X.argsort(1), 1), {}), ((X, WHOLE[:1, :1], -2), {}), ((X, WHOLE), {})])
        for owner in (torch, torch.Tensor)
    ],
    *[
        (
            owner,
            "cov",
            [
                ((X,), {}),
                ((X[0],), {"correction": 0}),
                ((X[:1],), {}),
                ((WHOLE,), {}),
                ((X,), {"fweights": torch.arange(5)}),
                ((X,), {"aweights": X[0].abs(), "fweights": torch.arange(5)}),
                ((torch.complex(X, X.flip(1)),), {}),
            ],
        )
        for owner in (torch, torch.Tensor)
    ],
    *[
        (owner, "corrcoef", [((X,), {}), ((X[0],), {}), ((torch.complex(X, X.flip(1)),), {})])
        for owner in (torch, torch.Tensor)
    ],
    (
        torch,
        "gradient",
        [((X,), {}), ((X,), {"dim": 1, "edge_order": 2}), ((X,), {"spacing": [0.5, 3.0], "dim": (1, 0)})],
    ),
    (torch.linalg, "matrix_norm", [((X, order), {}) for order in (1, -1, math.inf, -math.inf)]),
    (torch.linalg, "matrix_norm", [((X[None], 1), {"keepdim": True, "dim": (1, -1), "dtype": torch.float64})]),
    (torch.linalg, "norm", [((X, 1), {}), ((X[None],), {"ord": math.inf, "dim": (0, 2)})]),
]


@pytest.mark.filterwarnings("ignore:torch.chain_matmul is deprecated")
@pytest.mark.parametrize(("owner", "name", "calls"), CALLS, ids=[name for _, name, _ in CALLS])
def test_what_stands_in_gives_what_torch_does(owner: Any, name: str, calls: list[Any]) -> None:
    original, (stand_in, _) = getattr(owner, name), FUNCTIONS[owner, name]
    for args, kwargs in calls:
        assert_same(flat_tensors(stand_in(*args, **kwargs)), flat_tensors(original(*args, **kwargs)))


def test_every_one_is_held_against_torch() -> None:
    pools = {(owner, name) for owner, name in FUNCTIONS if "_pool" in name}  # their sizes have to vary
    assert {(owner, name) for owner, name, _ in CALLS} == set(FUNCTIONS) - pools


def rows_of_numbers(x: Tensor) -> Any:
    n = x.shape[1]
    return (
        torch.hann_window(n) * x,
        torch.bartlett_window(n, periodic=False),
        torch.fft.rfftfreq(n),
        torch.logspace(0, 1, n),
        torch.nn.functional.one_hot(x.argmax(1), n),
        torch.bincount(x[0].abs().long(), x[1], minlength=n),
        torch.bincount((x[0] * 3).abs().long()),
    )


def algebra(x: Tensor) -> Any:
    pairs = torch.triu_indices(x.shape[1], x.shape[1], 1)
    return (
        x[:, pairs[0]] - x[:, pairs[1]],
        torch.kron(x, x[0]),
        x.take_along_dim(x.argsort(1), 1),
        x.corrcoef(),
        torch.gradient(x, dim=1)[0],
        torch.linalg.norm(x, 1),
        torch.as_tensor(x.shape) * 2,
        torch.as_tensor([x.amax(), x.amin()]),
    )


def python_numbers(x: Tensor) -> Any:
    half = int(x.shape[1] * 0.5)
    quotient, rest = divmod(x.shape[1], 3)
    return (
        x[:, :half],
        x * float(x.shape[1]),
        x + quotient + rest,
        x[:, len(x[0]) // 3 :],
        x[:, :: max(1, x.shape[1] // 2)],
        x + int("3") + float("2") + len("four"),
        x[:, : int(x[0].argmax()) + 1],
        x * int(isinstance(half, int) and isinstance(half / 2, float) and not isinstance(half, float)),
        x * min(4 / x.shape[1], x.shape[1] / 4, 1.5),
    )


def pools_over_all(x: Tensor) -> Any:
    one, plane = x[None], x[None, None]
    return (
        torch.nn.functional.avg_pool2d(plane, plane.shape[2:]),
        torch.nn.functional.max_pool2d(plane, kernel_size=(2, x.shape[1])),
        torch.nn.functional.avg_pool1d(one, one.size(2), stride=one.size(2)),
        torch.nn.functional.max_pool1d(one, one.size(2)),
    )


@pytest.mark.parametrize("model", [rows_of_numbers, algebra, python_numbers, pools_over_all])
def test_sizes_that_torch_takes_for_numbers_vary(model: Callable[[Tensor], Any]) -> None:
    draws = torch.Generator().manual_seed(1)
    others = [(torch.rand(3, size, generator=draws) * 4 - 2,) for size in (2, 9)]
    lower_and_compare(model, (X,), dynamic={"x": {1: (2, 9)}}, other_inputs=others)


def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> ModuleType:
    file = tmp_path / "of_a_user.py"
    file.write_text(text)
    module = ModuleType("of_a_user")
    module.__file__ = str(file)
    exec(compile(text, str(file), "exec"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_type_that_a_file_uses_as_a_dtype_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "def f(x: int, y: float):\n    return x.to(WHOLE) + int(y) + len(x) + float(isinstance(y, (float, str)))\n"
    module = _module(tmp_path, monkeypatch, text.replace("WHOLE", "int"))
    before = dict(vars(module))
    with open_builtins([module]):
        placed = {name for name in vars(module) if name not in before}
        assert placed >= {"float", "len"}
        assert "int" not in placed
        assert isinstance(2.5, vars(module)["float"])
        assert not isinstance(2, vars(module)["float"])
        assert issubclass(float, vars(module)["float"])
        assert vars(module)["float"]("2.5") == 2.5
    assert vars(module) == before


def test_a_name_of_the_files_own_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module(tmp_path, monkeypatch, "def len(x):\n    return 7\ndef f(x):\n    return len(x)\n")
    with open_builtins([module]):
        assert module.f("a") == 7
