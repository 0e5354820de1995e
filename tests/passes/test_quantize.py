"""quantize: scales, which pairs stand where, what is kept within a bound, and the files load in ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from rich.console import Console

import graphforge
from graphforge.errors import UsageError
from graphforge.ir import DataType, Origin, origins_of, set_origins
from graphforge.passes.compute_where_kernels_are import runnable
from graphforge.passes.qdq import QUANTISED
from graphforge.passes.qdq.scales import grid_of, weight_integers
from graphforge.passes.quantize import Quantize
from graphforge.ranges import METRIC, SAMPLES, Histogram, Measured, Samples
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
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


def test_pins_stay_in_float32_and_are_told() -> None:
    body = "g (float[2,4] x) => (float[2,4] y) { p = MatMul(x, w) r = Relu(p) y = Gemm(r, w) }"
    feeds = [{"x": _RANDOM.normal(size=(2, 4)).astype(np.float32)} for _ in range(2)]
    outcome = _on(body, feeds, {"w": _MATRIX}, Quantize(pins=("y*",)))
    product, last = (next(n for n in outcome.model.graph if n.op_type == kind) for kind in ("MatMul", "Gemm"))
    assert _producer(product.inputs[1]).op_type == "DequantizeLinear"
    assert _constant(last.inputs[1]).dtype == np.float32
    assert any("1 stay in float32, asked for: Gemm node 'y'" in note for note in outcome.record.notes)


@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (6, 4, 1, 1), (6, 40)])
def test_portable_weights_do_not_saturate_any_processor(shape: tuple[int, ...]) -> None:
    """255 times two neighbours of one sign stays below 2^15, whichever of channels and places lie side by side."""
    weights = _RANDOM.normal(size=shape).astype(np.float32) + 1
    integers, scales = weight_integers(weights, 0, "portable")
    rows = integers.astype(np.int64).reshape(shape[0], shape[1], -1)
    for order in (rows, rows.swapaxes(1, 2)):
        flat = order.reshape(shape[0], -1)
        same = np.sign(flat[:, 1:]) == np.sign(flat[:, :-1])
        assert (np.abs(flat[:, 1:] + flat[:, :-1])[same] <= 128).all()
    assert np.abs(integers).max() > 63  # seldom are the two largest weights neighbours: more than half of the range
    restored = integers * scales.reshape(-1, *[1] * (weights.ndim - 1))
    assert (np.abs(restored - weights) <= scales.reshape(-1, *[1] * (weights.ndim - 1)) * 0.51).all()


def test_integer_kernels_give_what_the_graph_says_where_every_product_is_large() -> None:
    """All activations at their end and weights of one sign: sums of two products in 16 bits would be cut off."""
    feeds = [{"x": np.ones((1, 8, 6, 6), np.float32)} for _ in range(2)]
    weights = np.abs(_RANDOM.normal(2, 0.2, size=(4, 8, 3, 3))).astype(np.float32)
    outcome = _on("g (float[1,8,6,6] x) => (float[1,4,4,4] y) { y = Conv(x, w) }", feeds, {"w": weights})
    found = {}
    for optimize in (True, False):
        with OnnxRuntimeRunner(outcome.model, threads=1, optimize=optimize) as runner:
            found[optimize] = runner.run(feeds[0])["y"]
    np.testing.assert_allclose(found[True], found[False], rtol=0.02)
    np.testing.assert_allclose(found[True][0, :, 0, 0], weights.sum(axis=(1, 2, 3)), rtol=0.02)


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


def test_what_only_moves_keeps_its_grid(tmp_path: Path) -> None:
    """MaxPool picks from what is integers already: with a grid of its own the same numbers would be rounded twice."""
    body = (
        "g (float[1,2,6,6] x) => (float[1,4,2,2] y) { c = Conv(x, w, b) r = Relu(c) "
        "p = MaxPool<kernel_shape = [2, 2]>(r) y = Conv(p, v) }"
    )
    second = _RANDOM.normal(size=(4, 4, 2, 2)).astype(np.float32)
    outcome = _on(body, _PICTURES, {"w": _CONV, "b": _BIAS, "v": second})
    quantize = {str(node.inputs[0].name): node for node in outcome.model.graph if node.op_type == "QuantizeLinear"}  # type: ignore[union-attr]
    pooled, relu = (_constant(quantize[name].inputs[1]) for name in ("p", "r"))
    assert pooled == relu
    kernels = _kernels(runnable(outcome.model), tmp_path)
    assert kernels.count("QuantizeLinear") == kernels.count("DequantizeLinear") == 1  # at the ends only


def test_sums_of_two_quantised_values_read_integers(tmp_path: Path) -> None:
    body = (
        "g (float[1,4,4,4] x) => (float[1,4,4,4] y) { c = Conv(x, w, b) r = Relu(c) d = Conv(r, v, b) "
        "s = Add(d, r) t = Relu(s) y = Conv(t, w, b) }"
    )
    one, two = (_RANDOM.normal(size=(4, 4, 1, 1)).astype(np.float32) for _ in range(2))
    feeds = [{"x": _RANDOM.normal(size=(1, 4, 4, 4)).astype(np.float32)} for _ in range(3)]
    outcome = _on(body, feeds, {"w": one, "v": two, "b": _BIAS})
    add = next(node for node in outcome.model.graph if node.op_type == "Add")
    assert [_producer(value).op_type for value in add.inputs] == ["DequantizeLinear"] * 2
    assert "QLinearAdd" in _kernels(runnable(outcome.model), tmp_path)


def _kernels(model: ir.Model, folder: Path) -> list[str]:
    """The operators that ONNX Runtime makes of it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "loaded.onnx")
    options.log_severity_level = 3
    ir.save(model, folder / "model.onnx")
    onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "loaded.onnx").graph.node]


