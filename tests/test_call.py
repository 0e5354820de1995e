"""Outputs keep the names that the model gives them, and stay apart from the inputs."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

import graphforge


class Moved(nn.Module):
    """A dict that names a result after the argument it was made from."""

    def forward(self, boxes: Tensor, output_boxes: Tensor) -> dict[str, Tensor]:
        return {"boxes": boxes + 1, "output_boxes": output_boxes * 2, "sum": boxes + output_boxes}


def test_output_of_an_inputs_name_is_renamed(tmp_path: Path) -> None:
    bundle = graphforge.compile(Moved(), (torch.randn(3, 4), torch.randn(3, 4)), output=tmp_path / "moved")
    assert bundle.manifest["verification"]["passed"] is True
    model = onnx.load(bundle.path / "model.onnx")
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == ["boxes", "output_boxes"]
    assert [value.name for value in model.graph.output] == ["output_output_boxes", "output_output_output_boxes", "sum"]
    assert any("is called 'output_output_boxes'" in note for note in bundle.manifest["notes"])


class Siamese(nn.Module):
    """Reads the same tensor from several places, for an example."""

    def forward(self, one: Tensor, others: dict[str, list[Tensor]]) -> Tensor:
        return one + 2 * others["others"][0] + 4 * others["others"][1]


def test_one_tensor_given_twice_makes_two_inputs(tmp_path: Path) -> None:
    """The export read one of them for both, and only the random trial of verification noticed."""
    x = torch.randn(2, 3)
    bundle = graphforge.compile(Siamese(), (x, {"others": [x, x]}), output=tmp_path / "siamese")
    names = [entry["name"] for entry in bundle.manifest["inputs"]]
    assert names == ["one", "others.others.0", "others.others.1"]
    result = bundle.run({name: torch.full((2, 3), float(place)) for place, name in enumerate(names)})
    assert float(result["output"][0, 0]) == 10.0
