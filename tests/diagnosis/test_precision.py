"""A file in fewer digits: error and range by layer, and the layer worth keeping, checked by keeping it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import graphforge
from graphforge.diagnosis import Diagnosis
from graphforge.diagnosis.precision import quality
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from tests.diagnosis.test_diagnose import says


class Overflowing(nn.Module):
    """The square of the middle layer is beyond float16; its root is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.middle(self.first(x).relu()) * 400
        y = torch.sqrt(y * y + 1.0)
        out: torch.Tensor = self.head(y / 400)
        return out


class Fragile(nn.Module):
    """One channel of the second layer is eighty times the others: eight bits for all of them are few."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(size, 8, 3, padding=1) for size in (3, 8, 8))
        self.head = nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            self.b.weight[3] *= 80
            self.c.weight[:, 3] = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.c(self.b(self.a(x).relu()).relu()).relu())
        return out


def compiled(model: nn.Module, inputs: tuple[torch.Tensor, ...], folder: Path) -> onnx.ModelProto:
    bundle = graphforge.compile(model, inputs, verify=False, output=folder / "bundle")
    return onnx.load(bundle.path / "model.onnx")


def layer(report: Diagnosis, name: str) -> Any:
    (found,) = [row for row in report.precision if row.entry.name == name]
    return found


def test_overflow_in_float16_is_told_at_its_layer(tmp_path: Path) -> None:
    float16 = pytest.importorskip("onnxruntime.transformers.float16")
    torch.manual_seed(0)
    model, inputs = Overflowing().eval(), (torch.randn(4, 8),)
    proto = compiled(model, inputs, tmp_path)
    onnx.save(float16.convert_float_to_float16(proto, keep_io_types=True), tmp_path / "half.onnx")
    report = graphforge.diff(model, tmp_path / "half.onnx", inputs)
    assert report.level == "float16"
    assert not report.agrees  # ONNX Runtime computes in float32 between the nodes; the file says float16
    assert any("as this runtime computes it" in note for note in report.notes)
    assert report.causes[0].entry == report.worth_keeping[0].entry
    assert layer(report, "mul_1").overflow > 0
    assert layer(report, "linear").overflow == 0
    assert report.worth_keeping[0].entry.name == "mul_1"
    text = says(report)
    assert "overflow" in text
    assert "worth keeping" in text
    assert "pins=mul_1" in text
    json.dumps(report.to_dict(), allow_nan=False)


def test_keeping_the_layer_that_overflows_makes_our_float16_file_right(tmp_path: Path) -> None:
    """It is calibrated on data far quieter than what comes, so that nothing is seen to overflow."""
    torch.manual_seed(0)
    model, inputs = Overflowing().eval(), (torch.randn(4, 8),)
    np.savez(tmp_path / "quiet.npz", x=np.full((4, 8), 1e-3, np.float32))

    def diagnosed(**options: str) -> Diagnosis:
        made = graphforge.compile(
            model,
            inputs,
            precision="fp16",
            calibration=tmp_path / "quiet.npz",
            target_options=options,
            verify=False,
            output=tmp_path / "half",
        )
        return graphforge.diff(model, made, inputs)

    plain = diagnosed()
    assert plain.keep == ("mul_1", "add")  # their root is small again
    assert plain.verdict == "departs"
    kept = diagnosed(pins=",".join(plain.keep))
    assert kept.agrees, kept.outputs
    assert layer(kept, "mul_1").overflow == 0  # it is float32 there


def test_the_layer_that_costs_most_in_int8_is_the_one_to_keep(tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    torch.manual_seed(0)
    model, inputs = Fragile().eval(), (torch.randn(2, 3, 12, 12),)
    proto = compiled(model, inputs, tmp_path)
    source = tmp_path / "bundle/model.onnx"

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            self.feeds = iter([{"x": inputs[0].numpy()}])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    def quantised(keep: list[str]) -> float:
        target = tmp_path / "int8.onnx"
        kept = [node.name for node in proto.graph.node if any(node.name.startswith(f"{one}/") for one in keep)]
        quantization.quantize_static(str(source), str(target), Reader(), nodes_to_exclude=kept, reduce_range=True)
        with torch.no_grad():
            expected = model(*inputs).numpy()
        with OnnxRuntimeRunner(target) as runner:
            return quality(expected, next(iter(runner.run({"x": inputs[0].numpy()}).values()))).snr

    plain = quantised([])
    report = graphforge.diff(model, tmp_path / "int8.onnx", inputs)
    assert report.level == "int8"
    worst = report.worth_keeping[0].entry
    assert worst.call.path == "b" or worst.name == "relu_1"
    assert quantised(["b"]) > plain + 3
    assert quantised(["b"]) > max(quantised([one]) for one in ("a", "c", "head"))


def test_measures() -> None:
    reference = np.array([3.0, 4.0], np.float32)
    same = quality(reference, reference)
    assert same.snr == np.inf
    assert same.cosine == pytest.approx(1.0)
    off = quality(reference, np.array([3.0, 4.5], np.float32))
    assert off.snr == pytest.approx(20.0)
    assert (off.max_abs, off.max_rel) == (0.5, 0.125)
    assert off.ulp == pytest.approx(0.5 / 2.0**-21)
    assert quality(reference, np.array([3.0, np.inf], np.float32)).snr == -np.inf