def test_slopes_of_at_most_one_are_a_product_and_a_maximum() -> None:
    slopes = np.asarray([0.5, -0.3, 0.0, 1.0], np.float32).reshape(4, 1, 1)
    body = "g (float[1,2,6,6] x) => (float[1,4,2,2] y) { c = Conv(x, w, b) p = PRelu(c, s) y = Conv(p, v) }"
    second = _RANDOM.normal(size=(4, 4, 3, 3)).astype(np.float32)
    outcome = _on(body, _PICTURES, {"w": _CONV, "b": _BIAS, "s": slopes, "v": second})
    assert outcome.ops.count("Max") == 1
    assert "PRelu" not in outcome.ops
    assert outcome.model.meta[QUANTISED].errors["y"] < 0.03
    steep = _on(body, _PICTURES, {"w": _CONV, "b": _BIAS, "s": slopes * 2, "v": second})
    assert "PRelu" in steep.ops
    assert any("a slope is above 1" in miss.reason for miss in steep.record.near_misses)


def test_a_sum_and_the_norm_behind_it_stay_two_kernels() -> None:
    body = (
        "g (float[1,3,4] x) => (float[1,3,4] y) { a = MatMul(x, w) b = Add(a, x) "
        "n = LayerNormalization<axis = -1>(b, g1, g2) y = MatMul(n, w) }"
    )
    feeds = [{"x": _RANDOM.normal(size=(1, 3, 4)).astype(np.float32)} for _ in range(3)]
    ones = np.ones(4, np.float32)
    outcome = _on(body, feeds, {"w": _MATRIX, "g1": ones, "g2": ones})
    norm = next(node for node in outcome.model.graph if node.op_type == "LayerNormalization")
    assert _producer(norm.inputs[0]).op_type == "Unsqueeze"
    assert outcome.model.meta[QUANTISED].errors["y"] < 0.05


