"""Random NMS cases, hard ones on purpose, and sessions that run many of them through one lowered graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

from graphforge.ir import HOME_OPSET, Builder
from graphforge.ops.batched_nms import batched_nms
from graphforge.ops.multiclass_nms import multiclass_nms
from graphforge.passes.lower_nms import LowerNms
from graphforge.runners.session import new_session
from graphforge.transform import Pipeline, VerifyGraph

__all__ = [
    "FORMS",
    "NOT_CONVERGED",
    "SETTINGS",
    "Batched",
    "Multiclass",
    "batched_case",
    "boxes_like",
    "lowered_operators",
    "same",
    "scores_like",
]

_NUMPY = {"float": np.float32, "float16": np.float16}
Dims = tuple[int | str, ...]

NOT_CONVERGED = "not converged"


def boxes_like(random: np.random.Generator, count: int, kind: str) -> np.ndarray:
    """[count, 4] float32 of one kind."""
    size = float(random.choice([4, 16, 100]))
    corner = random.uniform(-size, size, (count, 2))
    extent = random.uniform(0, size, (count, 2))
    if kind == "grid":  # many equal boxes, IoUs that are exact fractions
        corner, extent = (random.integers(0, 3, (count, 2)).astype(np.float64) for _ in range(2))
    elif kind == "inverted":  # corners swapped in one axis or both
        extent = random.uniform(-size, size, (count, 2))
    elif kind == "flat":  # no area in one axis or both
        extent = extent * random.integers(0, 2, (count, 2))
    elif kind == "chain":  # IoU 0.6 with the next, 0.33 with the one after
        corner = np.stack([np.arange(count) * 2.5, np.zeros(count)], axis=1)
        extent = np.full((count, 2), 10.0)
    elif kind == "same":
        corner, extent = np.ones((count, 2)), np.ones((count, 2))
    elif kind == "huge":  # areas that overflow
        corner, extent = corner * 1e19, extent * 1e19
    boxes: np.ndarray = np.concatenate([corner, corner + extent], axis=1).astype(np.float32)
    return boxes


KINDS = ("random", "random", "grid", "inverted", "flat", "chain", "same", "huge")


def scores_like(random: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """float32 scores of one kind."""
    scores = random.uniform(0, 1, shape)
    if kind == "ties":
        scores = random.integers(0, 3, shape) / 4
    elif kind == "equal":
        scores = np.full(shape, 0.5)
    elif kind == "falling":  # with chains: each box suppresses the next
        scores = np.broadcast_to(np.linspace(1, 0.1, shape[1]).reshape(-1, *[1] * (len(shape) - 2)), shape)
    elif kind == "logits":
        scores = random.normal(0, 50, shape)
    elif kind == "infinite":
        scores = random.choice([-np.inf, np.inf, -3.4028235e38, -3e38, 0.0, -0.0, 1.0], shape)
    return np.ascontiguousarray(scores, dtype=np.float32)


SCORES = ("random", "ties", "equal", "falling", "logits", "infinite")


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal in dtype, shape and every bit, but for the sign of zero, which ONNX Runtime's Where does not keep."""
    zero = ours.dtype.type(0)
    return (
        ours.dtype == theirs.dtype
        and ours.shape == theirs.shape
        and (ours + zero).tobytes() == (theirs + zero).tobytes()
    )


def _lowered(
    operator: str, inputs: Mapping[str, tuple[str, Dims]], outputs: int, attributes: Mapping[str, Any], lowering: Any
) -> ir.Model:
    """A graph of one node, lowered by the pass; inputs whose names start with - are left out."""
    values = [
        None
        if name.startswith("-")
        else ir.Value(name=name, type=ir.TensorType(ir.DataType[kind.upper()]), shape=ir.Shape(dims))
        for name, (kind, dims) in inputs.items()
    ]
    given = [value for value in values if value is not None]
    graph = ir.Graph(given, [], nodes=[], name="nms", opset_imports={"": HOME_OPSET, "graphforge": 1})
    op = Builder(graph)
    made = op.node(operator, values, _domain="graphforge", _outputs=outputs, **attributes)
    for position, value in enumerate([made] if isinstance(made, ir.Value) else made):
        value.name = f"result_{position}"
        graph.outputs.append(value)
    model = ir.Model(graph, ir_version=10)
    Pipeline([lowering]).run(model, [VerifyGraph()])
    return model


def lowered_operators(operator: str, inputs: Mapping[str, tuple[str, Dims]], lowering: LowerNms) -> list[str]:
    """The operators that one node with default attributes becomes."""
    outputs = 1 if operator == "BatchedNMS" else 4
    return [node.op_type for node in _lowered(operator, inputs, outputs, {"iou_threshold": 0.5}, lowering).graph]


def _session(*arguments: Any) -> onnxruntime.InferenceSession:
    return new_session(_lowered(*arguments))


