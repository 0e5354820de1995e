"""What other exporters get wrong without a word: here each is right at every promised shape, or refused with a reason.

The list was measured on torch.onnx.export (torch 2.13) and on the deployment tools built around it.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.spec import DimRange
from tests.frontend.helpers import lower_and_compare, lower_only


def _values(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(10))


_DYNAMIC = {"x": {0: (1, 4), 2: (7, 64), 3: (7, 64)}}
_OTHERS = [(_values(1, 3, 28, 28),), (_values(3, 3, 9, 50),)]


class _Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(x, 7)


def test_adaptive_pool_of_a_dynamic_image(tmp_path: Path) -> None:
    """The stock exporter bakes in the example's kernel: 28 x 28 in gives 14 x 14 out."""
    example = _values(2, 3, 14, 14)
    lower_and_compare(_Pooled(), (example,), dynamic=_DYNAMIC, other_inputs=_OTHERS)
    bundle = graphforge.compile(_Pooled(), example, dynamic_shapes=_DYNAMIC, output=tmp_path / "out")
    report = bundle.manifest["verification"]
    assert report["passed"] is True
    assert len({tuple(trial["inputs"]["x"]) for trial in report["trials"]}) >= 3


@pytest.mark.parametrize("target", [(3, 5), (1, None), (None, 4)], ids=str)
def test_adaptive_pool_that_does_not_divide(target: tuple[int | None, ...]) -> None:
    def forward(x: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(x, target)  # type: ignore[arg-type]

    lower_and_compare(forward, (_values(2, 3, 13, 17),), dynamic=_DYNAMIC, other_inputs=_OTHERS)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20])
def test_the_requested_opset_is_delivered(opset: int, tmp_path: Path) -> None:
    """The stock exporter delivers 18 where 11 to 17 were asked for."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    bundle = graphforge.compile(model, _values(1, 3, 8, 8), opset=opset, output=tmp_path / "out")
    written = onnx.load(bundle.path / "model.onnx")
    assert [entry.version for entry in written.opset_import if entry.domain == ""] == [opset]
    assert bundle.manifest["verification"]["passed"] is True


def test_an_opset_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    for opset in (5, 99):
        with pytest.raises(GraphForgeError, match=str(opset)):
            graphforge.compile(nn.ReLU(), _values(2, 3), opset=opset, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


class _Doubled(torch.autograd.Function):
    """A backend's operator in the old way: a stand-in forward, and a symbolic for the exporter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("custom::Triple", x)


class _RandomBoxes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.rand(x.shape[0], 4)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("custom::Boxes", x)


