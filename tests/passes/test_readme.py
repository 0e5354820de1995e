"""passes/README.md: its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphforge.passes import default_pipeline
from graphforge.transform import Pipeline, load_pass_from_file
from tests.passes.harness import parse, run

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "passes" / "README.md").read_text(encoding="utf-8"), re.DOTALL
)


def test_the_ten_lines_are_a_pass(tmp_path: Path) -> None:
    file = tmp_path / "my_passes.py"
    file.write_text(BLOCKS[0], encoding="utf-8")
    found = load_pass_from_file(f"{file}:UseRelu")
    outcome = run(found(), "g (float[3] x) => (float[3] y) <float zero = {0}> { a = Clip(x, zero) y = Neg(a) }")
    assert outcome.ops == ["Relu", "Neg"]


@pytest.mark.parametrize(("dtype", "fires"), [("float", True), ("double", False)])
def test_the_check_declines_with_its_reason(tmp_path: Path, dtype: str, fires: bool) -> None:
    check = BLOCKS[1]
    rule, rest = BLOCKS[0].split("    def rewrite")
    file = tmp_path / f"checked_{dtype}.py"
    file.write_text("from graphforge.ir import DataType\n" + rule + check + "    def rewrite" + rest, encoding="utf-8")
    outcome = run(
        load_pass_from_file(str(file) + ":UseRelu")(),
        f"g ({dtype}[3] x) => ({dtype}[3] y) <{dtype} zero = {{0}}> {{ a = Clip(x, zero) y = Neg(a) }}",
    )
    assert ("Relu" in outcome.ops) is fires
    assert outcome.reasons == ([] if fires else ["only for float, this is DOUBLE"])


def test_the_walk_drops_dropout(tmp_path: Path) -> None:
    head, _, _ = BLOCKS[0].partition("    def run")
    file = tmp_path / "walk.py"
    file.write_text(head + BLOCKS[2], encoding="utf-8")
    outcome = run(
        load_pass_from_file(f"{file}:UseRelu")(), "g (float[3] x) => (float[3] y) { a = Dropout(x) y = Neg(a) }"
    )
    assert outcome.ops == ["Neg"]


def test_the_passes_are_one_package() -> None:
    with pytest.raises(ImportError, match=r"import them as graphforge\.passes"):
        __import__("passes")


def test_the_default_pipeline_prints_and_parses() -> None:
    pipeline = Pipeline(default_pipeline())
    assert Pipeline.parse(pipeline.spec()).passes == pipeline.passes
    assert Pipeline(default_pipeline()).run(parse("g (float[2] x) => (float[2] y) { y = Relu(x) }"))
