"""Verification end to end on small models: what passes, what fails, and what the failure says."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console

from graphforge.errors import VerificationError, argument
from graphforge.runners.arrays import Array
from graphforge.runners.eager import EagerRunner
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.verify import Tolerances, VerificationReport, verify
from graphforge.verify.verify import Locate
from tests.verify import small


def run(
    path: Path, model: torch.nn.Module, *dynamic: str, batch: int = 2, locate: Locate | None = None
) -> VerificationReport:
    reference = small.eager(model, batch, 3, 8, 8)
    with OnnxRuntimeRunner(path, threads=1) as artifact:
        return verify(reference, artifact, small.dynamic(reference, *dynamic), reference.example(), locate=locate)


def test_equal_models_pass_at_every_size(tmp_path: Path) -> None:
    model = small.net()
    report = run(small.write_net(model, tmp_path / "net.onnx"), model, "x:0=1..8")
    assert report.passed, report.failures()
    assert [(t.assignment.sizes["x_0"], t.data) for t in report.trials] == [
        (2, "given"),
        (2, "random"),
        (1, "random"),
        (3, "random"),
        (8, "random"),
    ]
    assert 0 < report.max_abs < 1e-5
    report.raise_if_failed()


def test_a_changed_weight_fails_and_names_output_and_suspect(tmp_path: Path) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx")
    small.edit_initializer(path, "hw", (1, 2), 0.01)
    asked: list[Mapping[str, Array]] = []

    def locate(_: Any, __: Any, feeds: Mapping[str, Array], ___: Any) -> tuple[str, list[str]]:
        asked.append(feeds)
        return "head (Linear)", ["a note"]

    report = run(path, model, locate=locate)
    assert not report.passed
    assert [feeds["x"].shape for feeds in asked] == [(2, 3, 8, 8)]
    assert report.suspect == "head (Linear)"
    assert "a note" in report.notes
    with pytest.raises(VerificationError, match="output logits") as caught:
        report.raise_if_failed()
    assert "first suspect: head" in str(caught.value)


def test_a_baked_batch_fails_and_names_the_dim(tmp_path: Path) -> None:
    model = small.net()
    report = run(small.write_net(model, tmp_path / "net.onnx", batch=2), model, "x:0=1..8")
    assert not report.passed
    assert report.trials[0].passed
    assert not report.trials[2].passed
    assert "x_0 (2 -> 1) changes" in str(report.error())


def test_a_baked_size_names_the_guilty_dim_among_several() -> None:
    class Pool(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(x, 2)

    # the kernel is the example's 8 // 2, which the stock exporter bakes as well
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (float[b, 3, h, w] x) => (float[b, 3, i, j] output) {"
        " output = AveragePool<kernel_shape = [4, 4], strides = [4, 4]>(x) }"
    )
    reference = small.eager(Pool(), 2, 3, 8, 8)
    shapes = small.dynamic(reference, "x:0=1..4,2=8..32/8")
    report = verify(reference, OnnxRuntimeRunner(proto, threads=1), shapes, reference.example())
    failed = [trial for trial in report.trials if not trial.passed]
    assert failed
    assert all(trial.assignment.sizes["x_2"] != 8 for trial in failed)
    assert all(any("dim x_2" in note and "x_0" not in note for note in trial.notes) for trial in failed)
    assert "axis 2: 2 expected" in failed[0].outputs[0].reason


def test_integers_must_be_exact() -> None:
    class Rounds(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.round().to(torch.int64)

    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (float[a, b] x) => (int64[a, b] output) { f = Floor(x) output = Cast<to = 7>(f) }"
    )
    reference = small.eager(Rounds(), 3, 4)
    report = verify(reference, OnnxRuntimeRunner(proto), reference.inputs.spec(), reference.example())
    assert not report.passed
    assert "int64 must be exact" in report.failures()[0]


def test_nan_in_the_reference_is_an_error_that_says_so() -> None:
    class Root(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sqrt(x)

    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\ng (float[a, b] x) => (float[a, b] output) { output = Sqrt(x) }'
    )
    reference = small.eager(Root(), 3, 4)
    artifact = OnnxRuntimeRunner(proto)
    report = verify(reference, artifact, reference.inputs.spec(), reference.example())
    assert not report.passed
    assert "reference itself gives nan" in report.failures()[0]
    allowed = Tolerances().loosen(because="--allow-nonfinite", allow_nonfinite=True)
    report = verify(reference, artifact, reference.inputs.spec(), reference.example(), tolerances=allowed)
    assert report.passed
    assert any("--allow-nonfinite" in note for note in report.notes)


def test_a_missing_output_fails() -> None:
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 1, x + 2

    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\ng (float[a] x) => (float[a] output_0) { output_0 = Identity(x) }'
    )
    reference = small.eager(Two(), 3)
    report = verify(reference, OnnxRuntimeRunner(proto), reference.inputs.spec(), reference.example())
    assert not report.passed
    assert "expected 2 outputs" in report.failures()[0]


def test_a_model_that_fails_at_a_promised_size_is_a_failure() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, 4)

    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (float[a, 4] x) => (float[2, 4] output) <int64[2] s = {2, 4}> { output = Reshape(x, s) }"
    )
    reference = small.eager(Fixed(), 2, 4)
    shapes = small.dynamic(reference, "x:0=1..4")
    report = verify(reference, OnnxRuntimeRunner(proto, threads=1), shapes, reference.example())
    assert not report.passed
    assert "the model itself fails" in report.failures()[0]
    assert "narrow them" in str(report.error())


def test_dims_that_are_tied_without_saying_so_get_a_hint() -> None:
    class Sum(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a + b

    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (float[m, 4] a, float[n, 4] b) => (float[k, 4] output) { output = Add(a, b) }"
    )
    reference = EagerRunner.of(Sum(), (torch.rand(2, 4), torch.rand(2, 4)))
    loose = small.dynamic(reference, "a:0=1..8", "b:0=1..8")
    report = verify(reference, OnnxRuntimeRunner(proto, threads=1), loose, reference.example())
    assert report.not_tried
    assert any("given one name" in note for note in report.notes)
    tied = small.dynamic(reference, "a:0=n:1..8", "b:0=n:1..8")
    assert verify(reference, OnnxRuntimeRunner(proto, threads=1), tied, reference.example()).passed


def test_random_models_are_recognised() -> None:
    steps = itertools.count(1)

    class Wanders(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + next(steps)

    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (float[a] x) => (float[a] output) <float one = {1.0}> { output = Add(x, one) }"
    )
    reference = small.eager(Wanders(), 3)
    report = verify(reference, OnnxRuntimeRunner(proto), reference.inputs.spec(), reference.example())
    assert not report.passed
    assert "another answer when it is asked twice" in str(report.error())


def test_outputs_pair_by_position_when_names_differ() -> None:
    class Plain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 1, -x

    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (float[a] x) => (float[a] first, float[a] second) <float one = {1.0}>"
        " { first = Add(x, one) second = Neg(x) }"
    )
    reference = small.eager(Plain(), 3)
    report = verify(reference, OnnxRuntimeRunner(proto), reference.inputs.spec(), reference.example())
    assert report.passed
    assert [output.name for output in report.trials[0].outputs] == ["first", "second"]


def test_nothing_tried_is_not_a_pass() -> None:
    assert not VerificationReport("eager", "onnxruntime", ()).passed


def test_what_a_note_asks_for_is_written_in_words() -> None:
    report = VerificationReport("eager", "onnxruntime", (), notes=(f"give data ({argument('further_inputs')})",))
    assert report.to_dict()["notes"] == ["give data (further_inputs)"]
    console = Console(record=True, file=io.StringIO())
    report.render(console)
    assert "note: give data (further_inputs)" in console.export_text()


class Chaos(torch.nn.Module):
    """Doubles its rounding errors fifteen times over, or computes something else altogether."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(15):
            x = 1 - 1.9 * x * x
        return x