class _Apply(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function.apply(x)
        return result


def test_an_autograd_function_with_a_symbolic_is_told(tmp_path: Path) -> None:
    """Its forward is what eager computes, so it is what is compiled, and the report says that the symbolic is not."""
    bundle = graphforge.compile(_Apply(_Doubled), _values(2, 3), output=tmp_path / "out")
    assert bundle.manifest["verification"]["passed"] is True
    assert any("_Doubled has a `symbolic`" in note for note in bundle.manifest["notes"])


def test_a_stand_in_that_draws_random_boxes_is_refused() -> None:
    """The stock exporter writes the stand-in: random boxes in production."""
    with pytest.raises(GraphForgeError, match="random"):
        lower_only(_Apply(_RandomBoxes), (_values(2, 3),))


def test_torch_is_put_back_after_a_capture() -> None:
    before = (torch.linspace, torch.Tensor.__deepcopy__, vars(torch.autograd.Function)["apply"])
    lower_only(_Apply(_Doubled), (_values(2, 3),))
    assert (torch.linspace, torch.Tensor.__deepcopy__, vars(torch.autograd.Function)["apply"]) == before
    x = torch.ones(2, requires_grad=True)
    applied: Any = _Doubled.apply
    assert torch.equal(applied(x), torch.full((2,), 2.0))


def test_a_view_of_a_permuted_tensor() -> None:
    """The stock exporter fails: cannot view a tensor with shape (13, 13, 5) and strides (13, 1, 169)."""

    def forward(x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        boxes = x.view(batch, 3, 5, height, width).permute(0, 1, 3, 4, 2)
        return boxes.reshape(batch, -1, 5)

    example = _values(2, 15, 13, 13)
    others = [(_values(1, 15, 7, 9),)]
    lower_and_compare(forward, (example,), dynamic=_DYNAMIC, other_inputs=others)
    for method in ("export-strict", "trace"):
        lower_and_compare(forward, (example,), method=method)


def test_a_deep_copy_in_forward() -> None:
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        kept = copy.deepcopy(x)
        kept += 1
        return x * 2, kept

    example = _values(2, 3, 8, 8)
    lower_and_compare(forward, (example,), dynamic=_DYNAMIC, other_inputs=_OTHERS)
    lower_and_compare(forward, (example,), method="trace")


def test_linspace_over_a_shape() -> None:
    def forward(x: Tensor) -> Tensor:
        return x + torch.linspace(0, 1, steps=x.shape[2])[:, None] - torch.linspace(-2, 5, x.shape[3])

    others = [*_OTHERS, (_values(1, 3, 1, 64),)]
    dynamic: Any = {"x": {0: (1, 4), 2: (1, 64), 3: (7, 64)}}
    lower_and_compare(forward, (_values(2, 3, 8, 9),), dynamic=dynamic, other_inputs=others)


def test_arange_and_grids_over_a_shape() -> None:
    def forward(x: Tensor) -> Tensor:
        rows = torch.arange(x.shape[2], dtype=x.dtype)
        columns = torch.arange(x.shape[3], dtype=x.dtype)
        grid_y, grid_x = torch.meshgrid(rows, columns, indexing="ij")
        return x + grid_y * 2 - grid_x

    lower_and_compare(forward, (_values(2, 3, 8, 9),), dynamic=_DYNAMIC, other_inputs=_OTHERS)


def test_an_lstm_of_any_length() -> None:
    layer = nn.LSTM(4, 6, batch_first=True, bidirectional=True)

    def forward(x: Tensor) -> Tensor:
        result: Tensor = layer(x)[0]
        return result

    lower_and_compare(
        forward,
        (_values(2, 5, 4),),
        dynamic={"x": {0: (1, 4), 1: (1, 50)}},
        other_inputs=[(_values(1, 50, 4),), (_values(3, 1, 4),)],
    )


def test_topk_of_more_than_there_is() -> None:
    """k = min(100, count): capped at run time where the size is dynamic, never the example's."""

    def capped(x: Tensor) -> tuple[Tensor, Tensor]:
        found = x.topk(min(5, x.shape[1]), dim=1)
        return found.values, found.indices

    lower_and_compare(capped, (_values(2, 3),))
    others = [(_values(2, size),) for size in (2, 4, 5, 6, 50)]
    lower_and_compare(capped, (_values(2, 30),), dynamic={"x": {1: (2, 50)}}, other_inputs=others)
    with pytest.raises((GraphForgeError, RuntimeError)):
        lower_and_compare(lambda x: x.topk(5, dim=1).values, (_values(2, 3),))


def test_attention_keeps_its_scale_and_its_order() -> None:
    def forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        attend = functional.scaled_dot_product_attention
        return attend(q, k, v, scale=0.7), attend(q, k, v, is_causal=True)

    length = DimRange("length", 2, 20)
    heads = [_values(1, 2, 5, 8) * factor for factor in (1.0, 0.5, 2.0)]
    tied = {name: {2: length} for name in ("q", "k", "v")}
    others = [tuple(_values(1, 2, 9, 8) * factor for factor in (1.0, 0.5, 2.0))]
    lower_and_compare(forward, heads, dynamic=tied, other_inputs=others)


def test_writes_to_slices_and_through_masks() -> None:
    def forward(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, 0] = 1.0
        x[:, 1:, ::2] *= 3
        x[x < 0] = 0.5
        x[..., -1] += x[..., 0]
        return x

    lower_and_compare(forward, (_values(2, 3, 8, 9),), dynamic=_DYNAMIC, other_inputs=_OTHERS)


def test_an_empty_axis_is_not_a_copied_one() -> None:
    """0 in a Reshape means 'as it is' unless the operator is told otherwise."""

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.reshape(0, 6), x.reshape(4, 0, 2)

    lower_and_compare(forward, (_values(3, 0, 5),))

    def dynamic(x: Tensor) -> Tensor:
        return x[:, 3:].reshape(x.shape[0], 0, 2)

    lower_and_compare(dynamic, (_values(3, 3),), dynamic={"x": {0: (1, 9)}}, other_inputs=[(_values(5, 3),)])


def test_negative_positions() -> None:
    def forward(x: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        return x[-1], x[:, -2], x[rows], x.select(1, -1), x[-2:]

    rows = torch.tensor([-1, 0, -2])
    lower_and_compare(forward, (_values(3, 4), rows), dynamic={"x": {0: (2, 9)}}, other_inputs=[(_values(7, 4), rows)])


def test_every_output_keeps_its_name(tmp_path: Path) -> None:
    class Several(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"scores": x.softmax(1), "same": x, "pair": (x + 1, x.sum())}

    bundle = graphforge.compile(Several(), _values(2, 3), output=tmp_path / "out")
    written = onnx.load(bundle.path / "model.onnx")
    names = [value.name for value in written.graph.output]
    assert names == ["scores", "same", "pair_0", "pair_1"]
    assert bundle.manifest["verification"]["passed"] is True


def test_a_size_that_is_baked_in_by_the_model_is_told() -> None:
    """A Python number made of a size fixes it: the promise cannot be kept, and that is said."""

    def forward(x: Tensor) -> Tensor:
        return x * float(int(x.shape[2]) * torch.ones(()).item()) if x.shape[2] == 8 else x

    with pytest.raises(GraphForgeError) as refusal:
        lower_and_compare(forward, (_values(2, 3, 8, 9),), dynamic=_DYNAMIC, other_inputs=_OTHERS)
    assert refusal.value.notes
