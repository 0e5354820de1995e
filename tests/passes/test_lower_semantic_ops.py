"""lower-semantic-ops: which nodes it replaces; the numbers of each operator are tested in tests/ops."""

from __future__ import annotations

import pytest

from graphforge.errors import GraphForgeError, UsageError
from graphforge.ir import Model, from_text, infer_node, nodes_of
from graphforge.passes.lower_semantic_ops import LowerSemanticOps
from graphforge.transform import Pipeline, VerifyGraph

HEADER = '<ir_version: 10, opset_import: ["" : 26, "graphforge" : 1]>\n'
POOLING = """graphforge.MultiScaleRoiAlign<spatial_scales = [%s], output_height = 2, output_width = 3,
  sampling_ratio = 2, aligned = %d>"""


def lowered(text: str, **options: bool | str) -> list[str]:
    model: Model = from_text(HEADER + text)
    for node in nodes_of(model.graph):
        infer_node(node, 26)
    names = [value.name for value in model.graph.outputs]
    Pipeline([LowerSemanticOps(**options)]).run(model, [VerifyGraph()])  # type: ignore[arg-type]
    assert Pipeline([LowerSemanticOps(**options)]).run(model)[0].changes == 0  # type: ignore[arg-type]
    assert [value.name for value in model.graph.outputs] == names
    return [node.op_type for node in nodes_of(model.graph)]


def test_one_level_becomes_one_roi_align() -> None:
    text = "g (float[N,5] r, int64[N] l, float[1,2,8,8] m) => (float[N,2,2,3] y) { y = %s(r, l, m) }"
    assert lowered(text % (POOLING % ("0.5", 1))).count("RoiAlign") == 1


def test_each_level_has_a_roi_align() -> None:
    text = """g (float[N,5] r, int64[N] l, float[1,2,8,8] m, float[1,2,4,4] n) => (float[N,2,2,3] y) {
       y = %s(r, l, m, n)
    }"""
    operators = lowered(text % (POOLING % ("0.5, 0.25", 0)))
    assert operators.count("RoiAlign") == 2
    assert "NonZero" in operators
    fixed = lowered(text % (POOLING % ("0.5, 0.25", 0)), fixed_shapes=True)
    assert fixed.count("RoiAlign") == 2
    assert "NonZero" not in fixed


def test_the_portable_form_replaces_onnx_s_own_operator_too() -> None:
    text = """g (float[1,2,8,8] x, float[N,4] b, int64[N] i) => (float[N,2,2,2] y) {
       y = RoiAlign<output_height = 2, output_width = 2, sampling_ratio = 1>(x, b, i)
    }"""
    assert lowered(text) == ["RoiAlign"]
    assert "RoiAlign" not in lowered(text, roi_align="portable")
    with pytest.raises(GraphForgeError, match="RoiAlign with mode 'max' has no portable form"):
        lowered(text.replace("sampling_ratio", 'mode = "max", sampling_ratio'), roi_align="portable")


def test_suppression_and_plain_operators_are_left_alone() -> None:
    text = """g (float[N,4] b, float[N] s) => (int64[K] k) {
       a = Relu(s) k = graphforge.BatchedNMS<iou_threshold = 0.5>(b, a)
    }"""
    assert lowered(text) == ["Relu", "BatchedNMS"]


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError, match="no roi_align 'fast'"):
        lowered("g (float[2] x) => (float[2] y) { y = Relu(x) }", roi_align="fast")
