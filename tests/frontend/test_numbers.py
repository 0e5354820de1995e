"""Numbers that leave tensors and sizes that become numbers: read at run time, never baked in.

Each test says which operators it is for, and that they are in the captured program.
"""

from __future__ import annotations

import pytest
import torch

from graphforge.call import input_tree
from graphforge.errors import LoweringError
from graphforge.frontend.capture import capture
from graphforge.frontend.lower import lower
from graphforge.spec import DimRange
from tests.frontend.helpers import assert_same, lower_and_compare, lower_only, run_model
from tests.frontend.opinfo import operator_of, single_call

BATCH = {"x": {0: (1, 8)}}


class Scaled(torch.nn.Module):
    """Uses a tensor's element as a number."""

    def forward(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return x * factor.item()


class Measured(torch.nn.Module):
    """Uses sizes as numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.shape[0] + x.numel() - x.size(1) * 2


def calls(model: torch.nn.Module, args: list[torch.Tensor], method: str, dynamic: bool = False) -> set[str]:
    """The operators that a captured program calls."""
    inputs = input_tree(model, args, {})
    shapes = inputs.spec().with_dynamic({"x": {0: DimRange("x_0", 1, 8)}} if dynamic else {})
    return {str(node.target) for node in capture(model, inputs, shapes, method=method).graph_module.graph.nodes}


@pytest.mark.parametrize(
    ("method", "operator"), [("export", "aten.item.default"), ("trace", "aten._local_scalar_dense.default")]
)
def test_item_is_read_at_run_time(method: str, operator: str) -> None:
    x = torch.ones(2, 3)
    for factor, other in ((torch.tensor(2.5), torch.tensor(-7.0)), (torch.tensor([3]), torch.tensor([4]))):
        assert operator in calls(Scaled(), [x, factor], method)
        lower_and_compare(Scaled(), [x, factor], other_inputs=[[x, other]], method=method)


def test_item_of_bool_chooses() -> None:
    def chosen(x: torch.Tensor, flag: torch.Tensor) -> torch.Tensor:
        return torch.where(flag, x, -x).sum() + flag.sum().item()

    lower_and_compare(
        chosen, [torch.ones(3), torch.tensor([True])], other_inputs=[[torch.ones(3), torch.tensor([False])]]
    )


@pytest.mark.parametrize(
    ("method", "operator"), [("export", "aten.sym_size.int"), ("export-strict", "aten.sym_numel.default")]
)
def test_sizes_are_read_at_run_time(method: str, operator: str) -> None:
    x = torch.randn(2, 3)
    assert operator in calls(Measured(), [x], method, dynamic=True)
    others = [[torch.randn(1, 3)], [torch.randn(7, 3)]]
    lower_and_compare(Measured(), [x], dynamic=BATCH, other_inputs=others, method=method)


@pytest.mark.parametrize("name", ["aten.size.default", "aten.sym_size.default"])
def test_all_sizes_at_once(name: str) -> None:
    x = torch.randn(2, 3)
    captured, feeds = single_call(operator_of(name), [x], x, listed=True)
    graph = captured.graph_module.graph
    sizes = next(node for node in graph.nodes if str(node.target) == name)
    sizes.meta["val"] = (2, 3)
    first = next(iter(sizes.users))
    first.meta["val"] = 2
    with graph.inserting_after(first):
        scaled = graph.call_function(torch.ops.aten.mul.Tensor, (next(iter(graph.nodes)), first))
    scaled.meta["val"] = next(iter(graph.nodes)).meta["val"]
    next(node for node in graph.nodes if node.op == "output").args = ((scaled,),)
    assert_same(run_model(lower(captured).model, feeds), [x * 2])


def test_constant_tensors_in_forward() -> None:
    def shifted(x: torch.Tensor) -> torch.Tensor:
        return x + torch.tensor([1.0, 2.0, 3.0]) + torch.tensor(4)

    assert lower_and_compare(shifted, [torch.randn(2, 3)]).nodes <= 2


def test_ranges_and_fills_follow_dynamic_sizes() -> None:
    def made(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        size = x.shape[0]
        return (
            torch.arange(size),
            torch.arange(1, 2 * size + 1, 2, dtype=torch.float32),
            torch.arange(0, size, 0.5),
            torch.zeros(size, 3),
            torch.full((2, size), 7, dtype=torch.int32),
            torch.ones_like(x),
            torch.full_like(x, float("inf")),
            x.new_zeros(size, dtype=torch.bool),
            torch.eye(size),
            torch.eye(size, 3),
        )

    lower_and_compare(made, [torch.randn(4, 3)], dynamic=BATCH, other_inputs=[[torch.randn(1, 3)], [torch.randn(5, 3)]])


def test_reductions_over_dynamic_dims() -> None:
    def reduced(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            x.mean(0),
            x.var(0, unbiased=False),
            x.var(),
            x.std(dim=(0, 1), keepdim=True),
            torch.linalg.vector_norm(x, ord=3, dim=0),
            x.argmax(),
            x.amax(0),
            x.logsumexp(0),
            *torch.var_mean(x, dim=0, correction=2),
        )

    lower_and_compare(
        reduced, [torch.randn(4, 3)], dynamic=BATCH, other_inputs=[[torch.randn(3, 3)], [torch.randn(8, 3)]]
    )


@pytest.mark.filterwarnings("ignore:var")
def test_reductions_of_nothing() -> None:
    """A mean of no rows is NaN in torch and was 0; of no bools ONNX Runtime says nothing at all."""

    def forward(x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        some = x[x[:, 0] > 0]
        by_data = (some.mean(0), some.var(0, correction=0), (some > 0).all(0))
        return (*by_data, rows.mean(0), rows.var(0, correction=0), (rows > 0).all(0), (rows > 0).any())

    others = [(-torch.ones(3, 2), torch.rand(0, 2)), (torch.rand(3, 2), torch.rand(1, 2))]
    lower_and_compare(
        forward, (torch.randn(3, 2), torch.rand(4, 2)), dynamic={"rows": {0: (0, 8)}}, other_inputs=others
    )


def test_reshapes_where_a_size_may_be_zero() -> None:
    """Beside a size that is 0 at run time, the -1 of a Reshape has no value."""

    def forward(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        some = x[x[:, 0, 0] > 1]
        windows = torch.nn.functional.unfold(x[None].transpose(0, 1), 2)
        return x.flatten(1), x.transpose(0, 1).flatten(1), x.reshape(-1, 3), some.flatten(1), windows

    others = [(torch.rand(rows, length, 3),) for rows in (0, 1, 4) for length in (2, 5)]
    lower_and_compare(forward, (torch.rand(6, 4, 3),), dynamic={"x": {0: (0, 9), 1: (2, 9)}}, other_inputs=others)


def test_sums_of_exponentials_behind_minus_infinity() -> None:
    """Scores of paths that are not there: of -200 behind one of them ONNX Runtime's own operator leaves nothing."""

    def forward(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        by_row = x.logsumexp(1, keepdim=True), torch.logcumsumexp(x, 1)
        return (*by_row, x.logsumexp((0, 1)), x.double().logsumexp(0), x.half().logsumexp(0))

    none = -torch.inf
    paths = [[none, -200.0, -201.0], [none, none, none], [-300.0, none, 0.0], [torch.inf, 1.0, none]]
    lower_and_compare(forward, (torch.randn(4, 3),), other_inputs=[(torch.tensor(paths),), (torch.tensor(paths) + 90,)])


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64], ids=str)
def test_floors_at_the_ends_of_an_integer(dtype: torch.dtype) -> None:
    """What is a multiple of the divisor and less than the least number does not exist."""

    def forward(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x // y, x // 3, x // -3, 10 // y

    ends = torch.iinfo(dtype)
    values = torch.tensor([ends.min, ends.min + 1, ends.max, -7, 7, 0], dtype=dtype)
    lower_and_compare(forward, (values, torch.tensor([3, 7, -2, 2, -2, 5], dtype=dtype)))


def test_only_wanted_results_of_max_are_emitted() -> None:
    assert lower_and_compare(lambda x: x.max(1).values, [torch.randn(2, 3)]).counts == {"ReduceMax": 1}
    assert lower_and_compare(lambda x: x.max(1)[1], [torch.randn(2, 3)]).counts == {"ArgMax": 1}
    assert lower_and_compare(lambda x: x.min(1), [torch.randn(2, 3)]).counts == {"ReduceMin": 1, "ArgMin": 1}


def test_writes_in_place_use_the_functional_rule() -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y.add_(1).mul_(2).clamp_(min=0.5).relu_()
        return y.sqrt_().div_(3)

    assert lower_and_compare(written, [torch.randn(2, 3)]).nodes == 6


def test_random_numbers_are_refused_with_the_line() -> None:
    class Noisy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    with pytest.raises(LoweringError, match="random numbers") as raised:
        lower_only(Noisy(), [torch.randn(2)])
    assert "torch.randn_like(x)" in str(raised.value)


def test_active_dropout_is_refused() -> None:
    with pytest.raises(LoweringError, match="dropout is active"):
        lower_only(lambda x: torch.nn.functional.dropout(x, 0.5, training=True), [torch.randn(2)])


@pytest.mark.parametrize("bounds", [(-3.0, 3.0), (0.5, None), (None, 1.5)])
def test_a_relu_of_doubles_that_is_clipped_loads(bounds: tuple[float | None, float | None]) -> None:
    """ONNX Runtime merges Relu and Clip, and refuses a file in which they are doubles."""
    x = torch.tensor([-1.0, 0.0, 0.25, 2.0, 5.0, float("nan")], dtype=torch.float64)
    lower_and_compare(lambda x: x.relu().clamp(*bounds), (x,))
