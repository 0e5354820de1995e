"""Conditions that torch's solver cannot prove are checked at the promised sizes instead of refused outright."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from graphforge.call import input_tree
from graphforge.errors import CaptureError
from graphforge.frontend.capture import capture
from graphforge.frontend.captured import Captured
from graphforge.frontend.promises import BrokenPromise
from graphforge.spec import DimRange
from tests.frontend.helpers import lower_and_compare

_DYNAMIC = {"x": {0: (1, 4), 2: (6, 64), 3: (6, 64)}}


def _image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(11))


def test_a_condition_that_always_holds_does_not_stand_in_the_way() -> None:
    """2*(h//2) < 1 + h: true, and beyond the solver."""

    def forward(x: Tensor) -> Tensor:
        return functional.max_pool2d(functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True), 3, 2, 1, ceil_mode=True)

    others = [(_image(1, 3, *size),) for size in ((6, 64), (7, 9), (31, 32), (64, 13))]
    outcome = lower_and_compare(forward, (_image(2, 3, 12, 16),), dynamic=_DYNAMIC, other_inputs=others)
    assert outcome.nodes == 2


def test_a_branch_on_a_size_is_still_refused() -> None:
    with pytest.raises(CaptureError):
        lower_and_compare(lambda x: x * 2 if x.shape[2] > 20 else x, (_image(2, 3, 12, 16),), dynamic=_DYNAMIC)


