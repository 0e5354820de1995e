"""Plans built for real by TensorRT for RTX, which needs no GPU for it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

import graphforge
from graphforge.cli.main import run
from graphforge.errors import GraphForgeError, UsageError
from graphforge.ir import Origin
from graphforge.spec import DimRange, ShapeSpec, TensorSpec
from graphforge.targets import EmitResult, options_for
from graphforge.targets.tensorrt import TensorRTTarget
from graphforge.targets.tensorrt.flavour import gpu_problem
from graphforge.targets.tensorrt.log import in_words
from graphforge.targets.tensorrt.runner import TensorRTRunner
from tests.targets.models import Sketch, conv_net, spec

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (pip install tensorrt-rtx-cu13)")

OPSET = 25
HEAD = Origin("head.nms", "net.Head", "torchvision.nms.default", "net.py", 41)


def emit(model: ir.Model, folder: Path, shapes: ShapeSpec, *, precision: str | None = None, **extra: Any) -> EmitResult:
    target = TensorRTTarget()
    options = options_for(target, precision=precision, own={"flavour": "tensorrt_rtx", **extra})
    return target.emit(model, folder, options, shapes)


def test_static_plan_and_what_its_sidecar_says(tmp_path: Path) -> None:
    result = emit(conv_net(OPSET), tmp_path, spec("x", 1, 3, 16, 16))
    assert result.files == ("model.plan", "model.onnx", "plan.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(result.files)
    sidecar = json.loads((tmp_path / "plan.json").read_text())
    assert sidecar["flavour"] == "tensorrt_rtx"
    assert sidecar["compute_capabilities"] == ["SM86", "SM89"]
    assert sidecar["profiles"] == []
    assert sidecar["inputs"] == [{"name": "x", "dtype": "FLOAT", "shape": [1, 3, 16, 16]}]
    assert sidecar["outputs"] == [{"name": "y", "dtype": "FLOAT", "shape": [1, 8, 16, 16]}]
    assert sidecar["onnx"]["opset"] == OPSET
    for part in ("onnx", "plan"):
        content = (tmp_path / sidecar[part]["file"]).read_bytes()
        assert sidecar[part]["sha256"] == hashlib.sha256(content).hexdigest()
    assert sidecar["plan"]["bytes"] > 10_000
    assert result.facts["seconds"]["build"] > 0
    assert json.loads(json.dumps(result.facts)) == result.facts


def test_plan_for_one_compute_capability_is_smaller_than_for_two(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = emit(conv_net(OPSET), tmp_path / "one", spec("x", 1, 3, 16, 16), compute_capabilities="8.9")
    two = emit(conv_net(OPSET), tmp_path / "two", spec("x", 1, 3, 16, 16))
    assert one.facts["compute_capabilities"] == ["SM89"]
    assert one.facts["plan"]["bytes"] < two.facts["plan"]["bytes"]


def test_dynamic_plan_has_one_profile(tmp_path: Path) -> None:
    shapes = spec("x", 2, 3, 16, 16, axis0=DimRange("batch", 1, 8), axis3=DimRange("width", 8, 64, 8))
    result = emit(conv_net(OPSET, batch="batch", width="width"), tmp_path, shapes)
    assert result.facts["profiles"] == [{"x": {"min": [1, 3, 16, 8], "opt": [2, 3, 16, 16], "max": [8, 3, 16, 64]}}]
    assert result.facts["outputs"][0]["shape"] == ["batch", 8, 16, "width"]


def test_the_onnx_beside_the_plan_runs_in_onnx_runtime(tmp_path: Path) -> None:
    emit(conv_net(OPSET), tmp_path, spec("x", 1, 3, 16, 16))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": np.ones((1, 3, 16, 16), np.float32)})
    assert output.shape == (1, 8, 16, 16)
    assert (output >= 0).all()


def test_refused_operators_are_named_with_their_origin(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    x = sketch.input("x", [3, 3])
    det = sketch.op(Origin("head.volume", "net.Volume", "aten.linalg_det.default", "net.py", 30)).Det(x)
    unique = sketch.op(HEAD).node("Unique", [x])
    unique.shape = ir.Shape(["k"])
    with pytest.raises(GraphForgeError) as caught:
        emit(sketch.model(volume=det, rest=unique), tmp_path, spec("x", 3, 3))
    message = str(caught.value)
    assert "TensorRT for RTX cannot take the model: it does not support Det, Unique" in message
    assert "Det node 'head.volume/Det' (head.volume (Volume), aten.linalg_det.default, net.py:30)" in message
    assert "Unique node 'head.nms/Unique' (head.nms (Head), torchvision.nms.default, net.py:41)" in message
    assert not (tmp_path / "model.plan").exists()


def test_custom_operator_without_plugin_is_named_with_its_origin(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    x = sketch.input("x", [1, 4])
    sketch.graph.opset_imports["mine"] = 1
    y = sketch.op(HEAD).node("Sparkle", [x], _domain="mine")
    y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1, 4])
    with pytest.raises(GraphForgeError, match=r"does not support Sparkle[\s\S]*net\.py:41"):
        emit(sketch.model(y=y), tmp_path, spec("x", 1, 4))


def test_an_element_type_that_it_does_not_have_is_named_with_its_line(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    x = sketch.input("x", [4])
    short = sketch.op(HEAD).Cast(x, to=ir.DataType.INT16)
    with pytest.raises(GraphForgeError) as caught:
        emit(sketch.model(y=sketch.op(HEAD).Cast(short, to=ir.DataType.FLOAT)), tmp_path, spec("x", 4))
    message = str(caught.value)
    assert "TensorRT for RTX cannot take the model: it has no int16" in message
    assert re.search(r"Cast node .*net\.py:41.*: TensorRT has no int16", message)
    assert len(set(caught.value.notes)) == len(caught.value.notes)
    assert "compute in int32 or int64 there" in message


def test_what_only_the_builder_refuses_has_its_line_and_a_way_out(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    best, _ = sketch.op(HEAD).TopK(sketch.input("x", [1, 5000]), np.array([4000]), _outputs=2)
    with pytest.raises(GraphForgeError, match=r"TopK node .*net\.py:41[\s\S]*ask for at most 3840"):
        emit(sketch.model(y=best), tmp_path, spec("x", 1, 5000), compute_capabilities="SM86")


def test_an_input_whose_values_decide_shapes_is_named_with_who_reads_it(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    count = sketch.input("count", [], ir.DataType.INT64)
    y = sketch.op(HEAD).Range(np.array(0), count, np.array(1))
    shapes = ShapeSpec((TensorSpec("count", (), "int64"),))
    with pytest.raises(GraphForgeError, match=r"input 'count' decide shapes[\s\S]*read by Range node .*net\.py:41"):
        emit(sketch.model(y=y), tmp_path, shapes)


def test_operator_without_kernel_is_named_at_build(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    boxes, scores = sketch.input("boxes", [1, 10, 4]), sketch.input("scores", [1, 2, 10])
    kept = sketch.op(HEAD).NonMaxSuppression(boxes, scores, 5, 0.5)
    kept.shape = ir.Shape(["kept", 3])
    shapes = ShapeSpec((TensorSpec("boxes", (1, 10, 4)), TensorSpec("scores", (1, 2, 10))))
    with pytest.raises(GraphForgeError) as caught:
        emit(sketch.model(kept=kept), tmp_path, shapes)
    message = str(caught.value)
    assert "parses the model but has no kernel for NonMaxSuppression" in message
    assert "NonMaxSuppression node 'head.nms/NonMaxSuppression' (head.nms (Head)" in message
    assert "net.py:41" in message
    assert "write NMS in plain tensor operators, nms='portable'" in message
    assert not (tmp_path / "model.plan").exists()


def test_input_type_that_tensorrt_lacks_is_refused(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    x = sketch.input("x", [3], ir.DataType.COMPLEX64)
    y = sketch.op(HEAD).Identity(x)
    with pytest.raises(GraphForgeError, match="cannot take the model"):
        emit(sketch.model(y=y), tmp_path, spec("x", 3, dtype="complex64"))


def test_contradicting_output_shape_is_caught(tmp_path: Path) -> None:
    """TensorRT's parser takes a Conv whose output shape is stated wrongly and builds something else in silence."""
    model = conv_net(OPSET)
    model.graph.outputs[0].shape = ir.Shape([1, 8, 16, 15])
    with pytest.raises(GraphForgeError, match="'y' is 1x8x16x15 in the model, but TensorRT derives 1x8x16x16"):
        emit(model, tmp_path, spec("x", 1, 3, 16, 16))


