"""What the MagicMind target writes, and what it refuses."""

from __future__ import annotations

import ast
import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphforge.errors import GraphForgeError, UsageError
from graphforge.ir import Origin
from graphforge.spec import DimRange, ShapeSpec, TensorSpec
from graphforge.targets.magicmind import MagicMindTarget
from graphforge.targets.magicmind.detections import detections_in
from tests.targets.magicmind.bundles import (
    OPSET,
    STAND_IN,
    dynamic_bundle,
    edit_model,
    emit,
    quantised_bundle,
    run_scripts,
    static_bundle,
    two_inputs,
)
from tests.targets.models import CONV, Sketch, conv_net, spec

HEAD = Origin("head.scores", "net.Head", "aten.sqrt.default", "net.py", 50)


def read_json(folder: Path, name: str) -> dict[str, object]:
    data = json.loads((folder / name).read_text())
    assert isinstance(data, dict)
    return data


def test_static_bundle_has_the_parts_and_lists_them(tmp_path: Path) -> None:
    result = static_bundle(tmp_path)
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert set(result.files) == written
    assert result.files[0] == "model.onnx"
    assert {"build_config.json", "bundle.json", "build_mm.py", "run_mm.py", "bench.sh", "build_mm_cpp.sh"} <= written
    assert read_json(tmp_path, "build_config.json") == {
        "archs": ["mtp_372"],
        "graph_shape_mutable": False,
        "precision_config": {"precision_mode": "force_float32"},
        "opt_config": {"type64to32_conversion": True},
        "computation_preference": "auto",
    }
    assert any("nothing of this was run on an MLU" in note for note in result.notes)


