"""What ONNX Runtime dies of is found out in another process, and verified with less of its optimization."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import graphforge
from graphforge.apart import ForeignError, apart
from graphforge.errors import GraphForgeError
from graphforge.last_step import lowered
from graphforge.runners import survey
from graphforge.runners.child import Child, do_jobs
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
    monkeypatch.setattr(survey, "_fault", lambda path, step, feeds: "died (SIGSEGV)" if step < dies_at else "")
    with survivable([Path("model.onnx")]) as because:
        assert lowered()[0] == left_out
    assert because.startswith("onnxruntime 1.")
    assert because.endswith("died (SIGSEGV) while it was to load model.onnx")
    assert lowered() == (0, "")


def test_one_that_dies_of_everything_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "_fault", lambda path, step, feeds: "died (SIGSEGV)")
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


def test_the_process_that_is_asked_stays_and_is_replaced_when_a_file_ends_it(tmp_path: Path) -> None:
    class Jobs(Child):
        def __init__(self) -> None:
            super().__init__("tests.runners.test_survey")

    with Jobs() as child:
        first = child.ask(do="who")["pid"]
        assert child.ask(do="who")["pid"] == first
        assert child.ask(do="raise") == {"refused": "no such file"}
        assert child.ask(do="abort") == {"died": "SIGABRT"}
        assert child.ask(do="who")["pid"] not in (first, os.getpid())


def serve() -> None:
    """In the child of the test before this."""

    def work(job: Mapping[str, Any]) -> Mapping[str, Any]:
        if job["do"] == "abort":
            os.abort()
        if job["do"] == "raise":
            raise FileNotFoundError("no such file")
        return {"pid": os.getpid()}

    do_jobs(work)


def test_a_file_from_elsewhere_is_tried_in_another_process_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    known = survey._fault

    def note(path: Path, step: int, feeds: Any = None) -> str:
        tried.append(path.name)
        return known(path, step, feeds)

    monkeypatch.setattr(survey, "_fault", note)
    ours = graphforge.compile(torch.nn.Linear(3, 2), torch.randn(2, 3), output=tmp_path / "ours")
    assert tried == []
    theirs = tmp_path / "theirs.onnx"
    theirs.write_bytes((ours.path / "model.onnx").read_bytes())
    graphforge.compile(theirs, output=tmp_path / "out")
    assert tried == ["theirs.onnx", "model.onnx"]
    tried.clear()
    for use in (
        lambda: graphforge.profile(theirs, runs=1, warmup=0),
        lambda: graphforge.run(ours, torch.randn(2, 3).numpy()),
        lambda: graphforge.diff(theirs, ours),
    ):
        use()
    # each is loaded there, and run there before its first run here, but for diff, whose sessions are its own
    assert tried == ["theirs.onnx"] * 2 + ["model.onnx"] * 2 + ["theirs.onnx", "model.onnx"]
    for name, further, least in (("bisect", {}, 2), ("opset", {"prove": True}, 3)):
        tried.clear()
        getattr(graphforge, name)(theirs, **further)
        assert len(tried) >= least, tried


def test_a_graph_that_ends_the_runtime_is_told_by_what_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = graphforge.compile(torch.nn.Linear(3, 2), torch.randn(2, 3), output=tmp_path / "ours")
    (tmp_path / "theirs.onnx").write_bytes((ours.path / "model.onnx").read_bytes())
    monkeypatch.setattr(survey, "_child", Dying("graphforge.runners.survey"))
    died = r"onnxruntime 1\.\S+ died \(SIGSEGV\) while it was to load and run"
    with pytest.raises(GraphForgeError, match=died):
        graphforge.bisect(tmp_path / "theirs.onnx")
    proofs = graphforge.opset(tmp_path / "theirs.onnx", prove=True).proofs
    assert all(re.search(died, proof.reason) and not proof.passed for proof in proofs), proofs


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
    monkeypatch.setattr(survey, "_child", Dying("graphforge.runners.survey"))
    bundle = graphforge.compile(torch.nn.Linear(3, 2), torch.randn(2, 3), output=tmp_path / "out")
    with pytest.raises(GraphForgeError, match=r"onnxruntime 1\.\S+ died \(SIGSEGV\) while it was to load") as told:
        graphforge.run(bundle, torch.randn(2, 3).numpy())
    kept = Path(told.value.notes[-1].removeprefix("what it was given: "))
    assert kept.name == "model.onnx"
    assert kept.is_file()


class Dying(Child):
    def ask(self, **job: Any) -> dict[str, Any]:
        return {"died": "SIGSEGV"}
