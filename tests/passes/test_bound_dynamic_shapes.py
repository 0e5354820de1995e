"""Ragged tensors in fixed shapes: every road from a mask to the outputs, against eager, at many counts."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphforge
from graphforge.errors import GraphForgeError
from graphforge.frontend.torchvision_fix import ensure_torchvision
from graphforge.passes.bound_dynamic_shapes import PADDED_OUTPUTS, BoundDynamicShapes
from graphforge.runners.padding import unpadded
from graphforge.runners.session import new_session
from graphforge.targets import get_target, options_for
from graphforge.transform import Pipeline
from tests.passes.harness import parse

ensure_torchvision()
# by name, as users do
batched_nms: Any = importlib.import_module("torchvision.ops").batched_nms

compiling: Any = importlib.import_module("graphforge.prepare")


class Fn(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def check(
    function: Callable[..., Any], *examples: tuple[Tensor, ...], form: str = "padded", nms: str = "native"
) -> tuple[list[Any], onnxruntime.InferenceSession]:
    """Compile to fixed shapes, run every example, and compare what is left without padding with eager."""
    prepared = compiling.prepare(Fn(function), examples[0])
    model, _ = compiling.to_ir(prepared)
    compiling.to_canonical(model)
    target = get_target("onnx")
    if form == "padded":
        Pipeline(target.pipeline(options_for(target, outputs="padded", nms=nms))).run(model)
    else:  # the same walk, its results cut to their counts
        bounded = BoundDynamicShapes(outputs="ragged")
        Pipeline([bounded, *target.pipeline(options_for(target, nms=nms))]).run(model)
    import onnx_ir

    proto = onnx_ir.to_proto(model)
    session = new_session(proto)
    if form == "padded":
        for output in session.get_outputs():
            assert all(isinstance(size, int) for size in output.shape), output.name
    recipe = model.meta.get(PADDED_OUTPUTS, [])
    names = [value.name for value in session.get_inputs()]
    results = []
    for example in examples:
        feeds = dict(zip(names, (tensor.numpy() for tensor in example), strict=True))
        held = dict(zip([one.name for one in session.get_outputs()], session.run(None, feeds), strict=True))
        got = unpadded(held, recipe) if form == "padded" else held
        if "output_0" in got:  # those that were never ragged come last
            got = dict(sorted(got.items()))
        expected = function(*example)
        leaves = torch.utils._pytree.tree_leaves(expected)
        assert len(got) == len(leaves)
        for (name, array), leaf in zip(got.items(), leaves, strict=True):
            assert array.shape == tuple(leaf.shape), name
            np.testing.assert_allclose(array, leaf.numpy(), rtol=1e-6, atol=1e-6, err_msg=name)
        results.append(leaves)
    return results, session


def cases(*, count: int = 12, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Boxes and scores of which none, some and all pass 0.5."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 4, generator=generator) * 50
    boxes[:, 2:] += boxes[:, :2]
    mixed = torch.rand(count, generator=generator)
    all_pass = torch.linspace(0.91, 0.99, count).flip(0)  # no ties: torch's topk picks any of equal scores
    return [(boxes, mixed), (boxes, torch.zeros(count)), (boxes, all_pass), (boxes.flip(0), mixed.flip(0))]


@pytest.fixture(params=["padded", "ragged"])
def form(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def masked(boxes: Tensor, scores: Tensor) -> Any:
    keep = scores > 0.5
    return boxes[keep], scores[keep], torch.where(keep)[0]


def test_a_mask(form: str) -> None:
    results, _ = check(masked, *cases(), form=form)
    assert [len(one[1]) for one in results][1:3] == [0, 12]
    assert 0 < len(results[0][1]) < 12


def test_a_mask_of_a_mask(form: str) -> None:
    def function(boxes: Tensor, scores: Tensor) -> Any:
        first = scores > 0.3
        boxes, scores = boxes[first], scores[first]
        second = torch.where((boxes[:, 2] - boxes[:, 0] > 15) & (scores < 0.9))[0]
        return boxes[second], scores[second], second

    check(function, *cases(), form=form)


def test_top_k_of_a_mask_and_back_to_the_rows(form: str) -> None:
    def function(boxes: Tensor, scores: Tensor) -> Any:
        keep = torch.where(scores > 0.5)[0]
        best, order = scores[keep].topk(min(4, keep.shape[0]))
        chosen = keep[order]
        return boxes[chosen] * best[:, None], chosen, order

    check(function, *cases(), form=form)


def test_arithmetic_shapes_and_layers(form: str) -> None:
    torch.manual_seed(1)
    linear, conv = nn.Linear(4, 6), nn.Conv2d(1, 3, 3, padding=1)

    def function(boxes: Tensor, scores: Tensor) -> Any:
        keep = scores > 0.5
        chosen = boxes[keep]
        hidden = torch.softmax(linear(chosen), dim=1)
        maps = conv(chosen.reshape(-1, 1, 2, 2)).amax(dim=(2, 3))
        corners = torch.stack([chosen[:, :2], chosen[:, 2:]], dim=1).transpose(1, 2)
        return hidden, torch.cat([maps, scores[keep][:, None]], dim=1), corners, chosen.sum(1).clamp(max=80)

    with torch.no_grad():
        check(function, *cases(), form=form)


def test_rows_take_in_their_classes_and_are_masked_again(form: str) -> None:
    """What Faster R-CNN does: [R, C] scores and [R, C, 4] boxes become one list."""
    torch.manual_seed(2)
    weights = torch.rand(4, 3)

    def function(boxes: Tensor, scores: Tensor) -> Any:
        keep = scores > 0.4
        chosen = boxes[keep]
        per_class = (chosen @ weights).sigmoid()
        labels = torch.arange(3).view(1, -1).expand_as(per_class).reshape(-1)
        wide = (chosen[:, None] + torch.arange(3.0)[:, None]).reshape(-1, 4)
        flat = per_class.reshape(-1)
        again = torch.where(flat > 0.9)[0]
        return wide[again], flat[again], labels[again]

    check(function, *cases(), form=form)


def test_the_best_class_of_each_row(form: str) -> None:
    """What a head does that picks candidates by objectness before it looks at their classes."""

    def function(boxes: Tensor, scores: Tensor) -> Any:
        keep = scores > 0.5
        chosen = boxes[keep]
        best, labels = chosen.max(1)
        upright, kept = chosen.reshape(-1, 2, 2).min(1, keepdim=True)
        return chosen[best > 30], labels[best > 30], chosen.t().argmin(0), upright, kept

    check(function, *cases(), form=form)


def test_joined_and_cut_where_it_was_joined(form: str) -> None:
    def function(boxes: Tensor, scores: Tensor) -> Any:
        first, second = boxes[scores > 0.5], boxes[scores < 0.2]
        both = torch.cat([first, second, boxes[:2]]) * 2
        a, b, c = both.split([first.shape[0], second.shape[0], 2])
        return both, a, b + 1, c

    check(function, *cases(), form=form)


def test_sizes_make_new_tensors(form: str) -> None:
    def function(boxes: Tensor, scores: Tensor) -> Any:
        chosen = boxes[scores > 0.5]
        ones = torch.ones(chosen.shape[0], 2)
        ranks = torch.arange(chosen.shape[0])
        return torch.cat([ranks[:, None].float(), chosen, ones], dim=1), torch.full_like(chosen[:, :1], 3.0)

    check(function, *cases(), form=form)


def test_reduced_over_the_ragged_axis(form: str) -> None:
    def function(boxes: Tensor, scores: Tensor) -> Any:
        keep = scores > 0.2
        chosen = boxes[keep]
        return chosen.sum(0), chosen.cumsum(0), chosen + 1

    check(function, *cases()[:1], *cases()[3:], form=form)


def test_single_rows_from_the_front_and_from_the_end(form: str) -> None:
    def function(boxes: Tensor, scores: Tensor) -> Any:
        chosen = boxes[scores > 0.5]
        return chosen[0], chosen[-1], chosen[-2] + chosen[1], chosen * 2

    check(function, *cases()[:1], *cases()[2:], form=form)


def test_the_first_so_many(form: str) -> None:
    def function(boxes: Tensor, scores: Tensor) -> Any:
        chosen = boxes[scores > 0.5]
        return chosen[:3], chosen[:3, 1:]

    check(function, *cases(), form=form)


def _kept(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with a positive sum, and these sums."""
    sums = x.sum(1)
    return x[sums > 0], sums[sums > 0]


