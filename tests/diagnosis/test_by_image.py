"""Files that run image by image: the node inside the Loop is named, on the first image that goes wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import graphforge
from graphforge.spec import DimRange

_BATCH = {"x": {0: DimRange("batch", 1, 4)}}


class _Picking(nn.Module):
    """Rows of each image that score."""

    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body, self.act, self.head = nn.Linear(6, 8), act or nn.SiLU(), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        found = self.head(self.act(self.body(x)))
        return [{"boxes": one[one[:, 0] > 0][:, 1:] * 2 + 1, "best": one.amax(0)} for one in found]


def _inputs() -> tuple[Tensor]:
    return (torch.randn(3, 7, 6, generator=torch.Generator().manual_seed(1)),)


def _compiled(folder: Path, outputs: str) -> Path:
    asked: dict[str, Any] = {"dynamic_shapes": _BATCH, "outputs": outputs, "verify": False}
    return graphforge.compile(_Picking().eval(), _inputs(), output=folder, **asked).path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compiled(tmp_path_factory.mktemp("images") / "bundle", "padded")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def _spoiled(bundle: Path, folder: Path, spoil: Callable[[onnx.NodeProto], None], name: str) -> Path:
    shutil.copytree(bundle, folder)
    model = onnx.load(folder / "model.onnx")
    spoil(next(node for node in _nodes(model.graph) if node.name == name))
    onnx.save(model, folder / "model.onnx")
    return folder


def _other(operator: str) -> Callable[[onnx.NodeProto], None]:
    def spoil(node: onnx.NodeProto) -> None:
        node.op_type = operator

    return spoil


def test_an_untouched_file_agrees_with_values_on_the_way(bundle: Path) -> None:
    report = graphforge.diff(_Picking().eval(), bundle, _inputs(), dynamic_shapes=_BATCH)
    assert report.agrees
    assert len(report.outputs) == 6  # two of each of three images
    assert sum(row.status == "equal" for row in report.rows) >= 4
    assert any("image by image" in note for note in report.notes)


def test_the_node_inside_is_named(bundle: Path, tmp_path: Path) -> None:
    file = _spoiled(bundle, tmp_path / "bundle", _other("Tanh"), "act/Sigmoid")
    report = graphforge.diff(_Picking().eval(), file, _inputs(), dynamic_shapes=_BATCH)
    assert report.verdict == "departs"
    (cause,) = report.causes
    assert (cause.entry and cause.entry.call.path, cause.node) == ("act", "Tanh node 'act/Sigmoid'")
    assert cause.note == "the model compiled anew has a Sigmoid there"
    assert cause.shown


def test_the_node_inside_is_named_where_rows_of_all_images_are_joined(tmp_path: Path) -> None:
    ragged = _compiled(tmp_path / "ragged", "ragged")
    file = _spoiled(ragged, tmp_path / "bundle", _other("Tanh"), "act/Sigmoid")
    report = graphforge.diff(_Picking().eval(), file, _inputs(), dynamic_shapes=_BATCH)
    assert [cause.node for cause in report.causes] == ["Tanh node 'act/Sigmoid'"]
    assert report.causes[0].shown


def test_where_each_image_alone_agrees_it_is_the_loop(bundle: Path, tmp_path: Path) -> None:
    def always_the_first(node: onnx.NodeProto) -> None:
        node.input[0] = "nought"

    file = _spoiled(bundle, tmp_path / "bundle", always_the_first, "body/Unsqueeze")
    model = onnx.load(file / "model.onnx")
    model.graph.initializer.append(onnx.helper.make_tensor("nought", onnx.TensorProto.INT64, [], [0]))
    onnx.save(model, file / "model.onnx")
    report = graphforge.diff(_Picking().eval(), file, _inputs(), dynamic_shapes=_BATCH)
    assert report.verdict == "departs"
    assert "Loop" in report.causes[0].node
    assert "each image alone agrees" in report.causes[0].note


def test_two_models_that_return_lists() -> None:
    one, other = _Picking().eval(), _Picking(nn.GELU()).eval()
    report = graphforge.diff(one, other, _inputs(), dynamic_shapes=_BATCH)
    assert [cause.entry and cause.entry.call.path for cause in report.causes] == ["act"]
