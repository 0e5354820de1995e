"""One Python process, as in a notebook or a server: models with declarations of their own, in turn and at once.

Each model has a file of the same name with a function of the same name, which only its own substitute equals; a pass of
the same name; and an operator of its own for the same torch operator.  Whatever leaked from one to another would fail
its verification or show in its operators.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphforge
from graphforge.errors import CaptureError, GraphForgeError, LoweringError
from graphforge.frontend.substitution import declared_substitutions
from graphforge.ir import schema_of
from graphforge.ops.custom_op import declared_ops
from graphforge.transform import load_pass_from_file

NET = """
import torch

def pick(x):
    kept = [row for row in x if float(row.sum()) > LIMIT]
    return torch.stack(kept) if kept else x[:0]

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 4)
        self.choose = {"pick": pick}

    def forward(self, x):
        chosen = self.choose["pick"](torch.tanh(self.linear(x)))
        return torch.ops.gf_one_process.twist(chosen, TURNS) + pick(x).sum()
"""
PASS = """
from dataclasses import dataclass
from typing import ClassVar
from graphforge.transform import Pass, Rule

class Write(Rule):
    def pattern(self, op, x):
        return op.Tanh(x)
    def rewrite(self, op, m):
        return REPLACEMENT

@dataclass(frozen=True)
class Mine(Pass):
    name: ClassVar[str] = "mine"
    def run(self, graph, rewriter):
        rewriter.apply(Write(), graph)
"""
# the operator that it shows by -> a way to write Tanh
REPLACEMENTS = {
    "Sigmoid": "op.Sub(op.Mul(op.Sigmoid(op.Mul(m.x, 2.0)), 2.0), 1.0)",
    "Sinh": "op.Div(op.Sinh(m.x), op.Cosh(m.x))",
    "Exp": "op.Sub(1.0, op.Div(2.0, op.Add(op.Exp(op.Mul(m.x, 2.0)), 1.0)))",
    "Tanh": "None",
}


@torch.library.custom_op("gf_one_process::twist", mutates_args=())
def twist(x: Tensor, turns: int) -> Tensor:
    return x.roll(turns, dims=-1)


@twist.register_fake
def _(x: Tensor, turns: int) -> Tensor:
    return torch.empty_like(x)


def same_shape(inputs: Sequence[graphforge.TensorFact | None], attributes: Mapping[str, Any]) -> list[Any]:
    return [inputs[0]]


@dataclass
class Job:
    """A model in a folder of its own, and what is declared for it."""

    folder: Path
    limit: float
    turns: int
    wanted: str  # the operator that its pass writes

    def write(self) -> Job:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "net.py").write_text(f"LIMIT, TURNS = {self.limit}, {self.turns}\n{NET}")
        (self.folder / "mine.py").write_text(PASS.replace("REPLACEMENT", REPLACEMENTS[self.wanted]))
        return self

    @property
    def operator(self) -> str:
        return f"gf_one_process::Twist{self.turns}"

    def substitutes(self) -> list[graphforge.Substitution]:
        return [graphforge.Substitution("net.py:pick", lambda x: x[x.sum(1) > self.limit])]

    def custom_ops(self) -> list[graphforge.CustomOp]:
        return [
            graphforge.custom_op(
                self.operator,
                inputs=["x"],
                outputs=["y"],
                attributes={"turns": int},
                shapes=same_shape,
                function=lambda x, turns: x.roll(turns, dims=-1) if turns == self.turns else x * 0,
                torch_name="gf_one_process::twist",
                declare=False,
            )
        ]

    def compile(self, **options: Any) -> graphforge.Bundle:
        declared: dict[str, Any] = {"substitutes": self.substitutes(), "custom_ops": self.custom_ops(), **options}
        torch.manual_seed(1)
        return graphforge.compile(
            f"{self.folder / 'net.py'}:Net",
            graphforge.ShapeSpec((graphforge.TensorSpec("x", (6, 4)),)),
            passes=[load_pass_from_file(f"{self.folder / 'mine.py'}:Mine")()],
            output=self.folder / f"out_{threading.get_ident()}",
            **declared,
        )

    def see(self, bundle: graphforge.Bundle) -> None:
        """Verified, and made of this job's declarations alone."""
        manifest = bundle.manifest
        assert manifest["verification"]["passed"]
        (substituted,) = manifest["capture"]["substitutions"]
        assert substituted["function"].endswith("net.py:pick")
        assert substituted["calls"] == 2
        assert {name for name in REPLACEMENTS if name in manifest["operators"]} == {self.wanted}
        own = {name for name in manifest["operators"] if name.startswith("gf_one_process::")}
        assert own == {self.operator}
        assert not [note for note in manifest["notes"] if "matched nothing" in note]


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    return [
        Job(tmp_path / "a", 0.5, 1, "Sigmoid").write(),
        Job(tmp_path / "b", 0.0, 2, "Sinh").write(),
        Job(tmp_path / "c", -0.5, 3, "Tanh").write(),
    ]


