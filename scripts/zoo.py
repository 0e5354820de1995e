"""The models of the zoo benchmark: architectures of torchvision, timm and transformers with random weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree

__all__ = ["ZOO", "Entry", "build"]


@dataclass(frozen=True)
class Entry:
    """One model: how to build it and call it.

    Attributes:
        name: as listed.
        make: returns (module, args, kwargs) at batch size 2.
        dynamic: input name -> axis -> (low, high): the batch, wherever the architecture lets it vary.
        replaces: the wanted model when the package no longer has it.
    """

    name: str
    make: Callable[[], tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]]
    dynamic: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)
    replaces: str = ""


def _torchvision(name: str, shape: tuple[int, ...] = (2, 3, 224, 224), **options: Any) -> Entry:
    def make() -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
        from graphforge.frontend.load import load_model

        module = load_model(f"torchvision:{name}", kwargs=options).module
        assert module is not None
        return module, (torch.randn(shape),), {}

    return Entry(f"torchvision/{name}", make, {"input" if name.startswith("lraspp") else "x": {0: (1, 4)}})


def _timm(name: str, size: int = 224, replaces: str = "") -> Entry:
    def make() -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
        from graphforge.frontend.load import load_model

        module = load_model(f"timm:{name}").module
        assert module is not None
        return module, (torch.randn(2, 3, size, size),), {}

    return Entry(f"timm/{name}", make, {"x": {0: (1, 4)}}, replaces)


def _raft() -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
    from graphforge.frontend.load import load_model

    module = load_model("torchvision:raft_small").module
    assert module is not None
    return module, (torch.randn(2, 3, 128, 128), torch.randn(2, 3, 128, 128)), {"num_flow_updates": 3}


def _transformers(
    name: str,
    config: str,
    model: str,
    settings: dict[str, Any],
    inputs: Callable[[], dict[str, torch.Tensor]],
    part: str = "",
) -> Entry:
    def make() -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
        from graphforge.frontend.torchvision_fix import ensure_torchvision

        ensure_torchvision()
        transformers = importlib.import_module("transformers")
        whole = getattr(transformers, model)(getattr(transformers, config)(**settings))
        module = whole.get_encoder() if part == "encoder" else whole
        return module, (), inputs()

    return Entry(f"transformers/{name}", make, {key: {0: (1, 4)} for key in inputs()})


def _ids(length: int = 48, vocabulary: int = 512) -> Callable[[], dict[str, torch.Tensor]]:
    return lambda: {
        "input_ids": torch.randint(3, vocabulary, (2, length)),
        "attention_mask": torch.ones(2, length, dtype=torch.int64),
    }


def _pixels(size: int) -> Callable[[], dict[str, torch.Tensor]]:
    return lambda: {"pixel_values": torch.randn(2, 3, size, size)}


_SMALL = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}

ZOO: tuple[Entry, ...] = (
    _torchvision("resnet50"),
    _torchvision("mobilenet_v3_large"),
    _torchvision("efficientnet_b0"),
    _torchvision("regnet_y_400mf"),
    _torchvision("densenet121"),
    _torchvision("inception_v3", (2, 3, 299, 299)),
    _torchvision("googlenet"),
    _torchvision("shufflenet_v2_x1_0"),
    _torchvision("swin_t"),
    _torchvision("swin_v2_t", (2, 3, 256, 256)),
    _torchvision("vit_b_16"),
    _torchvision("convnext_tiny"),
    _torchvision("maxvit_t"),
    _torchvision("deeplabv3_resnet50", (2, 3, 128, 128)),
    _torchvision("lraspp_mobilenet_v3_large"),
    _torchvision("fcn_resnet50", (2, 3, 128, 128)),
    # torch.chunk over the stacked image pair ties the batch to one size at capture: compiled once for each batch size
    Entry("torchvision/raft_small", _raft),
    _torchvision("r3d_18", (2, 3, 8, 112, 112)),
    _timm("hrnet_w18"),
    _timm("efficientvit_b0"),
    _timm("fastvit_t8", 256),
    _timm("levit_128"),
    _timm("coat_tiny"),
    _timm("mobilevit_s", 256),
    _timm("repvgg_a0"),
    _timm("eva02_tiny_patch14_224"),
    _timm("mixer_s32_224"),
    _transformers("bert", "BertConfig", "BertModel", {**_SMALL, "vocab_size": 512}, _ids()),
    _transformers(
        "distilbert",
        "DistilBertConfig",
        "DistilBertModel",
        {"dim": 128, "n_layers": 3, "n_heads": 4, "hidden_dim": 256, "vocab_size": 512},
        _ids(),
    ),
    _transformers(
        "gpt2",
        "GPT2Config",
        "GPT2LMHeadModel",
        {"n_embd": 128, "n_layer": 3, "n_head": 4, "vocab_size": 512, "use_cache": False},
        _ids(),
    ),
    _transformers(
        "t5_encoder",
        "T5Config",
        "T5EncoderModel",
        {"d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 3, "num_heads": 4, "vocab_size": 512},
        _ids(),
    ),
    _transformers(
        "whisper_encoder",
        "WhisperConfig",
        "WhisperModel",
        {
            "d_model": 128,
            "encoder_layers": 3,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 256,
            "num_mel_bins": 80,
            "max_source_positions": 200,
            "decoder_layers": 1,
            "decoder_attention_heads": 4,
        },
        lambda: {"input_features": torch.randn(2, 80, 400)},
        part="encoder",
    ),
    _transformers(
        "clip_vision",
        "CLIPVisionConfig",
        "CLIPVisionModel",
        {**_SMALL, "image_size": 64, "patch_size": 16},
        _pixels(64),
    ),
    _transformers(
        "dinov2",
        "Dinov2Config",
        "Dinov2Model",
        {
            "hidden_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "mlp_ratio": 2,
            "image_size": 70,
            "patch_size": 14,
        },
        _pixels(70),
    ),
    _transformers("segformer", "SegformerConfig", "SegformerForSemanticSegmentation", {"num_labels": 8}, _pixels(128)),
    _transformers(
        "detr",
        "DetrConfig",
        "DetrForObjectDetection",
        {
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "num_queries": 20,
        },
        _pixels(128),
    ),
    _transformers("mobilevit", "MobileViTConfig", "MobileViTModel", {"image_size": 128}, _pixels(128)),
    _transformers(
        "yolos",
        "YolosConfig",
        "YolosForObjectDetection",
        {**_SMALL, "image_size": [64, 96], "patch_size": 16, "num_detection_tokens": 10},
        lambda: {"pixel_values": torch.randn(2, 3, 64, 96)},
    ),
    _transformers(
        "llama",
        "LlamaConfig",
        "LlamaModel",
        {**_SMALL, "num_key_value_heads": 2, "vocab_size": 512, "use_cache": False},
        _ids(),
    ),
)


def build(name: str) -> tuple[Entry, torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The entry of that name and its model in eval mode, weights drawn from a fixed seed."""
    entry = next(entry for entry in ZOO if entry.name == name)
    torch.manual_seed(0)
    module, args, kwargs = entry.make()
    module.eval()
    _enliven(module, args, kwargs)
    return entry, module, args, kwargs


@torch.no_grad()
def _enliven(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Make a freshly initialised network compute something that a comparison can tell from zero.

    Layers that start as all zeros (classifier heads, layer scales) are drawn.  Where the output has faded all the same,
    batch norms take the statistics of one batch; only there, since random networks normalised so amplify rounding.
    """
    for parameter in module.parameters():
        if parameter.dim() >= 2 and not parameter.any():
            parameter.normal_(0, 0.02)
    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    outputs = [leaf for leaf in _pytree.tree_leaves(module(*args, **kwargs)) if isinstance(leaf, torch.Tensor)]
    if not norms or all(float(output.abs().max()) > 1e-3 for output in outputs):
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 0.99  # not 1: a channel that hardly varies must not be blown up
    module(*args, **kwargs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
