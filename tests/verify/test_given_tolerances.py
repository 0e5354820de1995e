"""Tolerances as users give them: a number, a dict, by output; what cannot be meant is told before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import graphforge
from graphforge.errors import UsageError, VerificationError
from graphforge.verify.tolerance import Tolerance, Tolerances, as_tolerances
from tests.verify import small


def test_a_number_is_the_share_of_the_largest_magnitude() -> None:
    given = as_tolerances(1e-3)
    assert given is not None
    assert given.of("any", "float32") == Tolerance(scale=1e-3, underflow=1e-34)
    assert given.of("any", "int64").is_exact
    assert given.loosened == ("all float outputs: scale=0.001, rtol=0.0 (the tolerances that were given)",)


def test_a_dict_names_settings_or_outputs() -> None:
    given = as_tolerances({"rtol": 1e-2, "boxes": 1e-1, "scores": {"atol": 1e-4}})
    assert given is not None
    assert given.of("labels", "float32").rtol == 1e-2
    assert given.of("boxes", "float32").scale == 1e-1
    assert given.of("scores", "float32").atol == 1e-4
    assert given.of("scores", "float32").rtol == 1e-2


def test_none_and_tolerances_stay_what_they_are() -> None:
    assert as_tolerances(None) is None
    mine = Tolerances()
    assert as_tolerances(mine) is mine


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1e-3", "tolerances: expected a number, a dict or Tolerances, got str '1e-3'"),
        (True, "tolerances: expected a number, a dict or Tolerances, got bool True"),
        (-1.0, "tolerances: scale is -1.0, expected a finite number >= 0"),
        (float("nan"), "tolerances: scale is nan, expected a finite number >= 0"),
        ({"rtol": "much"}, "tolerances: rtol is 'much', expected a finite number >= 0"),
        ({"boxes": {"rtoll": 1}}, "tolerances['boxes']: there is no 'rtoll'"),
        ({"boxes": None}, "tolerances['boxes']: expected a number, a dict or Tolerances, got NoneType None"),
    ],
)
def test_what_cannot_be_meant_is_told_before_any_work(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        graphforge.compile("absent.py:build", tolerances=given, output=tmp_path / "out")
    assert caught.value.message == message


def test_compile_takes_a_number_and_records_it(tmp_path: Path) -> None:
    bundle = graphforge.compile(small.net(), torch.ones(2, 3, 8, 8), tolerances=1e-3, output=tmp_path / "out")
    verification = bundle.manifest["verification"]
    assert verification["trials"][0]["outputs"][0]["tolerance"] == "0.001 of max|ref|"
    assert any("scale=0.001" in note for note in verification["notes"])


def test_an_output_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tolerances names output 'scors', but the outputs are: ") as caught:
        graphforge.compile(small.net(), torch.ones(2, 3, 8, 8), tolerances={"scors": 1e-3}, output=tmp_path / "out")
    assert not isinstance(caught.value, VerificationError)
    assert not (tmp_path / "out").exists()
