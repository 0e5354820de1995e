"""Every pass has a file of tests and an example: a graph before and after it, which `graphforge passes NAME` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from graphforge.errors import GraphForgeError
from graphforge.ir import Model, from_text, nodes_of, verify_graph
from graphforge.ops.custom_op import TensorFact, custom_op, withdraw
from graphforge.transform import Pass, Pipeline, default_registry
from graphforge.transform.example import Example, example_file, example_of, example_text
from graphforge.verify import NumericCheck

ROOT = Path(__file__).parents[2]
FILES = sorted(path.stem for path in (ROOT / "passes").glob("*.py") if not path.stem.startswith("_"))
# Their graphs have operators or outputs that ONNX Runtime does not have on one of the two sides.
WITHOUT_NUMBERS = {
    "bound_dynamic_shapes", "lower_nms", "lower_semantic_ops", "raise_nms", "register_custom_op", "replace_batched_nms"
}  # fmt: skip


def _same(inputs: Sequence[TensorFact | None], attributes: Mapping[str, Any]) -> list[TensorFact]:
    return [one for one in inputs if one is not None]


@pytest.fixture(autouse=True)
def _declared() -> Iterator[None]:
    """The operator that the example of register-custom-op is about."""
    twice = custom_op("acme::Twice", inputs=["x"], outputs=["y"], shapes=_same)
    yield
    withdraw(twice)


def example(stem: str) -> tuple[type[Pass], Example]:
    pass_class = default_registry().get(stem.replace("_", "-"))
    found = example_of(pass_class)
    assert found is not None, f"{example_file(pass_class)} is missing; scripts/pass_examples.py writes its second half"
    return pass_class, found


def is_plain(model: Model) -> bool:
    return all(node.domain == "" for node in nodes_of(model.graph))


@pytest.mark.parametrize("stem", FILES)
def test_the_example_of_a_pass_is_what_the_pass_does(stem: str) -> None:
    pass_class, given = example(stem)
    if stem == "onnxsim":
        pytest.importorskip("onnxsim")
    pipeline = Pipeline.parse(given.pipeline)
    assert isinstance(pipeline.passes[0], pass_class)
    assert [type(item).name for item in pipeline.passes[1:]] in ([], ["eliminate-dead-code"])
    model = given.model()
    verify_graph(model)
    numbers = [] if stem in WITHOUT_NUMBERS else [NumericCheck(sizes={"N": 3})]
    records = pipeline.run(model, numbers)
    assert records[0].changes, "the pass must do something in its example"
    assert example_text(model).strip() == given.after, "if this is meant: scripts/pass_examples.py " + stem
    assert bool(numbers) == (is_plain(given.model()) and is_plain(model) and len(model.graph.outputs) == 1)


@pytest.mark.parametrize("stem", FILES)
def test_a_pass_has_a_file_of_tests(stem: str) -> None:
    assert (Path(__file__).parent / f"test_{stem}.py").is_file()


def test_there_are_no_examples_of_passes_that_are_gone() -> None:
    assert sorted(path.stem for path in (ROOT / "passes" / "examples").iterdir()) == FILES


def test_the_text_reads_back_as_the_same_graph() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
g (float[N,2] x) => (float[N,2] y)
   <float[2] w = {1.5,2}, float one = {1}>
{
   a = Elu <alpha = 0.25> (x)
   b = Elu <alpha: float = 2> (a)
   c = Transpose <perm = [1, 0]> (b)
   d = Transpose <perm = [1, 0]> (c)
   e = Mul (d, w)
   f = LeakyRelu <alpha = 1e-05> (e)
   y = Relu (f)
}
"""
    assert example_text(from_text(text)) == text


def test_a_weight_is_named_where_it_has_many_elements() -> None:
    text = "# weight w float[5,4]\ng (float[3,5] x) => (float[3,4] y)\n   <float[5,4] w>\n{\n   y = MatMul (x, w)\n}\n"
    given = Example("fuse-matmul-add", text, "")
    assert example_text(given.model()) == text


def test_a_file_of_another_form_is_refused() -> None:
    with pytest.raises(GraphForgeError, match="a pipeline, an empty line, a graph, a line `==>` and a graph"):
        Example.parse("fold-constants\n\ng (float[2] x) => (float[2] y) { y = Relu (x) }\n")
