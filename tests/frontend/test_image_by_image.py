"""Models that return a list with an entry for each image, with a batch of any size: one image is captured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphforge
from graphforge.errors import CaptureError
from graphforge.frontend.image_by_image import images_of
from graphforge.frontend.torchvision_fix import ensure_torchvision
from graphforge.spec import DimRange

_BATCH = {"x": {0: DimRange("batch", 1, 4)}}
ensure_torchvision()
ops = pytest.importorskip("torchvision.ops")


class _Scored(nn.Module):
    """Rows of each image that score, with a result in one form or another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.head = nn.Linear(5, 4)


class _Suppressing(_Scored):
    """As the YOLO family does it: a list of empty results, some of which are put in their place."""

    def forward(self, x: Tensor) -> list[Tensor]:
        prediction = self.head(x)
        output = [torch.zeros((0, 4))] * prediction.shape[0]
        for place, one in enumerate(prediction):
            rows = one[one[:, 0] > 0]
            if not rows.shape[0]:
                continue
            corners = torch.cat([rows[:, 1:3], rows[:, 1:3] + 2], 1)
            output[place] = rows[ops.nms(corners, rows[:, 0], 0.5)[:3]]
        return output


class _Dicts(_Scored):
    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        return [{"rows": one[one[:, 0] > 0], "best": one.amax(0)} for one in self.head(x)]


class _ListsAndAll(_Scored):
    """A dict of lists, and what they were picked from, a tensor of all images."""

    def forward(self, x: Tensor) -> tuple[dict[str, list[Tensor]], Tensor]:
        found: dict[str, list[Tensor]] = {"rows": [], "scores": []}
        all_of_them = self.head(x)
        for one in all_of_them:
            keep = one[:, 0] > 0
            found["rows"].append(one[keep])
            found["scores"].append(one[keep, 1].sigmoid())
        return found, all_of_them


class _Related(_Scored):
    """Each image is held against the mean of all."""

    def forward(self, x: Tensor) -> list[Tensor]:
        scores = self.head(x)
        return [one[one[:, 0] > scores.mean()] for one in scores]


def _compiled(model: nn.Module, folder: Path, **options: Any) -> graphforge.Bundle:
    options = {"outputs": "padded", "dynamic_shapes": _BATCH, **options}
    return graphforge.compile(model, (torch.randn(2, 7, 5),), output=folder / "b", **options)


def _outputs(bundle: graphforge.Bundle, feeds: Any) -> dict[str, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(bundle.path / "model.onnx"), providers=["CPUExecutionProvider"])
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.mark.parametrize("opset", [None, 13])
def test_a_suppression_image_by_image(tmp_path: Path, opset: int | None) -> None:
    model = _Suppressing().eval()
    bundle = _compiled(model, tmp_path, opset=opset)
    assert {trial["inputs"]["x"][0] for trial in bundle.manifest["verification"]["trials"]} == {1, 2, 3, 4}
    x = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(1))
    x[2] = -10 * model.head.weight[0].detach()  # nothing scores here
    found = _outputs(bundle, {"x": x.numpy()})
    expected = model(x)
    assert found["output"].shape == (4, 3, 4)
    assert found["num_dets"].tolist() == [len(one) for one in expected]
    assert 0 in found["num_dets"]
    for rows, count, wanted in zip(found["output"], found["num_dets"], expected, strict=True):
        np.testing.assert_allclose(rows[:count], wanted.detach(), rtol=1e-5, atol=1e-6)


def test_dicts_of_results_and_every_pass_checked(tmp_path: Path) -> None:
    bundle = _compiled(_Dicts().eval(), tmp_path, check_passes=True)
    assert [one["name"] for one in bundle.manifest["outputs"]] == ["rows", "best", "num_dets"]
    assert [one["shape"][0] for one in bundle.manifest["outputs"]] == ["batch"] * 3
    restored = [(one["restores"], one["output"], one["count"]) for one in bundle.manifest["padding"]]
    assert restored == [("output_*_rows", "rows", "num_dets"), ("output_*_best", "best", "")]


def test_lists_in_a_dict_beside_a_tensor_of_all(tmp_path: Path) -> None:
    bundle = _compiled(_ListsAndAll().eval(), tmp_path, check_passes=True)
    shapes = {one["name"]: one["shape"] for one in bundle.manifest["outputs"]}
    assert shapes == {
        "output_0_rows": ["batch", 7, 4],
        "output_0_scores": ["batch", 7],
        "output_1": ["batch", 7, 4],
        "num_dets": ["batch"],
    }