def nothing_is_left() -> None:
    assert [one.path for one in declared_substitutions() if "pick" in one.path] == []
    assert [op.qualified_name for op in declared_ops() if op.domain == "gf_one_process"] == []
    assert all(schema_of(f"Twist{turns}", "gf_one_process", 26) is None for turns in (1, 2, 3))


def test_three_models_one_after_another_and_an_edited_pass(jobs: list[Job]) -> None:
    for job in jobs:
        job.see(job.compile())
        nothing_is_left()
    jobs[0].wanted = "Exp"
    jobs[0].write().see(jobs[0].compile())
    nothing_is_left()


def test_what_was_declared_for_one_is_not_there_for_the_next(jobs: list[Job]) -> None:
    first, second, _ = jobs
    first.see(first.compile())
    with pytest.raises(CaptureError):
        first.compile(substitutes=[])
    with pytest.raises(LoweringError):
        first.compile(custom_ops=[])
    with pytest.raises(GraphForgeError, match="does not agree"):  # the other's function means something else
        first.compile(substitutes=second.substitutes())
    with pytest.raises(GraphForgeError):
        first.compile(custom_ops=second.custom_ops())
    first.see(first.compile())
    nothing_is_left()


def test_four_at_once_each_in_its_thread(jobs: list[Job], tmp_path: Path) -> None:
    fourth = Job(tmp_path / "d", 0.25, 1, "Exp").write()
    everyone = [*jobs, fourth]
    bundles: dict[int, graphforge.Bundle] = {}
    failures: list[BaseException] = []
    start = threading.Barrier(len(everyone))

    def work(index: int) -> None:
        try:
            start.wait()
            bundles[index] = everyone[index].compile()
        except BaseException as error:
            failures.append(error)

    run_all([lambda index=index: work(index) for index in range(len(everyone))])  # type: ignore[misc]
    assert failures == []
    for index, job in enumerate(everyone):
        job.see(bundles[index])
    nothing_is_left()


def test_declared_for_the_process_serves_one_model_and_lets_the_others_be(jobs: list[Job], tmp_path: Path) -> None:
    first = jobs[0]
    declared = graphforge.substitute(f"{first.folder / 'net.py'}:pick")(lambda x: x[x.sum(1) > first.limit])
    try:
        first.see(first.compile(substitutes=[]))
        plain = graphforge.compile(nn.Linear(2, 2).eval(), torch.ones(1, 2), output=tmp_path / "plain")
        assert plain.manifest["verification"]["passed"]
        assert [note for note in plain.manifest["notes"] if "matched nothing: the model never calls it" in note]
    finally:
        graphforge.withdraw(declared)
    with pytest.raises(CaptureError):
        first.compile(substitutes=[])


def run_all(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_one_file_of_declarations_read_by_eight_threads_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import graphforge\n@graphforge.substitute('net.pick')\ndef pick(x): return x\n")
    found: list[list[str]] = []

    def work() -> None:
        with graphforge.substitutions(file):
            found.append([one.path for one in declared_substitutions() if one.path == "net.pick"])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        run_all([work] * 8)
    finally:
        sys.setswitchinterval(before)
    assert found == [["net.pick"]] * 8
    nothing_is_left()
