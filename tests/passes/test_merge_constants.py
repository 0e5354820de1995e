"""merge-constants: factors and summands that follow each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import graphforge
from graphforge.passes.merge_constants import MergeConstants
from tests.passes.harness import run

CONSTANTS = """<float two = {2}, float three = {3}, float zero = {0}, float[3] row = {1, 2, 3},
  float[2,1] column = {4, 5}, float tiny = {1e-30}, float huge = {1e30}, float magic = {12582912}>"""


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Mul(x, two) y = Mul(a, three)", ["Mul"]),
        ("a = Mul(two, x) b = Div(a, three) y = Mul(row, b)", ["Mul"]),
        ("a = Div(x, two) y = Div(a, row)", ["Mul"]),
        ("a = Add(x, two) b = Add(a, row) y = Add(three, b)", ["Add"]),
        ("a = Mul(x, two) b = Add(a, three) y = Mul(b, two)", ["Mul", "Add", "Mul"]),
        ("a = Sub(two, x) y = Add(a, three)", ["Sub", "Add"]),
    ],
)
def test_merges(body: str, left: list[str]) -> None:
    assert run(MergeConstants(), f"g (float[2,3] x) => (float[2,3] y) {CONSTANTS} {{ {body} }}").ops == left


def test_a_product_that_others_read_stays_for_them() -> None:
    body = "a = Mul(x, two) b = Mul(a, three) y = Sub(b, a)"
    outcome = run(MergeConstants(), f"g (float[2,3] x) => (float[2,3] y) {CONSTANTS} {{ {body} }}")
    assert outcome.ops == ["Mul", "Mul", "Sub"]
    assert all(node.inputs[0] is outcome.model.graph.inputs[0] for node in outcome.model.graph if node.op_type == "Mul")


def test_a_sum_that_others_read_stays_as_it_is() -> None:
    body = "a = Add(x, two) b = Add(a, three) y = Mul(b, a)"
    outcome = run(MergeConstants(), f"g (float[2,3] x) => (float[2,3] y) {CONSTANTS} {{ {body} }}")
    assert outcome.ops == ["Add", "Add", "Mul"]
    assert outcome.record.changes == 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a = Mul(x, row) y = Mul(a, column)", "the merged constant would be larger than both"),
        (
            "a = Mul(x, tiny) y = Mul(a, tiny)",
            "factors so extreme that the product between them may overflow or vanish",
        ),
        (
            "a = Mul(x, huge) y = Mul(a, tiny)",
            "factors so extreme that the product between them may overflow or vanish",
        ),
        (
            "a = Add(x, magic) y = Sub(a, magic)",
            "the summands cancel: adding and taking away a large number is how some programs round",
        ),
        ("a = Mul(x, two) y = Div(a, zero)", "a division by zero"),
        ("a = Mul(x, two) y = Mul(a, w)", "Mul has no constant operand"),
        ("a = Add(x, two) y = Add(a, three) z = Relu(a)", "the result of Add is read elsewhere"),
    ],
)
def test_stays(body: str, reason: str) -> None:
    outputs = "float[2,3] y, float[2,3] z" if "z =" in body else "float[2,3] y"
    outcome = run(MergeConstants(), f"g (float[2,3] x, float[2,3] w) => ({outputs}) {CONSTANTS} {{ {body} }}")
    assert reason in outcome.reasons


def test_integers_stay() -> None:
    text = "g (int64[2] x) => (int64[2] y) <int64 two = {2}> { a = Mul(x, two) y = Div(a, two) }"
    assert run(MergeConstants(), text).ops == ["Mul", "Div"]


def test_attention_over_a_scaled_tensor_itself_loads(tmp_path: Path) -> None:
    """Written out, its queries and keys are products of a product that is its values as well."""

    class Attends(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scaled = x * 2
            return torch.nn.functional.scaled_dot_product_attention(scaled, scaled, scaled, is_causal=True)

    bundle = graphforge.compile(Attends(), torch.randn(1, 2, 3, 4), opset=18, output=tmp_path / "bundle")
    assert bundle.manifest["verification"]["verdict"] == "passed"