@pytest.mark.parametrize(
    ("start", "verdict", "reason"),
    [("x", "passed", "which is rounding: eager is off by"), ("1 - x", "failed", "more than rounding explains")],
)
def test_a_dispute_is_settled_by_what_rounding_does(start: str, verdict: str, reason: str) -> None:
    # 1.9 (x x) rounds otherwise than (1.9 x) x
    step = "p{1} = Mul({0}, {0}) q{1} = Mul(two, p{1}) {2} = Sub(one, q{1})"
    names = ["s", *(f"v{i}" for i in range(14)), "output"]
    body = "\n".join(step.format(a, i, b) for i, (a, b) in enumerate(pairwise(names)))
    first = "s = Identity(x)" if start == "x" else "s = Sub(one, x)"
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        f"g (float[a] x) => (float[a] output) <float one = {{1.0}}, float two = {{1.9}}> {{ {first}\n{body} }}"
    )
    reference = EagerRunner.of(Chaos(), (torch.rand(64, generator=torch.Generator().manual_seed(0)),))
    report = verify(reference, OnnxRuntimeRunner(proto, threads=1), reference.inputs.spec(), reference.example())
    assert report.verdict == verdict
    told = report.notes if report.passed else report.failures()
    assert any(reason in line for line in told)
    assert not any("no evidence of an error" in line for line in report.notes)


def test_agreement_on_zeros_or_underflow_is_said_to_say_little() -> None:
    class Fades(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x * 0, x * 1e-20 * 1e-20

    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "g (float[a] x) => (float[a] output_0, float[a] output_1) <float zero = {0.0}, float tiny = {1e-20}>"
        " { output_0 = Mul(x, zero) t = Mul(x, tiny) output_1 = Mul(t, tiny) }"
    )
    reference = small.eager(Fades(), 8)
    report = verify(reference, OnnxRuntimeRunner(proto, threads=1), reference.inputs.spec(), reference.example())
    assert report.passed, report.failures()
    assert "output output_0 is all zeros, so that it agrees says little" in report.notes
    assert any("output_1 is nowhere larger than" in note for note in report.notes)


def test_report_prints_and_is_json(tmp_path: Path) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx")
    small.edit_initializer(path, "hw", (1, 2), np.inf)
    report = run(path, model, locate=lambda *_: ("head (Linear)", []))
    text = io.StringIO()
    report.render(Console(file=text, width=200))
    assert "failed" in text.getvalue()
    assert "first suspect" in text.getvalue()
    parsed = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert parsed["passed"] is False
    assert parsed["failures"]


def test_any_runner_can_be_the_artifact() -> None:
    class Off:
        name = "plan"

        def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            return {"output": feeds["x"] * 2 + np.float32(1e-3)}

        def close(self) -> None:
            pass

    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    reference = small.eager(Double(), 3)
    report = verify(reference, Off(), reference.inputs.spec(), reference.example())
    assert not report.passed
    loose = Tolerances().loosen(because="test", atol=2e-3)
    assert verify(reference, Off(), reference.inputs.spec(), reference.example(), tolerances=loose).passed


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, graphforge.verify; "
        "print([m for m in ('torch', 'onnxruntime', 'polygraphy', 'onnx', 'jinja2') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
