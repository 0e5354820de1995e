"""torchvision's six detectors, small and with random weights that give some detections, as model specs.

    graphforge compile scripts/gallery/torchvision_heads.py:ssd --nms portable --outputs padded

Each function returns (model, inputs); ``_batch3`` ones take three pictures, whose numbers of detections differ.
Weights are random, drawn from a fixed seed: class scores are spread so that no two detections of these pictures are
within rounding of each other, as they are in a trained network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from graphforge.frontend.torchvision_fix import ensure_torchvision
from scripts.gallery.random_weights import SIZE, pictures, spread

Example = tuple[nn.Module, tuple[list[Tensor]]]


def _build(name: str, seed: int, **settings: Any) -> Any:
    ensure_torchvision()
    from torchvision.models import detection

    torch.manual_seed(seed)
    return getattr(detection, name)(weights=None, weights_backbone=None, **settings).eval()


def _spread(model: nn.Module, layers: list[Any], deviation: float, shift: float = 0.0) -> None:
    spread(lambda images: model(list(images)), layers, deviation, shift)


def ssd(images: int = 1) -> Example:
    """SSDlite on MobileNetV3."""
    model = _build("ssdlite320_mobilenet_v3_large", 1, num_classes=12)
    _spread(model, [part[-1] for part in model.head.classification_head.module_list], 2.0)
    _spread(model, [part[-1] for part in model.head.regression_head.module_list], 0.8)
    model.score_thresh, model.detections_per_img, model.topk_candidates = 0.65, 50, 100
    return model, (list(pictures(images)),)


def retinanet(images: int = 1) -> Example:
    """RetinaNet on ResNet-50 with a feature pyramid."""
    model = _build("retinanet_resnet50_fpn", 2, num_classes=12, min_size=SIZE, max_size=SIZE)
    nn.init.normal_(model.head.classification_head.cls_logits.weight)
    _spread(model, [model.head.classification_head.cls_logits], 1.2, shift=-3.0)
    _spread(model, [model.head.regression_head.bbox_reg], 0.3)
    model.score_thresh, model.detections_per_img, model.topk_candidates = 0.3, 60, 200
    return model, (list(pictures(images)),)


def fcos(images: int = 1) -> Example:
    """FCOS on ResNet-50 with a feature pyramid."""
    model = _build("fcos_resnet50_fpn", 3, num_classes=12, min_size=SIZE, max_size=SIZE)
    nn.init.normal_(model.head.classification_head.cls_logits.weight)
    _spread(model, [model.head.classification_head.cls_logits], 1.5, shift=-3.5)
    nn.init.normal_(model.head.regression_head.bbox_ctrness.weight)
    _spread(model, [model.head.regression_head.bbox_ctrness], 1.5)
    model.score_thresh = 0.62
    return model, (list(pictures(images)),)


def faster_rcnn(images: int = 1) -> Example:
    """Faster R-CNN on ResNet-50 with a feature pyramid."""
    return _rcnn("fasterrcnn_resnet50_fpn", 4), (list(pictures(images)),)


def mask_rcnn(images: int = 1) -> Example:
    """Mask R-CNN."""
    return _rcnn("maskrcnn_resnet50_fpn", 5), (list(pictures(images)),)


def keypoint_rcnn(images: int = 1) -> Example:
    """Keypoint R-CNN."""
    model = _rcnn("keypointrcnn_resnet50_fpn", 6)
    model.roi_heads.score_thresh = 0.8  # not every picture has as many as are kept
    return model, (list(pictures(images)),)


def _rcnn(name: str, seed: int) -> Any:
    model = _build(
        name, seed, num_classes=6 if "keypoint" not in name else 2, min_size=SIZE, max_size=SIZE,
        rpn_pre_nms_top_n_test=60, rpn_post_nms_top_n_test=40, box_detections_per_img=20,
    )  # fmt: skip
    nn.init.normal_(model.rpn.head.cls_logits.weight)
    _spread(model, [model.rpn.head.cls_logits], 2.0)
    nn.init.normal_(model.rpn.head.bbox_pred.weight)
    _spread(model, [model.rpn.head.bbox_pred], 0.3)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight)
    _spread(model, [model.roi_heads.box_predictor.cls_score], 2.0)
    model.roi_heads.score_thresh = 0.4
    if model.roi_heads.mask_predictor is not None:
        _spread(model, [model.roi_heads.mask_predictor.mask_fcn_logits], 0.5)
    return model


def ssd_batch3() -> Example:
    """Three pictures."""
    return ssd(3)


def retinanet_batch3() -> Example:
    """Three pictures."""
    return retinanet(3)


def fcos_batch3() -> Example:
    """Three pictures."""
    return fcos(3)


def faster_rcnn_batch3() -> Example:
    """Three pictures."""
    return faster_rcnn(3)


def mask_rcnn_batch3() -> Example:
    """Three pictures."""
    return mask_rcnn(3)


def keypoint_rcnn_batch3() -> Example:
    """Three pictures."""
    return keypoint_rcnn(3)
