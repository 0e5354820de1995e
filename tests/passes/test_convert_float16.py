"""convert-float16: what is converted, what stays in float32 and why, casts, constants, borders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import graphforge
from graphforge.ir import DataType, nodes_of
from graphforge.ops.custom_op import TensorFact
from graphforge.passes.convert_bfloat16 import ConvertBfloat16
from graphforge.passes.convert_float16 import ConvertFloat16
from graphforge.ranges import METRIC, SAMPLES, Samples
from graphforge.runners.halves import rounded_throughout
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from tests.passes.harness import Outcome, parse, run

CONVERT = ConvertFloat16()
_W = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)


def _on(body: str, *, convert: ConvertFloat16 = CONVERT, weights: Any = None, **feeds: Any) -> Outcome:
    """The pass on a graph, with these inputs as samples."""
    model = parse(body, weights)
    arrays = {name: np.asarray(array) for name, array in feeds.items()}
    model.meta[SAMPLES] = Samples((arrays,), "these")
    return run(convert, model, feeds=arrays)


def _types(outcome: Outcome) -> dict[str, str]:
    """Operator -> the element types that it computes."""
    found: dict[str, str] = {}
    for node in nodes_of(outcome.model.graph):
        if node.op_type != "Cast":
            found[node.op_type] = node.outputs[0].dtype.name if node.outputs[0].dtype is not None else ""
    return found


def test_products_and_their_weights_become_halves_and_borders_stay() -> None:
    outcome = _on(
        "g (float[2,4] x) => (float[2,4] y) { p = MatMul(x, w) r = Relu(p) y = MatMul(r, w) }",
        weights={"w": _W},
        x=np.ones((2, 4), np.float32),
    )
    assert outcome.ops == ["Cast", "MatMul", "Relu", "MatMul", "Cast"]
    assert outcome.model.graph.initializers["w"].dtype == DataType.FLOAT16
    assert outcome.model.graph.outputs[0].dtype == DataType.FLOAT
    assert "3 of 3 nodes compute in float16" in outcome.record.notes[0]


def test_inputs_and_outputs_become_halves_where_it_is_asked() -> None:
    model = parse("g (float[2,4] x) => (float[2,4] y) { p = MatMul(x, w) y = Relu(p) }", {"w": _W})
    outcome = run(ConvertFloat16(keep_io=False), model, numbers=False)
    assert outcome.ops == ["MatMul", "Relu"]
    assert [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)] == [DataType.FLOAT16] * 2


def test_values_above_65504_stay_with_their_range_told() -> None:
    outcome = _on(
        "g (float[1,4] x) => (float[1,4] y) { p = MatMul(x, w) s = Mul(p, p) q = Mul(s, c) y = MatMul(q, w) }",
        weights={"w": np.eye(4, dtype=np.float32), "c": np.full((1,), 1e-5, np.float32)},
        x=np.full((1, 4), 300, np.float32),
    )
    types = _types(outcome)
    assert types["MatMul"] == "FLOAT16"
    assert types["Mul"] == "FLOAT"
    # What goes from one to the next that stay is not cast, to halves and back, on its way.
    assert outcome.ops == ["Cast", "MatMul", "Cast", "Mul", "Mul", "Cast", "MatMul", "Cast"]
    told = next(note for note in outcome.record.notes if "too large for float16" in note)
    assert "9e+04" in told
    assert "above 65504" in told


def test_a_sum_of_squares_inside_an_operator_is_seen() -> None:
    """The norm of 300 is 300, which fits; its square on the way does not."""
    outcome = _on(
        "g (float[1,4] x) => (float[1,4] y) <int64[1] axes = {1}> {"
        " p = MatMul(x, w) n = ReduceL2(p, axes) y = Div(p, n) }",
        weights={"w": np.eye(4, dtype=np.float32)},
        x=np.full((1, 4), 150, np.float32),
    )
    assert _types(outcome)["ReduceL2"] == "FLOAT"
    assert any("sums inside too large" in note for note in outcome.record.notes)


def test_an_epsilon_that_would_become_zero_keeps_its_node() -> None:
    outcome = _on(
        "g (float[1,4] x) => (float[1,4] y) <float e = {1e-12}> {"
        " p = MatMul(x, w) a = Add(p, e) s = Sqrt(a) y = MatMul(s, w) }",
        weights={"w": np.eye(4, dtype=np.float32)},
        x=np.zeros((1, 4), np.float32),
    )
    assert _types(outcome)["Add"] == "FLOAT"
    assert any("1e-12 is too small" in note for note in outcome.record.notes)


def test_biases_that_become_zero_stay_out_of_the_way_of_large_sums() -> None:
    """What is left of a batch norm: 1e-8 beside results of about 1 is less than their rounding."""
    outcome = _on(
        "g (float[2,4] x) => (float[2,4] y) { p = Gemm(x, w, b) a = Add(p, c) y = MatMul(a, w) }",
        weights={
            "w": _W,
            "b": np.asarray([1e-8, -2e-8, 0, 3e-8], np.float32),
            "c": np.asarray([2e-8, 1e-8, -1e-8, 0], np.float32),
        },
        x=np.ones((2, 4), np.float32),
    )
    assert _types(outcome) == {"Gemm": "FLOAT16", "Add": "FLOAT16", "MatMul": "FLOAT16"}


def test_biases_that_become_zero_stay_where_they_are_the_result() -> None:
    outcome = _on(
        "g (float[2,4] x) => (float[2,4] y) { p = Gemm(x, w, b) s = Mul(p, large) y = MatMul(s, w) }",
        weights={"w": _W, "b": np.asarray([1e-8, -2e-8, 0, 3e-8], np.float32), "large": np.full((1,), 1e7, np.float32)},
        x=np.zeros((2, 4), np.float32),
    )
    assert _types(outcome)["Gemm"] == "FLOAT"
    assert any("its own rounding is too much: Gemm" in note for note in outcome.record.notes)


def test_cancellation_is_found_by_its_own_error() -> None:
    """A hundred minus what is nearly a hundred: both fit, their difference has no digit left."""
    outcome = _on(
        "g (float[1,4] x) => (float[1,4] y) <float c = {100.0}> { a = Add(x, c) b = Sub(a, c) y = MatMul(b, w) }",
        weights={"w": np.eye(4, dtype=np.float32)},
        x=np.asarray([[0.01, 0.02, -0.01, 0.005]], np.float32),
    )
    assert _types(outcome)["Sub"] == "FLOAT"
    assert any("its own rounding is too much" in note for note in outcome.record.notes)


def test_what_makes_the_operands_of_a_small_difference_stays_too() -> None:
    """A thousand and a little, rounded to halves, are off by a quarter: the difference read them too late."""
    outcome = _on(
        "g (float[8,4] x) => (float[8] y) <int64[1] axes = {1}> {"
        " p = MatMul(x, w) h = MatMul(p, w) a = Add(h, large) d = Sub(a, near) y = ReduceL1<keepdims=0>(d, axes) }",
        weights={
            "w": np.eye(4, dtype=np.float32),
            "large": np.full((1,), 1000, np.float32),
            "near": np.asarray([1000, 1000.3, 999.9, 1000.2], np.float32),
        },
        x=np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32),
    )
    types = _types(outcome)
    assert types["Sub"] == types["Add"] == "FLOAT"
    assert types["MatMul"] == "FLOAT16"
    assert any("what is computed of it needs more digits: Add" in note for note in outcome.record.notes)


@pytest.mark.parametrize(("length", "dtype"), [(3.0, "FLOAT16"), (190.0, "FLOAT")])
def test_scores_inside_attention_have_headroom(length: float, dtype: str) -> None:
    """190 times 190 is 36,100, which fits; with twice as much room it does not.  Nowhere else is it to be seen."""
    one = np.zeros((1, 1, 4, 4), np.float32)
    one[..., 0] = length
    outcome = _on(
        "g (float[1,1,4,4] q, float[1,1,4,4] v) => (float[1,1,4,4] y) { y = Attention<scale=1.0>(q, q, v) }",
        q=one,
        v=np.random.default_rng(1).normal(size=(1, 1, 4, 4)).astype(np.float32),
    )
    assert _types(outcome)["Attention"] == dtype
    assert any("sums inside too large for float16" in note for note in outcome.record.notes) == (dtype == "FLOAT")


def test_pins_stay_and_what_is_not_there_is_refused() -> None:
    body = "g (float[2,4] x) => (float[2,4] y) { p = MatMul(x, w) r = Relu(p) y = Gemm(r, w) }"
    x = np.ones((2, 4), np.float32)
    pinned = _on(body, convert=ConvertFloat16(pins=("p",)), weights={"w": _W}, x=x)
    assert _types(pinned)["MatMul"] == _types(pinned)["Relu"] == "FLOAT"  # what reads it stays as well
    assert _types(pinned)["Gemm"] == "FLOAT16"
    assert any("asked for: MatMul node 'p'" in note for note in pinned.record.notes)
    with pytest.raises(graphforge.GraphForgeError, match="no module, node or value 'q' to keep in float32"):
        _on(body, convert=ConvertFloat16(pins=("q",)), weights={"w": _W}, x=x)


def test_what_stands_for_infinity_in_a_mask_still_does() -> None:
    mask = np.asarray([[0, -3.4e38, 0, -3.4e38]], np.float32)
    outcome = _on(
        "g (float[2,4] x, bool[1,4] keep) => (float[2,4] y) <float zero = {0.0}, float least = {-3.4e38}> {"
        " s = MatMul(x, w) m = Where(keep, zero, least) a = Add(s, m) p = Softmax(a) y = MatMul(p, w) }",
        weights={"w": _W},
        x=np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32),
        keep=mask == 0,
    )
    assert set(_types(outcome).values()) == {"FLOAT16"}


def test_what_a_choice_hangs_on_stays_from_the_last_product_on() -> None:
    outcome = _on(
        "g (float[8,4] x) => (float[3] y, int64[3] i) <int64[1] k = {3}, int64[1] axes = {1}> {"
        " p = MatMul(x, w) s = Sigmoid(p) m = ReduceMax<keepdims=0>(s, axes) y, i = TopK(m, k) }",
        weights={"w": _W},
        x=np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32),
    )
    types = _types(outcome)
    assert types["MatMul"] == "FLOAT16"
    assert types["Sigmoid"] == types["ReduceMax"] == types["TopK"] == "FLOAT"


def test_sizes_stay() -> None:
    outcome = _on(
        "g (float[N,4] x) => (float[N,4] y) <float half = {0.5}> {"
        " s = Shape<end=1>(x) f = Cast<to=1>(s) h = Mul(f, half) p = MatMul(x, w) y = Div(p, h) }",
        weights={"w": _W},
        x=np.ones((2049, 4), np.float32),  # float16 has no 2049
    )
    assert _types(outcome)["Mul"] == "FLOAT"
    assert any("computed of sizes alone" in note for note in outcome.record.notes)


def test_bodies_stay_and_read_what_they_did() -> None:
    outcome = _on(
        "g (float[2,4] x, bool c) => (float[2,4] y) { p = MatMul(x, w)"
        " i = If(c)<then_branch = t () => (float[2,4] a) { a = Exp(p) },"
        " else_branch = e () => (float[2,4] b) { b = Abs(p) }>"
        " y = Relu(i) }",
        weights={"w": _W},
        x=np.ones((2, 4), np.float32),
        c=np.asarray(True),
    )
    types = _types(outcome)
    assert types["Exp"] == types["Abs"] == "FLOAT"
    assert types["MatMul"] == "FLOAT16"
    assert any("were not looked at" in note for note in outcome.record.notes)


def test_doubles_integers_and_operators_without_halves_are_left_alone() -> None:
    body = "g (double[2,4] x) => (double[2,4] y) { y = Relu(x) }"
    assert _on(body, x=np.ones((2, 4))).record.changes == 0
    assert _on("g (int64[2,4] x) => (int64[2,4] y) { y = Abs(x) }", x=np.ones((2, 4), np.int64)).record.changes == 0


class ScaleNormAndSquares(torch.nn.Module):
    """What RTMPose has: a norm over large features, and squares of ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(32, 32), torch.nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = torch.linalg.norm(x, dim=-1, keepdim=True) * 32**-0.5
        hidden = torch.square(torch.relu(self.first(x / norm.clamp(min=1e-5)) * 400))
        out: torch.Tensor = self.second(hidden / hidden.sum(-1, keepdim=True))
        return out


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_large_norms_and_squares_compile_and_agree(tmp_path: Path, precision: str) -> None:
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(1)) * 300
    bundle = graphforge.compile(ScaleNormAndSquares().eval(), (x,), precision=precision, output=tmp_path / "b")
    verification = bundle.manifest["verification"]
    assert verification["verdict"] == "passed"
    assert {one["dtype"] for one in verification["trials"][0]["outputs"]} == {"float32"}
    assert set(verification["tolerances"]["computed_in"].values()) == {"float16" if precision == "fp16" else "bfloat16"}
    model = onnx.load(tmp_path / "b" / "model.onnx")
    wanted = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.BFLOAT16
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 2}
    assert set(kinds.values()) == {wanted}
    if precision == "fp16":
        assert any("too large for float16" in note for note in bundle.manifest["notes"])


