"""The table of facts: read for the version that is installed, and true of it where it can be tried."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from graphforge.errors import GraphForgeError, UsageError
from graphforge.targets.tables import Kernels, facts_of, installed_version
from graphforge.targets.tables.table import release_covers
from scripts import probe_onnxruntime, probe_openvino

# Operators of every kind of row: whole kinds of floats missing, integers missing, versions that differ, none at all.
SAMPLE = (
    "Add BitShift Clip Cos Erf Exp GridSample IsNaN LSTM MaxRoiPool Neg Pad Pow ReduceMax Relu Resize RoiAlign "
    "ScatterElements TopK Where"
).split()


def test_the_table_is_true_of_the_installed_onnx_runtime() -> None:
    """Every element type of a sample of operators; `scripts/probe_onnxruntime.py` tries all."""
    facts = facts_of("onnxruntime")
    if facts.note:
        pytest.skip(facts.note)
    assert probe_onnxruntime.lies(probe_onnxruntime.measure(SAMPLE), facts) == []


def test_the_table_is_true_of_the_installed_openvino() -> None:
    """Every version, element type and use of a few operators; `scripts/probe_openvino.py` tries all."""
    pytest.importorskip("openvino", reason="OpenVINO is not installed (pip install openvino)")
    facts = facts_of("openvino")
    if facts.note:
        pytest.skip(facts.note)
    found = probe_openvino.measure(["Add", "GatherElements", "Pad", "Relu", "RoiAlign", "Swish"])
    assert probe_openvino.lies(found, facts) == []
    answers = {(tried.operator, tried.what): tried.answer for tried in found.tried}
    assert answers["Add", "float64"] == probe_openvino.WRONG  # 8-bit sums depend on the processor
    assert answers["GatherElements", "axis 0"] == answers["Pad", "wrap"] == probe_openvino.REFUSED
    assert answers["Pad", "reflect"] == probe_openvino.RIGHT


def test_a_lie_about_openvino_is_found() -> None:
    tried = [
        probe_openvino.Tried("Conv", 22, "float32", probe_openvino.REFUSED, "no"),
        probe_openvino.Tried("Resize", 19, "antialias linear", probe_openvino.WRONG, "off by 2"),
        probe_openvino.Tried("Resize", 13, "linear half_pixel", probe_openvino.WRONG, "off by 3"),
        probe_openvino.Tried("Det", 22, "float32", probe_openvino.RIGHT),
        probe_openvino.Tried("Relu", 14, "of NaN", probe_openvino.WRONG),
        probe_openvino.Tried("Add", 14, "float64", probe_openvino.WRONG),
    ]
    assert probe_openvino.lies(probe_openvino.Measured("2026.4.1", 25, tried), facts_of("openvino", "2026.4.1")) == [
        "newest opset: the table says 26, measured 25",
        "Conv-22 float32: the table says taken; refused: no",
        "Resize-13 linear half_pixel: the table says taken; wrong: off by 3",
        "Det-22 float32: right, the table says it is not taken",
    ]


def test_a_lie_is_found() -> None:
    found = probe_onnxruntime.measure(["Erf", "RoiAlign"])
    wrong = probe_onnxruntime.lies(found, facts_of("ncnn"))
    assert any(line.startswith("Erf-13 of float64: the table says computed; ") for line in wrong)
    assert any(line.startswith("RoiAlign-22 of float32: the table says computed; ") for line in wrong)
    assert any(line.startswith("newest opset: the table says 0, measured ") for line in wrong)


def test_the_entry_is_that_of_the_installed_version() -> None:
    facts = facts_of("onnxruntime")
    assert facts.version == installed_version("onnxruntime")
    assert facts.called == f"ONNX Runtime {facts.version}"
    assert facts.version is not None
    assert facts.version.startswith(facts.release) or facts.note


@pytest.mark.parametrize(
    ("version", "release", "newest_opset"),
    [("1.31.1", "1.31", 26), ("1.25.0", "1.25", 26), ("1.23.2", "1.23", 23), ("1.19.2", "1.18 to 1.20", 21)],
)
def test_a_known_version_has_its_entry_and_no_note(version: str, release: str, newest_opset: int) -> None:
    facts = facts_of("onnxruntime", version)
    assert (facts.release, facts.newest_opset, facts.note) == (release, newest_opset, "")


def test_a_version_newer_than_the_table_gets_the_newest_entry_and_says_so() -> None:
    facts = facts_of("onnxruntime", "99.1.0")
    assert facts.kernels == facts_of("onnxruntime", f"{facts.release}.0").kernels
    assert facts.note.startswith("ONNX Runtime 99.1.0 is installed, the table of facts knows releases up to ")


def test_releases_say_only_what_changed() -> None:
    older, newer = (facts_of("onnxruntime", version).kernels for version in ("1.31.0", "1.32.0"))
    assert not older.has("Pad", ir.DataType.BFLOAT16)
    assert newer.has("Pad", ir.DataType.BFLOAT16)
    assert not newer.has("Pad", ir.DataType.BFLOAT16, 19)
    assert not older.has("Erf", ir.DataType.DOUBLE)
    assert not newer.has("Erf", ir.DataType.DOUBLE)
    assert newer.has("Erf", ir.DataType.FLOAT16)
    assert newer.has("Reshape", ir.DataType.BFLOAT16)


def test_where_to_compute_instead() -> None:
    kernels = facts_of("onnxruntime", "1.32.0").kernels
    assert kernels.instead("Erf", ir.DataType.DOUBLE) == ir.DataType.FLOAT
    assert kernels.instead("Exp", ir.DataType.DOUBLE) is None
    assert kernels.instead("Max", ir.DataType.INT16) == ir.DataType.INT32
    assert kernels.instead("Mul", ir.DataType.BFLOAT16) == ir.DataType.FLOAT
    assert Kernels({"Erf": frozenset()}).instead("Erf", ir.DataType.DOUBLE) is None


def test_faults_hold_in_the_releases_they_name() -> None:
    names = [fault.name for fault in facts_of("onnxruntime", "1.32.0").faults]
    assert "ReduceSum of int64" in names
    assert "ReduceSum of int64" not in [fault.name for fault in facts_of("onnxruntime", "1.23.0").faults]


def test_reduce_sum_of_int64_still_loses_digits() -> None:
    """The fault of the table that costs nothing to try; when this fails, the table gets an ``until``."""
    import numpy as np
    import onnxruntime

    model = probe_onnxruntime.one_node("ReduceSum", 13, ir.DataType.INT64, 21)
    assert model is not None
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (total,) = session.run(None, {"x0": np.array([2**62 + 1, 4], np.int64)})
    faults = [fault.name for fault in facts_of("onnxruntime").faults]
    assert (total.item() != 2**62 + 5) == ("ReduceSum of int64" in faults)


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    file.write_text('title = "Board"\nnewest_opset = 13\n[[release]]\n[release.kernels]\n"float32" = "Erf"\n')
    facts = facts_of(str(file))
    assert (facts.title, facts.newest_opset, facts.version) == ("Board", 13, None)
    assert not facts.kernels.has("Erf", ir.DataType.FLOAT16)
    file = tmp_path / "wrong.toml"
    file.write_text('title = "Board"\n[[release]]\n[release.kernels]\n"float33" = "Erf"\n')
    with pytest.raises(GraphForgeError, match="names the dtype 'float33'"):
        facts_of(str(file))
    file = tmp_path / "broken.toml"
    file.write_text("title =")
    with pytest.raises(GraphForgeError, match="cannot be read"):
        facts_of(str(file))


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no table of facts 'onxruntime'") as caught:
        facts_of("onxruntime")
    assert "did you mean 'onnxruntime'?" in caught.value.notes


def test_ranges_of_releases() -> None:
    assert release_covers("1.18 to 1.20", "1.20.1")
    assert not release_covers("1.18 to 1.20", "1.21.0")
    assert release_covers("1.32", "1.32.4+cu13")
    assert not release_covers("1.32", "1.33.0")
