"""loop-over-images: the graph of one image becomes the body of a Loop over a batch."""

from __future__ import annotations

import numpy as np
import pytest

from graphforge.errors import GraphForgeError
from graphforge.ir import Model
from graphforge.ir.images import IMAGE_BY_IMAGE, Images, OfImages
from graphforge.passes.bound_dynamic_shapes import PADDED_OUTPUTS
from graphforge.passes.loop_over_images import LoopOverImages
from graphforge.runners.padding import unpadded
from graphforge.transform import Pipeline, VerifyGraph
from graphforge.verify.numeric_check import run_as_written
from tests.passes.harness import parse, run

_TEXT = """g (float[1,3] x, float s) => (float[1,3] output_0_a, float b_0, float[1,3] whole) {
    output_0_a = Mul(x, s)
    b_0 = ReduceMax<keepdims = 0>(output_0_a)
    whole = Neg(output_0_a)
}"""
_RESULTS = {
    "output_0_a": OfImages("a", "output_*_a"),
    "b_0": OfImages("b", "b_*"),
    "whole": OfImages("whole", ""),
}
_FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "s": np.array(2, np.float32)}


def _of_an_image(text: str = _TEXT) -> Model:
    model = parse(text)
    model.meta[IMAGE_BY_IMAGE] = Images("n", range(1, 5), ("x",), _RESULTS)
    return model


def test_the_results_of_all_images_stand_in_one_tensor_each() -> None:
    model = _of_an_image()
    before = run_as_written(model, _FEEDS)  # image by image
    assert list(before) == ["output_0_a", "b_0", "output_1_a", "b_1", "whole"]
    (record,) = Pipeline([LoopOverImages()]).run(model, [VerifyGraph()])
    assert record.changes
    assert [(str(v.name), [str(d) for d in v.shape or ()]) for v in model.graph.outputs] == [
        ("a", ["n", "1", "3"]),
        ("b", ["n"]),
        ("whole", ["n", "3"]),
    ]
    after = run_as_written(model, _FEEDS)
    assert list(after) == list(before)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_without_images_there_is_no_loop() -> None:
    outcome = run(LoopOverImages(), _TEXT)
    assert not outcome.record.changes
    assert "Loop" not in outcome.ops


def test_a_graph_that_takes_several_images_already_is_left_alone() -> None:
    assert not run(LoopOverImages(inputs="x"), "g (float[N,3] x) => (float[N,3] y) { y = Neg(x) }").record.changes


_SELECTED = """g (float[1,3] x) => (float[M] output_0_a, float[M,2] pairs, float[1,3] whole)
    <int64[1] f = {3}, float s = {0}, int64[2] two = {1,2}, int64[2] column = {3,1}> {
    v = Reshape(x, f)
    m = Greater(v, s)
    output_0_a = Compress(v, m)
    c = Reshape(x, column)
    rows = Compress<axis = 0>(c, m)
    pairs = Tile(rows, two)
    whole = Neg(x)
}"""


def test_results_with_a_size_of_their_own_are_joined() -> None:
    model = _of_an_image(_SELECTED)
    results = {**_RESULTS, "pairs": OfImages("pairs", "pairs_*")}
    model.meta[IMAGE_BY_IMAGE] = Images("n", range(1, 5), ("x",), results)
    feeds = {"x": np.array([[1, -2, 3], [-1, -2, -3], [4, 5, 6]], np.float32)}
    before = run_as_written(model, feeds)
    Pipeline([LoopOverImages()]).run(model, [VerifyGraph()])
    assert [value.name for value in model.graph.outputs] == ["a", "pairs", "whole", "num_dets"]
    after = run_as_written(model, feeds)
    assert set(after) == set(before)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    recipe = model.meta[PADDED_OUTPUTS]
    joined = {"a": np.array([1, 3, 4, 5, 6], np.float32), "num_dets": np.array([2, 0, 3])}
    found = unpadded(joined, [one for one in recipe if one["output"] == "a"])
    assert [found[f"output_{image}_a"].tolist() for image in range(3)] == [[1, 3], [], [4, 5, 6]]
    with pytest.raises(GraphForgeError, match="says 4 rows of all images"):
        unpadded({**joined, "num_dets": np.array([2, 0, 2])}, [one for one in recipe if one["output"] == "a"])


def test_a_result_with_two_sizes_of_its_own_is_refused() -> None:
    text = """g (float[1,3] x) => (int64[M,K] output_0_a) <int64[2] f = {2,1}> {
        found = NonZero(x)
        tall = Transpose<perm = [1, 0]>(found)
        output_0_a = MatMul(tall, found)
    }"""
    model = _of_an_image(text.replace(" <int64[2] f = {2,1}>", ""))
    with pytest.raises(GraphForgeError, match="those of 'a' have a size of their own"):
        Pipeline([LoopOverImages()]).run(model)


def test_two_results_of_one_name_are_refused() -> None:
    model = _of_an_image()
    results = {**_RESULTS, "whole": OfImages("a", "")}
    model.meta[IMAGE_BY_IMAGE] = Images("n", range(1, 5), ("x",), results)
    with pytest.raises(GraphForgeError, match="called 'a' already"):
        Pipeline([LoopOverImages()]).run(model)


def test_padding_that_lacks_its_axis_is_told() -> None:
    recipe = [{"restores": "output_*_a", "output": "a", "image": None, "count": "num_dets", "axis": 1}]
    model = {"a": np.zeros((2, 3), np.float32), "num_dets": np.array([1, 3])}
    with pytest.raises(GraphForgeError, match="without the padded axis 1"):
        unpadded(model, recipe)
    assert PADDED_OUTPUTS not in _of_an_image().meta
