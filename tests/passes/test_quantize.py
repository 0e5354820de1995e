"""quantize: scales, which pairs stand where, what is kept within a bound, and the files load in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import graphforge
from graphforge.errors import UsageError
from graphforge.ir import DataType
from graphforge.passes.qdq import QUANTISED
from graphforge.passes.qdq.scales import grid_of, weight_scales
from graphforge.passes.quantize import Quantize
from graphforge.ranges import METRIC, SAMPLES, Histogram, Measured, Samples
from tests.passes.harness import Outcome, parse, run

_RANDOM = np.random.default_rng(0)
_CONV = _RANDOM.normal(size=(4, 2, 3, 3)).astype(np.float32)
_BIAS = _RANDOM.normal(size=(4,)).astype(np.float32)
_MATRIX = _RANDOM.normal(size=(4, 4)).astype(np.float32)
_PICTURES = [{"x": _RANDOM.normal(size=(1, 2, 6, 6)).astype(np.float32)} for _ in range(4)]
_NET = "g (float[1,2,6,6] x) => (float[1,4,4,4] y) { c = Conv(x, w, b) r = Relu(c) s = Sigmoid(r) y = Mul(r, s) }"


def _on(body: str, feeds: list[dict[str, Any]], weights: Any, pass_: Quantize | None = None) -> Outcome:
    model = parse(body, weights)
    model.meta[SAMPLES] = Samples(tuple(feeds), "these")
    return run(pass_ or Quantize(), model, numbers=False)


def _constant(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())


def _producer(value: ir.Value | None) -> ir.Node:
    assert value is not None
    node = value.producer()
    assert node is not None
    return node


def test_the_result_of_a_convolution_is_quantised_behind_its_relu() -> None:
    outcome = _on(_NET, _PICTURES, {"w": _CONV, "b": _BIAS})
    assert outcome.ops == [
        *["DequantizeLinear"] * 2,
        *["QuantizeLinear", "DequantizeLinear", "Conv", "Relu", "QuantizeLinear", "DequantizeLinear"],
        *["Sigmoid", "Mul"],
    ]
    constants = {value.name: value.dtype for value in outcome.model.graph.initializers.values() if value.uses()}
    assert {DataType.INT8, DataType.INT32, DataType.UINT8} <= set(constants.values())
    relu = next(node for node in outcome.model.graph if node.op_type == "Relu")
    assert [user.op_type for user, _ in relu.outputs[0].uses()] == ["QuantizeLinear"]
    assert outcome.model.meta[QUANTISED].errors["y"] < 0.03


def test_seven_bits_of_weights_do_not_saturate_any_processor() -> None:
    """255 * 63 twice is below 2^15; with all eight bits a processor without VNNI cuts sums off."""
    outcome = _on(_NET, _PICTURES, {"w": _CONV, "b": _BIAS})
    integers = [_constant(v) for v in outcome.model.graph.initializers.values() if v.dtype == DataType.INT8]
    weights = next(array for array in integers if array.ndim == 4)
    assert np.abs(weights.astype(np.int64)).max() == 63
    whole = _on(_NET, _PICTURES, {"w": _CONV, "b": _BIAS}, Quantize(weights="int8"))
    integers = [_constant(v) for v in whole.model.graph.initializers.values() if v.dtype == DataType.INT8]
    assert np.abs(next(array for array in integers if array.ndim == 4).astype(np.int64)).max() == 127


def test_weights_have_a_scale_for_each_channel() -> None:
    outcome = _on(
        _NET, _PICTURES, {"w": _CONV * np.asarray([1, 1, 1, 100]).reshape(4, 1, 1, 1).astype(np.float32), "b": _BIAS}
    )
    conv = next(node for node in outcome.model.graph if node.op_type == "Conv")
    scales = _constant(_producer(conv.inputs[1]).inputs[1])
    assert scales.shape == (4,)
    assert scales[3] > 20 * scales[0]


def test_what_is_symmetric_has_no_zero_point_and_float_biases() -> None:
    outcome = _on(_NET, _PICTURES, {"w": _CONV, "b": _BIAS}, Quantize(activations="int8", results=False, biases=False))
    assert outcome.ops == ["DequantizeLinear", "QuantizeLinear", "DequantizeLinear", "Conv", "Relu", "Sigmoid", "Mul"]
    quantize = next(node for node in outcome.model.graph if node.op_type == "QuantizeLinear")
    zero = _constant(quantize.inputs[2])
    assert zero.dtype.name == "int8"
    assert zero.item() == 0


def test_a_value_is_quantised_once_for_all_that_read_it() -> None:
    outcome = _on(
        "g (float[2,4] x) => (float[2,4] y) { a = MatMul(x, w) b = MatMul(x, v) y = Add(a, b) }",
        [{"x": np.ones((2, 4), np.float32)}],
        {"w": _MATRIX, "v": _MATRIX.T.copy()},
    )
    assert outcome.ops.count("QuantizeLinear") == 1


def test_the_bias_behind_a_product_is_an_integer_too() -> None:
    """ONNX Runtime makes one Gemm of the two, and an integer kernel of that where all its operands are integers."""
    outcome = _on(
        "g (float[2,3,4] x) => (float[2,3,4] y) { p = MatMul(x, w) y = Add(b, p) }",
        [{"x": np.ones((2, 3, 4), np.float32)}],
        {"w": _MATRIX, "b": _BIAS},
    )
    add = next(node for node in outcome.model.graph if node.op_type == "Add")
    bias = _producer(add.inputs[0])
    assert bias.op_type == "DequantizeLinear"
    assert bias.inputs[0] is not None
    assert bias.inputs[0].dtype == DataType.INT32


def test_products_of_two_values_and_doubles_stay() -> None:
    outcome = _on(
        "g (float[2,4] x, float[4,4] z) => (float[2,4] y) { y = MatMul(x, z) }",
        [{"x": np.ones((2, 4), np.float32), "z": _MATRIX}],
        {},
    )
    assert outcome.record.changes == 0


_DEEP = "g (float[8,4] x) => (float[8,4] y) { a = MatMul(x, w) b = Mul(a, c) d = MatMul(b, v) y = MatMul(d, w) }"
# One column is a thousand times the others: eight bits that hold it leave nothing for those.
_UNEVEN = {
    "w": np.eye(4, dtype=np.float32),
    "c": np.asarray([1000, 1, 1, 1], np.float32),
    "v": np.diag(np.asarray([0.001, 1, 1, 1])).astype(np.float32),
}
_ROWS = [{"x": _RANDOM.normal(size=(8, 4)).astype(np.float32)} for _ in range(3)]


def test_without_a_bound_everything_is_quantised_and_the_loss_is_told() -> None:
    outcome = _on(_DEEP, _ROWS, _UNEVEN)
    assert outcome.model.meta[QUANTISED].errors["y"] > 0.3
    assert "3 of 3 sums of products" in outcome.record.notes[0]


def test_the_most_sensitive_stays_within_the_bound() -> None:
    outcome = _on(_DEEP, _ROWS, _UNEVEN, Quantize(max_drop=5.0))
    quantised = outcome.model.meta[QUANTISED]
    assert quantised.errors["y"] <= 0.05
    assert len(quantised.kept) == 1
    assert "'d'" in quantised.kept[0]
    assert any("the most sensitive first: MatMul node 'd'" in note for note in outcome.record.notes)
    assert any("evaluations" in note for note in outcome.record.notes)


def test_the_metric_of_the_user_decides() -> None:
    """A metric that looks at the first column only has nothing against the loss of the others."""
    model = parse(_DEEP, _UNEVEN)
    model.meta[SAMPLES] = Samples(tuple(_ROWS), "these")
    right = _ROWS[0]["x"][:, 0]

    def metric(run_model: Any) -> float:
        return -float(np.abs(run_model(_ROWS[0])["y"][:, 0] - right).max())

    model.meta[METRIC] = metric
    outcome = run(Quantize(max_drop=0.5), model, numbers=False)
    assert outcome.model.meta[QUANTISED].kept == ()
    assert any("the metric is" in note for note in outcome.record.notes)


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_grids_hold_zero_exactly(method: str) -> None:
    measured = Measured("v", histogram=Histogram())
    measured.add(np.append(_RANDOM.normal(3, 1, 1_000_000), 30.0).astype(np.float32))
    grid = grid_of(measured, method, signed=False)
    assert grid.rounded(np.zeros(1))[0] == 0
    largest = grid.rounded(np.asarray([1e9]))[0]
    assert largest == pytest.approx(30, rel=0.01) if method == "minmax" else largest < 20


def test_scales_of_channels_without_weights_are_not_zero() -> None:
    scales = weight_scales(np.zeros((2, 3), np.float32), 0)
    assert (scales > 0).all()


@pytest.mark.parametrize("options", [{"method": "mean"}, {"activations": "int4"}, {"max_drop": -1.0}])
def test_what_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Quantize(**options)


class Flat(torch.nn.Module):
    """A quantised layer behind Flatten: what ONNX Runtime refused to load at opsets 21 to 23."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
        self.head = torch.nn.Linear(36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.features(x).flatten(1))
        return out