def test_weights_of_a_network_over_time_are_stored_as_integers(tmp_path: Path) -> None:
    class Reader(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.rnn = torch.nn.LSTM(8, 16, bidirectional=True, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.rnn(x)[0]
            return out

    bundle = graphforge.compile(Reader().eval(), (torch.randn(2, 5, 8),), precision="int8", output=tmp_path / "b")
    assert bundle.manifest["verification"]["verdict"] == "passed"
    assert any("1 LSTM (weights only)" in note for note in bundle.manifest["notes"])
    stored = {tuple(t.dims): t.data_type for t in onnx.load(tmp_path / "b" / "model.onnx").graph.initializer}
    assert stored[2, 64, 8] == stored[2, 64, 16] == onnx.TensorProto.INT8


def test_biases_take_back_the_mean_of_what_rounding_does() -> None:
    """Coarse weights on inputs far from zero: the error has a mean, which a bias can take back."""
    feeds = [{"x": (5 + _RANDOM.normal(size=(16, 4))).astype(np.float32)} for _ in range(3)]
    uneven = {"w": (_MATRIX + np.asarray([0, 0, 0, 40], np.float32)[:, None]).astype(np.float32), "b": _BIAS}
    body = "g (float[16,4] x) => (float[16,4] y) { y = Gemm(x, w, b) }"
    plain = _on(body, feeds, uneven, Quantize(correct=False, method="minmax"))
    better = _on(body, feeds, uneven, Quantize(method="minmax"))
    means = []
    for outcome in (plain, better):
        with OnnxRuntimeRunner(outcome.model, threads=1, optimize=False) as runner:
            off = [runner.run(one)["y"] - (one["x"] @ uneven["w"] + _BIAS) for one in feeds]
        means.append(np.abs(np.concatenate(off).mean(axis=0)).max())
    assert means[1] < 0.3 * means[0]


def test_the_best_method_is_found_by_trying() -> None:
    """A few elements far out: a reach for all of them is a loss that 99.99 per cent do not have."""
    rows = [
        {"x": np.append(_RANDOM.normal(size=(19_999,)), 1000.0).reshape(5000, 4).astype(np.float32)} for _ in range(3)
    ]
    body = "g (float[5000,4] x) => (float[5000,4] y) { z = MatMul(x, w) y = Tanh(z) }"
    weights = {"w": np.eye(4, dtype=np.float32)}
    outcome, far = (_on(body, rows, weights, Quantize(method=method)) for method in ("best", "minmax"))
    assert outcome.model.meta[QUANTISED].errors["y"] < 0.1 * far.model.meta[QUANTISED].errors["y"]
    assert any("3 evaluations, ranges (percentile)" in note for note in outcome.record.notes)


def test_weights_that_are_read_from_integers_come_from_the_layer_that_they_belong_to() -> None:
    model = parse(_DEEP, _UNEVEN)
    for node in model.graph:
        set_origins(node, (Origin(module=f"layer.{node.name}"),))
    model.meta[SAMPLES] = Samples(tuple(_ROWS), "these")
    outcome = run(Quantize(), model, numbers=False)
    for node in outcome.model.graph:
        if node.op_type == "MatMul":
            assert origins_of(_producer(node.inputs[1]))[0].module == f"layer.{node.name}"


def test_layers_that_a_choice_takes_rows_of_are_seen() -> None:
    """Boxes are picked by scores: what they are off by shows in front of the picking, and they count as sensitive."""
    body = (
        "g (float[8,4] x) => (float[N,4] y) { s = MatMul(x, w) k = ReduceMax<keepdims = 0>(s, one) "
        "p = Greater(k, zero) n = NonZero(p) i = Reshape(n, flat) b = MatMul(x, v) y = Gather(b, i) }"
    )
    weights = {
        "w": _MATRIX,
        "v": _MATRIX.T.copy(),
        "one": np.asarray([1], np.int64),
        "zero": np.asarray(0, np.float32),
        "flat": np.asarray([-1], np.int64),
    }
    outcome = _on(body, _ROWS, weights, Quantize(sensitivity=True))
    quantised = outcome.model.meta[QUANTISED]
    assert "b" in quantised.errors
    assert quantised.sensitivity is not None
    assert all(layer.noise > 1e-4 for layer in quantised.sensitivity.layers)


def test_what_each_layer_costs_alone_is_written_into_the_bundle(tmp_path: Path) -> None:
    said: list[str] = []
    calibration = {"x": _RANDOM.normal(size=(8, 1, 8, 8)).astype(np.float32)}
    bundle = graphforge.compile(
        Flat().eval(),
        (torch.randn(2, 1, 8, 8),),
        precision="int8",
        target_options={"sensitivity": True},
        calibration=calibration,
        max_drop=50.0,
        metric=lambda run: -float(np.abs(run({"x": calibration["x"][:2]})["output"]).mean()),
        progress=said.append,
        output=tmp_path / "b",
    )
    record = json.loads((tmp_path / "b" / "sensitivity.json").read_text())
    assert bundle.manifest["sensitivity"] == record
    assert [layer["module"] for layer in record["layers"]] in (["features.0", "head"], ["head", "features.0"])
    assert all(0 < layer["noise"] < 0.2 and layer["drop"] is not None for layer in record["layers"])
    drops = [max(layer["drop"], 0.0) for layer in record["layers"]]
    assert drops == sorted(drops, reverse=True)
    assert record["layers"][0]["source"].rpartition(":")[0].endswith("test_quantize.py")
    assert record["evaluations"] >= 5
    picture = ElementTree.fromstring((tmp_path / "b" / "sensitivity.svg").read_text())
    assert len([one for one in picture.iter() if one.tag.endswith("rect")]) == 1 + 2 + 2  # ground, legend, bars
    assert any("layer 2 of 2 alone" in line for line in said)
    console = Console(record=True, width=120)
    bundle.render(console)
    shown = console.export_text()
    assert "alone in int8" in shown
    assert "features.0" in shown


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_grids_hold_zero_exactly(method: str) -> None:
    measured = Measured("v", histogram=Histogram())
    measured.add(np.append(_RANDOM.normal(3, 1, 1_000_000), 30.0).astype(np.float32))
    grid = grid_of(measured, method, signed=False)
    assert grid.rounded(np.zeros(1))[0] == 0
    largest = grid.rounded(np.asarray([1e9]))[0]
    assert largest == pytest.approx(30, rel=0.01) if method == "minmax" else largest < 20


def test_scales_of_channels_without_weights_are_not_zero() -> None:
    scales = weight_integers(np.zeros((2, 3), np.float32), 0)[1]
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
    with pytest.raises(UsageError, match="bounds what a reduced precision may cost"):
        graphforge.compile(torch.nn.ReLU(), torch.ones(2), max_drop=1.0, **arguments)
    with pytest.raises(UsageError, match="nothing asks for it"):
        graphforge.compile(torch.nn.ReLU(), torch.ones(2), metric=lambda run: 1.0, precision="int8", **arguments)
    with pytest.raises(UsageError, match=r"write it as FILE\.py:function"):
        graphforge.compile(torch.nn.ReLU(), torch.ones(2), metric="top1", max_drop=1.0, precision="int8", **arguments)