_ROWS = [(torch.randn(12, 4, generator=torch.Generator().manual_seed(seed)),) for seed in range(3)]
_SOME = [*_ROWS, (torch.ones(12, 4),), (torch.cat([torch.ones(1, 4), -torch.ones(11, 4)]),)]
_NONE = (-torch.ones(12, 4),)


def test_statistics_of_the_kept(form: str) -> None:
    def function(x: Tensor) -> Any:
        rows, sums = _kept(x)
        return rows.mean(0), sums.mean(), rows.mean(), sums / sums.sum(), sums.argmax(), rows[rows[:, 1].argmin()]

    check(function, *_SOME, form=form)


def test_rows_filled_up_to_a_fixed_number_by_hand(form: str) -> None:
    def written(x: Tensor) -> Any:
        rows, _ = _kept(x)
        out = torch.zeros(16, 4)
        out[: rows.shape[0]] = rows
        return out

    def padded(x: Tensor) -> Any:
        rows, sums = _kept(x)
        missing = 16 - rows.shape[0]
        return functional.pad(rows, (0, 0, 0, missing)), functional.pad(sums, (0, missing), value=-2.0)

    def joined(x: Tensor) -> Any:
        rows, _ = _kept(x)
        return torch.cat([rows, torch.full((16 - rows.shape[0], 4), 7.0)])

    def cut(x: Tensor) -> Any:
        rows, _ = _kept(x)
        return torch.cat([rows, torch.zeros(5, 4)])[:5]

    for function in (written, padded, joined, cut):
        check(function, *_SOME, _NONE, form=form)


