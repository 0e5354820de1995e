"""Verdicts by evidence: rounding passes, equals stand in any order, what hangs on rounding is recognised and told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch.nn import functional

import graphforge
from graphforge.errors import UndecidedError, VerificationError
from graphforge.runners.eager import EagerRunner
from graphforge.runners.onnx_runtime import OnnxRuntimeRunner
from graphforge.verify import VerificationReport, verify, witness
from graphforge.verify.rounding import Moved, Ties
from graphforge.verify.witness import Witness
from tests.verify import small

X = torch.randn(50, generator=torch.Generator().manual_seed(0))
ONNX = '<ir_version: 10, opset_import: ["" : 20]>\n'


def against(model: torch.nn.Module, text: str, x: torch.Tensor) -> VerificationReport:
    reference = EagerRunner.of(model.eval(), (x,))
    with OnnxRuntimeRunner(onnx.parser.parse_model(ONNX + text), threads=1) as artifact:
        return verify(reference, artifact, reference.inputs.spec(), reference.example())


# -- floats ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["double", "float"])
def test_an_output_is_judged_by_the_coarsest_arithmetic_before_it(ending: str, tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(20, 8)
            if ending == "float":
                self.layer.bfloat16()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.layer(x.to(self.layer.weight.dtype)).tanh()
            return y.double() if ending == "double" else y.float()

    torch.manual_seed(0)
    bundle = graphforge.compile(Net().eval(), torch.randn(3, 20), output=tmp_path / "b")
    assert bundle.manifest["verification"]["verdict"] == "passed"


@pytest.mark.parametrize("learnt", [True, False])
def test_a_normalisation_that_has_learnt_its_statistics_adds_up_nothing(learnt: bool) -> None:
    """It moves by a step and those of its operands; one that adds up 16,384 numbers for each mean by four."""
    layer = torch.nn.BatchNorm2d(4).eval() if learnt else torch.nn.InstanceNorm2d(4)
    x = torch.randn(1, 4, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right = layer(x)
        with Moved(seed=1).on():
            moved = layer(x)
    steps = float(((moved - right).abs() / right.abs()).median()) / torch.finfo(torch.float32).eps
    assert (0.5 < steps < 2) if learnt else (2.5 < steps < 5)


def test_a_score_near_zero_may_be_off_by_what_a_sigmoid_is_off() -> None:
    class Scores(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(x - 14)

    text = (
        "g (float[a] x) => (float[a] output) <float c = {14.0}, float off = {%s}>"
        " { s = Sub(x, c) t = Sigmoid(s) output = Add(t, off) }"
    )
    x = torch.randn(64)
    assert against(Scores(), text % "8e-8", x).verdict == "passed"
    assert against(Scores(), text % "2e-6", x).verdict == "failed"


def test_channels_are_judged_by_their_own_magnitude() -> None:
    """Boxes in hundreds of pixels do not excuse what is wrong in the scores beside them."""

    class Both(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x * 600, x.sigmoid()], 1)

    text = (
        "g (float[a, 1, b] x) => (float[a, 2, b] output) <float k = {600.0}, float f = {%s}>"
        " { m = Mul(x, k) s = Sigmoid(x) t = Mul(s, f) output = Concat<axis=1>(m, t) }"
    )
    x = torch.randn(1, 1, 50)
    assert against(Both(), text % "1.0", x).verdict == "passed"
    assert against(Both(), text % "1.0001", x).verdict == "failed"


def test_a_failure_says_what_rounding_does() -> None:
    class Thirds(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 3

    report = against(Thirds(), "g (float[a] x) => (float[a] output) <float d = {3.0001}> { output = Div(x, d) }", X)
    assert report.verdict == "failed"
    assert "off by more than rounding explains" in report.failures()[0]
    assert "from its own float64 run" in report.failures()[0]
    assert "one unit in the last place" in report.failures()[0]


# -- choices -----------------------------------------------------------------------------------------------------------


class Best(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, places = torch.where(x > 0.8, x, 0.0).topk(6)
        return values, places


BEST = (
    "g (float[a, b] x) => (float[a, 6] output_0, int64[a, 6] output_1) <float t = {0.8}, float z = {0.0},"
    " int64[1] k = {6}> { m = Greater(x, t) s = Where(m, x, z) output_0, output_1 = TopK(s, k) }"
)


def test_zeros_after_a_suppression_stand_in_any_order() -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 40) * 0.79
    x[:, 3] = 0.9
    report = against(Best(), BEST, x)
    assert report.verdict == "passed", report.failures()


def test_equal_values_are_settled_before_rounding_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring takes five runs of the reference and more, and tells nothing of what is wrong by its order alone."""
    watched, steps = witness._watched, []

    def seen(*given: Any) -> witness.MovedRun:
        steps.append(given[3])
        return watched(*given)

    monkeypatch.setattr(witness, "_watched", seen)
    torch.manual_seed(0)
    x = torch.rand(4, 40) * 0.79
    x[:, 3] = 0.9
    report = against(Best(), BEST, x)
    assert report.verdict == "passed", report.failures()
    assert any("their order is arbitrary" in note for note in report.notes)
    assert 1 <= len(steps) <= len(report.trials)
    assert set(steps) == {0.0}