def test_ragged_results_of_any_number_of_images_stand_behind_each_other(tmp_path: Path) -> None:
    model = _Suppressing().eval()
    bundle = _compiled(model, tmp_path, outputs="ragged", check_passes=True)
    assert {trial["inputs"]["x"][0] for trial in bundle.manifest["verification"]["trials"]} == {1, 2, 3, 4}
    assert [one["joined"] for one in bundle.manifest["padding"]] == [True]
    x = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(1))
    x[2] = -10 * model.head.weight[0].detach()  # nothing scores here
    expected = model(x)
    found = _outputs(bundle, {"x": x.numpy()})
    assert found["num_dets"].tolist() == [len(one) for one in expected]
    assert found["num_dets"][2] == 0 < found["num_dets"][3]
    np.testing.assert_allclose(found["output"], torch.cat(expected).detach(), rtol=1e-5, atol=1e-6)


def test_no_images_give_an_empty_list_and_no_rows(tmp_path: Path) -> None:
    shapes = {"x": {0: DimRange("batch", 0, 3)}}
    bundle = _compiled(_Dicts().eval(), tmp_path, outputs="ragged", dynamic_shapes=shapes)
    verification = bundle.manifest["verification"]
    assert verification["verdict"] == "passed"
    assert {len(one["outputs"]) for one in verification["trials"] if one["inputs"]["x"][0] == 0} == {0}
    found = _outputs(bundle, {"x": np.zeros((0, 7, 5), np.float32)})
    assert {name: value.shape for name, value in found.items()} == {"rows": (0, 4), "best": (0, 4), "num_dets": (0,)}


def test_a_list_of_images_is_seen_after_the_first_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from graphforge.frontend import capture

    tried: list[str] = []
    for name, method in list(capture._CAPTURE.items()):

        def noted(*args: Any, name: str = name, method: Any = method) -> Any:
            tried.append(name)
            return method(*args)

        monkeypatch.setitem(capture._CAPTURE, name, noted)
    _compiled(_Dicts().eval(), tmp_path)
    assert tried == ["export", "export"]  # of all images, then of one


def test_images_that_know_of_each_other_are_not_taken_apart(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="loops in Python"):
        _compiled(_Related().eval(), tmp_path)


class _Dimmed(_Scored):
    """The brightest image dims all of them, from some brightness on."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [one / x.amax().clamp(min=50) for one in self.head(x)]


class _Once(_Scored):
    """Nothing is said of an image that is the one before once more."""

    def forward(self, x: Tensor) -> list[Tensor]:
        scores = self.head(x)
        return [one * float(not i or not torch.equal(x[i], x[i - 1])) for i, one in enumerate(scores)]


class _Crowded(_Scored):
    """Four images together have more rows than are handed out."""

    def forward(self, x: Tensor) -> list[Tensor]:
        most = 1.0 if len(x) * x.shape[1] < 28 else 0.5
        return [one * most for one in self.head(x)]


@pytest.mark.parametrize("model", [_Dimmed(), _Once(), _Crowded()], ids=lambda one: type(one).__name__)
def test_images_that_know_of_each_other_now_and_then_are_not_taken_apart(model: nn.Module) -> None:
    from graphforge.call import input_tree

    inputs = input_tree(model, (torch.randn(2, 7, 5),), {})
    shapes = inputs.spec().with_dynamic(_BATCH)

    def resized(sizes: Any) -> Any:
        return inputs.replaced({"x": torch.randn(sizes["batch"], 7, 5)})

    assert images_of(_Dicts(), inputs, shapes, resized) is not None
    assert images_of(model, inputs, shapes, resized) is None


def test_a_pair_of_results_is_no_list_of_two_images() -> None:
    class Pair(_Scored):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.head(x), self.head(x)[:, :1]

    from graphforge.call import input_tree

    inputs = input_tree(Pair(), (torch.randn(2, 7, 5),), {})
    shapes = inputs.spec().with_dynamic({"x": {0: DimRange("batch", 1, 2)}})
    assert images_of(Pair(), inputs, shapes, lambda sizes: inputs) is None
