"""What a file states of shapes that its nodes do not tell: taken at its word, until a run contradicts it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.runners.declared import DeclaredRunner

# Six places of two rows: random inputs hold no zeros.
PLACES = helper.make_node("NonZero", ["x"], ["places"])


def _file(folder: Path, nodes: list[onnx.NodeProto], output: str, **stated: list[int | str | None]) -> Path:
    """A file with an input x and these nodes, which states shapes of int64 values by name."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, stated.pop("x", [2, 3]))
    infos = {name: helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in stated.items()}
    result = infos.pop(output)
    graph = helper.make_graph(nodes, "g", [x], [result], value_info=list(infos.values()))
    path = folder / "stated.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def _read_again(bundle: graphforge.Bundle) -> bool:
    return any("it was read again without them" in note for note in bundle.manifest["notes"])


def test_a_size_that_a_run_bears_out_stays(tmp_path: Path) -> None:
    bundle = graphforge.compile(_file(tmp_path, [PLACES], "places", places=[2, 6]), output=tmp_path / "b")
    assert bundle.manifest["outputs"][0]["shape"] == [2, 6]
    assert not _read_again(bundle)


@pytest.mark.parametrize(("x", "count"), [([2, 3], 5), (["N", 3], "N")])
def test_a_size_that_a_run_contradicts_is_left_out(tmp_path: Path, x: list[int | str | None], count: int | str) -> None:
    path = _file(tmp_path, [PLACES], "places", x=x, places=[2, count])
    bundle = graphforge.compile(path, "x:2x3", dynamic_shapes="x:0=1..4" if "N" in x else None, output=tmp_path / "b")
    assert bundle.manifest["outputs"][0]["shape"] == [2, None]
    assert _read_again(bundle)
    declared = onnx.load(tmp_path / "b" / "model.onnx").graph.output[0].type.tensor_type.shape.dim
    assert declared[0].dim_value == 2
    assert not declared[1].HasField("dim_value")


def test_what_was_computed_from_a_wrong_statement_is_computed_from_data(tmp_path: Path) -> None:
    path = _file(tmp_path, [PLACES, helper.make_node("Size", ["places"], ["y"])], "y", places=[2, 5], y=[])
    assert _read_again(graphforge.compile(path, output=tmp_path / "b"))
    session = onnxruntime.InferenceSession(tmp_path / "b" / "model.onnx")
    (y,) = session.run(None, {"x": np.array([[0, 1, 0], [2, 0, 3]], np.float32)})
    assert y == 6


class _Fixed:
    """A runner that gives what it was made with."""

    name = "fixed"

    def __init__(self, **outputs: np.ndarray) -> None:
        self.outputs = outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self.outputs

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("shape", "result", "words"),
    [
        (["n", 3], (4, 3), ""),
        (["n", 3], (5, 3), "output 'y' is declared as nx3, and a run gives 5x3"),
        (["m", 3], (5, 3), ""),
        (["n", 3], (4, 3, 1), "a run gives 4x3x1"),
        ([], (1,), "declared as a scalar, and a run gives 1"),
        (["n", 4], (4, 3), "declared as nx4"),
    ],
)
def test_results_are_held_against_what_is_declared(shape: list[int | str], result: tuple[int, ...], words: str) -> None:
    x, y = (ir.Value(name=n, shape=ir.Shape(s)) for n, s in (("x", ("n", 2)), ("y", tuple(shape))))
    runner = DeclaredRunner(_Fixed(y=np.zeros(result)), ir.Graph([x], [y], nodes=[], name="g"))
    feeds = {"x": np.zeros((4, 2), np.float32)}
    if not words:
        assert runner.run(feeds)["y"].shape == result
        return
    with pytest.raises(GraphForgeError, match="fixed: ") as caught:
        runner.run(feeds)
    assert words in caught.value.message
