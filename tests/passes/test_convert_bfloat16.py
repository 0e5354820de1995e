"""convert-bfloat16: every magnitude fits, rounding alone decides; the rest is convert-float16's."""

from __future__ import annotations

import numpy as np

from graphforge.ir import DataType
from graphforge.passes.convert_bfloat16 import ConvertBfloat16
from graphforge.ranges import SAMPLES, Samples
from tests.passes.harness import Outcome, parse, run


def _on(body: str, x: np.ndarray) -> Outcome:
    model = parse(body, {"w": np.eye(4, dtype=np.float32)})
    model.meta[SAMPLES] = Samples(({"x": x},), "these")
    return run(ConvertBfloat16(), model, numbers=False)


def test_squares_of_large_numbers_fit() -> None:
    x = np.full((1, 4), 1e6, np.float32)
    outcome = _on("g (float[1,4] x) => (float[1,4] y) { p = MatMul(x, w) y = Mul(p, p) }", x)
    assert outcome.ops == ["Cast", "MatMul", "Mul", "Cast"]
    assert outcome.model.graph.initializers["w"].dtype == DataType.BFLOAT16


def test_what_three_digits_do_not_hold_stays() -> None:
    outcome = _on(
        "g (float[1,4] x) => (float[1,4] y) <float c = {8.0}> { a = Add(x, c) b = Sub(a, c) y = MatMul(b, w) }",
        np.asarray([[0.01, 0.02, -0.01, 0.005]], np.float32),
    )
    subtraction = next(node for node in outcome.model.graph if node.op_type == "Sub")
    assert subtraction.outputs[0].dtype == DataType.FLOAT
    assert any("its own rounding is too much" in note for note in outcome.record.notes)
