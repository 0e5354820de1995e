"""Inverses, linear equations and Cholesky factors of small matrices, real and complex.

aten.linalg_inv_ex.default, aten._linalg_solve_ex.default, aten.linalg_solve_triangular.default,
aten.linalg_cholesky_ex.default, aten.cholesky_solve.default, aten._cholesky_solve_helper.default.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphforge.errors import GraphForgeError
from graphforge.spec import DimRange
from tests.frontend.helpers import lower_and_compare


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


@pytest.mark.parametrize("rows", [1, 2, 4, 9])
def test_inverses(rows: int) -> None:
    lower_and_compare(lambda x: (torch.linalg.inv(x), x[0].inverse()), (_random(3, rows, rows),))


def test_a_pivot_of_zero_is_passed_over() -> None:
    x = torch.tensor([[0.0, 2.0, 0.0], [0.0, 1.0, 4.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    tiny = torch.tensor([[1e-18, 1.0], [1.0, 1.0]], dtype=torch.float64)
    lower_and_compare(lambda x, y: (torch.linalg.inv(x), torch.linalg.inv(y)), (x, tiny))


def test_equations_at_any_batch() -> None:
    def forward(a: Tensor, b: Tensor, v: Tensor) -> Any:
        solve = torch.linalg.solve
        return solve(a, b), solve(a, v), solve(a, b.mT, left=False), solve(a[0], b)

    batch = DimRange("batch", 1, 5)
    others = [(_random(size, 4, 4), _random(size, 4, 2), _random(4)) for size in (1, 5)]
    lower_and_compare(
        forward,
        (_random(2, 4, 4), _random(2, 4, 2), _random(4)),
        dynamic={"a": {0: batch}, "b": {0: batch}},
        other_inputs=others,
    )


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_triangles(upper: bool, unit: bool, left: bool) -> None:
    """What stands on the other side, and on the diagonal of a unit triangle, is not read."""

    def forward(a: Tensor, b: Tensor) -> Tensor:
        side = b if left else b.mT
        found: Tensor = torch.linalg.solve_triangular(a, side, upper=upper, left=left, unitriangular=unit)
        return found

    lower_and_compare(forward, (_random(2, 4, 4) + 2, _random(2, 4, 3)))


@pytest.mark.parametrize("upper", [False, True])
def test_cholesky_factors(upper: bool) -> None:
    def forward(x: Tensor, b: Tensor) -> Any:
        factor = torch.linalg.cholesky(x @ x.mT + torch.eye(5), upper=upper)
        return factor, torch.cholesky_solve(b, factor, upper)

    lower_and_compare(forward, (_random(2, 5, 5), _random(2, 5, 3)))


def test_complex_matrices() -> None:
    def forward(x: Tensor, y: Tensor, b: Tensor) -> Any:
        z, side = torch.complex(x, y), torch.complex(b, b * 2)
        solve = torch.linalg.solve
        found = torch.linalg.inv(z), solve(z, side), solve(z, side.mT, left=False), solve(z, side[..., 0])
        return *found, torch.linalg.det(z), torch.linalg.det(z[:, :2, :2])

    lower_and_compare(forward, (_random(2, 3, 3), _random(2, 3, 3) * 0.5, _random(2, 3, 2)))


@pytest.mark.parametrize("rows", [40, None])
def test_many_rows_or_a_number_that_varies_are_refused(rows: int | None) -> None:
    size = rows or 6
    dims: Any = {} if rows else {"x": {0: DimRange("n", 2, 8), 1: DimRange("n", 2, 8)}}
    with pytest.raises(GraphForgeError, match="of a fixed size of at most 32 rows"):
        lower_and_compare(lambda x: torch.linalg.inv(x), (_random(size, size),), dynamic=dims)