@pytest.mark.parametrize("opset", [11, 17, 21, 23])
def test_a_network_compiles_loads_and_is_judged_by_what_was_measured(tmp_path: Path, opset: int) -> None:
    bundle = graphforge.compile(
        Flat().eval(),
        (torch.randn(2, 1, 8, 8),),
        dynamic_shapes={"x": {0: (1, 4)}},
        opset=opset,
        precision="int8",
        calibration={"x": _RANDOM.normal(size=(16, 1, 8, 8)).astype(np.float32)},
        output=tmp_path / "b",
    )
    verification = bundle.manifest["verification"]
    assert verification["verdict"] == "passed"
    assert verification["trials"][-1]["data"] == "samples"
    assert "of the signal" in verification["trials"][-1]["outputs"][0]["tolerance"]
    model = onnx.load(tmp_path / "b" / "model.onnx")
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    assert kinds == {onnx.TensorProto.INT8}


def test_a_fault_in_front_of_the_quantisation_still_fails(tmp_path: Path) -> None:
    from dataclasses import dataclass
    from typing import ClassVar

    from graphforge.transform import Pass

    @dataclass(frozen=True)
    class Scale(Pass):
        name: ClassVar[str] = "scale-a-little"

        def run(self, graph: Any, rewriter: Any) -> None:
            value = next(iter(value for value in graph.initializers.values() if len(value.shape) == 4))
            array = value.const_value.numpy() * np.float32(1.001)
            rewriter.set_constant(value, rewriter.constant(array).const_value)

    with pytest.raises(graphforge.VerificationError):
        graphforge.compile(
            Flat().eval(), (torch.randn(2, 1, 8, 8),), precision="int8", passes=[Scale()], output=tmp_path / "b"
        )


def test_a_bound_without_int8_and_a_metric_without_a_bound_are_refused(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"output": tmp_path / "b"}
    with pytest.raises(UsageError, match="bounds what int8 may cost"):
        graphforge.compile(torch.nn.ReLU(), torch.ones(2), max_drop=1.0, **arguments)
    with pytest.raises(UsageError, match="nothing asks for it"):
        graphforge.compile(torch.nn.ReLU(), torch.ones(2), metric=lambda run: 1.0, precision="int8", **arguments)
    with pytest.raises(UsageError, match=r"write it as FILE\.py:function"):
        graphforge.compile(torch.nn.ReLU(), torch.ones(2), metric="top1", max_drop=1.0, precision="int8", **arguments)
