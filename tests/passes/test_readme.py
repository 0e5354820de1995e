"""passes/README.md: its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphforge.passes import default_pipeline
from graphforge.transform import Pass, Pipeline, load_pass_from_file
from tests.passes.harness import parse, run

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "passes" / "README.md").read_text(encoding="utf-8"), re.DOTALL
)


def pass_of_block(number: int, folder: Path) -> type[Pass]:
    """The pass of a block, saved to a file as it is printed."""
    file = folder / f"block_{number}.py"
    file.write_text(BLOCKS[number], encoding="utf-8")
    return load_pass_from_file(str(file))


def test_every_block_is_a_file_that_loads(tmp_path: Path) -> None:
    names = [pass_of_block(number, tmp_path).name for number in range(len(BLOCKS))]
    assert names == ["use-relu", "use-relu-for-floats", "drop-dropout"]


def test_the_ten_lines_are_a_pass(tmp_path: Path) -> None:
    found = pass_of_block(0, tmp_path)
    outcome = run(found(), "g (float[3] x) => (float[3] y) <float zero = {0}> { a = Clip(x, zero) y = Neg(a) }")
    assert outcome.ops == ["Relu", "Neg"]


@pytest.mark.parametrize(("dtype", "fires"), [("float", True), ("double", False)])
def test_the_check_declines_with_its_reason(tmp_path: Path, dtype: str, fires: bool) -> None:
    outcome = run(
        pass_of_block(1, tmp_path)(),
        f"g ({dtype}[3] x) => ({dtype}[3] y) <{dtype} zero = {{0}}> {{ a = Clip(x, zero) y = Neg(a) }}",
    )
    assert ("Relu" in outcome.ops) is fires
    assert outcome.reasons == ([] if fires else ["only for float, this is DOUBLE"])


def test_the_walk_drops_dropout(tmp_path: Path) -> None:
    outcome = run(pass_of_block(2, tmp_path)(), "g (float[3] x) => (float[3] y) { a = Dropout(x) y = Neg(a) }")
    assert outcome.ops == ["Neg"]


def test_the_passes_are_one_package() -> None:
    with pytest.raises(ImportError, match=r"import them as graphforge\.passes"):
        __import__("passes")


def test_the_default_pipeline_prints_and_parses() -> None:
    pipeline = Pipeline(default_pipeline())
    assert Pipeline.parse(pipeline.spec()).passes == pipeline.passes
    assert Pipeline(default_pipeline()).run(parse("g (float[2] x) => (float[2] y) { y = Relu(x) }"))
