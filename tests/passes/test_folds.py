"""fold-batch-norm, fold-scale-into-weights and fuse-pad-into-conv."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from graphforge.ir import Origin, origins_of, set_origins
from graphforge.passes.eliminate_dead_code import EliminateDeadCode
from graphforge.passes.fold_batch_norm import FoldBatchNorm
from graphforge.passes.fold_scale_into_weights import FoldScaleIntoWeights
from graphforge.passes.fuse_pad_into_conv import FusePadIntoConv
from graphforge.transform import Pipeline
from tests.passes.harness import parse, run

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def norm(channels: int) -> dict[str, np.ndarray]:
    return {
        "gamma": floats(channels),
        "beta": floats(channels),
        "mean": floats(channels),
        "var": np.abs(floats(channels)) + 0.1,
    }


BN = "BatchNormalization(%s, gamma, beta, mean, var)"


@pytest.mark.parametrize(
    ("x", "node", "weights", "out"),
    [
        ("2,4,7,7", "Conv<pads=[1,1,1,1]>(x, w)", {"w": floats(6, 4, 3, 3)}, "2,6,7,7"),
        ("2,4,7,7", "Conv<group=2>(x, w, b)", {"w": floats(6, 2, 3, 3), "b": floats(6)}, "2,6,5,5"),
        ("2,4,7", "Conv(x, w)", {"w": floats(6, 4, 3)}, "2,6,5"),
        ("2,4,5,5", "ConvTranspose<strides=[2,2]>(x, w, b)", {"w": floats(4, 6, 2, 2), "b": floats(6)}, "2,6,10,10"),
        ("2,4,5,5", "ConvTranspose<group=2>(x, w)", {"w": floats(4, 3, 2, 2)}, "2,6,6,6"),
        ("3,4", "Gemm(x, w, b)", {"w": floats(4, 6), "b": floats(6)}, "3,6"),
        ("3,4", "Gemm<transB=1>(x, w)", {"w": floats(6, 4)}, "3,6"),
        ("3,4", "Gemm<transB=1>(x, w, b)", {"w": floats(6, 4), "b": floats(1)}, "3,6"),
        ("3,4", "MatMul(x, w)", {"w": floats(4, 6)}, "3,6"),
    ],
)
def test_norm_folds_into_what_comes_before(x: str, node: str, weights: dict[str, np.ndarray], out: str) -> None:
    outcome = run(
        FoldBatchNorm(),
        f"g (float[{x}] x) => (float[{out}] y) {{ c = {node} n = {BN % 'c'} y = Relu(n) }}",
        weights={**weights, **norm(6)},
    )
    assert "BatchNormalization" not in outcome.ops
    assert outcome.ops[0] == node.partition("(")[0].partition("<")[0]


def test_norm_behind_a_linear_that_was_flattened() -> None:
    outcome = run(
        FoldBatchNorm(),
        f"""g (float[2,5,4] x) => (float[10,6] y) <int64[2] s = {{10, 6}}> {{
           c = MatMul(x, w) r = Reshape(c, s) n = {BN % "r"} y = Relu(n)
        }}""",
        weights={"w": floats(4, 6), **norm(6)},
    )
    assert outcome.ops == ["MatMul", "Add", "Reshape", "Relu"]


@pytest.mark.parametrize(
    ("x", "node", "weights", "out"),
    [
        ("2,4,7,7", "Conv(n, w)", {"w": floats(6, 4, 3, 3)}, "2,6,5,5"),
        ("2,4,7,7", "Conv<group=2>(n, w, b)", {"w": floats(6, 2, 3, 3), "b": floats(6)}, "2,6,5,5"),
        ("3,4", "Gemm(n, w, b)", {"w": floats(4, 6), "b": floats(6)}, "3,6"),
        ("3,4", "Gemm<transB=1>(n, w)", {"w": floats(6, 4)}, "3,6"),
        ("3,4", "MatMul(n, w)", {"w": floats(4, 6)}, "3,6"),
    ],
)
def test_norm_folds_into_what_comes_after(x: str, node: str, weights: dict[str, np.ndarray], out: str) -> None:
    outcome = run(
        FoldBatchNorm(),
        f"g (float[{x}] x) => (float[{out}] y) {{ n = {BN % 'x'} c = {node} y = Relu(c) }}",
        weights={**weights, **norm(4)},
    )
    assert "BatchNormalization" not in outcome.ops


def declined(body: str, reason: str, weights: dict[str, np.ndarray], **feeds: np.ndarray) -> None:
    outcome = run(FoldBatchNorm(), body, weights=weights, feeds=feeds or None)
    assert reason in outcome.reasons
    assert "BatchNormalization" in outcome.ops


def test_norm_stays_when_the_conv_has_two_users() -> None:
    declined(
        f"g (float[1,4,5,5] x) => (float[1,6,3,3] y, float[1,6,3,3] z) {{ c = Conv(x, w) y = {BN % 'c'} z = Relu(c) }}",
        "the result of Conv is read elsewhere",
        {"w": floats(6, 4, 3, 3), **norm(6)},
    )


def test_norm_stays_when_the_conv_is_handed_out() -> None:
    declined(
        f"g (float[1,4,5,5] x) => (float[1,6,3,3] c, float[1,6,3,3] y) {{ c = Conv(x, w) y = {BN % 'c'} }}",
        "the result of Conv is read elsewhere",
        {"w": floats(6, 4, 3, 3), **norm(6)},
    )


def test_norm_stays_when_the_weight_is_computed() -> None:
    declined(
        f"g (float[1,4,5,5] x, float[6,4,3,3] w) => (float[1,6,3,3] y) {{ c = Conv(x, w) y = {BN % 'c'} }}",
        "the weight of Conv is not constant",
        norm(6),
    )


def test_norm_stays_when_its_parameters_are_computed() -> None:
    declined(
        f"g (float[1,4,5,5] x, float[6] gamma) => (float[1,6,3,3] y) {{ c = Conv(x, w) y = {BN % 'c'} }}",
        "the parameters of the BatchNorm are not constant",
        {"w": floats(6, 4, 3, 3), **{name: array for name, array in norm(6).items() if name != "gamma"}},
    )


def test_norm_stays_in_training_mode() -> None:
    outcome = run(
        FoldBatchNorm(),
        """g (float[1,4,5,5] x) => (float[1,6,3,3] y) {
           c = Conv(x, w) y = BatchNormalization<training_mode=1>(c, gamma, beta, mean, var)
        }""",
        weights={"w": floats(6, 4, 3, 3), **norm(6)},
        numbers=False,
    )
    assert outcome.reasons == ["the BatchNorm is in training mode"]


def test_norm_before_a_padded_conv_stays() -> None:
    declined(
        f"g (float[1,4,5,5] x) => (float[1,6,5,5] y) {{ n = {BN % 'x'} y = Conv<pads=[1,1,1,1]>(n, w) }}",
        "the padding of the Conv is not shifted by the BatchNorm",
        {"w": floats(6, 4, 3, 3), **norm(4)},
    )


def test_norm_over_other_channels_than_those_of_the_product_stays() -> None:
    declined(
        f"g (float[2,6,4] x) => (float[2,6,6] y) {{ c = MatMul(x, w) y = {BN % 'c'} }}",
        "the channels of the MatMul are not those of the BatchNorm",
        {"w": floats(4, 6), **norm(6)},
    )


def test_norm_of_zero_variance_stays() -> None:
    body = """g (float[1,4,5,5] x) => (float[1,6,3,3] y) {
       c = Conv(x, w) y = BatchNormalization<epsilon=0.0>(c, gamma, beta, mean, var)
    }"""
    weights = {"w": floats(6, 4, 3, 3), **norm(6), "var": np.zeros(6, np.float32)}
    outcome = run(FoldBatchNorm(), body, weights=weights, numbers=False)
    assert outcome.reasons == ["the BatchNorm divides by zero"]


def test_the_new_weight_of_a_large_conv_is_computed_when_it_is_written() -> None:
    outcome = run(
        FoldBatchNorm(),
        f"g (float[1,128,5,5] x) => (float[1,128,3,3] y) {{ c = Conv(x, w) y = {BN % 'c'} }}",
        weights={"w": floats(128, 128, 3, 3), **norm(128)},
    )
    weight = outcome.model.graph[0].inputs[1]
    assert weight is not None
    assert isinstance(weight.const_value, onnx_ir.LazyTensor)
    assert weight.name == "w/folded"


def test_the_conv_that_is_left_comes_from_both() -> None:
    model = parse(
        f"g (float[1,4,5,5] x) => (float[1,6,3,3] y) {{ c = Conv(x, w) y = {BN % 'c'} }}",
        {"w": floats(6, 4, 3, 3), **norm(6)},
    )
    for node, module in zip(model.graph, ("conv1", "bn1"), strict=True):
        set_origins(node, [Origin(module=module)])
    Pipeline([FoldBatchNorm()]).run(model)
    assert {origin.module for origin in origins_of(model.graph[0])} == {"conv1", "bn1"}


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


PADS = """<int64[8] p = {0, 0, 1, 2, 0, 0, 1, 0}, int64[8] channel = {0, 1, 0, 0, 0, 0, 0, 0},
  int64[8] crop = {0, 0, -1, 0, 0, 0, 0, 0}, float one = {1}, int64[4] two = {1, 1, 0, 2}, int64[2] axes = {2, 3}>"""


@pytest.mark.parametrize(
    "body",
    [
        "a = Pad(x, p) y = Conv(a, w)",
        "a = Pad(x, two, , axes) y = Conv<pads=[1,0,0,1]>(a, w)",
        "a = Pad(x, p) y = AveragePool<kernel_shape=[3,3]>(a)",
        "r = Relu(x) a = Pad(r, p) y = MaxPool<kernel_shape=[3,3]>(a)",
    ],
)
def test_padding_fuses(body: str) -> None:
    outcome = run(
        [FusePadIntoConv(), EliminateDeadCode()],
        f"g (float[1,4,6,6] x) => (float[A,B,C,D] y) {PADS} {{ {body} }}",
        weights={"w": floats(4, 4, 3, 3)},
    )
    assert "Pad" not in outcome.ops


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('a = Pad<mode="reflect">(x, p) y = Conv(a, w)', "the Pad is of mode reflect"),
        ("a = Pad(x, p, one) y = Conv(a, w)", "Conv pads zeros, not 1.0"),
        ("a = Pad(x, crop) y = Conv(a, w)", "the Pad crops"),
        ("a = Pad(x, channel) y = Conv(a, v)", "the Pad also pads the batch or the channels"),
        ('a = Pad(x, p) y = Conv<auto_pad="SAME_UPPER">(a, w)', "the operator pads by its own rule (auto_pad)"),
        ("a = Pad(x, p) y = MaxPool<kernel_shape=[3,3]>(a)", "what is padded may win in the MaxPool"),
        ("a = Pad(x, p) y = AveragePool<kernel_shape=[2,2]>(a)", "the padding is as wide as the window"),
        (
            "a = Pad(x, p) y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)",
            "the AveragePool counts one padding and not the other",
        ),
        ("a = Pad(x, p) y = Conv(a, w) z = Relu(a)", "the result of Pad is read elsewhere"),
    ],
)
def test_padding_stays(body: str, reason: str) -> None:
    result = "float[A,B,C,D] y, float[E,F,G,H] z" if "z = " in body else "float[A,B,C,D] y"
    outcome = run(
        FusePadIntoConv(),
        f"g (float[1,4,6,6] x) => ({result}) {PADS} {{ {body} }}",
        weights={"w": floats(4, 4, 3, 3), "v": floats(4, 5, 3, 3)},
    )
    assert reason in outcome.reasons
    assert "Pad" in outcome.ops


def test_padding_of_an_input_stays() -> None:
    outcome = run(
        FusePadIntoConv(),
        "g (float[1,4,6,6] x, int64[8] q) => (float[A,B,C,D] y) { a = Pad(x, q) y = Conv(a, w) }",
        weights={"w": floats(4, 4, 3, 3)},
        feeds={"x": floats(1, 4, 6, 6), "q": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    )
    assert outcome.reasons == ["how much is padded is not constant, or the rank is unknown"]
