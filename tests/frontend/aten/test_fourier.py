"""Fourier transforms are refused with a way out, whichever function asks for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphforge.errors import GraphForgeError
from tests.frontend.helpers import lower_only


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.fft.rfft(x).abs(),
        lambda x: torch.fft.fft2(x).real,
        lambda x: torch.fft.irfft(torch.fft.rfft(x)),
        lambda x: torch.stft(x[0], 8, window=torch.ones(8), return_complex=True).abs(),
    ],
    ids=["rfft", "fft2", "irfft", "stft"],
)
def test_refused_with_a_way_out(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(GraphForgeError, match="complex numbers") as refusal:
        lower_only(function, (torch.ones(2, 8, 16),))
    assert any("Conv1d" in note for note in refusal.value.notes)
