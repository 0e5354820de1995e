"""fold-batch-norm: into what comes before or after, and when it stays."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from graphforge.ir import Origin, origins_of, set_origins
from graphforge.passes.fold_batch_norm import FoldBatchNorm
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