def test_the_lesser_of_a_number_and_a_count_ends_a_slice(form: str) -> None:
    def function(x: Tensor) -> Any:
        rows, sums = _kept(x)
        order = sums.argsort(descending=True)[: min(5, rows.shape[0])]
        return rows[order], rows[: min(3, rows.shape[0])]

    check(function, *_SOME, _NONE, form=form)


def test_masks_of_the_kept_are_enlarged(form: str) -> None:
    def function(x: Tensor) -> Any:
        rows, _ = _kept(x)
        masks = rows.view(-1, 2, 2)
        large = functional.interpolate(masks[None], (5, 6), mode="bilinear")[0]
        return (
            large > 0,
            functional.max_pool2d(large[None], 2)[0],
            functional.interpolate(masks[:, None], scale_factor=2),
        )

    check(function, *_SOME, form=form)


def test_gathered_by_the_kept(form: str) -> None:
    def function(x: Tensor) -> Any:
        rows, sums = _kept(x)
        order = sums.argsort(descending=True)[:4]
        places = order[:, None].expand(-1, 4)
        return rows.gather(0, places), x.gather(0, places)

    check(function, *_SOME, _NONE, form=form)


def test_whole_rows_picked_element_by_element(form: str) -> None:
    def function(x: Tensor) -> Any:
        keep = x.sum(1) > 0
        rows = x.masked_select(keep[:, None].expand(-1, 4)).view(-1, 4)
        return rows, x.sum(1)[keep] + rows[:, 0]

    check(function, *_SOME, _NONE, form=form)


def test_every_kept_row_against_every_other(form: str) -> None:
    def function(x: Tensor) -> Any:
        rows, sums = _kept(x)
        order = sums.argsort(descending=True)
        rows = rows[order]
        near = torch.minimum(rows[:, None, :2], rows[None, :, :2]).prod(2)
        worst = near.triu(1).sum(0)
        keep = torch.nonzero(near.triu(1).gt(0.5).sum(0) == 0).squeeze(1)
        return rows[keep], sums[order][keep], worst, (near > 0.1).any(1), near.amin(1)

    check(function, *_ROWS, (torch.ones(12, 4),), form=form)


def test_a_matrix_of_the_kept_is_no_output() -> None:
    def function(x: Tensor) -> Any:
        rows, _ = _kept(x)
        return rows[:, None, 0] * rows[:, 0]

    with pytest.raises(GraphForgeError, match="two sizes of output"):
        check(function, *_ROWS)


def test_bounds_are_those_of_the_largest_promised_sizes(tmp_path: Path) -> None:
    class Picks(nn.Module):
        def forward(self, x: Tensor) -> Any:
            scores = x.flatten(1)[0]
            rows = torch.stack([scores, scores * 2], 1)
            strong = scores > 0
            places = torch.nonzero(x[0] > 0.5)
            picked = x[0][tuple(places.unbind(1))]  # of an axis that is shorter than what was promised
            return rows[strong], scores[strong][:4], places, (x[0] > 0.5).sum(), picked

    x = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    sizes = {"x": {1: (2, 8, 2), 2: (3, 9)}}
    bundle = graphforge.compile(Picks(), (x,), dynamic_shapes=sizes, outputs="padded", output=tmp_path / "bundle")
    session = new_session(str(tmp_path / "bundle" / "model.onnx"))
    assert [output.shape for output in session.get_outputs()][:3] == [[72, 2], [4], [72, 2]]
    assert bundle.manifest["verification"]["passed"]


@pytest.mark.parametrize("nms", ["native", "portable"])
def test_suppression_and_what_follows_the_kept(form: str, nms: str) -> None:
    def function(boxes: Tensor, scores: Tensor) -> Any:
        keep = scores > 0.1
        boxes, scores = boxes[keep], scores[keep]
        classes = (boxes[:, 0] * 7).long() % 3
        kept = batched_nms(boxes, scores, classes, 0.3)[:5]
        return boxes[kept], scores[kept], classes[kept], kept

    check(function, *cases(count=40), *cases(count=40, seed=5), form=form, nms=nms)


