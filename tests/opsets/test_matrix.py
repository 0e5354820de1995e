"""Opset by opset: states, rewrites, obstructions and proofs, each against what the legalisation pass really does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphforge.errors import GraphForgeError
from graphforge.ir import HOME_OPSET
from graphforge.onnx_io.importing import import_onnx_proto
from graphforge.opsets.answer import Fit, answer_for_model
from graphforge.opsets.matrix import OpsetMatrix, State, opset_matrix
from graphforge.opsets.prove import prove_opset, prove_opsets, remembering
from graphforge.passes.legalise_opset import LegaliseOpset
from graphforge.runners.arrays import Array
from graphforge.spec import ShapeSpec, TensorSpec
from graphforge.transform import Pipeline

NETS = {
    "relu": "g (float[8] x) => (float[8] y) { y = Relu(x) }",
    "gelu": "g (float[2] x) => (float[2] y) { y = Gelu(x) }",
    "grid": "g (float[1, 2, 4, 4] x, float[1, 3, 3, 2] z) => (float[1, 2, 3, 3] y)"
    ' { y = GridSample<mode = "linear">(x, z) }',
    "roi": "g (float[1, 2, 8, 8] x, float[1, 4] z, int64[1] b) => (float[1, 2, 3, 3] y)"
    " { y = RoiAlign<output_height = 3, output_width = 3>(x, z, b) }",
    "squeeze": "g (float[1, 3] x) => (float[3] y) <int64[1] a = {0}> { y = Squeeze(x, a) }",
}


def model_of(name: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n{NETS[name]}')


def matrix_of(name: str) -> OpsetMatrix:
    return opset_matrix(import_onnx_proto(model_of(name), name))


def states(matrix: OpsetMatrix) -> dict[int, State]:
    return {cell.opset: cell.state for cell in matrix.cells}


def test_every_opset_has_a_cell_from_the_newest_down() -> None:
    assert [cell.opset for cell in matrix_of("relu").cells] == list(range(HOME_OPSET, 10, -1))


@pytest.mark.parametrize("name", NETS)
def test_states_are_what_the_pass_does(name: str) -> None:
    for opset, state in states(matrix_of(name)).items():
        model = import_onnx_proto(model_of(name), name)
        try:
            Pipeline([LegaliseOpset(opset)]).run(model)
            is_possible = True
        except GraphForgeError:
            is_possible = False
        assert is_possible == (state is not State.IMPOSSIBLE), opset


def test_model_of_old_operators_stands_as_it_is() -> None:
    assert set(states(matrix_of("relu")).values()) == {State.AS_IT_STANDS}


@pytest.mark.parametrize(
    ("name", "opset", "how"),
    [
        ("gelu", 19, "written as "),
        ("grid", 19, "mode linear becomes bilinear"),
        ("grid", 15, "written as "),
        ("squeeze", 12, "axes from input to attribute"),
    ],
)
def test_step_that_changes_something_says_how(name: str, opset: int, how: str) -> None:
    found = states(matrix_of(name))
    assert found[opset] is State.LEGALISED
    cell = next(cell for cell in matrix_of(name).cells if cell.opset == opset)
    (rewrite,) = cell.step
    assert rewrite.how.startswith(how)
    assert rewrite.count == 1
    assert rewrite.places[0].node
    above = next(cell for cell in matrix_of(name).cells if cell.opset == opset + 1)
    assert not above.step


def test_lower_cells_keep_the_rewrites_of_the_steps_above() -> None:
    (lowest,) = [cell for cell in matrix_of("grid").cells if cell.opset == 11]
    assert {rewrite.opset for rewrite in lowest.rewrites} >= {19, 15}


def test_node_in_the_way_is_named_with_what_would_do() -> None:
    matrix = matrix_of("roi")
    assert matrix.lowest == 16
    for cell in matrix.cells:
        assert (cell.state is State.IMPOSSIBLE) == (cell.opset < 16)
        if cell.opset >= 16:
            continue
        (item,) = cell.obstructions
        assert (item.operator, item.lowest) == ("RoiAlign", 16)
        assert "half-pixel" in item.reason
        assert "output_half_pixel" in item.cure


def test_operators_are_those_of_the_opset() -> None:
    cells = {cell.opset: cell for cell in matrix_of("grid").cells}
    assert cells[20].operators["GridSample"].version == 20
    assert cells[16].operators["GridSample"].version == 16
    assert "GridSample" not in cells[15].operators
    assert cells[15].operators["GatherElements"].count >= 4


def test_walk_leaves_the_model_alone() -> None:
    model = import_onnx_proto(model_of("grid"), "grid")
    before = [(node.op_type, sorted(node.attributes)) for node in model.graph]
    opset_matrix(model)
    assert [(node.op_type, sorted(node.attributes)) for node in model.graph] == before
    assert model.graph.opset_imports[""] == HOME_OPSET


class Doubling:
    """A reference that counts how often it is really run."""

    name = "doubling"

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.runs = 0

    def run(self, feeds: object) -> dict[str, np.ndarray]:
        self.runs += 1
        assert isinstance(feeds, dict)
        return {"y": np.maximum(feeds["x"], 0) * np.float32(self.factor)}

    def close(self) -> None:
        """Nothing to let go of."""


RELU_SHAPES = ShapeSpec((TensorSpec("x", (8,)),))
EXAMPLE = {"x": np.arange(-4, 4, dtype=np.float32)}


def test_right_results_are_proved_and_the_reference_runs_once_for_each_input() -> None:
    model, reference = import_onnx_proto(model_of("relu"), "relu"), Doubling(1)
    proofs = prove_opsets(model, [26, 17, 11], reference, RELU_SHAPES, EXAMPLE)
    assert [(proof.opset, proof.passed, proof.trials) for proof in proofs] == [(n, True, 2) for n in (26, 17, 11)]
    assert reference.runs == 2


def test_wrong_result_is_not_proved() -> None:
    model = import_onnx_proto(model_of("relu"), "relu")
    proof = prove_opset(model, 20, Doubling(2), RELU_SHAPES, EXAMPLE)
    assert proof.passed is False
    assert "output y" in proof.reason


def test_missing_kernel_is_told_apart_from_a_wrong_result() -> None:
    model = import_onnx_proto(model_of("roi"), "roi")
    shapes = ShapeSpec((TensorSpec("x", (1, 2, 8, 8)), TensorSpec("z", (1, 4)), TensorSpec("b", (1,), "int64")))
    example: dict[str, Array] = {
        "x": np.ones((1, 2, 8, 8), np.float32),
        "z": np.array([[0, 0, 4, 4]], np.float32),
        "b": np.zeros(1, np.int64),
    }

    class Ones(Doubling):
        def run(self, feeds: object) -> dict[str, np.ndarray]:
            return {"y": np.ones((1, 2, 3, 3), np.float32)}

    proof = prove_opset(model, 22, Ones(1), shapes, example)
    assert proof.passed is None
    assert "RoiAlign(22)" in proof.reason


def test_refusal_of_the_reference_is_remembered_too() -> None:
    class Refusing(Doubling):
        def run(self, feeds: object) -> dict[str, np.ndarray]:
            self.runs += 1
            raise GraphForgeError("no")

    reference = Refusing(1)
    remembered = remembering(reference)
    for _ in range(2):
        with pytest.raises(GraphForgeError, match="no"):
            remembered.run(EXAMPLE)
    assert reference.runs == 1


def test_a_form_that_a_runtime_gets_wrong_changes_its_verdict() -> None:
    """Resize knows antialias from opset 18 on, and OpenVINO leaves it out; below, it is a product of matrices."""
    text = (
        "g (float[1, 2, 7, 9] x) => (float[1, 2, 3, 4] y) <int64[4] s = {1, 2, 3, 4}>"
        ' { y = Resize<mode = "linear", antialias = ANTIALIAS>(x, , , s) }'
    )

    def answered(antialias: int) -> Fit:
        proto = onnx.parser.parse_model(
            f'<ir_version: 10, opset_import: ["" : 21]>\n{text.replace("ANTIALIAS", str(antialias))}'
        )
        (fit,) = answer_for_model(import_onnx_proto(proto, "small"), target="openvino").fits
        return fit

    fit = answered(1)
    assert (fit.verdict, fit.opset) == ("ready", 17)
    assert {opset for opset, lacks in fit.lacking.items() if lacks} == set(range(18, HOME_OPSET + 1))
    (lack,) = fit.lacking[20]
    assert (lack.operator, lack.count, lack.reason) == ("Resize", 1, "leaves out antialiasing without a word")
    assert fit.to_dict()["lacking_by_opset"]["20"] == 1
    assert answered(0).opset == HOME_OPSET
