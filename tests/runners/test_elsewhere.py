"""Sessions in another process: what passes through the pipe, deaths, and what goes on after them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from graphforge import limits
from graphforge.errors import GraphForgeError
from graphforge.limiting import BeyondLimitError
from graphforge.runners import child as pipes
from graphforge.runners.arrays import Array
from graphforge.runners.child import ARRAYS, Child
from graphforge.runners.elsewhere import DiedError, Elsewhere
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.runners.survey import doubting


@pytest.fixture(scope="module")
def jobs() -> Iterator[Child]:
    with Child("tests.runners.jobs") as child:
        yield child


def test_the_process_that_is_asked_stays_and_is_replaced_when_a_job_ends_it(jobs: Child) -> None:
    first = jobs.ask(do="who")["pid"]
    assert jobs.ask(do="who")["pid"] == first
    assert jobs.ask(do="raise") == {"refused": "no such file"}
    assert jobs.ask(do="abort") == {"died": "SIGABRT"}
    assert jobs.ask(do="who")["pid"] not in (first, os.getpid())


def test_arrays_of_every_kind_come_back_as_they_went(jobs: Child) -> None:
    given: dict[str, Array] = {
        "image": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "turned": np.arange(6, dtype=np.int64).reshape(2, 3).T,
        "scalar": np.array(3.5),
        "empty": np.zeros((2, 0, 3), np.uint8),
        "mask": np.array([True, False]),
        "complex": np.array([1 + 2j], np.complex64),
        "half": np.array([1, -2], ml_dtypes.bfloat16),
        "eighth": np.array([1, -2], ml_dtypes.float8_e4m3fn),
        "text": np.array([["a", "ü"]], dtype=object),
    }
    found = jobs.ask(do="echo", **{ARRAYS: given})[ARRAYS]
    for name, array in given.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array)
    (other,) = jobs.ask(do="echo", **{ARRAYS: {"x": np.array([1, 2], ">f4")}})[ARRAYS].values()
    np.testing.assert_array_equal(other, [1, 2])  # bytes in the other order
    with pytest.raises(GraphForgeError, match="is not a type of numbers"):
        jobs.ask(do="echo", **{ARRAYS: {"x": np.array(["2020-01-01"], "datetime64[D]")}})


def test_an_interruption_leaves_no_answer_for_the_next_job(jobs: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    known = pipes._read

    def interrupted(pipe: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipes, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jobs.ask(do="echo", **{ARRAYS: {"x": np.array(1)}})
    monkeypatch.setattr(pipes, "_read", known)
    assert ARRAYS not in jobs.ask(do="who")


def _model(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto] | None = None) -> bytes:
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT64, ["n"])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, ["n"])],
        constants or [],
    )
    content: bytes = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return content


@pytest.fixture
def negation() -> Iterator[Elsewhere]:
    model = _model([onnx.helper.make_node("Neg", ["x"], ["y"])])
    session = Elsewhere(model, threads=1, optimize=True, name="a file")
    yield session
    session.close()


def test_a_run_that_ends_the_runtime_is_an_error_and_other_sessions_go_on(negation: Elsewhere) -> None:
    (y,) = negation.run({"x": np.array([1, -2])}).values()
    np.testing.assert_array_equal(y, [-1, 2])
    # ONNX Runtime 1.32 divides without a look: the least integer by -1 is SIGFPE
    least = onnx.helper.make_tensor("least", onnx.TensorProto.INT64, [1], [-(2**63)])
    model = _model([onnx.helper.make_node("Div", ["least", "x"], ["y"])], [least])
    division = Elsewhere(model, threads=1, optimize=True, name="a file")
    assert division.run({"x": np.array([2])})["y"] == -(2**62)
    with pytest.raises(DiedError, match=r"onnxruntime \S+ died \(SIGFPE\) while it was to run a model on x:1") as told:
        division.run({"x": np.array([-1])})
    kept = Path(told.value.notes[-1].removeprefix("what it was given: "))
    assert kept.read_bytes() == model
    (y,) = negation.run({"x": np.array([5])}).values()
    np.testing.assert_array_equal(y, [-5])


def test_what_the_runtime_refuses_is_told_as_it_is_here(negation: Elsewhere, tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match=r"a file failed to run: .*Unexpected input data type"):
        negation.run({"x": np.array([1.5])})
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with doubting("all"), OnnxRuntimeRunner(tmp_path / "broken.onnx", name="broken") as runner:  # noqa: SIM117
        with pytest.raises(GraphForgeError, match=r"broken cannot load the model: .*broken.onnx"):
            runner.run({})


def test_a_run_without_an_end_is_ended_at_the_limit_and_the_process_stays(negation: Elsewhere) -> None:
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["going"], ["on"]), onnx.helper.make_node("Neg", ["a"], ["b"])],
        "body",
        [
            onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("a", onnx.TensorProto.INT64, ["n"]),
        ],
        [
            onnx.helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("b", onnx.TensorProto.INT64, ["n"]),
        ],
    )
    yes = onnx.helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True])
    model = _model([onnx.helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)], [yes])
    endless = Elsewhere(model, threads=1, optimize=False, name="a file")
    with limits(seconds=1), pytest.raises(BeyondLimitError, match="in 1 s, which is the limit"):
        endless.run({"x": np.array([1])})
    endless.close()
    assert negation.run({"x": np.array([5])})["y"] == -5


def test_what_is_measured_runs_here_after_a_trial_of_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    known = Elsewhere.run

    def note(self: Elsewhere, feeds: Any, **how: Any) -> Any:
        tried.append((feeds["x"].shape, how))
        return known(self, feeds, **how)

    monkeypatch.setattr(Elsewhere, "run", note)
    model = _model([onnx.helper.make_node("Neg", ["x"], ["y"])])
    with doubting("all"), OnnxRuntimeRunner(model, here=True) as runner:
        for size in (2, 2, 3):
            np.testing.assert_array_equal(runner.run({"x": np.ones(size, np.int64)})["y"], -np.ones(size))
    assert tried == [((2,), {"back": False}), ((3,), {"back": False})]
