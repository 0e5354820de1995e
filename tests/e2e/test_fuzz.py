"""The soak of scripts/bench fuzz: some of it runs here, and its judge can tell a wrong file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphforge.errors import GraphForgeError, UndecidedError, VerificationError
from scripts import bench_fuzz, fuzz_graphs, fuzz_judge, fuzz_programs

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_some_programs_and_graphs_of_the_soak(tmp_path: Path) -> None:
    words = ["--count", "6", "--seed", "100", "--keep", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "bench_fuzz.py"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| programs | 6 |" in done.stdout
    assert "| graphs | 6 |" in done.stdout


def test_a_program_is_the_same_for_the_same_seed() -> None:
    assert fuzz_programs.draw_program(5).source() == fuzz_programs.draw_program(5).source()
    assert fuzz_graphs.draw_graph(5).text() == fuzz_graphs.draw_graph(5).text()


def test_what_never_ends_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> dict[str, Any]:
        while True:
            pass

    monkeypatch.setattr(bench_fuzz, "SECONDS_EACH", 1)
    assert bench_fuzz._in_a_process(endless).verdict == "hangs"
    assert bench_fuzz._in_a_process(lambda: os._exit(3)).verdict == "died"
    assert bench_fuzz._in_a_process(lambda: {"verdict": "right"}).verdict == "right"


def test_a_statement_that_others_need_is_not_left_out() -> None:
    program = fuzz_programs.Program(
        inputs={"x": ("float32", (2,))},
        weights={},
        lines=("v0 = x + 1", "v1 = v0 * 2", "v2 = x * 3"),
        outputs=("v1",),
        dims={},
        example={},
        seed=0,
    )
    fewer = [smaller.lines for smaller in fuzz_programs.shorter(program) if len(smaller.lines) < 3]
    assert fewer == [("v0 = x + 1", "v1 = v0 * 2")]


def test_the_judge_sees_a_constant_that_is_a_little_off(tmp_path: Path) -> None:
    node = fuzz_graphs.Node("v0", "Mul", ("x", "c0"), {})
    graph = fuzz_graphs.Graph(
        17, {"x": ("float32", ("n", 3))}, {"c0": np.array([2.0], np.float32)}, (node,), ("v0",), {"n": (1, 4)}, seed=0
    )
    path = tmp_path / "same.onnx"
    (tmp_path / "manifest.json").write_text('{"notes": []}')
    onnx.save(graph.model(), path)
    assert fuzz_judge._judge_graph(path, graph) == ""
    changed = graph.model()
    changed.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([2.0002], np.float32), "c0"))
    onnx.save(changed, path)
    assert "elements, worst off by" in fuzz_judge._judge_graph(path, graph)


@pytest.mark.parametrize(("error", "verdict"), [(UndecidedError, "undecided"), (VerificationError, "refused")])
def test_a_file_that_verification_did_not_pass_is_judged_too(
    tmp_path: Path, error: type[GraphForgeError], verdict: str
) -> None:
    def compiled(verify: bool) -> Path:
        if verify:
            raise error("no")
        return tmp_path

    for complaint in ("", "off"):
        told = fuzz_judge._outcome(compiled, lambda _, said=complaint: said)  # type: ignore[misc]
        assert told == {"verdict": verdict, "reason": "no", "file_was_right": not complaint}


def test_what_judging_stumbles_over_is_not_called_right(tmp_path: Path) -> None:
    def broken(_: Path) -> str:
        raise ValueError("cannot be loaded")

    assert fuzz_judge._outcome(lambda _: tmp_path, broken)["verdict"] == "died"
    assert fuzz_judge._outcome(lambda _: tmp_path, lambda _: "off")["verdict"] == "wrong"
