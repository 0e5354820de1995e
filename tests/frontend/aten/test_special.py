"""Functions of mathematical physics agree with eager, over their whole range.

aten.digamma.default, aten.special_psi.default, aten.special_digamma.default, prims.digamma.default;
aten.polygamma.default, aten.special_polygamma.default; aten.i0.default, aten.special_i0.default,
prims.bessel_i0.default; aten.special_i0e.default, prims.bessel_i0e.default; aten.special_i1.default,
prims.bessel_i1.default; aten.special_erfcx.default, prims.erfcx.default; aten.special_i1e.default,
prims.bessel_i1e.default.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, special

from graphforge.errors import LoweringError
from tests.frontend.helpers import lower_and_compare

_EDGES = torch.tensor([0.0, -0.0, math.inf, math.nan, 1e-30, 1e30])
_ABOVE = torch.cat([torch.linspace(0.01, 3, 60), torch.logspace(0.5, 6, 40)])
_BELOW = torch.linspace(-6.3, -0.05, 50)


def test_digamma() -> None:
    def forward(x: Tensor) -> tuple[Tensor, ...]:
        return torch.digamma(x), special.psi(x), special.digamma(x), special.polygamma(0, x)

    x = torch.cat([_ABOVE, _BELOW, _EDGES, torch.tensor([-3.0, -1.0, -math.inf])])
    # near its root, 1.46, the digits that are left are those of eager's own arithmetic
    lower_and_compare(forward, (x.double(),), rtol=1e-12, atol=1e-13)
    lower_and_compare(forward, (x,), rtol=1e-6, atol=3e-7)


def test_trigamma() -> None:
    x = torch.cat([_ABOVE, torch.tensor([1e-15, 1e15])])
    # eager's own series ends early: at 5 it is off by 6e-11 in double precision, and below zero in single by 5e-5
    lower_and_compare(lambda x: torch.polygamma(1, x), (torch.cat([x, _BELOW]).double(),), rtol=1e-9)
    lower_and_compare(lambda x: torch.polygamma(1, x), (x,), rtol=2e-6)


def test_higher_orders_are_refused() -> None:
    with pytest.raises(LoweringError, match="polygamma of order 3"):
        lower_and_compare(lambda x: torch.polygamma(3, x), (torch.rand(3),))


def test_modified_bessel_functions() -> None:
    def forward(x: Tensor) -> tuple[Tensor, ...]:
        return torch.special.i0(x), torch.i0(x), special.i0e(x), special.i1(x), special.i1e(x)

    x = torch.cat([torch.linspace(0, 30, 100), torch.linspace(31, 88, 20), torch.tensor([1e-20, math.nan])])
    x = torch.cat([x, -x])
    lower_and_compare(forward, (x.double(),), rtol=2e-14)
    lower_and_compare(forward, (x,), rtol=2e-6)
    far = torch.tensor([1e3, -1e3, 1e30])
    lower_and_compare(lambda x: (special.i0e(x), special.i1e(x), special.i0(x), special.i1(x)), (far,), rtol=1e-6)


def test_the_scaled_complementary_error_function() -> None:
    """Where exp(x^2) overflows and erfc vanishes as well; log_ndtr is computed by it."""
    x = torch.cat([torch.linspace(-5, 30, 80), torch.tensor([0.0, 1e8, -30.0, math.inf, -math.inf, math.nan])])
    lower_and_compare(lambda x: special.erfcx(x), (x.double(),), rtol=1e-12)
    lower_and_compare(lambda x: special.erfcx(x), (x,), rtol=2e-6)
    lower_and_compare(lambda x: special.log_ndtr(x), (torch.linspace(-30, 3, 60),), rtol=2e-6, atol=2e-7)
