"""Random weights give results that rounding alone does not move by pixels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import graphforge

pytest.importorskip("mmpose", reason="needs mmpose: scripts/openmmlab.sh makes the environment, scripts/test runs this")


def test_no_bin_of_rtmo_takes_all_of_an_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: Any = graphforge.load_model("mmpose:rtmo-t_8xb32-600e_body7-416x416")
    (decoder,) = [one.dcc for one in loaded.module.modules() if hasattr(one, "dcc")]
    seen: list[tuple[torch.Tensor, ...]] = []
    softmax = decoder._apply_softmax

    def watched(*logits: torch.Tensor) -> Any:
        seen.append(logits)
        return softmax(*logits)

    monkeypatch.setattr(decoder, "_apply_softmax", watched)
    picture = torch.randn([1, 3, 160, 160], generator=torch.Generator().manual_seed(10))
    with torch.no_grad():
        found = loaded.module(picture)
    assert len(found["keypoints"]) > 0
    for logits in seen[0]:  # of each axis: a peak stands out (1), and no logits are in the hundreds
        assert 1 < logits.std(dim=-1).mean() < 6
        assert logits.abs().max() < 60
