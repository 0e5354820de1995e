"""Classic TensorRT by the same code, on a strict stand-in of its Python module; nothing here ran on a GPU."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphforge.errors import GraphForgeError, UsageError
from graphforge.spec import DimRange
from graphforge.targets import EmitResult, options_for
from graphforge.targets.tensorrt import TensorRTTarget
from graphforge.targets.tensorrt.log import _LOGGERS, vendor_logger
from graphforge.targets.tensorrt.options import read_options
from tests.targets.models import conv_net, spec

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (pip install tensorrt-rtx-cu13)")

OPSET = 20  # what is read by a release that no package states


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """What the stand-in's config was asked for."""
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("the real one is here")
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "tensorrt_stub"))
    yield importlib.import_module("tensorrt").ASKED
    sys.modules.pop("tensorrt", None)
    _LOGGERS.pop("tensorrt", None)


def emit(folder: Path, **own: Any) -> EmitResult:
    target = TensorRTTarget()
    options = options_for(target, own={"flavour": "tensorrt", **own})
    shapes = spec("x", 2, 3, 16, 16, axis0=DimRange("batch", 1, 8))
    return target.emit(conv_net(OPSET, batch="batch"), folder, options, shapes)


def test_a_plan_for_the_gpu_at_hand(tmp_path: Path, asked: list[tuple[str, Any]]) -> None:
    result = emit(tmp_path)
    sidecar = json.loads((tmp_path / "plan.json").read_text())
    assert (sidecar["flavour"], sidecar["version"]) == ("tensorrt", "11.4.0 (stand-in)")
    assert sidecar["compute_capabilities"] == ["CURRENT"]
    assert result.facts["profiles"][0]["x"]["max"] == [8, 3, 16, 16]
    assert asked == [("set_flag", "TF32")]


def test_its_options_reach_the_builder(tmp_path: Path, asked: list[tuple[str, Any]]) -> None:
    emit(
        tmp_path,
        tf32=False,
        optimization_level=4,
        workspace=64,
        version_compatible=True,
        profiles="batch=1;batch=2..8",
    )
    assert asked == [
        ("clear_flag", "TF32"),
        ("builder_optimization_level", 4),
        ("pool WORKSPACE", 64 << 20),
        ("set_flag", "VERSION_COMPATIBLE"),
    ]
    assert len(json.loads((tmp_path / "plan.json").read_text())["profiles"]) == 2


def test_timings_are_read_and_written_back(tmp_path: Path, asked: list[tuple[str, Any]]) -> None:
    cache = tmp_path / "timings.cache"
    (tmp_path / "a").mkdir()
    emit(tmp_path / "a", timing_cache=str(cache))
    assert asked[-1] == ("set_timing_cache", b"")
    assert cache.read_bytes() == b"timings"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "timings.cache"]
    (tmp_path / "b").mkdir()
    emit(tmp_path / "b", timing_cache=str(cache))
    assert asked[-1] == ("set_timing_cache", b"timings")
    cache.write_bytes(b"other GPU")
    (tmp_path / "c").mkdir()
    with pytest.raises(GraphForgeError, match="are not of this GPU and version"):
        emit(tmp_path / "c", timing_cache=str(cache))
    assert cache.read_bytes() == b"other GPU"


def test_timings_are_no_matter_of_rtx() -> None:
    with pytest.raises(UsageError, match="times no kernels when it builds"):
        read_options(options_for(TensorRTTarget(), own={"flavour": "tensorrt_rtx", "timing_cache": "a.cache"}))


def test_the_stand_in_refuses_what_classic_does_not_have(tmp_path: Path) -> None:
    trt = importlib.import_module("tensorrt")
    config = trt.Builder(vendor_logger(trt)).create_builder_config()
    with pytest.raises(AttributeError, match="no 'num_compute_capabilities' to set"):
        config.num_compute_capabilities = 1
    with pytest.raises(AttributeError, match="no 'set_compute_capability'"):
        config.set_compute_capability(0, 0)
    with pytest.raises(TypeError):
        config.set_flag("TF32")
