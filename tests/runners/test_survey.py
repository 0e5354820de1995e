"""What ONNX Runtime dies of is found out in another process, and verified with less of its optimization."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import graphforge
from graphforge.apart import ForeignError, apart
from graphforge.errors import GraphForgeError
from graphforge.last_step import lowered
from graphforge.runners import elsewhere, onnx_runtime, survey
from graphforge.runners.child import ARRAYS, Child
from graphforge.runners.session import new_session
from graphforge.runners.survey import survivable


class Attention(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]


def test_attention_in_float16_is_verified_in_this_very_process(tmp_path: Path) -> None:
    bundle = graphforge.compile(Attention().half(), torch.randn(2, 5, 16).half(), output=tmp_path / "out")
    assert bundle.manifest["verification"]["passed"]
    assert lowered() == (0, "")


@pytest.mark.parametrize(("dies_at", "left_out"), [(1, 1), (2, 2)])
def test_as_much_is_left_out_as_it_dies_of(monkeypatch: pytest.MonkeyPatch, dies_at: int, left_out: int) -> None:
    monkeypatch.setattr(survey, "fault_of", lambda path, step, feeds: "died (SIGSEGV)" if step < dies_at else "")
    with survivable([Path("model.onnx")]) as because:
        assert lowered()[0] == left_out
    assert because.startswith("onnxruntime 1.")
    assert because.endswith("died (SIGSEGV) while it was to load model.onnx")
    assert lowered() == (0, "")


def test_one_that_dies_of_everything_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "fault_of", lambda path, step, feeds: "died (SIGSEGV)")
    with (
        pytest.raises(GraphForgeError, match=r"died \(SIGSEGV\) while it was to load m.onnx"),
        survivable([Path("m.onnx")]),
    ):
        pass


def test_a_death_at_arms_length_is_a_message() -> None:
    with pytest.raises(GraphForgeError, match=r"onnx 1\.\S+ died \(SIGABRT\) while it was to infer shapes"):
        apart("onnx", "infer shapes", lambda: os.abort())


def test_what_is_raised_at_arms_length_comes_back() -> None:
    def refuse() -> bytes:
        raise RuntimeError("no such axis")

    def say() -> bytes:
        raise GraphForgeError("too large", "use less")

    assert apart("onnx", "say so", lambda: b"so") == b"so"
    with pytest.raises(ForeignError, match="no such axis"):
        apart("onnx", "refuse", refuse)
    with pytest.raises(GraphForgeError, match="too large") as told:
        apart("onnx", "say", say)
    assert told.value.notes == ("use less",)


def test_want_of_memory_at_arms_length_is_not_blamed_on_the_file() -> None:
    def ask_for_much() -> bytes:
        raise MemoryError("64 GB for a table")

    with pytest.raises(MemoryError, match="64 GB"):
        apart("onnx", "infer shapes", ask_for_much)


def test_a_file_from_elsewhere_is_loaded_in_another_process_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, here = [], []

    def note(path: Path, step: int, feeds: Any = None) -> str:
        tried.append(path.name)
        return elsewhere.fault_of(path, step, feeds)

    def load(model: Any, **how: Any) -> Any:
        here.append(model)
        return new_session(model, **how)

    monkeypatch.setattr(survey, "fault_of", note)
    monkeypatch.setattr(onnx_runtime, "new_session", load)
    ours = graphforge.compile(torch.nn.Linear(3, 2), torch.randn(2, 3), output=tmp_path / "ours")
    assert tried == []
    assert len(here) == 1
    here.clear()
    theirs = tmp_path / "theirs.onnx"
    theirs.write_bytes((ours.path / "model.onnx").read_bytes())
    graphforge.compile(theirs, output=tmp_path / "out")
    graphforge.run(ours, torch.randn(2, 3).numpy())
    assert tried == ["model.onnx"]
    graphforge.bisect(theirs)
    assert graphforge.opset(theirs, prove=True).proofs
    assert here == []  # whatever runs, runs there
    graphforge.profile(theirs, runs=1, warmup=0)
    graphforge.diff(theirs, ours)
    assert tried[1:] == ["theirs.onnx", "theirs.onnx", "model.onnx"]
    # what is measured, and diff's own sessions: parts of the files with weights that they share
    assert here[0] == theirs
    assert all(isinstance(one, bytes) for one in here[1:])


def test_a_graph_that_ends_the_runtime_is_told_by_what_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = graphforge.compile(torch.nn.Linear(3, 2), torch.randn(2, 3), output=tmp_path / "ours")
    (tmp_path / "theirs.onnx").write_bytes((ours.path / "model.onnx").read_bytes())
    monkeypatch.setattr(elsewhere, "_child", Dying("graphforge.runners.elsewhere"))
    died = r"onnxruntime 1\.\S+ died \(SIGSEGV\) while it was to load"
    with pytest.raises(GraphForgeError, match=died):
        graphforge.bisect(tmp_path / "theirs.onnx")
    proofs = graphforge.opset(tmp_path / "theirs.onnx", prove=True).proofs
    assert proofs
    assert all(re.search(died, proof.reason) and not proof.passed for proof in proofs), proofs


@pytest.mark.parametrize("optimized_only", [False, True])
def test_a_later_run_that_ends_the_runtime_is_told_or_made_with_less_of_its_optimization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimized_only: bool
) -> None:
    class Picky(Child):
        """Dies of five columns, where it optimizes or always."""

        step = 0

        def ask(self, **job: Any) -> dict[str, Any]:
            self.step = job.get("step", self.step)
            sizes = [one.shape for one in job.get(ARRAYS, {}).values()]
            if job["do"] == "run" and (2, 5) in sizes and (self.step == 0 or not optimized_only):
                return {"died": "SIGFPE"}
            return super().ask(**job)

    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Exp", ["x"], ["y"])],
        "exp",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, "n"])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, "n"])],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "theirs.onnx")
    with Picky("graphforge.runners.elsewhere") as picky:
        monkeypatch.setattr(elsewhere, "_child", picky)

        def compiled() -> graphforge.Bundle:
            file, output = tmp_path / "theirs.onnx", tmp_path / "out"
            return graphforge.compile(file, inputs="x:2x4", dynamic_shapes="x:1=4..5", output=output)

        died = r"onnxruntime \S+ died \(SIGFPE\) while it was to run theirs.onnx on x:2x5"
        if not optimized_only:
            with pytest.raises(GraphForgeError, match=died):
                compiled()
            return
        manifest = compiled().manifest
        assert manifest["verification"]["passed"]
        assert any(re.search(f"{died}; it was verified with less", note) for note in manifest["notes"])


def test_openvino_reads_what_is_from_elsewhere_in_another_process_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    for earlier in list(survey._others.values()):  # of other tests in this process
        earlier.close()
    monkeypatch.setattr(survey, "_others", {})
    x = torch.randn(2, 3)
    ours = graphforge.compile(torch.nn.Linear(3, 2), x, target="openvino", output=tmp_path / "ours")
    assert survey._others == {}  # what is our own is read at once
    trial = "graphforge.targets.openvino.trial"
    try:
        graphforge.run(ours, x.numpy())
        assert list(survey._others) == [trial]
        monkeypatch.setitem(survey._others, trial, Dying(trial))
        with pytest.raises(GraphForgeError, match=r"openvino \S+ died \(SIGSEGV\) while it was to compile model.xml"):
            graphforge.run(ours, x.numpy())
        (tmp_path / "theirs.onnx").write_bytes((ours.path / "model.onnx").read_bytes())
        with pytest.raises(GraphForgeError, match=r"openvino \S+ died \(SIGSEGV\) while it was to read model.onnx"):
            graphforge.compile(tmp_path / "theirs.onnx", target="openvino", output=tmp_path / "again")
    finally:
        survey._others.pop(trial).close()


def test_a_runtime_that_dies_of_a_file_does_not_end_the_users_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "_child", Dying("graphforge.runners.elsewhere"))
    bundle = graphforge.compile(torch.nn.Linear(3, 2), torch.randn(2, 3), output=tmp_path / "out")
    with pytest.raises(GraphForgeError, match=r"onnxruntime 1\.\S+ died \(SIGSEGV\) while it was to load") as told:
        graphforge.run(bundle, torch.randn(2, 3).numpy())
    kept = Path(told.value.notes[-1].removeprefix("what it was given: "))
    assert kept.name == "model.onnx"
    assert kept.is_file()


class Dying(Child):
    def ask(self, **job: Any) -> dict[str, Any]:
        return {"died": "SIGSEGV"}
