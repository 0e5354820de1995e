"""Families of models: one small network for each module of timm, each model type of transformers, and torchvision.

``catalogue()`` names them, ``build(name)`` makes one with random weights, with inputs and the dims that a user would
want dynamic.  The sizes of a transformers model are shrunk by the names of its configuration's fields; one whose shrunk
model does not run in PyTorch does not count (``NotApplicable``).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Family", "NotApplicable", "build", "catalogue"]

_BATCH = (1, 4)
_LENGTH = (4, 32)
_IMAGE = 64
# Sides of pictures that are tried before a model's own: a compilation costs as many fewer convolutions.
_SMALLER = (64, 96, 128)
_MOST_PARAMETERS = 30_000_000


class NotApplicable(Exception):
    """No small model of this family could be made to run in PyTorch."""


@dataclass(frozen=True, slots=True)
class Family:
    """A model to compile.

    Attributes:
        model: with random weights, in eval mode.
        inputs: keyword arguments of a call, or positional ones.
        dynamic: input name -> axis -> (dim name, low, high).
    """

    model: torch.nn.Module
    inputs: dict[str, Any] | tuple[Any, ...]
    dynamic: Mapping[str, Mapping[int, tuple[str, int, int]]]


def catalogue() -> list[str]:
    """Every family, ``timm/resnet``, ``torchvision/vgg11``, ``transformers/llama``, sorted."""
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    return sorted([*_timm(), *_torchvision(), *_transformers()])


def build(name: str) -> Family:
    """The family's small network.

    Raises:
        NotApplicable: it does not run in PyTorch.
    """
    from graphforge.frontend.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    torch.manual_seed(0)
    library, _, rest = name.partition("/")
    family = {"timm": _build_timm, "torchvision": _build_torchvision, "transformers": _build_transformers}[library](
        rest
    )
    family.model.eval()
    try:
        with torch.no_grad():
            if isinstance(family.inputs, dict):
                family.model(**family.inputs)
            else:
                family.model(*family.inputs)
    except Exception as error:  # whatever a model raises that was shrunk blindly
        raise NotApplicable(f"eager: {type(error).__name__}: {' '.join(str(error).split())[:160]}") from error
    return family


# -- timm --------------------------------------------------------------------------------------------------------------

_SMALL = ("test_", "atto", "femto", "pico", "nano", "xxtiny", "xxs", "zero", "tiny", "xs", "small", "_s", "18", "10")


def _timm() -> list[str]:
    import timm.models as models

    return [f"timm/{module}" for module in sorted(models._registry._module_to_models)]


def _build_timm(module: str) -> Family:
    import timm

    names = [name for name in timm.list_models(module=module) if not name.startswith("test_")] or timm.list_models(
        module=module
    )
    if not names:
        raise NotApplicable("timm lists no model in this module")

    def size(name: str) -> tuple[int, int, str]:
        rank = next((place for place, word in enumerate(_SMALL) if word in name), len(_SMALL))
        return rank, len(name), name

    model = timm.create_model(min(names, key=size), pretrained=False)
    channels, height, width = model.default_cfg.get("input_size", (3, 224, 224))
    smaller = () if model.default_cfg.get("fixed_input_size") else ((channels, one, one) for one in _SMALLER)
    return Family(model, (_taken(model, (*smaller, (channels, height, width))),), {"x": {0: ("batch", *_BATCH)}})


def _taken(model: torch.nn.Module, shapes: Iterable[tuple[int, ...]]) -> torch.Tensor:
    """A batch of two at the first of these shapes that the model takes; at the last one if it takes none."""
    model.eval()
    for shape in shapes:
        images = torch.rand(2, *shape)
        try:
            with torch.no_grad():
                model(images)
        except Exception:  # whatever a model raises at a size that is too small for it
            continue
        return images
    return images


# -- torchvision -------------------------------------------------------------------------------------------------------


def _torchvision() -> list[str]:
    import torchvision.models as models

    first: dict[str, str] = {}
    for name in models.list_models():
        builder = models.get_model_builder(name)
        first.setdefault(builder.__module__, name)
    return [f"torchvision/{name}" for name in first.values()]


def _build_torchvision(name: str) -> Family:
    import torchvision.models as models

    keywords: dict[str, Any] = {"weights": None}
    builder = models.get_model_builder(name)
    if "weights_backbone" in inspect.signature(builder).parameters:
        keywords["weights_backbone"] = None
    model = builder(**keywords)
    if "detection" in builder.__module__ or "quantization" in builder.__module__:
        raise NotApplicable("takes lists of images, or is quantised: scripts/bench detectors has the first")
    parameters = list(inspect.signature(model.forward).parameters)
    if "optical_flow" in builder.__module__:
        images = torch.rand(2, 3, 128, 128) * 2 - 1
        batch = {0: ("batch", *_BATCH)}
        return Family(model, (images, images.flip(0)), dict.fromkeys(parameters[:2], batch))
    video = "video" in builder.__module__
    last = (3, 16, 224, 224) if video else (3, 224, 224)
    images = _taken(model, [*((3, 8, one, one) if video else (3, one, one) for one in _SMALLER), last])
    return Family(model, (images,), {parameters[0]: {0: ("batch", *_BATCH)}})


# -- transformers ------------------------------------------------------------------------------------------------------

# Fields of configurations that say how large a model is -> a small value.
_TINY: dict[str, Any] = {
    **dict.fromkeys("hidden_size d_model n_embd dim emb_dim embed_dim hidden_dim encoder_dim model_dim".split(), 32),
    **dict.fromkeys(
        "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers "
        "num_encoder_layers encoder_num_hidden_layers decoder_num_hidden_layers num_blocks".split(),
        2,
    ),
    **dict.fromkeys(
        "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
        "decoder_num_attention_heads encoder_num_attention_heads".split(),
        4,
    ),
    **dict.fromkeys("num_key_value_heads num_kv_heads n_kv_heads".split(), 2),
    **dict.fromkeys("head_dim d_kv kv_channels attention_head_size attention_head_dim".split(), 8),
    **dict.fromkeys(
        "intermediate_size ffn_dim d_ff encoder_ffn_dim decoder_ffn_dim n_inner ffn_hidden_size "
        "feed_forward_size dim_feedforward decoder_intermediate_size".split(),
        64,
    ),
    **dict.fromkeys("moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size".split(), 32),
    **dict.fromkeys("num_experts num_local_experts n_routed_experts moe_num_experts".split(), 4),
    **dict.fromkeys("num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts".split(), 2),
    **dict.fromkeys("n_group topk_group".split(), 1),
    **dict.fromkeys("max_position_embeddings n_positions max_seq_len max_sequence_length".split(), 64),
    **dict.fromkeys("q_lora_rank kv_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim".split(), 8),
    "vocab_size": 99,
    "embedding_size": 32,
    "state_size": 8,
    "sliding_window": 16,
    "image_size": _IMAGE,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "use_cache": False,
    "first_k_dense_replace": 1,
}


# What must fit each other in a configuration, by model type.
_FITTING: dict[str, dict[str, Any]] = {
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 2, "mamba_chunk_size": 8},
    "deepseek_v2": {"num_key_value_heads": 4, "head_dim": 8},
    "deepseek_v3": {"num_key_value_heads": 4, "head_dim": 8},
}


def _transformers() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return [f"transformers/{kind}" for kind in MODEL_MAPPING_NAMES]


def _build_transformers(kind: str) -> Family:
    from transformers import CONFIG_MAPPING, AutoModel

    try:
        made = CONFIG_MAPPING[kind]
        config = _tiny(made)
        with torch.device("meta"):  # one that does not shrink takes all memory there is
            count = sum(parameter.numel() for parameter in AutoModel.from_config(config).parameters())
        model = AutoModel.from_config(config) if count <= _MOST_PARAMETERS else None
    except Exception as error:  # a configuration with rules that blind shrinking breaks
        raise NotApplicable(f"configuration: {type(error).__name__}: {' '.join(str(error).split())[:160]}") from error
    if model is None:
        raise NotApplicable("its configuration does not shrink by the usual fields")
    return _called(model)


def _tiny(made: Any) -> Any:
    from transformers import CONFIG_MAPPING

    fields = made().to_dict()
    chosen = {
        name: value
        for name, value in _TINY.items()
        if name in fields and not isinstance(fields[name], list | tuple | dict) and fields[name] is not None
    }
    chosen |= _FITTING.get(made.model_type, {})
    for name, value in fields.items():
        if name.endswith("_config") and isinstance(value, dict) and name in getattr(made, "sub_configs", {}):
            part = made.sub_configs[name]
            if isinstance(value.get("model_type"), str):
                part = CONFIG_MAPPING.get(value["model_type"], part)
            if part in CONFIG_MAPPING.values():
                chosen[name] = _tiny(part)
    return made(**chosen)


def _called(model: Any) -> Family:
    parameters = inspect.signature(model.forward).parameters
    batch, length = ("batch", *_BATCH), ("length", *_LENGTH)
    inputs: dict[str, Any] = {}
    dynamic: dict[str, dict[int, tuple[str, int, int]]] = {}
    if "input_ids" in parameters:
        inputs["input_ids"] = torch.randint(3, 90, (2, 12))
        dynamic["input_ids"] = {0: batch, 1: length}
        if model.config.is_encoder_decoder and "decoder_input_ids" in parameters:
            inputs["decoder_input_ids"] = torch.randint(3, 90, (2, 6))
            dynamic["decoder_input_ids"] = {0: batch, 1: ("written", *_LENGTH)}
    elif "input_features" in parameters:
        bins = getattr(model.config, "num_mel_bins", 80)
        inputs["input_features"] = (
            torch.randn(2, bins, 64) if "whisper" in model.config.model_type else torch.randn(2, 64, bins)
        )
        dynamic["input_features"] = {0: batch}
    elif "input_values" in parameters:
        inputs["input_values"] = torch.randn(2, 4000)
        dynamic["input_values"] = {0: batch, 1: ("samples", 2000, 8000)}
    if "pixel_values" in parameters and (
        not inputs or model.main_input_name == "pixel_values" or "clip" in kind_of(model)
    ):
        config = getattr(model.config, "vision_config", model.config)
        size = getattr(config, "image_size", _IMAGE) or _IMAGE
        height, width = (size, size) if isinstance(size, int) else (size[0], size[1])
        inputs["pixel_values"] = torch.rand(2, getattr(config, "num_channels", 3), height, width)
        dynamic["pixel_values"] = {0: batch}
    if not inputs:
        raise NotApplicable(f"takes {', '.join(list(parameters)[:4])}")
    return Family(model, inputs, dynamic)


def kind_of(model: Any) -> str:
    """The model type of a transformers model."""
    kind: str = model.config.model_type
    return kind
