"""Comparison of two arrays: what passes, what fails, and what the report says about it."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest

from graphforge.errors import UsageError
from graphforge.runners.arrays import Array
from graphforge.verify import Tolerance, Tolerances, compare_arrays
from graphforge.verify.compare import OutputComparison


def compare(reference: object, artifact: object, dtype: str = "float32") -> OutputComparison:
    one, other = np.asarray(reference, dtype), np.asarray(artifact, dtype)
    return compare_arrays("y", one, other, Tolerances().of("y", dtype))


def test_rounding_passes_and_is_measured() -> None:
    found = compare([1.0, -4.0], [1.0 + 1e-6, -4.0])
    assert found.passed
    assert found.max_abs == pytest.approx(1e-6, rel=0.1)
    assert found.max_rel == pytest.approx(0.25e-6, rel=0.1)
    assert found.max_reference == 4.0


def test_allowance_scales_with_the_output() -> None:
    assert not compare([1e-5, 2e-5], [1e-5, 2.1e-5]).passed
    assert compare([1e5, 2e5], [1e5, 2e5 + 4]).passed
    assert not compare([1e5, 2e5], [1e5, 2e5 + 40]).passed


def test_what_underflows_is_not_judged_by_its_noise() -> None:
    # below float32's smallest normal number: one side flushes products to zero, the other keeps them
    assert compare([-3.8e-40, 2e-41], [-5.0e-40, 0.0]).passed
    assert not compare([-3.8e-30, 2e-31], [-5.0e-30, 0.0]).passed


def test_tanh_gelu_is_no_substitute_for_erf_gelu() -> None:
    x = np.linspace(-4, 4, 1001)
    erf = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x])
    tanh = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    assert not compare(erf, tanh).passed


def test_the_worst_element_is_named() -> None:
    reference = np.ones((2, 3), np.float32)
    artifact = reference.copy()
    artifact[1, 2] = 1.5
    found = compare(reference, artifact)
    assert found.worst == (1, 2)
    assert (found.worst_reference, found.worst_artifact, found.mismatched) == (1.0, 1.5, 1)
    assert "[1, 2]" in found.reason


def test_worst_is_the_element_furthest_over_its_own_allowance() -> None:
    # the large element may be off by more than the small one
    found = compare([1000.0, 0.0], [1000.04, 0.03])
    assert found.worst == (1,)
    assert found.mismatched == 1


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint64", "bool"])
def test_integers_and_bools_are_exact(dtype: str) -> None:
    assert compare([0, 1, 1], [0, 1, 1], dtype).passed
    found = compare([0, 1, 1], [0, 1, 0], dtype)
    assert not found.passed
    assert (found.worst, found.mismatched) == ((2,), 1)


def test_large_integers_do_not_hide_in_float_rounding() -> None:
    assert not compare([2**62], [2**62 + 1], "int64").passed


def test_loosening_floats_leaves_integers_exact() -> None:
    loose = Tolerances().loosen(because="test", atol=10.0)
    assert not compare_arrays("y", np.array([1]), np.array([2]), loose.of("y", "int64")).passed
    named = Tolerances().loosen(because="test", output="y", atol=10.0)
    assert not compare_arrays("y", np.array([1]), np.array([2]), named.of("y", "int64")).passed


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_nonfinite_in_the_artifact_fails(strange: float) -> None:
    found = compare([1.0, 2.0], [1.0, strange])
    assert not found.passed
    assert "[1]" in found.reason


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_the_same_nonfinite_fails_unless_allowed(strange: float) -> None:
    both = np.array([1.0, strange], np.float32)
    default = compare_arrays("y", both, both, Tolerances().of("y", "float32"))
    assert not default.passed
    assert "reference itself" in default.reason
    allowed = Tolerances().loosen(because="--allow-nonfinite", allow_nonfinite=True).of("y", "float32")
    assert compare_arrays("y", both, both, allowed).passed
    other = np.array([1.0, -math.inf if strange != -math.inf else math.nan], np.float32)
    assert not compare_arrays("y", both, other, allowed).passed
    assert not compare_arrays("y", both, np.array([1.0, 2.0], np.float32), allowed).passed
    assert not compare_arrays("y", np.array([1.0, 2.0], np.float32), both, allowed).passed


def test_shape_and_dtype_must_be_equal() -> None:
    found = compare_arrays("y", np.zeros((2, 28)), np.zeros((2, 14)), Tolerance(1.0))
    assert not found.passed
    assert "axis 1: 28 expected, 14 came" in found.reason
    assert not compare_arrays("y", np.zeros((2,)), np.zeros((2, 1)), Tolerance(1.0)).passed
    assert not compare_arrays("y", np.zeros(2, np.float32), np.zeros(2, np.float64), Tolerance(1.0)).passed


def test_empty_and_scalar_outputs() -> None:
    assert compare(np.zeros((0, 4)), np.zeros((0, 4))).passed
    assert compare(np.array(1.0), np.array(1.0)).passed
    assert compare(np.array(1.0), np.array(2.0)).worst == ()


def test_half_formats_have_their_own_tolerance() -> None:
    one = np.array([1.0, 100.0], ml_dtypes.bfloat16)
    other = np.array([1.0, 101.0], ml_dtypes.bfloat16)
    assert compare_arrays("y", one, other, Tolerances().of("y", "bfloat16")).passed
    far = np.array([1.0, 120.0], ml_dtypes.bfloat16)
    assert not compare_arrays("y", one, far, Tolerances().of("y", "bfloat16")).passed


def test_complex_outputs_compare_both_parts() -> None:
    one = np.array([[1 + 2j, 3 - 4j]], np.complex64)
    assert compare_arrays("y", one, one, Tolerances().of("y", "complex64")).passed
    found = compare_arrays("y", one, one + np.array([[0, 1j]], np.complex64), Tolerances().of("y", "complex64"))
    assert not found.passed
    assert found.worst == (0, 1, 1)


def test_chunks_see_every_element(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphforge.verify.compare._CHUNK", 7)
    reference: Array = np.ones(100, np.float32)
    for place in (0, 6, 7, 50, 99):
        artifact = reference.copy()
        artifact[place] = 2
        found = compare(reference, artifact)
        assert (found.worst, found.mismatched, found.max_abs) == ((place,), 1, 1.0)


def test_report_is_json() -> None:
    found = compare([1.0], [math.inf])
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert '"inf"' in text


def test_loosening_is_recorded_and_nonsense_refused() -> None:
    loose = Tolerances().loosen(because="--rtol 0.01", rtol=0.01)
    assert loose.by_dtype["float32"].rtol == 0.01
    assert loose.loosened == ("all float outputs: rtol=0.01 (--rtol 0.01)",)
    assert Tolerances().loosened == ()
    with pytest.raises(UsageError, match="finite"):
        Tolerances().loosen(because="", atol=math.inf)


def test_coarser_arithmetic_never_tightens() -> None:
    coarse = Tolerances().computed_in("float16", because="precision fp16")
    assert coarse.by_dtype["float32"] == Tolerances().by_dtype["float16"]
    assert coarse.by_dtype["bfloat16"] == Tolerances().by_dtype["bfloat16"]
    assert "precision fp16" in coarse.loosened[0]


def test_texts_have_no_size() -> None:
    """Else a note says of outputs in text that they are all zeros."""
    texts = np.array(["a", "b"], dtype=object)
    found = compare_arrays("y", texts, texts.copy(), Tolerance())
    assert found.passed
    assert found.max_reference is None