def test_halves_of_an_odd_size_are_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        return x.view(x.shape[0], 3, x.shape[2] // 2, 2, x.shape[3])

    with pytest.raises(CaptureError):
        lower_and_compare(forward, (_image(2, 3, 12, 16),), dynamic=_DYNAMIC)
    even: Any = {"x": {0: (1, 4), 2: (6, 64, 2), 3: (6, 64)}}
    lower_and_compare(forward, (_image(2, 3, 12, 16),), dynamic=even, other_inputs=[(_image(1, 3, 64, 7),)])


def _captured(forward: Any, example: Tensor, dims: dict[int, DimRange], *, method: str = "auto") -> Captured:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Any:
            return forward(x)

    tree = input_tree(Net(), (example,), {})
    return capture(Net(), tree, tree.spec().with_dynamic({"x": dims}), method=method)


@pytest.mark.parametrize("method", ["auto", "export", "fx", "trace"])
@pytest.mark.parametrize("high", [40, 100_000])
def test_no_method_takes_a_branch_that_another_one_refused(method: str, high: int) -> None:
    """Two rows out of the middle of the range are computed otherwise: no sample of sizes need meet them."""

    def forward(x: Tensor) -> Tensor:
        return x * 3 if 20 < x.shape[0] < 23 else x + 1

    with pytest.raises(CaptureError) as refused:
        _captured(forward, torch.rand(5, 2), {0: DimRange("rows", 2, high)}, method=method)
    if method in ("auto", "trace"):
        assert "rows = 21" in refused.value.message
        assert "holds where rows <= 20" in refused.value.notes[0]
        assert "test_promises.py" in refused.value.notes[0]


@pytest.mark.parametrize("method", ["auto", "trace"])
def test_the_last_of_some_chunks_is_refused_where_their_number_changes(method: str) -> None:
    with pytest.raises(CaptureError, match="behaves otherwise at rows = 6"):
        _captured(lambda x: x.chunk(5, 0)[-1], torch.rand(10, 2), {0: DimRange("rows", 5, 48)}, method=method)


def test_two_dims_that_a_trace_ties_together_are_refused() -> None:
    dims = {0: DimRange("a", 2, 6), 1: DimRange("b", 2, 6)}
    with pytest.raises(CaptureError, match=r"a = 2, b = 3"):
        _captured(lambda x: x + x.T, torch.rand(4, 4), dims, method="trace")


@pytest.mark.parametrize("method", ["auto", "trace"])
def test_a_size_that_is_not_one_by_chance_is_run_and_not_refused(method: str) -> None:
    def forward(x: Tensor) -> Tensor:
        return x[:, 2:] - x[:, :-2] * 2

    captured = _captured(forward, torch.rand(2, 7), {1: DimRange("time", 3, 9)}, method=method)
    assert {"time": 3} in captured.to_try
    others = [(torch.rand(2, size),) for size in range(3, 10)]
    lower_and_compare(forward, (torch.rand(2, 7),), dynamic={"x": {1: (3, 9)}}, other_inputs=others)


@pytest.mark.parametrize("length", [8, 9])
def test_windows_of_a_padded_length_follow_it(length: int) -> None:
    """Guards of many lines, and a range that torch words wrongly when the example needs padding."""

    def forward(x: Tensor) -> Tensor:
        missing = -x.shape[1] % 4
        padded = functional.pad(x, (0, missing))
        return padded.view(x.shape[0], (x.shape[1] + missing) // 4, 4).amax(-1)

    others = [(torch.rand(2, size),) for size in (1, 2, 4, 5, 12, 23)]
    lower_and_compare(forward, (torch.rand(2, length),), dynamic={"x": {1: (1, 24)}}, other_inputs=others)


def test_an_example_of_one_step_is_made_larger_before_capture() -> None:
    def forward(x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1] // 6, 6).sum(-1)

    others = [(torch.rand(2, size),) for size in (6, 12, 30)]
    lower_and_compare(forward, (torch.rand(2, 6),), dynamic={"x": {1: (6, 30, 6)}}, other_inputs=others)


def test_a_trace_is_tried_at_every_size_of_a_small_range() -> None:
    captured = _captured(torch.sin, torch.rand(4, 2), {0: DimRange("rows", 2, 20)}, method="trace")
    assert [sizes["rows"] for sizes in captured.to_try] == list(range(2, 21))
    captured = _captured(torch.sin, torch.rand(4, 2), {0: DimRange("rows", 0, 10**12)}, method="trace")
    assert captured.to_try == [{"rows": 0}, {"rows": 1}]


class _Windows(torch.nn.Module):
    """Padded to a multiple of 6, cut into windows, joined and cut back: nothing of it shows at a length of 12."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        windows = torch.nn.functional.pad(x, (0, 0, 0, -length % 6)).unflatten(1, (-1, 6))
        summed: torch.Tensor = windows.cumsum(2).flatten(1, 2)[:, :length]
        return summed


def test_an_example_that_comes_out_even_is_captured_at_another_size() -> None:
    others = [(torch.randn(1, length, 3),) for length in (4, 6, 7, 11, 13, 24, 30)]
    lower_and_compare(_Windows(), (torch.randn(2, 12, 3),), dynamic={"x": {0: (1, 4), 1: (4, 30)}}, other_inputs=others)


_LONG = {0: DimRange("rows", 4, 4000)}


@pytest.mark.parametrize("method", ["export", "trace"])
@pytest.mark.parametrize("rows", [8, 14])
def test_a_branch_on_a_remainder_is_named_whichever_side_the_example_takes(method: str, rows: int) -> None:
    """torch refuses `rows % 7` at first, and then it becomes no assertion of the program."""
    with pytest.raises(BrokenPromise) as refused:
        _captured(lambda x: x * 3 if x.shape[0] % 7 == 0 else x, torch.rand(rows, 2), _LONG, method=method)
    assert any("Mod(rows, 7)" in note and "test_promises.py:" in note for note in refused.value.notes)


def test_a_branch_on_a_remainder_whose_sides_agree_is_captured() -> None:
    captured = _captured(
        lambda x: x * 2 if x.shape[0] % 7 == 0 else x + x, torch.rand(8, 2), {0: DimRange("rows", 4, 64)}
    )
    assert {size["rows"] for size in captured.to_try} >= set(range(7, 64, 7))


def _made_whole(factor: int, x: Tensor) -> Tensor:
    """Cut to an even length and padded back, where something is missing."""
    even = x[:, : x.shape[1] // 2 * 2]
    if even.shape[1] < x.shape[1]:
        even = functional.pad(even, (0, x.shape[1] - even.shape[1])) * factor
    return even + 1


@pytest.mark.parametrize("length", [9, 10])
def test_a_padding_by_what_is_missing_may_be_of_nothing(length: int) -> None:
    others = [(torch.rand(2, size),) for size in (4, 5, 200, 201)]
    lower_and_compare(
        partial(_made_whole, 1), (torch.rand(2, length),), dynamic={"x": {1: (4, 201)}}, other_inputs=others
    )


@pytest.mark.parametrize("length", [9, 10])
def test_what_else_is_done_where_something_is_missing_is_named(length: int) -> None:
    with pytest.raises(CaptureError, match="behaves otherwise"):
        _captured(partial(_made_whole, 3), torch.rand(2, length), {1: DimRange("n", 4, 201)})


def test_a_branch_on_two_sizes_that_are_equal_is_named() -> None:
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            if x.shape[0] == y.shape[0]:
                return x.sum() * y
            return x.mean() + y

    inputs = input_tree(Two(), (torch.rand(8, 2), torch.rand(9, 2)), {})
    shapes = inputs.spec().with_dynamic({"x": _LONG, "y": {0: DimRange("others", 4, 4000)}})
    with pytest.raises(BrokenPromise) as refused:
        capture(Two(), inputs, shapes)
    assert any("test_promises.py:" in note for note in refused.value.notes)


def test_pieces_whose_number_varies_are_named_with_their_line() -> None:
    """Two pieces of half the length, and a third one where the length is odd: no program has a varying number."""
    with pytest.raises(BrokenPromise) as refused:
        _captured(
            lambda x: torch.stack([one.sum(0) for one in x.split(x.shape[0] // 2)[:2]]),
            torch.rand(8, 2),
            {0: DimRange("rows", 4, 64)},
        )
    assert any("x.split(x.shape[0] // 2)" in note for note in refused.value.notes)


def test_a_number_of_pieces_that_varies_is_told_as_that() -> None:
    def forward(x: Tensor) -> Tensor:
        return torch.cat([piece.mean(0, keepdim=True) for piece in x.split(2)])

    with pytest.raises(CaptureError, match=r"split gives .+ pieces, which are 3 there") as refused:
        _captured(forward, torch.rand(6, 4), {0: DimRange("rows", 2, 12)})
    place, way_out, *_ = refused.value.notes
    assert "test_promises.py" in place
    assert "unflatten" in way_out


def test_a_condition_reads_like_python() -> None:
    def forward(x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] % 3 == 0 else x

    with pytest.raises(CaptureError) as refused:
        _captured(forward, torch.rand(6, 4), {0: DimRange("rows", 2, 12)})
    assert "Mod(rows, 3) == 0" in "".join(refused.value.notes)


def test_a_crop_that_may_leave_nothing_is_captured() -> None:
    """Torch words its own question whether three rows of n - 2 hold anything in a way that it cannot read."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, (-1, -1))

    others = [(torch.rand(3, length),) for length in (2, 3, 9)]
    lower_and_compare(forward, (torch.rand(3, 6),), dynamic={"x": {1: (2, 9)}}, other_inputs=others)
