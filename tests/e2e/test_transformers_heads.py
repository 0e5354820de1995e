"""Heads of transformers' detectors and segmenters, small and with random weights, compiled and verified as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphforge
from graphforge.frontend.torchvision_fix import ensure_torchvision
from graphforge.spec import DimRange

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    ensure_torchvision()
    torch.manual_seed(0)


class _Prompted(nn.Module):
    """Masks and their quality from an image's embedding and any number of points."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

        vision = SamVisionConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=64,
            patch_size=8,
            output_channels=256,
            window_size=4,
            global_attn_indexes=[0],
            mlp_dim=64,
        )
        prompts = SamPromptEncoderConfig(image_size=64, patch_size=8, mask_input_channels=4)
        masks = SamMaskDecoderConfig(mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32)
        config = SamConfig(
            vision_config=vision.to_dict(),
            prompt_encoder_config=prompts.to_dict(),
            mask_decoder_config=masks.to_dict(),
        )
        self.model = SamModel(config)

    def forward(self, embeddings: Tensor, points: Tensor, labels: Tensor) -> Any:
        found = self.model(image_embeddings=embeddings, input_points=points, input_labels=labels)
        return found.pred_masks, found.iou_scores


def test_masks_from_any_number_of_points(tmp_path: Path) -> None:
    count = DimRange("count", 1, 6)
    example = torch.randn(1, 256, 8, 8), torch.rand(1, 1, 3, 2) * 64, torch.ones(1, 1, 3, dtype=torch.int64)
    bundle = graphforge.compile(
        _Prompted().eval(),
        example,
        dynamic_shapes={"points": {2: count}, "labels": {2: count}},
        output=tmp_path / "bundle",
    )
    assert bundle.manifest["verification"]["verdict"] == "passed"


class _Detector(nn.Module):
    """RT-DETR v2: proposals by an inner TopK, sampled attention over three feature maps."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

        backbone = RTDetrResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 16, 24, 32],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        )
        config = RTDetrV2Config(
            backbone_config=backbone,
            encoder_in_channels=[16, 24, 32],
            encoder_hidden_dim=16,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            d_model=16,
            encoder_layers=1,
            decoder_layers=2,
            num_queries=20,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            decoder_in_channels=[16, 16, 16],
            num_labels=5,
        )
        self.model = RTDetrV2ForObjectDetection(config)

    def forward(self, x: Tensor) -> Any:
        found = self.model(pixel_values=x)
        return found.logits, found.pred_boxes


def test_a_detector_that_ranks_proposals_at_any_batch(tmp_path: Path) -> None:
    bundle = graphforge.compile(
        _Detector().eval(),
        (torch.rand(2, 3, 96, 96),),
        dynamic_shapes={"x": {0: DimRange("batch", 1, 4)}},
        output=tmp_path / "bundle",
    )
    assert bundle.manifest["verification"]["verdict"] == "passed"
