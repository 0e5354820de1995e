"""nn.Unfold and nn.Fold agree with eager at every size."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.frontend.helpers import lower_and_compare


def _image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(8)).to(dtype)


_OPTIONS = [*itertools.product([2, (3, 2)], [1, 2], [0, 1], [1, 2])]


@pytest.mark.parametrize(("kernel", "dilation", "padding", "stride"), _OPTIONS)
def test_unfold(kernel: int | tuple[int, int], dilation: int, padding: int, stride: int) -> None:
    lower_and_compare(lambda x: functional.unfold(x, kernel, dilation, padding, stride), (_image(2, 3, 9, 8),))


def test_unfold_at_dynamic_sizes() -> None:
    def forward(x: Tensor) -> Tensor:
        return functional.unfold(x, 3, 1, 1, 2)

    others = [(_image(1, 3, 10, 17),), (_image(4, 3, 6, 40),)]
    dynamic = {"x": {0: (1, 4), 2: (6, 40), 3: (6, 40)}}
    lower_and_compare(forward, (_image(2, 3, 9, 8),), dynamic=dynamic, other_inputs=others)


def test_fold() -> None:
    blocks = functional.unfold(_image(2, 3, 20, 24), 3, 1, 1, 2)

    def forward(x: Tensor) -> Tensor:
        return functional.fold(x, (20, 24), 3, 1, 1, 2)

    outcome = lower_and_compare(forward, (blocks,), dynamic={"x": {0: (1, 4)}}, other_inputs=[(blocks[:1],)])
    assert outcome.counts == {"Col2Im": 1}
    lower_and_compare(forward, (blocks[0],))
    lower_and_compare(forward, (blocks.half(),), atol=1e-2)  # sums of nine


def test_other_dtypes() -> None:
    lower_and_compare(lambda x: functional.unfold(x, 2, padding=1), (_image(2, 3, 6, 6, dtype=torch.float16),))
    lower_and_compare(lambda x: functional.unfold(x, 2), (_image(3, 6, 6, dtype=torch.float64),))
