"""Compute where kernels are: what is lost is said, what can be exact is, what goes to and fro is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graphforge.ir import nodes_of
from graphforge.ir.detour import Rounding, roundings_of_outputs
from graphforge.ir.dtypes import SUBSTITUTES, holds
from graphforge.passes._double_forms import DOUBLE_FORMS
from graphforge.passes.compute_where_kernels_are import ComputeWhereKernelsAre, runnable
from graphforge.passes.legalise_opset import LegaliseOpset
from graphforge.targets.tables import facts_of
from graphforge.transform import Pipeline
from graphforge.verify.numeric_check import run_as_written
from graphforge.verify.tolerance import Tolerances, for_model
from tests.passes.harness import parse, run

PASS = ComputeWhereKernelsAre()


def test_erf_of_doubles_is_computed_in_single_precision_and_says_so() -> None:
    outcome = run(PASS, "g (double[2,3] x) => (double[2,3] y) { y = Erf(x) }", numbers=False)
    assert outcome.ops == ["Cast", "Erf", "Cast"]
    assert outcome.record.notes == ("Erf of float64 is computed in float32",)
    assert roundings_of_outputs(outcome.model) == {"y": (Rounding("Erf", "float64", "float32"),)}
    assert outcome.model.graph.outputs[0].dtype == ir.DataType.DOUBLE


def test_a_note_once_for_each_operator_and_nothing_to_and_fro_between_two() -> None:
    body = "g (double[2] x) => (double[2] y) { a = Erf(x) b = Erf(a) y = Atan(b) }"
    outcome = run(PASS, body, numbers=False)
    assert outcome.ops == ["Cast", "Erf", "Erf", "Atan", "Cast"]
    assert outcome.record.notes == ("Erf of float64 is computed in float32", "Atan of float64 is computed in float32")


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("Acosh(x)", lambda x: np.arccosh(x)),
        ("Asinh(x)", lambda x: np.arcsinh(x)),
        ("Atanh(z)", lambda x: np.arctanh(1 / x)),
        ("Cosh(x)", lambda x: np.cosh(x)),
        ('Gelu<approximate = "tanh">(x)', lambda x: _gelu(x)),
        ("GlobalAveragePool(x)", lambda x: x.mean((2, 3), keepdims=True)),
        ("HardSwish(x)", lambda x: x * np.clip(x + 3, 0, 6) / 6),
        ("Mish(x)", lambda x: x * np.tanh(np.log1p(np.exp(x)))),
        ("PRelu(y, z)", lambda x: -x / x),
        ("Sinh(x)", lambda x: np.sinh(x)),
        ("Softplus(x)", lambda x: np.log1p(np.exp(x))),
        ("Tan(x)", lambda x: np.tan(x)),
    ],
)
def test_doubles_keep_their_digits_where_other_operators_make_them(
    node: str, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    body = (
        "g (double[1,2,3,4] x) => (double[1,2,A,B] out) { y = Neg(x) z = Reciprocal(x) "
        f"w = Identity(y) v = Identity(z) out = {node} }}"
    )
    able = runnable(parse(body))
    x = np.random.default_rng(0).uniform(1.1, 4, (1, 2, 3, 4))
    found = run_as_written(able, {"x": x})["out"]
    np.testing.assert_allclose(found, np.broadcast_to(expected(x), found.shape), rtol=1e-12)
    assert roundings_of_outputs(able) == {}


def _gelu(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return result


def test_every_form_of_doubles_is_tried_above_and_names_what_it_is_made_of() -> None:
    kernels = facts_of("onnxruntime").kernels
    # Clip has a kernel for doubles from opset 12 on, and is tried at 11 below
    assert {name for name, form in DOUBLE_FORMS.items() if kernels.has(name, ir.DataType.DOUBLE)} == {"Clip"}
    assert all(kernels.has(need, ir.DataType.DOUBLE) for form in DOUBLE_FORMS.values() for need in form.needs)


@pytest.mark.parametrize("bounds", ["low, high", "low", "'', high"])
def test_clip_of_doubles_keeps_its_digits_at_opset_11(bounds: str) -> None:
    body = f"g (double[4] x, double low, double high) => (double[4] y) {{ y = Clip(x, {bounds}) }}".replace("''", "")
    model = parse(body)
    Pipeline([LegaliseOpset(11)]).run(model)
    x, low, high = np.array([-1.25, 0.1, 7.7, np.nan]), np.array(0.1 + 1e-12), np.array(2 / 3)
    found = run_as_written(runnable(model), {"x": x, "low": low, "high": high})["y"]
    expected = np.clip(x, low if "low" in bounds else None, high if "high" in bounds else None)
    np.testing.assert_array_equal(found, expected)


def test_bfloat16_is_computed_exactly_in_single_precision_without_a_note() -> None:
    outcome = run(PASS, "g (bfloat16[2] x, bfloat16[2] z) => (bfloat16[2] y) { y = Add(x, z) }", numbers=False)
    assert sorted(outcome.ops) == ["Add", "Cast", "Cast", "Cast"]
    assert outcome.record.notes == ()
    assert roundings_of_outputs(outcome.model) == {}


def test_rounding_to_bfloat16_between_two_operators_stays() -> None:
    """float32 holds more than bfloat16: the cast there and back is what the model means."""
    body = "g (bfloat16[2] x, bfloat16[2] z) => (bfloat16[2] y) { a = Add(x, z) y = Mul(a, z) }"
    outcome = run(PASS, body, numbers=False)
    casts = [node for node in nodes_of(outcome.model.graph) if node.op_type == "Cast"]
    assert [cast.attributes["to"].as_int() for cast in casts].count(ir.DataType.BFLOAT16) == 2


def test_short_integers_are_exact_in_a_wider_type() -> None:
    feeds = {"x": np.array([100, -128], np.int16), "z": np.array([-5, 127], np.int16)}
    model = parse("g (int16[2] x, int16[2] z) => (int16[2] y) { y = Max(x, z) }")
    able = runnable(model)
    assert able is not model
    assert [node.op_type for node in model.graph] == ["Max"]
    assert sorted(node.op_type for node in able.graph) == ["Cast", "Cast", "Cast", "Max"]
    assert run_as_written(able, feeds)["y"].tolist() == [100, 127]


def test_what_has_kernels_stays_as_it_is() -> None:
    model = parse("g (float[2] x, double[2] z) => (float[2] y, double[2] w) { y = Erf(x) w = Exp(z) }")
    assert runnable(model) is model
    (record,) = Pipeline([PASS]).run(model)
    assert (record.changes, record.notes) == (0, ())


def test_the_other_inputs_keep_their_type() -> None:
    """The condition of Where, the axes of a reduction, the indices of OneHot are no operands of the type that lacks."""
    outcome = run(PASS, "g (bool[2] c, int16[2] x, int16[2] z) => (int16[2] y) { y = Where(c, x, z) }", numbers=False)
    where = next(node for node in nodes_of(outcome.model.graph) if node.op_type == "Where")
    assert [value.dtype for value in where.inputs if value is not None] == [
        ir.DataType.BOOL,
        ir.DataType.INT32,
        ir.DataType.INT32,
    ]


def test_statistics_of_the_same_type_go_with_the_tensor() -> None:
    """Scale and mean of BatchNormalization have type variables of their own, and the kernel lacks bfloat16 for all."""
    body = """g (bfloat16[1,2,3] x, bfloat16[2] s, bfloat16[2] b, bfloat16[2] m, bfloat16[2] v) => (bfloat16[1,2,3] y)
    { y = BatchNormalization(x, s, b, m, v) }"""
    outcome = run(PASS, body, numbers=False)
    norm = next(node for node in nodes_of(outcome.model.graph) if node.op_type == "BatchNormalization")
    assert {value.dtype for value in norm.inputs if value is not None} == {ir.DataType.FLOAT}


def test_indices_beside_values_are_not_cast_back() -> None:
    body = "g (uint16[5] x, int64[1] k) => (uint16[2] v, int64[2] i) { v, i = TopK(x, k) }"
    outcome = run(PASS, body, numbers=False)
    assert [value.dtype for value in outcome.model.graph.outputs] == [ir.DataType.UINT16, ir.DataType.INT64]
    assert outcome.ops == ["Cast", "TopK", "Cast"]


def test_scatter_without_a_reduction_moves_any_type() -> None:
    """Only its reductions lack kernels."""
    head = "g (float16[3] x, int64[2] i, float16[2] u) => (float16[3] y)"
    assert run(PASS, head + " { y = ScatterElements(x, i, u) }").ops == ["ScatterElements"]
    assert "Cast" in run(PASS, head + ' { y = ScatterElements<reduction = "add">(x, i, u) }', numbers=False).ops


def test_bodies_are_looked_at_too() -> None:
    body = """
    g (bool c, double[2] x) => (double[2] y) {
      y = If (c) <
        then_branch = then () => (double[2] a) { a = Erf(x) },
        else_branch = other () => (double[2] b) { b = Exp(x) }
      >
    }"""
    outcome = run(PASS, body, numbers=False)
    assert [rounding.operator for rounding in roundings_of_outputs(outcome.model)["y"]] == ["Erf"]


def test_only_outputs_behind_it_are_judged_more_coarsely() -> None:
    model = parse("g (double[2] x) => (double[2] y, double[2] z) { y = Erf(x) z = Exp(x) }")
    Pipeline([PASS, LegaliseOpset(17)]).run(model)
    fitting = for_model(None, model)
    default = Tolerances()
    assert fitting.of("y", "float64") == default.of("y", "float32")
    assert fitting.of("y", "float16") == default.of("y", "float16")
    assert fitting.of("y", "int64") == default.of("y", "int64")
    assert fitting.of("z", "float64") == default.of("z", "float64")
    (why,) = fitting.loosened
    assert why.startswith("output y judged as float32 (")
    assert why.endswith("): Erf of float64 is computed in float32")
    assert fitting.to_dict()["computed_in"] == {"y": "float32"}


def test_an_older_version_has_kernels_for_less() -> None:
    """Pad of bfloat16 came with version 21 in ONNX Runtime 1.32."""
    kernels = facts_of("onnxruntime", "1.32.0").kernels
    assert kernels.instead("Pad", ir.DataType.BFLOAT16, 23) is None
    assert kernels.instead("Pad", ir.DataType.BFLOAT16, 19) == ir.DataType.FLOAT


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    file.write_text('title = "Board"\n[[release]]\n[release.kernels]\n"float32" = "Relu"\n')
    outcome = run(
        ComputeWhereKernelsAre(str(file)), "g (float16[2] x) => (float16[2] y) { y = Relu(x) }", numbers=False
    )
    assert outcome.ops == ["Cast", "Relu", "Cast"]
    assert Pipeline.parse(outcome.record.spec)[0] == ComputeWhereKernelsAre(str(file))


@pytest.mark.parametrize("asked", SUBSTITUTES)
def test_what_is_called_exact_is(asked: ir.DataType) -> None:
    """A cast there and back changes no value of a dtype that the other holds."""
    kind = asked.numpy()
    if asked in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        values = np.arange(1 << 16, dtype=np.uint16).view(kind)
        values = values[np.isfinite(values.astype(np.float32))]
    elif kind.kind in "iu":
        info = np.iinfo(kind)
        values = np.array([info.min, info.min + 1, 0, 1, info.max - 1, info.max], kind)
    elif kind.kind == "b":
        values = np.array([False, True])
    else:
        values = np.array([np.finfo(kind).max, np.finfo(kind).tiny, 1 + np.finfo(kind).eps, 0], kind)
    with np.errstate(over="ignore", invalid="ignore"):
        for other in SUBSTITUTES[asked]:
            there = values.astype(other.numpy())
            same = bool((there.astype(kind) == values).all()) and not bool((there < 0).any() and (values >= 0).all())
            assert holds(other, asked) == same, other


def test_a_copy_still_says_it() -> None:
    outcome = run(PASS, "g (double[2] x) => (double[2] y) { y = Erf(x) }", numbers=False)
    assert roundings_of_outputs(outcome.model.clone()) == roundings_of_outputs(outcome.model)
