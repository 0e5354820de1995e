"""Substitutes for what MMPose computes in numpy, picture by picture, keypoint by keypoint: the same on batches.

What a head decodes becomes one `InstanceData` whose fields have the batch for their first axis; `mmpose_codecs.py` has
the codecs in tensors, each written after the stock one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphforge.errors import GraphForgeError, argument
from graphforge.frontend.substitutes.mmpose_codecs import DECODERS
from graphforge.frontend.substitution import substitute
from graphforge.ops import batched_nms as _batched_nms

__all__: list[str] = []

assert _batched_nms  # it defines torch.ops.graphforge.batched_nms


@substitute("mmpose.models.heads.base_head.BaseHead.decode", required=False)
def decode(self: Any, batch_outputs: Any) -> list[Any]:
    """The whole batch at once, by the codec in tensors."""
    from mmengine.structures import InstanceData

    name = type(self.decoder).__name__
    if name not in DECODERS:
        raise GraphForgeError(
            f"MMPose's codec {name} cannot be expressed in tensors",
            f"those that have: {', '.join(DECODERS)}",
            f"the outputs of the head as they are: {argument('decode', 'none')}",
        )
    given = batch_outputs if isinstance(batch_outputs, tuple) else (batch_outputs,)
    keypoints, scores, visible = DECODERS[name](self.decoder, *given)
    decoded = InstanceData(keypoints=keypoints, keypoint_scores=scores)
    if visible is not None:
        decoded.keypoints_visible = visible
    return [decoded]


@substitute("mmpose.models.pose_estimators.topdown.TopdownPoseEstimator.add_pred_to_datasample", required=False)
def add_poses(self: Any, batch_pred_instances: Any, batch_pred_fields: Any, batch_data_samples: Any) -> Any:
    """Into the first sample, which stands for the batch; the box is the whole input, so that nothing is mapped."""
    (instances,) = batch_pred_instances
    picked = self.test_cfg.get("output_keypoint_indices", None)
    if picked is not None:
        for name, value in list(instances.items()):
            if name.startswith("keypoint"):
                instances.set_field(value[:, picked], name)
    sample = batch_data_samples[0]
    sample.pred_instances = instances
    return [sample]


@substitute("mmpose.models.pose_estimators.bottomup.BottomupPoseEstimator.add_pred_to_datasample", required=False)
def add_people(self: Any, batch_pred_instances: Any, batch_pred_fields: Any, batch_data_samples: Any) -> Any:
    """The people of each picture, in pixels of the input as they are."""
    for instances, sample in zip(batch_pred_instances, batch_data_samples, strict=True):
        sample.pred_instances = instances
    return batch_data_samples


@substitute("mmpose.evaluation.functional.nms.nms_torch", required=False)
def nms_torch(
    bboxes: Tensor, scores: Tensor, threshold: float = 0.65, iou_calculator: Any = None, return_group: bool = False
) -> Tensor:
    """One operator; the original takes box after box from a list until none is left."""
    if return_group:
        raise GraphForgeError(
            "MMPose's nms_torch with return_group=True returns as many tensors as there are groups",
            "declare a substitute for the function that uses the groups (graphforge.substitute)",
        )
    kept: Tensor = torch.ops.graphforge.batched_nms(bboxes, scores, None, threshold, 0)
    return kept
