"""fuse-matmul-add, fuse-layer-norm, fuse-rms-norm, fuse-gelu, fuse-hard-swish and unpack-sequences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from graphforge.passes.eliminate_dead_code import EliminateDeadCode
from graphforge.passes.fuse_gelu import FuseGelu
from graphforge.passes.fuse_hard_swish import FuseHardSwish
from graphforge.passes.fuse_layer_norm import FuseLayerNorm
from graphforge.passes.fuse_matmul_add import FuseMatmulAdd
from graphforge.passes.fuse_rms_norm import FuseRmsNorm
from graphforge.passes.unpack_sequences import UnpackSequences
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


LAYER_NORM = """g (float[2,5,8] x, float[2,5,8] u) => (float[2,5,8] y)
<int64[1] last = {-1}, int64[1] second = {1}, float two = {2}, float epsilon = {0.00001}> {
   m = ReduceMean<keepdims=1>(x, last) d = Sub(x, m) p = %s v = ReduceMean<keepdims=1>(p, %s)
   e = Add(v, epsilon) s = Sqrt(e) n = Div(d, s) %s
}"""


@pytest.mark.parametrize("square", ["Pow(d, two)", "Mul(d, d)"])
@pytest.mark.parametrize("tail", ["y = Identity(n)", "y = Mul(n, w)", "y = Mul(w, n)", "k = Mul(n, w) y = Add(k, b)"])
def test_layer_norm(square: str, tail: str) -> None:
    outcome = run(FuseLayerNorm(), LAYER_NORM % (square, "last", tail), weights={"w": floats(8), "b": floats(8)})
    expected = ["LayerNormalization", "Identity"] if "Identity" in tail else ["LayerNormalization"]
    assert outcome.ops == expected
    assert outcome.model.graph[0].attributes["epsilon"].as_float() == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAYER_NORM % ("Pow(d, two)", "second", "y = Identity(n)"), "mean and variance are over different axes"),
        (
            LAYER_NORM.replace("(x, last)", "(x, second)") % ("Pow(d, two)", "second", "y = Identity(n)"),
            "the mean is not over the last axes",
        ),
        (
            LAYER_NORM.replace("float[2,5,8] x,", "float[2,5,N] x,") % ("Pow(d, two)", "last", "y = Identity(n)"),
            "the normalised dims are not known",
        ),
    ],
)  # fmt: skip
def test_what_is_no_layer_norm(text: str, reason: str) -> None:
    outcome = run(FuseLayerNorm(), text, sizes={"N": 8})
    assert outcome.reasons == [reason]
    assert "LayerNormalization" not in outcome.ops


def test_a_factor_of_another_shape_stays_behind_the_norm() -> None:
    outcome = run(FuseLayerNorm(), LAYER_NORM % ("Mul(d, d)", "last", "y = Mul(n, u)"))
    assert outcome.ops == ["LayerNormalization", "Mul"]
    assert outcome.reasons == ["the factor has not the shape of what is normalised"]


RMS = """g (float[2,5,8] x) => (float[2,5,8] y)
<int64[1] last = {-1}, float two = {2}, float one = {1}, float epsilon = {0.00001}> {
   p = %s v = ReduceMean<keepdims=1>(p, last) e = Add(v, epsilon) s = Sqrt(e) %s %s
}"""


@pytest.mark.parametrize("square", ["Pow(x, two)", "Mul(x, x)"])
@pytest.mark.parametrize("norm", ["n = Div(x, s)", "r = Reciprocal(s) n = Mul(x, r)", "r = Div(one, s) n = Mul(x, r)"])
@pytest.mark.parametrize("tail", ["y = Identity(n)", "y = Mul(w, n)"])
def test_rms_norm(square: str, norm: str, tail: str) -> None:
    outcome = run(FuseRmsNorm(), RMS % (square, norm, tail), weights={"w": floats(8)})
    assert outcome.ops[0] == "RMSNormalization"
    assert len(outcome.ops) == 1 + ("Identity" in tail)


def test_a_mean_that_is_read_elsewhere_stays() -> None:
    text = RMS.replace("(float[2,5,8] y)", "(float[2,5,8] y, float[2,5,1] z)")
    outcome = run(FuseRmsNorm(), text % ("Mul(x, x)", "n = Div(x, s)", "y = Identity(n) z = Neg(v)"))
    assert outcome.reasons == ["the result of ReduceMean is read elsewhere"]


GELU = f"""g (float[3,4] x) => (float[3,4] y)
<float root = {{{math.sqrt(2)}}}, float inverse = {{{math.sqrt(0.5)}}}, float one = {{1}}, float half = {{0.5}},
 float third = {{0.3}}, float three = {{3}}, float small = {{0.044715}},
 float pi = {{{math.sqrt(2 / math.pi)}}}> {{ %s }}"""
INNER = [
    "a = Div(x, root) e = Erf(a)",
    "a = Mul(x, inverse) e = Erf(a)",
    "c = Pow(x, three) t = Mul(c, small) s = Add(x, t) a = Mul(s, pi) e = Tanh(a)",
    "q = Mul(x, x) c = Mul(q, x) t = Mul(small, c) s = Add(x, t) a = Mul(pi, s) e = Tanh(a)",
]
OUTER = [
    "g1 = Add(e, one) h = Mul(x, g1) y = Mul(h, half)",
    "g1 = Add(one, e) h = Mul(half, x) y = Mul(h, g1)",
    "g1 = Add(e, one) h = Mul(g1, half) y = Mul(x, h)",
]


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("inner", INNER)
def test_gelu(inner: str, outer: str) -> None:
    outcome = run(FuseGelu(), GELU % f"{inner} {outer}")
    assert outcome.ops == ["Gelu"]
    assert ("approximate" in outcome.model.graph[0].attributes) is ("Tanh" in inner)


def test_what_is_no_gelu() -> None:
    wrong = run(FuseGelu(), GELU % f"{INNER[0]} {OUTER[0].replace('half', 'third')}")
    assert "Gelu" not in wrong.ops
    double = GELU.replace("float[", "double[").replace("float ", "double ") % f"{INNER[0]} {OUTER[0]}"
    outcome = run(FuseGelu(), double, numbers=False)  # ONNX Runtime has no Erf of doubles
    assert "Gelu is not computed in DOUBLE everywhere" in outcome.reasons
    assert "Gelu" not in outcome.ops


SWISH = """g (float[3,4] x) => (float[3,4] y)
<float three = {3}, float six = {6}, float zero = {0}, float sixth = {0.16666667}, float seven = {7}> { %s }"""


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)", ["HardSwish"]),
        ("a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)", ["HardSwish"]),
        ("a = Add(three, x) c = Clip(a, zero, six) d = Mul(sixth, c) y = Mul(d, x)", ["HardSwish"]),
        ("h = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, h)", ["HardSwish"]),
        ("a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)", ["HardSigmoid"]),
        ("a = Add(x, three) c = Clip(a, zero, six) y = Div(c, seven)", ["Add", "Clip", "Div"]),
        ("a = Add(x, three) c = Clip(a, zero, seven) y = Div(c, six)", ["Add", "Clip", "Div"]),
    ],
)
def test_hard_swish(body: str, left: list[str]) -> None:
    assert run(FuseHardSwish(), SWISH % body).ops == left


def test_doubles_stay_in_parts() -> None:
    body = "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)"
    outcome = run(FuseHardSwish(), (SWISH % body).replace("float[", "double[").replace("float ", "double "))
    assert "HardSwish" not in outcome.ops
    assert "HardSigmoid is not computed in DOUBLE everywhere" in outcome.reasons


def test_another_hard_sigmoid_stays() -> None:
    outcome = run(FuseHardSwish(), SWISH % "h = HardSigmoid(x) y = Mul(x, h)")
    assert outcome.reasons == ["the HardSigmoid is another one"]


SEQUENCE = """g (float[6,4] x) => (float[A,B] y) <int64 i0 = {0}, int64 i1 = {-1}, int64 two = {2}, int64 four = {4},
  int64[2] parts = {1, 5}> { %s }"""


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (
            "s = SplitToSequence<axis=0>(x, two) a = SequenceAt(s, i0) b = SequenceAt(s, i1) y = Add(a, b)",
            ["Split", "Add"],
        ),
        ("s = SplitToSequence<axis=0>(x, four) y = SequenceAt(s, i1)", ["Split"]),
        ("s = SplitToSequence<axis=0>(x, parts) y = SequenceAt(s, i1)", ["Split"]),
        ("n = Neg(x) s = SequenceConstruct(x, n) y = ConcatFromSequence<axis=1>(s)", ["Neg", "Concat"]),
        ("n = Neg(x) s = SequenceConstruct(x, n) a = SequenceAt(s, i1) y = Relu(a)", ["Neg", "Relu"]),
    ],
)
def test_sequences_become_tensors(body: str, left: list[str]) -> None:
    assert run(UnpackSequences(), SEQUENCE % body).ops == left


def test_a_sequence_of_single_rows_is_squeezed() -> None:
    outcome = run(
        [UnpackSequences(), EliminateDeadCode()],
        """g (float[3,4] x) => (float[4] y) <int64 i = {1}> {
           s = SplitToSequence<axis=0, keepdims=0>(x) y = SequenceAt(s, i)
        }""",
    )
    assert outcome.ops == ["Split", "Squeeze"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("s = SplitToSequence<axis=0>(x, two) n = SequenceLength(s) f = Cast<to=1>(n) y = Add(x, f)",
         "SequenceLength reads the sequence"),
        ("t = Shape<start=0, end=1>(x) u = Squeeze(t) s = SplitToSequence<axis=0>(x, u) y = SequenceAt(s, i0)",
         "the sizes of the parts are known at run time only"),
    ],
)  # fmt: skip
def test_sequences_that_stay(body: str, reason: str) -> None:
    outcome = run(UnpackSequences(), SEQUENCE % body)
    assert outcome.reasons == [reason]


def test_a_place_that_is_an_input_stays() -> None:
    outcome = run(
        UnpackSequences(),
        """g (float[6,4] x, int64 i) => (float[A,B] y) <int64 two = {2}> {
           s = SplitToSequence<axis=0>(x, two) y = SequenceAt(s, i)
        }""",
        feeds={"x": floats(6, 4), "i": np.array(1)},
    )
    assert outcome.reasons == ["a place in the sequence is known at run time only"]