def test_narrowed_float64_is_told(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    x = sketch.input("x", [1, 4], ir.DataType.DOUBLE)
    y = sketch.op(HEAD).Add(x, np.full((1, 4), 0.1))
    result = emit(sketch.model(y=y), tmp_path, spec("x", 1, 4, dtype="float64"))
    assert "input 'x' is DOUBLE in the model and FLOAT in the plan" in result.notes
    assert "1 float64 constants of the model are float32 in the plan: TensorRT has no float64" in result.notes


def test_half_types_build_as_typed_but_not_as_fp32(tmp_path: Path) -> None:
    def half() -> ir.Model:
        sketch = Sketch(OPSET)
        x = sketch.input("x", [1, 4], ir.DataType.FLOAT16)
        return sketch.model(y=sketch.op(HEAD).Relu(x))

    shapes = spec("x", 1, 4, dtype="float16")
    assert emit(half(), tmp_path, shapes).facts["inputs"][0]["dtype"] == "HALF"
    with pytest.raises(GraphForgeError, match="precision fp32 was asked for, but value 'x' of Relu"):
        emit(half(), tmp_path, shapes, precision="fp32")


def test_attention_without_a_fused_kernel_is_built_from_products(tmp_path: Path) -> None:
    """TensorRT for RTX has no kernel for float32 heads of 8; left alone, the build fails."""
    sketch = Sketch(OPSET)
    query, key, value = (sketch.input(name, [2, 4, 7, 8]) for name in ("query", "key", "value"))
    y = sketch.op(HEAD).Attention(query, key, value)
    shapes = ShapeSpec(tuple(TensorSpec(name, (2, 4, 7, 8)) for name in ("query", "key", "value")))
    assert emit(sketch.model(y=y), tmp_path, shapes).files[0] == "model.plan"


def test_unknown_compute_capability_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="no compute capability SM90") as caught:
        emit(conv_net(OPSET), tmp_path, spec("x", 1, 3, 16, 16), compute_capabilities="9.0")
    assert "SM86, SM89" in str(caught.value)


