"""Models compiled for OpenVINO and run by it: what is verified is the target's own execution."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphforge
from graphforge.errors import GraphForgeError, UsageError
from graphforge.targets import get_target
from graphforge.targets.openvino.blame import places
from graphforge.targets.openvino.runner import OpenVINORunner
from graphforge.targets.openvino.vendor import told

pytest.importorskip("openvino", reason="OpenVINO is not installed (pip install openvino)")


class Net(nn.Module):
    """A convolution and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = F.gelu(self.conv(x)).mean((2, 3))
        return {"scores": self.head(features).softmax(-1), "features": features}


class Kept(nn.Module):
    """As many rows as score enough, and where they are."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        keep = x[:, 0] > 0
        return x[keep], torch.nonzero(keep)


class Smaller(nn.Module):
    """A picture made smaller as pictures should be."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        smaller: torch.Tensor = F.interpolate(x, size=(5, 6), mode=self.mode, antialias=True)
        return smaller


class Sampled(nn.Module):
    """Points of a volume, or of a picture."""

    def forward(self, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(x, grid, align_corners=False)


class Determinant(nn.Module):
    """What OpenVINO has nothing for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = torch.linalg.det(x)
        return value


def compiled(model: nn.Module, inputs: tuple[torch.Tensor, ...], folder: Path, **keywords: Any) -> graphforge.Bundle:
    torch.manual_seed(0)
    return graphforge.compile(model.eval(), inputs, target="openvino", output=folder, **keywords)


def passed_in_openvino(bundle: graphforge.Bundle) -> bool:
    verification = bundle.manifest["verification"]
    assert verification["artifact"].startswith("OpenVINO 20")
    return verification["passed"] is True


def test_the_bundle_holds_openvinos_own_files_and_says_how_they_are_run(tmp_path: Path) -> None:
    bundle = compiled(
        Net(), (torch.randn(2, 3, 8, 16),), tmp_path / "net", dynamic_shapes={"x": {0: (1, 4), 3: (8, 32)}}
    )
    assert passed_in_openvino(bundle)
    assert bundle.manifest["files"] == ["model.xml", "model.bin", "model.onnx", "openvino.json"]
    assert sorted(path.name for path in bundle.path.iterdir()) == sorted([*bundle.manifest["files"], "manifest.json"])
    sidecar = json.loads((bundle.path / "openvino.json").read_text())
    assert sidecar["config"] == {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    assert sidecar["outputs"] == ["scores", "features"]
    assert {size for trial in bundle.manifest["verification"]["trials"] for size in trial["sizes"].values()} >= {
        1,
        4,
        32,
    }


def test_run_and_profile_use_openvino(tmp_path: Path) -> None:
    net = Net().eval()
    bundle = compiled(net, (torch.randn(1, 3, 8, 8),), tmp_path / "net")
    x = torch.randn(1, 3, 8, 8)
    report = bundle.run(x.numpy())
    assert report.runner.startswith("OpenVINO ")
    with torch.no_grad():
        assert np.abs(report["scores"] - net(x)["scores"].numpy()).max() < 1e-6
    measured = graphforge.profile(bundle, runs=3, warmup=1, threads=1)
    assert [row.name.split()[0] for row in measured.rows] == ["OpenVINO", "onnxruntime"]


def test_results_whose_size_depends_on_data(tmp_path: Path) -> None:
    bundle = compiled(Kept(), (torch.randn(6, 2),), tmp_path / "kept", dynamic_shapes={"x": {0: (1, 9)}})
    assert passed_in_openvino(bundle)
    none = bundle.run(np.full((3, 2), -1, np.float32))
    assert [array.shape for array in none.values()] == [(0, 2), (0, 1)]


def test_padded_results(tmp_path: Path) -> None:
    assert passed_in_openvino(compiled(Kept(), (torch.randn(6, 2),), tmp_path / "kept", outputs="padded"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_go_in_and_out(tmp_path: Path, dtype: torch.dtype) -> None:
    model = nn.Linear(4, 3).to(dtype)
    bundle = compiled(model, (torch.randn(2, 4).to(dtype),), tmp_path / "half")
    assert passed_in_openvino(bundle)
    assert bundle.manifest["outputs"][0]["dtype"] == str(dtype).removeprefix("torch.")


def test_input_that_nothing_reads_stays(tmp_path: Path) -> None:
    class First(nn.Module):
        def forward(self, x: torch.Tensor, unread: torch.Tensor) -> torch.Tensor:
            return x * 2

    bundle = compiled(First(), (torch.randn(2), torch.randn(3)), tmp_path / "first")
    assert passed_in_openvino(bundle)
    assert json.loads((bundle.path / "openvino.json").read_text())["inputs"] == ["x", "unread"]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialiasing_which_openvino_leaves_out_is_written_otherwise(tmp_path: Path, mode: str) -> None:
    bundle = compiled(Smaller(mode), (torch.randn(1, 3, 13, 17),), tmp_path / "small")
    assert passed_in_openvino(bundle)
    assert "Resize" not in bundle.manifest["operators"]
    assert any("leaves out antialiasing" in note for note in bundle.manifest["notes"])


def test_openvino_still_leaves_out_antialiasing(tmp_path: Path) -> None:
    """The table's reason: once a release computes it, the entry can say until when."""
    import openvino

    bundle = graphforge.compile(Smaller("bilinear"), (torch.randn(1, 3, 13, 17),), output=tmp_path / "onnx")
    x = torch.randn(1, 3, 13, 17)
    core = openvino.Core()
    found = core.compile_model(core.read_model(str(bundle.path / "model.onnx")), "CPU")([x.numpy()])[0]
    expected = Smaller("bilinear")(x).numpy()
    assert np.abs(found - expected).max() > np.abs(expected).max()


def test_grid_sample_is_written_otherwise_for_volumes_only(tmp_path: Path) -> None:
    volume = compiled(Sampled(), (torch.randn(1, 2, 3, 4, 5), torch.rand(1, 2, 2, 2, 3) * 2 - 1), tmp_path / "volume")
    picture = compiled(Sampled(), (torch.randn(1, 2, 4, 5), torch.rand(1, 2, 2, 2) * 2 - 1), tmp_path / "picture")
    assert passed_in_openvino(volume)
    assert passed_in_openvino(picture)
    assert "GridSample" not in volume.manifest["operators"]
    assert picture.manifest["operators"]["GridSample"] == 1


def test_refusal_names_the_node_and_its_line(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="No conversion rule found for operations: Det") as caught:
        compiled(Determinant(), (torch.randn(3, 3),), tmp_path / "det")
    assert any("Det node" in note and "test_openvino.py:" in note for note in caught.value.notes)
    assert not (tmp_path / "det").exists()


def test_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="opset 27 was asked for"):
        compiled(Net(), (torch.randn(1, 3, 8, 8),), tmp_path / "net", opset=27)
    with pytest.raises(UsageError, match="hint"):
        compiled(Net(), (torch.randn(1, 3, 8, 8),), tmp_path / "net", target_options={"hint": "int3"})


