"""What a model keeps for its next call: captured cold as well as warm, and the user's module stays as it was."""

from __future__ import annotations

import functools
import traceback
from typing import Any

import pytest
import torch
from torch import Tensor

from graphforge.call import input_tree
from graphforge.frontend.capture import capture
from graphforge.frontend.lower import lower
from graphforge.frontend.references import references
from graphforge.runners.eager import EagerRunner
from graphforge.spec import DimRange
from tests.frontend.helpers import assert_same, run_model

_grids: dict[int, Tensor] = {}


class _Registry(dict[str, Any]):
    """As transformers has them: filled where it is asked, and not to be copied."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__({first: second})
        self.asked: list[str] = []  # by whom

    def copy(self) -> Any:
        return type(self)()  # type: ignore[call-arg]

    def keys(self) -> Any:
        self.asked.append("".join(traceback.format_stack(limit=12)))
        return super().keys()

    def values(self) -> Any:
        self.asked.append("".join(traceback.format_stack(limit=12)))
        return super().values()

    def __len__(self) -> int:
        self.asked.append("".join(traceback.format_stack(limit=12)))
        return super().__len__()


_registry = _Registry("linear", "a layer")


@functools.lru_cache(maxsize=4)
def _positions(length: int) -> Tensor:
    return torch.arange(length, dtype=torch.float32)


class Late(torch.nn.Module):
    """An attribute that the first call makes."""

    def forward(self, x: Tensor) -> Any:
        if not hasattr(self, "grid"):
            self.grid = torch.arange(x.shape[1]).float()
        return x + self.grid


class OfClass(torch.nn.Module):
    grid = torch.empty(0)
    size: Any = None

    def forward(self, x: Tensor) -> Any:
        if self.size != x.shape:
            type(self).grid = torch.arange(x.shape[1]).float() * 2
            type(self).size = x.shape
        return x * self.grid


class Earlier(torch.nn.Module):
    """An attribute that stands there before, empty; another in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = torch.empty(0)
        self.kept: dict[Any, Tensor] = {}

    def forward(self, x: Tensor) -> Any:
        if self.grid.shape != x.shape[1:]:
            self.grid = torch.arange(x.shape[1]).float() - 1
        if "ones" not in self.kept:
            self.kept["ones"] = torch.ones(3, device=x.device)
        return x - self.grid, self.kept["ones"]


class Cached(torch.nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x + _positions(x.shape[1])


class OfModule(torch.nn.Module):
    """A container that stands in the file."""

    def forward(self, x: Tensor) -> Any:
        if x.dim() not in _grids:
            _grids[x.dim()] = torch.linspace(0, 1, x.shape[1])
        return x - _grids[x.dim()]


_MODELS = (Late, OfClass, Earlier, Cached, OfModule)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("make", _MODELS)
def test_a_cold_model_is_captured_and_left_as_it_was(make: type[torch.nn.Module], dynamic: bool) -> None:
    model = make().eval()
    before, class_before = dict(vars(model)), dict(vars(make))
    tree = input_tree(model, (torch.rand(2, 6),), {})
    shapes = tree.spec().with_dynamic({"x": {1: DimRange("time", 3, 9)}} if dynamic else {})
    lowered = lower(capture(model, tree, shapes, method="export"))
    assert vars(model) == before
    assert {k: v for k, v in vars(make).items() if not k.startswith("_")} == {
        k: v for k, v in class_before.items() if not k.startswith("_")
    }
    assert not getattr(model, "kept", None)
    assert not _grids
    assert not lowered.notes
    for size in (6, 9, 3) if dynamic else (6,):
        x = torch.rand(2, size)
        fresh = make()(x)
        OfClass.grid, OfClass.size = torch.empty(0), None
        _grids.clear()
        expected = list(fresh) if isinstance(fresh, tuple) else [fresh]
        assert_same(run_model(lowered.model, {"x": x}), expected)


class OnlyWarm(torch.nn.Module):
    """What the first call makes goes through Python numbers, which a capture does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.limit: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.limit is None:
            self.limit = float(torch.ones(3).numpy().sum() + x.shape[0])
            if x.detach().sum() > 1e9:
                return x * 2
        return x.clamp(max=self.limit)


def test_what_only_a_first_call_can_make_is_made_by_one() -> None:
    model = OnlyWarm().eval()
    tree = input_tree(model, (torch.rand(2, 6) * 9,), {})
    captured = capture(model, tree, tree.spec())
    assert any("captured as a first call of the model leaves it, which sets limit" in note for note in captured.notes)
    assert model.limit is None
    assert_same(run_model(lower(captured).model, tree.tensors), [tree.tensors["x"].clamp(max=5.0)])


class Remembers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        result = x + self.last
        self.last = result
        return result


def test_a_memory_from_call_to_call_is_told() -> None:
    model = Remembers().eval()
    tree = input_tree(model, (torch.ones(3),), {})
    captured = capture(model, tree, tree.spec())
    assert captured.notes == [
        "'last' is set by a call of the model; the artifact starts every call from its present value"
    ]
    assert torch.equal(model.last, torch.zeros(3))


def test_every_run_of_the_reference_is_a_first_one() -> None:
    model = Remembers().eval()
    runner = EagerRunner.of(model, (torch.ones(3),))
    feeds = runner.example()
    assert runner.run(feeds)["output"].tolist() == runner.run(feeds)["output"].tolist() == [1, 1, 1]
    assert runner.notes == ["attribute last is changed by a run; it was put back"]


def test_a_container_of_a_kind_of_its_own_is_left_alone() -> None:
    tree = input_tree(Late(), (torch.rand(2, 3),), {})
    _registry.asked.clear()  # whoever looked at this module before
    capture(Late(), tree, tree.spec())
    assert not _registry.asked, _registry.asked[0]
    assert dict.copy(_registry) == {"linear": "a layer"}


def test_a_walk_for_substitutions_does_not_ask_it_either() -> None:
    _registry.asked.clear()
    references(Late())
    assert not _registry.asked, _registry.asked[0]