def test_unsupported_shape_input_is_refused(tmp_path: Path) -> None:
    sketch = Sketch(OPSET)
    x, size = sketch.input("x", [4]), sketch.input("size", [2], ir.DataType.INT64)
    y = sketch.op(HEAD).node("Reshape", [x, size])
    y.shape = ir.Shape(["a", "b"])
    shapes = ShapeSpec((TensorSpec("x", (4,)), TensorSpec("size", (2,), "int64")))
    with pytest.raises(GraphForgeError, match="the values of input 'size' decide shapes"):
        emit(sketch.model(y=y), tmp_path, shapes)


def test_a_failed_build_does_not_spoil_the_next(tmp_path: Path) -> None:
    """TensorRT keeps one logger per process; errors of one build must not be blamed on another."""
    sketch = Sketch(OPSET)
    model = sketch.model(volume=sketch.op(HEAD).Det(sketch.input("x", [3, 3])))
    with pytest.raises(GraphForgeError):
        emit(model, tmp_path, spec("x", 3, 3))
    assert emit(conv_net(OPSET), tmp_path, spec("x", 1, 3, 16, 16)).files[0] == "model.plan"


@pytest.mark.skipif(gpu_problem() is None, reason="this machine has a GPU")
def test_without_gpu_the_onnx_is_run_and_everything_says_so(tmp_path: Path) -> None:
    result = emit(conv_net(OPSET), tmp_path, spec("x", 1, 3, 16, 16))
    assert any("the plan cannot be run here" in note and "model.onnx" in note for note in result.notes)
    assert json.loads((tmp_path / "plan.json").read_text())["checked"] == "model.onnx"
    runner = TensorRTTarget().runner(tmp_path)
    assert runner is not None
    assert runner.name == "ONNX Runtime on the plan's model.onnx"
    assert runner.run({"x": np.ones((1, 3, 16, 16), np.float32)})["y"].shape == (1, 8, 16, 16)
    runner.close()