def test_every_opset_that_the_table_names_is_read(tmp_path: Path) -> None:
    for opset in (11, 17, 26):
        bundle = compiled(Net(), (torch.randn(1, 3, 8, 8),), tmp_path / f"net{opset}", opset=opset)
        assert passed_in_openvino(bundle)
        assert bundle.manifest["artifact"]["opset"] == opset


def test_weights_in_float16_are_half_the_size(tmp_path: Path) -> None:
    model, x = nn.Linear(64, 64), torch.randn(2, 64)
    whole = compiled(model, (x,), tmp_path / "whole")
    half = compiled(model, (x,), tmp_path / "half", target_options={"fp16_weights": True}, tolerances=2e-3)
    assert passed_in_openvino(half)
    assert (half.path / "model.bin").stat().st_size < 0.6 * (whole.path / "model.bin").stat().st_size


def test_damaged_sidecar_is_told(tmp_path: Path) -> None:
    bundle = compiled(Net(), (torch.randn(1, 3, 8, 8),), tmp_path / "net")
    sidecar = json.loads((bundle.path / "openvino.json").read_text())
    (bundle.path / "openvino.json").write_text(json.dumps({**sidecar, "hint": "CACHE_DIR"}))
    with pytest.raises(GraphForgeError, match=r"openvino\.json' is not a description.*hint: expected one of f32"):
        OpenVINORunner(bundle.path)
    (bundle.path / "openvino.json").write_text(json.dumps(sidecar))
    (bundle.path / "model.bin").write_bytes(b"")
    with pytest.raises(GraphForgeError, match="cannot load the model"):
        bundle.run(np.zeros((1, 3, 8, 8), np.float32))


