"""lower-nms: which nodes it replaces, with what, and what it says when it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphforge.errors import GraphForgeError, UsageError
from graphforge.ir import Level, Model, from_text, infer_node, nodes_of, verify_graph
from graphforge.passes.lower_nms import LowerNms
from graphforge.spec import DimRange, ShapeSpec, TensorSpec
from graphforge.targets import options_for
from graphforge.targets.tensorrt import TensorRTTarget
from graphforge.transform import Pipeline, VerifyGraph

HEADER = '<ir_version: 10, opset_import: ["" : 26, "graphforge" : 1]>\n'
BATCHED = "k = graphforge.BatchedNMS<iou_threshold = 0.5>(b, s)"
TWO = """g (float[N,4] b, float[N] s, float[2,9,4] c, float[2,9] t) => (int64[K] k, int64[2] n) {
    k = graphforge.BatchedNMS<iou_threshold = 0.5>(b, s)
    d, l, i, n = graphforge.MulticlassNMS<iou_threshold = 0.5, keep_top_k = 4>(c, t) }"""


def model_of(text: str) -> Model:
    from graphforge.ops import batched_nms, multiclass_nms

    assert batched_nms, multiclass_nms
    model = from_text(HEADER + text)
    for node in nodes_of(model.graph):
        infer_node(node, 26)
    return model


def lower(text: str, pass_: LowerNms) -> Model:
    model = model_of(text)
    Pipeline([pass_]).run(model, [VerifyGraph()])
    assert Pipeline([pass_]).run(model, [VerifyGraph()])[0].changes == 0
    return model


@pytest.mark.parametrize("pass_", [LowerNms(), LowerNms(form="portable"), LowerNms("portable", 3)], ids=LowerNms.spec)
def test_nothing_of_our_domain_is_left(pass_: LowerNms) -> None:
    model = lower(TWO, pass_)
    verify_graph(model, Level.LEGAL)
    assert "graphforge" not in model.graph.opset_imports
    native = [node.op_type for node in nodes_of(model.graph)].count("NonMaxSuppression")
    assert native == (2 if pass_.form == "native" else 0)


def test_a_depth_adds_one_output_for_all() -> None:
    model = lower(TWO, LowerNms("portable", 3))
    assert [value.name for value in model.graph.outputs] == ["k", "n", "nms_converged"]
    assert "Loop" not in [node.op_type for node in nodes_of(model.graph)]
    model = lower(TWO, LowerNms("portable"))
    assert [value.name for value in model.graph.outputs] == ["k", "n"]
    assert [node.op_type for node in model.graph].count("Loop") == 2


def test_names_are_unique_across_two_loops_and_say_where_they_belong() -> None:
    model = lower(TWO, LowerNms("portable"))
    names = [value.name for node in nodes_of(model.graph) for value in node.outputs]
    assert len(names) == len(set(names))


IN_A_BRANCH = f"""g (bool c, float[N,4] b, float[N] s) => (int64[K] y) <int64[0] none = {{}}> {{
    y = If(c) <then_branch = t () => (int64[K] k) {{ {BATCHED} }},
               else_branch = e () => (int64[K] z) {{ z = Identity(none) }}> }}"""


def test_in_a_branch() -> None:
    model = lower(IN_A_BRANCH, LowerNms())
    assert "NonMaxSuppression" in [node.op_type for node in nodes_of(model.graph)]
    with pytest.raises(GraphForgeError, match="stands in the body of a control-flow node"):
        Pipeline([LowerNms("portable", 2)]).run(model_of(IN_A_BRANCH))


def test_attributes_that_no_nms_has_a_meaning_for() -> None:
    model = model_of(f"g (float[N,4] b, float[N] s) => (int64[K] k) {{ {BATCHED.replace('0.5', '-0.5')} }}")
    with pytest.raises(GraphForgeError) as caught:
        Pipeline([LowerNms()]).run(model)
    assert "must be at least 0, got -0.5" in str(caught.value)
    assert "node 'k'" in str(caught.value)


def test_fixed_shapes_need_a_known_number_of_candidates() -> None:
    text = "g (float[1,N,4] b, float[1,N] s) => (int64[1] n) {{ d, l, i, n = graphforge.MulticlassNMS<{}>(b, s) }}"
    with pytest.raises(GraphForgeError, match="the number of candidates of a MulticlassNMS is not known"):
        Pipeline([LowerNms("portable", fixed_shapes=True)]).run(model_of(text.format("iou_threshold = 0.5")))
    text = (
        "g (float[1,900,4] b, float[1,900,90] s) => (int64[1] n) {{ d, l, i, n = graphforge.MulticlassNMS<{}>(b, s) }}"
    )
    with pytest.raises(GraphForgeError, match="has 81000 candidates, too many"):
        Pipeline([LowerNms("portable", fixed_shapes=True)]).run(model_of(text.format("iou_threshold = 0.5")))
    model = lower(text.format("iou_threshold = 0.5, pre_top_k = 900"), LowerNms("portable", fixed_shapes=True))
    assert [node.op_type for node in nodes_of(model.graph)].count("Loop") == 1


@pytest.mark.parametrize(
    "text",
    ["lower-nms{form=fast}", "lower-nms{depth=3}", "lower-nms{form=portable,depth=-1}", "lower-nms{fixed_shapes=true}"],
)
def test_options_that_are_wrong(text: str) -> None:
    with pytest.raises(UsageError):
        Pipeline.parse(text).run(model_of("g (float[2] x) => (float[2] y) { y = Relu(x) }"))


@pytest.mark.parametrize("depth", [0, 6])
def test_tensorrt_for_rtx_builds_the_padded_form(tmp_path: Path, depth: int) -> None:
    """It has no NonMaxSuppression at all, and no operator whose size depends on data."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (pip install tensorrt-rtx-cu13)")
    model = from_text(
        HEADER.replace("26", "25")
        + """g (float[B,300,4] b, float[B,300,3] s) => (float[B,20,5] d, int64[B,20] l, int64[B,20] i, int64[B] n) {
        d, l, i, n = graphforge.MulticlassNMS<iou_threshold = 0.5, score_threshold = 0.1, pre_top_k = 700,
            keep_top_k = 20, offset_limit = 400, max_per_class = 9>(b, s) }"""
    )
    for node in nodes_of(model.graph):
        infer_node(node, 25)
    Pipeline([LowerNms("portable", depth, fixed_shapes=True)]).run(model, [VerifyGraph()])
    shapes = ShapeSpec(
        tuple(
            TensorSpec(name, (2, *dims), "float32", {0: DimRange("B", 1, 4)})
            for name, dims in (("b", (300, 4)), ("s", (300, 3)))
        )
    )
    target = TensorRTTarget()
    options = options_for(target, own={"flavour": "tensorrt_rtx", "compute_capabilities": "8.9"})
    result = target.emit(model, tmp_path, options, shapes)
    assert result.facts["plan"]["bytes"] > 10_000
