"""What is found on each picture of a batch, had at once: the same as the stock predict says, picture by picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mmpose", reason="needs mmpose: scripts/openmmlab.sh makes the environment, scripts/test runs this")

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.frontend.substitutes.openmmlab_rows import rows_of_each

NANO = "mmdet:rtmdet_nano_320-8xb32_coco-person"


@pytest.fixture(scope="module")
def nano() -> Any:
    return graphforge.load_model(NANO, decode="batch", kwargs={"model.test_cfg.max_per_img": 20})


@pytest.mark.parametrize(
    ("spec", "side", "settings"),
    [
        # eighty classes, of which the best forty candidates of each level count
        ("mmdet:rtmdet_tiny_8xb32-300e_coco", 64, {"model.test_cfg.nms_pre": 40}),
        ("mmdet:yolox_tiny_8xb8-300e_coco", 64, {}),
        ("mmpose:yoloxpose_tiny_4xb64-300e_coco-416", 64, {"model.test_cfg.score_thr": 1e-4}),
        ("mmpose:rtmo-t_8xb32-600e_body7-416x416", 64, {}),
    ],
)
def test_as_the_stock_predict_says(spec: str, side: int, settings: dict[str, Any]) -> None:
    loaded: Any = graphforge.load_model(spec, decode="batch", kwargs=settings)
    pictures = torch.randn([3, 3, side, side], generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = loaded.module(pictures)
        came = rows_of_each(loaded.module.decoded, pictures, expected["scores"].shape[1])
    assert came.keys() == expected.keys()
    assert expected["num_dets"].min() > 0
    for name, one in expected.items():
        torch.testing.assert_close(came[name], one, rtol=1e-5, atol=1e-4, msg=name)


def test_a_detector_for_any_batch(nano: Any, tmp_path: Path) -> None:
    bundle = graphforge.compile(nano, "input:2x3x64x64", dynamic_shapes="input:0=1..3", output=tmp_path / "nano")
    assert bundle.manifest["verification"]["verdict"] == "passed"
    used = {one["function"].rpartition(".")[2] for one in bundle.manifest["capture"]["substitutions"]}
    assert "rows_of_each" in used
    pictures = torch.randn([3, 3, 64, 64], generator=torch.Generator().manual_seed(5)).numpy()
    together = bundle.run({"input": pictures}).outputs
    assert together["boxes"].shape == (3, 20, 4)
    alone = bundle.run({"input": pictures[1:2]}).outputs
    assert alone["num_dets"] == together["num_dets"][1:2]
    np.testing.assert_allclose(together["boxes"][1:2], alone["boxes"], atol=1e-3)


def test_a_dynamic_batch_of_results_picture_by_picture_is_refused_with_the_way_out(nano: Any) -> None:
    with pytest.raises(GraphForgeError, match="batch cannot be dynamic") as told:
        graphforge.compile(nano.module.decoded, "input:2x3x64x64", dynamic_shapes="input:0=1..3")
    assert "decode='batch'" in str(told.value)


def test_what_cannot_be_had_at_once_is_refused(nano: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = nano.module.decoded
    soft = {**decoded.model.test_cfg, "nms": {"type": "soft_nms", "iou_threshold": 0.5}}
    monkeypatch.setattr(decoded.model.bbox_head, "test_cfg", soft)
    with torch.no_grad(), pytest.raises(GraphForgeError, match="soft_nms"):
        rows_of_each(decoded, torch.zeros([1, 3, 64, 64]), 20)