def test_an_index_that_points_at_a_lower_value_fails() -> None:
    wrong = BEST.replace("output_0, output_1 = TopK(s, k)", "output_0, p = TopK(s, k) output_1 = Add(p, k)")
    torch.manual_seed(0)
    assert against(Best(), wrong, torch.rand(4, 40)).verdict == "failed"


class Mask(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x > x.mean()


def mask(factor: float) -> str:
    return (
        f"g (float[a] x) => (bool[a] output) <float f = {{{factor}}}>"
        " { r = ReduceMean<keepdims=0>(x) m = Mul(r, f) output = Greater(x, m) }"
    )


def test_a_mask_that_hangs_on_rounding_is_recognised_and_told() -> None:
    x = torch.rand(101, generator=torch.Generator().manual_seed(3))
    x[7] = 0.0
    x[7] = (x.double().sum() / 100).float()  # as large as the mean of all, up to rounding
    assert abs(float(x[7] - x.mean())) < 1e-6
    up = float(np.float32(x.mean()) * (1 + (1e-7 if bool(x[7] > x.mean()) else -1e-7)) / np.float32(x.mean()))
    report = against(Mask(), mask(up), x)
    assert report.verdict == "passed", report.failures()
    flipped = [note for trial in report.trials for note in trial.notes]
    assert not flipped or "a decision hangs on values within rounding of each other: gt" in flipped[0]


def test_a_mask_with_another_threshold_fails() -> None:
    x = torch.rand(400, generator=torch.Generator().manual_seed(3))
    report = against(Mask(), mask(1.02), x)
    assert report.verdict == "failed"
    assert not any("rounding" in note for trial in report.trials for note in trial.notes)


# -- undecided ---------------------------------------------------------------------------------------------------------


class Chaos(torch.nn.Module):
    """Doubles its rounding errors until nothing else is left."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(60):
            x = 1 - 1.99 * x * x
        return x


def test_what_nothing_decides_is_kept_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = OnnxRuntimeRunner.run
    monkeypatch.setattr(
        OnnxRuntimeRunner, "run", lambda self, feeds: {name: -value for name, value in original(self, feeds).items()}
    )
    x = torch.rand(64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UndecidedError, match="is undecided") as caught:
        graphforge.compile(Chaos().eval(), x, output=tmp_path / "b")
    assert isinstance(caught.value, VerificationError)
    assert any("accept_undecided=True" in note for note in caught.value.notes)
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["verification"]["verdict"] == "undecided"
    assert "nothing can be proven" in manifest["verification"]["failures"][0]
    bundle = graphforge.compile(Chaos().eval(), x, output=tmp_path / "b", accept_undecided=True)
    assert "undecided" in bundle.summary()
    assert "undecided" in bundle.report().path.read_text()


def test_numbers_that_are_given_leave_nothing_to_evidence(tmp_path: Path) -> None:
    net = torch.nn.Linear(40, 3).eval()
    with pytest.raises(VerificationError):
        graphforge.compile(net, torch.randn(9, 40), tolerances=1e-12, output=tmp_path / "b")


# -- NaN ---------------------------------------------------------------------------------------------------------------


def test_nan_in_the_given_data_is_told_as_such_and_can_be_allowed(tmp_path: Path) -> None:
    class Scaled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.clamp(-1, 1) * 2

    x = torch.tensor([0.5, float("nan"), -3.0, float("inf")])
    with pytest.raises(VerificationError) as caught:
        graphforge.compile(Scaled().eval(), x, output=tmp_path / "b")
    told = str(caught.value)
    assert "input x itself holds NaN or Inf" in told
    assert "allow_nonfinite=True" in told
    assert "baked in" not in told
    assert "asked twice" not in told
    bundle = graphforge.compile(Scaled().eval(), x, output=tmp_path / "b", allow_nonfinite=True)
    assert bundle.manifest["verification"]["verdict"] == "passed"


def test_a_number_of_python_is_float64(tmp_path: Path) -> None:
    class Share(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> float:
            return float(x.sum() / 3)

    assert graphforge.compile(Share().eval(), torch.randn(7), output=tmp_path / "b").manifest["verification"]["passed"]


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("start", [0.0, 3e5, 1.6e7])
def test_the_spread_of_numbers_far_from_zero_is_right(unbiased: bool, start: float, tmp_path: Path) -> None:
    class Spread(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.var(1, unbiased=unbiased), x.std(1, unbiased=unbiased)

    torch.manual_seed(0)
    bundle = graphforge.compile(Spread().eval(), start + torch.rand(3, 500) * 20, output=tmp_path / "b")
    assert bundle.manifest["verification"]["verdict"] == "passed"


# -- moved runs --------------------------------------------------------------------------------------------------------


def test_a_step_moves_what_rounds_and_nothing_else() -> None:
    x = X
    with torch.no_grad(), Moved(seed=1).on():
        exact = torch.cat([x[::2], x.abs().relu()]) if x.numel() else x
        count, rounded = torch.arange(9.0) * 8 + 4, x / 3
    assert torch.equal(exact, torch.cat([x[::2], x.abs().relu()]))
    assert torch.equal(count, torch.arange(9.0) * 8 + 4)
    off = ((rounded - x / 3) / (x / 3)).abs()
    assert 0 < float(off.max()) < 2.5e-7
    assert float((off > 0).float().mean()) > 0.9


def test_a_transform_of_long_axes_adds_up_many_numbers() -> None:
    x = torch.rand(96, 128, generator=torch.Generator().manual_seed(2)) + 0.5
    plain = torch.fft.rfftn(x, norm="forward")
    with Moved(seed=1).on():
        moved, short = torch.fft.rfftn(x, norm="forward"), torch.fft.rfft(x[:, :8], norm="forward")
    assert 2e-7 < float(((moved - plain)[0, 0] / plain[0, 0]).abs()) < 8e-7
    few = torch.fft.rfft(x[:, :8], norm="forward")
    assert float(((short - few)[:, 0] / few[:, 0]).abs().max()) < 3e-7


@pytest.mark.parametrize(
    "function",
    [
        functional.elu,
        functional.selu,
        lambda x: functional.celu(x, 2.0),
        lambda x: functional.elu(x.clone(), inplace=True),
    ],
)
def test_an_exponential_less_one_rounds_as_the_exponential_does(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    x = torch.tensor([-1e-4, -1e-3, -2.0, -30.0, 0.5]).repeat(20)
    plain = function(x)
    with Moved(seed=1).on():
        moved = function(x)
    off = (moved - plain).abs().reshape(20, 5).amax(0)
    assert (off[:2] > 4e-8).all()
    assert (off[:2] < 3e-7).all()
    assert float(off[2]) < 3e-7  # no more than its own last place
    assert float(off[3]) < 3e-7
    assert float(off[4]) < 1e-7


def test_ties_are_settled_by_position() -> None:
    x = torch.tensor([[0.0, 2.0, 0.0, 2.0, 0.0]])
    with Moved(seed=0, steps=0, ties=Ties.FIRST).on():
        assert x.topk(4).indices.tolist() == [[1, 3, 0, 2]]
        assert x.argmax(1).tolist() == [1]
        assert x.min(1).indices.tolist() == [0]
        assert x.kthvalue(2, dim=1).indices.tolist() == [2]
        assert x.median(1).indices.tolist() == x.nanmedian(1).indices.tolist() == [4]
    with Moved(seed=0, steps=0, ties=Ties.LAST).on():
        assert x.topk(4).indices.tolist() == [[3, 1, 4, 2]]
        assert x.argmax(1).tolist() == [3]
        assert x.sort(1).indices.tolist() == [[4, 2, 0, 3, 1]]
        assert x.kthvalue(4).values.tolist() == [2.0]
        assert x.kthvalue(4).indices.tolist() == [3]
        assert x.median(1).indices.tolist() == [0]


class _Middle(torch.nn.Module):
    """Ranks within rows that are full of equal values."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return *x.kthvalue(3, dim=1, keepdim=True), *x.median(1)


def test_the_place_of_a_rank_among_equal_values_is_open(tmp_path: Path) -> None:
    x = torch.randint(0, 3, (6, 9), dtype=torch.int32, generator=torch.Generator().manual_seed(5))
    manifest = graphforge.compile(_Middle(), (x,), output=tmp_path / "bundle").manifest
    assert manifest["verification"]["verdict"] == "passed"


def test_a_step_of_a_recurrent_layer_is_taken_inside() -> None:
    torch.manual_seed(0)
    cell = torch.nn.LSTM(6, 8, num_layers=2).eval()
    x = torch.randn(20, 1, 6)
    runner = EagerRunner.of(cell, (x,))
    (moved,) = Witness(runner, runner.example()).moved(1)
    plain = runner.run(runner.example())
    apart = max(float(np.abs(moved.outputs[name] - plain[name]).max()) for name in plain)
    assert 1e-8 < apart < 1e-5
    assert torch._C._get_mkldnn_enabled()


def test_a_changed_weight_of_a_thousandth_fails(tmp_path: Path) -> None:
    model = small.net()
    path = small.write_net(model, tmp_path / "net.onnx")
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        if tensor.name == "hw":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.00001), "hw"))
    reference = small.eager(model, 2, 3, 8, 8)
    with OnnxRuntimeRunner(proto, threads=1) as artifact:
        report = verify(reference, artifact, reference.inputs.spec(), reference.example())
    assert report.verdict == "failed"


