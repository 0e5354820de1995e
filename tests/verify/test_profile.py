"""Profiling: both sides in turn on the same inputs, and what happens when a side is missing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from graphforge.errors import GraphForgeError, UsageError
from graphforge.verbs.profile import profile
from graphforge.verify.profile import Latency, _three_digits, waiting_note
from tests.verify import small


def bundle(folder: Path, *, spec: str | None = None) -> Path:
    """A bundle as compile writes it, around the small network."""
    small.write_net(small.net(), folder / "model.onnx")
    manifest = {
        "model": {"spec": spec, "kwargs": {}, "checkpoint": None},
        "target": {"name": "onnx"},
        "files": ["model.onnx"],
        "inputs": [
            {
                "name": "x",
                "shape": [2, 3, 8, 8],
                "dtype": "float32",
                "dynamic": {"0": {"name": "batch", "low": 1, "high": 8, "step": 1}},
            }
        ],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_numbers_are_those_of_the_runs() -> None:
    found = Latency.of("eager", [0.001, 0.002, 0.003, 0.010], batch=2)
    assert (found.mean, found.median, found.minimum, found.maximum) == pytest.approx((4.0, 2.5, 1.0, 10.0))
    assert found.median < found.p90 < found.p99 < found.maximum
    assert found.frames_per_second == pytest.approx(500)


def test_both_sides_run_in_turn_on_the_same_inputs(tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text("from tests.verify import small\n\n\ndef build():\n    return small.net()\n")
    threads = torch.get_num_threads()
    report = profile(bundle(tmp_path), f"{source}:build", runs=5, warmup=1, threads=1)
    assert [row.name for row in report.rows] == ["eager", "onnxruntime"]
    assert all(0 < row.minimum <= row.median <= row.p90 <= row.p99 <= row.maximum for row in report.rows)
    assert (report.runs, report.threads, report.batch, report.inputs["x"]) == (5, 1, 2, (2, 3, 8, 8))
    assert report.speedup is not None
    assert [note for note in report.notes if "waited for a processor" not in note] == []
    assert torch.get_num_threads() == threads
    text = io.StringIO()
    report.render(Console(file=text, width=160))
    assert "threads: 1" in text.getvalue()
    assert "p99" in text.getvalue()
    json.dumps(report.to_dict(), allow_nan=False)


def test_eager_is_left_out_with_the_reason(tmp_path: Path) -> None:
    report = profile(bundle(tmp_path), runs=2, warmup=0)
    assert [row.name for row in report.rows] == ["onnxruntime"]
    assert report.speedup is None
    assert report.notes[0] == "eager is left out: give the model that it was compiled from to measure it as well"


def test_what_the_manifest_calls_the_model_is_shown_and_not_built(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(f"open({str(tmp_path / 'built')!r}, 'w')")
    report = profile(bundle(tmp_path, spec=f"{tmp_path}/net.py:build"), runs=2, warmup=0)
    assert "net.py:build" in report.notes[0]
    assert [row.name for row in report.rows] == ["onnxruntime"]
    assert not (tmp_path / "built").exists()


def test_sizes_of_dynamic_dims_can_be_chosen(tmp_path: Path) -> None:
    report = profile(bundle(tmp_path), runs=2, warmup=0, sizes={"batch": 5})
    assert (report.inputs["x"], report.batch) == ((5, 3, 8, 8), 5)
    with pytest.raises(UsageError, match="no dynamic dim 'height'"):
        profile(bundle(tmp_path), runs=2, sizes={"height": 5})


def test_a_bare_file_and_a_given_model(tmp_path: Path) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx")
    assert profile(path, runs=2, warmup=0).inputs["x"] == (1, 3, 8, 8)
    report = profile(path, model, torch.zeros(4, 3, 8, 8), runs=2, warmup=0)
    assert [row.name for row in report.rows] == ["eager", "onnxruntime"]
    assert report.batch == 4


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="does not exist"):
        profile(tmp_path / "absent")
    with pytest.raises(GraphForgeError, match="is not a bundle"):
        profile(tmp_path)
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(GraphForgeError, match="neither a bundle nor an ONNX file"):
        profile(tmp_path / "notes.txt")
    (tmp_path / "manifest.json").write_text('{"target": {"name": "tensorrt"}, "inputs": [], "files": ["engine.plan"]}')
    with pytest.raises(GraphForgeError, match=r"contains no ONNX file to run, but engine\.plan"):
        profile(tmp_path)


def test_a_side_that_waited_for_a_processor_is_told_with_the_way_out() -> None:
    """700 ms for half a millisecond of computing was printed as the model's latency on a busy machine."""
    waiting = waiting_note("eager", 0.7, 0.0005, threads=2)
    assert waiting.startswith("eager computed in 0% of its time and waited for a processor in the rest")
    assert waiting.endswith("measure again when it is idle, or with one thread")
    assert waiting_note("eager", 0.7, 0.1, threads=1).endswith("measure again when it is idle")
    assert waiting_note("eager", 0.7, 0.6, threads=2) == ""
    assert waiting_note("eager", 0.001, 0.0, threads=2) == ""


def test_what_waits_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text(
        "import time\nfrom tests.verify import small\n\n\n"
        "def build():\n    net = small.net()\n"
        "    net.register_forward_pre_hook(lambda *_: time.sleep(0.05))\n    return net\n"
    )
    report = profile(bundle(tmp_path), f"{source}:build", runs=2, warmup=1, threads=1)
    assert [note for note in report.notes if note.startswith("eager computed in")]


def test_a_ratio_has_three_digits() -> None:
    ratios = (0.5, 1.354, 12.34, 123.4, 1853.89)
    assert [_three_digits(ratio) for ratio in ratios] == ["0.50", "1.35", "12.3", "123", "1,850"]
