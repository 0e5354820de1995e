"""Metrics of whole pictures: the right label, the right class of each pixel, the right pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphforge.errors import GraphForgeError
from graphforge.evaluation.metric import Seen
from graphforge.runtime.files import Array, read_picture
from graphforge.runtime.steps import Colour, Normalise, Scale, Step
from graphforge.runtime.warping import resized

__all__ = ["MeanIoU", "Restored", "TopLabels", "ssim"]

_IGNORED = 255  # a pixel that nobody labelled


class TopLabels:
    """The share of pictures whose label scores highest, or is among the five that do."""

    def record(self, seen: Seen) -> Any:
        """Before how many labels the right one stands."""
        scores = _only(seen.outputs, lambda array: array.ndim == 1, "scores of labels, one row a picture")
        label = int(seen.sample.truth)
        if label >= len(scores):
            raise GraphForgeError(
                f"picture {seen.sample.name!r} has label {label}, and the model scores labels 0 to {len(scores) - 1}"
            )
        order = np.argsort(-scores.astype(np.float64), kind="stable")
        return int(np.flatnonzero(order == label)[0])

    def figures(self, records: Sequence[Any]) -> Mapping[str, float]:
        """``top-1`` and ``top-5``."""
        places = np.array(records)
        return {"top-1": float((places < 1).mean()), "top-5": float((places < 5).mean())}


class MeanIoU:
    """Intersection over union of each class's pixels, over all pictures, and its mean; 255 is not counted."""

    def record(self, seen: Seen) -> Any:
        """For each class how many pixels are of it in both, in the model's answer, and in the truth."""
        truth = np.asarray(read_picture(seen.sample.truth, grey=True)) if _is_grey(seen) else _palette(seen)
        scores = _only(seen.outputs, lambda array: array.ndim in (2, 3), "scores or labels of pixels")
        if scores.ndim == 2:
            scores = (np.arange(int(scores.max()) + 1)[:, None, None] == scores).astype(np.float32)
        part = seen.row.placement.masks_to_picture(scores, seen.row.picture, seen.row.size)
        planes = np.ascontiguousarray(part.transpose(1, 2, 0), np.float32)
        whole = resized(planes, (truth.shape[1], truth.shape[0]))
        found = whole.argmax(axis=2)
        counted = truth != _IGNORED
        classes = max(whole.shape[2], int(truth[counted].max(initial=0)) + 1)
        pairs = np.bincount(truth[counted].astype(np.int64) * classes + found[counted], minlength=classes**2)
        table = pairs.reshape(classes, classes)
        return [table.diagonal().tolist(), table.sum(axis=0).tolist(), table.sum(axis=1).tolist()]

    def figures(self, records: Sequence[Any]) -> Mapping[str, float]:
        """``mIoU`` over the classes that there are, ``accuracy`` of pixels, and each class's own."""
        most = max(len(record[0]) for record in records)
        sums = sum(np.array([[*row, *[0] * (most - len(row))] for row in record], np.int64) for record in records)
        both, found, truth = np.asarray(sums)
        union = found + truth - both
        each = {f"IoU {label}": float(both[label] / union[label]) for label in range(most) if truth[label]}
        mean = float(np.mean(list(each.values()))) if each else 0.0
        return {"mIoU": mean, "accuracy": float(both.sum() / max(truth.sum(), 1)), **each}


class Restored:
    """PSNR and SSIM of pictures that a model makes, as bytes, against those that they should be.

    Args:
        steps: what becomes of a picture; they say in which range and order of channels the model works.
        peak: what the brightest pixel is in the model's output; None takes it from the steps.
    """

    def __init__(self, steps: Sequence[Step], peak: float | None = None) -> None:
        if peak is None and any(isinstance(step, Normalise) for step in steps):
            raise GraphForgeError(
                "the range of the model's output is not known: its pre-processing subtracts a mean",
                "say what its brightest pixel is: peak=1 or peak=255",
            )
        factors = [step.by for step in steps if isinstance(step, Scale)]
        self.peak = float(255 * np.prod(factors)) if peak is None else peak
        self.blue_first = any(isinstance(step, Colour) and step.order == "bgr" for step in steps)

    def record(self, seen: Seen) -> Any:
        """PSNR in decibels, SSIM."""
        made = _only(seen.outputs, lambda array: array.ndim == 3 and array.shape[0] in (1, 3), "a picture")
        pixels = np.clip(np.rint(made.astype(np.float64).transpose(1, 2, 0) / self.peak * 255), 0, 255)
        truth = np.asarray(read_picture(seen.sample.truth, grey=made.shape[0] == 1), np.float64)
        truth = truth.reshape(*truth.shape[:2], -1)
        if self.blue_first and made.shape[0] == 3:
            pixels = pixels[..., ::-1]
        if pixels.shape != truth.shape:
            raise GraphForgeError(
                f"picture {seen.sample.name!r} becomes {pixels.shape[1]}x{pixels.shape[0]}, and should be "
                f"{truth.shape[1]}x{truth.shape[0]}"
            )
        error = float(((pixels - truth) ** 2).mean())
        return [float("inf") if error == 0 else 10 * np.log10(255**2 / error), ssim(pixels, truth)]

    def figures(self, records: Sequence[Any]) -> Mapping[str, float]:
        """The means of all pictures."""
        psnr, similar = np.array(records, np.float64).T
        return {"PSNR": float(psnr.mean()), "SSIM": float(similar.mean())}


def ssim(one: Array, other: Array) -> float:
    """Structural similarity (Wang 2004) of [H, W, C], 0 to 255, under a Gaussian window of 11 pixels."""
    if min(one.shape[:2]) < 11:
        raise GraphForgeError("SSIM looks at windows of 11 pixels, and the picture is smaller")
    first, second = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_one, mean_other = _blurred(one), _blurred(other)
    spread_one = _blurred(one * one) - mean_one**2
    spread_other = _blurred(other * other) - mean_other**2
    shared = _blurred(one * other) - mean_one * mean_other
    above = (2 * mean_one * mean_other + first) * (2 * shared + second)
    below = (mean_one**2 + mean_other**2 + first) * (spread_one + spread_other + second)
    return float((above / below).mean())


def _blurred(pixels: Array) -> Array:
    """Under a Gaussian of sigma 1.5, where the window is inside."""
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        inside = pixels.shape[axis] - 10
        pixels = sum(weight * pixels.take(range(at, at + inside), axis=axis) for at, weight in enumerate(weights))
    return pixels


def _only(outputs: Mapping[str, Array], fits: Any, what: str) -> Array:
    fitting = [array for array in outputs.values() if fits(array)]
    if len(fitting) != 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in outputs.items())
        raise GraphForgeError(f"the outputs are not what this metric looks at, {what}: {shapes} of one picture")
    return fitting[0]


def _is_grey(seen: Seen) -> bool:
    from PIL import Image

    with Image.open(seen.sample.truth) as opened:
        return opened.mode != "P"


def _palette(seen: Seen) -> Array:
    """The numbers of a picture with a palette, which are the labels."""
    from PIL import Image

    with Image.open(seen.sample.truth) as opened:
        return np.asarray(opened)