@pytest.mark.parametrize("nms", ["native", "portable"])
def test_images_of_a_batch_are_stacked_and_suppressed_together(nms: str) -> None:
    def function(boxes: Tensor, scores: Tensor) -> Any:
        results = []
        for image in range(3):
            keep = scores[image] > 0.25
            chosen, best = boxes[image][keep], scores[image][keep]
            labels = torch.where(keep)[0] % 2
            kept = batched_nms(chosen, best, labels, 0.4)[:6]
            results.append({"boxes": chosen[kept], "scores": best[kept], "labels": labels[kept]})
        return results

    def batch(seed: int) -> tuple[Tensor, Tensor]:
        pairs = [cases(count=20, seed=seed + at)[kind] for at, kind in enumerate((0, 1, 2))]  # some, none, all
        return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])

    _, session = check(function, batch(0), batch(9), nms=nms)
    assert {one.name: one.shape for one in session.get_outputs()} == {
        "boxes": [3, 6, 4],
        "scores": [3, 6],
        "labels": [3, 6],
        "num_dets": [3],
    }


def test_images_share_one_suppression_with_its_threshold() -> None:
    def function(boxes: Tensor, scores: Tensor) -> Any:
        results = []
        for image in range(2):
            keep = scores[image] > 0.25
            labels = torch.where(keep)[0] % 2
            kept = batched_nms(boxes[image][keep], scores[image][keep], labels, 0.4)[:6]
            results.append({"boxes": boxes[image][keep][kept]})
        return results

    pair = cases(count=20)[0]
    prepared = compiling.prepare(Fn(function), (torch.stack([pair[0]] * 2), torch.stack([pair[1]] * 2)))
    model, facts = compiling.to_ir(prepared)
    assert facts["substitutions"][0]["calls"] == 2
    compiling.to_canonical(model)
    Pipeline.parse("bound-dynamic-shapes,replace-batched-nms,eliminate-dead-code").run(model)
    nodes = [node for node in model.graph if node.op_type == "MulticlassNMS"]
    assert len(nodes) == 1
    assert nodes[0].attributes["score_threshold"].as_float() == 0.25
    assert nodes[0].attributes["keep_top_k"].as_int() == 6
    assert len(nodes[0].inputs) == 3  # no mask is left


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda boxes, scores: torch.softmax(scores[scores > 0.5], 0), "mixes positions"),
        (lambda boxes, scores: boxes[scores > 0.5].reshape(2, -1), "Reshape"),
        (lambda boxes, scores: boxes[scores > 0.5][-3:], "Slice counts from the end"),
        (lambda boxes, scores: torch.unique(scores.round()), "has no fixed form"),
        (lambda boxes, scores: boxes[: int((scores * 9).long().sum() % 4)], "has no fixed form"),
    ],
)
def test_what_has_no_form_is_refused_with_its_line(function: Callable[..., Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(GraphForgeError, match=reason) as caught:
        graphforge.compile(Fn(function), cases()[0], outputs="padded", output=tmp_path / "out")
    assert "test_bound_dynamic_shapes.py" in str(caught.value)
    assert "ask for ragged outputs" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("data", "mask", "reason"),
    [("x", "second", "picked in another way"), ("x", "few", "shorter than the axis"), ("third", "second", "")],
)
def test_a_mask_of_another_selection_is_refused(data: str, mask: str, reason: str) -> None:
    """Equal in length by chance, perhaps, but not the same rows."""
    model = parse(
        "g (float[4] x, bool[4] a, bool[4] b, bool[3] few) => (float[n] y) {"
        " third = Compress<axis=0>(x, a) second = Compress<axis=0>(b, a)"
        f" y = Compress<axis=0>({data}, {mask}) }}"
    )
    if reason:
        with pytest.raises(GraphForgeError, match=reason):
            Pipeline([BoundDynamicShapes()]).run(model)
    else:
        Pipeline([BoundDynamicShapes()]).run(model)
        assert [value.name for value in model.graph.outputs] == ["y", "num_dets"]


def test_a_graph_without_ragged_tensors_is_left_alone() -> None:
    prepared = compiling.prepare(nn.Linear(4, 2), torch.randn(3, 4))
    model, _ = compiling.to_ir(prepared)
    (record,) = Pipeline([BoundDynamicShapes()]).run(model)
    assert not record.changes
    assert PADDED_OUTPUTS not in model.meta


def test_padding_that_holds_something_fails_verification() -> None:
    recipe = [{"restores": "a", "output": "a", "image": None, "count": "num_dets", "axis": 0}]
    outputs = {"a": np.array([1.0, 2.0, 0.0]), "num_dets": np.array([2])}
    assert unpadded(outputs, recipe)["a"].tolist() == [1.0, 2.0]
    with pytest.raises(GraphForgeError, match="something else than 0 in its padding"):
        unpadded({**outputs, "a": np.array([1.0, 2.0, 3.0])}, recipe)
    with pytest.raises(GraphForgeError, match="says 4 rows, there are 3"):
        unpadded({**outputs, "num_dets": np.array([4])}, recipe)
