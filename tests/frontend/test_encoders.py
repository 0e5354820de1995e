"""nn.TransformerEncoder with padding, as eager runs it: zeros where all rows are padded at their ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import graphforge
from graphforge.runners.session import new_session


class _Encoder(nn.Module):
    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        last = nn.LayerNorm(8)
        nn.init.ones_(last.bias)
        self.encoder = nn.TransformerEncoder(layer, 1, norm=last if norm else None)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(x, src_key_padding_mask=padding)
        return encoded


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("norm", [False, True])
def test_padded_positions_are_what_eager_leaves_there(norm: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Encoder(norm=norm).eval()
    x = torch.randn(2, 5, 8)
    at_the_end = torch.arange(5)[None] >= torch.tensor([5, 3])[:, None]
    bundle = graphforge.compile(model, (x, at_the_end), output=tmp_path / "out")
    session = new_session(bundle.path / "model.onnx")
    for padding in (at_the_end, at_the_end.flip(1), torch.zeros(2, 5, dtype=torch.bool)):
        with torch.no_grad():
            expected = model(x, padding)
        (found,) = session.run(None, {"x": x.numpy(), "padding": padding.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected)
