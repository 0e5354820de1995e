"""Verification draws inputs that the model takes, tells what it could not try, and takes data from who knows better."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import graphforge
from graphforge.errors import UsageError, VerificationError
from graphforge.runners.eager import EagerRunner
from graphforge.runners.inputs import random_feeds
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.spec import ShapeSpec, TensorSpec, parse_dynamic
from graphforge.verify import verify
from tests.verify import small

CASES: list[tuple[Callable[..., Any], tuple[torch.Tensor, ...], list[str]]] = []


def model(*example: torch.Tensor, dynamic: list[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def keep(forward: Callable[..., Any]) -> Callable[..., Any]:
        CASES.append((forward, example, dynamic))
        return forward

    return keep


def module_of(forward: Callable[..., Any], **children: torch.nn.Module) -> torch.nn.Module:
    kind = type("Model", (torch.nn.Module,), {"forward": forward})
    made: torch.nn.Module = kind()
    for name, child in children.items():
        setattr(made, name, child)
    return made.eval()


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@model(drawn(3, 7, 4), torch.tensor([7, 5, 2]), dynamic=["frames:0=b:1..4,1=2..11", "count:0=b:1..4"])
def last_frame_of_each(self: Any, frames: Any, count: Any) -> Any:
    return frames[torch.arange(frames.shape[0]), count - 1]


@model(
    drawn(2, 5, 3),
    torch.tensor([[True, True, False, False, False], [True, True, True, True, True]]),
    dynamic=["x:0=b:1..4,1=t:1..9", "keep:0=b:1..4,1=t:1..9"],
)
def attention_over_kept(self: Any, x: Any, keep: Any) -> Any:
    return (x @ x.mT).masked_fill(~keep[:, None], float("-inf")).softmax(-1) @ x


@model(drawn(2, 6, 3), torch.full((6, 6), -torch.inf).triu(1), dynamic=["x:1=t:1..9", "bias:0=t:1..9,1=t:1..9"])
def attention_with_added_mask(self: Any, x: Any, bias: Any) -> Any:
    return (x @ x.mT + bias).softmax(-1) @ x


@model(
    drawn(2, 5, 3),
    torch.tensor([[0, 1, 0, 1, 1], [1, 0, 1, 0, 0]]),
    dynamic=["x:0=b:1..4,1=t:1..9", "keep:0=b:1..4,1=t:1..9"],
)
def mean_of_kept(self: Any, x: Any, keep: Any) -> Any:
    return (x * keep[..., None]).sum(1) / keep.sum(1, keepdim=True)


@model(torch.tensor([14, 25, 36]), torch.tensor([4, -3, 5]), dynamic=["x:0=n:1..6", "by:0=n:1..6"])
def whole_quotient(self: Any, x: Any, by: Any) -> Any:
    return x // by


@model(drawn(6, 3), torch.tensor([5, 0, 4]), dynamic=["x:0=1..9", "rows:0=1..5"])
def picked_rows(self: Any, x: Any, rows: Any) -> Any:
    return x[rows]


@model(drawn(4, 2), torch.tensor([2, 0, 3, 1]), dynamic=["x:0=n:1..7", "order:0=n:1..7"])
def inverse_permutation(self: Any, x: Any, order: Any) -> Any:
    return x.new_zeros(x.shape).index_copy(0, order, x)


@model(drawn(3, 4), torch.eye(4)[[2, 0, 2]], dynamic=["x:0=b:1..6", "chosen:0=b:1..6"])
def value_of_the_chosen(self: Any, x: Any, chosen: Any) -> Any:
    return (x * chosen).sum(-1) / chosen.sum(-1)


@model(drawn(9), torch.tensor([0, 4, 6]), dynamic=["x:0=3..14"])
def sum_from_each_offset(self: Any, x: Any, offsets: Any) -> Any:
    return x.cumsum(0)[offsets]


@model(drawn(7, 2), torch.tensor([3, 1, 3]), dynamic=["x:0=4..12"])
def rows_by_part(self: Any, x: Any, parts: Any) -> Any:
    return torch.repeat_interleave(torch.arange(parts.shape[0]), parts)[:, None] * x


@model(torch.softmax(drawn(3, 5) * 4, -1), dynamic=["p:0=1..6"])
def entropy(self: Any, p: Any) -> Any:
    return -(p * p.log()).sum(-1) / (1 - (p.sum(-1) - 1).abs().gt(1e-3).float())


@model(torch.tensor([[0.0, 1, 4, 3], [2, 2, 3, 9]]), dynamic=["boxes:0=1..6"])
def root_of_areas(self: Any, boxes: Any) -> Any:
    return ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()


@pytest.mark.parametrize("case", CASES, ids=[forward.__name__ for forward, _, _ in CASES])
def test_what_is_drawn_suits_the_model(case: tuple[Any, Any, list[str]], tmp_path: Path) -> None:
    forward, example, dynamic = case
    bundle = graphforge.compile(module_of(forward), example, dynamic_shapes=dynamic, output=tmp_path / "b")
    verification = bundle.manifest["verification"]
    assert verification["passed"]
    assert verification["not_tried"] == []
    assert len(verification["trials"]) >= 4


def test_offsets_of_bags_begin_at_zero_and_rise(tmp_path: Path) -> None:
    def bags(self: Any, words: Any, offsets: Any) -> Any:
        return self.table(words, offsets)

    net = module_of(bags, table=torch.nn.EmbeddingBag(10, 4, mode="sum"))
    example = torch.tensor([1, 2, 9, 4, 5, 4, 3, 2]), torch.tensor([0, 3, 5])
    bundle = graphforge.compile(net, example, dynamic_shapes=["words:0=3..12"], output=tmp_path / "b")
    assert bundle.manifest["verification"]["not_tried"] == []


def reference_and_artifact() -> tuple[EagerRunner, OnnxRuntimeRunner]:
    """A model that takes no fewer than 3 columns, and keys that only it knows."""

    class Lookup(torch.nn.Module):
        def forward(self, x: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            if x.shape[1] < 3 or int(key) % 1000 not in (7, x.shape[1]):
                raise KeyError(f"no entry {int(key)}")
            return x * key

    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (float[2, n] x, int64 key) => (float[2, n] output) { k = CastLike(key, x) output = Mul(x, k) }"
    )
    return EagerRunner.of(Lookup(), (drawn(2, 4), torch.tensor(12007))), OnnxRuntimeRunner(proto, threads=1)


def test_sizes_that_the_model_refuses_are_told() -> None:
    reference, artifact = reference_and_artifact()
    report = verify(reference, artifact, small.dynamic(reference, "x:1=2..9"), reference.example())
    assert report.passed
    assert [one.assignment.sizes for one in report.not_tried] == [{"x_1": 2}]
    assert any("not tried at x_1=2" in note and "KeyError: 'no entry " in note for note in report.notes)
    (told,) = report.to_dict()["not_tried"]
    assert (told["sizes"], told["sets"]) == ({"x_1": 2}, 10)


def test_it_fails_where_no_other_size_could_be_tried() -> None:
    reference, artifact = reference_and_artifact()
    example = {**reference.example(), "key": np.array(4004)}
    report = verify(reference, artifact, small.dynamic(reference, "x:1=2..9"), example)
    assert not report.passed
    assert str(report.error()).startswith("eager itself does not run at x_1=")
    assert "promised by the dynamic ranges" in str(report.error())


def test_a_file_that_does_not_run_at_promised_sizes_is_not_said_to_disagree(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (float[n] x, float[3] y) => (float[n] output) { output = Add(x, y) }"
    )
    onnx.save(proto, tmp_path / "net.onnx")
    with pytest.raises(VerificationError, match="original ONNX itself does not run at x_0="):
        graphforge.compile(
            tmp_path / "net.onnx", (drawn(3), drawn(3)), dynamic_shapes="x:0=2..9", output=tmp_path / "b"
        )


def test_given_data_is_tried_where_none_could_be_drawn() -> None:
    reference, artifact = reference_and_artifact()
    shapes = small.dynamic(reference, "x:1=2..9")
    example = {**reference.example(), "key": np.array(4004)}
    further = [{"x": np.ones((2, size), np.float32), "key": np.array(1000 + size)} for size in (3, 9)]
    report = verify(reference, artifact, shapes, example, further=further)
    assert report.passed
    assert [trial.assignment.sizes["x_1"] for trial in report.trials if trial.data == "given"] == [4, 3, 9]
    with pytest.raises(UsageError, match="size 12 on axis 1, promised is"):
        verify(reference, artifact, shapes, example, further=[{**further[0], "x": np.ones((2, 12), np.float32)}])
    with pytest.raises(UsageError, match="expected shape"):
        verify(reference, artifact, shapes, example, further=[{**further[0], "key": np.ones(2, np.int64)}])


def clip_and_index(self: Any, x: Any, at: Any) -> Any:
    return x.cumsum(1).gather(1, at[:, None] - 3)


def test_ranges_say_what_an_input_takes(tmp_path: Path) -> None:
    example = drawn(2, 8), torch.tensor([5, 6])
    bundle = graphforge.compile(
        module_of(clip_and_index),
        example,
        dynamic_shapes=["x:1=T:1..12"],
        ranges={"at": (3, "T+2")},
        output=tmp_path / "b",
    )
    assert bundle.manifest["verification"]["not_tried"] == []
    for wrong, told in (
        ({"at": (3, "U")}, "not a promised dim"),
        ({"to": (0, 1)}, "names input 'to'"),
        ("at=3", "cannot read range"),
        ({"at": (9, 2)}, "nothing lies in at=9..2"),
        (7, "expected a dict"),
    ):
        with pytest.raises(UsageError, match=told):
            graphforge.compile(module_of(clip_and_index), example, ranges=wrong, output=tmp_path / "no")


def test_inputs_in_text_are_drawn_in_their_ranges(tmp_path: Path) -> None:
    texts = ["x:2x8", "at:2:int64"]
    with pytest.raises(graphforge.GraphForgeError, match="on these inputs") as refused:
        graphforge.compile(module_of(clip_and_index), texts, output=tmp_path / "b")
    assert "ranges=NAME=LOW..HIGH" in str(refused.value)
    graphforge.compile(
        module_of(clip_and_index), texts, dynamic_shapes="x:1=T:2..12", ranges="at=3..T+2", output=tmp_path / "b"
    )


def test_whole_numbers_of_which_nothing_is_said_are_drawn_so_that_the_model_runs(tmp_path: Path) -> None:
    texts = ["frames:3x7x4", "count:3:int64"]
    bundle = graphforge.compile(module_of(last_frame_of_each), texts, output=tmp_path / "b")
    assert not any("refuses 0 and 1" in note for note in bundle.manifest["notes"])  # -1 is the last frame

    def quotient(self: Any, x: Any, by: Any) -> Any:
        return x // by

    bundle = graphforge.compile(module_of(quotient), ["x:64:int64", "by:64:int64"], output=tmp_path / "b")
    assert any("refuses 0 and 1 at random for x, by: its example has ones" in note for note in bundle.manifest["notes"])


def test_a_mask_that_hides_all_is_not_held_against_the_model(tmp_path: Path) -> None:
    """The example hides nothing at random: only a draw that hides a whole row gives NaN, and it is drawn anew."""

    def forward(self: Any, x: Any, hide: Any) -> Any:
        return x.masked_fill(hide > 0, float("-inf")).softmax(-1)

    example = drawn(1, 2), torch.tensor([[0.3, -0.2]])
    bundle = graphforge.compile(module_of(forward), example, dynamic_shapes="x:0=b:1..8", output=tmp_path / "b")
    assert bundle.manifest["verification"]["passed"]


def test_a_length_of_the_whole_size_is_among_those_drawn() -> None:
    spec = ShapeSpec((TensorSpec("x", (3, 8)), TensorSpec("count", (3,), "int64"))).with_dynamic(
        parse_dynamic(["x:1=2..12"])
    )
    example = {"x": drawn(3, 8).numpy(), "count": np.array([8, 5, 2])}
    for size in (2, 7, 12):
        count = random_feeds(spec, {"x_1": size}, example)["count"]
        assert count.max() == size
        assert count.min() >= 1
        assert (np.diff(count) <= 0).all()


@pytest.fixture
def dynamic_file(tmp_path: Path) -> Path:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (float[n, 3, h, h] x, int64[k] rows) => (float[k, 3, h, h] y) { y = Gather(x, rows) }"
    )
    onnx.save(proto, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_data_gives_the_open_dims_of_a_file_their_sizes(dynamic_file: Path, tmp_path: Path) -> None:
    data = {"x": np.random.rand(4, 3, 5, 5).astype(np.float32), "rows": np.array([3, 0])}
    bundle = graphforge.compile(dynamic_file, data, output=tmp_path / "b")
    assert [spec["shape"] for spec in bundle.manifest["inputs"]] == [[4, 3, 5, 5], [2]]
    graphforge.compile(dynamic_file, tuple(data.values()), dynamic_shapes="x:0=1..6", output=tmp_path / "b")
    with pytest.raises(UsageError, match="the file takes 2"):
        graphforge.compile(dynamic_file, (data["x"],), output=tmp_path / "b")


def picked_shapes(forward: Callable[..., Any], example: tuple[torch.Tensor, ...], tmp_path: Path) -> dict[str, int]:
    bundle = graphforge.compile(module_of(forward), example, output=tmp_path / "b")
    trials = bundle.manifest["verification"]["trials"]
    return {trial["data"]: trial["outputs"][0]["shape"][0] for trial in trials}


def test_nothing_and_everything_picked_are_among_the_tries(tmp_path: Path) -> None:
    def bright(self: Any, x: Any) -> Any:
        return x[x > 0.5]

    found = picked_shapes(bright, (drawn(40),), tmp_path)
    assert found["picks least"] == 0
    assert found["picks most"] == 40
    assert 0 < found["random"] < 40

    def kept(self: Any, x: Any, keep: Any) -> Any:
        return x[keep]

    found = picked_shapes(kept, (drawn(4, 2), torch.tensor([True, False, True, True])), tmp_path)
    assert (found["picks least"], found["picks most"]) == (0, 4)


def test_inputs_that_break_the_model_are_no_extremes(tmp_path: Path) -> None:
    """The mean of no rows is NaN, the logarithm of what is negative too: neither is held against the artifact."""

    def mean_of_bright(self: Any, x: Any) -> Any:
        return x[x > 0.5].mean(), x.log()[x > 0.5]

    bundle = graphforge.compile(module_of(mean_of_bright), drawn(40) + 0.01, output=tmp_path / "b")
    assert bundle.manifest["verification"]["passed"]


def test_a_model_of_fixed_sizes_runs_on_no_more_than_before(tmp_path: Path) -> None:
    bundle = graphforge.compile(torch.nn.ReLU(), drawn(3), output=tmp_path / "b")
    assert [trial["data"] for trial in bundle.manifest["verification"]["trials"]] == ["given", "random"]


def test_a_threshold_that_leaves_nothing_of_a_single_row_is_drawn_anew(tmp_path: Path) -> None:
    def mean_of_bright(self: Any, x: Any) -> Any:
        return x[x[:, 0] > 0.5].mean(0)

    example = drawn(12, 4)
    example[0, 0] = 0.1  # the example cut to one row leaves nothing, either
    bundle = graphforge.compile(module_of(mean_of_bright), example, dynamic_shapes="x:0=1..20", output=tmp_path / "b")
    assert bundle.manifest["verification"]["not_tried"] == []


def test_sizes_with_no_finite_result_are_told(tmp_path: Path) -> None:
    def spread(self: Any, x: Any) -> Any:
        return x.std(0)  # of one row: NaN

    bundle = graphforge.compile(module_of(spread), drawn(6, 4), dynamic_shapes="x:0=1..20", output=tmp_path / "b")
    (told,) = bundle.manifest["verification"]["not_tried"]
    assert told["sizes"] == {"x_0": 1}
    assert "NaN or infinite" in told["reason"]


def test_a_single_number_is_varied() -> None:
    spec = ShapeSpec((TensorSpec("x", (6,)), TensorSpec("k", (), "int64"), TensorSpec("t", ())))
    example = {"x": drawn(6).numpy(), "k": np.array(4), "t": np.array(0.5, np.float32)}
    feeds = [random_feeds(spec, {}, example, seed=seed) for seed in range(8)]
    assert len({int(one["k"]) for one in feeds}) > 2
    assert all(1 <= one["k"] <= 4 and 0.1 < one["t"] <= 0.5 for one in feeds)
    assert len({float(one["t"]) for one in feeds}) == 8


def test_candidates_that_lie_close_together_leave_nothing_undecided(tmp_path: Path) -> None:
    """Distances that lie near their threshold, of many more pairs when everything is picked."""

    def kept(self: Any, scores: Any, values: Any) -> Any:
        picked = values[scores > 0.5]
        return (picked[:, None] - picked[None]).abs().lt(0.1).sum(1), picked

    example = drawn(30), torch.linspace(0, 1, 30)
    bundle = graphforge.compile(module_of(kept), example, output=tmp_path / "b")
    assert bundle.manifest["verification"]["verdict"] == "passed"
