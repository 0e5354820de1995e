"""An OpenMMLab model as a module of one tensor: in, a normalised batch; out, named tensors.

``decode="full"`` calls the framework's own ``predict``, in pixels of the model's input; it is the reference of the
verification, and what is captured of it goes through `substitutes/mm*.py`.  ``decode="batch"`` gives what is found on
each picture of any batch in padded rows.  ``decode="none"`` calls the head's ``forward``.  ``decode="sdk"`` gives what
MMDeploy's SDK takes: of a top-down pose model what the head returns (``simcc_x`` and ``simcc_y``, ``output``), of a
detector ``dets`` and ``labels``, of a one-stage pose model ``dets`` and ``keypoints``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graphforge.errors import GraphForgeError, argument
from graphforge.frontend.openmmlab.batched import Batched
from graphforge.frontend.openmmlab.configs import pipeline_of, step_of

if TYPE_CHECKING:
    from graphforge.frontend.openmmlab.load import Built

__all__ = ["example_of", "input_size", "wrap"]

# The framework's name of a result -> ours.
_NAMES = {"bboxes": "boxes", "scores": "scores", "labels": "labels", "masks": "masks", "bbox_scores": "scores"}


def wrap(built: Built, decode: str) -> nn.Module:
    """The module that is compiled.

    Raises:
        GraphForgeError: nothing is known of models of this kind.
    """
    if decode == "none" or (decode == "sdk" and not _finds_boxes(built)):
        return Raw(built.model, built.codebase).eval()
    if decode == "sdk":
        return ForSdk(wrap(built, "full")).eval()
    if decode == "batch" and _finds_boxes(built):
        return Batched(wrap(built, "full")).eval()
    if built.codebase == "mmpose":
        if _groups(built.model):
            return Candidates(built.model, built.meta, input_size(built)).eval()
        if not hasattr(built.model, "head") or not callable(getattr(built.model, "predict", None)):
            raise _unknown(built)
        return Poses(built.model, built.meta, input_size(built)).eval()
    if built.codebase == "mmdet":
        return Detections(built.model).eval()
    if built.codebase == "mmpretrain":
        return Classes(built.model).eval()
    if built.codebase == "mmseg":
        return Segments(built.model).eval()
    raise _unknown(built)


def _unknown(built: Built) -> GraphForgeError:
    return GraphForgeError(
        f"nothing is known of how {type(built.model).__name__} of {built.codebase} decodes its results",
        f"the outputs of its network as they are: {argument('decode', 'none')}",
    )


def _finds_boxes(built: Built) -> bool:
    """Whether its decoded results are boxes, which the SDK takes behind their suppression."""
    return built.codebase == "mmdet" or type(getattr(built.model, "head", None)).__name__ in (
        "YOLOXPoseHead",
        "RTMOHead",
    )


def _groups(model: Any) -> bool:
    """Whether its keypoints are put together to people by tags, which no graph does."""
    return type(getattr(getattr(model, "head", None), "decoder", None)).__name__ == "AssociativeEmbedding"


def input_size(built: Built) -> tuple[int, int]:
    """Height and width of the model's input, as the config tests with it."""
    pipeline = pipeline_of(built.config)
    for name in ("TopdownAffine", "BottomupResize"):
        step = step_of(pipeline, name)
        if step is not None and step.get("input_size"):
            width, height = step["input_size"]
            return int(height), int(width)
    sized = [("Pad", "size"), ("CenterCrop", "crop_size"), ("ResizeEdge", "scale"), ("Resize", "scale")]
    for name, key in sized:
        step = step_of(pipeline, name)
        size = None if step is None else step.get(key)
        if isinstance(size, int):
            size = (size, size)
        if not size:
            continue
        width, height = int(size[0]), int(size[1])
        divisor = int((built.config.model.get("data_preprocessor") or {}).get("pad_size_divisor", 1) or 1)
        return tuple(-(-side // divisor) * divisor for side in (height, width))  # type: ignore[return-value]
    codec = built.config.get("codec")
    if isinstance(codec, dict) and codec.get("input_size"):
        width, height = codec["input_size"]
        return int(height), int(width)
    raise GraphForgeError(
        f"config {built.file.name} does not say what size the model's input has",
        f"say it: {argument('inputs', 'input:1x3x256x192')}",
    )


def example_of(built: Built) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """One normalised picture of noise of the config's size; None where the config does not say the size."""
    try:
        height, width = input_size(built)
    except GraphForgeError:
        return None
    generator = torch.Generator().manual_seed(0)
    return (torch.randn([1, 3, height, width], generator=generator),), {}


def _named(instances: list[Any], like: Tensor) -> dict[str, Tensor]:
    """Fields of the results of each picture, under our names; those of several pictures are numbered."""
    named: dict[str, Tensor] = {}
    for number, one in enumerate(instances):
        suffix = f"_{number}" if len(instances) > 1 else ""
        fields = dict(one.items())
        for key in [key for key in (*_NAMES, "keypoints", "keypoint_scores") if key in fields]:
            named.setdefault(_NAMES.get(key, key) + suffix, _typed(fields[key], like))
    return named


def _see_that_fixed(input: Tensor) -> None:
    """Results picture by picture are as many as there are pictures."""
    if type(input.shape[0]) is not int:
        raise GraphForgeError(
            "what is found on each picture of a batch comes out by itself, so the batch cannot be dynamic",
            f"all pictures in one set of tensors, rows padded: {argument('decode', 'batch')}",
        )


def _typed(value: Any, like: Tensor) -> Tensor:
    """A result in the model's own element type: numpy makes float64 of what it scales by whole numbers."""
    tensor = torch.as_tensor(value)
    return tensor.to(like.dtype) if tensor.is_floating_point() else tensor


class Poses(nn.Module):
    """A pose estimator with its decoding: keypoints in pixels of the input, and their scores."""

    def __init__(self, model: Any, meta: dict[str, Any], size: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        self._meta = {"flip_indices": meta.get("flip_indices"), "aug_scales": None}
        self._size = size
        self._dense = "Bottomup" in type(model).__name__

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        if self._dense:
            _see_that_fixed(input)
        results = self.model.predict(input, self._samples(input))
        instances = [one.pred_instances for one in results]
        if self._dense:
            return _named(instances, input)
        fields = [dict(one.items()) for one in instances]
        names = [name for name in ("keypoints", "keypoint_scores", "keypoints_visible") if name in fields[0]]
        if not hasattr(self.model.head.decoder, "decode_visibility") or not self.model.head.decoder.decode_visibility:
            names = names[:2]  # the same tensor as the scores otherwise
        return {name: torch.cat([_typed(one[name], input) for one in fields]) for name in names}

    def _samples(self, input: Tensor) -> list[Any]:
        """One sample for each picture, with the whole input for its box; one for all while a batch has no size."""
        import numpy as np
        from mmengine.structures import InstanceData
        from mmpose.structures import PoseDataSample

        count = input.shape[0]
        height, width = (input.shape[2], input.shape[3]) if self._dense else self._size
        # what is captured maps nothing, so that a size which is not known yet is not asked for
        known = type(height) is int and type(width) is int
        size = np.array([width, height] if known else [0, 0], dtype=np.float32)
        samples = []
        for _ in range(count if type(count) is int else 1):
            sample = PoseDataSample(
                metainfo={
                    **self._meta,
                    "img_shape": (height, width),
                    "ori_shape": (height, width),
                    "input_size": (width, height),
                    "input_center": size / 2,
                    "input_scale": size,
                }
            )
            sample.gt_instances = InstanceData(
                bboxes=np.concatenate([[0, 0], size])[None].astype(np.float32), bbox_scores=np.ones(1, np.float32)
            )
            samples.append(sample)
        return samples


class Candidates(Poses):
    """A bottom-up estimator up to its grouping: the best places of each heatmap with score and tag, and the maps.

    Grouping by tags is an assignment problem that is solved outside of any graph; what it needs comes out here.
    """

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        from mmpose.codecs.utils import batch_heatmap_nms

        head = self.model.head
        decoder = head.decoder
        flip = self.model.test_cfg.get("flip_test", False)
        feats = self.model.extract_feat(input)
        if flip:
            feats = [feats, self.model.extract_feat(input.flip(-1))]
        caught: list[Any] = []
        # the framework's own predict up to its call of decode, which is handed the maps
        decode, head.decode = head.decode, _catching(caught)
        try:
            head.predict(feats, self._samples(input), test_cfg=self.model.test_cfg)
        finally:
            head.decode = decode
        heatmaps, tags = caught[0]
        peaks = batch_heatmap_nms(heatmaps, decoder.decode_nms_kernel)
        scores, tags_of_best, places = decoder._get_batch_topk(peaks, tags, k=decoder.decode_topk)
        return {
            "candidate_scores": scores,
            "candidate_tags": tags_of_best,
            "candidates": places,
            "heatmaps": heatmaps,
            "tags": tags,
        }


def _catching(caught: list[Any]) -> Any:
    def decode(outputs: Any) -> list[Any]:
        caught.append(outputs)
        return []

    return decode


class Detections(nn.Module):
    """A detector with its suppression: boxes in pixels of the input, scores, labels, masks where it has them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        from mmdet.structures import DetDataSample

        _see_that_fixed(input)
        shape = (input.shape[2], input.shape[3])
        samples = []
        for _ in range(input.shape[0]):
            sample = DetDataSample()
            sample.set_metainfo(
                {
                    "img_shape": shape,
                    "ori_shape": shape,
                    "pad_shape": shape,
                    "batch_input_shape": shape,
                    "scale_factor": (1.0, 1.0),
                }
            )
            samples.append(sample)
        results = self.model.predict(input, samples, rescale=False)
        return _named([one.pred_instances for one in results], input)


class ForSdk(nn.Module):
    """Boxes with their scores in one tensor, and one picture's axis in front, as MMDeploy's SDK takes them."""

    def __init__(self, decoded: nn.Module) -> None:
        super().__init__()
        self.decoded = decoded

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        if input.shape[0] != 1:
            raise GraphForgeError(
                f"MMDeploy's SDK takes detections of one picture at a time, and the batch is {input.shape[0]}",
                f"give a batch of 1, or leave {argument('decode', 'sdk')} out",
            )
        found = self.decoded(input)
        dets = torch.cat([found["boxes"], found["scores"][:, None]], dim=1)[None]
        if "keypoints" not in found:
            return {"dets": dets, "labels": found["labels"][None]}
        points = torch.cat([found["keypoints"], found["keypoint_scores"][..., None]], dim=2)
        return {"dets": dets, "keypoints": points[None]}


class Classes(nn.Module):
    """A classifier: the score of each class."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        scores = self.model.head(self.model.extract_feat(input)).softmax(-1)
        return {"scores": scores}


class Segments(nn.Module):
    """A segmenter: the class of each pixel."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        meta = [{"img_shape": tuple(input.shape[2:]), "ori_shape": tuple(input.shape[2:])}] * int(input.shape[0])
        return {"classes": self.model.encode_decode(input, meta).argmax(1)}


class Raw(nn.Module):
    """The network without decoding: what its head's forward returns, under the SDK's names."""

    def __init__(self, model: Any, codebase: str) -> None:
        super().__init__()
        self.model = model
        self._codebase = codebase

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        model = self.model
        feats = model.extract_feat(input)
        if self._codebase == "mmpose":
            return _flat(model.head.forward(feats), _pose_names(model.head))
        if self._codebase == "mmdet" and hasattr(model, "bbox_head"):
            return _flat(model.bbox_head.forward(feats), ("cls_scores", "bbox_preds", "score_factors"))
        if hasattr(model, "decode_head"):
            return _flat(model.decode_head.forward(feats), ("output",))
        if hasattr(model, "head") and model.head is not None:
            return _flat(model.head.forward(feats), ("output",))
        return _flat(feats, ("output",))


def _pose_names(head: Any) -> tuple[str, ...]:
    kind = type(head).__name__
    if kind in ("RTMCCHead", "SimCCHead", "RTMWHead"):
        return ("simcc_x", "simcc_y")
    if kind == "AssociativeEmbeddingHead":
        return ("heatmaps", "tags")
    if kind == "YOLOXPoseHead":
        return ("cls_scores", "objectnesses", "bbox_preds", "kpt_offsets", "kpt_vis")
    if kind == "RTMOHead":
        return ("cls_scores", "bbox_preds", "kpt_offsets", "kpt_vis", "pose_vecs")
    return ("output",)


def _flat(results: Any, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Nested results as one dict: the head's own words, numbered where there are several of one."""
    parts = list(results) if isinstance(results, tuple | list) else [results]
    if names == ("output",) and len(parts) > 1:
        parts = parts[-1:]  # stages, of which the last one counts
    named: dict[str, Tensor] = {}
    for place, part in enumerate(parts):
        name = names[place] if place < len(names) else f"output_{place}"
        inner = [one for one in (part if isinstance(part, tuple | list) else [part]) if isinstance(one, Tensor)]
        if names == ("output",):
            inner = inner[-1:]
        for number, one in enumerate(inner):
            named[name if len(inner) == 1 else f"{name}_{number}"] = one
    return named
