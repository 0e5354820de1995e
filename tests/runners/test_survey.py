"""What ONNX Runtime dies of is found out in another process, and verified with less of its optimization."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import graphforge
from graphforge.apart import ForeignError, apart
from graphforge.errors import GraphForgeError
from graphforge.last_step import lowered
from graphforge.runners import survey
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
    monkeypatch.setattr(survey, "_fault", lambda path, step: "died (SIGSEGV)" if step < dies_at else "")
    with survivable([Path("model.onnx")]) as because:
        assert lowered()[0] == left_out
    assert because.startswith("onnxruntime 1.")
    assert because.endswith("died (SIGSEGV) while it was to load model.onnx")
    assert lowered() == (0, "")


def test_one_that_dies_of_everything_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "_fault", lambda path, step: "died (SIGSEGV)")
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
