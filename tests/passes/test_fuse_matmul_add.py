"""fuse-matmul-add: which products with a bias become a Gemm."""

from __future__ import annotations

import numpy as np
import pytest

from graphforge.passes.eliminate_dead_code import EliminateDeadCode
from graphforge.passes.fuse_matmul_add import FuseMatmulAdd
from tests.passes.harness import run

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("m = MatMul(x, w) y = Add(m, b)", ["Gemm"]),
        ("m = MatMul(x, w) y = Add(b, m)", ["Gemm"]),
        ("t = Transpose(v) m = MatMul(x, t) y = Add(m, b)", ["Gemm"]),
        ("m = Gemm(x, w) y = Add(m, b)", ["Gemm"]),
        ("m = Gemm<transB=1, alpha=0.5>(x, v) y = Add(m, r)", ["Gemm"]),
        ("m = MatMul(x, w) y = Add(m, r)", ["Gemm"]),
    ],
)
def test_matmul_and_add_become_gemm(body: str, left: list[str]) -> None:
    outcome = run(
        [FuseMatmulAdd(), EliminateDeadCode()],
        f"g (float[3,4] x, float[6,4] v, float[3,1] r) => (float[3,6] y) {{ {body} }}",
        weights={"w": floats(4, 6), "b": floats(6)},
    )
    assert outcome.ops == left


@pytest.mark.parametrize(
    ("x", "body", "reason"),
    [
        ("float[2,3,4]", "m = MatMul(x, w) y = Add(m, b)", "Gemm multiplies matrices"),
        ("float[3,4]", "m = MatMul(x, w) y = Add(m, big)", "what is added broadcasts the product"),
        ("float[3,4]", "m = Gemm<beta=2.0>(x, w) y = Add(m, b)", "beta would scale what is added"),
        ("float[3,4]", "m = MatMul(x, w) y = Add(m, b) z = Relu(m)", "the result of MatMul is read elsewhere"),
    ],
)
def test_matmul_and_add_stay(x: str, body: str, reason: str) -> None:
    outputs = "float[A,B,C] y" if "2,3" in x or "big" in body else "float[A,B] y"
    outputs += ", float[D,E] z" if "z =" in body else ""
    outcome = run(
        FuseMatmulAdd(),
        f"g ({x} x) => ({outputs}) {{ {body} }}",
        weights={"w": floats(4, 6), "b": floats(6), "big": floats(2, 1, 6)},
    )
    assert any(found.startswith(reason) for found in outcome.reasons)
    assert "Add" in outcome.ops


def test_integers_stay() -> None:
    outcome = run(
        FuseMatmulAdd(),
        "g (int32[3,4] x, int32[4,6] w, int32[6] b) => (int32[3,6] y) { m = MatMul(x, w) y = Add(m, b) }",
    )
    assert outcome.reasons == ["Gemm is not for INT32"]
