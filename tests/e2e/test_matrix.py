"""Three networks at every opset from 11 up; `scripts/bench matrix` does the same with ten larger ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from graphforge.frontend.torchvision_fix import TorchvisionState, torchvision_state
from graphforge.ir import HOME_OPSET
from tests.e2e import nets
from tests.e2e.matrix import Entry, Made, run_matrix

pytestmark = pytest.mark.slow


def net(make: Callable[[], torch.nn.Module], *shape: int) -> Callable[[], Made]:
    def made() -> Made:
        torch.manual_seed(0)
        return nets.calm(make()), (torch.randn(shape),), {}

    return made


NETS = (
    Entry("pose", net(lambda: nets.RTMPose(5, (32, 24), 8, 16), 2, 3, 32, 24), {"image": {0: (1, 4)}}),
    Entry(
        "segmentation",
        net(lambda: nets.Segmenter(8), 1, 3, 32, 48),
        {"image": {0: (1, 2), 2: (16, 64), 3: (16, 64)}},
    ),
    Entry("norms", net(lambda: nets.GroupNormMish(16, 1), 2, 3, 16, 16), {"image": {0: (1, 4)}}),
)


@pytest.mark.parametrize("entry", NETS, ids=lambda entry: entry.name)
def test_every_opset_is_delivered_and_equal_to_eager(entry: Entry) -> None:
    row = run_matrix(entry)
    assert [cell.opset for cell in row.cells] == list(range(HOME_OPSET, 10, -1))
    assert [row.mark(cell) for cell in row.cells if row.mark(cell) not in ("=", "ok")] == [], list(row.reasons())
    assert {row.mark(cell) for cell in row.cells} == {"=", "ok"}  # some opsets as it stands, some by legalisation
    assert all(proof.trials >= 3 for proof in row.proofs)


@pytest.mark.parametrize(("nms", "outputs"), [("native", "ragged"), ("portable", "padded")])
def test_detector_is_delivered_in_every_opset(nms: str, outputs: str) -> None:
    pytest.importorskip("sklearn")
    if torchvision_state() is TorchvisionState.MISSING:
        pytest.skip("torchvision is not installed: its NMS is called")
    from scripts.gallery import digits

    def made() -> Made:
        model, inputs = digits.detector()
        return model.eval(), inputs, {}

    row = run_matrix(Entry("digits", made, outputs=outputs, nms=nms))
    assert [row.mark(cell) for cell in row.cells if row.mark(cell) not in ("=", "ok")] == [], list(row.reasons())
    assert all(("NonMaxSuppression" in cell.operators) == (nms == "native") for cell in row.cells)
