"""Operators without a rule of ours: decomposed alone, translated as the stock exporter does, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from graphforge.errors import LoweringError
from graphforge.frontend import decompose, lower
from graphforge.frontend.rules import lowering_for
from tests.frontend.helpers import lower_and_compare, lower_only


@pytest.fixture
def without_rules(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make some operators look as if they had no rule, and on demand no decomposition."""

    def hide(*names: str, decompositions: bool = True) -> None:
        monkeypatch.setattr(lower, "lowering_for", lambda name: None if name in names else lowering_for(name))
        if not decompositions:
            monkeypatch.setattr(decompose, "decompose_call", lambda *_, over_pairs=False: None)

    return hide


_DYNAMIC = {"x": {0: (1, 9)}}


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("aten.gelu.default", lambda x: torch.nn.functional.gelu(x)),
        ("aten.topk.default", lambda x: x.topk(2, 1)),
        ("aten.split.Tensor", lambda x: x.split(2, 1)),
        ("aten.cat.default", lambda x: torch.cat([x, x], 0)),
        ("aten.view.default", lambda x: x.view(x.shape[0] * 2, -1)),
        ("aten.expand.default", lambda x: x[:, :1].expand(x.shape[0], 5, 4)),
        ("aten.full.default", lambda x: torch.full((x.shape[0], 2), 3.0)),
    ],
)
def test_stock_translation_keeps_dynamic_sizes(
    without_rules: Callable[..., None], name: str, function: Callable[[torch.Tensor], Any]
) -> None:
    without_rules(name, decompositions=False)
    outcome = lower_and_compare(
        function, [torch.randn(2, 4, 4)], dynamic=_DYNAMIC, other_inputs=[[torch.randn(5, 4, 4)]], allow_fallback=True
    )
    assert [fallback[0] for fallback in outcome.lowered.fallbacks] == [name]
    assert not outcome.lowered.decomposed


def test_one_call_is_decomposed_and_the_others_stay_whole() -> None:
    outcome = lower_and_compare(
        lambda x: torch.nn.functional.gelu(torch.trapezoid(x, dx=2.0)),
        [torch.randn(2, 4)],
        dynamic=_DYNAMIC,
        other_inputs=[[torch.randn(7, 4)]],
    )
    assert outcome.lowered.decomposed == {"aten.trapezoid.dx": 1}
    assert outcome.counts["Gelu"] == 1


def test_an_in_place_call_is_decomposed_as_its_functional_twin() -> None:
    def function(x: torch.Tensor) -> Any:
        y = x * 1
        part = y[1:]
        part.renorm_(2, 0, 0.5)
        return y, part

    outcome = lower_and_compare(function, [torch.randn(3, 4)])
    assert outcome.lowered.decomposed == {"aten.renorm.default": 1}


class _Inner(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.linalg.eigvalsh(x)


class _Outer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = _Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(x @ x.mT)
        return y


def test_no_lowering_at_all_names_operator_module_and_line() -> None:
    with pytest.raises(LoweringError) as failure:
        lower_only(_Outer(), [torch.randn(3, 3)])
    text = str(failure.value)
    assert "aten._linalg_eigh.default: no lowering" in text or "aten.linalg_eigvalsh.default: no lowering" in text
    assert "head (_Inner)" in text
    assert "test_stock.py:" in text
    assert "return torch.linalg.eigvalsh(x)" in text
    assert "the stock exporter no translation" in text


def test_a_failing_decomposition_is_told(without_rules: Callable[..., None]) -> None:
    def broken(*_: Any, over_pairs: bool = False) -> None:
        raise LoweringError("aten.topk.default: no lowering", "torch's decomposition of it fails: ValueError: no")

    without_rules("aten.topk.default")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decompose, "decompose_call", broken)
        # the stock translation is still there
        outcome = lower_and_compare(lambda x: x.topk(2, 1), [torch.randn(2, 4)], allow_fallback=True)
        assert outcome.lowered.fallbacks
        without_rules("aten.linalg_eigvalsh.default", "aten._linalg_eigh.default")
        with pytest.raises(LoweringError, match="decomposition of it fails"):
            lower_only(_Outer(), [torch.randn(3, 3)])