def test_model_is_valid_at_opset_11_with_named_nodes(tmp_path: Path) -> None:
    static_bundle(tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert [node.name for node in model.graph.node] == ["features.conv/Conv", "features.act/Relu"]
    assert [value.name for value in model.graph.input] == ["x"]


def test_dynamic_dims_become_a_range_over_promised_sizes(tmp_path: Path) -> None:
    dynamic_bundle(tmp_path)
    config = read_json(tmp_path, "build_config.json")
    assert config["graph_shape_mutable"] is True
    assert config["dim_range"] == {"0": {"min": [1, 3, 16, 8], "max": [8, 3, 16, 64]}}
    assert "--input_dims 2,3,16,16" in (tmp_path / "bench.sh").read_text()
    assert "--dynamic_shape true" in (tmp_path / "build_mm_cpp.sh").read_text()


def test_range_ends_are_multiples_of_the_step(tmp_path: Path) -> None:
    shapes = spec("x", 1, 3, 16, 32, axis3=DimRange("width", 20, 130, 32))
    emit(conv_net(OPSET, width="width"), tmp_path, shapes)
    config = read_json(tmp_path, "build_config.json")
    assert config["dim_range"] == {"0": {"min": [1, 3, 16, 32], "max": [1, 3, 16, 128]}}


def test_archs_with_clusters_are_written_as_samples_have_them(tmp_path: Path) -> None:
    static_bundle(tmp_path, archs="mtp_372:6+8,mtp_592")
    assert read_json(tmp_path, "build_config.json")["archs"] == [{"mtp_372": [6, 8]}, "mtp_592"]


@pytest.mark.parametrize("make", [static_bundle, dynamic_bundle, quantised_bundle])
def test_scripts_run_unchanged_on_the_stand_in(make: object, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path)
    outcome = run_scripts(tmp_path)
    assert outcome.is_clean, outcome
    assert "all outputs agree" in outcome.output
    assert (tmp_path / "model.magicmind").is_file()


def test_scripts_run_in_a_process_of_their_own(tmp_path: Path) -> None:
    dynamic_bundle(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(STAND_IN)}
    for script in ("build_mm.py", "run_mm.py"):
        done = subprocess.run([sys.executable, str(tmp_path / script)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


OLD_PYTHON = os.environ.get("GRAPHFORGE_OLD_PYTHON")


@pytest.mark.skipif(OLD_PYTHON is None, reason="GRAPHFORGE_OLD_PYTHON names no Python 3.7 with onnx and onnxruntime")
@pytest.mark.parametrize("make", [static_bundle, dynamic_bundle, quantised_bundle])
def test_scripts_run_in_an_old_python(make: object, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(STAND_IN)}
    for script in ("build_mm.py", "run_mm.py"):
        command = [str(OLD_PYTHON), str(tmp_path / script)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_integer_inputs_are_fed_as_int32(tmp_path: Path) -> None:
    model, shapes = two_inputs()
    result = emit(model, tmp_path, shapes)
    described = json.loads((tmp_path / "bundle.json").read_text())["inputs"]
    assert [entry["dtype"] for entry in described] == ["INT64", "FLOAT32"]
    assert [entry["run_dtype"] for entry in described] == ["INT32", "FLOAT32"]
    assert any(note.startswith("warning G5") for note in result.notes)
    outcome = run_scripts(tmp_path)
    assert outcome.is_clean, outcome
    assert "DataType.INT32" in outcome.output


def test_two_streams_calibrate_together(tmp_path: Path) -> None:
    model, shapes = two_inputs()
    random = np.random.default_rng(0)
    # Three feeds of batch 2, given as six samples of one.
    calibration = {"index": random.integers(0, 10, (6, 5)), "factor": random.standard_normal((6, 5, 4))}
    emit(model, tmp_path, shapes, precision="qint16_mixed_float32", calibration=calibration)
    entries = json.loads((tmp_path / "bundle.json").read_text())["calibration"]["inputs"]
    assert [entry["dtype"] for entry in entries] == ["INT32", "FLOAT32"]
    assert [entry["files_per_feed"] for entry in entries] == [2, 2]
    sample = np.load(tmp_path / "calib/0/0000.npy")
    assert (tmp_path / "calib/0/0000.bin").read_bytes() == sample.tobytes()
    assert (tmp_path / "calib/file_list_1.txt").read_text().splitlines()[5] == "1/0005.bin"
    command = (tmp_path / "build_mm_cpp.sh").read_text()
    assert "--file_list calib/file_list_0.txt calib/file_list_1.txt" in command
    outcome = run_scripts(tmp_path)
    assert outcome.is_clean, outcome


@pytest.mark.parametrize("form", ["npz", "folder", "folder by input"])
def test_calibration_is_read_from_files(form: str, tmp_path: Path) -> None:
    samples = np.random.default_rng(1).standard_normal((8, 3, 16, 16)).astype(np.float32)
    source = tmp_path / ("data.npz" if form == "npz" else "data")
    if form == "npz":
        np.savez(source, x=samples)
    else:
        place = source / "x" if form == "folder by input" else source
        place.mkdir(parents=True)
        for number, sample in enumerate(samples):
            np.save(place / f"{number}.npy", sample[None])
    quantised_bundle(tmp_path / "bundle", calibration=str(source))
    np.testing.assert_array_equal(np.load(tmp_path / "bundle/calib/0/0007.npy"), samples[7:8])


def test_reduced_precision_pins_sensitive_nodes_to_float32(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    x = sketch.input("x", [1, 4])
    root = sketch.op(HEAD).Sqrt(sketch.op(CONV).Abs(x))
    emit(sketch.model(y=root), tmp_path, spec("x", 1, 4), precision="force_float16")
    assert read_json(tmp_path, "bundle.json")["pins"] == ["head.scores/Sqrt"]
    outcome = run_scripts(tmp_path, ("build_mm.py",))
    assert outcome.is_clean, outcome
    built = (tmp_path / "model.magicmind").read_bytes()
    assert json.loads(built[built.index(b"{") :])["pins"] == {"head.scores/Sqrt": ["FLOAT32", "FLOAT32"]}


def test_reduced_precision_is_not_claimed_to_be_checked(tmp_path: Path) -> None:
    notes = static_bundle(tmp_path, precision="force_float16").notes
    assert any("what is checked here is the model in float32" in note for note in notes)


def test_given_reference_inputs_are_the_reference(tmp_path: Path) -> None:
    picture = np.full((1, 3, 16, 16), 0.5, np.float32)
    static_bundle(tmp_path, reference_inputs={"x": picture})
    np.testing.assert_array_equal(np.load(tmp_path / "reference/0/input_0.npy"), picture)


def test_calibration_data_are_the_reference_inputs(tmp_path: Path) -> None:
    quantised_bundle(tmp_path)
    reference = json.loads((tmp_path / "bundle.json").read_text())["reference"]
    assert reference["inputs"] == "from the calibration data"
    assert len(reference["cases"]) == 2
    for number in range(2):
        stored = np.load(tmp_path / f"reference/{number}/input_0.npy")
        np.testing.assert_array_equal(stored, np.load(tmp_path / f"calib/0/{number:04d}.npy"))


def detector_bundle(folder: Path) -> None:
    """Rows of box, score and label go in; boxes, scores and labels come out, as a padded detector has them."""
    rows = np.zeros((9, 12, 6), np.float32)
    random = np.random.default_rng(5)
    rows[..., :2] = random.uniform(0, 80, (9, 12, 2))
    rows[..., 2:4] = rows[..., :2] + random.uniform(10, 40, (9, 12, 2))
    rows[..., 4] = np.sort(random.uniform(0.05, 0.95, (9, 12)))[:, ::-1]
    rows[..., 5] = random.integers(0, 4, (9, 12))
    sketch = Sketch(OPSET)
    x = sketch.input("x", [1, 12, 6])
    op = sketch.op(CONV)
    x = op.Mul(x, np.ones(1, np.float32))  # what a lower precision changes
    labels = op.Cast(op.Squeeze(op.Slice(x, [5], [6], [2]), axes=[2]), to=ir.DataType.INT32)
    scores = op.Squeeze(op.Slice(x, [4], [5], [2]), axes=[2])
    model = sketch.model(boxes=op.Slice(x, [0], [4], [2]), scores=scores, labels=labels)
    shapes = spec("x", 1, 12, 6)
    emit(model, folder, shapes, precision="qint8_mixed_float16", calibration={"x": rows})


def computed_in_int8(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """What comes out differs as it does in int8: the factor of each row, column and number."""

    def edit(model: onnx.ModelProto) -> None:
        (product,) = [node for node in model.graph.node if node.op_type == "Mul"]
        factor = change(np.ones((1, 12, 6), np.float32))
        model.graph.initializer.append(onnx.numpy_helper.from_array(factor, "factor"))
        product.input[1] = "factor"

    edit_model(folder, edit)


def test_a_healthy_int8_detector_passes(tmp_path: Path) -> None:
    """Boxes and scores are a little off, and one that barely scores goes: an elementwise distance would refuse it."""

    def change(factor: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(6)
        factor[..., :4] *= random.uniform(0.98, 1.02, (1, 12, 4)).astype(np.float32)
        factor[..., 4] *= random.uniform(0.9, 1.1, (1, 12)).astype(np.float32)
        return factor

    detector_bundle(tmp_path)
    computed_in_int8(tmp_path, change)
    outcome = run_scripts(tmp_path)
    assert outcome.is_clean, outcome.output
    assert "0 missing, 0 too many" in outcome.output


@pytest.mark.parametrize(
    ("column", "factor"), [(0, 2.5), (4, 0.2), (5, 0.0)], ids=["boxes elsewhere", "no scores", "one label for all"]
)
def test_a_broken_int8_detector_fails(column: int, factor: float, tmp_path: Path) -> None:
    def change(factors: np.ndarray) -> np.ndarray:
        factors[..., column] = factor
        return factors

    detector_bundle(tmp_path)
    computed_in_int8(tmp_path, change)
    outcome = run_scripts(tmp_path)
    assert outcome.code == 1
    assert "DIFFERS" in outcome.output


def test_rows_of_a_detector_may_change_places(tmp_path: Path) -> None:
    detector_bundle(tmp_path)
    for number in range(2):
        for index in range(3):
            file = tmp_path / f"reference/{number}/output_{index}.npy"
            np.save(file, np.load(file)[:, ::-1])
    outcome = run_scripts(tmp_path)
    assert outcome.is_clean, outcome.output


def test_outputs_that_are_detections_are_found_by_name() -> None:
    found = detections_in(["a_boxes", "a_scores", "a_labels", "a_masks", "features", "num_dets"], "qint8_mixed_float16")
    assert found is not None
    assert found["groups"] == [{"rows": [3], "boxes": 0, "scores": 1, "labels": 2, "count": 5}]
    assert (found["overlap"], found["score"]) == (0.5, 0.2)
    assert detections_in(["dets", "labels"], "force_float32") == {
        "groups": [{"rows": [], "dets": 0, "labels": 1}],
        "overlap": 0.99,
        "score": 1e-3,
        "share": 0.0,
    }
    assert detections_in(["scores", "features"], "force_float32") is None


def test_run_mm_notices_a_wrong_output(tmp_path: Path) -> None:
    static_bundle(tmp_path)
    expected = np.load(tmp_path / "reference/0/output_0.npy")
    np.save(tmp_path / "reference/0/output_0.npy", expected * 1.01)
    outcome = run_scripts(tmp_path)
    assert outcome.code == 1
    assert "DIFFERS" in outcome.output


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_run_mm_never_passes_nan(value: float, tmp_path: Path) -> None:
    static_bundle(tmp_path)
    expected = np.load(tmp_path / "reference/0/output_0.npy")
    expected.flat[0] = value
    np.save(tmp_path / "reference/0/output_0.npy", expected)
    assert run_scripts(tmp_path).code == 1


def test_build_mm_refuses_a_model_of_another_bundle(tmp_path: Path) -> None:
    static_bundle(tmp_path)
    with (tmp_path / "model.onnx").open("ab") as file:
        file.write(b"\0")
    outcome = run_scripts(tmp_path, ("build_mm.py",))
    assert outcome.code == 1
    assert "model.onnx is not the file that bundle.json describes" in outcome.output


def test_missing_device_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    static_bundle(tmp_path)
    assert run_scripts(tmp_path, ("build_mm.py",)).is_clean
    monkeypatch.setenv("FAKE_MAGICMIND_DEVICES", "0")
    outcome = run_scripts(tmp_path, ("run_mm.py",))
    assert (outcome.code, outcome.output) == (1, "run_mm.py: device 0 does not exist, this machine has 0\n")


@pytest.mark.parametrize("script", ["build_mm.py", "run_mm.py"])
def test_scripts_are_python_3_7(script: str, tmp_path: Path) -> None:
    static_bundle(tmp_path)
    text = (tmp_path / script).read_text()
    ast.parse(text, feature_version=(3, 7))
    python = _oldest_python()
    if python is not None:
        subprocess.run([python, "-m", py_compile.__name__, str(tmp_path / script)], check=True)


def _oldest_python() -> str | None:
    """A Python 3.7 where there is one: its own compiler is a better judge than a newer one's grammar."""
    homes = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.7.*/bin/python3.7"))
    return str(homes[0]) if homes else shutil.which("python3.7")


@pytest.mark.parametrize("script", ["bench.sh", "build_mm_cpp.sh"])
def test_shell_scripts_are_valid(script: str, tmp_path: Path) -> None:
    quantised_bundle(tmp_path)
    subprocess.run(["bash", "-n", str(tmp_path / script)], check=True)
    assert os.access(tmp_path / script, os.X_OK)


def test_runner_is_onnx_runtime_on_the_model_in_the_bundle(tmp_path: Path) -> None:
    static_bundle(tmp_path)
    runner = MagicMindTarget().runner(tmp_path)
    assert runner is not None
    try:
        outputs = runner.run({"x": np.load(tmp_path / "reference/0/input_0.npy")})
    finally:
        runner.close()
    np.testing.assert_allclose(outputs["y"], np.load(tmp_path / "reference/0/output_0.npy"), rtol=1e-6)


# Refusals


def test_custom_domain_is_refused_with_its_origin(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    sketch.graph.opset_imports["mine"] = 1
    y = sketch.op(HEAD).node("Sparkle", [sketch.input("x", [1, 4])], _domain="mine")
    y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1, 4])
    with pytest.raises(GraphForgeError, match="operator mine::Sparkle") as caught:
        emit(sketch.model(y=y), tmp_path, spec("x", 1, 4))
    assert "head.scores (Head), aten.sqrt.default, net.py:50" in str(caught.value)


def test_constant_beyond_int32_is_refused(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    x = sketch.input("x", [3], ir.DataType.INT64)
    y = sketch.op(HEAD).Add(x, np.array([1, 2**40, 3]))
    with pytest.raises(GraphForgeError, match="values beyond int32") as caught:
        emit(sketch.model(y=y), tmp_path, spec("x", 3, dtype="int64"))
    assert "1099511627776" in str(caught.value)


def test_float64_is_refused(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    y = sketch.op(HEAD).Sqrt(sketch.input("x", [3], ir.DataType.DOUBLE))
    with pytest.raises(GraphForgeError, match="float64, which MagicMind does not compute"):
        emit(sketch.model(y=y), tmp_path, spec("x", 3, dtype="float64"))


def test_refused_operator_is_named(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    y = sketch.op(HEAD).CumSum(sketch.input("x", [3]), np.array(0))
    with pytest.raises(GraphForgeError, match="CumSum is not taken"):
        emit(sketch.model(y=y), tmp_path, spec("x", 3))


def test_operator_newer_than_the_opset_is_named(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    x = sketch.input("x", [3])
    y = sketch.op(HEAD).HardSwish(x)
    y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([3])
    with pytest.raises(GraphForgeError, match="HardSwish is not an operator of opset 11"):
        emit(sketch.model(y=y), tmp_path, spec("x", 3))


def test_size_zero_cannot_be_promised(tmp_path: Path) -> None:
    shapes = spec("x", 1, 3, 16, 16, axis0=DimRange("batch", 0, 8))
    with pytest.raises(GraphForgeError, match="dim_range starts at 1"):
        emit(conv_net(OPSET, batch="batch"), tmp_path, shapes)


def test_described_inputs_in_another_order_are_refused(tmp_path: Path) -> None:
    model, shapes = two_inputs()
    with pytest.raises(GraphForgeError, match="the same in the same order"):
        emit(model, tmp_path, ShapeSpec(shapes.inputs[::-1]))


def test_quantised_precision_without_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs calibration data"):
        static_bundle(tmp_path, precision="qint8_mixed_float16")
    assert list(tmp_path.iterdir()) == []


def samples(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def with_nan() -> np.ndarray:
    data = samples(9, 3, 16, 16)
    data[4, 0, 0, 0] = np.nan
    return data


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ({"x": samples(9, 3, 15, 16)}, r"sample 0 of input 'x' has size 15 on axis 2, expected 16"),
        ({"x": samples(9, 16, 16, 3)}, "has size 16 on axis 1, expected 3"),
        ({"x": samples(9, 16)}, r"has shape \[16\], expected one like"),
        ({"x": samples(0, 3, 16, 16)}, "calibration data for input 'x' is empty"),
        ({"y": samples(9, 3, 16, 16)}, "is given for y, but the inputs are: x"),
        ({"x": np.zeros((9, 3, 16, 16), np.int64)}, "has dtype int64, expected floats"),
        ({"x": with_nan()}, "sample 4 of input 'x' has NaN"),
        ("nowhere.npz", "'nowhere.npz' does not exist"),
    ],
)
def test_calibration_that_does_not_fit_is_refused(calibration: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match=message):
        quantised_bundle(tmp_path, calibration=calibration)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ({"index": np.zeros((6, 5), np.int64)}, "missing for input factor"),
        (
            {"index": np.zeros((6, 5), np.int64), "factor": samples(4, 5, 4)},
            "different numbers of feeds: index 3, factor 2",
        ),
        ({"index": np.full((6, 5), 2**40), "factor": samples(6, 5, 4)}, "do not fit int32"),
    ],
)
def test_streams_that_do_not_go_together_are_refused(
    calibration: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    model, shapes = two_inputs()
    with pytest.raises(GraphForgeError, match=message):
        emit(model, tmp_path, shapes, precision="qint8_mixed_float16", calibration=calibration)


def test_unreadable_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    file.write_bytes(b"no archive")
    with pytest.raises(GraphForgeError, match=r"is not a \.npz archive of arrays"):
        quantised_bundle(tmp_path / "bundle", calibration=str(file))


def test_few_or_unnormalised_samples_are_told(tmp_path: Path) -> None:
    result = quantised_bundle(tmp_path, calibration={"x": samples(2, 3, 16, 16) * 100})
    assert any("only 2 calibration samples" in note for note in result.notes)
    assert any("look unnormalised" in note for note in result.notes)


def test_model_that_does_not_run_is_refused(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    index = sketch.input("index", [2], ir.DataType.INT64)
    y = sketch.op(HEAD).Gather(sketch.weight("table", 1, 4), index)
    shapes = ShapeSpec((TensorSpec("index", (2,), "int64"),))
    with pytest.raises(GraphForgeError, match=r"does not run in ONNX Runtime[\s\S]*reference_inputs"):
        emit(sketch.model(y=y), tmp_path, shapes)
