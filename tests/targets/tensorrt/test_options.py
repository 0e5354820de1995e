"""What the TensorRT target lets a user ask for."""

from __future__ import annotations

from typing import Any

import pytest

from graphforge.errors import GraphForgeError, UsageError
from graphforge.targets import options_for
from graphforge.targets.tensorrt import flavour as flavours
from graphforge.targets.tensorrt.flavour import FLAVOURS, Flavour, choose_flavour
from graphforge.targets.tensorrt.options import BuildSettings, read_options
from graphforge.targets.tensorrt.target import TensorRTTarget


@pytest.fixture(autouse=True)
def _both_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if both flavours were there, in releases that read opset 25: the options do not import them."""
    monkeypatch.setattr(Flavour, "installed", lambda self: True)
    monkeypatch.setattr(Flavour, "release", lambda self: (11, 4) if self.name == "tensorrt" else (1, 7))


def read(opset: int | None = None, precision: str | None = None, **extra: Any) -> BuildSettings:
    return read_options(options_for(TensorRTTarget(), opset=opset, precision=precision, own=extra))


def test_defaults() -> None:
    options = read()
    assert options.flavour.name == "tensorrt_rtx"
    assert options.opset == 25
    assert options.precision == "as_typed"
    assert options.compute_capabilities == ("SM86", "SM89")
    assert options.tf32
    assert options.optimization_level is None


def test_classic_flavour_builds_for_the_gpu_it_runs_on() -> None:
    assert read(flavour="tensorrt").compute_capabilities == ()
    with pytest.raises(UsageError, match="cannot be chosen"):
        read(flavour="tensorrt", compute_capabilities="SM86")


@pytest.mark.parametrize("text", ["SM86,SM89", "sm_86, 8.9", ["8.6", "sm89"], "86,89,8.6"])
def test_compute_capabilities_are_read_as_people_write_them(text: object) -> None:
    assert read(compute_capabilities=text).compute_capabilities == ("SM86", "SM89")


def test_three_digit_compute_capability() -> None:
    assert read(compute_capabilities="12.0,SM121").compute_capabilities == ("SM120", "SM121")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"compute_capability": "SM86"}, "has no option 'compute_capability'"),
        ({"compute_capabilities": "ampere"}, "'ampere' cannot be read"),
        ({"compute_capabilities": ""}, "is empty"),
        ({"compute_capabilities": "current,SM86"}, "cannot be combined"),
        ({"flavour": "rtx"}, "unknown value 'rtx'"),
        ({"tf32": "maybe"}, "expected true or false"),
        ({"optimization_level": 9}, "unknown value '9'"),
    ],
)
def test_bad_option_is_a_usage_error(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(**extra)


def test_opset_beyond_the_parser_is_refused() -> None:
    with pytest.raises(UsageError, match="reads 11 to 25"):
        read(opset=26)
    assert read(opset=17).opset == 17


def test_an_unknown_precision_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="has no precision 'fp8'") as caught:
        read(precision="fp8")
    assert "strongly typed" in str(caught.value)


@pytest.mark.parametrize(
    ("precision", "name"), [("fp16", "convert-float16"), ("bf16", "convert-bfloat16"), ("int8", "quantize")]
)
def test_reduced_precision_is_a_pass(precision: str, name: str) -> None:
    passes = TensorRTTarget().pipeline(options_for(TensorRTTarget(), precision=precision))
    assert name in [one.name for one in passes]


def test_opset_of_an_unknown_release_is_the_lowest_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flavour, "release", lambda self: (0, 0))
    assert read().opset == 20


def test_nothing_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flavour, "installed", lambda self: False)
    with pytest.raises(GraphForgeError, match="neither TensorRT for RTX nor TensorRT is installed"):
        choose_flavour()
    reason = TensorRTTarget().available()
    assert reason is not None
    assert "pip install tensorrt-rtx-cu13" in reason
    with pytest.raises(GraphForgeError, match="TensorRT is not installed here"):
        FLAVOURS["tensorrt"].load()


def test_classic_without_gpu_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flavour, "installed", lambda self: self.name == "tensorrt")
    monkeypatch.setattr(Flavour, "load", lambda self: None)
    monkeypatch.setattr(flavours, "gpu_problem", lambda: "the NVIDIA driver sees no GPU")
    monkeypatch.setattr("graphforge.targets.tensorrt.target.gpu_problem", lambda: "the NVIDIA driver sees no GPU")
    assert TensorRTTarget().available() == "TensorRT builds only where its GPU is: the NVIDIA driver sees no GPU"