def test_the_mean_of_many_numbers_far_from_zero_is_taken_in_parts(tmp_path: Path) -> None:
    """It was off in the fourth digit: ONNX Runtime adds one after the other."""

    class Means(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return x.mean(), x.sum(), x.mean((2, 3)), x.flatten(1).mean(1)

    torch.manual_seed(0)
    x = torch.rand(2, 1, 600, 500) * 10 + 1e5
    bundle = graphforge.compile(Means().eval(), x, dynamic_shapes={"x": {0: (1, 3)}}, output=tmp_path / "b")
    assert bundle.manifest["verification"]["verdict"] == "passed"


def test_a_few_elements_of_a_large_mask_may_hang_on_rounding() -> None:
    class Above(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mask = x / 3 > 0.1
            return mask, mask.sum()

    x = torch.rand(4000) * 0.6
    x[::500] = torch.nextafter(torch.tensor(0.3), torch.tensor(1.0))
    text = (
        "g (float[a] x) => (bool[a] output_0, int64 output_1) <float f = {0.333333333}, float t = {0.1},"
        " int64[1] zero = {0}> { m = Mul(x, f) output_0 = Greater(m, t) c = Cast<to=7>(output_0)"
        " output_1 = ReduceSum<keepdims=0>(c, zero) }"
    )
    report = against(Above(), text, x)
    assert report.verdict == "passed", report.failures()
    wrong = against(Above(), text.replace("0.1}", "0.101}"), x)
    assert wrong.verdict == "failed"


def test_how_many_runs_are_made_hangs_on_what_they_compute_and_not_on_the_clock() -> None:
    layers = torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 4)
    runner = EagerRunner.of(torch.nn.Sequential(*layers).eval(), (torch.rand(2, 3, 8, 8),))
    one = Witness(runner, runner.example()).moved(1)[0].work
    assert one == Witness(runner, runner.example()).moved(1)[0].work
    products = 2 * 36 * 8 * 27 + 2 * 8 * 36 * 4
    assert products < one < products + 5 * 10**7
    for runs in (1, 3, 7):
        assert len(Witness(runner, runner.example(), work=one * runs).moved(12)) == runs
    assert len(Witness(runner, runner.example()).moved(12)) == 12


class _Transform(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = torch.view_as_real(torch.fft.rfft2(x))
        return torch.cat([found[:1], found[1:] * self.factor])


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "passed"), (1.0001, "failed")])
def test_a_transform_rounds_as_its_largest_element_does(factor: float, verdict: str, tmp_path: Path) -> None:
    """Of what is positive one element is the sum of all, and the others are what is left of sums nearly as large."""
    torch.manual_seed(1)
    x = torch.rand(2, 120, 180)
    graphforge.compile(_Transform(factor), (x,), output=tmp_path / "bundle", verify=False)
    reference = EagerRunner.of(_Transform(1.0), (x,))
    with OnnxRuntimeRunner(onnx.load(tmp_path / "bundle" / "model.onnx"), threads=1) as artifact:
        report = verify(reference, artifact, reference.inputs.spec(), reference.example())
    assert report.verdict == verdict


