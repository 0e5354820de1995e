"""sink-dequantize: behind what only moves elements, so that ONNX Runtime loads the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.ao.quantization.fx._decomposed

import graphforge
from graphforge.passes.sink_dequantize import SinkDequantize
from tests.passes.harness import run

SINK = [SinkDequantize()]


@pytest.mark.parametrize(
    ("mover", "shape"),
    [
        ("Reshape(d, shape)", "2,12"),
        ("Transpose<perm=[1,0,2]>(d)", "3,2,4"),
        ("Unsqueeze(d, zero)", "1,2,3,4"),
        ("Slice(d, zero, one, zero)", "1,3,4"),
        ("MaxPool<kernel_shape=[2]>(d)", "2,3,3"),
    ],
)
def test_integers_are_moved_and_then_dequantized(mover: str, shape: str) -> None:
    outcome = run(
        SINK,
        f"g (int8[2,3,4] x) => (float[{shape}] y) <float s = {{0.5}}, int8 z = {{3}}, int64[2] shape = {{2,12}},"
        f" int64[1] zero = {{0}}, int64[1] one = {{1}}> {{ d = DequantizeLinear(x, s, z) y = {mover} }}",
    )
    assert outcome.ops[-1] == "DequantizeLinear"
    assert outcome.ops[-2] == mover.partition("(")[0].partition("<")[0]


def test_a_whole_row_of_movers_is_passed() -> None:
    outcome = run(
        SINK,
        "g (int8[2,3,4] x) => (float[4,6] y) <float s = {0.5}, int8 z = {3}, int64[2] shape = {6,4}> {"
        " d = DequantizeLinear(x, s, z) r = Reshape(d, shape) y = Transpose<perm=[1,0]>(r) }",
    )
    assert [op for op in outcome.ops if op != "DequantizeLinear"] == ["Reshape", "Transpose"]
    assert outcome.ops[-1] == "DequantizeLinear"


def test_a_scale_for_each_slice_and_unsigned_integers_stay() -> None:
    for graph in (
        "g (int8[3,4] x) => (float[4,3] y) <float[3] s = {0.5,0.1,0.2}, int8[3] z = {3,0,1}> {"
        " d = DequantizeLinear<axis=0>(x, s, z) y = Transpose<perm=[1,0]>(d) }",
        "g (uint8[3,4] x) => (float[4,3] y) <float s = {0.5}, uint8 z = {3}> {"
        " d = DequantizeLinear(x, s, z) y = Transpose<perm=[1,0]>(d) }",
    ):
        assert run(SINK, graph).ops == ["DequantizeLinear", "Transpose"]


def test_a_quantised_picture_is_flattened_into_a_linear_layer(tmp_path: Path) -> None:
    """ONNX Runtime refused the file: output_dtype INT8 does not match y_zero_point type UINT8."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            there = torch.ops.quantized_decomposed
            x = there.quantize_per_tensor.default(x, 0.05, 4, -128, 127, torch.int8)
            x = there.dequantize_per_tensor.default(x, 0.05, 4, -128, 127, torch.int8)
            out: torch.Tensor = self.head(x.transpose(1, 2).flatten(1))
            return out

    bundle = graphforge.compile(
        Net().eval(), torch.rand(3, 2, 3), dynamic_shapes={"x": {0: (1, 4)}}, output=tmp_path / "b"
    )
    assert bundle.manifest["verification"]["verdict"] == "passed"
