"""What the MagicMind target lets a user ask for."""

from __future__ import annotations

from typing import Any

import pytest

from graphforge.errors import UsageError
from graphforge.targets import options_for
from graphforge.targets.magicmind import MagicMindTarget
from graphforge.targets.magicmind.options import Arch, MagicMindOptions, read_options


def read(opset: int | None = None, precision: str | None = None, **extra: Any) -> MagicMindOptions:
    return read_options(options_for(MagicMindTarget(), opset=opset, precision=precision, own=extra))


def test_defaults() -> None:
    options = read()
    assert options.precision == "force_float32"
    assert options.archs == (Arch("mtp_372"),)
    assert options.computation_preference == "auto"
    assert not options.conv_scale_fold


def test_archs_with_clusters() -> None:
    assert read(archs="mtp_372:6+8,mtp_592").archs == (Arch("mtp_372", (6, 8)), Arch("mtp_592"))
    assert read(archs=["mtp_592"]).archs == (Arch("mtp_592"),)


@pytest.mark.parametrize("opset", [10, 12, 13, 17])
def test_other_opsets_are_refused_with_the_reason(opset: int) -> None:
    with pytest.raises(UsageError, match=f"opset {opset} was asked for, but MagicMind's importer takes 11"):
        read(opset=opset)


def test_opset_11_may_be_said() -> None:
    assert read(opset=11) == read()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"precision": "fp16"}, "has no precision 'fp16'"),
        ({"precision": "qint8_mixed_float16"}, "needs calibration data, and none is given"),
        ({"arch": "mtp_372"}, "has no option 'arch'"),
        ({"archs": "mlu370"}, "option 'archs': unknown arch 'mlu370'"),
        ({"archs": "mtp_372:0"}, "a cluster count is at least 1"),
        ({"archs": "mtp_372,mtp_372"}, "each once"),
        ({"archs": "mtp_372;8"}, "cannot read arch"),
        ({"archs": "tp_322"}, "needs cross_compile_toolchain_path"),
        ({"computation_preference": "quick"}, "unknown value 'quick'"),
        ({"conv_scale_fold": "perhaps"}, "expected true or false"),
        (
            {"calibration_algorithm": "eqnm", "activation_quant_algo": "asymmetric"},
            "works with symmetric activations only",
        ),
    ],
)
def test_bad_option_is_a_usage_error(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(**keywords)