@pytest.mark.skipif(gpu_problem() is None, reason="this machine has a GPU")
def test_why_a_plan_does_not_load_is_told_in_the_words_of_tensorrt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    emit(conv_net(OPSET), tmp_path, spec("x", 1, 3, 16, 16))
    monkeypatch.setattr("graphforge.targets.tensorrt.runner.gpu_problem", lambda: None)
    with pytest.raises(GraphForgeError, match=r"does not load model\.plan") as caught:
        TensorRTRunner(tmp_path)
    assert "cuda" in caught.value.notes[0].lower()  # what it says without a driver
    assert capfd.readouterr() == ("", "")


def test_a_line_of_the_log_is_told_without_the_code_that_wrote_it() -> None:
    line = (
        "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine cannot run on this GPU, which has "
        "compute capability 9.0. Supported: None. "
        "In throwUnlessComputeCapSupported at /_src/runtime/dispatch/runtime.cpp:84)"
    )
    wanted = "The engine cannot run on this GPU, which has compute capability 9.0. Supported: None."
    assert in_words(line) == wanted
    assert in_words("Error Code 9: Skipping tactic 0x1 (no (such) kernel)") == "no (such) kernel"
    assert in_words("something else") == "something else"


@pytest.mark.gpu
@pytest.mark.skipif(gpu_problem() is not None, reason=f"needs a GPU: {gpu_problem()}")
def test_plan_runs_like_onnx_runtime(tmp_path: Path) -> None:
    emit(conv_net(OPSET), tmp_path, spec("x", 1, 3, 16, 16), compute_capabilities="current", tf32=False)
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    problem = TensorRTTarget().runs_here(tmp_path)
    if problem is not None and "does not support this compute capability" in problem:
        pytest.skip(problem)  # a data centre's GPU, for which this flavour is not made
    assert problem is None
    runner = TensorRTTarget().runner(tmp_path)
    assert runner is not None
    try:
        np.testing.assert_allclose(runner.run({"x": x})["y"], expected, rtol=1e-4, atol=1e-4)
    finally:
        runner.close()


def test_workspace_is_taken_and_recorded(tmp_path: Path) -> None:
    result = emit(conv_net(OPSET), tmp_path, spec("x", 1, 3, 16, 16), workspace="64")
    assert result.facts["workspace_mib"] == 64


def test_what_this_flavour_cannot_build_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no version-compatible plans: it has no lean runtime"):
        emit(conv_net(OPSET), tmp_path, spec("x", 1, 3, 16, 16), version_compatible="true")
    with pytest.raises(UsageError, match="built for one GPU, and SM86, SM89 are asked for"):
        emit(conv_net(OPSET), tmp_path, spec("x", 1, 3, 16, 16), weight_stripped="true")
    monkeypatch.setattr("graphforge.targets.tensorrt.options.gpu_problem", lambda: "the driver sees no GPU")
    with pytest.raises(UsageError, match="built only where a GPU is: the driver sees no GPU"):
        emit(conv_net(OPSET), tmp_path, spec("x", 1, 3, 16, 16), weight_stripped="true", compute_capabilities="SM86")


def test_the_optimum_is_the_one_that_is_asked_for(tmp_path: Path) -> None:
    shapes = spec("x", 2, 3, 16, 16, axis0=DimRange("batch", 1, 8))
    result = emit(conv_net(OPSET, batch="batch"), tmp_path, shapes, optimum="batch=4")
    assert result.facts["profiles"] == [{"x": {"min": [1, 3, 16, 16], "opt": [4, 3, 16, 16], "max": [8, 3, 16, 16]}}]
    for optimum, message in (("batch=9", "batch=9 is not among the sizes promised: 1..8"), ("n=2", "not dynamic")):
        with pytest.raises(GraphForgeError, match=message):
            emit(conv_net(OPSET, batch="batch"), tmp_path, shapes, optimum=optimum)
    with pytest.raises(GraphForgeError, match="size 'few' of dim 'batch' cannot be read"):
        emit(conv_net(OPSET, batch="batch"), tmp_path, shapes, optimum="batch=few")


