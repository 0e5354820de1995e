"""fold-scale-into-weights: factors and offsets go into the weights, also through transposes and reshapes."""

from __future__ import annotations

import numpy as np
import pytest

from graphforge.ir import Origin, origins_of, set_origins
from graphforge.passes.fold_scale_into_weights import FoldScaleIntoWeights
from graphforge.transform import Pipeline
from tests.passes.harness import parse, run

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("x", "body", "weights", "out"),
    [
        ("1,4,5,5", "c = Conv(x, w) y = Mul(c, k)", {"w": floats(6, 4, 3, 3), "k": floats(6, 1, 1)}, "1,6,3,3"),
        ("1,4,5,5", "c = Conv(x, w) y = Div(c, k)", {"w": floats(6, 4, 3, 3), "k": floats(1, 6, 1, 1)}, "1,6,3,3"),
        ("1,4,5,5", "c = Conv(x, w) y = Add(k, c)", {"w": floats(6, 4, 3, 3), "k": floats(6, 1, 1)}, "1,6,3,3"),
        (
            "1,4,5,5",
            "c = Conv(x, w, b) y = Sub(c, k)",
            {"w": floats(6, 4, 3, 3), "b": floats(6), "k": floats(1)},
            "1,6,3,3",
        ),
        (
            "1,4,5,5",
            "c = ConvTranspose(x, w) y = Mul(c, k)",
            {"w": floats(4, 6, 3, 3), "k": floats(6, 1, 1)},
            "1,6,7,7",
        ),
        ("3,4", "c = Gemm(x, w, b) y = Mul(c, k)", {"w": floats(4, 6), "b": floats(6), "k": floats(6)}, "3,6"),
        ("3,4", "c = Gemm(x, w) y = Add(c, k)", {"w": floats(4, 6), "k": floats(6)}, "3,6"),
        ("2,3,4", "c = MatMul(x, w) y = Mul(c, k)", {"w": floats(4, 6), "k": floats(6)}, "2,3,6"),
    ],
)
def test_constants_after_a_linear_operator_fold(x: str, body: str, weights: dict[str, np.ndarray], out: str) -> None:
    outcome = run(FoldScaleIntoWeights(), f"g (float[{x}] x) => (float[{out}] y) {{ {body} }}", weights=weights)
    assert len(outcome.ops) == 1


def test_a_factor_behind_a_bias_folds_into_both() -> None:
    outcome = run(
        FoldScaleIntoWeights(),
        "g (float[2,3,4] x) => (float[2,3,6] y) { c = MatMul(x, w) d = Add(c, b) y = Mul(d, k) }",
        weights={"w": floats(4, 6), "b": floats(6), "k": floats(6)},
    )
    assert outcome.ops == ["MatMul", "Add"]


ATTENTION = """g (float[2,5,8] x) => (float[2,4,5,5] y) <float scale = {0.25}, int64[4] s = {2, 5, 4, 2}> {
   q = MatMul(x, w) qb = Add(q, b) qr = Reshape(qb, s) qt = Transpose<perm=[0,2,1,3]>(qr)
   k = MatMul(x, v) kr = Reshape(k, s) kt = Transpose<perm=[0,2,3,1]>(kr)
   p = MatMul(qt, kt) m = %s y = Softmax<axis=-1>(m)
}"""


@pytest.mark.parametrize("factor", ["Mul(p, scale)", "Div(p, scale)", "Mul(scale, p)"])
def test_the_factor_of_an_attention_travels_to_the_query(factor: str) -> None:
    outcome = run(
        FoldScaleIntoWeights(), ATTENTION % factor, weights={"w": floats(8, 8), "v": floats(8, 8), "b": floats(8)}
    )
    assert "Mul" not in outcome.ops
    assert "Div" not in outcome.ops


def test_what_a_factor_travelled_through_no_longer_claims_to_be_the_programs_value() -> None:
    model = parse(ATTENTION % "Mul(p, scale)", {"w": floats(8, 8), "v": floats(8, 8), "b": floats(8)})
    for node in model.graph:
        set_origins(node, [Origin(module="m", value=f"fx_{node.outputs[0].name}")])
    Pipeline([FoldScaleIntoWeights()]).run(model)
    claims = {
        node.op_type: origins_of(node)[0].value for node in model.graph if node.outputs[0].name in ("qt", "kt", "y")
    }
    assert claims["Softmax"] == "fx_y"
    query = next(node for node in model.graph if node.outputs[0].name == "qt")
    key = next(node for node in model.graph if node.outputs[0].name == "kt")
    assert origins_of(query)[0].value == ""
    assert origins_of(key)[0].value == "fx_kt"


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        ("c = MatMul(x, w) y = Add(c, k)", {"w": floats(4, 6), "k": floats(6)}, "MatMul has no bias"),
        ("c = Gemm(x, w) y = Mul(c, k)", {"w": floats(4, 6), "k": floats(3, 6)},
         "the constant is not one number per channel"),
        ("c = Gemm(x, w) y = Mul(c, x6)", {"w": floats(4, 6)}, "the other operand is not constant"),
        ("c = Gemm(x, w) y = Div(c, k)", {"w": floats(4, 6), "k": np.zeros(6, np.float32)}, "a division by zero"),
        ("c = Gemm<alpha=2.0>(x, w) y = Mul(c, k)", {"w": floats(4, 6), "k": floats(6)}, "the Gemm has alpha"),
        ("c = Gemm(x, w, b) y = Mul(c, k)", {"w": floats(4, 6), "b": floats(3, 1), "k": floats(6)},
         "the bias of Gemm differs from row to row"),
        ("c = Relu(x) d = Gemm(c, w) e = Relu(d) y = Mul(e, k)", {"w": floats(4, 6), "k": floats(1)},
         "Relu stands between the factor and the weight"),
        ("c = MatMul(x, w) d = Transpose(c) e = Transpose(d) y = Mul(e, k) z = Relu(c)",
         {"w": floats(4, 6), "k": floats(1)},
         "a value between the factor and the weight is read elsewhere"),
    ],
)  # fmt: skip
def test_constants_that_do_not_fold(body: str, weights: dict[str, np.ndarray], reason: str) -> None:
    result = "float[3,6] y, float[3,6] z" if "z = " in body else "float[3,6] y"
    outcome = run(
        FoldScaleIntoWeights(),
        f"g (float[3,4] x, float[3,6] x6) => ({result}) {{ {body} }}",
        weights=weights,
        numbers="Div" not in body,
    )
    assert reason in outcome.reasons


def test_a_factor_that_travels_is_one_rewrite() -> None:
    """In its middle it stands in the weight and in its old place: a search for a wrong rewrite must not stop there."""
    from graphforge.transform.rewrites import RewriteLog

    model = parse(
        "g (float[2,3,4] x) => (float[2,6,3] y) <float k = {0.5}> "
        "{ c = MatMul(x, w) t = Transpose<perm = [0, 2, 1]>(c) y = Mul(t, k) }",
        {"w": floats(4, 6)},
    )
    log = RewriteLog()
    Pipeline([FoldScaleIntoWeights()]).run(model, [log])
    assert [rewrite.rule for rewrite in log.rewrites] == ["TravellingFactor"]
    assert [node.op_type for node in model.graph] == ["MatMul", "Transpose"]
