"""replace-batched-nms: masks become thresholds, the suppressions of several images one; and when they stay."""

from __future__ import annotations

import pytest

from graphforge.ir import from_text, infer_node, nodes_of
from graphforge.ops import multiclass_nms
from graphforge.passes.replace_batched_nms import ReplaceBatchedNMS
from graphforge.transform import Pipeline, VerifyGraph
from tests.passes.harness import Outcome

HEADER = '<ir_version: 10, opset_import: ["" : 26, "graphforge" : 1]>\n'
NMS = "graphforge.MulticlassNMS<iou_threshold = 0.5, keep_top_k = 4>"


def run(text: str, *, merge_images: bool = True) -> Outcome:
    assert multiclass_nms.MULTICLASS_NMS.domain == "graphforge"
    model = from_text(HEADER + text)
    for node in nodes_of(model.graph):
        infer_node(node, 26)
    passes = Pipeline([ReplaceBatchedNMS(merge_images=merge_images)])
    (record,) = passes.run(model, [VerifyGraph()])
    assert not passes.run(model)[0].changes
    return Outcome(model, record)


def masked(mask: str) -> Outcome:
    return run(
        f"""g (float[1,9,4] b, float[1,9] s, float[1,9] other, bool[1,9] given) => (float[1,4,4] y)
        <float least = {{0.25}}, float odd = {{0.1}}, float[9] many = {{1,2,3,4,5,6,7,8,9}}> {{
           {mask}
           y, t, i, n = {NMS}(b, s, , m)
        }}"""
    )


@pytest.mark.parametrize("threshold", ["least", "odd"])
def test_a_mask_over_the_scores_becomes_the_threshold(threshold: str) -> None:
    outcome = masked(f"m = Greater(s, {threshold})")
    node = outcome.model.graph[-1]
    assert node.attributes["score_threshold"].as_float() == pytest.approx({"least": 0.25, "odd": 0.1}[threshold])
    assert node.inputs[3] is None


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ("m = Identity(given)", "the mask is more than a comparison of the scores"),
        ("g1 = Greater(s, least) m = And(g1, given)", "the mask is more than a comparison of the scores"),
        ("m = Greater(other, least)", "the mask compares other scores, or with more than one number"),
        ("m = Greater(s, many)", "the mask compares other scores, or with more than one number"),
    ],
)
def test_a_mask_that_stays(mask: str, reason: str) -> None:
    outcome = masked(mask)
    assert outcome.reasons == [reason]
    assert "score_threshold" not in outcome.model.graph[-1].attributes
    assert outcome.model.graph[-1].inputs[3] is not None


TWO = f"""g (float[1,9,4] b, float[1,9] s, float[1,9,4] c, float[1,9] t) => (float[1,4,4] y, float[1,4,4] z) {{
   y, ys, yi, yn = {NMS}(b, s) %s
   z, zs, zi, zn = {NMS}(c, %s)
}}"""


def test_the_suppressions_of_several_images_become_one() -> None:
    outcome = run(TWO % ("", "t"))
    assert outcome.ops == ["Concat", "Concat", "MulticlassNMS", "Split"]


def test_they_stay_apart_on_request() -> None:
    assert run(TWO % ("", "t"), merge_images=False).ops == ["MulticlassNMS", "MulticlassNMS"]


def test_they_stay_apart_where_one_reads_the_other() -> None:
    text = TWO % ("r = ReduceMax<keepdims = 0>(y) u = Add(t, r)", "u")
    outcome = run(text)
    assert outcome.ops.count("MulticlassNMS") == 2
    assert outcome.reasons == ["one image's boxes depend on another's"]
