"""Functions of torch that a capture computes otherwise, under whatever name a model's files know them."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from graphforge.errors import CaptureError
from tests.frontend.helpers import lower_and_compare


def test_a_function_that_a_file_imported_by_its_name_is_traced_too(monkeypatch: pytest.MonkeyPatch) -> None:
    helpers = ModuleType("helpers_of_a_model")
    exec("from torch import linspace as spread\ndef ramp(x):\n    return x * spread(0, 1, x.shape[1])", vars(helpers))
    monkeypatch.setitem(sys.modules, helpers.__name__, helpers)

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return helpers.ramp(x)  # type: ignore[no-any-return]

    before = helpers.spread
    others = [(torch.rand(2, size),) for size in (2, 9)]
    lower_and_compare(Model(), (torch.rand(2, 4),), dynamic={"x": {1: (2, 9)}}, other_inputs=others)
    assert helpers.spread is before is torch.linspace


def test_what_distributions_check_of_their_data_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # export-strict, in an earlier test, makes torch leave them out for good
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)

    def policy(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normal = torch.distributions.Normal(x, 1.5)
        prior = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
        actions = torch.distributions.Categorical(logits=x)
        return normal.log_prob(x + 1), torch.distributions.kl_divergence(normal, prior), actions.entropy()

    others = [(torch.randn(rows, 4),) for rows in (1, 9)]
    lower_and_compare(policy, (torch.randn(3, 4),), dynamic={"x": {0: (1, 9)}}, other_inputs=others)
    assert torch.distributions.Distribution._validate_args is True


class _Marked(Tensor):
    """A class that only says what a tensor is."""


class _Doubling(Tensor):
    def relu(self) -> Tensor:
        return torch.relu(self) * 2


class _As(nn.Module):
    def __init__(self, kind: type[Tensor]) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return (x.as_subclass(self.kind).relu() + 1).as_subclass(Tensor)


def test_a_class_of_tensors_without_code_of_its_own_is_seen_through() -> None:
    lower_and_compare(_As(_Marked), (torch.randn(2, 4),), dynamic={"x": {0: (1, 9)}})


def test_a_class_of_tensors_that_computes_otherwise_is_not() -> None:
    with pytest.raises(CaptureError, match="could not be captured"):
        lower_and_compare(_As(_Doubling), (torch.randn(2, 4),))
