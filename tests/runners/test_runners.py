"""The runners: outputs by name, state left alone, messages that say where."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from graphforge.errors import GraphForgeError
from graphforge.runners.arrays import array_from_tensor, tensor_from_array
from graphforge.runners.eager import EagerRunner
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from tests.verify import small


class Counter(torch.nn.Module):
    """Counts its calls in a buffer and adds the count in place to its input."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x += self.calls
        out: torch.Tensor = self.drop(x)
        return out


def test_eager_leaves_inputs_buffers_modes_and_random_state_alone() -> None:
    model = Counter().train()
    runner = EagerRunner.of(model, (torch.zeros(3),))
    feeds = {"x": np.zeros(3, np.float32)}
    before = torch.random.get_rng_state()
    first, second = runner.run(feeds), runner.run(feeds)
    assert np.array_equal(first["output"], np.ones(3))
    assert np.array_equal(second["output"], np.ones(3))
    assert (model.calls.item(), model.training, model.drop.training) == (0, True, True)
    assert feeds["x"].tolist() == [0, 0, 0]
    assert torch.equal(before, torch.random.get_rng_state())
    assert runner.notes == ["buffer calls is changed by a run; it was put back"]


def test_eager_puts_back_a_buffer_that_is_replaced() -> None:
    class Cache(torch.nn.Module):
        past: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("past", torch.zeros(1, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.past = torch.cat([self.past, x])
            return self.past

    runner = EagerRunner.of(Cache(), (torch.ones(1, 2),))
    feeds = runner.example()
    assert runner.run(feeds)["output"].shape == (2, 2)
    assert runner.run(feeds)["output"].shape == (2, 2)


def test_eager_output_survives_the_next_run() -> None:
    class Returns(torch.nn.Module):
        state: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("state", torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.state.copy_(x)
            return self.state

    runner = EagerRunner.of(Returns(), (torch.ones(2),))
    first = runner.run({"x": np.full(2, 5, np.float32)})
    runner.run({"x": np.full(2, 7, np.float32)})
    assert first["output"].tolist() == [5, 5]


def test_eager_refuses_a_model_that_overwrites_its_parameters() -> None:
    class Learns(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.weight.add_(x)
            return self.weight * 1

    runner = EagerRunner.of(Learns(), (torch.ones(2),))
    with pytest.raises(GraphForgeError, match="overwrites its own parameter weight"):
        runner.run(runner.example())


def test_eager_puts_back_the_table_that_an_embedding_with_a_largest_norm_cuts() -> None:
    table = torch.nn.Embedding(4, 3, max_norm=0.5)
    model, before = torch.nn.Sequential(table), table.weight.detach().clone()
    runner = EagerRunner.of(model, (torch.tensor([0, 3]),))
    first, second = (runner.run(runner.example())["output"] for _ in range(2))
    assert (first == second).all()
    assert np.allclose(np.linalg.norm(first, axis=-1), 0.5, atol=1e-5)
    assert torch.equal(table.weight, before)


def test_eager_runs_a_compiled_part_as_it_is_written() -> None:
    def compiler(graph: torch.fx.GraphModule, example: object) -> torch.fx.GraphModule:
        raise AssertionError("a part was compiled")

    part = torch.nn.Linear(3, 2)
    wanted = part(torch.ones(1, 3)).detach().numpy()
    part.compile(backend=compiler)
    model = torch.nn.Sequential(part)
    runner = EagerRunner.of(model, (torch.ones(1, 3),))
    assert np.array_equal(runner.run(runner.example())["output"], wanted)


def test_eager_names_nested_inputs_and_outputs_and_keeps_constants() -> None:
    class Nested(torch.nn.Module):
        def forward(
            self, pair: tuple[torch.Tensor, torch.Tensor], options: dict[str, torch.Tensor], scale: float = 1.0
        ) -> dict[str, object]:
            return {"sum": (pair[0] + pair[1]) * scale, "rest": [options["mask"], None, 3]}

    pair = (torch.ones(2), torch.ones(2))
    runner = EagerRunner.of(Nested(), (pair, {"mask": torch.zeros(2, dtype=torch.bool)}), {"scale": 2.0})
    assert runner.input_names == ("pair.0", "pair.1", "options.mask")
    found = runner.run({**runner.example(), "pair.1": np.full(2, 4, np.float32)})
    assert list(found) == ["sum", "rest_0", "rest_2"]
    assert found["sum"].tolist() == [10, 10]
    assert (found["rest_2"].dtype.name, found["rest_2"].item()) == ("int64", 3)


def test_eager_failure_names_the_inputs() -> None:
    runner = small.eager(torch.nn.Linear(4, 2), 1, 4)
    name = runner.input_names[0]
    with pytest.raises(GraphForgeError, match="the model itself fails") as caught:
        runner.run({name: np.zeros((1, 5), np.float32)})
    assert f"{name} (1, 5)" in str(caught.value)
    with pytest.raises(GraphForgeError, match="no data for input"):
        runner.run({})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.uint8, torch.bool])
def test_tensors_and_arrays_convert_both_ways(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    array = array_from_tensor(tensor)
    assert array.dtype.name == str(dtype).removeprefix("torch.")
    assert torch.equal(tensor_from_array(array).float(), tensor.float())


def test_onnxruntime_runs_file_bytes_proto_and_ir(tmp_path: Path) -> None:
    path = small.write_net(small.net(), tmp_path / "net.onnx")
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    results = []
    for model in (path, str(path), path.read_bytes(), onnx.load(str(path)), ir.load(path)):
        with OnnxRuntimeRunner(model, threads=1) as runner:
            assert (runner.input_names, runner.output_names) == (("x",), ("logits", "label"))
            results.append(runner.run({**feeds, "unused": np.zeros(1)}))
    assert all(np.array_equal(results[0]["logits"], result["logits"]) for result in results)


def test_onnxruntime_makes_one_session(tmp_path: Path) -> None:
    runner = OnnxRuntimeRunner(small.write_net(small.net(), tmp_path / "net.onnx"))
    feeds = {"x": np.zeros((1, 3, 8, 8), np.float32)}
    runner.run(feeds)
    session = runner.session
    runner.run(feeds)
    assert runner.session is session


def test_onnxruntime_failure_names_node_and_origin(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (float[n, m] x) => (float[k, l] y) <int64[2] target = {4, 7}> { y = Reshape(x, target) }"
    )
    node = proto.graph.node[0]
    node.name = "node_view"
    small.add_property(node, "graphforge.module", "neck.flatten")
    small.add_property(node, "graphforge.source", "model.py:41")
    onnx.save(proto, str(tmp_path / "bad.onnx"))
    runner = OnnxRuntimeRunner(tmp_path / "bad.onnx", threads=1)
    with pytest.raises(GraphForgeError, match="node_view") as caught:
        runner.run({"x": np.zeros((2, 3), np.float32)})
    assert any("neck.flatten" in note and "model.py:41" in note for note in caught.value.notes)


def test_onnxruntime_load_failures_are_ours(tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match="no file"):
        OnnxRuntimeRunner(tmp_path / "absent.onnx").run({})
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(GraphForgeError, match="cannot load the model"):
        OnnxRuntimeRunner(tmp_path / "broken.onnx").run({})


def test_onnxruntime_says_which_input_is_missing(tmp_path: Path) -> None:
    runner = OnnxRuntimeRunner(small.write_net(small.net(), tmp_path / "net.onnx"))
    with pytest.raises(GraphForgeError, match="no data for input x"):
        runner.run({"y": np.zeros(1)})


def test_onnxruntime_takes_and_gives_bfloat16() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (bfloat16[n] x, float[n] z) => (bfloat16[n] y, float[n] w) { y = Identity(x) w = Neg(z) }"
    )
    runner = OnnxRuntimeRunner(proto, threads=1)
    x = np.array([1.5, -2.0, 3.0], ml_dtypes.bfloat16)
    found = runner.run({"x": x, "z": np.ones(3, np.float32)})
    assert found["y"].dtype == x.dtype
    assert np.array_equal(found["y"].astype(np.float32), x.astype(np.float32))
    assert found["w"].tolist() == [-1, -1, -1]
