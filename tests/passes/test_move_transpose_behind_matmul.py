"""move-transpose-behind-matmul: the form of float16 that ends ONNX Runtime's process is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch

import graphforge
from graphforge.passes.move_transpose_behind_matmul import MoveTransposeBehindMatmul
from tests.passes.harness import run

MOVE = MoveTransposeBehindMatmul()
_WEIGHT = "<float16[3,2] w = {1,2,3,4,5,6}>"


@pytest.mark.parametrize(
    ("perm", "shape", "result", "operators"),
    [
        ("1,0,2", "5,7,3", "7,5,2", ["MatMul", "Transpose"]),
        ("1,2,0", "3,7,5", "7,5,2", ["Transpose", "MatMul", "Transpose"]),
        ("1,2,0,3", "4,5,7,3", "5,7,4,2", ["MatMul", "Transpose"]),
    ],
)
def test_what_the_runtime_takes_into_the_product_moves(
    perm: str, shape: str, result: str, operators: list[str]
) -> None:
    outcome = run(
        MOVE,
        f"g (float16[{shape}] x) => (float16[{result}] y) {_WEIGHT}"
        f" {{ t = Transpose<perm=[{perm}]>(x) y = MatMul(t, w) }}",
    )
    assert outcome.ops == operators


@pytest.mark.parametrize(
    "graph",
    [
        "g (float[5,7,3] x) => (float[7,5,2] y) <float[3,2] w = {1,2,3,4,5,6}> {"
        " t = Transpose<perm=[1,0,2]>(x) y = MatMul(t, w) }",
        f"g (float16[7,3,5] x) => (float16[7,5,2] y) {_WEIGHT} {{ t = Transpose<perm=[0,2,1]>(x) y = MatMul(t, w) }}",
        "g (float16[5,7,3] x, float16[3,2] w) => (float16[7,5,2] y) {"
        " t = Transpose<perm=[1,0,2]>(x) y = MatMul(t, w) }",
    ],
)
def test_other_types_transposes_and_operands_stay(graph: str) -> None:
    outcome = run(MOVE, graph)
    assert outcome.ops == ["Transpose", "MatMul"]
    assert outcome.reasons


def test_a_cast_between_the_two_moves_too() -> None:
    outcome = run(
        MOVE,
        "g (bool[3,7,5] x) => (float[7,5,2] y) <float[3,2] w = {1,2,3,4,5,6}> {"
        " t = Transpose<perm=[1,2,0]>(x) c = Cast<to=1>(t) y = MatMul(c, w) }",
    )
    assert outcome.ops == ["Cast", "Transpose", "MatMul", "Transpose"]


def test_a_projection_of_integers_whose_channels_move_last_loads(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_two = torch.nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.to_two(x.movedim(0, -1).float())
            return out

    graphforge.compile(Net().eval(), (torch.arange(30).view(5, 2, 3),), output=tmp_path / "b")


class Attention(torch.nn.Module):
    """The module that ended the process."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=batch_first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.attention(x, x, x, need_weights=False)[0]
        return out


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("half", [True, False], ids=["model in halves", "converted"])
def test_attention_in_halves_loads_with_every_optimization(tmp_path: Path, batch_first: bool, half: bool) -> None:
    module, x = Attention(batch_first=batch_first).eval(), torch.randn(2, 5, 16)
    graphforge.compile(
        module.half() if half else module,
        (x.half() if half else x,),
        precision=None if half else "fp16",
        output=tmp_path / "b",
    )
    file = tmp_path / "b" / "model.onnx"
    kinds = {tensor.data_type for tensor in onnx.load(file).graph.initializer if len(tensor.dims) == 2}
    assert kinds == {onnx.TensorProto.FLOAT16}
    loading = f"import onnxruntime; onnxruntime.InferenceSession({str(file)!r}, providers=['CPUExecutionProvider'])"
    child = subprocess.run([sys.executable, "-c", loading], capture_output=True, timeout=300, check=False)
    assert child.returncode == 0, child.stderr.decode()