def test_wrong_element_type_is_refused(tmp_path: Path) -> None:
    bundle = compiled(nn.Linear(4, 3), (torch.randn(2, 4),), tmp_path / "net")
    runner = OpenVINORunner(bundle.path)
    with pytest.raises(GraphForgeError, match="is float32, and float64 was given"):
        runner.run({"input": np.zeros((2, 4))})
    with pytest.raises(GraphForgeError, match="no data for input input"):
        runner.run({})


def test_telemetry_is_not_imported() -> None:
    """Importing OpenVINO where its telemetry is installed starts a thread that reports it."""
    code = (
        "import sys, threading, types\n"
        "fake = types.ModuleType('openvino_telemetry')\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('openvino_telemetry'): print('LOOKED FOR', name)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from graphforge.targets.openvino.vendor import core\n"
        "core(); print(len(threading.enumerate()), 'openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["1", "False"]


def test_what_openvino_says_without_its_own_places() -> None:
    error = RuntimeError(
        "Exception from src/core.cpp:84:\nCheck 'false' failed at src/report.cpp:151:\nFrontEnd API failed with "
        "OpConversionFailure:\nModel wasn't fully converted.\nSummary:\n-- No conversion rule found for operations: A-1"
    )
    assert told(error) == "Model wasn't fully converted; No conversion rule found for operations: A-1"
    assert places("no such file", Path("nowhere.onnx")) == []


def test_the_target_is_listed_with_its_options() -> None:
    target = get_target("openvino")
    assert target.available() is None
    assert target.runs_here() is None


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_lower_precision_is_written_into_the_graph_and_runs_in_openvino(tmp_path: Path, precision: str) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(576, 4)
    )
    calibration = {"input": np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)}
    bundle = compiled(
        model, (torch.randn(1, 3, 8, 8),), tmp_path / precision, precision=precision, calibration=calibration
    )
    assert passed_in_openvino(bundle)
    operators = bundle.manifest["operators"]
    assert "QuantizeLinear" in operators if precision == "int8" else "Cast" in operators
    whole = compiled(model, (torch.randn(1, 3, 8, 8),), tmp_path / "whole")
    size, all_of_it = ((path / "model.bin").stat().st_size for path in (bundle.path, whole.path))
    assert size < (0.4 if precision == "int8" else 0.6) * all_of_it


def test_diff_looks_at_values_in_openvino_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = Net().eval(), (torch.randn(2, 3, 8, 8),)
    bundle = graphforge.compile(model, inputs, target="openvino", verify=False, output=tmp_path / "out")
    report = graphforge.diff(model, bundle, inputs)
    assert report.agrees
    assert sum(row.status == "equal" for row in report.rows) >= 4
    assert any(note.startswith("outputs and values are OpenVINO") for note in report.notes)

    # what OpenVINO executes is model.xml, and a fault in that alone is seen
    wrong = Net().eval()
    spoilt = graphforge.compile(wrong, inputs, target="openvino", verify=False, output=tmp_path / "wrong")
    for name in ("model.xml", "model.bin"):
        (bundle.path / name).write_bytes((spoilt.path / name).read_bytes())
    report = graphforge.diff(model, bundle, inputs)
    assert not report.agrees
    assert not report.causes