def test_a_wrong_file_in_half_precision_still_fails(tmp_path: Path) -> None:
    """Judged by float16's rounding, not by none: a bias that is dropped is seen."""
    from dataclasses import dataclass
    from typing import ClassVar

    from graphforge.transform import Pass

    @dataclass(frozen=True)
    class DropBias(Pass):
        name: ClassVar[str] = "drop-bias"

        def run(self, graph: Any, rewriter: Any) -> None:
            for node in list(graph):
                if node.op_type == "Gemm":
                    rewriter.keep_inputs(node, 2)

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    with pytest.raises(graphforge.VerificationError) as caught:
        graphforge.compile(net, torch.randn(2, 16), precision="fp16", passes=[DropBias()], output=tmp_path / "b")
    assert any("can stay in float32" in note and "pins" in note for note in caught.value.notes)


def test_a_module_is_kept_in_float32_by_its_path(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    asked: dict[str, Any] = {"precision": "fp16", "target_options": {"pins": "2"}, "verify": False}
    graphforge.compile(net, (torch.randn(2, 16),), output=tmp_path / "b", **asked)
    model = onnx.load(tmp_path / "b" / "model.onnx")
    assert {t.name: t.data_type for t in model.graph.initializer if len(t.dims) == 2} == {
        "0.weight": onnx.TensorProto.FLOAT16,
        "2.weight": onnx.TensorProto.FLOAT,
    }
    with pytest.raises(graphforge.GraphForgeError, match="pins keep 2 in float32 in a reduced precision"):
        graphforge.compile(net, (torch.randn(2, 16),), output=tmp_path / "c", target_options={"pins": "2"})


def test_a_file_in_halves_throughout_is_verified_and_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    x = torch.randn(2, 16)
    options = {"keep_io": False}
    bundle = graphforge.compile(net, (x,), precision="fp16", target_options=options, output=tmp_path / "b")
    assert bundle.manifest["verification"]["verdict"] == "passed"
    graph = onnx.load(tmp_path / "b" / "model.onnx").graph
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert [one["dtype"] for one in bundle.manifest["inputs"]] == ["float16"]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_operators_of_the_user_are_run_by_their_function(tmp_path: Path, precision: str) -> None:
    """Between two layers that are reduced: ranges, errors and the verdict all need what comes out of it."""

    @torch.library.custom_op("gfhalves::twist", mutates_args=())
    def twist(x: torch.Tensor, turns: int) -> torch.Tensor:
        return x.roll(turns, dims=-1)

    twist.register_fake(lambda x, turns: torch.empty_like(x))

    def shapes(inputs: Sequence[TensorFact | None], attributes: Mapping[str, Any]) -> list[TensorFact]:
        assert inputs[0] is not None
        return [inputs[0]]

    declared = graphforge.custom_op(
        "gfhalves::Twist",
        inputs=["x"],
        outputs=["y"],
        attributes={"turns": int},
        shapes=shapes,
        function=lambda x, turns: x.roll(turns, dims=-1),
        torch_name="gfhalves::twist",
        declare=False,
    )

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = torch.nn.Linear(8, 8), torch.nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.two(torch.ops.gfhalves.twist(self.one(x).relu(), 1))
            return out

    torch.manual_seed(0)
    bundle = graphforge.compile(
        Net().eval(), (torch.randn(3, 8),), precision=precision, custom_ops=[declared], output=tmp_path / "b"
    )
    assert bundle.manifest["verification"]["verdict"] == "passed"
    told = {"fp16": "3 of 3 nodes compute in float16", "int8": "2 of 2 sums of products compute in int8"}[precision]
    assert any(told in note for note in bundle.manifest["notes"])


def test_an_overflow_that_the_runtime_would_hide_is_seen() -> None:
    """The sum overflows in float16 and its root does not: between the two ONNX Runtime's CPU computes in float32."""
    model = parse("g (float16[1,4] x) => (float16[1,1] y) <int64[1] axes = {1}> { s = ReduceSum(x, axes) y = Sqrt(s) }")
    feeds = {"x": np.full((1, 4), 30000, np.float16)}
    with OnnxRuntimeRunner(model, optimize=False) as runner:
        assert np.isfinite(runner.run(feeds)["y"]).all()
    rounded_throughout(model)
    with OnnxRuntimeRunner(model, optimize=False) as runner:
        assert np.isinf(runner.run(feeds)["y"]).all()


def test_more_stays_in_float32_until_the_bound_on_the_metric_holds() -> None:
    """Chosen from are scores that lie close together: what is off by little picks another."""
    random = np.random.default_rng(0)
    shapes = {"w": (16, 16), "v": (16, 64)}
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    feeds = {"x": random.normal(size=(32, 16)).astype(np.float32)}
    body = """g (float[32,16] x) => (float[32,8] best, int64[32,8] picks) <int64[1] k = {8}> {
        a = MatMul(x, w) b = Tanh(a) s = MatMul(b, v) best, picks = TopK(s, k)
    }"""

    def picks(run: Any) -> np.ndarray[Any, Any]:
        return np.asarray(run(feeds)["picks"])

    with OnnxRuntimeRunner(parse(body, weights), optimize=False) as runner:
        right = picks(runner.run)

    def converted(max_drop: float | None) -> tuple[str, list[str]]:
        model = parse(body, weights)
        model.meta[SAMPLES] = Samples((feeds,), "these")
        model.meta[METRIC] = lambda run: 100.0 * float((picks(run) == right).mean())
        notes = run(ConvertBfloat16(max_drop=max_drop), model, numbers=False).record.notes
        return notes[0], [note for note in notes if note.startswith("the metric is")]

    free, untold = converted(None)
    assert (free.split(" nodes")[0], untold) == ("3 of 4", [])
    bounded, told = converted(0.0)
    assert int(bounded.split(" of ")[0]) < 3
    assert "the metric is 100, in float32 100; with" in told[0]
    assert "fewer nodes in float32 it is" in told[0]
