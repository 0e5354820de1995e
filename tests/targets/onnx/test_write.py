"""The streaming ONNX writer: an ordinary file, weights intact, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx_ir.tensor_adapters import TorchTensor

from graphforge.errors import GraphForgeError
from graphforge.ir import Builder
from graphforge.ir.versions import ir_version_for
from graphforge.targets.onnx.naming import assign_names
from graphforge.targets.onnx.write import write_onnx


def _model(*weights: torch.Tensor) -> ir.Model:
    """x + w for each weight in turn."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([*weights[0].shape]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 18}, name="main")
    op = Builder(graph, opset=18)
    value = x
    for index, weight in enumerate(weights):
        value = op.Add(value, op.constant(TorchTensor(weight), name=f"w{index}"))
    value.name = "y"
    graph.outputs.append(value)
    model = ir.Model(graph, ir_version=8)
    assign_names(model)
    return model


def test_large_weights_arrive_bit_for_bit_whatever_their_strides(tmp_path: Path) -> None:
    plain, turned = torch.randn(64, 80), torch.randn(80, 64).t()
    write_onnx(_model(plain, turned), tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    np.testing.assert_array_equal(stored["w0"], plain.numpy())
    np.testing.assert_array_equal(stored["w1"], turned.numpy())
    x = np.ones((64, 80), np.float32)
    (y,) = ort.InferenceSession(tmp_path / "model.onnx").run(None, {"x": x})
    np.testing.assert_allclose(y, x + plain.numpy() + turned.numpy(), rtol=1e-6)


def test_the_file_is_what_protobuf_itself_would_read_back_and_write(tmp_path: Path) -> None:
    write_onnx(_model(torch.randn(64, 80), torch.randn(1, 80)), tmp_path / "model.onnx")
    raw = (tmp_path / "model.onnx").read_bytes()
    proto = onnx.ModelProto.FromString(raw)
    assert len(proto.SerializeToString()) == len(raw)
    assert [tensor.name for tensor in proto.graph.initializer] == ["w1", "w0"]  # small ones first, streamed ones after


def test_writing_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = _model(torch.randn(64, 80), torch.randn(1, 80))
    before = list(model.graph.initializers)
    write_onnx(model, tmp_path / "model.onnx")
    assert list(model.graph.initializers) == before
    assert all(value.const_value is not None for value in model.graph.initializers.values())


def test_weights_above_the_limit_go_beside_the_model(tmp_path: Path) -> None:
    weight = torch.randn(64, 80)
    names = write_onnx(_model(weight), tmp_path / "model.onnx", external_bytes=1000)
    assert names == ["model.onnx", "model.onnx.data"]
    assert (tmp_path / "model.onnx").stat().st_size < 2000
    x = np.zeros((64, 80), np.float32)
    (y,) = ort.InferenceSession(tmp_path / "model.onnx").run(None, {"x": x})
    np.testing.assert_array_equal(y, weight.numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.bool])
def test_every_dtype_survives(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = (torch.randn(100, 100) * 5).to(dtype)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="main")
    op = Builder(graph, opset=18)
    output = op.Identity(op.constant(TorchTensor(weight), name="w"))
    output.name = "y"
    graph.outputs.append(output)
    write_onnx(ir.Model(graph, ir_version=8), tmp_path / "model.onnx")
    (tensor,) = onnx.load(tmp_path / "model.onnx").graph.initializer
    stored = onnx.numpy_helper.to_array(tensor)
    expected = weight.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if dtype == torch.bfloat16 else weight.numpy()
    np.testing.assert_array_equal(stored, expected)


def test_a_full_disk_is_one_clear_message_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TorchTensor, "tofile", full)
    with pytest.raises(GraphForgeError, match="No space left"):
        write_onnx(_model(torch.randn(64, 80)), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("opset", "expected"), [(11, 6), (13, 7), (17, 8), (20, 9), (22, 10), (23, 11), (26, 13)])
def test_ir_version_is_the_lowest_that_carries_the_opset(opset: int, expected: int) -> None:
    assert ir_version_for(opset) == expected