def test_a_plan_in_bfloat16_has_no_casts_and_its_file_is_looked_at_all_the_same(tmp_path: Path) -> None:
    """ONNX Runtime has no such Conv: what checks, times and compares the file runs a copy with casts."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.SiLU(), torch.nn.ConvTranspose2d(8, 2, 3)).eval()
    inputs = (torch.randn(1, 3, 8, 8),)
    bundle = graphforge.compile(
        net,
        inputs,
        target="tensorrt",
        precision="bf16",
        target_options={"flavour": "tensorrt_rtx", "compute_capabilities": "SM86"},
        output=tmp_path / "plan",
    )
    assert bundle.manifest["verification"]["passed"] is True
    assert "a copy of the plan's model.onnx" in bundle.manifest["verification"]["artifact"]
    nodes = onnx.load(tmp_path / "plan/model.onnx").graph.node
    # in, out, and around the transposed convolution (its weight too), of which TensorRT has none in bfloat16
    assert [node.op_type for node in nodes].count("Cast") == 5
    assert list(bundle.manifest["artifact"]["matrix_work"]) == ["BF16", "FLOAT"]
    assert graphforge.profile(bundle, runs=1, warmup=0, threads=1).rows[0].name == "onnxruntime"
    assert graphforge.diff(net, bundle, inputs).agrees


def test_several_profiles_in_one_plan(tmp_path: Path) -> None:
    shapes = spec("x", 2, 3, 16, 16, axis0=DimRange("batch", 1, 8))
    result = emit(
        conv_net(OPSET, batch="batch"), tmp_path, shapes, profiles="batch=1;batch=2..8@4", compute_capabilities="SM86"
    )
    assert [profile["x"]["opt"][0] for profile in result.facts["profiles"]] == [1, 4]
    assert json.loads((tmp_path / "plan.json").read_text())["profiles"] == result.facts["profiles"]


def test_matrix_work_is_told_by_element_type(tmp_path: Path) -> None:
    """216 multiplications a place in bfloat16, and 32 behind a cast."""
    sketch = Sketch(OPSET)
    x = sketch.input("x", [1, 3, 8, 8])
    op = sketch.op(HEAD)
    weight = op.Cast(sketch.weight("weight", 8, 3, 3, 3), to=ir.DataType.BFLOAT16)
    first = op.Conv(op.Cast(x, to=ir.DataType.BFLOAT16), weight, pads=[1, 1, 1, 1])
    second = op.Conv(op.Cast(first, to=ir.DataType.FLOAT), sketch.weight("more", 4, 8, 1, 1))
    result = emit(sketch.model(y=second), tmp_path, spec("x", 1, 3, 8, 8), compute_capabilities="SM86")
    assert result.facts["matrix_work"] == {"BF16": round(216 / 248, 4), "FLOAT": round(32 / 248, 4)}
    assert any("87.1% in BF16 (1 layer), 12.9% in FLOAT (1 layer)" in note for note in result.notes)


def test_a_plan_is_inspected_by_what_stands_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = spec("x", 2, 3, 16, 16, axis0=DimRange("batch", 1, 8))
    emit(conv_net(OPSET, batch="batch"), tmp_path, shapes, compute_capabilities="SM86")
    plan = tmp_path / "model.plan"
    assert run(["inspect", str(plan)]) == 0
    said = capsys.readouterr().out
    assert "for SM86, tensorrt_rtx 1." in said
    assert "  sizes  x  1x3x16x16 to 8x3x16x16, fastest at 2x3x16x16" in said
    assert "  input  x  FLOAT batchx3x16x16" in said
    assert "SHA-256" not in said
    plan.write_bytes(plan.read_bytes()[:-1])
    assert run(["inspect", str(plan)]) == 0
    assert "it is not the file that plan.json describes: its SHA-256 differs" in capsys.readouterr().out
    (tmp_path / "plan.json").unlink()
    assert run(["inspect", str(plan)]) == 1
    assert "there is no plan.json beside" in capsys.readouterr().err
