"""raise-nms: the picks stay, number by number, whatever the boxes and however they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from graphforge.ir import Model, nodes_of
from graphforge.passes.lower_nms import LowerNms
from graphforge.passes.raise_nms import RaiseNms
from graphforge.runners.session import new_session
from graphforge.transform import PassRecord, Pipeline, VerifyGraph
from tests.ops.nms_cases import batched_case, boxes_like, scores_like
from tests.passes.harness import parse

INPUTS = "float[N,4] b, float[N] s"
HEAD = "<int64[1] zero = {0}, int64[2] both = {0, 1}, int64 box = {2}, int64[1] column = {2}, int64[1] end = {3}, "
HEAD += "int64[1] one = {1}, float one_more = {1}, int64[1] all = {9223372036854775807}, float[1] iou = {0.5}, "
HEAD += "float[1] least = {0.25}, int64[1] few = {3}, int64[1] flat = {-1}>"
BATCH = "x = Unsqueeze(b, zero) y = Unsqueeze(s, both)"

READS = {
    "gather by a scalar": "p = NonMaxSuppression(x, y, all, iou) k = Gather<axis=1>(p, box)",
    "gather and squeeze": "p = NonMaxSuppression(x, y, all, iou) c = Gather<axis=1>(p, column) k = Squeeze(c, one)",
    "slice and squeeze": "p = NonMaxSuppression(x, y, all, iou) c = Slice(p, column, end, one) k = Squeeze(c, one)",
    "slice and reshape": "p = NonMaxSuppression(x, y, all, iou) c = Slice(p, column, end, one) k = Reshape(c, flat)",
    "whole rows": "k = NonMaxSuppression(x, y, all, iou)",
    "the column as it is": "p = NonMaxSuppression(x, y, all, iou) k = Gather<axis=1>(p, column)",
    "another column too": """p = NonMaxSuppression(x, y, all, iou) c = Gather<axis=1>(p, both)
        d = Gather<axis=1>(p, box) e = Unsqueeze(d, one) k = Concat<axis=1>(c, e)""",
    "score threshold": "p = NonMaxSuppression(x, y, all, iou, least) k = Gather<axis=1>(p, box)",
    "limit": "p = NonMaxSuppression(x, y, few, iou) k = Gather<axis=1>(p, box)",
    "both": "p = NonMaxSuppression(x, y, few, iou, least) k = Gather<axis=1>(p, box)",
    "centres": "p = NonMaxSuppression<center_point_box=1>(x, y, all, iou) k = Gather<axis=1>(p, box)",
    "read twice": """p = NonMaxSuppression(x, y, all, iou) c = Gather<axis=1>(p, box) d = Gather<axis=1>(p, column)
        e = Squeeze(d, one) k = Concat<axis=0>(c, e)""",
}
SHIFT = """f = Cast<to=1>(c) m = ReduceMax<keepdims=0>(b) w = Add(m, one_more) o = Mul(f, w) u = Unsqueeze(o, one)
    a = Add(b, u) x = Unsqueeze(a, zero) y = Unsqueeze(s, both)
    p = NonMaxSuppression(x, y, all, iou) k = Gather<axis=1>(p, box)"""


def session_of(model: Model) -> onnxruntime.InferenceSession:
    return new_session(model)


def raised(text: str, inputs: str = INPUTS, **options: Any) -> tuple[Model, PassRecord]:
    model = parse(f"g ({inputs}) => (int64 k) {HEAD} {{ {text} }}")
    model.graph.outputs[0].shape = None
    (record,) = Pipeline([RaiseNms(**options)]).run(model, [VerifyGraph()])
    assert Pipeline([RaiseNms(**options)]).run(model, [VerifyGraph()])[0].changes == 0
    return model, record


def check(text: str, feeds: list[dict[str, np.ndarray]], inputs: str = INPUTS, **options: Any) -> Model:
    """The file as it was and the raised one, lowered both ways, pick the same."""
    before = session_of(parse(f"g ({inputs}) => (int64 k) {HEAD} {{ {text} }}"))
    model, _ = raised(text, inputs, **options)
    assert not any(node.op_type == "NonMaxSuppression" for node in nodes_of(model.graph))
    for form in ("native", "portable"):
        lowered, _ = raised(text, inputs, **options)
        Pipeline([LowerNms(form=form)]).run(lowered, [VerifyGraph()])
        after = session_of(lowered)
        for feed in feeds:
            expected = before.run(None, feed)[0]
            assert after.run(None, feed)[0].tolist() == expected.tolist()
    return model


def cases(count: int, *, classes: bool = False) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(count)
    made = []
    for _ in range(count):
        boxes, scores, ids = batched_case(random, classes)
        feed = {"b": boxes, "s": scores}
        made.append(feed if ids is None else {**feed, "c": ids})
    return made


@pytest.mark.parametrize("reading", READS)
def test_one_class(reading: str) -> None:
    check(f"{BATCH} {READS[reading]}", cases(30))


@pytest.mark.parametrize("reading", list(READS)[:4])
def test_what_read_the_column_reads_the_indices(reading: str) -> None:
    model, _ = raised(f"{BATCH} {READS[reading]}")
    operators = [node.op_type for node in model.graph if node.outputs[0].uses() or node.outputs[0].is_graph_output()]
    assert operators[-1] == "BatchedNMS"
    assert model.graph.opset_imports["graphforge"] == 1


def test_casts_and_two_unsqueezes_as_the_torchscript_exporter_writes_them() -> None:
    text = """x = Unsqueeze(b, zero) v = Unsqueeze(s, zero) w = Unsqueeze(v, zero) x1 = Cast<to=1>(x) y = Cast<to=1>(w)
        p = NonMaxSuppression(x1, y, all, iou) c = Gather<axis=1>(p, column) k = Squeeze(c, one)"""
    check(text, cases(20))


def test_class_offsets() -> None:
    model = check(SHIFT, cases(40, classes=True), f"{INPUTS}, int64[N] c")
    (node,) = [node for node in model.graph if node.op_type == "BatchedNMS"]
    assert node.inputs[2] is model.graph.inputs[2]


def test_shift_by_a_constant_keeps_the_shifted_boxes() -> None:
    """4096 as in many YOLO exports is not what our operator shifts by: exact only as it stands."""
    text = SHIFT.replace("m = ReduceMax<keepdims=0>(b) w = Add(m, one_more) o = Mul(f, w)", "o = Mul(f, one_more)")
    model = check(text, cases(30, classes=True), f"{INPUTS}, int64[N] c")
    (node,) = [node for node in model.graph if node.op_type == "BatchedNMS"]
    assert len(node.inputs) == 2


MANY = "float[B,N,4] b, float[B,C,N] s"


@pytest.mark.parametrize("most", ["all", "few"])
@pytest.mark.parametrize("center", [0, 1])
def test_several_images_and_classes(most: str, center: int) -> None:
    random = np.random.default_rng(5)
    feeds = []
    for _ in range(30):
        images, count, classes = (int(random.choice(some)) for some in ((1, 2, 3), (0, 1, 8, 25), (1, 2, 4)))
        boxes = np.stack(
            [boxes_like(random, count, random.choice(["random", "grid", "inverted"])) for _ in range(images)]
        )
        feeds.append(
            {"b": boxes, "s": scores_like(random, (images, classes, count), random.choice(["random", "ties"]))}
        )
    check(f"k = NonMaxSuppression<center_point_box={center}>(b, s, {most}, iou, least)", feeds, MANY, batched=True)


@pytest.mark.parametrize(
    ("text", "inputs", "options", "reason"),
    [
        ("k = NonMaxSuppression(b, s, all, iou, least)", MANY, {}, "several images or classes"),
        ("k = NonMaxSuppression(b, s, all, iou)", MANY, {"batched": True}, "without a score threshold"),
        (f"{BATCH} k = NonMaxSuppression(x, y, zero, iou)", INPUTS, {}, "it is asked for no boxes"),
        (f"{BATCH} k = NonMaxSuppression(x, y)", INPUTS, {}, "it is asked for no boxes"),
        (f"{BATCH} k = NonMaxSuppression(x, y, all, t)", INPUTS + ", float[1] t", {}, "is computed"),
    ],
)
def test_declines(text: str, inputs: str, options: dict[str, Any], reason: str) -> None:
    model, record = raised(text, inputs, **options)
    assert record.changes == 0
    assert reason in record.near_misses[0].reason
    assert "NonMaxSuppression" in [node.op_type for node in model.graph]


def test_in_the_body_of_an_if() -> None:
    """torch.jit leaves the suppression in a branch: no boxes, or some."""
    text = f"""n = Shape<end=1>(b) e = Equal(n, zero) z = Squeeze(e) k = If(z) <
        then_branch = t () => (int64[K] v) {{ w = Sub(zero, one) v = Neg(w) }},
        else_branch = o () => (int64[K] q) {{
            {BATCH} p = NonMaxSuppression(x, y, all, iou) q = Gather<axis=1>(p, box) }}>"""
    check(text, cases(10))
