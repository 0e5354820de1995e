"""Random weights that give results worth comparing: without a checkpoint, scores are spread and boxes are boxes.

A model as its config initialises it gives saturated or exactly tied scores, of which any comparison says nothing.  Here
batch normalisation takes its statistics from noise, and each last layer of a dense head is scaled so that its results
spread: scores around a mean below the threshold, all else around nought.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graphforge.errors import GraphForgeError

if TYPE_CHECKING:
    from graphforge.frontend.openmmlab.load import Built

__all__ = ["calibrate", "spread_bins"]

# A side no longer than this is enough noise for statistics.
_LONGEST = 320
_DEVIATION = 1.0
# Of fewer pictures, statistics of deep layers say nothing of the next one.
_PICTURES = 4
# Among the bins of an axis, as logits: a peak stands out, and no two far apart share nearly everything.
_BINS = 2.0
_VECTORS = 256
# Of scores: as logits, so that a few in a hundred are above the usual thresholds.
_SCORES = (-3.0, 1.5)


def calibrate(built: Built, pictures: Tensor | None = None) -> None:
    """Set statistics and last layers of a model with random weights, in place; always the same ones.

    Args:
        built: the model.
        pictures: what its results are to spread on, a batch as its backbone takes it; None is noise.  Photos look
            different from noise: on them, scores that are apart on noise may all be 1.
    """
    model: Any = built.model
    noise = _noise(built) if pictures is None else pictures
    if noise is None:
        return
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum, norm.training = None, True
        norm.reset_running_stats()
    with torch.no_grad():
        _run(model, noise)
    for norm in norms:
        norm.momentum, norm.training = 0.1, False
        _keep_the_mean(norm)
    head = _head_of(model)
    if head is None:
        return
    with torch.no_grad():
        feats = model.extract_feat(noise)  # once: of what is scaled, none stands before the head
    for name, layer in _last_layers(head):
        _spread(head, layer, feats, *((_SCORES) if _scores(name) else (0.0, _DEVIATION)))
    if hasattr(head, "dcc"):
        with torch.no_grad():
            vectors = torch.cat([one.flatten(2).mT.flatten(0, 1) for one in head(feats)[-1]])
        spread_bins(head.dcc, vectors[:: max(1, len(vectors) // _VECTORS)], float(max(noise.shape[-2:])))


def _noise(built: Built) -> Tensor | None:
    """Noise of the config's size; None where the config does not say the size."""
    from graphforge.frontend.openmmlab.wrapped import input_size

    try:
        height, width = input_size(built)
    except GraphForgeError:
        return None
    if max(height, width) > _LONGEST and not _fixed(built.model):
        height = width = _LONGEST
    return torch.randn([_PICTURES, 3, height, width], generator=torch.Generator().manual_seed(1))


def _head_of(model: Any) -> nn.Module | None:
    head = getattr(model, "bbox_head", None) or getattr(model, "head", None)
    return head if isinstance(head, nn.Module) else None


def _keep_the_mean(norm: Any) -> None:
    """Divide by the root mean square, and subtract nothing.

    Deep layers see the whole picture wherever they stand: their results are nearly one constant, and a norm that
    subtracts it would magnify rounding with what is left, layer by layer.
    """
    norm.running_var.add_(norm.running_mean**2)
    norm.running_mean.zero_()


def _fixed(model: Any) -> bool:
    """Whether the head's weights are made for one size of input."""
    return "Topdown" in type(model).__name__


def _run(model: Any, noise: Tensor) -> Any:
    feats = model.extract_feat(noise)
    head = _head_of(model)
    return feats if head is None else head(feats)


def _last_layers(head: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers of a head behind which no normalisation stands: convolutions with a bias, and the axes of SimCC."""
    found = []
    for name, module in head.named_modules():
        last = name.rpartition(".")[2]
        if (isinstance(module, nn.Conv2d) and module.bias is not None) or last in ("cls_x", "cls_y"):
            found.append((name, module))
    return found


def _scores(name: str) -> bool:
    return any(word in name for word in ("cls", "obj", "vis")) and not name.endswith(("cls_x", "cls_y"))


def _spread(head: nn.Module, layer: nn.Module, feats: Any, mean: float, deviation: float) -> None:
    """Scale a layer so that what it gives for the features of noise has a mean and a deviation."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _given, result: seen.append(copy.copy(result.detach())))
    try:
        with torch.no_grad():
            head(feats)
    finally:
        handle.remove()
    if not seen:
        return
    given = torch.cat([one.flatten() for one in seen])
    spread = float(given.std())
    if not spread > 0:
        return
    parameters: Any = layer
    with torch.no_grad():
        parameters.weight.mul_(deviation / spread)
        if parameters.bias is not None:
            parameters.bias.mul_(deviation / spread).add_(mean - float(given.mean()) * deviation / spread)


def spread_bins(decoder: Any, vectors: Tensor, side: float) -> None:
    """Scale what RTMO's decoder says of the bins of each axis, so that their logits are apart as in a trained one.

    As it is initialised they reach 300: whichever of two distant bins is the larger gets all, and where they are nearly
    equal, rounding alone moves the keypoint by pixels.

    Args:
        decoder: MMPose's ``DCC``.
        vectors: what it is given of each pose, [poses, channels].
        side: of a box, in pixels.
    """
    places = vectors.new_zeros(len(vectors), 2)
    with torch.no_grad():
        bins = decoder._get_bin_enc(torch.cat([places, places + side], dim=1), places)
        for layer, logits in zip(
            (decoder.x_fc, decoder.y_fc), decoder._pose_feats_to_heatmaps(vectors, *bins), strict=True
        ):
            spread = float(logits.std(dim=-1).mean())
            if spread > 0:
                layer.weight.mul_(_BINS / spread)
                layer.bias.mul_(_BINS / spread)
