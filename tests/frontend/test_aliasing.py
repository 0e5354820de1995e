"""Views and in-place writes: what each form does to everything that shares its memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from graphforge.errors import LoweringError
from graphforge.frontend.aliasing import functional_twin, is_mutation, written_arguments
from graphforge.frontend.captured import Captured
from graphforge.frontend.lower import lower
from graphforge.spec import ShapeSpec
from tests.frontend.helpers import lower_and_compare, lower_only, operators, run_model


def _input() -> torch.Tensor:
    return torch.arange(24, dtype=torch.float32).reshape(4, 6)


def _write_slice(x: torch.Tensor) -> Any:
    y = x * 1
    y[1:3] = 7
    return y


def _write_steps(x: torch.Tensor) -> Any:
    y = x * 1
    y[::2, 1::2] += 100
    return y


def _write_chain(x: torch.Tensor) -> Any:
    y = x * 1
    y[0].view(2, 3).t()[1].mul_(-1)
    return y


def _view_before_write(x: torch.Tensor) -> Any:
    y = x * 1
    row, column = y[1], y[:, 2]
    y.add_(1)
    return row, column, y


def _sibling_views(x: torch.Tensor) -> Any:
    y = x * 1
    row, column = y[1], y[:, 2]
    row.zero_()
    column.fill_(9)
    row.add_(1)
    return row, column, y


def _pieces(x: torch.Tensor) -> Any:
    y = x * 1
    a, b, c = y.split([1, 2, 3], 1)
    b.copy_(c[:, :2])
    c += 1
    first, *_ = y.unbind(0)
    first.neg_()
    y.chunk(2)[1][0] = 5
    return a, b, c, y


def _reshape_that_views(x: torch.Tensor) -> Any:
    y = x * 1
    flat = y.reshape(-1)
    flat[3] = 50
    return y, flat


def _reshape_that_copies(x: torch.Tensor) -> Any:
    y = x * 1
    flat = y.t().reshape(-1)
    flat[3] = 50
    return y, flat


def _contiguous(x: torch.Tensor) -> Any:
    y = x * 1
    y.contiguous()[0] = 1
    y.t().contiguous()[1] = 2
    y.to(torch.float32)[2] = 3
    y.to(torch.float64)[3] = 4
    return y


def _dropout_in_inference(x: torch.Tensor) -> Any:
    y = x * 1
    torch.dropout(y, 0.5, False).add_(1)
    return y


def _detach_and_clone(x: torch.Tensor) -> Any:
    y = x * 1
    y.detach()[0] = 1
    y.clone()[1] = 2
    return y


def _copy_broadcasts_and_casts(x: torch.Tensor) -> Any:
    y = x.long()
    y[1:].copy_(x[0] + 0.7)
    y[0] = x.sum()
    return y


def _masked(x: torch.Tensor) -> Any:
    y = x * 1
    y[y > 7] = 0
    y[:, 1:][y[:, 1:] == 0] = torch.arange(17, 30)[: 24 - 8 - 3 + 0].float()[:1]
    y[1][y[1] < 3] -= 1
    return y


def _indexed(x: torch.Tensor) -> Any:
    y = x * 1
    y[[0, 2]] = y[[2, 0]]
    y[:, torch.tensor([1, 1])] = 4
    y.index_put_((torch.tensor([0, 0]), torch.tensor([2, 2])), torch.tensor([1.0, 2.0]), accumulate=True)
    y.scatter_(1, torch.tensor([[5], [4], [3], [2]]), -1.0)
    y.t().index_add_(0, torch.tensor([0]), torch.ones(1, 4))
    return y


def _metadata(x: torch.Tensor) -> Any:
    y = x * 1
    z = y[1:]
    z.t_()
    z[0] = 8
    z.unsqueeze_(0)
    z[0, 1] = 9
    z.squeeze_(0)
    z.add_(1)
    return y, z


def _out_argument(x: torch.Tensor) -> Any:
    y = torch.empty(4, 6)
    torch.mul(x, 2, out=y)
    values, places = torch.empty(4), torch.empty(4, dtype=torch.int64)
    torch.max(x, 1, out=(values, places))
    return y, values, places


def _no_grad(x: torch.Tensor) -> Any:
    y = x * 1
    with torch.no_grad():
        row = y[0]
        row += 1
    row.mul_(3)
    y[1] = 7
    return y, row


def _diagonal_and_windows(x: torch.Tensor) -> Any:
    y = x * 1
    y.diagonal(1).fill_(-3)
    y.unfold(1, 2, 3)[:, 0] = 5
    y.movedim(0, 1)[2].sub_(1)
    y.view(2, 2, 6).permute(2, 0, 1)[3, 1] = 6
    y.tensor_split(3, 1)[2].add_(1)
    y.narrow(0, -2, 1).mul_(2)
    return y


def _decomposed_after_a_write(x: torch.Tensor) -> Any:
    before = x.clone()
    y = x * 1
    y.add_(1)
    blocks = torch.block_diag(before[:1], y[:1])
    return blocks, torch.cartesian_prod(before[0], y[0])


def _swin_mask(x: torch.Tensor) -> Any:
    mask, count = torch.zeros(1, 8, 8, 1), 0
    for rows in (slice(0, -4), slice(-4, -2), slice(-2, None)):
        for columns in (slice(0, -4), slice(-4, -2), slice(-2, None)):
            mask[:, rows, columns, :] = count
            count += 1
    windows = mask.view(1, 2, 4, 2, 4, 1).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16)
    difference = windows.unsqueeze(1) - windows.unsqueeze(2)
    return difference.masked_fill(difference != 0, -100.0).masked_fill(difference == 0, 0.0) + x[0, 0]


@pytest.mark.parametrize(
    "function",
    [
        _write_slice,
        _write_steps,
        _write_chain,
        _view_before_write,
        _sibling_views,
        _pieces,
        _reshape_that_views,
        _reshape_that_copies,
        _contiguous,
        _dropout_in_inference,
        _detach_and_clone,
        _copy_broadcasts_and_casts,
        _masked,
        _indexed,
        _metadata,
        _out_argument,
        _no_grad,
        _diagonal_and_windows,
        _decomposed_after_a_write,
        _swin_mask,
    ],
)
def test_agrees_with_eager(function: Callable[[torch.Tensor], Any]) -> None:
    outcome = lower_and_compare(function, [_input()])
    assert not outcome.lowered.notes


@pytest.mark.parametrize("function", [_out_argument, _pieces, _metadata, _diagonal_and_windows, _swin_mask])
def test_agrees_with_eager_when_traced(function: Callable[[torch.Tensor], Any]) -> None:
    lower_and_compare(function, [_input()], method="trace")


def test_views_of_inputs_beside_views_of_constants_in_a_trace() -> None:
    def function(x: torch.Tensor) -> Any:
        diagonal = x.diagonal(0)
        diagonal.unsqueeze_(0)
        x.copy_(torch.arange(24).reshape(4, 6) + 1)
        return x, diagonal

    lower_and_compare(function, [_input()], method="trace")


def test_writes_to_dynamic_sizes() -> None:
    def function(x: torch.Tensor) -> Any:
        y = x.clone()
        y[:, :, 1:-1, 1:-1] = 0
        y[:, 0] = 1
        y[:, :, ::2] += 1
        y[:, :, :, -1].mul_(3)
        first, second, _ = y.split(1, 1)
        second.add_(first)
        y.view(y.shape[0], -1)[:, 0] = 7
        y.diagonal(0, 2, 3).neg_()
        return y, second

    lower_and_compare(
        function,
        [torch.randn(2, 3, 8, 10)],
        dynamic={"x": {0: (1, 9), 2: (4, 64), 3: (4, 64)}},
        other_inputs=[[torch.randn(1, 3, 5, 7)], [torch.randn(3, 3, 12, 6)]],
    )


def test_a_plain_relu_in_place_costs_one_node() -> None:
    outcome = lower_and_compare(lambda x: torch.relu_(x + 1).mul_(2), [_input()])
    assert outcome.counts == {"Add": 1, "Relu": 1, "Mul": 1}


def test_says_that_an_input_is_left_as_it_is() -> None:
    outcome = lower_and_compare(lambda x: x.add_(1) * 2, [_input()])
    assert outcome.lowered.notes == ["input 'x' is written in place; the artifact leaves its input as it is"]


class _Counter(torch.nn.Module):
    total: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.ones(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total += x[0]
        self.total[1:] *= 2
        return self.total * x


def test_a_written_buffer_starts_every_call_from_its_first_value() -> None:
    model = _Counter()
    lowered = lower_only(model, [_input()])
    assert lowered.notes == ["'total' is written in place; the artifact starts every call from its present value"]
    first = model(_input())  # changes the buffer, not the artifact
    for _ in range(2):
        torch.testing.assert_close(run_model(lowered.model, {"x": _input()})[0], first)


class _Shared(torch.nn.Module):
    whole: torch.Tensor
    part: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("whole", torch.ones(6))
        self.register_buffer("part", self.whole[2:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.whole.add_(1)
        return x[0, 0] * self.part


def test_refuses_to_write_a_buffer_that_another_one_looks_into() -> None:
    with pytest.raises(LoweringError, match="shares memory with"):
        lower_only(_Shared(), [_input()])


def test_functionalises_the_program_where_a_write_cannot_be_followed() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = x * 1
        y.tensor_split([1, x.shape[0] - 1])[1].add_(1)
        return y

    outcome = lower_and_compare(
        function, [_input()], dynamic={"x": {0: (4, 9)}}, other_inputs=[[torch.randn(7, 6)]], allow_fallback=True
    )
    assert outcome.lowered.notes[0].startswith("the whole program was functionalised by torch: a write through")


def test_a_program_loaded_from_a_file_aliases_as_a_fresh_one(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return _reshape_that_views(x), _reshape_that_copies(x), _contiguous(x)

    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Model(), (_input(),)), path)
    program = torch.export.load(path)
    from graphforge.frontend.capture import captured_from_program

    template = Captured(program.graph_module, {}, {}, {}, [], ShapeSpec(()), {}, "export")
    lowered = lower(captured_from_program(program, template, names=["x"]))
    results = run_model(lowered.model, {"x": _input()})
    expected = torch.utils._pytree.tree_leaves(Model()(_input()))
    for got, want in zip(results, expected, strict=True):
        torch.testing.assert_close(got, want)


def test_branches_write_to_what_they_made() -> None:
    def function(x: torch.Tensor) -> Any:
        y = x * 1
        doubled = torch.cond(x.sum() > 0, lambda y: (y * 1).mul_(2), lambda y: y * 3, (y,))
        return doubled.add_(1), y

    lower_and_compare(function, [_input()], other_inputs=[[-_input()]])


def test_twins() -> None:
    aten = torch.ops.aten
    assert functional_twin(aten.relu_.default) is aten.relu.default
    assert functional_twin(aten.add.out) is aten.add.Tensor
    assert functional_twin(aten.fill_.Scalar) is aten.fill.Scalar
    assert is_mutation(aten.add_.Tensor)
    assert not is_mutation(aten.add.Tensor)
    assert written_arguments(aten.max.dim_max) == (("max", "max_values"), True)
    assert written_arguments(aten.add_.Tensor) == ((0,), False)


def test_writes_to_a_constant_leave_only_constants() -> None:
    lowered = lower_only(_swin_mask, [_input()])
    computed = {value for node in lowered.model.graph for value in node.outputs}
    depends = set(lowered.model.graph.inputs)
    for node in lowered.model.graph:
        if any(value in depends for value in node.inputs):
            depends.update(node.outputs)
    # everything but the last lines is computed from constants alone
    assert len(computed & depends) <= 3
    assert "Loop" not in operators(lowered.model)
