"""Capture: names, dynamic dims, every method, and what is said when none works."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from graphforge.call import input_tree
from graphforge.errors import CaptureError, UsageError
from graphforge.frontend.advice import advice_for
from graphforge.frontend.capture import METHODS, capture
from graphforge.frontend.captured import Captured
from graphforge.spec import DimRange
from tests.frontend.helpers import lower_and_compare


def _capture(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    dynamic: dict[str, dict[int, DimRange]] | None = None,
    method: str = "auto",
) -> Captured:
    tree = input_tree(module, args, kwargs or {})
    return capture(module.eval(), tree, tree.spec().with_dynamic(dynamic or {}), method=method)


class Nested(torch.nn.Module):
    def forward(
        self, pair: tuple[torch.Tensor, torch.Tensor], options: dict[str, torch.Tensor], scale: float = 2.0
    ) -> Any:
        return {"sum": (pair[0] + pair[1]) * scale, "rest": [options["k"].neg()]}


def test_nested_inputs_and_outputs_have_stable_names() -> None:
    module = Nested()
    captured = _capture(module, ((torch.ones(2), torch.ones(2)),), {"options": {"k": torch.ones(3)}})
    assert list(captured.input_names.values()) == ["pair.0", "pair.1", "options.k"]
    assert captured.output_names == ["sum", "rest_0"]


class Result(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Several(torch.nn.Module):
    def forward(self, x: torch.Tensor, form: str) -> Any:
        return {"tuple": (x, x + 1), "named": Result(x + 1, x + 2), "single": x + 1}[form]


@pytest.mark.parametrize(
    ("form", "names"),
    [("tuple", ["output_0", "output_1"]), ("named", ["first", "second"]), ("single", ["output"])],
)
def test_outputs_are_named_after_their_place(form: str, names: list[str]) -> None:
    captured = _capture(Several(), (torch.ones(2), form))
    assert captured.output_names == names


def test_arguments_that_do_not_fit_are_refused_with_the_signature() -> None:
    with pytest.raises(UsageError, match="do not fit the model") as failure:
        input_tree(torch.nn.Linear(2, 2), (), {"image": torch.ones(2)})
    assert "input" in failure.value.notes[0]


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(inplace=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.body(x)
        return result


@pytest.mark.parametrize("method", METHODS)
def test_every_method_captures_with_a_dynamic_batch(method: str) -> None:
    captured = _capture(Small(), (torch.ones(1, 4),), dynamic={"x": {0: DimRange("batch", 1, 8)}}, method=method)
    assert captured.method == method
    assert list(captured.symbols.values()) == ["batch"]
    assert {name for name, _ in captured.weights.values()} == {"body.0.weight", "body.0.bias"}
    fake = next(iter(captured.graph_module.graph.nodes)).graph.find_nodes(op="placeholder")[-1].meta["val"]
    assert not isinstance(fake.shape[0], int)
    assert fake.shape[1] == 4


def test_a_torchscript_module_is_traced() -> None:
    scripted = torch.jit.script(Small().eval())
    captured = _capture(scripted, (torch.ones(2, 4),), dynamic={"x": {0: DimRange("batch", 1, 8)}})
    assert captured.method == "trace"
    assert {name for name, _ in captured.weights.values()} == {"body.0.weight", "body.0.bias"}


def test_weights_are_the_models_own_storage() -> None:
    module = Small()
    captured = _capture(module, (torch.ones(2, 4),))
    weight = next(tensor for name, tensor in captured.weights.values() if name == "body.0.weight")
    first = module.body[0]
    assert isinstance(first, torch.nn.Linear)
    assert weight.data_ptr() == first.weight.data_ptr()


class DataDependent(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return -x


def test_when_nothing_works_every_method_says_why() -> None:
    with pytest.raises(CaptureError) as failure:
        _capture(DataDependent(), (torch.ones(2),))
    text = str(failure.value)
    assert all(f"{method}: " in text for method in METHODS)
    assert "torch.where" in text


class Halves(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(2, 3) + 1


def test_a_dim_that_cannot_vary_is_an_error_not_a_constant() -> None:
    with pytest.raises(CaptureError, match="could not be captured"):
        _capture(Halves(), (torch.ones(6),), dynamic={"x": {0: DimRange("n", 1, 8)}}, method="export")


def test_stepped_ranges_promise_multiples() -> None:
    pool = torch.nn.AvgPool2d(32)
    captured = _capture(pool, (torch.ones(1, 1, 64, 64),), dynamic={"input": {2: DimRange("height", 32, 256, 32)}})
    assert list(captured.symbols.values()) == ["height_div32"]


@pytest.mark.parametrize("method", ["export", "export-strict"])
def test_capture_failures_print_nothing(method: str, tmp_path: Path) -> None:
    script = tmp_path / "quiet.py"
    script.write_text(
        "import torch\n"
        "from graphforge.call import input_tree\n"
        "from graphforge.frontend.capture import capture\n"
        "from graphforge.spec import DimRange\n"
        "class M(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x if x.sum().item() > 0 else x.view(2, 3)\n"
        "tree = input_tree(M(), (torch.ones(6),), {})\n"
        "try:\n"
        f"    capture(M(), tree, tree.spec().with_dynamic({{'x': {{0: DimRange('n', 1, 8)}}}}), method='{method}')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "CaptureError\n"
    assert done.stderr == ""


class Baked(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 4) * 1.0


def test_a_baked_size_is_not_told_to_become_torch_where() -> None:
    with pytest.raises(CaptureError) as failure:
        _capture(Baked(), (torch.ones(2, 4),), dynamic={"x": {0: DimRange("batch", 1, 8)}})
    assert "torch.where" not in str(failure.value)
    assert "takes a size that was promised to vary for a fixed number" in failure.value.notes[-1]
    assert "fx: the same as export" in failure.value.notes
    assert "TORCH_LOGS" not in str(failure.value)
    assert failure.value.told(lambda name, value: f"<{name}>")[-1].endswith("leave that dim out of <dynamic_shapes>")


class RoundByRound(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x.new_zeros(x.shape[1])
        for step in range(x.shape[0]):
            total = total * 0.5 + x[step]
        return total


class ReadsASize(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones(int(x.shape[0])).view(2, 2).reshape(-1, 1)


class RowByRow(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x.new_zeros(())
        for row in x:
            total = total + row[row > 0.5].sum()
        return total


class Decides(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 3:
            return x * 2
        return x


@pytest.mark.parametrize(
    ("model", "doing", "line", "advice"),
    [
        (
            RoundByRound(),
            "loops in Python over dim n, which was promised to vary",
            "for step in range(x.shape[0]):",
            "while_loop or scan",
        ),
        (RowByRow(), "loops in Python over a size, which was promised to vary", "for row in x:", "tensor operators"),
        (ReadsASize(), "takes dim n, which was promised to vary, for the number 4", ".view(2, 2)", "x.shape[0]"),
        (Decides(), "decides in Python what depends on data", "if x.sum() > 3:", "`assert x.sum() > 3`"),
    ],
    ids=["loop", "rows", "size", "decision"],
)
def test_a_refusal_says_what_the_model_does_and_where(
    model: torch.nn.Module, doing: str, line: str, advice: str
) -> None:
    with pytest.raises(CaptureError) as failure:
        _capture(model, (torch.ones(4, 3),), dynamic={"x": {0: DimRange("n", 2, 8)}})
    assert failure.value.message == f"the model could not be captured: it {doing}"
    first, *others = failure.value.notes
    assert first.startswith("at ")
    assert "test_capture.py:" in first
    assert "in forward" in first
    assert line in first
    assert advice in others[-1]
    assert not any(line in note for note in others[:-1])  # told once
    assert "Traceback" in failure.value.long_text


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (
            "TypeError: linspace(): argument 'steps' must be int, not SymInt",
            "the function that calls linspace",
        ),
        ("RuntimeError: Cannot access data pointer of Tensor that doesn't have storage", "torch.library.custom_op"),
        ("RuntimeError: There was no fake impl registered for <CustomOpDef(mine::foo)>. This is", "@foo.register_fake"),
        ("UnsupportedOperatorException: mine.foo.default", "@foo.register_fake"),
        ("UnsupportedOperatorException: aten._something.default", "compute it by other operators"),
        ("UserError: Constraints violated (x_0)!", "for a fixed number"),
        ("Unsupported: Data-dependent branching", "torch.where"),
        ("TypeError: something else", ""),
    ],
)
def test_advice_goes_by_the_cause(reason: str, advice: str) -> None:
    given = advice_for({"fx": "TraceError: variables cannot be used as inputs to control flow", "export": reason})
    assert advice in given if advice else given.startswith("data-dependent control flow")
    assert advice_for({"export": "TypeError: something else"}) == ""


class _TakesMore(torch.nn.Module):
    def forward(self, x: torch.Tensor, *further: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        return sum(further, x * 2)


def test_a_forward_that_may_take_more_is_captured_with_what_it_is_given() -> None:
    dynamic = {"x": {0: (1, 4)}}
    lower_and_compare(_TakesMore(), (torch.randn(2, 3),), dynamic=dynamic, other_inputs=[(torch.randn(4, 3),)])
    lower_and_compare(_TakesMore(), (torch.randn(2, 3), torch.randn(1, 3)), dynamic=dynamic)


class TooLarge(torch.nn.Module):
    def __init__(self, asked: list[str]) -> None:
        super().__init__()
        self.ask: Callable[[], None] = lambda: asked.append("asked")  # a list of its own would be put back

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.ask()
        raise MemoryError("64 GB for a table")


@pytest.mark.parametrize("method", ["auto", "export", "trace"])
def test_want_of_memory_is_not_a_reason_to_try_another_method(method: str) -> None:
    asked: list[str] = []
    with pytest.raises(MemoryError, match="64 GB"):
        _capture(TooLarge(asked), (torch.ones(2),), method=method)
    assert asked == ["asked"]


def test_a_call_that_failed_and_was_caught_is_no_part_of_the_program() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        try:
            rows = x.view(x.shape[0], 3, 7)
        except RuntimeError:  # 20 columns do not make 3 rows of 7
            rows = x * 2
        return rows + 1

    outcome = lower_and_compare(forward, (torch.rand(2, 20),), dynamic={"x": {0: (1, 4)}})
    assert outcome.nodes == 2


def test_vmap_is_resolved_by_torch() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        gram: torch.Tensor = torch.vmap(lambda one: one @ one.T)(x)
        return gram

    others = [(torch.rand(4, 3, 2),), (torch.rand(1, 6, 2),)]
    dynamic = {"x": {0: (1, 4), 1: (2, 6)}}
    lower_and_compare(forward, (torch.rand(2, 5, 2),), dynamic=dynamic, other_inputs=others)