@dataclass
class Batched:
    """BatchedNMS with dynamic N, lowered once."""

    lowering: LowerNms
    iou_threshold: float
    classes: bool
    offset_limit: int = 0
    dtype: str = "float"
    count: int | str = "N"
    session: onnxruntime.InferenceSession = field(init=False)

    def __post_init__(self) -> None:
        inputs: dict[str, tuple[str, Dims]] = {
            "boxes": (self.dtype, (self.count, 4)),
            "scores": (self.dtype, (self.count,)),
        }
        if self.classes:
            inputs["class_ids"] = ("int64", (self.count,))
        attributes = {"iou_threshold": self.iou_threshold, "offset_limit": self.offset_limit}
        self.session = _session("BatchedNMS", inputs, 1, attributes, self.lowering)

    def differs(self, boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray | None) -> str:
        """What is different from the reference, nothing when all is equal."""
        feeds = {"boxes": boxes.astype(_NUMPY[self.dtype]), "scores": scores.astype(_NUMPY[self.dtype])}
        if class_ids is not None:
            feeds["class_ids"] = class_ids
        ours = self.session.run(None, feeds)
        tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
        keep = batched_nms(
            tensors["boxes"], tensors["scores"], tensors.get("class_ids"), self.iou_threshold, self.offset_limit
        ).numpy()
        if len(ours) > 1 and not ours[1]:
            return NOT_CONVERGED
        return "" if same(ours[0], keep) else f"keep {ours[0].tolist()}, expected {keep.tolist()}"


@dataclass
class Multiclass:
    """MulticlassNMS with dynamic dims unless they are given, lowered once."""

    lowering: LowerNms
    attributes: Mapping[str, Any]
    per_class: bool = True
    ids: bool = False
    valid: bool = False
    dtype: str = "float"
    dims: tuple[int | str, int | str, int | str] = ("B", "N", "C")
    session: onnxruntime.InferenceSession = field(init=False)

    def __post_init__(self) -> None:
        images, count, classes = self.dims
        inputs: dict[str, tuple[str, Dims]] = {
            "boxes": (self.dtype, (images, count, 4)),
            "scores": (self.dtype, (images, count, classes) if self.per_class else (images, count)),
            ("class_ids" if self.ids else "-ids"): ("int64", (images, count)),
            ("valid" if self.valid else "-valid"): ("bool", (images, count)),
        }
        self.session = _session("MulticlassNMS", inputs, 4, self.attributes, self.lowering)

    def differs(
        self, boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray | None, valid: np.ndarray | None
    ) -> str:
        """What is different from the reference, nothing when all is equal."""
        feeds = {"boxes": boxes.astype(_NUMPY[self.dtype]), "scores": scores.astype(_NUMPY[self.dtype])}
        if class_ids is not None:
            feeds["class_ids"] = class_ids
        if valid is not None:
            feeds["valid"] = valid
        ours = self.session.run(None, feeds)
        tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
        theirs = multiclass_nms(
            tensors["boxes"],
            tensors["scores"],
            tensors.get("class_ids"),
            tensors.get("valid"),
            **self.attributes,
        )
        if len(ours) > 4 and not ours[4]:
            return NOT_CONVERGED
        for name, one, other in zip(("dets", "labels", "indices", "count"), ours, theirs, strict=False):
            if not same(one, other.numpy()):
                return f"{name}: {one.tolist()}, expected {other.tolist()}"
        return ""

    def case(self, random: np.random.Generator) -> tuple[Any, Any, Any, Any]:
        """Random inputs that fit; one case in eight has no box, one in eight is large."""
        images, count, classes = (
            known if isinstance(known, int) else int(random.choice(some))
            for known, some in zip(self.dims, ((1, 1, 2, 3), (0, 1, 2, 7, 12, 20, 33, 60), (1, 2, 5)), strict=True)
        )
        kind, scoring = random.choice(KINDS), random.choice(SCORES)
        if kind == "chain" and random.integers(2):
            scoring = "falling"
        shape = (images, count, classes) if self.per_class else (images, count)
        boxes = np.stack([boxes_like(random, count, kind) for _ in range(images)])
        scores = scores_like(random, shape, scoring)
        ids = random.integers(0, int(random.choice([1, 3, 80, 1203])), (images, count)) if self.ids else None
        valid = random.integers(0, int(random.choice([1, 4])) + 1, (images, count)) > 0 if self.valid else None
        return boxes, scores, ids, valid


def batched_case(random: np.random.Generator, classes: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Random inputs of a BatchedNMS."""
    count = int(random.choice([0, 1, 2, 7, 20, 49, 50, 51, 90]))
    kind, scoring = random.choice(KINDS), random.choice(SCORES)
    if kind == "chain" and random.integers(2):
        scoring = "falling"
    scores = scores_like(random, (1, count), scoring)[0]
    ids = random.integers(-2, int(random.choice([1, 3, 80, 1203])), count) if classes else None
    return boxes_like(random, count, kind), scores, ids


# What the attributes of MulticlassNMS do to one another; thresholds that float32 holds and such that it does not.
SETTINGS: tuple[dict[str, Any], ...] = (
    {"iou_threshold": 0.5},
    {"iou_threshold": 0.3, "max_per_class": 2},
    {"iou_threshold": 0.5, "pre_top_k": 20, "keep_top_k": 5},
    {"iou_threshold": 0.7, "keep_top_k": 7, "score_threshold": 0.25},
    {"iou_threshold": 0.5, "keep_top_k": 500, "pre_top_k": 400, "max_per_class": 1},
    {"iou_threshold": 0.5, "offset_limit": 120, "max_per_class": 3},
    {"iou_threshold": 0.45, "offset_limit": 120, "pre_top_k": 40},
    {"iou_threshold": 0.5, "offset_limit": 4000, "pre_top_k": 40, "keep_top_k": 10, "score_threshold": 0.1},
    {"iou_threshold": 0.0, "offset_limit": 60, "score_threshold": -1.0},
    {"iou_threshold": 1.5, "keep_top_k": 3},
)
FORMS: tuple[dict[str, Any], ...] = ({"per_class": True}, {"per_class": False}, {"per_class": False, "ids": True})