@pytest.mark.parametrize(("scale", "verdict"), [("0.732421875", "passed"), ("0.73244", "failed")])
def test_a_resized_picture_may_be_off_by_what_its_places_round(scale: str, verdict: str) -> None:
    """At column 2,000 a place is off by a ten-thousandth of a pixel; a scale that is a little wrong, by a twentieth."""

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.interpolate(x, size=(4, 1500), mode="bilinear")

    text = f"""g (float[1,1,4,2048] x) => (float[1,1,4,1500] y)
        <float[0] roi = {{}}, float[4] scales = {{1, 1, 1, {scale}}}> {{
        y = Resize<mode = "linear">(x, roi, scales)
    }}"""
    x = torch.randn(1, 1, 4, 2048, generator=torch.Generator().manual_seed(2))
    assert against(Net(), text, x).verdict == verdict


def test_half_of_two_pixels_is_not_exact() -> None:
    """Eager's places are exact here, and ONNX Runtime's are not: what is rounded to bytes may be off by one."""
    picture = torch.randint(0, 256, (1, 1, 14, 8), generator=torch.Generator().manual_seed(0)).float()
    picture[..., 4:] = 7.0

    def resized() -> torch.Tensor:
        return torch.nn.functional.interpolate(picture, size=(8, 4), mode="bilinear")

    right = resized()
    halves = (right % 1 == 0.5) & (torch.arange(4) < 2)
    assert halves.any()
    turned = torch.zeros_like(halves)
    for seed in range(4):
        with Moved(seed=seed).on():
            off = resized()
        turned |= off.round() != right.round()
        assert (off[..., 3] == 7.0).all()
    assert (turned & halves).any()


def test_a_step_of_a_resized_picture_grows_with_the_place_that_is_read() -> None:
    x = torch.randn(1, 1, 4, 2048, generator=torch.Generator().manual_seed(2))

    def resized() -> torch.Tensor:
        return torch.nn.functional.interpolate(x, size=(4, 1500), mode="bilinear")

    right = resized()
    with Moved(seed=0).on():
        off = (resized() - right).abs()
    assert off[..., -100:].mean() > 10 * off[..., :100].mean()
    assert off.max() < 1e-2
